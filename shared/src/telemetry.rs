//! Logs and traces.

pub mod traces;

use std::{
    error::Error,
    io::{IsTerminal, stderr},
    iter::successors,
};

use anyhow::Context;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: one line an event, in colour on a terminal.
    Human,
    /// For machines: one JSON object an event.
    Json,
}

/// The settings of the logs.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// What is logged: a level, or levels by module such as `info,sqlx=debug`
    #[arg(
        long,
        env = "RUST_LOG",
        value_name = "FILTER",
        default_value = "info,sqlx=warn,sqlx_postgres::options=error"
    )]
    pub log: String,
}

/// What is told of this process, until this is dropped: then the last traces are sent.
#[must_use]
#[derive(Debug)]
pub struct Telemetry(());

impl Drop for Telemetry {
    fn drop(&mut self) {
        traces::stop();
    }
}

/// Sends this process's log to standard error, and its [traces], under this name, to where the environment says. Call it
/// once.
///
/// # Errors
///
/// When the filter is malformed, or traces can't be sent.
pub fn init(args: &LogArgs, service: &'static str) -> anyhow::Result<Telemetry> {
    let filter: Targets = args
        .log
        .parse()
        .with_context(|| format!("{:?} is no log filter", args.log))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let lines = match args.log_format {
        LogFormat::Human => lines.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    match traces::start(service)? {
        None => tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .try_init()?,
        // What is logged does not decide what is traced.
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
    Ok(Telemetry(()))
}

/// An error and what caused it, in one line. Some errors tell their cause themselves; it is not told twice.
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
