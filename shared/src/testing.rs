//! For tests: a migrated database each, and builders of shows and bookings (feature `testing`).

use std::{
    env, fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::OnceCell;

use crate::{
    audit::{SEATS_ARE_CONSERVED, audit},
    batch::Batch,
    booking::{Booking, Change, Refusal, reserve},
    jobs::ExpireBookings,
    local_postgres::{LocalPostgres, Mode},
    postgres::{self, Database, DatabaseArgs, Engine, Session},
    show::{self, Creation, NewShow, Show},
};

/// A database of one test's own, with all migrations, on a server that this process starts at its first use and
/// that ends with it.
pub struct TestDatabase {
    /// It, as the programs connect to it.
    pub database: Database,
    /// Its pool.
    pub pool: PgPool,
    /// Its URL, for processes that the test starts.
    pub url: String,
    /// Its name.
    pub name: String,
}

/// The database that each test's is a copy of.
const TEMPLATE: &str = "template_ticketing";

static SERVER: OnceCell<LocalPostgres> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl TestDatabase {
    /// A session on a connection of its pool.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(&self.database)
    }

    /// Makes one.
    ///
    /// # Panics
    ///
    /// When no PostgreSQL server can be started, with the reason.
    pub async fn new() -> Self {
        Self::create(TEMPLATE)
            .await
            .expect("a database for this test")
    }

    /// Makes one without any table.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
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
        // Of an earlier process with our number, whose machine went down.
        fs::remove_dir_all(&data_dir)?;
    }
    let server = LocalPostgres::start(&data_dir, Mode::Throwaway)?;
    server.create_database(TEMPLATE).await?;
    Ok(server)
}

/// A database as the programs connect to it, with so many connections.
///
/// # Errors
///
/// As [`postgres::connect`].
pub async fn connect(url: &str, connections: u32) -> anyhow::Result<Database> {
    postgres::connect(&DatabaseArgs {
        database_url: url.to_owned(),
        database_password_file: None,
        database_connections: connections,
    })
    .await
}

/// A plain PostgreSQL, which this pool reaches directly.
#[must_use]
pub fn direct(pool: &PgPool) -> Database {
    Database {
        pool: pool.clone(),
        engine: Engine::Postgres,
        is_pooled: false,
        last_write: Arc::default(),
    }
}

/// A show with this many seats and holds of two minutes.
///
/// # Panics
///
/// When the database fails.
pub async fn a_show(pool: &PgPool, seats: i32) -> Show {
    a_show_with_hold(pool, seats, show::DEFAULT_HOLD_SECONDS).await
}

/// A show whose holds last this long; one second is allowed here, unlike for clients.
///
/// # Panics
///
/// When the database fails.
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

/// This show.
///
/// # Panics
///
/// When the database fails.
pub async fn create(pool: &PgPool, new: NewShow) -> Show {
    let creation = Creation { new, claim: None };
    let made = show::create(&mut Session::new(&direct(pool)), creation).await;
    made.expect("created").expect("not refused").thing
}

/// A pending booking of this show.
///
/// # Panics
///
/// When the show has not enough seats or the database fails.
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
    answers.remove(0).expect("enough seats").thing
}

/// The bookings, whenever they were made.
#[must_use]
pub fn things(answers: Vec<reserve::Answer>) -> Vec<Result<Booking, Refusal>> {
    answers
        .into_iter()
        .map(|answer| Ok(answer?.thing))
        .collect()
}

/// A request to confirm or cancel this booking, whatever its version.
#[must_use]
pub fn change(booking_id: i64) -> Change {
    Change {
        booking_id,
        show_id: None,
        only_if: None,
    }
}

/// A job that expires these bookings.
#[must_use]
pub fn job(booking_ids: &[i64]) -> ExpireBookings {
    ExpireBookings {
        show_id: None,
        booking_ids: booking_ids.to_vec(),
    }
}

/// Lets `seconds` go by for every hold and every job: moves their times into the past.
///
/// # Panics
///
/// When the database fails.
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

/// The number that this query answers with.
///
/// # Panics
///
/// When the database fails.
pub async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(pool)
        .await
        .expect("counted")
}

/// Runs this statement.
///
/// # Panics
///
/// When the database fails.
pub async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.expect("executed");
}

/// The booking's row as stored, whatever the time.
///
/// # Panics
///
/// When there is none or the database fails.
pub async fn stored_status(pool: &PgPool, booking_id: i64) -> String {
    sqlx::query_scalar("SELECT status FROM bookings WHERE id = $1")
        .bind(booking_id)
        .fetch_one(pool)
        .await
        .expect("the booking")
}

/// Available seats of a show as they are counted in its row: those of overdue holds are not among them.
///
/// # Panics
///
/// When there is no such show or the database fails.
pub async fn available_seats(pool: &PgPool, show_id: i64) -> i32 {
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
/// When it is broken.
pub async fn assert_seats_conserved(pool: &PgPool) {
    let audit = audit(&direct(pool), Duration::ZERO).await.expect("checked");
    let seats = audit
        .invariants
        .iter()
        .find(|found| found.name == SEATS_ARE_CONSERVED)
        .expect("it is among them");
    assert_eq!(seats.broken, 0, "{:?}", seats.examples);
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// When it does not within two minutes, which is for what never happens: a busy machine takes its time.
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

/// A transaction that keeps this show locked.
///
/// # Panics
///
/// When the database can't be reached.
pub async fn lock_show(pool: &PgPool, show_id: i64) -> Transaction<'static, Postgres> {
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
/// As [`eventually`].
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

/// The database's clock.
///
/// # Panics
///
/// When the database fails.
pub async fn now(pool: &PgPool) -> DateTime<Utc> {
    sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(pool)
        .await
        .expect("the time")
}

/// A place for a server's data, which is removed when the test ends.
pub struct DataDir(pub PathBuf);

impl DataDir {
    /// One that no other test of this process has, by its name. It is not made.
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

/// The host's clock as one program sees it; it can be stepped while the program runs. Time that is measured, and not
/// read from the clock, goes on as it does. Needs Debian's package `libfaketime`.
pub struct SteppedClock {
    library: PathBuf,
    offset: PathBuf,
}

impl SteppedClock {
    /// A clock that is right; none, with a word about it, where there is no libfaketime.
    ///
    /// # Panics
    ///
    /// When there is none although the environment variable `REQUIRE_FAKETIME` is set.
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

    /// Lets the program be started by this command see this clock.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// Steps it to this distance from the right time, such as `-2d`.
    ///
    /// # Panics
    ///
    /// When there is no temporary directory to write to.
    pub fn step(&self, offset: &str) {
        fs::write(&self.offset, offset).expect("the clock's file");
    }
}

impl Drop for SteppedClock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.offset);
    }
}
