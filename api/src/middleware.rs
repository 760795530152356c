//! Middleware of both listeners: who may call, how often, and with what routes.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    response::{IntoResponse, Response},
};
use shared::{
    api_key::Scope,
    http::{
        access::{Access, ListenerPolicy},
        fair_semaphore::FairSemaphore,
        middleware::Middleware,
        origin::Origins,
        rates::Rates,
        rejection::Rejection,
        request_metrics::Routes,
    },
    postgres::Database,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin, capacity::Capacity, config::Config, cors, cost, group_commit::Lanes, openapi,
    output::problem::Problem, routes, state::AppState,
};

fn router(state: AppState) -> Router {
    Router::from(routes::documented())
        .merge(openapi::page())
        .fallback(async || Problem::NoSuchRoute)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(Arc::new(state))
}

/// Returns the middleware of the API.
///
/// # Errors
///
/// Fails if required API keys can't be read, or if other machines can reach the listener and no key
/// exists.
pub(crate) async fn api(
    database: &Database,
    lanes: &Lanes,
    config: &Config,
    capacity: &Capacity,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Middleware>> {
    let policy = ListenerPolicy {
        name: "API",
        address: config.listen,
        requires_keys_on_loopback: config.callers.require_keys,
        is_open: config.insecure,
        scope: None,
        can_wait_for_keys: false,
        example: "ticketing key create --name box-office --scope shows:read,bookings:write",
    };
    let rate = config.callers.rate(config.listen);
    let access = Access::start(&database.pool, &policy, rate, stop).await?;
    let is_open = matches!(access, Access::Open);
    let middleware = Arc::new(Middleware {
        routes: router(AppState::new(
            database.clone(),
            lanes,
            capacity.large_bodies,
            stop,
        )),
        access,
        rates: rate.map(Rates::new),
        cost: cost::request_cost,
        in_flight: FairSemaphore::new(capacity.in_flight),
        proxies: config.callers.proxies(),
        origins: Origins {
            checks_host: is_open,
            hosts: config.callers.allowed_hosts.clone(),
            checks_page: is_open,
            pages: config.cors_origins.clone(),
        },
        trusts_traces: config.callers.trust_traceparent,
        route_metrics: Routes::new(routes::paths()),
        cors: cors::layer(&config.cors_origins),
        public: &["/shows", "/docs", "/openapi.json", "/health/"],
        reject,
    });
    middleware.forget_the_idle(stop);
    Ok(middleware)
}

fn reject(rejection: Rejection) -> Response {
    Problem::from(rejection).into_response()
}

/// Returns the middleware of the admin listener.
///
/// # Errors
///
/// Fails if required API keys can't be read, or if other machines can reach the listener and no key
/// exists.
pub(crate) async fn admin(
    address: SocketAddr,
    database: &Database,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Middleware>> {
    let policy = ListenerPolicy {
        name: "admin listener",
        address,
        requires_keys_on_loopback: config.callers.require_keys,
        // `--insecure` never opens the admin listener.
        is_open: false,
        scope: Some(Scope::Admin),
        can_wait_for_keys: false,
        example: "ticketing key create --name operations --scope admin",
    };
    let rate = config.callers.rate(config.listen);
    let access = Access::start(&database.pool, &policy, rate, stop).await?;
    let middleware = Arc::new(Middleware::for_operators(
        admin::router(database, stop),
        access,
        &config.callers,
        rate,
        admin::IN_FLIGHT_MAX,
        reject,
    ));
    middleware.forget_the_idle(stop);
    Ok(middleware)
}
