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
