//! What every request goes through.

use std::{
    any::Any, net::IpAddr, num::NonZeroU32, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{
        HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, X_CONTENT_TYPE_OPTIONS},
    },
    response::Response,
};
use futures_util::FutureExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::cors::CorsLayer;
use tracing::Instrument;

use super::{
    Connection,
    access::{Access, Identity},
    counted::Routes,
    fair_semaphore::{CallerId, FairSemaphore},
    origin::Origins,
    proxies::{Proxies, network},
    rates::{Allowance, Rates},
    unread::{self, Unread},
};
use crate::telemetry::traces;

/// The id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken over from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The longest that a request may take, the arrival of its body included. A statement takes 10 s at most.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Requests in flight that every caller may have, however low its rate is.
const IN_FLIGHT_MIN: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Delay of the answer to a caller who exceeds its rate. Without it, a caller who does not care would keep a processor busy with
/// nothing but refusals, and others would notice.
const REFUSAL_DELAY: Duration = Duration::from_millis(250);

/// Where load balancers ask. They have no key, and are not to be turned away because others ask for too much.
const HEALTH: &str = "/health/";

/// Why a request did not get to its route, or got no answer there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It does not say once by which name the server was asked for, as HTTP/1.1 demands: what stands before the server may have
    /// understood another one.
    NoHost,
    /// It was asked for by a name that is not this machine's.
    UnknownHost,
    /// A page of another origin sent it.
    CrossOrigin,
    /// Its sender has sent more than he may.
    TooManyRequests,
    /// More are worked on than the server takes on, or more of this sender's than his share.
    Overloaded,
    /// It took too long; it may have been done or not.
    TimedOut,
    /// A defect: the handler panicked, with this message.
    Panicked(String),
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Who he is.
    pub identity: Identity,
    /// The caller, for permits of a [`FairSemaphore`].
    pub caller: CallerId,
    /// On what it came.
    pub connection: Arc<Connection>,
}

/// What stands before the routes.
pub struct Guard {
    /// Where requests go.
    pub routes: Router,
    /// Who may use them. Handlers find the [`Sender`] among the request's extensions.
    pub access: Access,
    /// How many requests a second whoever has no key may send.
    pub rates: Option<Rates>,
    /// The number of requests that one counts as for its sender's rate.
    pub price: fn(&Method, &Uri) -> NonZeroU32,
    /// Permits for requests in flight.
    pub in_flight: Arc<FairSemaphore>,
    /// Who is believed about whom a request comes from.
    pub proxies: Proxies,
    /// Which pages may use a browser to send requests.
    pub origins: Origins,
    /// Whether anybody's trace is continued, and not only that of a trusted proxy.
    pub trusts_traces: bool,
    /// By which requests are counted.
    pub counted: Routes,
    /// Tells browsers which pages of other origins may use it.
    pub cors: Option<CorsLayer>,
    /// The paths whose answers are for everybody alike, by their beginnings. Those of all others no shared cache may keep.
    pub public: &'static [&'static str],
    /// Answers what is refused.
    pub refuse: fn(Refused) -> Response,
}

