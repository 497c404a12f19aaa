//! Writes the history of a run: a thread of its own takes records and appends them to the file.
//!
//! The queue is bounded: if the disk is slower than the load, the load waits and the run tells lower
//! figures, but nothing is left out of the history.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use antecede_check::{Record, history::FinalRecord, jsonl::HistoryWriter};
use anyhow::{Context, anyhow};

/// Parcels of records that may wait for the disk.
const WAITING_MAX: usize = 256;

/// Records that a thread gathers before it hands them over.
pub(crate) const PARCEL: usize = 256;

/// What a load thread hands records to.
pub(crate) type Records = SyncSender<Vec<Record>>;

/// The history file of a run.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    sender: Records,
    writer: JoinHandle<std::io::Result<HistoryWriter<BufWriter<File>>>>,
}

impl Recorder {
    /// Begins the file at `path`; one that is there is written over.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn begin(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write the history to {}", path.display());
        let file = File::create(path).with_context(cannot)?;
        let history = HistoryWriter::begin(BufWriter::new(file)).with_context(cannot)?;
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("history".to_owned());
        let writer = thread.spawn(move || write_all(history, &receiver))?;
        Ok(Self { path: path.to_owned(), sender, writer })
    }

    /// What a load thread hands its records to; the file ends when all of them are dropped.
    pub(crate) fn records(&self) -> Records {
        self.sender.clone()
    }

    /// Waits for everything to be written, then adds the final states.
    ///
    /// # Errors
    /// When the file could not be written.
    pub(crate) fn finish(self, finals: &[FinalRecord]) -> anyhow::Result<()> {
        let cannot = || format!("cannot write the history to {}", self.path.display());
        drop(self.sender);
        let written = self.writer.join().map_err(|_| anyhow!("the history's thread died"))?;
        let mut history = written.with_context(cannot)?;
        for state in finals {
            history.final_state(state).with_context(cannot)?;
        }
        let file = history.finish().with_context(cannot)?;
        file.get_ref().sync_all().with_context(cannot)
    }
}

fn write_all(
    mut history: HistoryWriter<BufWriter<File>>,
    parcels: &Receiver<Vec<Record>>,
) -> std::io::Result<HistoryWriter<BufWriter<File>>> {
    for parcel in parcels {
        for record in &parcel {
            history.operation(record)?;
        }
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use antecede_check::{Kind, jsonl};

    use super::*;

    #[test]
    fn what_threads_recorded_is_read_again_with_the_final_states() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let recorder = Recorder::begin(&path).unwrap();
        std::thread::scope(|scope| {
            for session in 1..=3 {
                let records = recorder.records();
                scope.spawn(move || {
                    let parcel = (0..10).map(|seq| {
                        let value = format!("s{session}-{seq}");
                        Record::new(session, seq, Kind::Write, "k").with_value(Some(&value)).at(
                            0,
                            1,
                            Some(2),
                        )
                    });
                    records.send(parcel.collect()).unwrap();
                });
            }
        });
        let state = FinalRecord {
            dc: 0,
            node: "n".to_owned(),
            key: "k".to_owned(),
            value: Some("s1-9".to_owned()),
            version: None,
        };
        recorder.finish(&[state]).unwrap();
        let history = jsonl::read(BufReader::new(File::open(&path).unwrap())).unwrap();
        assert_eq!(history.operations().len(), 30);
        assert_eq!(history.finals().len(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = Recorder::begin(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/at/all"), "{error:#}");
    }
}
