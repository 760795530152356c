//! Accepts connections and speaks HTTP/1.1 on each.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::http::{HeaderValue, header::CONNECTION};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::{ServiceBuilder, service_fn};

use super::{connections::Connections, guard::Guard};

/// The longest head and the largest part of a body that are buffered, in bytes: it bounds the memory of a connection.
const MAX_BUFFER_BYTES: usize = 16 * 1024;

/// How long a client may read nothing of an answer that is on its way.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests in hand may take to finish once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How a server is stopped.
#[derive(Debug)]
pub struct Stop {
    /// From now on each answer is the last one of its connection, so that a proxy sends no more requests on it.
    pub told: CancellationToken,
    /// From now on there are no new connections.
    pub close: CancellationToken,
}

/// Bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum number of open connections. A new one beyond it closes an idle one.
    pub connections: usize,
    /// Timeout for the head of the next request. Also the keep-alive timeout.
    pub head: Duration,
}

/// Serves until it is to close; then requests in hand are answered, for 25 s at most.
pub async fn serve(listener: TcpListener, guard: Arc<Guard>, bounds: Bounds, stop: &Stop) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(MAX_BUFFER_BYTES);
    let open = Connections::new(bounds.connections);
    let connections = GracefulShutdown::new();
    while let Some((stream, opened, peer)) = stop
        .close
        .run_until_cancelled(async {
            let (stream, peer) = accept(&listener).await;
            (stream, open.open(peer.ip()).await, peer)
        })
        .await
    {
        let told = stop.told.clone();
        let (guard, connection) = (guard.clone(), opened.connection.clone());
        let cors = guard.cors.clone();
        let service = service_fn(move |request| {
            let (guard, connection, told) = (guard.clone(), connection.clone(), told.clone());
            async move {
                // Boxed, because hyper keeps room for this future as long as the connection is open.
                let mut answer = Box::pin(guard.answer(peer.ip(), &connection, request)).await;
                if told.is_cancelled() {
                    answer.headers_mut().insert(CONNECTION, CLOSE);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let service =
            TowerToHyperService::new(ServiceBuilder::new().option_layer(cors).service(service));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let serving = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let serving = connections.watch(serving);
        let connection = opened.connection.clone();
        let task = tokio::spawn(async move {
            let _opened = opened;
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        connection.served_by(task.abort_handle());
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still in hand after {DRAIN_TIMEOUT:?}");
    }
}

/// The next connection. Waits while the process has no file descriptor left for one.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small: each leaves at once instead of waiting to fill a packet.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return (stream, peer);
            }
            // The client went away before it was its turn.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
