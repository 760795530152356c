//! Health checks during an attack, each on a new connection, as an orchestrator sends them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::task::{JoinHandle, spawn_blocking};

/// Pause between two checks.
const EVERY: Duration = Duration::from_millis(200);

/// Timeout for connecting, and for each read of the response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running series of health checks.
///
/// It has a thread of its own, because the others are busy with the attack.
pub(super) struct HealthProbe {
    is_over: Arc<AtomicBool>,
    checks: JoinHandle<Checks>,
}

/// Result of all checks.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) slowest: Duration,
    /// Number of checks without a response, or with a status other than 200.
    pub(super) failed: u32,
}

impl HealthProbe {
    pub(super) fn start(url: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").unwrap_or(url);
        let address: SocketAddr = address.parse().context("not an IP address and port")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = is_over.clone();
        let checks = spawn_blocking(move || {
            let mut checks = Checks::default();
            while !stop.load(Relaxed) {
                let began = Instant::now();
                match check(address) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => checks.failed += 1,
                }
                checks.slowest = checks.slowest.max(began.elapsed());
                thread::sleep(EVERY);
            }
            checks
        });
        Ok(Self { is_over, checks })
    }

    pub(super) async fn stop(self) -> anyhow::Result<Checks> {
        self.is_over.store(true, Relaxed);
        Ok(self.checks.await?)
    }
}

fn check(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
