//! Databases with unusual settings and encodings.

use std::time::Duration;

use shared::{
    audit::audit,
    batch::Batch,
    booking::{cancel, confirm, expire, query, reserve},
    id::{BookingId, ShowId},
    idempotency::{Claim, Key},
    postgres::{self, Database},
    show,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testing::{
    TestDatabase, a_show, available_seats, booked, change, connect, execute, job, let_pass,
};

/// Settings of a database that are usual nowhere.
const ODD: [&str; 18] = [
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "standard_conforming_strings = off",
    "escape_string_warning = off",
    "search_path = ''",
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kathmandu'",
    "bytea_output = 'escape'",
    "extra_float_digits = '-15'",
    "client_encoding = 'LATIN1'",
    "row_security = off",
    "statement_timeout = 1",
    "lock_timeout = 1",
    "plan_cache_mode = force_custom_plan",
    "enable_seqscan = on",
    "idle_session_timeout = 1",
];

async fn set_odd(db: &TestDatabase) {
    for setting in ODD {
        let sql = format!("ALTER DATABASE {} SET {setting}", db.name);
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&db.pool)
            .await
            .unwrap();
    }
}

fn request(show_id: ShowId, key: &str) -> reserve::Request {
    reserve::Request {
        claim: Some(Claim {
            key: Key {
                owner: 0,
                text: key.to_owned(),
            },
            fingerprint: vec![1, 0, 255],
        }),
        ..reserve::Request::new(show_id, "Łódź", 1)
    }
}

/// Runs a sale, from a show to the audit.
async fn sell(database: &Database) {
    let pool = &database.pool;
    let mut session = postgres::Session::chained(database);
    let show = a_show(pool, 10).await;
    let requests = ["a", "b", "c", "a"].map(|key| request(show.id, key));
    let answers = reserve::reserve(&mut session, &mut Batch::of(requests))
        .await
        .unwrap();
    let bookings: Vec<BookingId> = booked(answers)
        .into_iter()
        .map(|made| made.unwrap().id)
        .collect();
    assert_eq!(bookings[0], bookings[3], "the key is recognized");
    let confirmed = confirm::confirm(&mut session, &mut Batch::of([change(bookings[0])])).await;
    assert!(confirmed.unwrap()[0].is_ok());
    let cancelled = cancel::cancel(&mut session, &mut Batch::of([change(bookings[1])])).await;
    assert!(cancelled.unwrap()[0].is_ok());
    let_pass(pool, 200).await;
    let expired = expire::expire(&mut session, &job(&[bookings[2]])).await;
    assert_eq!(expired.unwrap().expired.len(), 1);
    session.rest().await;
    assert_eq!(available_seats(pool, show.id).await, 9);
    let found = query::find(pool, bookings[0], None).await.unwrap().unwrap();
    assert_eq!(found.user_name, "Łódź");
    assert_eq!(
        show::list(database, &show::Filter::default(), None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    let audit = audit(database, Duration::ZERO).await.unwrap();
    assert!(audit.passes(), "{audit:#?}");
}

#[tokio::test]
async fn it_sells_whatever_is_set_for_the_database() {
    let db = TestDatabase::new().await;
    set_odd(&db).await;
    sell(&connect(&db.url, 4).await.unwrap()).await;
}

#[tokio::test]
async fn it_migrates_whatever_is_set_for_the_database() {
    let db = TestDatabase::empty().await;
    set_odd(&db).await;
    let database = connect(&db.url, 4).await.unwrap();
    shared::migrate::run(&database).await.unwrap();
    postgres::ready(&database).await.unwrap();
    sell(&database).await;
}

/// The database's default would make each transaction wait for others, and fail.
#[tokio::test]
async fn transactions_are_read_committed_whatever_is_set_for_the_database() {
    let db = TestDatabase::new().await;
    set_odd(&db).await;
    let database = connect(&db.url, 1).await.unwrap();
    let level: String = sqlx::query_scalar("SHOW transaction_isolation")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(level, "read committed");
    execute(&database.pool, "CREATE TABLE written ()").await;
}

/// Names can be in any language, and their characters are counted, which needs UTF-8.
#[tokio::test]
async fn a_database_in_another_encoding_is_refused_with_what_to_do() {
    let db = TestDatabase::empty().await;
    let mut connection = PgConnection::connect(&db.url).await.unwrap();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("{}_{}", db.name, encoding.to_lowercase());
        let sql =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
        let url = db.url.replace(&db.name, &name);
        let refused = connect(&url, 2).await.unwrap_err().to_string();
        assert!(refused.contains(encoding), "{refused}");
        assert!(
            refused.contains("ENCODING 'UTF8' TEMPLATE template0"),
            "{refused}"
        );
    }
}
