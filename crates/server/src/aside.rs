//! Puts aside what belongs to a datacenter's old number, when it has lapsed and comes back.
//!
//! A datacenter that was let go of comes back under a number of its own (`protocol::manager::
//! membership`). What its nodes have on their disks is of the old one: it goes to
//! `quarantine/NUMBER` in the same folder, in the form of a data folder, so that `antecede unsent`
//! reads it, and the node begins with nothing. The file `successor` tells every later run which
//! numbers its datacenter had: settings may name the first one for ever.
//!
//! The steps, each of which may be the last before a crash: the note in the quarantine that says of
//! which shards this node holds the newest end; the file `successor`, which says that things are
//! being moved; each thing is moved; the file says that all were. A start that finds them being
//! moved goes on where that ended. Nothing is made under the new number before the last step.
//!
//! `successor` and the note are lines of a number of the form, a checksum, and words.
//!
//! Assumes: a folder and its `quarantine` are on one file system.
//! Limits: a node without any folder learns its number from the deployment after each start.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use antecede_model::{
    ids::{DatacenterId, NodeId, ShardId},
    membership::Membership,
};
use serde::Serialize;
use tracing::info;

use crate::config::Config;
use crate::control::{agreement, deployment};
use crate::node::StartError;
use crate::node::open::{read_file, write_file};

/// The file that tells which numbers the datacenter had.
const FILE: &str = "successor";
/// The form of the small files.
const FORM: &str = "1";
/// Where things are put aside.
const QUARANTINE: &str = "quarantine";
/// Tells, in a quarantine, of which shards its node held the newest end.
const NOTE: &str = "newest";
/// Tells, in a quarantine, that what it held was executed again.
const MARK: &str = "replayed";
/// What a data folder holds of a datacenter's number.
const DATA: [&str; 4] = ["log", "checkpoint", "members", "admitted"];
/// What a folder of the agreement holds of it.
const AGREEMENT: [&str; 4] = [agreement::FILE, agreement::MARK, deployment::FILE, deployment::MARK];

/// A node's datacenter has lapsed and is given up: how it comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// The numbers that follow the present one; the last one is free, or this datacenter's.
    pub(crate) next: Vec<DatacenterId>,
    /// Shards of which this node has the newest end of the datacenter's writes.
    pub(crate) newest: Vec<ShardId>,
}

/// What was put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantine {
    /// The number that the datacenter had.
    pub number: u16,
    /// Where it is.
    pub folder: PathBuf,
    /// Shards of which this node has the newest end; none if other nodes have that.
    pub newest: Vec<u16>,
    /// Whether what nobody else had was executed again.
    pub is_replayed: bool,
}

impl Quarantine {
    /// Where is written down what became of each key.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.folder.with_file_name(format!("{}-journal.jsonl", self.number))
    }

    /// Notes that what it held was executed again.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn set_replayed(&self) -> Result<(), StartError> {
        write_file(&self.folder, MARK, &format!("{FORM}\n"))
    }
}

/// The numbers under which a datacenter comes back, one after the other; none if it does not.
pub(crate) fn numbers_after(members: &Membership, id: DatacenterId) -> Vec<DatacenterId> {
    let next = |id: &DatacenterId| members.gone.get(id).and_then(|gone| gone.successor);
    // A number is never used again, so that this has an end.
    std::iter::successors(next(&id), next).collect()
}

/// A node by the number that its datacenter has now: settings name the first one.
pub(crate) fn now_called(members: &Membership, node: NodeId) -> NodeId {
    let now = numbers_after(members, node.datacenter).pop();
    NodeId { datacenter: now.unwrap_or(node.datacenter), ..node }
}

impl Lapse {
    /// Puts aside what the node of these settings has on its disk; gives the settings with which it
    /// comes back. The node must have ended.
    ///
    /// # Errors
    /// When files cannot be moved or written; the next start goes on then.
    pub fn put_aside(&self, config: &Config) -> Result<Config, StartError> {
        let numbers = [config.before.as_slice(), &[config.node.datacenter], &self.next].concat();
        if let Some(folder) = own_folder(config) {
            let aside = folder.join(QUARANTINE).join(config.node.datacenter.to_string());
            if !self.newest.is_empty() {
                let shards = self.newest.iter().map(|shard| u64::from(shard.0));
                write_file(&aside, NOTE, &line_of(&numbers_in_words(shards)))?;
            }
            write_numbers(folder, &numbers, config.node.datacenter, State::Moving)?;
        }
        finish(config, &numbers, config.node.datacenter)
    }
}

