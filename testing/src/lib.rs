//! Test support: a migrated database for each test, and builders of test data.

use std::{
    env, fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::OnceCell;

use shared::{
    audit::{SEATS_ARE_CONSERVED, audit},
    batch::Batch,
    booking::{Booking, Change, Refusal, reserve},
    id::{BookingId, ShowId},
    jobs::ExpireBookings,
    local_postgres::{LocalPostgres, Mode},
    postgres::{self, Database, DatabaseArgs, Engine, Session},
    show::{self, Creation, NewShow, Show},
};

/// A migrated database for one test, on a server of this process.
///
/// The server is started when the first test needs it, and ends with the process.
pub struct TestDatabase {
    /// The database, as the programs connect to it.
    pub database: Database,
    /// Connection pool of the database.
    pub pool: PgPool,
    /// URL of the database, for processes that the test starts.
    pub url: String,
    /// Name of the database.
    pub name: String,
}

/// Template that the database of each test is a copy of.
const TEMPLATE: &str = "template_ticketing";

static SERVER: OnceCell<LocalPostgres> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl TestDatabase {
    /// Creates a session on the database.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(&self.database)
    }

    /// Creates a database with all migrations.
    ///
    /// # Panics
    ///
    /// Panics with the reason if no PostgreSQL server can be started.
    pub async fn new() -> Self {
        Self::create(TEMPLATE)
            .await
            .expect("a database for this test")
    }

    /// Creates a database without any table.
    ///
    /// # Panics
    ///
    /// Panics as [`new`](Self::new) does.
    pub async fn empty() -> Self {
        Self::create("template0")
            .await
            .expect("a database for this test")
    }

    async fn create(template: &str) -> anyhow::Result<Self> {
        let server = SERVER.get_or_try_init(start_server).await?;
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        server
            .execute(&format!(
                "CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"
            ))
            .await?;
        let url = server.url(&name);
        let database = connect(&url, 16).await?;
        let pool = database.pool.clone();
        Ok(Self {
            database,
            pool,
            url,
            name,
        })
    }
}

async fn start_server() -> anyhow::Result<LocalPostgres> {
    let data_dir = std::env::temp_dir().join(format!("ticketing-test-{}", std::process::id()));
    if data_dir.exists() {
        // Left by an earlier process with the same id, whose machine went down.
        fs::remove_dir_all(&data_dir)?;
    }
    let server = LocalPostgres::start(&data_dir, Mode::Throwaway)?;
    server.create_database(TEMPLATE).await?;
    Ok(server)
}

/// Connects to a database as the programs do, with this many connections.
///
/// # Errors
///
/// Fails as [`postgres::connect`] does.
pub async fn connect(url: &str, connections: u32) -> anyhow::Result<Database> {
    postgres::connect(&DatabaseArgs {
        database_url: url.to_owned(),
        database_password_file: None,
        database_connections: connections,
    })
    .await
}

/// Wraps a pool that connects directly to a plain PostgreSQL.
#[must_use]
pub fn direct(pool: &PgPool) -> Database {
    Database {
        pool: pool.clone(),
        engine: Engine::Postgres,
        is_pooled: false,
        last_write: Arc::default(),
    }
}

/// Creates a show with this many seats and holds of two minutes.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn a_show(pool: &PgPool, seats: i32) -> Show {
    a_show_with_hold(pool, seats, show::DEFAULT_HOLD_SECONDS).await
}

/// Creates a show whose holds last this long. One second is allowed here, unlike for clients.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn a_show_with_hold(pool: &PgPool, seats: i32, hold_seconds: i32) -> Show {
    create(
        pool,
        NewShow {
            hold_seconds,
            ..NewShow::new("Morning Show", DateTime::UNIX_EPOCH, seats)
        },
    )
    .await
}

/// Creates a show.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn create(pool: &PgPool, new: NewShow) -> Show {
    let creation = Creation { new, claim: None };
    let made = show::create(&mut Session::new(&direct(pool)), creation).await;
    made.expect("created").expect("not refused").resource
}

/// Creates a pending booking of a show.
///
/// # Panics
///
/// Panics if the show has not enough seats or the database fails.
pub async fn a_hold(pool: &PgPool, show: &Show, number_of_seats: i32) -> Booking {
    let request = reserve::Request {
        show_id: show.id,
        user_name: "Alice".to_owned(),
        number_of_seats,
        claim: None,
    };
    let mut answers = reserve::reserve(&mut Session::new(&direct(pool)), &mut Batch::of([request]))
        .await
        .expect("reserved");
    answers.remove(0).expect("enough seats").resource
}

/// Returns the bookings in the answers, whether they were made now or earlier.
#[must_use]
pub fn things(answers: Vec<reserve::Answer>) -> Vec<Result<Booking, Refusal>> {
    answers
        .into_iter()
        .map(|answer| Ok(answer?.resource))
        .collect()
}

/// Creates a request to confirm or cancel a booking, whatever its version.
#[must_use]
pub fn change(booking_id: BookingId) -> Change {
    Change {
        booking_id,
        show_id: None,
        only_if: None,
    }
}

/// Creates a job that expires these bookings.
#[must_use]
pub fn job(booking_ids: &[BookingId]) -> ExpireBookings {
    ExpireBookings {
        show_id: None,
        booking_ids: booking_ids.to_vec(),
    }
}

