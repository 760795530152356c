//! `ticketing health`

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::stress::http::{Connection, Target, get};

/// Ask a program whether it is well; exits with 1 when it is not
///
/// For where nothing else can ask, such as in a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where; of a worker it is such as `http://127.0.0.1:5002/health/live`
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
            "{} was answered with {}: {}",
            args.url,
            reply.status,
            String::from_utf8_lossy(reply.body)
        );
        Ok(())
    })
    .await
    .with_context(|| format!("no answer from {}", args.url))?
}
