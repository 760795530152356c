//! Databases for tests, on a server of this process.

use std::{
    env, fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use shared::{
    local_postgres::{LocalPostgres, Mode},
    postgres::{self, Database, DatabaseArgs, Engine, Session},
};
use sqlx::PgPool;
use tokio::sync::OnceCell;

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
