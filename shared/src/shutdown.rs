//! Shutdown on Ctrl-C, by an orchestrator, or when the terminal is closed.

use std::{future::pending, io};

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{process, telemetry};

/// Returns a token that the first SIGINT (Ctrl-C), SIGTERM or SIGHUP cancels.
///
/// The process then finishes the work in flight. A second SIGINT or SIGTERM ends it at once. Under
/// `nohup`, SIGHUP is ignored.
///
/// # Errors
///
/// Fails if the signal handlers can't be installed.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Under `nohup` SIGHUP is ignored; installing a handler would end that.
    let mut hangup = (!process::ignores(Signal::SIGHUP))
        .then(|| signal(SignalKind::hangup()))
        .transpose()?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut is_reported = false;
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                // When a terminal is closed, SIGHUP can come twice: from the kernel and from the
                // shell.
                () = next(&mut hangup) => if is_reported { continue } else { "SIGHUP" },
            };
            if is_reported {
                tracing::warn!("received {name} during shutdown: exiting at once");
                telemetry::flush();
                std::process::exit(130);
            }
            tracing::info!("received {name}: finishing the work in flight, then exiting");
            stop.cancel();
            is_reported = true;
        }
    });
    Ok(token)
}

async fn next(signals: &mut Option<Signals>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => pending().await,
    }
}
