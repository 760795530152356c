//! A private PostgreSQL server, for `cargo run` without a `DATABASE_URL` and for tests.
//!
//! A small shell script is the server's keeper: it starts the server, then reads from a pipe that only we
//! hold. When the pipe closes, because we stop or because we were killed, it stops the server.

mod cluster;
mod programs;

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{Connection, PgConnection};

use self::cluster::Owner;
use crate::{
    postgres::{self, Database, DatabaseArgs},
    process,
};

/// What becomes of the server's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every commit is on disk before it is acknowledged; the data stays.
    Durable,
    /// Fast and forgetful: nothing is forced to disk, and the data directory is removed when the server stops.
    Throwaway,
}

/// The database that is created in a new server.
pub const DATABASE: &str = "ticketing";

/// Its log, in its data directory.
const LOG: &str = "server.log";

/// Leaves a path readable in a URL. All else is escaped, also what a shell would expand.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// A Unix socket's path has at most 107 bytes, of which `/.s.PGSQL.5432` needs 14.
const MAX_DATA_DIR_BYTES: usize = 93;

/// How long a server may take to stop after its owner was killed.
const STOPPING: Duration = Duration::from_secs(5);

/// Starts the server whose data is in the working directory, says so, and stops it when standard input ends.
/// `$1` directory of the programs, `$2` log, `$3` server options, `$4` how to stop, `$5` data to remove, if any.
///
/// `pg_ctl` gives paths to another shell, which expands `$` and backticks in them: so it gets none.
const KEEPER: &str = r#"
    "$1/pg_ctl" -D . -l "$2" -o "$3" -w -s start >&2 || exit 1
    echo ready
    read -r _
    "$1/pg_ctl" -D . -m "$4" -w -s stop >&2
    if [ -n "$5" ]; then rm -rf "$5"; fi
"#;

/// A running server. It stops when this is dropped, and also when this process is killed.
#[derive(Debug)]
pub struct LocalPostgres {
    keeper: Child,
    data_dir: PathBuf,
    programs: PathBuf,
}

impl LocalPostgres {
    /// Starts a server on this data directory, which is made if there is none.
    ///
    /// It listens on a Unix socket in its data directory, which only its owner (and root) can enter, and on
    /// nothing else. Run as root, the server runs as user `postgres` or `nobody`, since it refuses root.
    ///
    /// # Errors
    ///
    /// When no server program is found (the message names each place searched), the directory can't be used,
    /// or the server does not start (the message ends with its log).
    pub fn start(data_dir: &Path, mode: Mode) -> anyhow::Result<Self> {
        let programs = programs::find()?;
        let data_dir = std::path::absolute(data_dir)?;
        check_path(&data_dir)?;
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
            match start_keeper(&owner, &data_dir, &arguments)? {
                Ok(keeper) => break keeper,
                // Perhaps its last owner was killed a moment ago, and it is still stopping and writing to its log.
                Err(_)
                    if last_lines(&log, 15).contains("postmaster.pid")
                        && began.elapsed() < STOPPING =>
                {
                    thread::sleep(Duration::from_millis(100));
                }
                Err(output) => bail!(
                    "PostgreSQL does not start on {}\n{output}\n{}",
                    data_dir.display(),
                    last_lines(&log, 15),
                ),
            }
        };
        Ok(Self {
            keeper,
            data_dir,
            programs,
        })
    }

    /// The URL of a database in this server, for us and for `psql`, whatever variables such as `PGPORT` and `PGSSLMODE` say.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let data_dir = self.data_dir.to_string_lossy();
        let host = utf8_percent_encode(&data_dir, ESCAPED);
        format!("postgres:///{database}?host={host}&port=5432&user=postgres&sslmode=disable")
    }

    /// The URL of the database that a new server has.
    #[must_use]
    pub fn default_url(&self) -> String {
        self.url(DATABASE)
    }

    /// Makes a database with the schema of ticketing, and returns its URL.
    ///
    /// # Errors
    ///
    /// When it exists already, or the server fails.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<String> {
        self.execute(&format!("CREATE DATABASE {name}")).await?;
        let database = self.connect(name).await?;
        postgres::migrate(&database).await?;
        database.pool.close().await;
        Ok(self.url(name))
    }

    /// A small pool on a database, for a look at it.
    ///
    /// # Errors
    ///
    /// When it can't be connected to.
    pub async fn connect(&self, database: &str) -> anyhow::Result<Database> {
        postgres::connect(&DatabaseArgs {
            database_url: self.url(database),
            database_password_file: None,
            database_connections: 2,
        })
        .await
    }

    /// Removes a database, whoever is connected to it.
    ///
    /// # Errors
    ///
    /// When the server fails.
    pub async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        self.execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
    }

    /// Ends this many connections of clients to a database, whichever they are.
    ///
    /// # Errors
    ///
    /// When the server fails.
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

    /// The end of its log: why it ended, if the log tells that.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        last_words(&String::from_utf8_lossy(&log))
    }

    /// Whether it still runs. Nobody starts it again when it was killed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process_id().is_ok_and(process::is_running)
    }

    /// The process that started all others of the server.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn process_id(&self) -> anyhow::Result<i32> {
        let file = self.data_dir.join("postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
        let line = text.lines().next().unwrap_or_default();
        line.parse()
            .with_context(|| format!("no process id in {}", file.display()))
    }

    /// Runs a statement in the database `postgres`.
    pub(crate) async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(())
    }

    /// Starts another server that follows this one: a hot standby, to which everything is streamed.
    ///
    /// # Errors
    ///
    /// When this one can't be copied, or the other one does not start.
    #[cfg(feature = "testing")]
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
        // What is in the data directory because we put it there, and not part of the data.
        for file in [".s.PGSQL.5432.lock", LOG] {
            fs::remove_file(data_dir.join(file))?;
        }
        Self::start(data_dir, Mode::Durable)
    }

    /// The server's name and version.
    ///
    /// # Errors
    ///
    /// When the server fails.
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

    /// One of the programs that come with the server.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Where it writes its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.data_dir.join(LOG)
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        // Closing the pipe is the signal; the wait lets the server write its data out.
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            tracing::error!(%error, "cannot wait for PostgreSQL to stop");
        }
    }
}

