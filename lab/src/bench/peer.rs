//! Measures a peer: Redis, and the [server](crate::peer) in front of it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::sleep,
};

use super::report::Measured;
use crate::{cost::Cost, stress};

/// The peer, which takes part in a benchmark.
pub(super) struct Peer {
    /// Directory for its data, on the disk to measure.
    dir: PathBuf,
}

/// Time for Redis to start.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

impl Peer {
    /// Returns the peer if the environment asks for it with `PEERS=1`.
    ///
    /// # Errors
    ///
    /// Fails if `redis-server` is then not installed.
    pub(super) fn find(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        if env::var_os("PEERS").is_none_or(|value| value != "1") {
            return Ok(None);
        }
        let version = std::process::Command::new("redis-server")
            .arg("--version")
            .output()
            .context("PEERS=1 needs redis-server, which can't be started")?;
        tracing::info!("{}", String::from_utf8_lossy(&version.stdout).trim());
        let dir = data_dir.with_extension("redis");
        Ok(Some(Self { dir }))
    }

    /// Puts the load on a fresh server. Nothing is verified.
    ///
    /// Redis writes its log to the disk before it answers, as PostgreSQL does.
    pub(super) async fn measure(&self, load: &stress::Args) -> anyhow::Result<Measured> {
        fs::create_dir_all(&self.dir)?;
        let socket = self.dir.join("socket");
        let mut redis = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .args(["--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(&self.dir)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start redis-server")?;
        let exists = async {
            while !socket.exists() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(STARTS_WITHIN, exists)
            .await
            .context("redis-server does not start")?;
        let mut server = Command::new(env::current_exe()?)
            .arg("peer")
            .arg("--redis")
            .arg(&socket)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = server.stdout.take().context("stdout is not piped")?;
        let Some(address) = BufReader::new(output).lines().next_line().await? else {
            bail!("the peer's server does not start");
        };
        let load = stress::Args {
            urls: vec![format!("http://{address}")],
            ..load.clone()
        };
        let report = stress::unverified(&load).await?;
        server.kill().await?;
        redis.kill().await?;
        fs::remove_dir_all(&self.dir)?;
        if !report.errors.is_empty() {
            bail!("the peer failed: {report}");
        }
        Ok(Measured::new(&report, Cost::default()))
    }
}
