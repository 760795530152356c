//! Asks for the server's health all the time, as an orchestrator does: on a new connection each time.

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

/// How often it asks.
const EVERY: Duration = Duration::from_millis(200);

/// How long it waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Checks in progress. On a thread of its own, since the others are busy with the attack.
pub(super) struct HealthProbe {
    is_over: Arc<AtomicBool>,
    checks: JoinHandle<Checks>,
}

/// The result of all checks.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) slowest: Duration,
    /// Without an answer, or with another one than 200.
    pub(super) failed: u32,
}

impl HealthProbe {
    pub(super) fn start(url: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").unwrap_or(url);
        let address: SocketAddr = address.parse().context("not an address")?;
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
