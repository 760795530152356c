//! Minimal HTTP/1.1 client, cheap enough to share a machine with the server that it loads.

use std::{fmt::Write, io, net::SocketAddr, str::FromStr};

use anyhow::Context;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// A server, and the headers that requests to it have.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Address, as `host:port`.
    address: String,
    /// First headers of each request.
    headers: String,
}

impl Target {
    /// Adds the header with this API key, if there is one, to each request.
    #[must_use]
    pub(crate) fn with_key(mut self, api_key: Option<&str>) -> Self {
        if let Some(key) = api_key {
            let _ = write!(self.headers, "authorization: Bearer {key}\r\n");
        }
        self
    }

    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(&self.address).await
    }

    /// Connects with the smallest receive buffer that the system allows.
    pub(crate) async fn connect_with_small_buffer(&self) -> io::Result<TcpStream> {
        let address = self.address.parse().map_err(io::Error::other)?;
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_recv_buffer_size(1)?;
        socket.connect(address).await
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let address = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
            .with_context(|| format!("{url:?} is not of the form http://host:port"))?;
        let address = match address.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => address.to_owned(),
            _ => format!("{address}:80"),
        };
        Ok(Self {
            headers: format!("host: {address}\r\n"),
            address,
        })
    }
}

/// Returns a GET request.
pub(crate) fn get(target: &Target, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{}\r\n", target.headers).into_bytes()
}

/// Returns a POST request.
pub(crate) fn post(target: &Target, path: &str, body: &str) -> Vec<u8> {
    post_with_key(target, path, body, None)
}

/// Returns a POST request, with this `Idempotency-Key` if there is one.
pub(crate) fn post_with_key(
    target: &Target,
    path: &str,
    body: &str,
    idempotency_key: Option<&str>,
) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\n{}", target.headers);
    if let Some(key) = idempotency_key {
        let _ = write!(request, "idempotency-key: {key}\r\n");
    }
    if !body.is_empty() {
        request.push_str("content-type: application/json\r\n");
    }
    // Writing to a string can't fail.
    let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
    request.into_bytes()
}

/// A persistent connection, which sends one request after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Response of the server.
pub(crate) struct Reply<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// Path of the next page, if there is one.
    pub(crate) next: Option<String>,
    pub(crate) has_retry_after: bool,
    /// Whether an earlier request with the same `Idempotency-Key` had already been done.
    pub(crate) is_replay: bool,
}

/// Result of one of the bookings of a bulk request.
#[derive(Debug, Deserialize)]
pub(super) struct BulkResult {
    pub(super) status: u16,
    pub(super) booking: Option<WithId>,
}

/// A booking or show, of which only the id is read.
#[derive(Debug, Deserialize)]
pub(super) struct WithId {
    pub(super) id: i64,
}

impl Reply<'_> {
    /// Returns the `id` in the body.
    pub(crate) fn id(&self) -> Option<i64> {
        let with_id: WithId = serde_json::from_slice(self.body).ok()?;
        Some(with_id.id)
    }

    /// Returns the results of a bulk request; none if the body has none.
    pub(super) fn bulk_results(&self) -> Option<Vec<BulkResult>> {
        #[derive(Deserialize)]
        struct BulkResults {
            results: Vec<BulkResult>,
        }
        let body: BulkResults = serde_json::from_slice(self.body).ok()?;
        Some(body.results)
    }
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = target
            .connect()
            .await
            .with_context(|| format!("cannot connect to {}", target.address))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(1024),
        })
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<Reply<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
            self.read_more().await?;
        };
        while self.buffer.len() < head.length + head.body_length {
            self.read_more().await?;
        }
        Ok(Reply {
            status: head.status,
            body: &self.buffer[head.length..head.length + head.body_length],
            next: head.next,
            has_retry_after: head.has_retry_after,
            is_replay: head.is_replay,
        })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

struct Head {
    status: u16,
    /// Length of the head, in bytes.
    length: usize,
    body_length: usize,
    next: Option<String>,
    has_retry_after: bool,
    is_replay: bool,
}

/// Parses the head of a reply; none if it is incomplete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut reply = httparse::Response::new(&mut headers);
    let length = match reply.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let header = |name: &str| {
        reply
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let body_length = header("content-length")
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| io::Error::other("the reply has no content-length"))?;
    let next = header("link")
        .and_then(|link| link.strip_prefix('<')?.strip_suffix(">; rel=\"next\""))
        .map(str::to_owned);
    Ok(Some(Head {
        status: reply.code.unwrap_or_default(),
        length,
        body_length,
        next,
        has_retry_after: header("retry-after").is_some(),
        is_replay: header("idempotency-replayed").is_some(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_when_it_is_all_there() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nLink: </a?b=1>; rel=\"next\"\r\n\r\n[1,2,3,4,5,6";
        for end in 0..=bytes.len() {
            match parse_head(&bytes[..end]).unwrap() {
                None => assert!(end < bytes.len() - 12),
                Some(head) => {
                    assert_eq!((head.status, head.body_length), (200, 12));
                    assert_eq!(head.length, bytes.len() - 12);
                    assert_eq!(head.next.as_deref(), Some("/a?b=1"));
                }
            }
        }
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_head(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn a_target_is_host_and_port() {
        let address = |url: &str| url.parse::<Target>().map(|target| target.address).ok();
        assert_eq!(address("http://a:1/").as_deref(), Some("a:1"));
        assert_eq!(address("http://a").as_deref(), Some("a:80"));
        assert_eq!(address("https://a"), None);
        assert_eq!(address("http://a/b"), None);
    }
}
