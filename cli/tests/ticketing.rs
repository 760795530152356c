//! Tests of the `ticketing` binary.

mod system;

use std::{path::Path, process::Stdio, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};
use testing::{DataDir, TestDatabase, a_show, eventually};

use tokio::process::Command;

use crate::system::{Up, server_runs, stress, ticketing, up};

#[tokio::test]
async fn up_runs_everything_keeps_its_data_and_stops_everything() {
    let data = DataDir::new("keeps");
    let mut up = Up::start(&data.0).await;
    let show = json!({"name": "Morning Show", "startTime": "2025-12-10 10:00:00", "seats": 40});
    let response = reqwest::Client::new()
        .post(format!("{}/shows", up.api))
        .json(&show)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    assert!(server_runs(&data));
    up.signal(Signal::SIGINT);
    assert_eq!(up.process.wait().await.unwrap().code(), Some(0));
    assert!(
        !server_runs(&data),
        "the database stopped before `up` exited"
    );

    let mut up = Up::start(&data.0).await;
    assert_eq!(up.shows().await[0]["name"], "Morning Show");
    up.signal(Signal::SIGTERM);
    assert_eq!(up.process.wait().await.unwrap().code(), Some(0));

    // Resets SIGHUP, which is ignored when the tests run under nohup.
    let mut up = Up::of(up_by(&["env", "--default-signal=HUP"], &data.0)).await;
    up.signal(Signal::SIGHUP);
    assert_eq!(up.process.wait().await.unwrap().code(), Some(0));
    assert!(!server_runs(&data));
}

