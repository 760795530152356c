//! Suppression of repeated warnings: each is logged once, and then how often it was repeated.
//!
//! An outage fails every request for the same reason: 20,000 lines that say the same hide the one
//! that does not.

use std::{
    collections::HashMap,
    fmt::{self, Debug, Write},
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Interval at which repetitions are reported.
///
/// A kind that did not occur for as long is logged in full again.
const INTERVAL: Duration = Duration::from_secs(10);

/// Number of errors of one kind that are logged in full, with the id of their request.
///
/// Clients are told to quote the id.
const ERRORS_IN_FULL: u64 = 100;

/// Maximum number of kinds.
///
/// Beyond it, events are counted by the line of code that logs them, whatever their text.
const KINDS_MAX: usize = 100;

/// Counts of the recent warnings and errors.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<HashMap<Kind, Count>>>);

/// Kind of an event: events of one kind are logged by the same line of code, with the same text.
type Kind = (Identifier, Text);

/// Text of an event, without what differs each time, such as ids and durations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Text {
    message: String,
    /// The field `error`, or `summary`, in which sqlx puts a slow statement.
    details: String,
}

#[derive(Debug)]
struct Count {
    level: Level,
    /// Text of the first event.
    text: Text,
    /// Number of events that may still be logged in full.
    in_full: u64,
    /// Number of events that were neither logged nor reported yet.
    held_back: u64,
    /// Whether an event occurred since the last report.
    is_recent: bool,
}

impl Repeats {
    /// Starts the thread that reports repetitions.
    ///
    /// # Errors
    ///
    /// Fails if the system can't start another thread.
    pub(super) fn start() -> io::Result<Self> {
        let repeats = Self::default();
        let reported = repeats.clone();
        thread::Builder::new()
            .name("log-repeats".to_owned())
            .spawn(move || {
                loop {
                    thread::sleep(INTERVAL);
                    reported.report();
                }
            })?;
        Ok(repeats)
    }

    /// Logs how often each kind was repeated, and forgets the kinds that did not occur.
    pub(super) fn report(&self) {
        let mut repeated = Vec::new();
        self.lock().retain(|_, count| {
            let times = mem::take(&mut count.held_back);
            if times > 0 {
                repeated.push((count.level, count.text.clone(), times));
            }
            mem::take(&mut count.is_recent)
        });
        for (level, Text { message, details }, times) in repeated {
            let error = Some(details).filter(|details| !details.is_empty());
            if level == Level::ERROR {
                tracing::error!(times, error, "again: {message}");
            } else {
                tracing::warn!(times, error, "again: {message}");
            }
        }
    }

    /// Whether to log this event; otherwise it is counted.
    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        let level = *metadata.level();
        if level > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut counts = self.lock();
        let mut kind = (metadata.callsite(), text.clone());
        if counts.len() >= KINDS_MAX && !counts.contains_key(&kind) {
            kind.1 = Text::default();
        }
        let count = counts.entry(kind).or_insert_with(|| Count {
            level,
            text,
            in_full: if level == Level::ERROR {
                ERRORS_IN_FULL
            } else {
                1
            },
            held_back: 0,
            is_recent: true,
        });
        count.is_recent = true;
        let is_admitted = count.in_full > 0;
        if is_admitted {
            count.in_full -= 1;
        } else {
            count.held_back += 1;
        }
        is_admitted
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = match field.name() {
            "message" => &mut self.message,
            "error" | "summary" => &mut self.details,
            _ => return,
        };
        // Writing to a string does not fail.
        let _ = write!(text, "{value:?}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// A log format that leaves out repeated events.
pub(super) struct WithoutRepeats<F> {
    format: F,
    repeats: Repeats,
}

impl<F> WithoutRepeats<F> {
    pub(super) fn new(format: F, repeats: &Repeats) -> Self {
        Self {
            format,
            repeats: repeats.clone(),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithoutRepeats<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.repeats.admits(event) {
            self.format.format_event(context, writer, event)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
