//! Tests of the real `api` binary.

use std::process::Stdio;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use shared::{
    api_key::{self, NewApiKey, Scope},
    local_postgres::{LocalPostgres, Mode},
};
use testing::{
    DataDir, SteppedClock, TestDatabase, a_show, connect, eventually, let_pass, now,
    until_one_waits_for_a_lock,
};
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
    async fn start(database_url: &str) -> Self {
        Self::start_with(database_url, |_| ()).await
    }

    async fn start_with(database_url: &str, set: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_api"));
        command
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .env("DATABASE_URL", database_url)
            .env("RUST_LOG", "info,shared::http=debug")
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        set(&mut command);
        let mut process = command.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let listens = line_with(&mut log, "api listens").await;
        let base = format!("http://{}", listens["address"].as_str().unwrap());
        Self { process, log, base }
    }
}

fn terminate(api: &Api) {
    let id = i32::try_from(api.process.id().unwrap()).unwrap();
    kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
}

/// Reads the log up to the next line with this message, and returns that line.
async fn line_with(log: &mut Lines<BufReader<ChildStderr>>, message: &str) -> Value {
    loop {
        let line = log.next_line().await.unwrap().expect("a next log line");
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
    let mut api = Api::start(&db.url).await;

    // The booking waits for the show's row, which this test keeps locked.
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
    terminate(&api);
    let address = api.base.trim_start_matches("http://").to_owned();
    eventually("new connections are refused", async || {
        tokio::net::TcpStream::connect(&address).await.is_err()
    })
    .await;
    blocker.rollback().await.unwrap();

    assert_eq!(booking.await.unwrap().unwrap().status(), 201);
    assert_eq!(api.process.wait().await.unwrap().code(), Some(0));
}

/// Starts an api that serves for so many more seconds after SIGTERM.
async fn start_lingering(db: &TestDatabase, seconds: &str) -> Api {
    Api::start_with(&db.url, |command| {
        command.args(["--linger-seconds", seconds]);
    })
    .await
}

/// A proxy must notice the shutdown before the api refuses connections.
#[tokio::test]
async fn an_api_that_lingers_serves_on_and_says_that_it_will_stop() {
    let db = TestDatabase::new().await;
    // Longer than this test takes on any machine.
    let api = start_lingering(&db, "60").await;
    let client = reqwest::Client::new();
    let get = async |path: &str| {
        let response = client.get(format!("{}{path}", api.base)).send();
        response.await.unwrap()
    };
    let before = get("/shows").await;
    assert!(before.headers().get("connection").is_none());
    assert_eq!(get("/health/ready").await.status(), 200);

    terminate(&api);
    eventually("the api is not ready", async || {
        get("/health/ready").await.status() == 503
    })
    .await;
    let after = get("/shows").await;
    assert_eq!(after.status(), 200);
    assert_eq!(after.headers()["connection"], "close");
}

#[tokio::test]
async fn an_api_that_lingered_stops() {
    let db = TestDatabase::new().await;
    let mut api = start_lingering(&db, "1").await;
    terminate(&api);
    assert_eq!(api.process.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn no_key_is_in_the_log() {
    let db = TestDatabase::new().await;
    let new = NewApiKey {
        name: "test",
        scopes: &[Scope::ShowsRead],
        requests_per_second: None,
    };
    let right = api_key::create(&db.pool, &new).await.unwrap().reveal();
    let wrong = format!("tkt_1_{}", "ab".repeat(32));
    let mut api = Api::start_with(&db.url, |command| {
        command.arg("--require-keys").env("RUST_LOG", "trace");
    })
    .await;
    for (key, status) in [(&right, 200), (&wrong, 401)] {
        let request = reqwest::Client::new().get(format!("{}/shows", api.base));
        let answer = request.bearer_auth(key).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    terminate(&api);
    let mut log = String::new();
    while let Some(line) = api.log.next_line().await.unwrap() {
        log.push_str(&line);
    }
    assert!(log.contains("/shows"), "the log has requests");
    for key in [&right, &wrong] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(!log.contains(secret), "the log has no keys");
    }
}

#[tokio::test]
async fn sigterm_ends_an_api_that_still_waits_for_its_database() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u@{}/x", silent.local_addr().unwrap());
    let mut api = Command::new(env!("CARGO_BIN_EXE_api"))
        .env("DATABASE_URL", url)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let _connection = silent.accept().await.unwrap();
    let id = i32::try_from(api.id().unwrap()).unwrap();
    kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
    assert_eq!(api.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn without_its_database_the_api_lives_but_is_not_ready_and_comes_back_by_itself() {
    let data = DataDir::new("away");
    let server = LocalPostgres::start(&data.0, Mode::Durable).unwrap();
    let url = server.create_database("away").await.unwrap();
    let pool = connect(&url, 2).await.unwrap().pool;
    let show = a_show(&pool, 10).await;
    pool.close().await;
    let api = Api::start(&url).await;
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        let response = http.get(format!("{}{path}", api.base)).send().await;
        response.unwrap()
    };
    let book = async || {
        let body = json!({"showId": show.id, "userName": "Alice", "numberOfSeats": 1});
        let request = http.post(format!("{}/bookings", api.base)).json(&body);
        request.send().await.unwrap()
    };
    assert_eq!(get("/health/ready").await.status(), 200);
    assert_eq!(book().await.status(), 201);

    drop(server);
    assert_eq!(get("/health/ready").await.status(), 503);
    assert_eq!(get("/health/live").await.status(), 200);
    let refused = book().await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/unavailable");

    let _server = LocalPostgres::start(&data.0, Mode::Durable).unwrap();
    eventually("the api is ready", async || {
        get("/health/ready").await.status() == 200
    })
    .await;
    assert_eq!(book().await.status(), 201);
}

#[tokio::test]
async fn an_outage_that_fails_20_000_requests_is_logged_once_and_then_counted() {
    const CLIENTS: u64 = 100;
    const REQUESTS: u64 = 200;
    let data = DataDir::new("outage");
    let server = LocalPostgres::start(&data.0, Mode::Durable).unwrap();
    let url = server.create_database("outage").await.unwrap();
    let mut api = Api::start_with(&url, |command| {
        command.env("RUST_LOG", "info");
    })
    .await;
    drop(server);
    let http = reqwest::Client::new();
    let base = &api.base;
    let clients = (0..CLIENTS).map(|_| async {
        let body = json!({"showId": 1, "userName": "Alice", "numberOfSeats": 1});
        for _ in 0..REQUESTS {
            let request = http.post(format!("{base}/bookings")).json(&body);
            assert_eq!(request.send().await.unwrap().status(), 503);
        }
    });
    // The log is not read meanwhile.
    join_all(clients).await;
    let id = i32::try_from(api.process.id().unwrap()).unwrap();
    kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();

    let (mut lines, mut told) = (0, 0);
    while let Some(line) = api.log.next_line().await.unwrap() {
        let line: Value = serde_json::from_str(&line).expect("a JSON log");
        lines += 1;
        told += match line["message"].as_str() {
            Some("request failed") => 1,
            Some("again: request failed") => line["times"].as_u64().unwrap(),
            _ => 0,
        };
    }
    assert_eq!(told, CLIENTS * REQUESTS);
    assert!(lines < 200, "{lines} lines");
    assert_eq!(api.process.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn every_log_line_of_a_request_has_its_id() {
    let db = TestDatabase::new().await;
    let mut api = Api::start(&db.url).await;
    // Makes a request fail in a way that counts as a bug.
    sqlx::raw_sql(
        "ALTER TABLE bookings RENAME TO elsewhere; CREATE VIEW bookings AS SELECT * FROM elsewhere WHERE 1 / 0 = 1",
    )
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
    assert!(!body.contains("division"), "no internals: {body}");

    let failed = line_with(&mut api.log, "request failed").await;
    assert_eq!(failed["span"]["id"], "r-1");
    assert_eq!(failed["level"], "ERROR");
    assert!(
        failed["error"].to_string().contains("division"),
        "has the cause: {failed}"
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
        command
            .env_remove("DATABASE_URL")
            .env("RUST_BACKTRACE", "1");
        if let Some(url) = url {
            command.env("DATABASE_URL", url);
        }
        let output = command.output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{url:?}");
        assert!(text.contains(expected), "{url:?}: {text}");
        assert!(!text.contains("secret"), "{text}");
        assert!(!text.contains("backtrace"), "{text}");
    }
}

/// Only the clock of the database decides.
#[tokio::test]
async fn a_step_of_the_apis_clock_changes_no_decision() {
    let Some(clock) = SteppedClock::find() else {
        return;
    };
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let mut api = Api::start_with(&db.url, |command| clock.apply(command)).await;
    let http = reqwest::Client::new();
    let post = async |path: String, body: Value| {
        let request = http.post(format!("{}{path}", api.base)).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let book = async || {
        let body = json!({"showId": show.id, "userName": "Alice", "numberOfSeats": 1});
        post("/bookings".into(), body).await
    };
    for offset in ["+0", "+2d", "-2d"] {
        clock.step(offset);
        let began = now(&db.pool).await;
        let (status, booking) = book().await;
        assert_eq!(status, 201, "{offset}: {booking}");
        let at =
            |field: &str| -> DateTime<Utc> { booking[field].as_str().unwrap().parse().unwrap() };
        let lasts = at("expiresAt") - at("createdAt");
        assert_eq!(lasts.num_seconds(), 120, "{offset}");
        assert!(at("createdAt") >= began, "{offset}: {booking}");
        assert!(
            at("createdAt") <= now(&db.pool).await,
            "{offset}: {booking}"
        );
        let confirm = format!("/bookings/{}/confirm", booking["id"]);
        assert_eq!(post(confirm, json!(null)).await.0, 200, "{offset}");
    }
    let (_, late) = book().await;
    let_pass(&db.pool, 125).await;
    let confirm = format!("/bookings/{}/confirm", late["id"]);
    assert_eq!(
        post(confirm, json!(null)).await.0,
        409,
        "whatever the api's clock says"
    );

    // The api did see the stepped clock.
    let answered = loop {
        let line = line_with(&mut api.log, "answered").await;
        if line["status"] == 409 {
            break line;
        }
    };
    let seen: DateTime<Utc> = answered["timestamp"].as_str().unwrap().parse().unwrap();
    assert!((now(&db.pool).await - seen).num_hours() > 24, "{answered}");
}
