//! Failures that only an operator can fix are reported as such, and not as bugs.
//!
//! Examples are a database that is not migrated, refuses connections or is full, and changes to it
//! under a running api.

mod server;

use std::{fs, sync::Arc};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use shared::{
    id::ShowId,
    local_postgres::{DATABASE, LocalPostgres, Mode},
    postgres::{self, DatabaseArgs},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testing::{DataDir, TestDatabase, eventually, execute, until_one_waits_for_a_lock};

use crate::server::{Api, alice, the_show};

/// Asserts that the api is not ready, and returns the reason.
async fn not_ready(api: &Api) -> String {
    let answer = api
        .request(Method::GET, "/health/ready")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/not-ready", "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

async fn is_ready(api: &Api) -> bool {
    api.get("/health/ready").await.0 == StatusCode::OK
}

/// Asserts that the response is a 503 of this problem type, with `Retry-After`.
async fn assert_unavailable(api: &Api, path: &str, body: &Value, kind: &str) {
    let answer = api
        .request(Method::POST, path)
        .json(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    assert!(answer.headers().contains_key("retry-after"), "{path}");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_is_ready_when_its_database_is_migrated_and_not_before() {
    let api = Api::serve(Arc::new(TestDatabase::empty().await), |_| ());
    let reason = not_ready(&api).await;
    assert!(reason.contains("ticketing migrate"), "{reason}");
    assert_unavailable(&api, "/shows", &the_show(), "not-ready").await;
    assert_unavailable(&api, "/bookings", &alice(1), "not-ready").await;

    shared::migrate::run(&api.db.database).await.unwrap();
    assert!(is_ready(&api).await, "the api becomes ready by itself");
    assert_eq!(api.post("/shows", &the_show()).await.0, StatusCode::CREATED);
    assert_eq!(
        api.post("/bookings", &alice(1)).await.0,
        StatusCode::CREATED
    );

    execute(&api.db.pool, "ALTER SCHEMA apalis RENAME TO elsewhere").await;
    let reason = not_ready(&api).await;
    assert!(reason.contains("queue's tables"), "{reason}");
    assert_unavailable(&api, "/bookings", &alice(1), "not-ready").await;
    execute(&api.db.pool, "ALTER SCHEMA elsewhere RENAME TO apalis").await;
    assert!(is_ready(&api).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_fine_while_it_is_understood_and_an_older_one_never() {
    let api = Api::start().await;
    execute(
        &api.db.pool,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9000, 'of a newer program', true, '', 0)",
    )
    .await;
    assert!(is_ready(&api).await, "the api still understands the schema");
    execute(
        &api.db.pool,
        "UPDATE schema_compatibility SET understood_from = 9000",
    )
    .await;
    let reason = not_ready(&api).await;
    assert!(
        reason.contains("run a newer version of this program"),
        "{reason}"
    );
    execute(
        &api.db.pool,
        "UPDATE schema_compatibility SET understood_from = 1",
    )
    .await;
    execute(
        &api.db.pool,
        "DELETE FROM _sqlx_migrations WHERE version > 5",
    )
    .await;
    let reason = not_ready(&api).await;
    assert!(reason.contains("has version 5, older than"), "{reason}");
}

/// Creates a role that is no superuser, so that the database can refuse it. Returns its URL.
async fn with_a_role(db: &TestDatabase, role: &str) -> String {
    for sql in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT USAGE ON SCHEMA apalis TO {role}"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA public, apalis TO {role}"),
        format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"),
    ] {
        run(&mut db.pool.acquire().await.unwrap(), &sql).await;
    }
    db.url.replace("user=postgres", &format!("user={role}"))
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lets_nobody_in_is_the_operators_business() {
    let db = TestDatabase::new().await;
    let (name, role) = (db.name.clone(), format!("role_of_{}", db.name));
    let url = with_a_role(&db, &role).await;
    let mut other = PgConnection::connect(&db.url.replace(&name, "postgres"))
        .await
        .unwrap();
    let database = testing::connect(&url, 4).await.unwrap();
    let pool = database.pool.clone();
    let api = Api::serve(
        Arc::new(TestDatabase {
            database,
            pool,
            url,
            name: name.clone(),
        }),
        |_| (),
    );
    assert_eq!(api.post("/shows", &the_show()).await.0, StatusCode::CREATED);
    db.pool.close().await;
    for (breaks, mends, words) in [
        (
            format!("ALTER ROLE {role} NOLOGIN"),
            format!("ALTER ROLE {role} LOGIN"),
            "role or password (SQLSTATE 28000)",
        ),
        (
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
            "(SQLSTATE 55000)",
        ),
        (
            format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"),
            format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC"),
            "lacks a privilege that it needs (SQLSTATE 42501)",
        ),
        (
            format!("ALTER DATABASE {name} RENAME TO {name}_away"),
            format!("ALTER DATABASE {name}_away RENAME TO {name}"),
            "no database with this name (SQLSTATE 3D000)",
        ),
    ] {
        let kick = format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        // PostgreSQL does not rename a database with connections, and periodic polls reconnect.
        eventually(&breaks, async || {
            run(&mut other, &kick).await;
            sqlx::raw_sql(AssertSqlSafe(breaks.as_str()))
                .execute(&mut other)
                .await
                .is_ok()
        })
        .await;
        run(&mut other, &kick).await;
        eventually("the api notices the lost connections", async || {
            let (_, problem) = api.get("/health/ready").await;
            problem["type"] == "/problems/not-ready"
        })
        .await;
        let reason = not_ready(&api).await;
        assert!(reason.contains(words), "{breaks}: {reason}");
        assert_unavailable(&api, "/bookings", &alice(1), "unavailable").await;
        run(&mut other, &mends).await;
        eventually("the api is ready again", async || is_ready(&api).await).await;
        assert_eq!(
            api.post("/bookings", &alice(1)).await.0,
            StatusCode::CREATED
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_defect() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    sqlx::raw_sql(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER no_room BEFORE INSERT ON bookings FOR EACH ROW EXECUTE FUNCTION fill()",
    )
    .execute(&api.db.pool)
    .await
    .unwrap();
    assert_unavailable(&api, "/bookings", &alice(1), "unavailable").await;
    let reason = not_ready(&api).await;
    assert!(reason.contains("disk is full"), "{reason}");
    assert_eq!(api.get("/shows").await.0, StatusCode::OK);
    execute(&api.db.pool, "DROP TRIGGER no_room ON bookings").await;
    let answer = api.post("/bookings", &alice(1)).await;
    assert_eq!(answer.0, StatusCode::CREATED, "{answer:?}");
    assert!(is_ready(&api).await, "the api is ready at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_cancels_is_run_again() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let blocker = testing::lock_show(&api.db.pool, ShowId(1)).await;
    let cancel = async {
        until_one_waits_for_a_lock(&api.db.pool).await;
        execute(
            &api.db.pool,
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await;
        until_one_waits_for_a_lock(&api.db.pool).await;
        blocker.rollback().await.unwrap();
    };
    let body = alice(1);
    let (answer, ()) = tokio::join!(api.post("/bookings", &body), cancel);
    assert_eq!(answer.0, StatusCode::CREATED, "{answer:?}");
}

/// Prepared statements are for the previous types of the columns.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_its_type_under_a_running_api_breaks_nothing() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let paths = ["/shows", "/shows/1", "/bookings", "/bookings/1"];
    let use_all = async || {
        for path in paths {
            // On more than one connection.
            for answer in futures_util::future::join_all((0..4).map(|_| api.get(path))).await {
                assert_eq!(answer.0, StatusCode::OK, "{path}: {answer:?}");
            }
        }
        let answer = api.post("/bookings/1/confirm", &Value::Null).await;
        assert_eq!(answer.0, StatusCode::OK, "{answer:?}");
        let answer = api.post("/bookings", &alice(1)).await;
        assert_eq!(answer.0, StatusCode::CREATED, "{answer:?}");
    };
    api.post("/bookings", &alice(1)).await;
    use_all().await;
    for change in [
        "ALTER TABLE shows ALTER COLUMN name TYPE varchar(200)",
        "ALTER TABLE bookings ALTER COLUMN user_name TYPE varchar(200)",
    ] {
        execute(&api.db.pool, change).await;
        use_all().await;
    }
}

/// The file may change before the database, or after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_is_read_again() {
    let data = DataDir::new("rotated");
    let server = LocalPostgres::start(&data.0, Mode::Throwaway).unwrap();
    let database = server.connect(DATABASE).await.unwrap();
    let mut admin = database.pool.acquire().await.unwrap();
    run(&mut admin, "CREATE ROLE rotated LOGIN PASSWORD 'first'").await;
    let hba = data.0.join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local all rotated scram-sha-256\n{rules}")).unwrap();
    run(&mut admin, "SELECT pg_reload_conf()").await;

    let file = data.0.join("password");
    fs::write(&file, "first\n").unwrap();
    let args = DatabaseArgs {
        database_url: server
            .url(DATABASE)
            .replace("user=postgres", "user=rotated"),
        database_password_file: Some(file.clone()),
        database_connections: 2,
    };
    let pool = postgres::connect(&args).await.unwrap().pool;
    let kick =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'rotated'";
    let works = async || sqlx::query("SELECT 1").execute(&pool).await.is_ok();

    run(&mut admin, "ALTER ROLE rotated PASSWORD 'second'").await;
    run(&mut admin, kick).await;
    eventually("the old password is refused", async || !works().await).await;
    fs::write(&file, "second\n").unwrap();
    eventually("the file is read again", works).await;

    fs::write(&file, "third\n").unwrap();
    run(&mut admin, kick).await;
    eventually("the old password still works", works).await;
    run(&mut admin, "ALTER ROLE rotated PASSWORD 'third'").await;
    run(&mut admin, kick).await;
    eventually("the new password works", works).await;
}
