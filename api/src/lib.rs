//! The HTTP API: validates a request, runs one transaction of [`shared`], answers.

mod access;
mod admin;
mod capacity;
pub mod config;
mod cors;
mod etag;
mod extract;
mod faults;
mod group_commit;
mod json_body;
mod metrics;
pub mod openapi;
mod page;
mod problem;
mod replay;
mod routes;
mod whole;

use std::{io, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    response::{IntoResponse, Response},
};
use shared::{
    api_key::Scope,
    booking::{Booking, Change, Refusal, extend, reserve},
    http::{
        access::{Access, Door},
        counted::Routes,
        fair_semaphore::FairSemaphore,
        guard::{Guard, Refused},
        origin::Origins,
        rates::Rates,
        server::{self, Bounds, Stop},
    },
    postgres::{Database, Engine},
    process,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::Capacity,
    config::Config,
    group_commit::{
        GroupCommit, Lanes, Sharing,
        kinds::{CANCEL, CONFIRM, EXTEND, LOCATE, RESERVE},
    },
    problem::Problem,
};

/// The longest body that a client can send, in bytes. The longest valid one is under 2 KiB.
const MAX_BODY_BYTES: usize = 16 * 1024;

type Answer = Result<Booking, Refusal>;

/// Timeout for the head of a client's next request, and keep-alive timeout. Longer than that of proxies.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How long connections to the database may take to close at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What every handler can reach.
pub(crate) struct AppState {
    pub(crate) database: Database,
    pub(crate) reserve: GroupCommit<reserve::Request, reserve::Answer>,
    pub(crate) confirm: GroupCommit<Change, Answer>,
    pub(crate) cancel: GroupCommit<Change, Answer>,
    pub(crate) extend: GroupCommit<extend::Request, Answer>,
    /// Finds the shows of bookings, where the database has to know them.
    locate: Option<GroupCommit<i64, Option<i64>>>,
    /// Places for lists, whose answers are long: they bound the memory that clients can take that do not read.
    pub(crate) lists: Arc<FairSemaphore>,
    /// When the process was told to stop.
    pub(crate) stop: CancellationToken,
}

impl AppState {
    fn new(
        database: Database,
        lanes: &Lanes,
        capacity: &Capacity,
        stop: &CancellationToken,
    ) -> Self {
        let engine = database.engine;
        let sharing = match engine {
            Engine::Postgres => Sharing::Any,
            Engine::Citus => Sharing::SameKey,
        };
        Self {
            reserve: GroupCommit::start(&RESERVE, lanes, sharing),
            confirm: GroupCommit::start(&CONFIRM, lanes, sharing),
            cancel: GroupCommit::start(&CANCEL, lanes, sharing),
            extend: GroupCommit::start(&EXTEND, lanes, sharing),
            locate: (engine == Engine::Citus)
                .then(|| GroupCommit::start(&LOCATE, lanes, Sharing::Any)),
            lists: FairSemaphore::new(capacity.lists),
            stop: stop.clone(),
            database,
        }
    }

