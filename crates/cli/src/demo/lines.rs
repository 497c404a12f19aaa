//! Reads lines: with editing and history from a terminal, plainly from a pipe.
//!
//! A thread of its own reads, because terminals and pipes block. After each line it waits until the
//! line is answered, so that the next prompt stands below the answer.
//!
//! A pipe that ends without a line says nothing: the demo goes on. One that held lines is a script,
//! and its end ends the demo.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::mpsc;

use crate::screen;

/// What the reader brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line.
    Text(String),
    /// There will be no more, and the demo is to end.
    End,
}

/// Lines as they come.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: mpsc::Receiver<Line>,
    answered: SyncSender<()>,
}

impl Lines {
    /// Begins to read standard input.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(crate) fn begin() -> std::io::Result<Self> {
        let (sender, lines) = mpsc::channel(1);
        let (answered, is_answered) = sync_channel(1);
        let thread = std::thread::Builder::new().name("lines".to_owned());
        thread.spawn(move || {
            let is_over = if screen::is_typed_at() {
                edit(&sender, &is_answered)
            } else {
                take(std::io::stdin().lock(), &sender, &is_answered)
            };
            if is_over {
                drop(sender.blocking_send(Line::End)); // Nobody listens after the end.
            }
        })?;
        Ok(Self { lines, answered })
    }

    /// The next line; waits for ever if a pipe ended without any.
    pub(crate) async fn next(&mut self) -> Line {
        match self.lines.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }

    /// Lets the reader ask for the next line.
    pub(crate) fn answered(&self) {
        match self.answered.try_send(()) {
            Ok(()) | Err(_) => {} // The reader may have ended.
        }
    }
}

/// Reads from a terminal; whether the demo is to end.
fn edit(lines: &mpsc::Sender<Line>, answered: &Receiver<()>) -> bool {
    let mut editor = match rustyline::DefaultEditor::new() {
        Ok(editor) => editor,
        Err(error) => {
            screen::note(&format!("cannot edit lines: {error}; reading them plainly"));
            return take(std::io::stdin().lock(), lines, answered);
        }
    };
    // The end of input, Ctrl-C and an error of the terminal all end it.
    while let Ok(line) = editor.readline("antecede> ") {
        if !line.trim().is_empty() {
            drop(editor.add_history_entry(line.as_str())); // A history that is full is no matter.
        }
        if lines.blocking_send(Line::Text(line)).is_err() || answered.recv().is_err() {
            return false;
        }
    }
    true
}

/// Reads plainly; whether the demo is to end.
fn take(source: impl BufRead, lines: &mpsc::Sender<Line>, answered: &Receiver<()>) -> bool {
    let mut has_lines = false;
    for line in source.lines() {
        let Ok(line) = line else { break };
        has_lines = true;
        if lines.blocking_send(Line::Text(line)).is_err() || answered.recv().is_err() {
            return false;
        }
    }
    has_lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &'static str) -> (Vec<Line>, bool) {
        let (sender, mut lines) = mpsc::channel(1);
        let (answered, is_answered) = sync_channel(1);
        let reader = std::thread::spawn(move || take(text.as_bytes(), &sender, &is_answered));
        let mut found = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            found.push(line);
            answered.send(()).unwrap();
        }
        (found, reader.join().unwrap())
    }

    #[test]
    fn a_pipe_with_lines_is_a_script_that_ends() {
        let wanted = ["\\lag", "\\quit"].map(|line| Line::Text(line.to_owned()));
        assert_eq!(all("\\lag\n\\quit\n"), (wanted.to_vec(), true));
    }

    #[test]
    fn a_pipe_without_lines_ends_nothing() {
        assert_eq!(all(""), (Vec::new(), false));
    }
}
