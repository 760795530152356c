//! A private PostgreSQL server, for `cargo run` without a `DATABASE_URL` and for tests.
//!
//! A small shell script is the server's keeper: it starts the server, then reads from a pipe that only we
//! hold. When the pipe closes, because we stop or because we were killed, it stops the server.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use sqlx::{Connection, PgConnection};

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

/// A Unix socket's path has at most 107 bytes, of which `/.s.PGSQL.5432` needs 14.
const MAX_DATA_DIR_BYTES: usize = 93;

/// How long a server may take to stop after its owner was killed.
const STOPPING: Duration = Duration::from_secs(5);

/// Starts the server, says so, and stops it when standard input ends.
/// `$1` directory of the programs, `$2` data, `$3` log, `$4` server options, `$5` how to stop, `$6` whether to
/// remove the data.
const KEEPER: &str = r#"
    "$1/pg_ctl" -D "$2" -l "$3" -o "$4" -w -s start >&2 || exit 1
    echo ready
    read -r _
    "$1/pg_ctl" -D "$2" -m "$5" -w -s stop >&2
    if [ "$6" = remove ]; then rm -rf "$2"; fi
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
        let programs = find_programs()?;
        let data_dir = std::path::absolute(data_dir)?;
        ensure!(
            data_dir.as_os_str().len() <= MAX_DATA_DIR_BYTES,
            "the data directory {} is longer than the {MAX_DATA_DIR_BYTES} bytes that a Unix socket in it allows",
            data_dir.display(),
        );
        ensure!(
            !data_dir.to_string_lossy().contains(['\'', '"', ',', '\\']),
            "the data directory {} contains a quote, a comma or a backslash, which PostgreSQL's settings can't hold",
            data_dir.display(),
        );
        let owner = Owner::of_server()?;
        if !data_dir.join("PG_VERSION").exists() {
            initialize(&programs, &data_dir, mode, &owner)?;
        }
        let log = data_dir.join(LOG);
        let (settings, stop, keep) = match mode {
            Mode::Durable => (
                "-c max_connections=200 -c shared_buffers=256MB",
                "fast",
                "keep",
            ),
            Mode::Throwaway => (
                "-c max_connections=500 -c shared_buffers=128MB -c fsync=off -c synchronous_commit=off \
                 -c full_page_writes=off -c autovacuum=off",
                "immediate",
                "remove",
            ),
        };
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' {settings}",
            data_dir.display(),
        );
        let arguments = [
            programs.as_os_str(),
            data_dir.as_os_str(),
            log.as_os_str(),
            options.as_ref(),
            stop.as_ref(),
            keep.as_ref(),
        ];
        let began = Instant::now();
        let keeper = loop {
            match start_keeper(&owner, &arguments)? {
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

    /// The URL of a database in this server, for us and for `psql`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&user=postgres",
            self.data_dir.display()
        )
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
        run(&mut copy)?;
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
fn start_keeper(owner: &Owner, arguments: &[&OsStr]) -> anyhow::Result<Result<Child, String>> {
    let mut keeper = owner
        .command("sh")
        .args(["-c", KEEPER, "sh"])
        .args(arguments)
        .current_dir("/")
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

/// Makes a cluster with an empty database. It appears under its name only when it is complete, so that a
/// start that was interrupted leaves nothing half-made behind.
fn initialize(programs: &Path, data_dir: &Path, mode: Mode, owner: &Owner) -> anyhow::Result<()> {
    if fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is neither empty nor a PostgreSQL data directory",
            data_dir.display()
        );
    }
    let mut unfinished = data_dir.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot create {}", unfinished.display()))?;
    owner.take(&unfinished)?;

    let mut initdb = owner.command(programs.join("initdb"));
    initdb
        .arg("--pgdata")
        .arg(&unfinished)
        .args(["--username=postgres", "--encoding=UTF8", "--locale=C"])
        .args(["--auth-local=trust", "--auth-host=reject"]);
    if mode == Mode::Throwaway {
        initdb.args(["--no-sync", "--wal-segsize=1"]);
    }
    run(&mut initdb)?;
    // Single-user mode creates the database without the server.
    let mut single = owner.command(programs.join("postgres"));
    single
        .args(["--single", "-D"])
        .arg(&unfinished)
        .arg("postgres");
    run_with_input(&mut single, &format!("CREATE DATABASE {DATABASE}\n"))?;
    fs::rename(&unfinished, data_dir).with_context(|| {
        format!(
            "cannot rename {} to {}",
            unfinished.display(),
            data_dir.display()
        )
    })
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    run_with_input(command, "")
}

fn run_with_input(command: &mut Command, input: &str) -> anyhow::Result<()> {
    use std::io::Write;

    let program = command.get_program().to_owned();
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{} failed:\n{}",
        program.display(),
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    Ok(())
}

/// Whom the server runs as.
struct Owner {
    /// None for ourselves.
    other: Option<nix::unistd::User>,
}

impl Owner {
    /// PostgreSQL refuses to run as root.
    fn of_server() -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = nix::unistd::User::from_name(name)? {
                return Ok(Self { other: Some(user) });
            }
        }
        bail!(
            "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as"
        )
    }

    /// A command run as the owner, out of reach of our terminal's Ctrl-C.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(program);
        command.process_group(0);
        if let Some(user) = &self.other {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Makes the owner own a directory, and checks that it can get there.
    fn take(&self, dir: &Path) -> anyhow::Result<()> {
        let Some(user) = &self.other else {
            return Ok(());
        };
        std::os::unix::fs::chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        ensure!(
            self.command("test").arg("-w").arg(dir).status()?.success(),
            "user {} cannot reach {}: a directory above it is closed to others; choose another data directory",
            user.name,
            dir.display(),
        );
        Ok(())
    }
}

/// The directory with the programs of the server.
fn find_programs() -> anyhow::Result<PathBuf> {
    let places = program_dirs();
    places
        .iter()
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        // Where they really are: a directory of links may lack some of them.
        .and_then(|dir| Some(fs::canonicalize(dir.join("initdb")).ok()?.parent()?.to_owned()))
        .with_context(|| {
            let searched: String = places
                .iter()
                .map(|dir| format!("\n  {}", dir.display()))
                .collect();
            format!(
                "no PostgreSQL server found. Set DATABASE_URL to one that runs, or install one:\n\
                 \n  Debian, Ubuntu   sudo apt-get install -y postgresql\
                 \n  Fedora           sudo dnf install -y postgresql-server postgresql-contrib\
                 \n  macOS            brew install postgresql@17\
                 \n\nSearched PG_BIN_DIR, PATH and the usual directories for initdb and postgres:{searched}"
            )
        })
}

/// Where the programs may be, the best place first: `PG_BIN_DIR` alone if it is set, else `PATH` and then the
/// newest version in each of the usual directories.
fn program_dirs() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os("PG_BIN_DIR") {
        return vec![dir.into()];
    }
    let mut dirs: Vec<PathBuf> = env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .collect();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        dirs.extend(versions(Path::new(parent), prefix));
    }
    dirs.push("/usr/bin".into());
    dirs
}

/// `parent/<prefix><version>/bin`, the newest version first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn last_lines(file: &Path, count: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
