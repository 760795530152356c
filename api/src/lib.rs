//! The HTTP API: validates a request, runs one transaction of [`shared`], answers.

mod access;
pub mod config;
mod etag;
mod extract;
mod faults;
mod group_commit;
mod guard;
mod limits;
pub mod openapi;
mod page;
mod problem;
mod replay;
mod routes;
mod server;
mod unread;
mod whole;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, extract::DefaultBodyLimit};
use shared::booking::{Booking, Change, Refusal, cancel, confirm, extend, reserve};
use sqlx::PgPool;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    config::Config,
    group_commit::{GroupCommit, Lanes},
    guard::Guard,
    limits::Limits,
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
    /// Places for lists, whose answers are long: they bound the memory that clients can take that do not read.
    pub(crate) lists: Arc<Semaphore>,
}

/// How many lists are made or read at the same time at most. The longest has about 400 KB.
const LISTS_MAX: usize = 256;

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
            lists: Arc::new(Semaphore::new(LISTS_MAX)),
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
}

/// How many new connections may wait to be accepted; the system may allow fewer. When a sale opens, they come all at
/// once.
const BACKLOG: u32 = 16_384;

/// How much of an answer the system keeps for a client that does not read, in bytes. It would be megabytes.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;

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
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the API until `stop`; then requests in hand are answered, for 25 s at most.
///
/// # Errors
///
/// When API keys are needed and there is none, or they can't be read; when the lanes' thread can't be started.
pub async fn serve(
    listener: TcpListener,
    pool: PgPool,
    config: &Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let access = Access::start(&pool, config, &stop).await?;
    tracing::info!(address = %listener.local_addr()?, "api listens");
    let lanes = Lanes::start(&pool, config.limits())?;
    let state = AppState::new(pool.clone(), &lanes);
    let guard = Arc::new(Guard {
        routes: router(state),
        access,
        limits: Limits::new(
            config.rate(),
            config.trusted_proxies.clone(),
            count(config.in_flight_max),
        ),
        cors_origins: config.cors_origins.clone(),
    });
    let forgetting = {
        let (guard, stop) = (guard.clone(), stop.clone());
        async move {
            stop.run_until_cancelled(guard.limits.forget_the_idle())
                .await
        }
    };
    tokio::spawn(forgetting);
    server::serve(listener, guard, count(config.connections_max), &stop).await;
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

fn count(setting: u32) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}
