//! Waits for somebody to ask the process to end: Ctrl-C or SIGTERM.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when the process is asked to end; never, if it cannot be told.
pub(crate) async fn asked() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
