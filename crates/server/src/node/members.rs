//! Keeps which datacenters there are in the data folder, so that a run begins with what the one
//! before it acted by, whatever the settings name.
//!
//! The file `members` is one line: the number of the form, the checksum, and the bytes of a
//! `Membership`, as hexadecimal digits. It is replaced as a whole.
//!
//! Limits: what is agreed on counts more than the file: a node that could not write it learns the
//! members with its datacenter's part, before it may serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use antecede_model::{
    codec::{Reader, Writer},
    membership::Membership,
};

use super::open::{StartError, read_file, write_file};

/// The file in the data folder.
const FILE: &str = "members";
/// The form of the file.
const FORM: &str = "1";

/// What a folder's node acted by; `None` if it has written nothing.
pub(super) fn read(folder: &Path) -> Result<Option<Arc<Membership>>, StartError> {
    let path = folder.join(FILE);
    let Some(text) = read_file(&path)? else { return Ok(None) };
    match parsed(text.trim()) {
        Some(membership) => Ok(Some(Arc::new(membership))),
        None => Err(damaged(path, text)),
    }
}

/// Writes down what the node acts by from now on.
pub(super) fn write(folder: &Path, membership: &Membership) -> Result<(), StartError> {
    write_file(folder, FILE, &format!("{}\n", line_of(membership)))
}

fn damaged(path: PathBuf, found: String) -> StartError {
    StartError::Damaged { path, found, wanted: "the datacenters of the deployment" }
}

fn line_of(membership: &Membership) -> String {
    let mut bytes = Vec::new();
    membership.write(&mut Writer::new(&mut bytes));
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{FORM} {:08x} {digits}", crc32c::crc32c(&bytes))
}

fn parsed(line: &str) -> Option<Membership> {
    let (form, rest) = line.split_once(' ')?;
    let (checksum, digits) = rest.split_once(' ')?;
    if form != FORM || !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32c::crc32c(&bytes) {
        return None;
    }
    let mut reader = Reader::new(&bytes);
    let membership = Membership::read(&mut reader).ok()?;
    reader.finish().ok().map(|()| membership)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use antecede_model::{
        ids::{DatacenterId, MembershipEpoch, NodeId},
        membership::{Gone, Member},
    };

    use super::*;

    fn members() -> Membership {
        let id = DatacenterId(1);
        let nodes = BTreeMap::from([(NodeId { datacenter: id, number: 1 }, "one:1".to_owned())]);
        let mut members = Membership::first([(id, Member::open("one".to_owned(), nodes))]);
        let since = MembershipEpoch(2);
        let gone = Gone { name: "two".to_owned(), was_lost: false, since, successor: None };
        members.gone.insert(DatacenterId(2), gone);
        members.epoch = since;
        members
    }

    #[test]
    fn the_file_is_read_as_it_was_written_and_keeps_its_form() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        write(folder.path(), &members()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(Arc::new(members())));
        let golden =
            "1 f2dc96da 012102010113036f6e650101000100056f6e653a31000000000102070374776f000200";
        assert_eq!(line_of(&members()), golden, "folders hold files of this form");
        let earlier =
            "1 e4df7de3 011f02010112036f6e650101000100056f6e653a310000000102060374776f0002";
        assert_eq!(parsed(earlier), Some(members()), "and of earlier builds");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let line = line_of(&members());
        let cut = line.get(..line.len() - 2).unwrap().to_owned();
        let changed = line.replace("6f6e65", "6f6e66");
        assert_ne!(changed, line);
        for wrong in [cut, changed, line.replacen('1', "2", 1), "members".to_owned()] {
            write_file(folder.path(), FILE, &wrong).unwrap();
            assert!(matches!(read(folder.path()), Err(StartError::Damaged { .. })), "{wrong}");
        }
    }
}