/// Makes `seconds` pass for every hold and every job, by moving their times into the past.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn let_pass(pool: &PgPool, seconds: i32) {
    sqlx::query(
        "WITH jobs AS (UPDATE apalis.jobs SET run_at = run_at - make_interval(secs => $1))
         UPDATE bookings SET expires_at = expires_at - make_interval(secs => $1),
                             extendable_until = extendable_until - make_interval(secs => $1),
                             created_at = created_at - make_interval(secs => $1),
                             clock_high = clock_high - make_interval(secs => $1)
         WHERE resolved_at IS NULL",
    )
    .bind(f64::from(seconds))
    .execute(pool)
    .await
    .expect("moved");
}

/// Returns the number that a query selects.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(pool)
        .await
        .expect("counted")
}

/// Runs a statement.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.expect("executed");
}

/// Returns the status in a booking's row, whatever the time.
///
/// # Panics
///
/// Panics if there is no such booking or the database fails.
pub async fn stored_status(pool: &PgPool, booking_id: BookingId) -> String {
    sqlx::query_scalar("SELECT status FROM bookings WHERE id = $1")
        .bind(booking_id)
        .fetch_one(pool)
        .await
        .expect("the booking")
}

/// Returns the available seats in a show's row, which do not include seats of overdue holds.
///
/// # Panics
///
/// Panics if there is no such show or the database fails.
pub async fn available_seats(pool: &PgPool, show_id: ShowId) -> i32 {
    sqlx::query_scalar("SELECT available_seats FROM shows WHERE id = $1")
        .bind(show_id)
        .fetch_one(pool)
        .await
        .expect("the show")
}

/// Checks invariant 1 on every show: no seat was lost and none was sold twice.
///
/// # Panics
///
/// Panics if the invariant is broken.
pub async fn assert_seats_conserved(pool: &PgPool) {
    let audit = audit(&direct(pool), Duration::ZERO).await.expect("checked");
    let seats = audit
        .invariants
        .iter()
        .find(|found| found.name == SEATS_ARE_CONSERVED)
        .expect("the audit checks it");
    assert_eq!(seats.broken, 0, "{:?}", seats.examples);
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// Panics if it does not hold within two minutes. That bound is for conditions that never hold: a
/// busy machine needs its time.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within two minutes: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a transaction that keeps a show locked.
///
/// # Panics
///
/// Panics if the database can't be reached.
pub async fn lock_show(pool: &PgPool, show_id: ShowId) -> Transaction<'static, Postgres> {
    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows WHERE id = $1 FOR UPDATE")
        .bind(show_id)
        .execute(&mut *blocker)
        .await
        .unwrap();
    blocker
}

/// Waits until exactly one transaction of this database waits for a lock.
///
/// # Panics
///
/// Panics as [`eventually`] does.
pub async fn until_one_waits_for_a_lock(pool: &PgPool) {
    eventually("a transaction waits for a lock", async || {
        sqlx::query_scalar(
            "SELECT count(*) = 1 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(pool)
        .await
        .expect("counted")
    })
    .await;
}

/// Returns the time of the database's clock.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn now(pool: &PgPool) -> DateTime<Utc> {
    sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(pool)
        .await
        .expect("the time")
}

/// Path of a server's data directory, which is removed when the value is dropped.
pub struct DataDir(pub PathBuf);

impl DataDir {
    /// Chooses a path by `name`, which no other test of this process uses.
    ///
    /// The directory is not created.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("ticketing-{}-{name}", std::process::id())))
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A clock for one program, which can be stepped while the program runs.
///
/// Time that is measured, and not read from the clock, is not affected. Needs Debian's package
/// `libfaketime`.
pub struct SteppedClock {
    library: PathBuf,
    offset: PathBuf,
}

impl SteppedClock {
    /// Creates a clock that shows the right time.
    ///
    /// Prints a note and returns none if libfaketime is not installed.
    ///
    /// # Panics
    ///
    /// Panics if libfaketime is not installed although the environment variable `REQUIRE_FAKETIME`
    /// is set.
    #[must_use]
    pub fn find() -> Option<Self> {
        let library = fs::read_dir("/usr/lib")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.is_file());
        let Some(library) = library else {
            assert!(env::var_os("REQUIRE_FAKETIME").is_none(), "no libfaketime");
            eprintln!(
                "SKIPPED: libfaketime is not installed (Debian: apt-get install libfaketime)"
            );
            return None;
        };
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("ticketing-clock-{}-{number}", std::process::id());
        let clock = Self {
            library,
            offset: env::temp_dir().join(name),
        };
        clock.step("+0");
        Some(clock)
    }

    /// Makes the program that this command starts see this clock.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// Sets the distance of the clock from the right time, such as `-2d`.
    ///
    /// # Panics
    ///
    /// Panics if the temporary directory can't be written to.
    pub fn step(&self, offset: &str) {
        fs::write(&self.offset, offset).expect("the clock's file");
    }
}

impl Drop for SteppedClock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.offset);
    }
}

/// Builds all programs of the workspace.
///
/// Cargo does not build them when it tests one package alone. When it tests the whole workspace,
/// nothing is left to build.
///
/// # Panics
///
/// Panics if the programs can't be built.
pub fn build_programs() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--workspace", "--locked", "--no-run", "--quiet"]);
        // Cargo describes the tested package to its tests. Build scripts read the same variables: with
        // other values some would run again, and what depends on them would be compiled again, now and
        // by the next command.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_")
                || text.starts_with("CARGO_MANIFEST_")
                || text == "OUT_DIR"
            {
                cargo.env_remove(&name);
            }
        }
        let built = cargo.status().expect("cargo runs");
        assert!(built.success(), "the programs can't be built");
    });
}
