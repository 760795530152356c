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
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::{ServiceBuilder, service_fn};

use crate::guard::Guard;

/// How long a client may take to send the head of its next request; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The longest head and the largest part of a body that are buffered, in bytes: it bounds the memory of a connection.
const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// How long a client may read nothing of an answer that is on its way.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests in hand may take to finish once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How a server is stopped.
#[derive(Debug)]
pub(crate) struct Stop {
    /// From now on each answer is the last one of its connection, so that a proxy sends no more requests on it.
    pub(crate) told: CancellationToken,
    /// From now on there are no new connections.
    pub(crate) close: CancellationToken,
}

/// Serves until it is to close; then requests in hand are answered, for 25 s at most. Of more than so many connections the newest
/// wait to be accepted.
pub(crate) async fn serve(
    listener: TcpListener,
    guard: Arc<Guard>,
    connections_max: usize,
    stop: &Stop,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES);
    let places = Arc::new(Semaphore::new(connections_max));
    let connections = GracefulShutdown::new();
    while let Some((place, (stream, peer))) = stop
        .close
        .run_until_cancelled(async {
            (
                places.clone().acquire_owned().await,
                accept(&listener).await,
            )
        })
        .await
    {
        let guard = guard.clone();
        let cors = guard.cors();
        let told = stop.told.clone();
        let service = service_fn(move |request| {
            let (guard, told) = (guard.clone(), told.clone());
            async move {
                let mut answer = guard.answer(peer.ip(), request).await;
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
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
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
