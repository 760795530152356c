//! Logs.

use std::{
    error::Error,
    io::{IsTerminal, stderr},
    iter::successors,
};

use anyhow::Context;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

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

/// Sends this process's log to standard error. Call it once.
///
/// # Errors
///
/// When the filter is malformed.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    let filter: Targets = args
        .log
        .parse()
        .with_context(|| format!("{:?} is no log filter", args.log))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match args.log_format {
        LogFormat::Human => registry
            .with(lines.with_ansi(stderr().is_terminal()))
            .try_init()?,
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_span_list(false))
            .try_init()?,
    }
    Ok(())
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
