//! Being interrupted in order: what a command has started (a browser and its profile) ends with it.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// What a shell says of a program that Ctrl-C has ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// Works until the end, or until Ctrl-C or SIGTERM: then the work is dropped, with what it holds, and there is nothing to return.
///
/// # Errors
/// Those of the work; and when signals cannot be received.
pub(crate) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<Option<T>, Failure> {
    let no_signals = |error| Failure::new(format!("signals cannot be received: {error}"), "");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    tokio::select! {
        biased;
        // Dropping the work ends its browsers and removes what they have written.
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        done = work => done.map(Some),
    }
}
