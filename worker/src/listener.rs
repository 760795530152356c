//! HTTP listener of a worker: `/metrics` for Prometheus, `/health/live` for orchestrators.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use shared::{
    api_key::Scope,
    http::{
        access::{Access, Denied, ListenerPolicy},
        callers::CallerArgs,
        middleware::{Middleware, Sender},
        rejection::Rejection,
        server::{self, Bounds, Stop},
    },
    metrics, process, telemetry,
};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics as worker_metrics;

/// Default port of the listener.
const DEFAULT_PORT: u16 = 5002;

/// Binds the listener.
///
/// # Errors
///
/// Fails if the address is in use or not local, or if no port is free.
pub fn bind(address: Option<SocketAddr>) -> io::Result<TcpListener> {
    process::listen_for_operators(address, DEFAULT_PORT)
}

/// Limits of the listener: sized for Prometheus, an orchestrator and an operator.
const BOUNDS: Bounds = Bounds {
    connections: 50,
    head: Duration::from_secs(20),
};

/// Maximum number of requests in flight.
const IN_FLIGHT_MAX: usize = 20;

/// Serves metrics and the health check until `stop` is cancelled.
///
/// # Errors
///
/// Fails if the address of the listener can't be determined.
pub async fn serve(
    listener: TcpListener,
    pool: PgPool,
    callers: &CallerArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    worker_metrics::begin();
    let middleware = middleware(address, &pool, callers, &stop).await?;
    tracing::info!(metrics = %format_args!("http://{address}/metrics"), "worker serves metrics");
    // Requests in flight are not waited for: none is worth delaying the end of the worker's jobs.
    let until = Stop {
        draining: stop.clone(),
        close: CancellationToken::new(),
    };
    let serving = server::serve(listener, middleware, BOUNDS, &until);
    stop.run_until_cancelled(serving).await;
    Ok(())
}

async fn middleware(
    address: SocketAddr,
    pool: &PgPool,
    callers: &CallerArgs,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Middleware>> {
    let policy = ListenerPolicy {
        name: "worker's listener",
        address,
        requires_keys_on_loopback: callers.require_keys,
        is_open: false,
        scope: Some(Scope::Admin),
        can_wait_for_keys: true,
        example: "ticketing key create --name monitoring --scope admin",
    };
    let rate = callers.rate(address);
    let access = Access::start(pool, &policy, rate, stop).await?;
    let routes = Router::new()
        .route("/metrics", get(render))
        .route("/health/live", get(async || StatusCode::OK))
        .layer(Extension(pool.clone()));
    let middleware = Arc::new(Middleware::for_operators(
        routes,
        access,
        callers,
        rate,
        IN_FLIGHT_MAX,
        reject,
    ));
    middleware.forget_the_idle(stop);
    Ok(middleware)
}

fn reject(rejection: Rejection) -> Response {
    let (status, why) = match rejection {
        Rejection::NoHost => (StatusCode::BAD_REQUEST, "send the header Host exactly once"),
        Rejection::UnknownHost => (
            StatusCode::MISDIRECTED_REQUEST,
            "unknown host: see --allowed-hosts",
        ),
        Rejection::CrossOrigin => (StatusCode::FORBIDDEN, "sent by a page of another origin"),
        Rejection::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
        Rejection::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Rejection::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "the request timed out"),
        Rejection::Panicked(message) => {
            tracing::error!(message, "request panicked");
            (StatusCode::INTERNAL_SERVER_ERROR, "a bug in the worker")
        }
    };
    (status, format!("{why}\n")).into_response()
}

fn deny(denied: Denied) -> Response {
    if denied == Denied::KeysUnknown {
        let why = "the API keys can't be read at the moment\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    let challenge = HeaderValue::from_static("Bearer realm=\"ticketing\"");
    let status = match denied {
        Denied::ScopeRequired(_) => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let why = "an API key with the scope admin is required\n";
    (status, [(WWW_AUTHENTICATE, challenge)], why).into_response()
}

async fn render(
    Extension(sender): Extension<Sender>,
    Extension(pool): Extension<PgPool>,
) -> Response {
    if let Err(denied) = sender.identity.may(Scope::Admin) {
        return deny(denied);
    }
    metrics::observe_pool("worker", &pool);
    match metrics::render(&worker_metrics::API_METRIC_PREFIXES, &["worker"]) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(error = telemetry::chain(&error), "cannot render metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
