//! The keeper: a small shell script that starts the server and later stops it.
//!
//! It reads from a pipe that only this process holds. When the pipe closes, because this process
//! stops or is killed, the keeper stops the server.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use anyhow::Context;

use super::cluster::Owner;

/// Shell script that starts the server whose data is in the working directory, and stops it later.
///
/// It prints `ready` once the server runs, and stops the server when standard input ends. `$1` is
/// the directory of the server's programs, `$2` the log, `$3` the server's options, `$4` the
/// shutdown mode, and `$5` the data to remove, if any.
///
/// `pg_ctl` passes paths to another shell, which expands `$` and backticks in them. So it gets no
/// path but `.` and the name of the log.
const KEEPER: &str = r#"
    "$1/pg_ctl" -D . -l "$2" -o "$3" -w -s start >&2 || exit 1
    echo ready
    read -r _
    "$1/pg_ctl" -D . -m "$4" -w -s stop >&2
    if [ -n "$5" ]; then rm -rf "$5"; fi
"#;

/// Starts the keeper. Returns it once the server is ready, and otherwise what it printed.
pub(super) fn start(
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
