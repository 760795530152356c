//! Migration of databases of earlier versions, with what a sale left in them.
//!
//! `.ci/dump` makes the dumps.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use shared::{audit::audit, id::ShowId, queue::engine, show};
use sqlx::{AssertSqlSafe, PgPool};
use testing::{TestDatabase, a_hold, available_seats, count};

async fn restored(dump: &Path) -> TestDatabase {
    let db = TestDatabase::empty().await;
    // The dump empties the search path of its session, so that session is not used again.
    let mut session = db.pool.acquire().await.unwrap().detach();
    let sql = fs::read_to_string(dump).unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut session)
        .await
        .unwrap();
    db
}

/// Returns everything that the migrations create, as the catalog describes it.
///
/// Parentheses are removed, because the catalog has some that a dump does not have.
async fn schema(pool: &PgPool) -> BTreeSet<String> {
    let things: Vec<String> = sqlx::query_scalar(
        "SELECT format('column %s.%s.%s: %s, default %s, null %s, generated %s', table_schema, table_name, column_name, data_type,
                       column_default, is_nullable, generation_expression)
         FROM information_schema.columns WHERE table_schema IN ('public', 'apalis')
         UNION ALL
         SELECT format('index %s', indexdef) FROM pg_indexes WHERE schemaname IN ('public', 'apalis')
         UNION ALL
         SELECT format('constraint %s of %s: %s', conname, conrelid::regclass, translate(pg_get_constraintdef(oid), '()', ''))
         FROM pg_constraint WHERE connamespace::regnamespace::text IN ('public', 'apalis')
         UNION ALL
         SELECT format('function %s: %s', oid::regprocedure, md5(prosrc))
         FROM pg_proc WHERE pronamespace::regnamespace::text IN ('public', 'apalis') AND prolang <> 13
         UNION ALL
         SELECT format('options of %s: %s', oid::regclass, reloptions)
         FROM pg_class WHERE relnamespace::regnamespace::text IN ('public', 'apalis') AND reloptions IS NOT NULL
         ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    things.into_iter().collect()
}

#[tokio::test]
async fn each_earlier_database_is_migrated_with_all_that_it_has() {
    let fresh = schema(&TestDatabase::new().await.pool).await;
    let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps");
    let mut found = 0;
    for dump in fs::read_dir(dumps).unwrap() {
        let dump = dump.unwrap().path();
        let db = restored(&dump).await;
        shared::migrate::run(&db.database).await.unwrap();
        let migrated = schema(&db.pool).await;
        let differences: Vec<&String> = migrated.symmetric_difference(&fresh).collect();
        assert!(
            differences.is_empty(),
            "{}: {differences:#?}",
            dump.display()
        );

        // The dump was made some time ago, so its holds are overdue.
        let audit = audit(&db.database, Duration::from_hours(1_000_000));
        let audit = audit.await.unwrap();
        assert!(audit.passes(), "{:?}", audit.invariants);
        assert_eq!((audit.shows, audit.bookings), (3, 7));
        for (sql, expected) in [
            ("SELECT count(*) FROM idempotency_keys", 7),
            ("SELECT count(*) FROM api_keys", 1),
            ("SELECT count(*) FROM queue_pauses", 1),
            ("SELECT count(*) FROM apalis.jobs WHERE status = 'Done'", 1),
            (
                "SELECT count(*) FROM bookings WHERE status = 'CONFIRMED'",
                2,
            ),
        ] {
            assert_eq!(count(&db.pool, sql).await, expected, "{sql}");
        }
        assert!(engine::is_applied(&db.pool).await.unwrap());
        let show = show::find(&db.pool, ShowId(1)).await.unwrap().unwrap();
        assert_eq!(show.name, "Łódź at night");
        a_hold(&db.pool, &show, 1).await;
        assert!(available_seats(&db.pool, ShowId(1)).await < 40);
        found += 1;
    }
    assert!(found > 0, "there are no dumps");
}
