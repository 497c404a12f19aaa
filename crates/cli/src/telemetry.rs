//! Log lines on standard error.
//!
//! `ANTECEDE_LOG` says what is logged, as `RUST_LOG` does elsewhere; without it the command and `-v`
//! do.

use std::io::IsTerminal;

use antecede_server::config::LOG_VARIABLE;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Logs from now on; `usual` unless `-v` was given `verbose` times.
pub(crate) fn begin(usual: LevelFilter, verbose: u8) {
    let level = match verbose {
        0 => usual,
        1 => usual.max(LevelFilter::INFO),
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var(LOG_VARIABLE)
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