    /// What a client asks to be done to a booking, with what the database has to know for it.
    pub(crate) async fn change(
        &self,
        booking_id: i64,
        show_id: Option<i64>,
        only_if: Option<Vec<String>>,
    ) -> Result<Change, Problem> {
        let show_id = match (show_id, &self.locate) {
            (None, Some(locate)) => {
                let show_id = locate.submit(booking_id, booking_id).await?;
                Some(show_id.ok_or(Refusal::BookingNotFound { booking_id })?)
            }
            (show_id, _) => show_id,
        };
        Ok(Change {
            booking_id,
            show_id,
            only_if,
        })
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

/// Where a process listens.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub api: TcpListener,
    /// For those who watch.
    pub admin: TcpListener,
}

/// Takes the addresses to listen on.
///
/// # Errors
///
/// When one is in use or not ours.
pub fn bind(config: &Config) -> anyhow::Result<Listeners> {
    process::raise_open_files_limit();
    process::disable_huge_pages();
    let api =
        listen(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let admin = process::listen_for_operators(config.admin_listen, admin::USUAL_PORT)
        .context("cannot listen for those who watch the system")?;
    Ok(Listeners { api, admin })
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

/// Serves the API until `stop`, and for as long after it as the configuration says; then requests in hand are answered, for
/// 25 s at most.
///
/// # Errors
///
/// When API keys are needed and there is none, or they can't be read; when the lanes' thread can't be started.
pub async fn serve(
    listeners: Listeners,
    database: Database,
    config: &Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Listeners { api, admin } = listeners;
    let lanes = Lanes::start(&database, config.limits(database.engine))?;
    let database_connections = database.pool.options().get_max_connections() + lanes.connections();
    let capacity = Capacity::new(config, database_connections);
    let api_guard = api_guard(&database, &lanes, config, &capacity, &stop).await?;
    let admin_guard = admin_guard(admin.local_addr()?, &database, config, &stop).await?;
    tracing::info!(
        address = %api.local_addr()?,
        admin = %admin.local_addr()?,
        connections = capacity.connections,
        memory_bound_mb = capacity.memory_bound_mb(),
        "api listens"
    );
    let bounds = Bounds {
        connections: capacity.connections,
        head: HEAD_TIMEOUT,
    };
    let stop = Stop {
        told: stop,
        close: CancellationToken::new(),
    };
    tokio::join!(
        server::serve(api, api_guard, bounds, &stop),
        server::serve(admin, admin_guard, admin::BOUNDS, &stop),
        async {
            stop.told.cancelled().await;
            sleep(config.linger()).await;
            stop.close.cancel();
        },
    );
    if timeout(CLOSE_TIMEOUT, async {
        lanes.stop().await;
        database.pool.close().await;
    })
    .await
    .is_err()
    {
        tracing::warn!("connections to the database were still busy after {CLOSE_TIMEOUT:?}");
    }
    tracing::info!("api stopped");
    Ok(())
}

async fn api_guard(
    database: &Database,
    lanes: &Lanes,
    config: &Config,
    capacity: &Capacity,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Guard>> {
    let door = Door {
        name: "API",
        address: config.listen,
        asks_this_machine: config.callers.require_keys,
        is_open: config.insecure,
        scope: None,
        can_wait_for_keys: false,
        example: "ticketing key create --name box-office --scope shows:read,bookings:write",
    };
    let rate = config.callers.rate(config.listen);
    let access = Access::start(&database.pool, &door, rate, stop).await?;
    let is_open = matches!(access, Access::Open);
    let guard = Arc::new(Guard {
        routes: router(AppState::new(database.clone(), lanes, capacity, stop)),
        access,
        rates: rate.map(Rates::new),
        price: page::price,
        in_flight: FairSemaphore::new(capacity.in_flight),
        proxies: config.callers.proxies(),
        origins: Origins {
            checks_host: is_open,
            hosts: config.callers.allowed_hosts.clone(),
            checks_page: is_open,
            pages: config.cors_origins.clone(),
        },
        trusts_traces: config.callers.trust_traceparent,
        counted: Routes::new(routes::paths()),
        cors: cors::layer(&config.cors_origins),
        public: &["/shows", "/docs", "/openapi.json", "/health/"],
        refuse,
    });
    guard.forget_the_idle(stop);
    Ok(guard)
}

fn refuse(refused: Refused) -> Response {
    Problem::from(refused).into_response()
}

async fn admin_guard(
    address: SocketAddr,
    database: &Database,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Guard>> {
    let door = Door {
        name: "admin listener",
        address,
        asks_this_machine: config.callers.require_keys,
        // What others could do there, nobody can have wanted to allow everybody.
        is_open: false,
        scope: Some(Scope::Admin),
        can_wait_for_keys: false,
        example: "ticketing key create --name operations --scope admin",
    };
    let rate = config.callers.rate(config.listen);
    let access = Access::start(&database.pool, &door, rate, stop).await?;
    let is_open = matches!(access, Access::Open);
    let guard = Arc::new(Guard {
        routes: admin::router(database, stop),
        access,
        rates: rate.map(Rates::new),
        price: |_, _| NonZeroU32::MIN,
        in_flight: FairSemaphore::new(admin::IN_FLIGHT_MAX),
        proxies: config.callers.proxies(),
        origins: Origins {
            checks_host: is_open,
            hosts: config.callers.allowed_hosts.clone(),
            checks_page: true,
            pages: Vec::new(),
        },
        trusts_traces: config.callers.trust_traceparent,
        counted: Routes::new([]),
        cors: None,
        public: &[],
        refuse,
    });
    guard.forget_the_idle(stop);
    Ok(guard)
}
