//! Writes down what a run does, for people and for comparing two runs byte for byte.

use std::{fmt, io::Write};

use crate::moment::Moment;

/// Where the lines go.
#[derive(Debug, Default)]
pub enum Trace {
    /// Nowhere; nothing is formatted.
    #[default]
    Off,
    /// Into memory.
    Kept(String),
    /// To the standard output at once, so that they are there when an assertion ends the process.
    Printed,
}

impl Trace {
    /// Adds a line.
    pub fn line(&mut self, at: Moment, line: fmt::Arguments<'_>) {
        match self {
            Self::Off => {}
            Self::Kept(text) => {
                use fmt::Write;
                writeln!(text, "{at} {line}").expect("memory takes text");
            }
            Self::Printed => {
                // A reader that has gone away has read enough.
                drop(writeln!(std::io::stdout(), "{at} {line}"));
            }
        }
    }

    /// Whether lines go anywhere.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Kept(_) | Self::Printed => true,
        }
    }

    /// What was kept.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Kept(text) => text,
            Self::Off | Self::Printed => "",
        }
    }
}
