//! What a process asks of its operating system.

use std::fs;

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::kill,
    },
    unistd::Pid,
};

/// Allows this process as many open files as its hard limit, since each connection is one. Many systems start with
/// 1,024. What can't be had is done without.
pub fn raise_open_files_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// Whether the process with this id runs. One that has ended and whose parent did not notice does not.
#[must_use]
pub fn is_running(id: i32) -> bool {
    // Its state comes after its name in parentheses.
    let is_zombie = fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('Z')))
        .unwrap_or(false);
    kill(Pid::from_raw(id), None).is_ok() && !is_zombie
}
