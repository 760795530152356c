//! What a process asks of its operating system.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows this process as many open files as its hard limit, since each connection is one. Many systems start with
/// 1,024. What can't be had is done without.
pub fn raise_open_files_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
