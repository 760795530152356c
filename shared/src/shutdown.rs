//! When to stop: on Ctrl-C, when an orchestrator says so, or when the terminal is closed.

use std::{future::pending, io};

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{process, telemetry};

/// A token that is cancelled by the first SIGINT (Ctrl-C), SIGTERM or SIGHUP. The process then drains what it has in
/// hand; a second SIGINT or SIGTERM ends it at once. Under `nohup`, SIGHUP is ignored.
///
/// # Errors
///
/// When the handlers can't be installed.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // To handle it is no longer to ignore it.
    let mut hangup = (!process::ignores(Signal::SIGHUP))
        .then(|| signal(SignalKind::hangup()))
        .transpose()?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut is_told = false;
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                // Of a terminal that is closed, it can come twice: from the kernel and from the shell.
                () = next(&mut hangup) => if is_told { continue } else { "SIGHUP" },
            };
            if is_told {
                tracing::warn!("{name} again: stopping at once");
                telemetry::flush();
                std::process::exit(130);
            }
            tracing::info!("{name}: finishing what is in hand");
            stop.cancel();
            is_told = true;
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
