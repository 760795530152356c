//! Data directories: creation and ownership.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use nix::unistd::{Uid, User, geteuid};

/// Name of the database in a new server.
pub const DATABASE: &str = "ticketing";

/// Durability of the server's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every commit is on disk before it is acknowledged, and the data is kept.
    Durable,
    /// Fast: nothing is forced to disk, and the data directory is removed when the server stops.
    Throwaway,
}

/// Maximum length of the data directory's path, in bytes.
///
/// A Unix socket's path has at most 107 bytes, of which `/.s.PGSQL.5432` needs 14.
const MAX_DATA_DIR_BYTES: usize = 93;

/// Fails if PostgreSQL or a connection URL can't hold the path.
pub(super) fn check_path(data_dir: &Path) -> anyhow::Result<()> {
    let shown = data_dir.display();
    ensure!(
        data_dir.as_os_str().len() <= MAX_DATA_DIR_BYTES,
        "the path of the data directory {shown} is longer than the {MAX_DATA_DIR_BYTES} bytes that \
         a Unix socket in it allows",
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

/// Creates a cluster with an empty database, unless the directory has one already.
///
/// # Errors
///
/// Fails if the directory is not a data directory and can't become one.
pub(super) fn prepare(
    programs: &Path,
    data_dir: &Path,
    mode: Mode,
    owner: &Owner,
) -> anyhow::Result<()> {
    owner.check(data_dir)?;
    if data_dir.join("PG_VERSION").exists() {
        return Ok(());
    }
    if fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is neither empty nor a PostgreSQL data directory",
            data_dir.display()
        );
    }
    ensure!(
        !is_mount_point(data_dir),
        "{} is a mount point and can't be replaced by a new data directory: choose a directory in it",
        data_dir.display(),
    );
    // The directory gets its name only when it is complete, so that an interrupted start leaves no
    // incomplete data directory under that name.
    let mut unfinished = data_dir.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let result = initialize(programs, &unfinished, mode, owner).and_then(|()| {
        fs::rename(&unfinished, data_dir).with_context(|| {
            format!(
                "cannot rename {} to {}",
                unfinished.display(),
                data_dir.display()
            )
        })
    });
    if result.is_err() {
        // If this fails too, the next start removes the rest.
        let _ = fs::remove_dir_all(&unfinished);
    }
    result
}

/// Creates a cluster in this directory, and removes what was there before.
fn initialize(programs: &Path, dir: &Path, mode: Mode, owner: &Owner) -> anyhow::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    owner.take(dir)?;

    let mut initdb = owner.command(programs.join("initdb"));
    initdb
        .arg("--pgdata")
        .arg(dir)
        .args(["--username=postgres", "--encoding=UTF8", "--locale=C"])
        .args(["--auth-local=trust", "--auth-host=reject"]);
    if mode == Mode::Throwaway {
        initdb.args(["--no-sync", "--wal-segsize=1"]);
    }
    run(&mut initdb)?;
    // Single-user mode creates the database without a running server.
    let mut single = owner.command(programs.join("postgres"));
    single.args(["--single", "-D"]).arg(dir).arg("postgres");
    run_with_input(&mut single, &format!("CREATE DATABASE {DATABASE}\n"))
}

/// Runs a command and waits for its end.
///
/// # Errors
///
/// Fails if the command fails; the message quotes its standard error.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
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

/// User that the server runs as.
pub(super) struct Owner {
    /// None for the user of this process.
    other: Option<User>,
}

impl Owner {
    /// Returns the user of this process, or another one if that is root, which PostgreSQL refuses.
    pub(super) fn of_server() -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Self { other: Some(user) });
            }
        }
        bail!(
            "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as"
        )
    }

    /// Creates a command that runs as the owner.
    ///
    /// It is out of reach of the terminal's Ctrl-C, and gets no variables such as `PGPORT`, which
    /// are meant for other servers.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(0);
        if let Some(user) = &self.other {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Fails if a data directory belongs to another user and can't be replaced.
    ///
    /// PostgreSQL would refuse it.
    fn check(&self, data_dir: &Path) -> anyhow::Result<()> {
        let shown = data_dir.display();
        let found = match fs::metadata(data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.with_context(|| format!("cannot use {shown}"))?,
        };
        ensure!(found.is_dir(), "{shown} is not a directory");
        let server = self.other.as_ref().map_or_else(geteuid, |user| user.uid);
        let has = Uid::from_raw(found.uid());
        if has != server {
            let is_empty =
                || fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_none());
            // An empty directory of this process's user is replaced by one that the server's user
            // owns.
            ensure!(
                has == geteuid() && is_empty(),
                "{shown} belongs to the user {}, but PostgreSQL would run as {}: choose another data directory",
                name(has),
                name(server),
            );
        }
        Ok(())
    }

    /// Gives a directory to the owner, and checks that the owner can write to it.
    pub(super) fn take(&self, dir: &Path) -> anyhow::Result<()> {
        let Some(user) = &self.other else {
            return Ok(());
        };
        chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        ensure!(
            self.command("test").arg("-w").arg(dir).status()?.success(),
            "the user {} cannot access {}, because of the permissions of a directory above it: \
             choose another data directory",
            user.name,
            dir.display(),
        );
        Ok(())
    }
}

fn is_mount_point(dir: &Path) -> bool {
    let device = |dir: &Path| fs::metadata(dir).ok().map(|found| found.dev());
    device(dir).is_some_and(|found| dir.parent().and_then(device) != Some(found))
}

/// Returns a user's name, or its id if there is no name, for messages.
fn name(user: Uid) -> String {
    match User::from_uid(user) {
        Ok(Some(user)) => user.name,
        _ => user.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_url_or_socket_can_hold_is_refused() {
        for (path, expected) in [
            ("/a,b", "comma"),
            ("/a\nb", "control character"),
            (&*format!("/{}", "a".repeat(93)), "longer than"),
        ] {
            let error = check_path(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(expected), "{path:?}: {error}");
        }
        check_path(Path::new(r#"/a b&c%20$d`e`f"g'h\i#j?k"#)).unwrap();
    }
}
