//! PgBouncer in transaction mode, for tests.

use std::{fs, path::Path, process::Stdio};

use testing::{DataDir, eventually};
use tokio::process::{Child, Command};

/// A running PgBouncer; killed when this is dropped.
pub(crate) struct PgBouncer {
    _process: Child,
    dir: DataDir,
}

impl PgBouncer {
    /// Starts a pooler in front of a server, such as `host=/tmp user=postgres`.
    ///
    /// It has few connections to the server, so that transactions of a client often use different
    /// ones.
    pub(crate) async fn start(program: &Path, server: &str) -> Self {
        Self::start_with(program, server, "").await
    }

    /// Starts a pooler with an additional setting.
    pub(crate) async fn start_with(program: &Path, server: &str, setting: &str) -> Self {
        let dir = DataDir::new(&format!("pgbouncer-{}", setting.len()));
        fs::create_dir(&dir.0).unwrap();
        let config = format!(
            "[databases]
             * = {server}
             [pgbouncer]
             listen_addr =
             listen_port = 6432
             unix_socket_dir = {}
             auth_type = any
             pool_mode = transaction
             default_pool_size = 4
             {setting}",
            dir.0.display(),
        );
        let file = dir.0.join("pgbouncer.ini");
        fs::write(&file, config.replace("             ", "")).unwrap();
        let mut command = Command::new(program);
        if nix::unistd::geteuid().is_root() {
            // PgBouncer refuses to run as root, as PostgreSQL does.
            let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
            std::os::unix::fs::chown(&dir.0, Some(user.uid.as_raw()), None).unwrap();
            command.args(["--user", "postgres"]);
        }
        let process = command
            .arg(&file)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let socket = dir.0.join(".s.PGSQL.6432");
        eventually("the pooler listens", async || socket.exists()).await;
        Self {
            _process: process,
            dir,
        }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&port=6432&user=postgres",
            self.dir.0.display()
        )
    }
}
