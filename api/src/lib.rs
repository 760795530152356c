//! The HTTP API: validates a request, runs one transaction of [`shared`], answers.

pub mod config;
mod etag;
mod extract;
mod group_commit;
mod middleware;
pub mod openapi;
mod page;
mod problem;
mod replay;
mod routes;
mod server;
mod whole;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, extract::DefaultBodyLimit};
use shared::booking::{Booking, Change, Refusal, cancel, confirm, extend, reserve};
use sqlx::PgPool;
use tokio::{
    net::{TcpListener, TcpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    group_commit::{GroupCommit, Lanes},
    problem::Problem,
};

/// The longest body that a client can send, in bytes. The longest valid one is under 2 KiB.
const MAX_BODY_BYTES: usize = 16 * 1024;

type Answer = Result<Booking, Refusal>;

/// How long connections to the database may take to close at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What every handler can reach.
pub(crate) struct AppState {
    pub(crate) pool: PgPool,
    pub(crate) reserve: GroupCommit<reserve::Request, reserve::Answer>,
    pub(crate) confirm: GroupCommit<Change, Answer>,
    pub(crate) cancel: GroupCommit<Change, Answer>,
    pub(crate) extend: GroupCommit<extend::Request, Answer>,
}

impl AppState {
    fn new(pool: PgPool, lanes: &Lanes) -> Self {
        Self {
            reserve: GroupCommit::start(lanes, |session, batch| {
                Box::pin(reserve::reserve(session, batch))
            }),
            confirm: GroupCommit::start(lanes, |session, batch| {
                Box::pin(confirm::confirm(session, batch))
            }),
            cancel: GroupCommit::start(lanes, |session, batch| {
                Box::pin(cancel::cancel(session, batch))
            }),
            extend: GroupCommit::start(lanes, |session, batch| {
                Box::pin(extend::extend(session, batch))
            }),
            pool,
        }
    }
}

fn router(state: AppState) -> Router {
    routes::all()
        .fallback(async || Problem::NoSuchRoute)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(Arc::new(state))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn(middleware::guard))
}

/// How many new connections may wait to be accepted; the system may allow fewer. When a sale opens, they come all at
/// once.
const BACKLOG: u32 = 16_384;

/// Takes the address to listen on.
///
/// # Errors
///
/// When it is in use or not ours.
pub fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    shared::process::raise_open_files_limit();
    listen(config.listen).with_context(|| format!("cannot listen on {}", config.listen))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // So that a restart need not wait for the last connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the API until `stop`; then requests in hand are answered, for 25 s at most.
///
/// # Errors
///
/// When the lanes' thread can't be started.
pub async fn serve(
    listener: TcpListener,
    pool: PgPool,
    config: &Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "api listens");
    let lanes = Lanes::start(&pool, config.limits())?;
    let state = AppState::new(pool.clone(), &lanes);
    server::serve(listener, router(state), &stop).await;
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
