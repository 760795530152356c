//! Processor time of processes, as Linux reports it in `/proc`.

use std::fs;

/// Returns the processor time of a process and its children, in seconds.
///
/// Children that have ended are included.
///
/// It is none if the system does not report it.
pub(crate) fn processor_seconds(id: i32) -> Option<f64> {
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

/// Returns the processor time of this process, in seconds, without its running children.
///
/// It is none if the system does not report it.
pub(crate) fn own_processor_seconds() -> Option<f64> {
    let id = i32::try_from(std::process::id()).ok()?;
    Some(ProcessorTime::of(id)?.with_ended_children / TICKS_PER_SECOND)
}

/// Unit in which Linux reports processor time, on all machines that this program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

struct ProcessorTime {
    parent: i32,
    /// Processor time, in ticks.
    with_ended_children: f64,
}

impl ProcessorTime {
    fn of(id: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // After the name in parentheses: the state, the parent, nine other fields, and four times.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let times = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<f64>());
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            with_ended_children: times.sum::<Result<f64, _>>().ok()?,
        })
    }
}