/// Starts the keeper, and returns it when the server is ready, or else what it printed.
fn start_keeper(
    owner: &Owner,
    data_dir: &Path,
    arguments: &[&OsStr],
) -> anyhow::Result<Result<Child, String>> {
    let mut keeper = owner
        .command("sh")
        .args(["-c", KEEPER, "sh"])
        .args(arguments)
        .current_dir(data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start sh")?;
    let mut answer = String::new();
    let stdout = keeper.stdout.take().context("no standard output")?;
    BufReader::new(stdout).read_line(&mut answer)?;
    if answer == "ready\n" {
        return Ok(Ok(keeper));
    }
    let output = keeper.wait_with_output()?;
    Ok(Err(String::from_utf8_lossy(&output.stderr)
        .trim()
        .to_owned()))
}

/// Fails for paths that PostgreSQL or a connection URL can't hold.
fn check_path(data_dir: &Path) -> anyhow::Result<()> {
    let shown = data_dir.display();
    ensure!(
        data_dir.as_os_str().len() <= MAX_DATA_DIR_BYTES,
        "the data directory {shown} is longer than the {MAX_DATA_DIR_BYTES} bytes that a Unix socket in it allows",
    );
    let path = data_dir
        .to_str()
        .with_context(|| format!("the data directory {shown} is not valid UTF-8"))?;
    ensure!(
        !path.contains(|c: char| c == ',' || c.is_control()),
        "the data directory {path:?} contains a comma, which separates servers in a connection URL, or a control character",
    );
    Ok(())
}

/// The last errors since the server started that ended a process of it, or else the last lines.
fn last_words(log: &str) -> String {
    let start = log.rfind("starting PostgreSQL").unwrap_or_default();
    let lines: Vec<&str> = log[start..].lines().collect();
    let ended: Vec<&str> = lines
        .iter()
        .filter_map(|line| {
            let at = line.find("PANIC:  ").or_else(|| line.find("FATAL:  "))?;
            Some(&line[at..])
        })
        // What it tells clients meanwhile.
        .filter(|error| !error.contains("the database system is"))
        .collect();
    let words = if ended.is_empty() { lines } else { ended };
    words[words.len().saturating_sub(3)..].join("\n")
}

fn last_lines(file: &Path, count: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests;
