//! Operations on a running system: rolling restarts, a connection pooler, and a failover.

mod system;

use std::{fmt::Write, fs, path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use shared::local_postgres::{DATABASE, LocalPostgres, Mode};
use sqlx::{Connection, PgConnection, PgPool};
use testing::{DataDir, TestDatabase, count, eventually};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::system::{
    ADMIN_PATHS, Program, assert_all_is_well, find_program, pgbouncer::PgBouncer, stress,
    stress_while,
};

/// The HAProxy of the compose file, in front of the apis of a test.
struct Haproxy {
    _process: Child,
    url: String,
    _dir: DataDir,
}

impl Haproxy {
    async fn start(program: &Path, apis: &[Program]) -> Self {
        let dir = DataDir::new("haproxy");
        fs::create_dir(&dir.0).unwrap();
        let config = include_str!("../../deploy/haproxy.cfg");
        let (before, _) = config.split_once("    server-template").unwrap();
        let address = free_address();
        let mut config = before.replace("bind :5000", &format!("bind {address}"));
        for (index, api) in apis.iter().enumerate() {
            writeln!(config, "    server api{index} {}", api.address).unwrap();
        }
        let file = dir.0.join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let process = Command::new(program)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        eventually("the proxy and the apis behind it are ready", async || {
            let ready = reqwest::get(format!("{url}/health/ready")).await;
            ready.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Self {
            _process: process,
            url,
            _dir: dir,
        }
    }
}

/// Returns a free address, for programs that cannot choose a free port themselves.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn booking_goes_on(pool: &PgPool) {
    let bookings = async || count(pool, "SELECT count(*) FROM bookings").await;
    let before = bookings().await;
    eventually("bookings are made", async || {
        bookings().await > before + 100
    })
    .await;
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request_and_loses_no_job() {
    let Some(haproxy) = find_program("haproxy") else {
        return;
    };
    let db = TestDatabase::new().await;
    let linger = ["--linger-seconds", "6"];
    // Keeps the janitor from failing overdue holds, so that each hold's own job has to run.
    let worker = async || Program::worker_with(&db.url, &["--overdue-grace-seconds", "3600"]).await;
    let mut apis = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..3 {
        apis.push(Program::api(&db.url, "127.0.0.1:0", &linger).await);
    }
    for _ in 0..2 {
        workers.push(worker().await);
    }
    let proxy = Haproxy::start(&haproxy, &apis).await;

    let replace = async {
        booking_goes_on(&db.pool).await;
        for _ in 0..apis.len() {
            let api = apis.remove(0);
            let address = api.address.clone();
            api.stop().await;
            apis.push(Program::api(&db.url, &address, &linger).await);
        }
        for _ in 0..workers.len() {
            workers.remove(0).stop().await;
            workers.push(worker().await);
        }
        booking_goes_on(&db.pool).await;
    };
    let args = ["mixed", "--connections", "64", "--duration", "8"];
    let (runs, ()) = stress_while(&proxy.url, &args, replace).await;
    for (code, report) in runs {
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report["errors"], json!({}), "{report}");
    }
    assert_all_is_well(&db.pool).await;
    // The janitor had nothing to repair.
    assert_eq!(
        count(&db.pool, "SELECT count(*) FROM interventions").await,
        0
    );
}

/// Returns the connection string with which a pooler reaches the server of a test's database.
fn server_of(db: &TestDatabase) -> String {
    let (_, server) = db.url.split_once("host=").unwrap();
    let (server, _) = server.split_once('&').unwrap();
    format!("host={server} user=postgres")
}

/// Asserts that `worker` and `migrate` reject this pooler with an error that says what to do.
async fn assert_only_an_api_starts(url: &str, environment: &[(&str, &str)]) {
    testing::build_programs();
    for (program, args) in [("worker", &[][..]), ("ticketing", &["migrate"])] {
        let refused =
            Command::new(Path::new(env!("CARGO_BIN_EXE_ticketing")).with_file_name(program))
                .args(args)
                .env("DATABASE_URL", url)
                .env("RUST_BACKTRACE", "0")
                .envs(environment.iter().copied())
                .kill_on_drop(true)
                .output();
        let refused = timeout(Duration::from_secs(30), refused)
            .await
            .expect("the program exits")
            .unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(
            said.contains("give it the address of the server itself"),
            "{said}"
        );
    }
}

/// Session options that the pooler ignores must not keep a program from noticing the pooler.
#[tokio::test]
async fn a_pooler_is_noticed_whatever_options_the_url_and_the_environment_have() {
    let Some(pgbouncer) = find_program("pgbouncer") else {
        return;
    };
    let db = TestDatabase::new().await;
    let ignores = "ignore_startup_parameters = options,extra_float_digits";
    let pooler = PgBouncer::start_with(&pgbouncer, &server_of(&db), ignores).await;
    let url = pooler.url(&db.name);
    let with_options = format!("{url}&options=-c%20work_mem%3D8MB");
    assert_only_an_api_starts(&with_options, &[]).await;
    assert_only_an_api_starts(&url, &[("PGOPTIONS", "-c work_mem=8MB")]).await;

    // Settings of the database must not matter either. Behind this pooler, a session cannot
    // override them when it starts.
    for setting in [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "standard_conforming_strings = off",
        "search_path = ''",
    ] {
        let sql = format!("ALTER DATABASE {} SET {setting}", db.name);
        let set = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        set.execute(&db.pool).await.unwrap();
    }
    // Makes the pooler reconnect, because its connections to the server keep the settings that they
    // started with.
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ticketing' AND datname = current_database() AND pid <> pg_backend_pid()")
        .execute(&db.pool)
        .await
        .unwrap();

    let api = Program::api(&with_options, "127.0.0.1:0", &[]).await;
    let args = ["hot", "--connections", "8", "--duration", "1"];
    let (code, report) = stress(&api.url(), &args).await;
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
}

#[tokio::test]
async fn an_api_works_behind_a_pooler_and_a_worker_says_that_it_does_not() {
    let Some(pgbouncer) = find_program("pgbouncer") else {
        return;
    };
    let db = TestDatabase::new().await;
    let pooler = PgBouncer::start(&pgbouncer, &server_of(&db)).await;
    let url = pooler.url(&db.name);
    assert_only_an_api_starts(&url, &[]).await;

    let _worker = Program::worker(&db.url).await;
    let apis = [
        Program::api(&url, "127.0.0.1:0", &[]).await,
        Program::api(&url, "127.0.0.1:0", &[]).await,
    ];
    for load in [
        &["mixed"][..],
        &["spread", "--retries", "--hold-seconds", "10"],
    ] {
        let other = apis[1].url();
        let args = [
            load,
            &["--url", &other, "--connections", "64", "--duration", "4"],
        ]
        .concat();
        let (code, report) = stress(&apis[0].url(), &args).await;
        assert_eq!(code, Some(0), "{report}");
        if load == ["mixed"] {
            assert_eq!(report["errors"], json!({}), "{report}");
        }
        assert!(report["bookings"].as_u64().unwrap() > 100, "{report}");
    }
    // The admin listener runs other queries.
    for path in ADMIN_PATHS {
        let url = format!("http://{}/{path}", apis[0].admin);
        assert_eq!(reqwest::get(url).await.unwrap().status(), 200, "{path}");
    }
    let audit = format!("http://{}/audit", apis[0].admin);
    let client = reqwest::Client::new();
    assert!(
        client
            .post(&audit)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    eventually("the audit succeeds through the pooler", async || {
        let found: Value = reqwest::get(&audit).await.unwrap().json().await.unwrap();
        assert!(found["failure"].is_null(), "{found}");
        found["audit"].is_object()
    })
    .await;
    assert_all_is_well(&db.pool).await;
}

#[tokio::test]
async fn a_failover_loses_nothing_that_was_acknowledged() {
    let dir = DataDir::new("failover");
    fs::create_dir(&dir.0).unwrap();
    let (first, second) = (dir.0.join("one"), dir.0.join("two"));
    let primary = LocalPostgres::start(&first, Mode::Durable).unwrap();
    let database = primary.connect(DATABASE).await.unwrap();
    shared::migrate::run(&database).await.unwrap();
    let pool = database.pool;
    let standby = primary.start_standby(&second).unwrap();
    // Makes a commit wait until the standby has it.
    for command in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::raw_sql(command).execute(&pool).await.unwrap();
    }
    eventually("the standby is synchronous", async || {
        let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        count(&pool, synchronous).await == 1
    })
    .await;

    let url = format!(
        "postgres:///{DATABASE}?host={},{}&user=postgres&target_session_attrs=read-write",
        second.display(),
        first.display(),
    );
    let apis = [
        Program::api(&url, "127.0.0.1:0", &[]).await,
        Program::api(&url, "127.0.0.1:0", &[]).await,
    ];
    let mut worker = Program::worker(&url).await;

    let other = apis[1].url();
    let load = async |seconds: &str| {
        let args = ["mixed", "--url", &other, "--connections", "64"];
        let args = [&args[..], &["--duration", seconds]].concat();
        let (code, report) = stress(&apis[0].url(), &args).await;
        assert_eq!(code, Some(0), "{report}");
        report["errors"].clone()
    };
    let fail_over = async {
        booking_goes_on(&pool).await;
        let id = primary.process_id().unwrap();
        kill(Pid::from_raw(id), Signal::SIGKILL).unwrap();
        let mut connection = PgConnection::connect(&standby.url("postgres"))
            .await
            .unwrap();
        sqlx::raw_sql("SELECT pg_promote()")
            .execute(&mut connection)
            .await
            .unwrap();
        standby.connect(DATABASE).await.unwrap().pool
    };
    let (errors, pool) = tokio::join!(load("15"), fail_over);
    let errors = errors.as_object().unwrap();
    assert!(
        errors.keys().all(|error| error.ends_with(": 503")),
        "{errors:?}"
    );
    assert_eq!(load("3").await, json!({}), "the apis recover");
    assert!(
        worker.process.try_wait().unwrap().is_none(),
        "the worker is still running"
    );
    assert_all_is_well(&pool).await;
}
