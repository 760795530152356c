//! A writer for the log that never blocks its callers.
//!
//! Lines are copied into a bounded buffer, and a thread writes them out. When nobody reads the log
//! (a collector that hangs, a pipe that is not drained, Ctrl-S), the buffer fills up and further
//! lines are dropped and counted: it costs log lines, not requests. `tracing-appender` is no
//! substitute: it bounds lines instead of bytes, allocates for each line, does not report a loss,
//! and prints to standard output, which may be stuck as well, when its flush times out.

use std::{
    io::{self, Write},
    iter, mem,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use prometheus::{IntCounter, register_int_counter};

/// Size of the buffer in bytes: about 5,000 lines.
///
/// While it is written out, another buffer of this size fills.
const BUFFER_BYTES: usize = 1 << 20;

/// Maximum size in bytes of a write that a pipe takes whole.
///
/// Lines of several processes that share a pipe do not mix then.
const ATOMIC_WRITE_BYTES: usize = 4096;

/// Log lines that this process dropped.
pub static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "ticketing_log_lines_dropped_total",
        "Log lines that this process dropped because nobody read the log, or it could not be written."
    )
    .expect("each name is registered once")
});

/// Handle of a buffer that a thread writes out. A write is taken whole or dropped, and never fails.
#[derive(Debug)]
pub(super) struct LogWriter(Arc<Buffer>);

#[derive(Debug, Default)]
struct Buffer {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Lines that the thread has not taken yet.
    pending: Vec<u8>,
    /// Whether the thread has taken lines that it is still writing.
    is_writing: bool,
    /// Lines dropped since the thread last took some.
    dropped: u64,
}

impl LogWriter {
    /// Starts the thread that writes to `target`.
    ///
    /// The thread calls `report_loss` with the number of lines lost, once lines can be written
    /// again.
    ///
    /// # Errors
    ///
    /// Fails if the system can't start another thread.
    /// When the system has no thread left.
    pub(super) fn start(
        target: impl Write + Send + 'static,
        report_loss: fn(u64),
    ) -> io::Result<Self> {
        let buffer = Arc::new(Buffer::default());
        let writer = Self(buffer.clone());
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || buffer.write_out(target, report_loss))?;
        Ok(writer)
    }

    /// Waits until everything is written, but no longer than `limit`.
    pub(super) fn flush_within(&self, limit: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.pending.is_empty();
        let waited = self
            .0
            .drained
            .wait_timeout_while(self.0.lock(), limit, is_busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.pending.len() + line.len() > BUFFER_BYTES {
            state.dropped += 1;
            DROPPED.inc();
        } else {
            // The thread sleeps only while the buffer is empty, so most lines cost no system call.
            let was_empty = state.pending.is_empty();
            state.pending.extend_from_slice(line);
            drop(state);
            if was_empty {
                self.0.filled.notify_one();
            }
        }
        Ok(line.len())
    }

    /// Does nothing: it must not block either.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, mut target: impl Write, report_loss: fn(u64)) {
        let mut batch = Vec::new();
        let mut lost = 0;
        loop {
            lost += self.take(&mut batch);
            let mut is_written = true;
            for lines in writes(&batch) {
                is_written = target.write_all(lines).is_ok();
                if !is_written {
                    let count = lines.split_inclusive(|byte| *byte == b'\n').count() as u64;
                    lost += count;
                    DROPPED.inc_by(count);
                }
            }
            batch.clear();
            // A report that can't be written either would cause the next one.
            if is_written && lost > 0 {
                report_loss(mem::take(&mut lost));
            }
        }
    }

    /// Waits for lines, moves them to `batch`, and returns how many were dropped after them.
    ///
    /// `batch` must be empty.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        state.is_writing = false;
        if state.pending.is_empty() {
            self.drained.notify_all();
        }
        let mut state = self
            .filled
            .wait_while(state, |state| state.pending.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.pending, batch);
        state.is_writing = true;
        mem::take(&mut state.dropped)
    }
}

