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
    // The library of the agreement calls every beat to a member that is gone an error; what of that
    // concerns people is told by the server itself.
    let library = if verbose < 2 { LevelFilter::OFF } else { level };
    let asked = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var(LOG_VARIABLE)
        .try_from_env();
    let filter = asked.unwrap_or_else(|_| EnvFilter::new(format!("{level},openraft={library}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