/// The settings of a node with the number that its datacenter has now; goes on with what an earlier
/// run has begun.
pub(crate) fn resume(config: Config) -> Result<Config, StartError> {
    let Some(folder) = own_folder(&config) else { return Ok(config) };
    let path = folder.join(FILE);
    let Some(text) = read_file(&path)? else { return Ok(config) };
    let Some((numbers, old, state)) = parsed(&text) else {
        let wanted = "the numbers that the datacenter had";
        return Err(StartError::Damaged { path, found: text, wanted });
    };
    match state {
        State::Moving => finish(&config, &numbers, old),
        State::Moved => Ok(config.returned(&numbers)),
    }
}

/// Whether a node's member of its datacenter's agreement is known to be new: a member of a number
/// before was put aside in its folder, which is whole therefore, and none was made in it since.
pub(crate) fn has_new_member(config: &Config) -> bool {
    let Some(folder) = config.control_folder() else { return false };
    let has_member = |folder: &Path| {
        [agreement::FILE, agreement::MARK].iter().any(|name| folder.join(name).exists())
    };
    let aside = folder.join(QUARANTINE);
    let had_member = |old: &DatacenterId| has_member(&aside.join(old.to_string()));
    config.before.iter().any(had_member) && !has_member(folder)
}

/// What was put aside in the folder of a node.
pub(crate) fn quarantines(config: &Config) -> Vec<Quarantine> {
    let Some(folder) = &config.storage.folder else { return Vec::new() };
    let one = |id: &DatacenterId| {
        let folder = folder.join(QUARANTINE).join(id.to_string());
        let log = folder.join("log");
        // One that cannot be read is for people.
        let note = read_file(&folder.join(NOTE)).ok().flatten();
        let newest = note.and_then(|text| words_in(&text)?.map(|word| word.parse().ok()).collect());
        log.exists().then(|| Quarantine {
            number: id.0,
            newest: newest.unwrap_or_default(),
            is_replayed: folder.join(MARK).exists(),
            folder,
        })
    };
    config.before.iter().filter_map(one).collect()
}

/// Whether everything of the old number was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Moving,
    Moved,
}

/// Moves what is not moved yet, and notes that all is.
fn finish(
    config: &Config,
    numbers: &[DatacenterId],
    old: DatacenterId,
) -> Result<Config, StartError> {
    if let Some(folder) = &config.storage.folder {
        move_all(folder, &DATA, old)?;
    }
    if let Some(folder) = config.control_folder() {
        move_all(folder, &AGREEMENT, old)?;
    }
    if let Some(folder) = own_folder(config) {
        write_numbers(folder, numbers, old, State::Moved)?;
    }
    let next = config.clone().returned(numbers);
    info!(%old, new = %next.node.datacenter, "what belongs to the old number of this datacenter is put aside");
    Ok(next)
}

fn move_all(folder: &Path, names: &[&str], old: DatacenterId) -> Result<(), StartError> {
    let aside = folder.join(QUARANTINE).join(old.to_string());
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| StartError::Io { what, path, source }
    };
    std::fs::create_dir_all(&aside).map_err(failed("make the folder", &aside))?;
    for name in names {
        let (from, to) = (folder.join(name), aside.join(name));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // Moved, or never there.
            moved => moved.map_err(failed("put aside", &from))?,
        }
    }
    for folder in [aside.as_path(), &folder.join(QUARANTINE), folder] {
        let sync = || File::open(folder)?.sync_all();
        sync().map_err(failed("sync the folder", folder))?;
    }
    Ok(())
}

/// Where a node keeps `successor`; `None` if it keeps nothing.
fn own_folder(config: &Config) -> Option<&Path> {
    config.storage.folder.as_deref().or_else(|| config.control_folder())
}

fn numbers_in_words(numbers: impl Iterator<Item = u64>) -> String {
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
}

fn write_numbers(
    folder: &Path,
    numbers: &[DatacenterId],
    old: DatacenterId,
    state: State,
) -> Result<(), StartError> {
    let word = match state {
        State::Moving => "moving",
        State::Moved => "moved",
    };
    let all = numbers_in_words(numbers.iter().map(|id| u64::from(id.0)));
    write_file(folder, FILE, &line_of(&format!("{word} {old} {all}")))
}

fn line_of(words: &str) -> String {
    format!("{FORM} {:08x} {words}\n", crc32c::crc32c(words.as_bytes()))
}

/// The words of a line; `None` if it is damaged.
fn words_in(text: &str) -> Option<impl Iterator<Item = &str>> {
    let (form, rest) = text.trim().split_once(' ')?;
    let (checksum, words) = rest.split_once(' ')?;
    let found = u32::from_str_radix(checksum, 16).ok()?;
    let is_sound = form == FORM && found == crc32c::crc32c(words.as_bytes());
    is_sound.then(|| words.split(' '))
}