/// Splits lines into writes of whole lines, each as long as a pipe takes whole, or one longer line.
fn writes(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_end = |byte: &u8| *byte == b'\n';
    iter::from_fn(move || {
        let fitting = &lines[..lines.len().min(ATOMIC_WRITE_BYTES)];
        let end = fitting
            .iter()
            .rposition(is_end)
            .or_else(|| lines.iter().position(is_end))
            .map_or(lines.len(), |at| at + 1);
        let (write, rest) = lines.split_at(end);
        lines = rest;
        (!write.is_empty()).then_some(write)
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::net::UnixStream,
        sync::{
            atomic::{AtomicU64, Ordering},
            mpsc::{self, Receiver, SyncSender},
        },
        time::Instant,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// Takes a write when the test sends `true`, and fails it when the test sends `false`.
    struct Target {
        may_write: Receiver<bool>,
        written: SyncSender<String>,
    }

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let may_write = self.may_write.recv().unwrap_or(true);
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.written.send(text).unwrap();
            may_write
                .then_some(bytes.len())
                .ok_or_else(|| io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(report_loss: fn(u64)) -> (LogWriter, SyncSender<bool>, Receiver<String>) {
        let (allow, may_write) = mpsc::sync_channel(1000);
        let (written, is_written) = mpsc::sync_channel(1000);
        let target = Target { may_write, written };
        let writer = LogWriter::start(target, report_loss).unwrap();
        (writer, allow, is_written)
    }

    #[test]
    fn a_target_that_blocks_costs_lines_that_are_counted_and_blocks_no_caller() {
        const LINES: u64 = 10_000;
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        let (reader, target) = UnixStream::pair().unwrap();
        let writer = LogWriter::start(target, |lines| {
            REPORTED.fetch_add(lines, Ordering::Relaxed);
        })
        .unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..LINES {
            (&writer).write_all(&line).unwrap();
        }
        assert!(DROPPED.get() > LINES / 2, "10 MB exceed the buffer");
        let began = Instant::now();
        writer.flush_within(Duration::from_millis(50));
        assert!(began.elapsed() < LONG, "a flush has a timeout");
        assert_eq!(REPORTED.load(Ordering::Relaxed), 0);

        let reading = thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map(Result::unwrap);
            lines.take_while(|line| line != "end").count() as u64
        });
        writer.flush_within(LONG);
        let reported = REPORTED.load(Ordering::Relaxed);
        (&writer).write_all(b"end\n").unwrap();
        assert_eq!(reading.join().unwrap() + reported, LINES);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported_once_it_works_again() {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        let (writer, allow, written) = start(|lines| {
            REPORTED.fetch_add(lines, Ordering::Relaxed);
        });
        for line in ["one\n", "two\n"] {
            allow.send(false).unwrap();
            (&writer).write_all(line.as_bytes()).unwrap();
            assert_eq!(written.recv().unwrap(), line);
        }
        allow.send(true).unwrap();
        (&writer).write_all(b"three\n").unwrap();
        assert_eq!(written.recv().unwrap(), "three\n");
        writer.flush_within(LONG);
        assert_eq!(REPORTED.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_was_written_is_there_after_a_flush() {
        let (writer, allow, written) = start(|_| ());
        drop(allow);
        for number in 0..100 {
            writeln!(&writer, "{number}").unwrap();
        }
        writer.flush_within(LONG);
        let text: String = written.try_iter().collect();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn a_write_has_whole_lines() {
        let long = format!("{}\n", "x".repeat(5_000));
        let lines = ["a\n".repeat(3_000), long.clone(), "b\nc".to_owned()].concat();
        let split: Vec<&[u8]> = writes(lines.as_bytes()).collect();
        assert_eq!(split.concat(), lines.as_bytes());
        let lengths: Vec<usize> = split.iter().map(|write| write.len()).collect();
        assert_eq!(lengths, [4096, 1904, long.len(), 2, 1]);
        assert_eq!(writes(b"").count(), 0);
    }
}
