//! Sessions on a real PostgreSQL: retries, open transactions, and a database that does not answer.

use std::{path::PathBuf, time::Duration};

use shared::{
    booking::query,
    id::BookingId,
    postgres::{Error, Session, Work},
};
use sqlx::PgConnection;
use testing::{DataDir, TestDatabase, connect, eventually};
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::watch,
    time,
};

#[tokio::test]
async fn a_transaction_is_run_again_only_for_a_transient_error_and_not_without_end() {
    let db = TestDatabase::new().await;
    let errors: [(fn() -> sqlx::Error, u32); 3] = [
        (
            || sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into()),
            4,
        ),
        (|| sqlx::Error::PoolTimedOut, 1),
        (|| sqlx::Error::RowNotFound, 1),
    ];
    for (error, expected) in errors {
        let mut runs = 0;
        let fail = Fail {
            error,
            runs: &mut runs,
        };
        assert!(db.session().transact(fail).await.is_err());
        assert_eq!(runs, expected);
    }
}

/// Fails, and counts its runs.
struct Fail<'r> {
    error: fn() -> sqlx::Error,
    runs: &'r mut u32,
}

impl Work for Fail<'_> {
    type Output = ();

    async fn run(&mut self, _: &mut PgConnection) -> Result<(), Error> {
        *self.runs += 1;
        Err((self.error)().into())
    }
}

#[tokio::test]
async fn a_chained_session_that_rests_leaves_no_transaction_open() {
    let db = TestDatabase::new().await;
    let open = async || -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&db.pool)
        .await
        .unwrap()
    };
    let mut session = Session::chained(&db.database);
    for _ in 0..2 {
        session.transact(Look).await.unwrap();
        eventually("a transaction is open", async || open().await == 1).await;
    }
    session.rest().await;
    eventually("no transaction is open", async || open().await == 0).await;
    session.transact(Look).await.unwrap();
    drop(session);
    eventually("the transaction is closed", async || open().await == 0).await;
}

/// Others see what each transaction of a chained session wrote, and nothing of a failed one.
#[tokio::test]
async fn a_chained_session_commits_each_of_its_transactions_by_itself() {
    let db = TestDatabase::new().await;
    let mut session = Session::chained(&db.database);
    for fails in [false, true, false] {
        let result = session.transact(InsertShow { fails }).await;
        assert_eq!(result.is_err(), fails);
    }
    let shows: i64 = sqlx::query_scalar("SELECT count(*) FROM shows")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(shows, 2);
}

/// Inserts a show, and then may fail.
struct InsertShow {
    fails: bool,
}

impl Work for InsertShow {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO shows (name, starts_at, seats, available_seats) VALUES ('x', now(), 1, 1)",
        )
        .execute(&mut *tx)
        .await?;
        if self.fails {
            sqlx::query("SELECT 1 / 0").execute(tx).await?;
        }
        Ok(())
    }
}

/// A database that stops answering must not block a lane for a quarter of an hour.
///
/// Its host may have vanished, for example.
#[tokio::test]
async fn a_silent_connection_is_given_up_and_the_next_transaction_has_another_one() {
    let db = TestDatabase::new().await;
    let way = Way::to(&db);
    // One connection, so that each transaction would get the silent one if it were kept.
    let database = connect(&way.url, 1).await.unwrap();
    for mut session in [Session::new(&database), Session::chained(&database)] {
        session.transact(Look).await.unwrap();

        let result = session.transact(SilenceThenLook(&way.silent)).await;
        assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
        way.silent.send_replace(false);
        time::resume();
        session.transact(Look).await.unwrap();

        let result = session.transact(LookThenSilence(&way.silent)).await;
        assert!(
            matches!(result, Err(Error::OutcomeUnknown(_))),
            "{result:?}"
        );
        way.silent.send_replace(false);
        time::resume();
        session.transact(Look).await.unwrap();
    }

    let mut session = Session::chained(&database);
    session.transact(Look).await.unwrap();
    fall_silent(&way.silent).await;
    session.rest().await;
    way.silent.send_replace(false);
    time::resume();
    session.transact(Look).await.unwrap();
}

