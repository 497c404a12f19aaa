//! Ends the process where going on could break a promise: the one place that does.
//!
//! The exit status tells a supervisor what to do: start the node again, or leave it.
//!
//! Ensures: nothing that the process still has in memory is written or sent any more.

/// Why a process must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fatal {
    /// Its disk has failed: what the system says to have written may not be there. The next start
    /// finds out what is.
    Disk,
    /// A newer run of the same node is there; starting this one again would end that one.
    NewerRun,
    /// Its folder is an old one.
    OldFolder,
}

impl Fatal {
    /// The exit status.
    pub(crate) const fn status(self) -> i32 {
        match self {
            Self::Disk => 3,
            Self::NewerRun | Self::OldFolder => 4,
        }
    }
}

/// Ends the process; the reason was logged.
pub(crate) fn end(why: Fatal) -> ! {
    #[expect(
        clippy::disallowed_methods,
        reason = "returning would let other threads go on meanwhile"
    )]
    std::process::exit(why.status())
}
