//! What a process asks of its operating system.

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

/// How many of the connections that are asked for this process can serve. It has other files than these: `other_files`, which are
/// kept for them. And each may take `bytes` of memory at worst, which for all together are to be half of what it may use.
///
/// It says so when these are fewer.
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
            "fewer connections are served than are asked for: the process has not the files or the memory for them"
        );
    }
    asked.min(fit)
}

/// Fewer connections would be of no use.
const MIN_CONNECTIONS: u64 = 16;

/// How many bytes of memory this process's control groups let it use; none where there are none, or they set no limit.
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
        // Each group is within the one above it. In a container, the paths of those outside are not there.
        let inside = Path::new(group.unwrap_or_default()).ancestors();
        let inside = inside.map(|group| group.strip_prefix("/").unwrap_or(group).to_owned());
        inside
            .map(|group| Path::new(root).join(group).join(file))
            .collect()
    });
    let limits =
        limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    // Version 1 writes none as a number that no machine has.
    limits.min().filter(|limit| *limit < 1 << 60)
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
