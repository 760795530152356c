//! What a process asks of its operating system.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
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

/// Whether this process ignores a signal, as under `nohup`; false where the system does not tell.
#[must_use]
pub fn ignores(signal: Signal) -> bool {
    let ignored = || -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    ignored().is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// How much processor time a process and its children have had, those that have ended among them, in seconds; none where the
/// system does not tell.
#[must_use]
pub fn processor_seconds(id: i32) -> Option<f64> {
    let mut ticks = ProcessorTime::of(id)?.with_ended_children;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let child = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(child) = child.and_then(ProcessorTime::of)
            && child.parent == id
        {
            ticks += child.with_ended_children;
        }
    }
    Some(ticks / TICKS_PER_SECOND)
}

/// In which Linux tells processor time, on all machines that this is built for.
const TICKS_PER_SECOND: f64 = 100.0;

struct ProcessorTime {
    parent: i32,
    /// In ticks.
    with_ended_children: f64,
}

impl ProcessorTime {
    fn of(id: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind its name in parentheses: its state, its parent, and nine others before four times.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let times = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<f64>());
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            with_ended_children: times.sum::<Result<f64, _>>().ok()?,
        })
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
