//! Tests on Citus, which are skipped unless the environment variable `CITUS_URL` is set.
//!
//! It names a database on a coordinator that has the extension and at least two other servers. The
//! tests use the database as it is, and do not remove what they create.

mod system;

use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};
use shared::{
    batch::Batch,
    booking::{BookingStatus, Change, Refusal, cancel, confirm, expire, extend, query, reserve},
    id::{BookingId, ShowId},
    idempotency::{Claim, Key},
    jobs::ExpireBookings,
    postgres::{Database, Engine, Session},
    show::{self, Creation, NewShow},
};
use sqlx::PgPool;
use testing::{create, eventually, now};
use tokio::sync::{Mutex, MutexGuard};

use crate::system::{
    ADMIN_PATHS, Program, assert_all_is_well, find_program, pgbouncer::PgBouncer, stress,
};

/// The Citus database, which only one test uses at a time.
struct Citus {
    url: String,
    database: Database,
    pool: PgPool,
    _alone: MutexGuard<'static, ()>,
}

impl Citus {
    async fn find() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let Ok(url) = std::env::var("CITUS_URL") else {
            eprintln!("SKIPPED: CITUS_URL is not set to a database on a Citus coordinator");
            return None;
        };
        let alone = ALONE.lock().await;
        let database = connect(&url).await;
        shared::migrate::run(&database).await.unwrap();
        Some(Self {
            url,
            pool: database.pool.clone(),
            database,
            _alone: alone,
        })
    }

    /// Connects so that a statement fails if it queries more than one server.
    async fn to_one_server(&self) -> Database {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let setting = "options[citus.multi_task_query_log_level]=error";
        connect(&format!("{}{separator}{setting}", self.url)).await
    }

    async fn count(&self, sql: &'static str) -> i64 {
        testing::count(&self.pool, sql).await
    }
}

async fn connect(url: &str) -> Database {
    let database = testing::connect(url, 4).await.unwrap();
    assert_eq!(database.engine, Engine::Citus);
    database
}

#[tokio::test]
async fn shows_and_their_bookings_are_spread_together() {
    let Some(citus) = Citus::find().await else {
        return;
    };
    // A migration is safe to repeat.
    shared::migrate::run(&citus.database).await.unwrap();
    let spread = citus
        .count(
            "SELECT count(*) FROM citus_tables WHERE citus_table_type = 'distributed'
             AND (table_name::text, distribution_column) IN (('shows', 'id'), ('bookings', 'show_id'))",
        )
        .await;
    assert_eq!(spread, 2);
    let together = "SELECT count(DISTINCT colocation_id) FROM citus_tables WHERE citus_table_type = 'distributed'";
    assert_eq!(citus.count(together).await, 1);
}

fn request(show_id: ShowId, number: i32) -> reserve::Request {
    reserve::Request {
        claim: Some(Claim {
            key: Key {
                owner: 0,
                text: format!("citus-{show_id}-{number}"),
            },
            fingerprint: vec![1],
        }),
        ..reserve::Request::new(show_id, &format!("user {number}"), 1)
    }
}

