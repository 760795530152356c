//! The command `ticketing health`: checks a health endpoint.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::stress::http::{Connection, Target, get};

/// Check the health of an api or worker; exits with 1 if it is not healthy
///
/// Meant for places without another HTTP client, such as a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// URL of the health endpoint; for a worker, such as `http://127.0.0.1:5002/health/live`
    #[arg(default_value = "http://127.0.0.1:5000/health/ready")]
    url: String,
}

const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let path_begins = args.url.match_indices('/').nth(2);
    let (server, path) = match path_begins {
        Some((at, _)) => args.url.split_at(at),
        None => (args.url.as_str(), "/"),
    };
    let target: Target = server.parse()?;
    timeout(TIMEOUT, async {
        let mut connection = Connection::open(&target).await?;
        let reply = connection.send(&get(&target, path)).await?;
        ensure!(
            reply.status == 200,
            "{} returned {}: {}",
            args.url,
            reply.status,
            String::from_utf8_lossy(reply.body)
        );
        Ok(())
    })
    .await
    .with_context(|| format!("no answer from {}", args.url))?
}
