//! HTTP API: validates each request, runs one transaction of [`shared`], and responds.

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

/// Maximum length of a request body, in bytes. The longest valid one is under 2 KiB.
const MAX_BODY_BYTES: usize = 16 * 1024;

type Answer = Result<Booking, Refusal>;

/// Timeout for the head of a client's next request. Also the keep-alive timeout.
///
/// It is longer than proxies keep an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Maximum time for closing the database connections during shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// State shared by all handlers of the API.
pub(crate) struct AppState {
    pub(crate) database: Database,
    pub(crate) reserve: GroupCommit<reserve::Request, reserve::Answer>,
    pub(crate) confirm: GroupCommit<Change, Answer>,
    pub(crate) cancel: GroupCommit<Change, Answer>,
    pub(crate) extend: GroupCommit<extend::Request, Answer>,
    /// Finds the show of a booking; only on Citus, where transactions need it.
    locate: Option<GroupCommit<i64, Option<i64>>>,
    /// Permits for lists in flight.
    ///
    /// Lists are long, so the permits bound the memory that clients can take that do not read them.
    pub(crate) lists: Arc<FairSemaphore>,
    /// Cancelled when the process is told to stop.
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

    /// Builds a change of a booking, and finds the booking's show if the database needs it.
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

/// Maximum number of new connections that wait to be accepted. The system may allow fewer.
///
/// When a sale opens, all clients connect at once.
const BACKLOG: u32 = 16_384;

/// Maximum part of a response that the system buffers for a client that does not read, in bytes.
///
/// Without this bound it would be megabytes.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;

/// Listeners of an api process.
#[derive(Debug)]
pub struct Listeners {
    /// Listener for clients.
    pub api: TcpListener,
    /// Listener for operators and their monitoring.
    pub admin: TcpListener,
}

/// Binds the listeners of the api.
///
/// # Errors
///
/// Fails if an address is in use or not local, or if no port is free.
pub fn bind(config: &Config) -> anyhow::Result<Listeners> {
    process::raise_open_files_limit();
    process::disable_huge_pages();
    let api =
        listen(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let admin = process::listen_for_operators(config.admin_listen, admin::USUAL_PORT)
        .context("cannot open the admin listener")?;
    Ok(Listeners { api, admin })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted process need not wait until the last connections of the previous one are gone.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the API until `stop` is cancelled, and for the configured linger time after that.
///
/// Then requests in flight have up to 25 s to finish.
///
/// # Errors
///
/// Fails if the thread of the lanes can't be started, if required API keys can't be read, or if
/// other machines can reach a listener for which no key exists.
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
        tracing::warn!("database connections were still busy after {CLOSE_TIMEOUT:?}");
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
        // `--insecure` never opens the admin listener.
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
