//! HTTP/1.1 server: accepts connections and serves requests on them.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    http::{HeaderValue, Request, header::CONNECTION},
    response::Response,
};
use futures_util::FutureExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt};

use super::{
    connections::{Connection, Connections},
    middleware::Middleware,
};

/// Maximum size of a buffered request head, and of a buffered part of a body, in bytes.
///
/// It bounds the memory of a connection.
const MAX_BUFFER_BYTES: usize = 16 * 1024;

/// Maximum time for which a client may read nothing of a response that is being sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum time for requests in flight to finish once the server accepts no more connections.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Signals that stop a server, in two steps.
#[derive(Debug)]
pub struct Stop {
    /// Closes each connection with its next response, so that a proxy sends no more requests on it.
    pub draining: CancellationToken,
    /// Stops accepting connections.
    pub close: CancellationToken,
}

/// Limits on the connections of a server.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum number of open connections. A new one beyond it closes an idle one.
    pub connections: usize,
    /// Timeout for the head of the next request. Also the keep-alive timeout.
    pub head: Duration,
}

/// Serves requests until [`Stop::close`] is cancelled.
///
/// After that, requests in flight have up to 25 s to finish.
pub async fn serve(
    listener: TcpListener,
    middleware: Arc<Middleware>,
    bounds: Bounds,
    stop: &Stop,
) {
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
        let connection = opened.connection.clone();
        let client = Arc::new(Client {
            peer: peer.ip(),
            connection: connection.clone(),
            middleware: middleware.clone(),
            draining: stop.draining.clone(),
        });
        let service = service_fn(move |request| {
            let client = client.clone();
            // Boxed, because hyper reserves room for this future while the connection is open.
            Box::pin(async move { Ok::<_, Infallible>(client.answer(request).await) })
        });
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let serving = http1::Builder::new()
            .timer(connection.timer.clone())
            .header_read_timeout(bounds.head)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let serving = connections.watch(serving);
        let task = tokio::spawn(async move {
            let _opened = opened;
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a connection failed");
            }
        });
        connection.served_by(task.abort_handle());
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still in flight after {DRAIN_TIMEOUT:?}");
    }
}

/// Client at the other end of a connection, shared by the connection's requests.
struct Client {
    peer: IpAddr,
    connection: Arc<Connection>,
    middleware: Arc<Middleware>,
    draining: CancellationToken,
}

impl Client {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let Some(cors) = &self.middleware.cors else {
            return self.respond(request).await;
        };
        let respond = tower::service_fn(|request| self.respond(request).map(Ok));
        let answered: Result<_, Infallible> = cors.layer(respond).oneshot(request).await;
        answered.unwrap_or_else(|never| match never {})
    }

    async fn respond(&self, request: Request<Incoming>) -> Response {
        let answer = self.middleware.answer(self.peer, &self.connection, request);
        let mut response = answer.await;
        if self.draining.is_cancelled() {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        response
    }
}

/// Accepts the next connection.
///
/// Retries every second after an error, such as while the process has no free file descriptor.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Responses are small: each is sent at once instead of waiting to fill a packet.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return (stream, peer);
            }
            // The client closed the connection before it was accepted.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