/// Nor must it block calls outside of transactions, or a connection whose caller is gone.
#[tokio::test]
async fn a_silent_connection_is_given_up_outside_of_transactions_too() {
    let db = TestDatabase::new().await;
    let way = Way::to(&db);
    let database = connect(&way.url, 1).await.unwrap();
    let session = Session::new(&database);
    let locate = async || query::locate(&session, &[BookingId(1)]).await;
    let is_back = async || eventually("it is idle", async || database.pool.num_idle() == 1).await;
    assert_eq!(locate().await.unwrap(), [None]);
    is_back().await;
    fall_silent(&way.silent).await;
    let result = locate().await;
    assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    way.silent.send_replace(false);
    time::resume();
    assert_eq!(locate().await.unwrap(), [None]);

    is_back().await;
    fall_silent(&way.silent).await;
    let patience = Duration::from_millis(100);
    let result = time::timeout(patience, query::find(&database.pool, BookingId(1), None)).await;
    assert!(result.is_err(), "{result:?}");
    way.silent.send_replace(false);
    time::resume();
    assert!(
        query::find(&database.pool, BookingId(1), None)
            .await
            .unwrap()
            .is_none()
    );
}

/// The connection that a session kept for too long is returned before the next one is acquired.
#[tokio::test]
async fn a_chained_session_that_waited_begins_again_with_the_only_connection() {
    let db = TestDatabase::new().await;
    let database = connect(&db.url, 1).await.unwrap();
    let mut session = Session::chained(&database);
    session.transact(Look).await.unwrap();
    time::pause();
    time::advance(Duration::from_secs(2)).await;
    time::resume();
    session.transact(Look).await.unwrap();
}

/// Queries the database.
struct Look;

impl Work for Look {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), Error> {
        look(tx).await
    }
}

/// Queries a database that has fallen silent.
struct SilenceThenLook<'s>(&'s watch::Sender<bool>);

impl Work for SilenceThenLook<'_> {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), Error> {
        fall_silent(self.0).await;
        look(tx).await
    }
}

/// Silences the database before the COMMIT.
struct LookThenSilence<'s>(&'s watch::Sender<bool>);

impl Work for LookThenSilence<'_> {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), Error> {
        look(tx).await?;
        fall_silent(self.0).await;
        Ok(())
    }
}

async fn look(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("SELECT 1").execute(tx).await?;
    Ok(())
}

/// Silences all connections. From now on time passes only while all tasks wait, and then it jumps.
async fn fall_silent(silent: &watch::Sender<bool>) {
    silent.send_replace(true);
    // Connections that have noticed no longer subscribe to it.
    silent.closed().await;
    time::pause();
}

/// A path to the database whose connections can all go silent for ever, as when a host vanishes.
///
/// Nothing arrives any more, and no error is reported. Later connections work.
struct Way {
    url: String,
    silent: watch::Sender<bool>,
    _dir: DataDir,
}

impl Way {
    fn to(db: &TestDatabase) -> Self {
        let (_, server) = db.url.split_once("host=").unwrap();
        let (server, _) = server.split_once('&').unwrap();
        let socket = ".s.PGSQL.5432";
        let server_socket = PathBuf::from(server).join(socket);
        let dir = DataDir::new(&db.name);
        std::fs::create_dir(&dir.0).unwrap();
        let listener = UnixListener::bind(dir.0.join(socket)).unwrap();
        let silent = watch::Sender::new(false);
        let way = Self {
            url: db.url.replace(server, dir.0.to_str().unwrap()),
            silent: silent.clone(),
            _dir: dir,
        };
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = UnixStream::connect(&server_socket).await.unwrap();
                let mut silenced = silent.subscribe();
                tokio::spawn(async move {
                    let is_over = tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => true,
                        _ = silenced.wait_for(|silent| *silent) => false,
                    };
                    drop(silenced);
                    if !is_over {
                        // Both ends stay open.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        way
    }
}

/// Returns the error of a COMMIT that a trigger refuses with this code, and the number of attempts.
async fn refused_commit(code: &str) -> (Error, u32) {
    let db = TestDatabase::new().await;
    let sql = format!(
        "CREATE TABLE committed (id integer);
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON committed DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&db.pool)
        .await
        .unwrap();
    let mut runs = 0;
    let result = db.session().transact(InsertCommitted(&mut runs)).await;
    (result.unwrap_err(), runs)
}

/// Makes the trigger of [`refused_commit`] fire, and counts its runs.
struct InsertCommitted<'r>(&'r mut u32);

impl Work for InsertCommitted<'_> {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), Error> {
        *self.0 += 1;
        sqlx::query("INSERT INTO committed VALUES (1)")
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Citus ends a COMMIT like this if another server did not answer.
#[tokio::test]
async fn a_commit_that_ends_with_an_internal_error_has_an_unknown_outcome() {
    let (error, runs) = refused_commit("XX000").await;
    assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
    assert_eq!(runs, 1, "it is never retried");
    let (error, runs) = refused_commit("23514").await;
    assert!(matches!(error, Error::Unexpected(_)), "{error:?}");
    assert_eq!(runs, 1);
    let (error, runs) = refused_commit("40001").await;
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    assert_eq!(runs, 4);
}
