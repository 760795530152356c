//! Measures how fast the database alone makes bookings, with `pgbench` in batches of 100.

use anyhow::{Context, ensure};
use shared::{
    jobs::{ExpireBookings, Job},
    local_postgres::LocalPostgres,
    postgres::Session,
    show::{self, Creation, MAX_SEATS, NewShow},
};
use tokio::process::Command;

/// Name of its database.
const DATABASE: &str = "pgbench";

/// Statement that locks a show.
const LOCK: &str = include_str!("../../../shared/src/show/lock.sql");

/// Statement that inserts bookings.
const INSERT: &str = include_str!("../../../shared/src/booking/reserve/insert.sql");

/// Column that no booking has.
const NONE: &str = "'{}'";

/// Number of bookings of a batch.
const BATCH: u16 = 100;

/// Returns the bookings of one show per second.
pub(super) async fn measure(server: &LocalPostgres, seconds: u64) -> anyhow::Result<f64> {
    let url = server.create_database(DATABASE).await?;
    let database = server.connect(DATABASE).await?;
    let creation = Creation {
        new: NewShow::new("Limit", chrono::DateTime::UNIX_EPOCH, MAX_SEATS),
        claim: None,
    };
    show::create(&mut Session::new(&database), creation).await??;
    // pgbench gets the settings of our sessions, by which the planner is bound.
    let session_options = database
        .pool
        .connect_options()
        .get_options()
        .map(str::to_owned);
    database.pool.close().await;

    let script = server.data_dir().join("reserve.sql");
    std::fs::write(&script, script_of_a_batch())?;
    let output = Command::new(server.program("pgbench"))
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--client=2",
            "--jobs=1",
        ])
        .arg(format!("--time={seconds}"))
        .env("PGOPTIONS", session_options.unwrap_or_default())
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
    Ok(transactions_per_second * f64::from(BATCH))
}

/// Returns the script for `pgbench`: the statements of a batch of requests for show 1.
fn script_of_a_batch() -> String {
    let lock = with_parameters(LOCK, &["1".to_owned()]);
    let of_each = |value: &str| format!("array_fill({value}, ARRAY[{BATCH}])");
    let hold_ends = "now() + interval '2 minutes'";
    let insert = with_parameters(
        INSERT,
        &[
            of_each("1::bigint"),
            format!("ARRAY(SELECT 'user ' || n FROM generate_series(1, {BATCH}) AS n)"),
            of_each("1"),
            of_each(hold_ends),
            of_each("now() + interval '15 minutes'"),
            NONE.to_owned(),
            "ARRAY[1]".to_owned(),
            format!("ARRAY[{BATCH}]"),
            "ARRAY[:generation::bigint]".to_owned(),
            "now()".to_owned(),
            "1".to_owned(),
            "gen_random_uuid()::text".to_owned(),
            format!("'{}'", ExpireBookings::QUEUE),
            ExpireBookings::MAX_ATTEMPTS.to_string(),
            hold_ends.to_owned(),
            "NULL".to_owned(),
            NONE.to_owned(),
            NONE.to_owned(),
        ],
    );
    format!(
        "BEGIN;\nSELECT \"generation!\" AS generation FROM ({lock}) AS locked \\gset\n{insert};\nCOMMIT;\n"
    )
}

/// Puts expressions in place of the parameters `$1`, `$2` and so on, and removes comments.
fn with_parameters(statement: &str, values: &[String]) -> String {
    let lines = statement.lines();
    let code: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect();
    // The last one first: `$1` is also the beginning of `$16`.
    (1..=values.len())
        .rev()
        .fold(code.join("\n"), |code, number| {
            code.replace(&format!("${number}"), &format!("({})", values[number - 1]))
        })
}

#[cfg(test)]
mod tests {
    use shared::local_postgres::Mode;
    use testing::DataDir;

    use super::*;

    /// Its statements are the real ones, which change: their parameters must still fit.
    #[tokio::test]
    async fn pgbench_makes_bookings() {
        let data = DataDir::new("pgbench");
        let server = LocalPostgres::start(&data.0, Mode::Throwaway).unwrap();
        assert!(measure(&server, 1).await.unwrap() > 0.0);
    }
}
