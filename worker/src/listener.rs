//! Where a worker is watched: `/metrics` for Prometheus, `/health/live` for orchestrators.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use shared::{
    api_key::{self, Scope, Token},
    metrics, postgres, process, telemetry,
};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics as figures_of;

/// Where it listens when it is not told otherwise.
const USUAL_PORT: u16 = 5002;

/// Takes the address to listen on.
///
/// # Errors
///
/// When it is in use or not ours.
pub fn bind(address: Option<SocketAddr>) -> io::Result<TcpListener> {
    process::listen_for_operators(address, USUAL_PORT)
}

/// Serves until `stop`.
///
/// # Errors
///
/// When the address of the listener can't be told.
pub async fn serve(listener: TcpListener, pool: PgPool, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    figures_of::begin();
    tracing::info!(metrics = %format_args!("http://{address}/metrics"), "worker is watched");
    let watched = Watched {
        asks_for_key: !address.ip().is_loopback(),
        pool,
    };
    let routes = Router::new()
        .route("/metrics", get(figures))
        .route("/health/live", get(async || StatusCode::OK))
        .with_state(watched);
    // Whoever is connected is not waited for: nothing here is worth a delay of the jobs' end.
    let serving = axum::serve(listener, routes).into_future();
    stop.run_until_cancelled(serving).await.unwrap_or(Ok(()))
}

#[derive(Clone)]
struct Watched {
    asks_for_key: bool,
    pool: PgPool,
}

async fn figures(State(watched): State<Watched>, headers: HeaderMap) -> Response {
    if watched.asks_for_key {
        match may_look(&watched.pool, &headers).await {
            Ok(true) => {}
            Ok(false) => {
                let challenge = HeaderValue::from_static("Bearer realm=\"ticketing\"");
                let headers = [(WWW_AUTHENTICATE, challenge)];
                let why = "an API key with the scope admin is needed\n";
                return (StatusCode::UNAUTHORIZED, headers, why).into_response();
            }
            Err(error) => {
                tracing::warn!(error = telemetry::chain(&error), "cannot read the API keys");
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        }
    }
    metrics::observe_pool("worker", &watched.pool);
    match metrics::render() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(error = telemetry::chain(&error), "cannot tell the figures");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether the sender has a key for it. The keys are read each time: Prometheus asks once in some seconds.
async fn may_look(pool: &PgPool, headers: &HeaderMap) -> Result<bool, postgres::Error> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .and_then(Token::parse);
    let Some(token) = token else {
        return Ok(false);
    };
    Ok(api_key::valid(pool).await?.iter().any(|key| {
        key.id == token.key_id && key.scopes.contains(&Scope::Admin) && token.is(&key.secret_hash)
    }))
}
