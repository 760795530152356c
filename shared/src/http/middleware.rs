//! Middleware that every request passes: identification, limits, timeout and response headers.

use std::{
    any::Any, net::IpAddr, num::NonZeroU32, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{
        HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
};
use futures_util::FutureExt;
use hyper::body::Incoming;
use tokio::{
    select,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::cors::CorsLayer;

use super::{
    Connection,
    access::{Access, Identity},
    body_drain::{self, Unread},
    callers::CallerArgs,
    fair_semaphore::{CallerId, FairSemaphore},
    origin::Origins,
    proxies::{Proxies, network},
    rates::{Allowance, Rates},
    rejection::Rejection,
    request_id::{self, REQUEST_ID},
    request_metrics::Routes,
};
use crate::telemetry::{request::LoggedRequest, traces};

/// Timeout of a request, including the arrival of its body. A statement takes 10 s at most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Delay of the answer to a caller that exceeds its rate.
///
/// After this time, its whole rate is available again.
/// Without it, a caller that ignores refusals would keep a processor busy with them, and other
/// callers would notice. Requests through a trusted proxy are refused at once, because each of them
/// occupies one of the proxy's connections, which its clients share.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// Path prefix of the health checks.
///
/// Load balancers have no key, and must not be refused because others send too many requests.
const HEALTH: &str = "/health/";

/// Sender of a request.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Result of authenticating the request.
    pub identity: Identity,
    /// Caller for which permits of a [`FairSemaphore`] are counted.
    pub caller: CallerId,
    /// Connection on which the request arrived.
    pub connection: Arc<Connection>,
}

/// Middleware in front of the routes of a listener.
pub struct Middleware {
    /// Router that gets the admitted requests.
    pub routes: Router,
    /// Access policy. Handlers find the [`Sender`] among the request's extensions.
    pub access: Access,
    /// Rate limits of clients without a key; none for no limit.
    pub rates: Option<Rates>,
    /// Returns the number of requests that a request counts as for its caller's rate limit.
    pub cost: fn(&Method, &Uri) -> NonZeroU32,
    /// Permits for requests in flight.
    pub in_flight: Arc<FairSemaphore>,
    /// Proxies whose report of the client's address is trusted.
    pub proxies: Proxies,
    /// Origin checks, for requests that web pages send with a browser.
    pub origins: Origins,
    /// Whether the traces of all callers are continued, not only those of trusted proxies.
    pub trusts_traces: bool,
    /// Routes by which requests are counted.
    pub route_metrics: Routes,
    /// CORS middleware, which tells browsers which pages of other origins may use the listener.
    pub cors: Option<CorsLayer>,
    /// Prefixes of the paths whose responses are the same for every caller.
    ///
    /// Shared caches must not store the responses of any other path.
    pub public: &'static [&'static str],
    /// Builds the response to a refused request.
    pub reject: fn(Rejection) -> Response,
}

impl Middleware {
    /// Creates the middleware of a listener for operators, which web pages of other origins may not
    /// use, and whose responses no shared cache may store.
    pub fn for_operators(
        routes: Router,
        access: Access,
        callers: &CallerArgs,
        rate: Option<NonZeroU32>,
        in_flight_max: usize,
        reject: fn(Rejection) -> Response,
    ) -> Self {
        Self {
            routes,
            rates: rate.map(Rates::new),
            cost: |_, _| NonZeroU32::MIN,
            in_flight: FairSemaphore::new(in_flight_max),
            proxies: callers.proxies(),
            origins: Origins {
                checks_host: matches!(access, Access::Open),
                hosts: callers.allowed_hosts.clone(),
                checks_page: true,
                pages: Vec::new(),
            },
            access,
            trusts_traces: callers.trust_traceparent,
            route_metrics: Routes::new([]),
            cors: None,
            public: &[],
            reject,
        }
    }