/// Returns a command in which another program runs `ticketing up`.
fn up_by(program: &[&str], data: &Path) -> Command {
    let wrapped = up(data);
    let wrapped = wrapped.as_std();
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(wrapped.get_program())
        .args(wrapped.get_args())
        .env_remove("DATABASE_URL")
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_private_server_stops_even_when_up_is_killed() {
    let data = DataDir::new("killed");
    let mut up = Up::start(&data.0).await;
    up.signal(Signal::SIGKILL);
    up.process.wait().await.unwrap();
    // Restarts at once, while the old server may still be stopping; the data must be intact.
    let mut up = Up::start(&data.0).await;
    assert_eq!(up.shows().await, json!([]));
    up.signal(Signal::SIGKILL);
    up.process.wait().await.unwrap();
    eventually("the server has stopped", async || !server_runs(&data)).await;
}

#[tokio::test]
async fn up_ends_with_an_error_when_its_server_was_killed() {
    let data = DataDir::new("lost");
    let mut up = Up::start(&data.0).await;
    let file = std::fs::read_to_string(data.0.join("postmaster.pid")).unwrap();
    let id = file.lines().next().unwrap().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(id), Signal::SIGKILL).unwrap();
    let status = up.process.wait().await.unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn up_quotes_why_its_server_ended() {
    let data = DataDir::new("reason");
    let mut command = up(&data.0);
    command.stderr(Stdio::piped());
    let up = Up::of(command).await;
    eventually("the api is ready", async || {
        let ready = reqwest::get(format!("{}/health/ready", up.api)).await;
        ready.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let database = testing::connect(&up.database, 2).await.unwrap();
    // Simulates a log that cannot be written. The server exits at the checkpoint, if not sooner.
    std::fs::rename(data.0.join("pg_wal"), data.0.join("elsewhere")).unwrap();
    let checkpoint = sqlx::query("CHECKPOINT").execute(&database.pool).await;
    checkpoint.unwrap_err();
    let output = up.process.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let reason = text.split_once("Error: PostgreSQL has ended");
    let (_, reason) = reason.unwrap_or_else(|| panic!("{text}"));
    assert!(reason.contains("pg_wal"), "{reason}");
    assert!(!reason.contains("backtrace"), "{reason}");
}

#[tokio::test]
async fn nohup_keeps_it_running_when_the_terminal_is_closed() {
    let data = DataDir::new("nohup");
    let mut command = up_by(&["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"], &data.0);
    command.stderr(Stdio::piped());
    let up = Up::of(command).await;
    up.signal(Signal::SIGHUP);
    assert_eq!(up.shows().await, json!([]));
    up.signal(Signal::SIGTERM);
    let output = up.process.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("SIGTERM") && !text.contains("SIGHUP"),
        "{text}"
    );
}

#[tokio::test]
async fn a_second_up_on_the_same_data_says_so() {
    let data = DataDir::new("twice");
    let mut up = Up::start(&data.0).await;
    let second = ticketing()
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data.0)
        .output()
        .await
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("postmaster.pid"), "{text}");
    assert_eq!(up.shows().await, json!([]), "the first one still runs");
    up.signal(Signal::SIGINT);
    assert_eq!(up.process.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn migrate_is_safe_twice_and_by_several_at_once() {
    let db = TestDatabase::empty().await;
    let migrate = async || {
        let output = ticketing()
            .arg("migrate")
            .env("DATABASE_URL", &db.url)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
    };
    tokio::join!(migrate(), migrate(), migrate());
    migrate().await;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM shows, bookings, apalis.jobs")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn without_a_server_to_start_it_says_where_it_looked_and_what_to_install() {
    let output = ticketing()
        .env("PG_BIN_DIR", "/nowhere")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for expected in ["/nowhere", "DATABASE_URL", "apt-get install"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("backtrace"), "{text}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_the_database_stops() {
    let data = DataDir::new("port");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = tokio::time::timeout(
        Duration::from_mins(1),
        ticketing()
            .args(["up", "--listen", &address, "--data-dir"])
            .arg(&data.0)
            .output(),
    );
    let output = output.await.expect("it exits").unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!("cannot listen on {address}")),
        "{text}"
    );
    assert!(!server_runs(&data));
}

#[tokio::test]
async fn stress_sells_exactly_the_seats_and_verifies_it() {
    let data = DataDir::new("stress");
    let mut up = Up::start(&data.0).await;
    let sellout = [
        "sellout",
        "--seats",
        "100",
        "--requests",
        "500",
        "--connections",
        "20",
    ];
    let (code, report) = stress(&up.api, &sellout).await;
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["bookings"], 100);
    assert_eq!(report["refusals"], 400);
    assert_eq!(report["errors"], json!({}));
    assert_eq!(report["verification"]["available"], 0);

    for mode in ["hot", "spread", "confirm", "mixed"] {
        let short = [
            mode,
            "--duration",
            "1",
            "--connections",
            "10",
            "--shows",
            "7",
        ];
        let (code, report) = stress(&up.api, &short).await;
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report["errors"], json!({}), "{report}");
        assert!(report["bookings"].as_u64().unwrap() > 0, "{report}");
    }

    let at_a_rate = [
        "hot",
        "--duration",
        "2",
        "--rate",
        "50",
        "--hold-seconds",
        "10",
    ];
    let (code, report) = stress(&up.api, &at_a_rate).await;
    assert_eq!(code, Some(0), "{report}");
    let bookings = report["bookings"].as_f64().unwrap();
    // By the tool's own clock; one more, because the first turn is due at once.
    let due = 50.0 * report["seconds"].as_f64().unwrap() + 1.0;
    assert!(bookings > 0.0 && bookings <= due, "{report}");

    // Clients with short timeouts that retry: there must be one booking for each key whose booking
    // was acknowledged.
    let impatient = ["hot", "--duration", "2", "--connections", "20", "--retries"];
    let (code, report) = stress(&up.api, &impatient).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(report["replays"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["bookings"], report["verification"]["bookings"]);
    assert_eq!(report["bookings"], report["verification"]["taken"]);
    up.signal(Signal::SIGINT);
    assert_eq!(up.process.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let db = TestDatabase::new().await;
    let key = async |args: &[&str]| {
        let mut command = ticketing();
        command.arg("key").args(args).env("DATABASE_URL", &db.url);
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let create = [
        "create",
        "--name",
        "box-office",
        "--scope",
        "bookings:write,shows:write",
    ];
    let (code, made, _) = key(&create).await;
    assert_eq!(code, Some(0));
    assert!(
        made.starts_with("tkt_1_") && made.trim().len() == 6 + 64,
        "{made}"
    );
    let (code, _, problem) = key(&create).await;
    assert_eq!(code, Some(1));
    assert!(
        problem.contains("named \"box-office\" already exists"),
        "{problem}"
    );
    let (code, _, problem) = key(&["create", "--name", "x", "--scope", "bookings"]).await;
    assert_eq!(code, Some(2));
    assert!(
        problem.contains("shows:read"),
        "the error lists the scopes: {problem}"
    );

    let (_, listed, _) = key(&["list"]).await;
    assert!(listed.contains("box-office"), "{listed}");
    assert!(listed.contains("bookings:write,shows:write"), "{listed}");
    let secret = made.trim().rsplit('_').next().unwrap();
    assert!(!listed.contains(secret));
    let stored: String = sqlx::query_scalar("SELECT api_keys::text FROM api_keys")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert!(!stored.contains(secret));

    let (code, ..) = key(&["revoke", "--name", "box-office"]).await;
    assert_eq!(code, Some(0));
    let (code, _, problem) = key(&["revoke", "--name", "box-office"]).await;
    assert_eq!(code, Some(1));
    assert!(problem.contains("no valid key"), "{problem}");
    let (code, made, _) = key(&create).await;
    assert_eq!(code, Some(0), "the name is free again");
    assert!(made.starts_with("tkt_"), "{made}");
}

#[tokio::test]
async fn audit_exits_with_1_when_an_invariant_is_broken() {
    let db = TestDatabase::new().await;
    let audit = async |args: &[&str]| {
        let mut command = ticketing();
        command.arg("audit").args(args).env("DATABASE_URL", &db.url);
        let output = command.output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let show = a_show(&db.pool, 10).await;
    let (code, text) = audit(&[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 shows, 0 bookings"), "{text}");

    sqlx::query("UPDATE shows SET available_seats = 9")
        .execute(&db.pool)
        .await
        .unwrap();
    let (code, text) = audit(&[]).await;
    assert_eq!(code, Some(1));
    let example = format!("show {}: 10 seats, 9 available, 0 taken", show.id);
    assert!(text.contains(&example), "{text}");
    let (code, text) = audit(&["--json"]).await;
    assert_eq!(code, Some(1));
    let audit: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(audit["invariants"][0]["broken"], 1, "{audit}");
    assert_eq!(audit["invariants"][0]["examples"], json!([example]));
}

#[tokio::test]
async fn health_tells_whether_a_program_is_well() {
    let data = DataDir::new("health");
    let up = Up::start(&data.0).await;
    let health = async |path: &str| {
        let url = format!("{}{path}", up.api);
        let output = ticketing().args(["health", &url]).output().await.unwrap();
        output.status.code()
    };
    assert_eq!(health("/health/ready").await, Some(0));
    assert_eq!(health("/health/nowhere").await, Some(1));
    drop(up);
    let nobody = ticketing()
        .args(["health", "http://127.0.0.1:1/health/ready"])
        .output()
        .await
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
}
