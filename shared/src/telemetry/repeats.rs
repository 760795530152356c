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
mod tests {
    use tracing_subscriber::{fmt::format::Format, layer::SubscriberExt};

    use super::*;

    /// Runs `events` with a log of its own, and returns its lines.
    fn logged(events: impl FnOnce(&Repeats)) -> Vec<String> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let repeats = Repeats::default();
        let format = Format::default().without_time().with_target(false);
        let format = WithoutRepeats::new(format, &repeats);
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(format)
            .with_writer(move || Sink(writer.clone()));
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || events(&repeats));
        let written = written.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8(written.clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn fail(times: u64, error: &str) {
        for id in 0..times {
            tracing::warn!(id, error, "request failed");
        }
    }

    #[test]
    fn a_warning_that_comes_20_000_times_is_logged_once_and_then_counted() {
        let lines = logged(|repeats| {
            fail(20_000, "no connection");
            repeats.report();
            repeats.report();
            fail(1, "no connection");
        });
        let in_full = r#"WARN request failed id=0 error="no connection""#;
        let again = r#"WARN again: request failed times=19999 error="no connection""#;
        assert_eq!(lines, [in_full, again, in_full]);
    }

    #[test]
    fn a_warning_that_goes_on_is_counted_on() {
        let lines = logged(|repeats| {
            for _ in 0..3 {
                fail(5, "no connection");
                repeats.report();
            }
        });
        assert_eq!(lines.len(), 4, "{lines:?}");
        for (line, times) in lines[1..].iter().zip([4, 5, 5]) {
            assert!(line.contains(&format!("times={times} ")), "{line}");
        }
    }

    #[test]
    fn another_error_another_message_and_what_is_no_warning_are_logged() {
        let lines = logged(|repeats| {
            fail(2, "no connection");
            fail(2, "disk full");
            for id in 0..2 {
                tracing::warn!(id, error = "no connection", "job failed");
                tracing::info!("job done");
            }
            repeats.report();
        });
        let again: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains("again: "))
            .collect();
        assert_eq!((lines.len(), again.len()), (3 + 2 + 3, 3), "{lines:?}");
    }

    /// Clients are told that the id of their request is in the log.
    #[test]
    fn the_first_hundred_defects_are_logged_with_their_ids() {
        let lines = logged(|repeats| {
            for id in 0..250 {
                tracing::error!(id, error = "a defect", "request failed");
            }
            repeats.report();
        });
        assert_eq!(lines.len(), 101);
        assert!(lines[99].contains("id=99"), "{}", lines[99]);
        assert_eq!(
            lines[100],
            r#"ERROR again: request failed times=150 error="a defect""#
        );
    }

    #[test]
    fn errors_that_all_differ_are_counted_by_the_line_that_logs_them() {
        let lines = logged(|repeats| {
            for number in 0..1_000 {
                fail(1, &format!("no row {number}"));
            }
            repeats.report();
        });
        assert_eq!(lines.len(), KINDS_MAX + 2, "{lines:?}");
        assert!(lines[KINDS_MAX + 1].contains("times=899 "), "{lines:?}");
    }
}
