//! The command `ticketing health`: checks a health endpoint.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, ensure};

/// Check the health of an api or worker; exits with 1 if it is not healthy
///
/// Meant for places without another HTTP client, such as a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// URL of the health endpoint; for a worker, such as `http://127.0.0.1:5002/health/live`
    #[arg(default_value = "http://127.0.0.1:5000/health/ready")]
    url: String,
}

/// Timeout for connecting, and for each read of the response.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of bytes of a response that are read.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let answer = get(&args.url).with_context(|| format!("no answer from {}", args.url))?;
    let is_healthy = answer.starts_with("HTTP/1.1 200 ");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = answer.get(9..12).unwrap_or_default();
    ensure!(is_healthy, "{} returned {status}: {body}", args.url);
    Ok(())
}

/// Sends a GET request, and returns the response including its head.
fn get(url: &str) -> anyhow::Result<String> {
    let rest = url
        .strip_prefix("http://")
        .context("not a URL of the form http://host:port/path")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let address = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = address
        .to_socket_addrs()?
        .next()
        .context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
