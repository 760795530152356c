//! A private PostgreSQL server, for `cargo run` without a `DATABASE_URL` and for tests.
//!
//! The `keeper` starts the server, and stops it when this process stops or is killed.

mod cluster;
mod keeper;
mod log;
mod programs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{Connection, PgConnection};

use self::cluster::Owner;
pub use self::cluster::{DATABASE, Mode};
use crate::{
    postgres::{self, Database, DatabaseArgs},
    process,
};

/// Name of the server's log, in its data directory.
const LOG: &str = "server.log";

/// Characters to escape in a path, so that it stays readable in a URL.
///
/// They include all that a shell would expand.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// Time that a server may take to stop after its owner was killed.
const STOPPING: Duration = Duration::from_secs(5);

/// A running server. It stops when this value is dropped, and also when this process is killed.
#[derive(Debug)]
pub struct LocalPostgres {
    keeper: Child,
    data_dir: PathBuf,
    programs: PathBuf,
}

impl LocalPostgres {
    /// Starts a server on a data directory, which is created if it does not exist.
    ///
    /// The server listens on a Unix socket in its data directory, which only its owner and root can
    /// enter, and on nothing else. If this process runs as root, the server runs as user `postgres`
    /// or `nobody`, because PostgreSQL refuses to run as root.
    ///
    /// # Errors
    ///
    /// Fails if no server program is found (the message lists each place searched), the directory
    /// can't be used, or the server does not start (the message ends with its log).
    pub fn start(data_dir: &Path, mode: Mode) -> anyhow::Result<Self> {
        let programs = programs::find()?;
        let data_dir = std::path::absolute(data_dir)?;
        cluster::check_path(&data_dir)?;
        let owner = Owner::of_server()?;
        cluster::prepare(&programs, &data_dir, mode, &owner)?;
        let log = data_dir.join(LOG);
        let (settings, stop, removed) = match mode {
            Mode::Durable => (
                "-c max_connections=200 -c shared_buffers=256MB",
                "fast",
                Path::new(""),
            ),
            Mode::Throwaway => (
                "-c max_connections=500 -c shared_buffers=128MB -c fsync=off -c synchronous_commit=off \
                 -c full_page_writes=off -c autovacuum=off",
                "immediate",
                data_dir.as_path(),
            ),
        };
        let options = format!("-c listen_addresses='' -c unix_socket_directories=. {settings}");
        let arguments = [
            programs.as_os_str(),
            LOG.as_ref(),
            options.as_ref(),
            stop.as_ref(),
            removed.as_os_str(),
        ];
        let began = Instant::now();
        let keeper = loop {
            match keeper::start(&owner, &data_dir, &arguments)? {
                Ok(keeper) => break keeper,
                // The previous owner may have been killed a moment ago. Then its server is still
                // stopping and writing to its log.
                Err(_)
                    if log::last_lines(&log, 15).contains("postmaster.pid")
                        && began.elapsed() < STOPPING =>
                {
                    thread::sleep(Duration::from_millis(100));
                }
                Err(output) => bail!(
                    "PostgreSQL does not start in {}\n{output}\n{}",
                    data_dir.display(),
                    log::last_lines(&log, 15),
                ),
            }
        };
        Ok(Self {
            keeper,
            data_dir,
            programs,
        })
    }

    /// Returns the URL of a database on this server.
    ///
    /// It works for this program and for `psql`, whatever variables such as `PGPORT` and
    /// `PGSSLMODE` say.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let data_dir = self.data_dir.to_string_lossy();
        let host = utf8_percent_encode(&data_dir, ESCAPED);
        format!("postgres:///{database}?host={host}&port=5432&user=postgres&sslmode=disable")
    }

    /// Returns the URL of the database that a new server has.
    #[must_use]
    pub fn default_url(&self) -> String {
        self.url(DATABASE)
    }

    /// Creates a database with the schema of ticketing, and returns its URL.
    ///
    /// # Errors
    ///
    /// Fails if the database exists already, or if a statement fails.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<String> {
        self.execute(&format!("CREATE DATABASE {name}")).await?;
        let database = self.connect(name).await?;
        crate::migrate::run(&database).await?;
        database.pool.close().await;
        Ok(self.url(name))
    }

    /// Opens a small connection pool on a database, for inspecting it.
    ///
    /// # Errors
    ///
    /// Fails if the database can't be reached.
    pub async fn connect(&self, database: &str) -> anyhow::Result<Database> {
        postgres::connect(&DatabaseArgs {
            database_url: self.url(database),
            database_password_file: None,
            database_connections: 2,
        })
        .await
    }

    /// Drops a database, even if clients are connected to it.
    ///
    /// # Errors
    ///
    /// Fails if the statement fails.
    pub async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        self.execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
    }

    /// Terminates this many client connections to a database, chosen at random.
    ///
    /// # Errors
    ///
    /// Fails if the statement fails.
    pub async fn cut_connections(&self, database: &str, count: i64) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        sqlx::query!(
            "SELECT pg_terminate_backend(pid)
             FROM (SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'
                   ORDER BY random() LIMIT $2) AS unlucky",
            database,
            count,
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(())
    }

    /// Returns the end of the server's log: the reason why the server ended, if the log has one.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        log::last_words(&String::from_utf8_lossy(&log))
    }

    /// Whether the server is running. Nothing restarts it after it was killed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process_id().is_ok_and(process::is_running)
    }

    /// Returns the process id of the server's main process, the parent of all others.
    ///
    /// # Errors
    ///
    /// Fails if the server is not running.
    pub fn process_id(&self) -> anyhow::Result<i32> {
        let file = self.data_dir.join("postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
        let line = text.lines().next().unwrap_or_default();
        line.parse()
            .with_context(|| format!("no process id in {}", file.display()))
    }

    /// Runs a statement in the database `postgres`.
    ///
    /// # Errors
    ///
    /// Fails if the server can't be reached, or refuses the statement.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(())
    }

    /// Starts a hot standby of this server, to which all changes are streamed.
    ///
    /// # Errors
    ///
    /// Fails if this server can't be copied, or the standby does not start.
    pub fn start_standby(&self, data_dir: &Path) -> anyhow::Result<Self> {
        use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt};

        DirBuilder::new().mode(0o700).create(data_dir)?;
        let owner = Owner::of_server()?;
        owner.take(data_dir)?;
        let mut copy = owner.command(self.program("pg_basebackup"));
        copy.args(["--write-recovery-conf", "--checkpoint=fast"])
            .args(["--username=postgres", "--host"])
            .arg(&self.data_dir)
            .arg("--pgdata")
            .arg(data_dir);
        cluster::run(&mut copy)?;
        // These files are in the data directory because of how this module runs the server. They
        // are not part of the data.
        for file in [".s.PGSQL.5432.lock", LOG] {
            fs::remove_file(data_dir.join(file))?;
        }
        Self::start(data_dir, Mode::Durable)
    }

    /// Returns the server's name and version.
    ///
    /// # Errors
    ///
    /// Fails if the statement fails.
    pub async fn version(&self) -> anyhow::Result<String> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let version = sqlx::query_scalar!(
            r#"SELECT 'PostgreSQL ' || current_setting('server_version') AS "version!""#
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(version)
    }

    /// Returns the path of a program that comes with the server.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Returns the path of the server's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.data_dir.join(LOG)
    }

    /// Returns the server's data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        // Closing the pipe signals the keeper to stop the server. Waiting lets the server write its
        // data out.
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            tracing::error!(%error, "cannot wait for PostgreSQL to stop");
        }
    }
}
