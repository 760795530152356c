//! Operating system functions for a process: listening, limits, signals and processor time.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tokio::net::TcpListener;

/// Listens on an address for operators; by default on this port of the loopback address.
///
/// If another process of this machine has that port, it listens on a free one: the listener is for
/// operators, who look for its address, and not for users of the system.
///
/// # Errors
///
/// Fails if the address is in use or not local, or if no port is free.
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

/// Raises the limit of open files to the hard limit, because each connection is an open file.
///
/// Many systems start with 1,024. If the limit can't be raised, the process goes on without.
pub fn raise_open_files_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// Does without huge pages, where the system has them.
///
/// Otherwise the whole buffer of a connection takes memory, and not only the part of it that was
/// used: with 10,000 idle connections a third of all.
pub fn disable_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "cannot disable huge pages");
    }
}

/// Returns how many of the `asked` connections this process can serve.
///
/// It has other open files than these: `other_files`, which are reserved. Each connection may take
/// `bytes` of memory at worst, and all together may take half of the memory that the process may
/// use. Logs a warning if the process can serve fewer than `asked`.
#[must_use]
pub fn connections_that_fit(asked: usize, other_files: usize, bytes: u64) -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let by_files = files
        .saturating_sub(other_files as u64)
        .max(MIN_CONNECTIONS);
    let memory = memory_limit();
    let by_memory = memory.map_or(u64::MAX, |limit| (limit / 2 / bytes).max(MIN_CONNECTIONS));
    let fit = usize::try_from(by_files.min(by_memory)).unwrap_or(usize::MAX);
    if fit < asked {
        tracing::warn!(
            asked,
            served = fit,
            open_files = files,
            memory,
            "fewer connections are served than configured: the process lacks the open files or the \
             memory for them"
        );
    }
    asked.min(fit)
}

/// Minimum number of connections. Fewer would be of no use.
const MIN_CONNECTIONS: u64 = 16;

/// Returns the memory limit of this process's control groups, in bytes; none if there is none.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next(), fields.next());
        let (root, file) = match controllers {
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some(names) if names.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // Each group is within the one above it. In a container, the paths of outer groups do not
        // exist.
        let inside = Path::new(group.unwrap_or_default()).ancestors();
        let inside = inside.map(|group| group.strip_prefix("/").unwrap_or(group).to_owned());
        inside
            .map(|group| Path::new(root).join(group).join(file))
            .collect()
    });
    let limits =
        limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    // Version 1 writes no limit as a number that exceeds any machine's memory.
    limits.min().filter(|limit| *limit < 1 << 60)
}

/// Whether this process ignores a signal, as under `nohup`; false if the system does not report it.
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

/// Whether the process with this id is running.
///
/// A zombie, which has ended and was not noticed by its parent, is not.
#[must_use]
pub fn is_running(id: i32) -> bool {
    // The state comes after the name in parentheses.
    let is_zombie = fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('Z')))
        .unwrap_or(false);
    kill(Pid::from_raw(id), None).is_ok() && !is_zombie
}
