//! What a process asks of its operating system.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::kill,
    },
    unistd::Pid,
};
use tokio::net::TcpListener;

/// Listens on this address. Without one on this port of the loopback address; or on a free one where another process of this
/// machine has that, since it is there for those who look for it and not for those who use the system.
///
/// # Errors
///
/// When the address is in use or not ours, or no port is free.
pub fn listen_for_operators(address: Option<SocketAddr>, port: u16) -> io::Result<TcpListener> {
    let bind = |address: SocketAddr| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match address {
        Some(address) => bind(address),
        None => bind(usual).or_else(|_| bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))),
    }
}

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
