//! The command `ticketing health`: checks a health endpoint.

use std::time::Duration;

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

const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    // The health of this very process is meant, and not what a proxy makes of it.
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .build()?;
    let context = || format!("no answer from {}", args.url);
    let response = client.get(&args.url).send().await.with_context(context)?;
    let status = response.status();
    let body = response.text().await.with_context(context)?;
    ensure!(status == 200, "{} returned {status}: {body}", args.url);
    Ok(())
}