fn parsed(text: &str) -> Option<(Vec<DatacenterId>, DatacenterId, State)> {
    let mut words = words_in(text)?;
    let state = match words.next()? {
        "moving" => State::Moving,
        "moved" => State::Moved,
        _ => return None,
    };
    let id = |word: &str| word.parse().ok().map(DatacenterId);
    let old = id(words.next()?)?;
    let numbers: Vec<DatacenterId> = words.map(id).collect::<Option<_>>()?;
    numbers.contains(&old).then_some((numbers, old, state))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use antecede_model::{
        ids::MembershipEpoch,
        membership::{Gone, Member},
    };

    use super::*;
    use crate::config::Layers;

    const SETTINGS: &str = "\
[deployment]
id = \"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"

[[datacenter]]
id = 1
name = \"eu\"
node = [{ number = 1, client = \"127.0.0.1:1\", peer = \"127.0.0.1:2\", control = \"127.0.0.1:3\" }]

[[datacenter]]
id = 3
name = \"ap\"
node = [{ number = 1, client = \"127.0.0.1:4\", peer = \"127.0.0.1:5\", control = \"127.0.0.1:6\" }]

[node]
datacenter = \"ap\"
number = 1

[control]
store = \"embedded\"
";

    fn dc(id: u16) -> DatacenterId {
        DatacenterId(id)
    }

    fn config(data: &Path, control: &Path) -> Config {
        let path = |path: &Path| path.display().to_string();
        let flags = vec![
            ("storage.folder".to_owned(), path(data)),
            ("control.folder".to_owned(), path(control)),
        ];
        let file = Some(("node.toml".into(), SETTINGS.to_owned()));
        Config::load(&Layers { file, flags, ..Layers::default() }).unwrap()
    }

    /// Fills folders as a node leaves them.
    fn fill(config: &Config) {
        let (data, control) = (config.storage.folder.clone().unwrap(), config.control_folder());
        for folder in ["log", "checkpoint"] {
            std::fs::create_dir_all(data.join(folder)).unwrap();
            std::fs::write(data.join(folder).join("file"), folder).unwrap();
        }
        for name in ["members", "admitted", "boot"] {
            std::fs::write(data.join(name), name).unwrap();
        }
        std::fs::create_dir_all(control.unwrap()).unwrap();
        for name in AGREEMENT {
            std::fs::write(control.unwrap().join(name), name).unwrap();
        }
    }

    /// All files under a folder, with what they hold, but those that only tell how far it is.
    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(
                        path.strip_prefix(folder).unwrap().to_owned(),
                        std::fs::read(&path).unwrap(),
                    );
                }
            }
        }
        found
    }

    fn lapse(next: &[u16]) -> Lapse {
        let next = next.iter().map(|id| dc(*id)).collect();
        Lapse { next, newest: vec![ShardId(0), ShardId(7)] }
    }

    #[test]
    fn all_of_the_old_number_is_put_aside_and_every_later_start_has_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("data"), &folder.path().join("control"));
        assert_eq!(resume(config.clone()).unwrap(), config, "nothing was put aside");
        fill(&config);
        let next = lapse(&[4]).put_aside(&config).unwrap();
        assert_eq!((next.node.datacenter, next.before.as_slice()), (dc(4), &[dc(3)][..]));
        assert!(next.is_added() && next.datacenter_name(dc(4)) == "ap");
        assert_eq!(
            next.deployment_members().keys().map(|id| id.datacenter).collect::<Vec<_>>(),
            [dc(1)]
        );
        assert_eq!(resume(config.clone()).unwrap(), next);
        assert_eq!(resume(next.clone()).unwrap(), next, "also where settings name the new one");
        let names: Vec<String> =
            files(folder.path()).keys().map(|path| path.display().to_string()).collect();
        let wanted = [
            "control/quarantine/3/agreement",
            "control/quarantine/3/deployment-agreement",
            "control/quarantine/3/deployment-member",
            "control/quarantine/3/member",
            "data/boot",
            "data/quarantine/3/admitted",
            "data/quarantine/3/checkpoint/file",
            "data/quarantine/3/log/file",
            "data/quarantine/3/members",
            "data/quarantine/3/newest",
            "data/successor",
        ];
        assert_eq!(names, wanted);
        let found = quarantines(&next);
        assert_eq!(
            (found[0].number, &found[0].newest, found[0].is_replayed),
            (3, &vec![0, 7], false)
        );
        found[0].set_replayed().unwrap();
        assert!(quarantines(&next)[0].is_replayed);
        // It lapses again, and again before it has heard of that.
        fill(&next);
        let last = lapse(&[6, 9]).put_aside(&next).unwrap();
        assert_eq!(
            (last.node.datacenter, last.before.as_slice()),
            (dc(9), &[dc(3), dc(4), dc(6)][..])
        );
        assert_eq!(resume(config).unwrap(), last);
        let numbers: Vec<u16> = quarantines(&last).iter().map(|found| found.number).collect();
        assert_eq!(numbers, [3, 4]);
    }

    #[test]
    fn a_member_is_new_only_in_a_folder_in_which_an_earlier_one_was_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("data"), &folder.path().join("control"));
        assert!(!has_new_member(&config), "an empty folder may be a lost one");
        let lost = lapse(&[4]).put_aside(&config).unwrap();
        assert!(!has_new_member(&lost), "so may one in which nothing was put aside");
        fill(&lost);
        assert!(!has_new_member(&lost));
        let next = lapse(&[6, 9]).put_aside(&lost).unwrap();
        assert!(has_new_member(&next));
        for name in [agreement::FILE, agreement::MARK] {
            let file = folder.path().join("control").join(name);
            std::fs::write(&file, name).unwrap();
            assert!(!has_new_member(&next), "{name}");
            std::fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn a_crash_between_any_two_steps_leaves_what_the_next_start_finishes() {
        let wanted = {
            let folder = tempfile::tempdir().unwrap();
            let config = config(&folder.path().join("data"), &folder.path().join("control"));
            fill(&config);
            lapse(&[4]).put_aside(&config).unwrap();
            files(folder.path())
        };
        // As many things as are moved, each in turn is the last before the crash.
        for moved in 0..=DATA.len() + AGREEMENT.len() {
            let folder = tempfile::tempdir().unwrap();
            let (data, control) = (folder.path().join("data"), folder.path().join("control"));
            let config = config(&data, &control);
            fill(&config);
            write_file(&data.join("quarantine/3"), NOTE, &line_of("0 7")).unwrap();
            assert_eq!(resume(config.clone()).unwrap(), config, "it has not begun");
            write_numbers(&data, &[dc(3), dc(4)], dc(3), State::Moving).unwrap();
            let all = DATA.map(|name| (&data, name)).into_iter();
            let all = all.chain(AGREEMENT.map(|name| (&control, name)));
            for (folder, name) in all.take(moved) {
                std::fs::create_dir_all(folder.join("quarantine/3")).unwrap();
                std::fs::rename(folder.join(name), folder.join("quarantine/3").join(name)).unwrap();
            }
            let next = resume(config).unwrap();
            assert_eq!(next.node.datacenter, dc(4), "after {moved} moves");
            assert_eq!(files(folder.path()), wanted, "after {moved} moves");
        }
    }

    #[test]
    fn what_was_made_since_is_not_put_aside_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("data"), &folder.path().join("control"));
        fill(&config);
        let next = lapse(&[4]).put_aside(&config).unwrap();
        fill(&next);
        let before = files(folder.path());
        assert_eq!(resume(config).unwrap(), next);
        assert_eq!(files(folder.path()), before);
    }

    #[test]
    fn a_damaged_file_is_refused_and_its_form_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), folder.path());
        let line = line_of("moved 3 3 4");
        assert_eq!(line, "1 8cd87c26 moved 3 3 4\n", "folders hold files of this form");
        assert_eq!(parsed(&line), Some((vec![dc(3), dc(4)], dc(3), State::Moved)));
        let changed = line.replace('4', "5");
        for wrong in [changed, line_of("moved 5 3 4"), line_of("gone 3 3 4"), "4".to_owned()] {
            write_file(folder.path(), FILE, &wrong).unwrap();
            let refused = resume(config.clone());
            assert!(matches!(refused, Err(StartError::Damaged { .. })), "{wrong}");
        }
    }

    #[test]
    fn numbers_follow_each_other_as_long_as_their_bearers_have_lapsed() {
        let gone = |successor: Option<u16>| Gone {
            name: "ap".to_owned(),
            was_lost: true,
            since: MembershipEpoch(2),
            successor: successor.map(DatacenterId),
        };
        let mut members =
            Membership::first([(dc(1), Member::open("eu".to_owned(), BTreeMap::new()))]);
        assert_eq!(numbers_after(&members, dc(3)), []);
        members.gone.insert(dc(3), gone(Some(4)));
        assert_eq!(numbers_after(&members, dc(3)), [dc(4)]);
        members.gone.insert(dc(4), gone(Some(7)));
        assert_eq!(numbers_after(&members, dc(3)), [dc(4), dc(7)]);
        let node = |id: u16| NodeId { datacenter: dc(id), number: 2 };
        assert_eq!(now_called(&members, node(3)), node(7));
        assert_eq!(now_called(&members, node(1)), node(1));
        members.gone.insert(dc(7), gone(None));
        assert_eq!(numbers_after(&members, dc(7)), []);
    }
}