/// Moves the deadlines of a show's holds into the past.
async fn run_out(pool: &PgPool, show_id: ShowId) {
    let at = now(pool).await - TimeDelta::seconds(1);
    sqlx::query(
        "UPDATE bookings SET created_at = $2, expires_at = $3, extendable_until = $3
         WHERE show_id = $1 AND resolved_at IS NULL",
    )
    .bind(show_id)
    .bind(at - TimeDelta::minutes(2))
    .bind(at)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query("UPDATE batches SET expires_at = $2 WHERE show_id = $1 AND has_held")
        .bind(show_id)
        .bind(at)
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_transaction_asks_the_one_server_that_has_its_show() {
    let Some(citus) = Citus::find().await else {
        return;
    };
    let show = create(
        &citus.pool,
        NewShow {
            max_seats_per_user: Some(2),
            ..NewShow::new("Morning Show", DateTime::UNIX_EPOCH, 4)
        },
    )
    .await;
    let database = citus.to_one_server().await;
    let all = sqlx::query("SELECT count(*) FROM bookings")
        .fetch_one(&database.pool)
        .await;
    assert!(all.is_err(), "a query of several servers must fail");

    let mut session = Session::chained(&database);
    let requests = [1, 2, 3, 1].map(|number| request(show.id, number));
    let mut batch = Batch::of(requests.clone());
    let answers = reserve::reserve(&mut session, &mut batch).await.unwrap();
    let made: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let ids: Vec<BookingId> = made.iter().map(|made| made.resource.id).collect();
    assert!(ids[..3].is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(ids[3], ids[0], "the same key returns the same booking");
    let mut batch = Batch::of([requests[1].clone()]);
    let again = reserve::reserve(&mut session, &mut batch).await.unwrap();
    assert!(again[0].as_ref().unwrap().is_replay);

    let change = |id| Change {
        booking_id: id,
        show_id: Some(show.id),
        only_if: None,
        claim: None,
    };
    let mut batch = Batch::of([change(ids[0]).into()]);
    let confirmed = confirm::confirm(&mut session, &mut batch).await.unwrap();
    assert_eq!(
        confirmed[0].as_ref().unwrap().status,
        BookingStatus::Confirmed
    );
    let longer = extend::Request {
        change: change(ids[1]),
        seconds: 300,
    };
    let mut batch = Batch::of([longer]);
    let extended = extend::extend(&mut session, &mut batch).await.unwrap();
    assert!(extended[0].is_ok());
    let mut batch = Batch::of([change(ids[2]).into()]);
    let cancelled = cancel::cancel(&mut session, &mut batch).await.unwrap();
    assert!(cancelled[0].is_ok());
    let found = query::find(&database.pool, ids[2], Some(show.id))
        .await
        .unwrap();
    assert_eq!(found.unwrap().status, BookingStatus::Cancelled);
    let other = Change {
        show_id: Some(ShowId(show.id.0 + 1)),
        ..change(ids[1])
    };
    let refused = confirm::confirm(&mut session, &mut Batch::of([other.into()])).await;
    assert!(matches!(
        refused.unwrap()[0],
        Err(Refusal::BookingNotFound { .. })
    ));

    // Expired holds are failed by a reservation that lacks seats, and by a job.
    let mut batch = Batch::of([4, 5].map(|number| request(show.id, number)));
    let answers = reserve::reserve(&mut session, &mut batch).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    run_out(&citus.pool, show.id).await;
    let mut batch = Batch::of([6].map(|number| request(show.id, number)));
    let answers = reserve::reserve(&mut session, &mut batch).await.unwrap();
    assert!(answers[0].is_ok(), "{:?}", answers[0]);
    let last = answers[0].as_ref().unwrap().resource.id;
    run_out(&citus.pool, show.id).await;
    let job = ExpireBookings {
        show_id: Some(show.id),
        booking_ids: vec![last],
    };
    let mut session = Session::new(&database);
    let outcome = expire::expire(&mut session, &job).await.unwrap();
    assert!(!outcome.expired.is_empty(), "{outcome:?}");
    let show = show::find(&database.pool, show.id).await.unwrap().unwrap();
    assert_eq!(show.available_seats, 3, "only the confirmed seat is taken");
}

/// Citus must commit in two phases what is written on the coordinator and on a server.
///
/// If Citus sees writes on one server only, it commits in one phase. It does not see the job or the
/// key beside them on the coordinator, which a crash of the coordinator could then lose. In two
/// phases, Citus records what it commits.
#[tokio::test]
async fn what_is_written_on_the_coordinator_too_is_committed_in_two_phases() {
    let Some(citus) = Citus::find().await else {
        return;
    };
    let show = create(
        &citus.pool,
        NewShow::new("Evening Show", DateTime::UNIX_EPOCH, 1_000_000),
    )
    .await;
    let mut session = Session::new(&citus.database);
    let newest = async || -> i64 {
        // The rows of this table are never updated, so xmin shows the newest one.
        citus
            .count("SELECT coalesce(max(xmin::text::bigint), 0) FROM pg_dist_transaction")
            .await
    };
    // Citus removes finished transactions from that table, perhaps just now, so try again.
    let mut number = 0;
    eventually("a booking is committed in two phases", async || {
        let before = newest().await;
        number += 1;
        let mut batch = Batch::of([request(show.id, number)]);
        let answers = reserve::reserve(&mut session, &mut batch).await.unwrap();
        assert!(answers[0].is_ok());
        newest().await > before
    })
    .await;
    eventually("a show with a key is committed in two phases", async || {
        let before = newest().await;
        number += 1;
        let creation = Creation {
            new: NewShow::new("Evening Show", DateTime::UNIX_EPOCH, 10),
            claim: request(show.id, number).claim,
        };
        let created = show::create(&mut Session::new(&citus.database), creation).await;
        assert!(created.unwrap().is_ok());
        newest().await > before
    })
    .await;
    run_out(&citus.pool, show.id).await;
    let swept = expire::sweep(&mut session, show.id, TimeDelta::zero()).await;
    assert!(swept.unwrap() > 0);
}

/// Moves random shards, each with its colocated shards, to another server.
async fn move_some_shards(citus: &Citus) {
    for _ in 0..3 {
        let moved: Result<_, sqlx::Error> = sqlx::query(
            "SELECT citus_move_shard_placement(shard.shardid, shard.nodename, shard.nodeport, other.nodename, other.nodeport, 'block_writes')
             FROM (SELECT shardid, nodename, nodeport FROM citus_shards WHERE table_name::text = 'shows' ORDER BY random() LIMIT 1) AS shard
             JOIN LATERAL (SELECT nodename, nodeport FROM pg_dist_node
                           WHERE noderole = 'primary' AND shouldhaveshards AND (nodename, nodeport) <> (shard.nodename, shard.nodeport)
                           LIMIT 1) AS other ON true",
        )
        .execute(&slow(&citus.url).await)
        .await;
        moved.unwrap();
    }
}

/// Returns a pool without a statement timeout.
async fn slow(url: &str) -> PgPool {
    PgPool::connect(url).await.unwrap()
}

#[tokio::test]
async fn a_sale_over_all_servers_goes_on_while_shards_move() {
    let Some(citus) = Citus::find().await else {
        return;
    };
    let apis = [
        Program::api(&citus.url, "127.0.0.1:0", &[]).await,
        Program::api(&citus.url, "127.0.0.1:0", &[]).await,
    ];
    let _workers = [
        Program::worker(&citus.url).await,
        Program::worker(&citus.url).await,
    ];
    let other = apis[1].url();
    let load = async |args: &[&str]| {
        let args = [args, &["--url", &other, "--connections", "32"]].concat();
        stress(&apis[0].url(), &args).await
    };
    let began = now(&citus.pool).await;
    for args in [
        &[
            "sellout",
            "--seats",
            "300",
            "--requests",
            "3000",
            "--hold-seconds",
            "20",
        ][..],
        &["mixed", "--shows", "20", "--duration", "5"],
        &[
            "spread",
            "--retries",
            "--hold-seconds",
            "10",
            "--duration",
            "5",
        ],
    ] {
        let (code, report) = load(args).await;
        assert_eq!(code, Some(0), "{report}");
        assert!(
            args.contains(&"--retries") || report["errors"] == json!({}),
            "{report}"
        );
    }
    let args = ["mixed", "--shows", "20", "--name-show", "--duration", "10"];
    let ((code, report), ()) = tokio::join!(load(&args), move_some_shards(&citus));
    assert_eq!(code, Some(0), "{report}");
    assert!(report["bookings"].as_u64().unwrap() > 100, "{report}");
    // A transaction that a move interrupted was run again, or its outcome is unknown (503).
    let mut errors = report["errors"].as_object().unwrap().keys();
    assert!(errors.all(|error| error.ends_with(": 503")), "{report}");

    // The lists of the API, and the queries of the admin listener.
    let began = began.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    for filter in [
        "limit=5".to_owned(),
        "status=CONFIRMED&limit=5".to_owned(),
        "status=CANCELLED&limit=5".to_owned(),
        "status=FAILED&limit=5".to_owned(),
        format!("createdAfter={began}&limit=5"),
        "userName=user%201&limit=5".to_owned(),
    ] {
        let answer = reqwest::get(format!("{}/bookings?{filter}", apis[0].url()))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{filter}");
        let found: Value = answer.json().await.unwrap();
        assert!(!found.as_array().unwrap().is_empty(), "{filter}");
    }
    let database = format!("http://{}/database", apis[0].admin);
    let database: Value = reqwest::get(database).await.unwrap().json().await.unwrap();
    let tables = database["tables"].as_array().unwrap();
    let bookings = tables
        .iter()
        .find(|table| table["name"] == "bookings")
        .unwrap();
    assert!(bookings["bytes"].as_i64().unwrap() > 100_000, "{bookings}");
    for path in [
        "queues/expire-bookings/jobs?bookingId=1",
        "queues/expire-bookings/jobs?showId=1",
    ]
    .into_iter()
    .chain(ADMIN_PATHS)
    {
        let url = format!("http://{}/{path}", apis[0].admin);
        assert_eq!(reqwest::get(url).await.unwrap().status(), 200, "{path}");
    }
    assert_all_is_well(&citus.pool).await;
}

/// Returns the connection string of a server, for the pooler, from its URL.
fn server(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap();
    let port = url.port().unwrap_or(5432);
    let user = url.username();
    let password = url
        .password()
        .map(|password| format!("password={password}"));
    format!(
        "host={host} port={port} user={user} {}",
        password.unwrap_or_default()
    )
}

#[tokio::test]
async fn an_api_works_behind_a_pooler() {
    let Some(citus) = Citus::find().await else {
        return;
    };
    let Some(pgbouncer) = find_program("pgbouncer") else {
        return;
    };
    let coordinator = reqwest::Url::parse(&citus.url).unwrap();
    let pooler = PgBouncer::start(&pgbouncer, &server(&coordinator)).await;
    let url = pooler.url(coordinator.path().trim_start_matches('/'));
    let api = Program::api(&url, "127.0.0.1:0", &[]).await;
    let _worker = Program::worker(&citus.url).await;
    for load in [&[][..], &["--name-show"]] {
        let args = [
            &[
                "mixed",
                "--shows",
                "20",
                "--connections",
                "32",
                "--duration",
                "5",
            ],
            load,
        ]
        .concat();
        let (code, report) = stress(&api.url(), &args).await;
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report["errors"], json!({}), "{report}");
        assert!(report["bookings"].as_u64().unwrap() > 100, "{report}");
    }
    for path in ADMIN_PATHS {
        let url = format!("http://{}/{path}", api.admin);
        assert_eq!(reqwest::get(url).await.unwrap().status(), 200, "{path}");
    }
    assert_all_is_well(&citus.pool).await;
}
