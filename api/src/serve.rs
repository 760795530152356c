//! Serving: binds the listeners, and serves the API and the admin listener until the process stops.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context;
use shared::{
    http::server::{self, Bounds, Stop},
    postgres::Database,
    process,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{admin, capacity::Capacity, config::Config, group_commit::Lanes, middleware};

/// Timeout for the head of a client's next request, and keep-alive timeout.
///
/// Longer than proxies keep an idle connection, so that none sends a request on one that closes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Timeout for closing the connections to the database at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of new connections that wait to be accepted; the system may allow fewer.
///
/// When a sale opens, they come all at once.
const BACKLOG: u32 = 16_384;

/// Bytes of a response that the system buffers for a client that does not read.
///
/// By default it buffers megabytes.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;

/// Bound listeners of a process.
#[derive(Debug)]
pub struct Listeners {
    /// Listener of the API.
    pub api: TcpListener,
    /// Listener for operators.
    pub admin: TcpListener,
}

/// Binds the addresses of both listeners.
///
/// # Errors
///
/// Fails if an address is in use or does not belong to this machine.
pub fn bind(config: &Config) -> anyhow::Result<Listeners> {
    process::raise_open_files_limit();
    process::disable_huge_pages();
    let api =
        listen(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let admin = process::listen_for_operators(config.admin_listen, admin::DEFAULT_PORT)
        .context("cannot open the admin listener")?;
    Ok(Listeners { api, admin })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart need not wait until the previous process's connections are gone.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the API until `stop` is cancelled, and then lingers for as long as `config` says.
///
/// Requests that are then in flight are finished, for 25 s at most.
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
    let api_middleware = middleware::api(&database, &lanes, config, &capacity, &stop).await?;
    let admin_middleware = middleware::admin(admin.local_addr()?, &database, config, &stop).await?;
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
        draining: stop,
        close: CancellationToken::new(),
    };
    tokio::join!(
        server::serve(api, api_middleware, bounds, &stop),
        server::serve(admin, admin_middleware, admin::BOUNDS, &stop),
        async {
            stop.draining.cancelled().await;
            sleep(config.linger()).await;
            stop.close.cancel();
        },
    );
    close(lanes, &database).await;
    tracing::info!("api stopped");
    Ok(())
}

/// Closes the connections to the database.
async fn close(lanes: Lanes, database: &Database) {
    let closing = async {
        lanes.stop().await;
        database.pool.close().await;
    };
    if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
        tracing::warn!("database connections were still busy after {CLOSE_TIMEOUT:?}");
    }
}
