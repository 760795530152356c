//! Logs and traces.

pub mod log_writer;
mod repeats;
pub(crate) mod request;
pub mod traces;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    error::Error,
    io::{self, IsTerminal, Write, stderr},
    iter::successors,
    panic,
    process::ExitCode,
    sync::OnceLock,
    thread,
    time::Duration,
};

use anyhow::Context;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use self::{
    log_writer::LogWriter,
    repeats::{Repeats, WithoutRepeats},
    request::WithRequest,
};

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: one line per event, in colour on a terminal.
    Human,
    /// For machines: one JSON object per event.
    Json,
}

/// Settings for logging.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Format of log lines
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// Log level, or log levels by module, such as `info,sqlx=debug`
    #[arg(
        long,
        env = "RUST_LOG",
        value_name = "FILTER",
        default_value = "info,sqlx=warn,sqlx_postgres::options=error"
    )]
    pub log: String,
}

/// Logs and traces of this process. Dropping it writes and sends what is buffered, within seconds.
#[must_use]
#[derive(Debug)]
pub struct Telemetry(Repeats);

impl Drop for Telemetry {
    fn drop(&mut self) {
        traces::stop();
        self.0.report();
        flush();
    }
}

/// Writer to standard error; none before [`init`].
static LOG: OnceLock<LogWriter> = OnceLock::new();

/// Timeout for writing the last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Starts the log of this process, on standard error, and its [traces]. Call it once.
///
/// The traces are sent under the name `service` to the collector that the environment names.
///
/// No caller ever waits for the log: lines that are not read in time are dropped and
/// [counted](log_writer::DROPPED). A warning that is repeated is logged once, and then counted.
///
/// # Errors
///
/// Fails if the filter is malformed, or traces can't be sent.
pub fn init(args: &LogArgs, service: &'static str) -> anyhow::Result<Telemetry> {
    let filter: Targets = args
        .log
        .parse()
        .with_context(|| format!("{:?} is not a log filter", args.log))?;
    let writer = start_writer()?;
    log_panics();
    let repeats = Repeats::start()?;
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer);
    let lines = match args.log_format {
        LogFormat::Human => {
            let in_colour = stderr().is_terminal();
            lines
                .with_ansi(in_colour)
                .map_event_format(|format| WithRequest {
                    inner: WithoutRepeats::new(format.with_ansi(in_colour), &repeats),
                    format: LogFormat::Human,
                })
                .boxed()
        }
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .map_event_format(|format| WithRequest {
                inner: WithoutRepeats::new(format, &repeats),
                format: LogFormat::Json,
            })
            .boxed(),
    };
    match traces::start(service)? {
        None => tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .try_init()?,
        // The log filter does not apply to traces.
        Some(tracer) => {
            let wanted = Targets::new().with_targets(
                ["api", "shared", "worker"].map(|target| (target, LevelFilter::INFO)),
            );
            let spans = tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_filter(wanted);
            tracing_subscriber::registry()
                .with(lines.with_filter(filter))
                .with(spans)
                .try_init()?;
        }
    }
    Ok(Telemetry(repeats))
}

fn start_writer() -> io::Result<&'static LogWriter> {
    let writer = LogWriter::start(stderr(), |lines| {
        tracing::warn!(lines, "log lines were dropped: nobody read the log in time");
    })?;
    Ok(LOG.get_or_init(|| writer))
}

/// Writes panics to the log.
///
/// By default, a thread that panics waits until standard error takes the message, and every other
/// thread that panics waits for it.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let mut text = format!("thread {name:?} {panic}\n");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text = format!("{text}{backtrace}");
        }
        print(&text);
    }));
}

/// Writes to standard error, and does not wait for it once the log is started.
fn print(text: &str) {
    // A failed write is no reason to fail: nobody may be reading standard error.
    let _ = match LOG.get() {
        Some(mut log) => log.write_all(text.as_bytes()),
        None => stderr().write_all(text.as_bytes()),
    };
}

/// Waits until the log is written, for one second at most. For the end of a process.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush_within(FLUSH_LIMIT);
    }
}

/// Reports the error of a program to standard error, if there is one, and returns the exit code.
///
/// It prints no backtrace, whatever the environment says: these errors are for operators. Defects
/// panic.
#[must_use]
pub fn conclude(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    print(&format!("Error: {}\n", chain(error.as_ref())));
    flush();
    ExitCode::FAILURE
}

/// Formats an error and its causes in one line.
///
/// A cause that the text ends with already is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
