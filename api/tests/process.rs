//! The real `api` binary.

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use shared::testing::{TestDatabase, a_show, eventually, until_one_waits_for_a_lock};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

struct Api {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    base: String,
}

impl Api {
    async fn start(db: &TestDatabase) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_api"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--log",
                "info,api=debug",
            ])
            .env("DATABASE_URL", &db.url)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let listens = line_with(&mut log, "api listens").await;
        let base = format!("http://{}", listens["address"].as_str().unwrap());
        Self { process, log, base }
    }
}

/// The next log line with this message.
async fn line_with(log: &mut Lines<BufReader<ChildStderr>>, message: &str) -> Value {
    loop {
        let line = log.next_line().await.unwrap().expect("the log goes on");
        let line: Value = serde_json::from_str(&line).expect("a JSON log");
        if line["message"] == message {
            return line;
        }
    }
}

#[tokio::test]
async fn sigterm_lets_the_request_in_hand_finish() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let mut api = Api::start(&db).await;

    // The booking waits for the show's row, which is ours.
    let mut blocker = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows FOR UPDATE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let booking = reqwest::Client::new()
        .post(format!("{}/bookings", api.base))
        .json(&json!({"showId": show.id, "userName": "Alice", "numberOfSeats": 2}))
        .send();
    let booking = tokio::spawn(booking);
    until_one_waits_for_a_lock(&db.pool).await;
    let id = i32::try_from(api.process.id().unwrap()).unwrap();
    kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
    let address = api.base.trim_start_matches("http://").to_owned();
    eventually("new connections are refused", async || {
        tokio::net::TcpStream::connect(&address).await.is_err()
    })
    .await;
    blocker.rollback().await.unwrap();

    assert_eq!(booking.await.unwrap().unwrap().status(), 201);
    assert_eq!(api.process.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn every_log_line_of_a_request_has_its_id() {
    let db = TestDatabase::new().await;
    let mut api = Api::start(&db).await;
    // Without its table, a request fails in a way that is a defect.
    sqlx::query("DROP TABLE bookings")
        .execute(&db.pool)
        .await
        .unwrap();
    let response = reqwest::Client::new()
        .get(format!("{}/bookings/1", api.base))
        .header("x-request-id", "r-1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["x-request-id"], "r-1");
    let body = response.text().await.unwrap();
    assert!(!body.contains("relation"), "nothing of the inside: {body}");

    let failed = line_with(&mut api.log, "request failed").await;
    assert_eq!(failed["span"]["id"], "r-1");
    assert_eq!(failed["level"], "ERROR");
    assert!(
        failed["error"].to_string().contains("relation"),
        "the cause: {failed}"
    );
    let answered = line_with(&mut api.log, "answered").await;
    assert_eq!(answered["span"]["id"], "r-1");
    assert_eq!(answered["status"], 500);
}

#[tokio::test]
async fn a_missing_or_wrong_setting_is_told_at_once() {
    for (url, expected) in [
        (None, "--database-url"),
        (Some("http://localhost"), "not a PostgreSQL URL"),
        (
            Some("postgres://u:secret@127.0.0.1:1/x"),
            "cannot connect to PostgreSQL at 127.0.0.1:1",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_api"));
        command.env_remove("DATABASE_URL");
        if let Some(url) = url {
            command.env("DATABASE_URL", url);
        }
        let output = command.output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{url:?}");
        assert!(text.contains(expected), "{url:?}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
