//! Measures how fast the database alone makes bookings, with `pgbench` in batches of 100.

use anyhow::{Context, ensure};
use shared::{
    local_postgres::LocalPostgres,
    postgres::Session,
    show::{self, Creation, MAX_SEATS, NewShow},
};
use tokio::process::Command;

use crate::environment::DATABASE;

/// Script for `pgbench`: the statements of a batch of 100 requests for one show.
const BATCH_OF_100: &str = include_str!("reserve.pgbench.sql");

/// Returns the bookings of one show per second.
pub(super) async fn measure(server: &LocalPostgres, seconds: u64) -> anyhow::Result<f64> {
    let url = server.create_database(DATABASE).await?;
    let database = server.connect(DATABASE).await?;
    let creation = Creation {
        new: NewShow::new("Limit", chrono::DateTime::UNIX_EPOCH, MAX_SEATS),
        claim: None,
    };
    show::create(&mut Session::new(&database), creation).await??;
    database.pool.close().await;

    let script = server.data_dir().join("reserve.pgbench.sql");
    std::fs::write(&script, BATCH_OF_100)?;
    let output = Command::new(server.program("pgbench"))
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--client=2",
            "--jobs=1",
        ])
        .arg(format!("--time={seconds}"))
        .arg("--file")
        .arg(&script)
        .arg(&url)
        .output()
        .await
        .context("cannot start pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "pgbench failed: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let transactions_per_second: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("pgbench printed no tps: {text}"))?;
    server.drop_database(DATABASE).await?;
    Ok(transactions_per_second * 100.0)
}
