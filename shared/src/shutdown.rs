//! When to stop: on Ctrl-C, or when an orchestrator says so.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGINT (Ctrl-C) or SIGTERM. The process then drains what it has in
/// hand; a second signal ends it at once.
///
/// # Errors
///
/// When the handlers can't be installed.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        for signals in 1.. {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if signals > 1 {
                tracing::warn!("{name} again: stopping at once");
                std::process::exit(130);
            }
            tracing::info!("{name}: finishing what is in hand");
            stop.cancel();
        }
    });
    Ok(token)
}
