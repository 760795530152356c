//! The HTTP API: validates a request, runs one transaction of [`shared`], answers.

pub mod config;
mod extract;
mod group_commit;
mod middleware;
mod page;
mod problem;
mod routes;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
    serve::ListenerExt,
};
use futures_util::FutureExt;
use shared::booking::{Booking, Refusal, cancel, confirm, reserve};
use sqlx::PgPool;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    group_commit::{GroupCommit, Lanes},
    problem::Problem,
    routes::{bookings, health, shows},
};

/// The longest body that a client can send, in bytes. The longest valid one is under 2 KiB.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// How long requests in hand may take to finish once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

type Answer = Result<Booking, Refusal>;

/// How long connections to the database may take to close at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What every handler can reach.
pub(crate) struct AppState {
    pub(crate) pool: PgPool,
    pub(crate) reserve: GroupCommit<reserve::Request, Answer>,
    pub(crate) confirm: GroupCommit<i64, Answer>,
    pub(crate) cancel: GroupCommit<i64, Answer>,
}

impl AppState {
    fn new(pool: PgPool, lanes: &Lanes) -> Self {
        Self {
            reserve: GroupCommit::start(lanes, |pool, requests| {
                async move { reserve::reserve(&pool, &requests).await }.boxed()
            }),
            confirm: GroupCommit::start(lanes, |pool, ids| {
                async move { confirm::confirm(&pool, &ids).await }.boxed()
            }),
            cancel: GroupCommit::start(lanes, |pool, ids| {
                async move { cancel::cancel(&pool, &ids).await }.boxed()
            }),
            pool,
        }
    }
}

/// All routes.
fn router(state: AppState) -> Router {
    Router::new()
        .route("/shows", get(shows::list).post(shows::create))
        .route("/shows/{id}", get(shows::find))
        .route("/bookings", get(bookings::list).post(bookings::reserve))
        .route("/bookings/{id}", get(bookings::find))
        .route("/bookings/{id}/confirm", post(bookings::confirm))
        .route("/bookings/{id}/cancel", post(bookings::cancel))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .fallback(async || Problem::NoSuchRoute)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(Arc::new(state))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn(middleware::guard))
}

/// Takes the address to listen on.
///
/// # Errors
///
/// When it is in use or not ours.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    shared::process::raise_open_files_limit();
    TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))
}

/// Serves the API until `stop`; then requests in hand are answered, for 25 s at most.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    pool: PgPool,
    config: &Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "api listens");
    // Answers are small: each leaves at once instead of waiting to fill a packet.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let lanes = Lanes::start(&pool, config.limits())?;
    let state = AppState::new(pool.clone(), &lanes);
    let server =
        axum::serve(listener, router(state)).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        result = server => result?,
        () = drain_timeout(stop) => tracing::warn!("requests were still in hand after {DRAIN_TIMEOUT:?}"),
    }
    if timeout(CLOSE_TIMEOUT, async {
        lanes.stop().await;
        pool.close().await;
    })
    .await
    .is_err()
    {
        tracing::warn!("connections to the database were still busy after {CLOSE_TIMEOUT:?}");
    }
    tracing::info!("api stopped");
    Ok(())
}

async fn drain_timeout(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(DRAIN_TIMEOUT).await;
}
