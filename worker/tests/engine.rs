//! The queue's engine with our changes: their absence is noticed, and they make it cheap.
//!
//! Their absence is noticed whatever apalis's migrations did.

use apalis_postgres::queries::{self, ResultPayload};
use serde_json::json;
use sqlx::{PgPool, postgres::PgPoolOptions};
use testing::{
    TestDatabase, a_hold, a_show, available_seats, count, eventually, execute, let_pass,
};

mod in_process;
use in_process::{CONFIG, Worker};

/// A function like apalis's own, as its next migration could define it.
const ANOTHER: &str = "CREATE OR REPLACE FUNCTION apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer DEFAULT 5)
     RETURNS SETOF apalis.jobs LANGUAGE sql AS 'SELECT * FROM apalis.jobs WHERE run_at < now() LIMIT v_job_count'";

/// A function like apalis's own reads every scheduled job, and a bad payload ends its worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_refuses_a_function_that_is_not_ours_until_it_is_put_back() {
    let db = TestDatabase::new().await;
    execute(&db.pool, ANOTHER).await;
    let refused = Worker::start(&db.database, CONFIG).running.await.unwrap();
    let error = refused.expect_err("it is not ours").to_string();
    assert!(error.contains("ticketing migrate"), "{error}");

    shared::migrate::run(&db.database).await.unwrap();
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 200).await;
    let worker = Worker::start(&db.database, CONFIG);
    eventually("the seat is back", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
    worker.stop().await;
}

/// `CREATE OR REPLACE FUNCTION` keeps the comment of the function that it replaces.
#[tokio::test]
async fn a_mark_is_of_one_text() {
    let db = TestDatabase::new().await;
    assert!(shared::queue::engine::is_applied(&db.pool).await.unwrap());
    execute(&db.pool, ANOTHER).await;
    assert!(!shared::queue::engine::is_applied(&db.pool).await.unwrap());
    execute(
        &db.pool,
        "DROP FUNCTION apalis.get_jobs(text, text, integer)",
    )
    .await;
    assert!(!shared::queue::engine::is_applied(&db.pool).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_apalis_adds_changes_nothing() {
    let db = TestDatabase::new().await;
    for column in [
        "ADD COLUMN started_at timestamptz",
        "ADD COLUMN weight integer NOT NULL DEFAULT 1",
    ] {
        let sql = format!("ALTER TABLE apalis.jobs {column}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&db.pool)
            .await
            .unwrap();
    }
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 200).await;
    let worker = Worker::start(&db.database, CONFIG);
    eventually("the job is done", async || {
        let done = "SELECT count(*) FROM apalis.jobs WHERE status = 'Done'";
        count(&db.pool, done).await == 1
    })
    .await;
    worker.stop().await;
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
}

/// A backlog of one show must not delay the holds of another.
///
/// Half of the jobs that a worker takes are the newest.
#[tokio::test]
async fn a_worker_takes_the_oldest_and_the_newest_jobs() {
    let db = TestDatabase::new().await;
    execute(
        &db.pool,
        "INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at)
         SELECT '01ARZ3NDEKTSV4RRFFQ69G5' || to_char(n, 'FM000'), 'expire-bookings', '{}', 12, now() - n * interval '1 s'
         FROM generate_series(1, 100) AS n",
    )
    .await;
    let mut taken: Vec<String> =
        sqlx::query_scalar("SELECT right(id, 3) FROM apalis.get_jobs('me', 'expire-bookings', 5)")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    taken.sort();
    assert_eq!(taken, ["001", "002", "098", "099", "100"]);
}

/// The engine's statements read only the rows that they need, whatever the planner knows.
///
/// Nothing is analyzed in the first minute of a new system's first sale, and plans are made while
/// the tables are empty.
///
/// Even then the engine's statements read only the rows that they need, and not all jobs that a
/// worker ever had.
#[tokio::test]
async fn the_engine_reads_few_pages_whatever_the_planner_knows() {
    let db = TestDatabase::new().await;
    execute(
        &db.pool,
        "ALTER TABLE apalis.jobs SET (autovacuum_enabled = false)",
    )
    .await;
    // Plans are made at the first run of a statement on this connection, and kept.
    let options = db.database.for_queue_engine().pool.connect_options();
    let one = PgPoolOptions::new().max_connections(1);
    let pool = one.connect_with((*options).clone()).await.unwrap();
    let mut ids = (0..).map(|n| format!("01ARZ3NDEKTSV4RRFFQ69{n:05}"));
    fetch_and_acknowledge(&pool, &mut ids, 8).await;
    // The jobs that a worker had in its first minutes.
    fetch_and_acknowledge(&pool, &mut ids, 20_000).await;
    // The first statements after these clean up their dead row versions.
    fetch_and_acknowledge(&pool, &mut ids, 8).await;
    let [fetch, acknowledge, orphans] = fetch_and_acknowledge(&pool, &mut ids, 8).await;
    println!("{fetch} {acknowledge} {orphans}");
    // Each job costs two descents of an index to the row, and writes of the row and of its entries
    // in two indexes.
    assert!(fetch <= 8 * 50, "{fetch} pages to take 8 jobs");
    assert!(
        acknowledge <= 8 * 20,
        "{acknowledge} pages to acknowledge 8 jobs"
    );
    assert!(orphans <= 10, "{orphans} pages to search for lost jobs");
}

/// Claims and acknowledges this many jobs, as a worker does, and looks for jobs of lost workers.
///
/// Returns how many pages of the jobs' table and its indexes each of the three reads.
async fn fetch_and_acknowledge(
    pool: &PgPool,
    ids: &mut impl Iterator<Item = String>,
    jobs: usize,
) -> [i64; 3] {
    let ids: Vec<String> = ids.take(jobs).collect();
    sqlx::query(
        "INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at)
         SELECT id, 'expire-bookings', '{}', 12, now() - n * interval '1 ms'
         FROM unnest($1::text[]) WITH ORDINALITY AS job (id, n)",
    )
    .bind(&ids)
    .execute(pool)
    .await
    .unwrap();
    let start = pages(pool).await;
    let count = i32::try_from(jobs).unwrap();
    let taken = sqlx::query("SELECT * FROM apalis.get_jobs('me', 'expire-bookings', $1)")
        .bind(count)
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(taken.len(), jobs);
    let fetched = pages(pool).await;
    let results: Vec<ResultPayload> = ids
        .iter()
        .map(|id| json!({"task_id": id, "attempt": 1, "status": "Done", "result": {"Ok": null}}))
        .map(|result| serde_json::from_value(result).unwrap())
        .collect();
    let results: Vec<&ResultPayload> = results.iter().collect();
    let mut connection = pool.acquire().await.unwrap();
    let done = queries::handle_results(&mut *connection, &results, "me").await;
    assert_eq!(done.unwrap(), jobs as u64);
    drop(connection);
    let acknowledged = pages(pool).await;
    let mut connection = pool.acquire().await.unwrap();
    queries::reenqueue_orphaned(&mut *connection, "expire-bookings", 30)
        .await
        .unwrap();
    drop(connection);
    [
        fetched - start,
        acknowledged - fetched,
        pages(pool).await - acknowledged,
    ]
}

/// Returns the pages of the jobs' table and its indexes that this pool's one connection has read.
///
/// Nothing else reads them.
async fn pages(pool: &PgPool) -> i64 {
    execute(pool, "SELECT pg_stat_force_next_flush()").await;
    count(
        pool,
        "SELECT (heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::bigint
         FROM pg_statio_user_tables WHERE relid = 'apalis.jobs'::regclass",
    )
    .await
}
