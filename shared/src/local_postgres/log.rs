//! The end of the server's log.

use std::{fs, path::Path};

/// Returns the last errors since the start that ended a process of the server, or the last lines.
///
/// At most three are returned.
pub(super) fn last_words(log: &str) -> String {
    let start = log.rfind("starting PostgreSQL").unwrap_or_default();
    let lines: Vec<&str> = log[start..].lines().collect();
    let ended: Vec<&str> = lines
        .iter()
        .filter_map(|line| {
            let at = line.find("PANIC:  ").or_else(|| line.find("FATAL:  "))?;
            Some(&line[at..])
        })
        // Rejections of clients while the server starts, recovers or stops.
        .filter(|error| !error.contains("the database system is"))
        .collect();
    let words = if ended.is_empty() { lines } else { ended };
    words[words.len().saturating_sub(3)..].join("\n")
}

pub(super) fn last_lines(file: &Path, count: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests;