impl Guard {
    /// Answers a request: gives it an id, the client's own if it sent a sensible one, which is on every log line of the
    /// request and in the answer; gives the answer the headers that keep browsers from making more of it than it is.
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
        let id = request
            .headers()
            .get(REQUEST_ID)
            .filter(|id| is_sensible(id))
            .cloned()
            .unwrap_or_else(random_id);
        let span = tracing::info_span!(
            "request",
            id = id.to_str().unwrap_or_default(),
            method = %request.method(),
            path = request.uri().path(),
        );
        if traces::are_made() && (self.trusts_traces || self.proxies.trust(peer)) {
            let traceparent = request.headers().get(traces::TRACEPARENT);
            traces::continue_with(&span, traceparent.and_then(|value| value.to_str().ok()));
        }
        let method = request.method().clone();
        let path = request.uri().path();
        let route = self.counted.find(path);
        let cache = if self.public.iter().any(|begins| path.starts_with(begins)) {
            "no-cache"
        } else {
            "private, no-cache"
        };
        let began = Instant::now();
        connection.used_at(began);
        let (request, unread) = Unread::of(request);
        let mut response = self.admit(peer, connection, request).instrument(span).await;
        route.count(&method, response.status(), began.elapsed());
        if let Some(rest) = unread.and_then(Unread::rest) {
            // Apart, since hardly a request needs it, and each would keep room for it.
            Box::pin(unread::discard(rest)).await;
        }
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            // Not busy any more: a new connection may take the place of one that only waits.
            drop(busy);
            Box::pin(sleep(REFUSAL_DELAY)).await;
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // What is true now may not be so in a moment: to be asked for anew each time, with the `ETag` where there is one.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static(cache));
        headers
            .entry(CONTENT_SECURITY_POLICY)
            .or_insert(HeaderValue::from_static(
                "default-src 'none'; frame-ancestors 'none'",
            ));
        response
    }

    /// Lets a request in whose sender has not asked for too much, and tells who sent it. Whether the sender may do what it
    /// asks for is up to the handler.
    async fn admit(
        &self,
        peer: IpAddr,
        connection: &Arc<Connection>,
        mut request: Request<Body>,
    ) -> Response {
        let hosts = request.headers().get_all(HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            return (self.refuse)(Refused::NoHost);
        }
        if request.uri().path().starts_with(HEALTH) {
            return self.route(request).await;
        }
        let from = (request.method(), request.uri(), request.headers());
        if let Err(refused) = self.origins.check(from.0, from.1, from.2) {
            return (self.refuse)(refused);
        }
        let identity = self.access.identify(peer, request.headers());
        let (caller, allowance) = self.count(&identity, peer, &request);
        let own_max = allowance.as_ref().map_or(usize::MAX, in_flight_max);
        let mut response = if allowance.as_ref().is_some_and(Allowance::is_exceeded) {
            (self.refuse)(Refused::TooManyRequests)
        } else if let Some(_permit) = self.in_flight.try_acquire(caller, own_max) {
            request.extensions_mut().insert(Sender {
                identity,
                caller,
                connection: connection.clone(),
            });
            self.route(request).await
        } else {
            (self.refuse)(Refused::Overloaded)
        };
        if let Some(allowance) = allowance {
            allowance.write(response.headers_mut());
        }
        response
    }

    /// Counts a request for its sender; no allowance where he has no limit.
    fn count(
        &self,
        identity: &Identity,
        peer: IpAddr,
        request: &Request<Body>,
    ) -> (CallerId, Option<Allowance>) {
        let price = (self.price)(request.method(), request.uri());
        if let Identity::Key(key) = identity {
            let allowance = key.rate_limit.as_ref().map(|limit| limit.count(price));
            return (CallerId::Key(key.stored.id), allowance);
        }
        let network = network(self.proxies.client(peer, request.headers()));
        let allowance = self.rates.as_ref().map(|rates| rates.count(network, price));
        (CallerId::Network(network), allowance)
    }

    /// Forgets callers that have sent nothing for a while, until `stop`.
    pub fn forget_the_idle(self: &Arc<Self>, stop: &CancellationToken) {
        let (guard, stop) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            if let Some(rates) = &guard.rates {
                stop.run_until_cancelled(rates.forget_the_idle()).await;
            }
        });
    }

    /// Calls the handler, and answers for one that takes too long or panics.
    async fn route(&self, request: Request<Body>) -> Response {
        let began = Instant::now();
        let answered = AssertUnwindSafe(timeout(TIME_LIMIT, self.routes.clone().oneshot(request)))
            .catch_unwind()
            .await;
        let response = match answered {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_)) => (self.refuse)(Refused::TimedOut),
            Err(panic) => (self.refuse)(Refused::Panicked(panic_message(&*panic))),
        };
        let status = response.status().as_u16();
        tracing::debug!(status, elapsed = ?began.elapsed(), "answered");
        response
    }
}

/// Maximum number of requests in flight of a caller with a rate limit: a second's worth, since no request of good faith takes
/// longer. With more, a caller could hold them back, and then have them all run at once.
fn in_flight_max(allowance: &Allowance) -> usize {
    let per_second = allowance.per_second.max(IN_FLIGHT_MIN);
    usize::try_from(per_second.get()).unwrap_or(usize::MAX)
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

fn is_sensible(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn random_id() -> HeaderValue {
    let id = format!("{:032x}", fastrand::u128(..));
    HeaderValue::from_maybe_shared(id).expect("hexadecimal digits are a valid header value")
}