    /// Answers a request.
    ///
    /// Gives the request an [id](request_id::of), which is on each of its log lines and in the
    /// response.
    ///
    /// It is one function because each layer costs every request an allocation or two.
    pub(super) async fn answer(
        &self,
        peer: IpAddr,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> Response {
        let Some(busy) = connection.busy() else {
            // The task that serves the connection is about to be aborted.
            return std::future::pending().await;
        };
        let id = request_id::of(request.headers());
        let logged = LoggedRequest {
            id: id.clone(),
            method: request.method().clone(),
            uri: request.uri().clone(),
        };
        let traceparent = self.traceparent(peer, request.headers());
        let method = request.method().clone();
        let path = request.uri().path();
        let route = self.route_metrics.find(path);
        let is_public = self.public.iter().any(|begins| path.starts_with(begins));
        let began = Instant::now();
        connection.used_at(began);
        let (request, unread) = Unread::of(request);
        let mut response = logged
            .scope(traceparent.as_ref(), self.admit(peer, connection, request))
            .await;
        route.count(&method, response.status(), began.elapsed());
        if let Some(rest) = unread.and_then(Unread::rest) {
            // Boxed, because few requests need it, but each would reserve room for it.
            Box::pin(body_drain::discard(rest)).await;
        }
        if response.status() == StatusCode::TOO_MANY_REQUESTS && !self.proxies.trust(peer) {
            // Idle from now on: a new connection may replace one that only waits.
            drop(busy);
            Box::pin(sleep(REFUSAL_DELAY)).await;
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        restrict(headers, is_public);
        response
    }

    /// Returns the trace context that the request continues; none if its sender is not trusted.
    fn traceparent(&self, peer: IpAddr, headers: &HeaderMap) -> Option<HeaderValue> {
        let is_continued = traces::are_made() && (self.trusts_traces || self.proxies.trust(peer));
        is_continued.then(|| headers.get(traces::TRACEPARENT).cloned())?
    }

    /// Identifies the [`Sender`] of a request, and passes the request to its route.
    ///
    /// Refuses it if its host, its origin, or the caller's rate or concurrency is not allowed.
    /// Whether the sender is authorized is up to the handler.
    async fn admit(
        &self,
        peer: IpAddr,
        connection: &Arc<Connection>,
        mut request: Request<Body>,
    ) -> Response {
        let hosts = request.headers().get_all(HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            return (self.reject)(Rejection::NoHost);
        }
        if request.uri().path().starts_with(HEALTH) {
            return self.route(connection, request).await;
        }
        let from = (request.method(), request.uri(), request.headers());
        if let Err(refused) = self.origins.check(from.0, from.1, from.2) {
            return (self.reject)(refused);
        }
        let identity = self.access.identify(peer, request.headers());
        let (caller, allowance) = self.count(&identity, peer, &request);
        let own_max = allowance
            .as_ref()
            .map_or(usize::MAX, Allowance::in_flight_max);
        let mut response = if allowance.as_ref().is_some_and(Allowance::is_exceeded) {
            (self.reject)(Rejection::TooManyRequests)
        } else if let Some(_permit) = self.in_flight.try_acquire(caller, own_max) {
            request.extensions_mut().insert(Sender {
                identity,
                caller,
                connection: connection.clone(),
            });
            self.route(connection, request).await
        } else {
            (self.reject)(Rejection::Overloaded)
        };
        if let Some(allowance) = allowance {
            allowance.write(response.headers_mut());
        }
        response
    }

    /// Counts a request for its caller. The allowance is none if the caller has no rate limit.
    fn count(
        &self,
        identity: &Identity,
        peer: IpAddr,
        request: &Request<Body>,
    ) -> (CallerId, Option<Allowance>) {
        let cost = || (self.cost)(request.method(), request.uri());
        if let Identity::Key(key) = identity {
            let allowance = key.rate_limit.as_ref().map(|limit| limit.count(cost()));
            return (CallerId::Key(key.stored.id), allowance);
        }
        let network = network(self.proxies.client(peer, request.headers()));
        let allowance = self
            .rates
            .as_ref()
            .map(|rates| rates.count(network, cost()));
        (CallerId::Network(network), allowance)
    }

    /// Starts a task that forgets idle callers, until `stop` is cancelled.
    pub fn forget_the_idle(self: &Arc<Self>, stop: &CancellationToken) {
        let (middleware, stop) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            if let Some(rates) = &middleware.rates {
                stop.run_until_cancelled(rates.forget_the_idle()).await;
            }
        });
    }

    /// Calls the handler, and responds in its place if it times out or panics.
    async fn route(&self, connection: &Connection, request: Request<Body>) -> Response {
        let began = Instant::now();
        let answering = AssertUnwindSafe(self.routes.clone().oneshot(request)).catch_unwind();
        let timeout = connection.timer.until(began + REQUEST_TIMEOUT);
        let answered = select! {
            biased;
            answered = answering => Some(answered),
            () = timeout => None,
        };
        let response = match answered {
            Some(Ok(Ok(response))) => response,
            Some(Err(panic)) => (self.reject)(Rejection::Panicked(panic_message(&*panic))),
            None => (self.reject)(Rejection::TimedOut),
        };
        let status = response.status().as_u16();
        tracing::debug!(status, elapsed = ?began.elapsed(), "answered");
        response
    }
}

/// Adds headers that restrict what browsers and caches do with a response.
fn restrict(headers: &mut HeaderMap, is_public: bool) {
    // A response may be outdated a moment later: caches must revalidate it each time, with the
    // `ETag` if there is one.
    let cache = if is_public {
        "no-cache"
    } else {
        "private, no-cache"
    };
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static(cache));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}
