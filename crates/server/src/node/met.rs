//! Whom this node has met, and whether others have met a run of it that used another data folder.
//!
//! An empty folder looks the same whether its node is new or has lost all. So a node writes down the
//! newest run of every other one before it answers that one's hello, and tells in the answer which
//! run it knew before. A node whose folder is new begins with nothing only when all others have
//! answered, and none of them knew a run from before that folder. Where managers decide who serves
//! they decide this too, and nobody is written down; but a datacenter that had none before begins
//! only when no node of the others has told of such a run.
//!
//! A node that others know begins only with shards that another node of its chain still has whole;
//! once all of its shards have settled, its folder is whole again. That node must have met the lost
//! run itself: one that was named in the settings since has all that it ever had, which is nothing.
//!
//! The file `met` has a line for each node: its bits and the number of its run. The file `new-folder`
//! lies in a folder that is not whole yet, with the number of the first run that used it; the file
//! `superseded` in one that others have met a later run without, or of which they have writes that it
//! lacks (0 then): no run begins with it any more.
//!
//! Limits: nodes without a data folder ask nobody. What was told to a node that lost its own folder
//! since is not known there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use antecede_model::{
    ids::{Boot, NodeId},
    refusal::Refusal,
};
use antecede_protocol::wire::hello::{Hello, Keeps};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use super::open::{StartError, number_in, read_file, write_file};
use super::{Node, Work};
use crate::fatal::{self, Fatal};

/// The newest runs of other nodes.
const MET_FILE: &str = "met";
/// Lies in a folder that is an old copy, with the later run that others have met; 0 if they have
/// writes that it lacks.
const OLD_MARK: &str = "superseded";
/// Lies in a folder that is not whole yet.
const NEW_MARK: &str = "new-folder";

/// The newest run of every other node.
#[derive(Debug)]
pub(crate) struct Met {
    folder: Option<PathBuf>,
    runs: Mutex<BTreeMap<NodeId, Boot>>,
    /// Whether the file is behind; held while it is written.
    is_behind: Mutex<bool>,
}

impl Met {
    /// What a folder says.
    pub(super) fn open(folder: Option<&Path>) -> Result<Self, StartError> {
        let runs = folder.map(read).transpose()?.unwrap_or_default();
        let (folder, is_behind) = (folder.map(Path::to_owned), Mutex::default());
        Ok(Self { folder, runs: Mutex::new(runs), is_behind })
    }

    /// The newest run of a node; 0 if it was never met.
    pub(crate) fn newest(&self, node: NodeId) -> Boot {
        self.runs.lock().get(&node).copied().unwrap_or_default()
    }

    /// A run of a node that is later than what its data folder has, where there was one.
    pub(crate) fn later_run(&self, hello: &Hello) -> Option<Boot> {
        let known = self.newest(hello.node);
        let is_later = hello.continues < known && known != hello.boot;
        (hello.keeps == Keeps::All && is_later).then_some(known)
    }

    /// Writes down whose hello has come, and tells the newest run that was known before. A run with
    /// a new folder is no newer state of a node that was met before.
    ///
    /// # Errors
    /// When it cannot be written; it is known for as long as this run lasts nevertheless, and written
    /// with the next hello.
    pub(crate) fn note(&self, hello: &Hello) -> Result<Boot, StartError> {
        let mut is_behind = self.is_behind.lock();
        let before = self.newest(hello.node);
        let is_news = match hello.keeps {
            Keeps::Nothing => false,
            Keeps::NewFolder => before == Boot::default(),
            Keeps::All => before < hello.boot && before <= hello.continues,
        };
        if is_news {
            self.runs.lock().insert(hello.node, hello.boot);
            *is_behind = true;
        }
        if *is_behind && let Some(folder) = &self.folder {
            let lines: String = self.runs.lock().iter().map(line_of).collect();
            write_file(folder, MET_FILE, &lines)?;
        }
        *is_behind = false;
        Ok(before)
    }
}

fn line_of((node, boot): (&NodeId, &Boot)) -> String {
    format!("{} {boot}\n", node.to_bits())
}

fn read(folder: &Path) -> Result<BTreeMap<NodeId, Boot>, StartError> {
    let path = folder.join(MET_FILE);
    let Some(text) = read_file(&path)? else { return Ok(BTreeMap::new()) };
    let parsed = |line: &str| {
        let (node, boot) = line.split_once(' ')?;
        Some((NodeId::from_bits(node.parse().ok()?), Boot(boot.parse().ok()?)))
    };
    let runs: Option<BTreeMap<_, _>> = text.lines().map(parsed).collect();
    runs.ok_or(StartError::Damaged { path, found: text, wanted: "nodes and their runs" })
}

/// The first run of a folder that is not whole yet; `new`: the number of this run, if it is the
/// first that uses the folder.
pub(super) fn first_run_of(folder: &Path, new: Option<Boot>) -> Result<Option<Boot>, StartError> {
    if let Some(boot) = new {
        write_file(folder, NEW_MARK, &format!("{boot}\n"))?;
        return Ok(Some(boot));
    }
    Ok(number_in(&folder.join(NEW_MARK))?.map(Boot))
}

/// A folder is whole: a later run that finds nothing in it has lost what was there.
pub(super) fn is_whole_now(folder: &Path) {
    let removed = std::fs::remove_file(folder.join(NEW_MARK));
    match removed.and_then(|()| File::open(folder)?.sync_all()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            warn!(%error, "the mark of a new folder cannot be removed: a later run with nothing in it counts as one that lost its data");
        }
    }
}

/// Marks a folder as an old one, so that no later run begins with it, and tells why.
fn supersede(folder: &Path, node: NodeId, known: Boot) -> StartError {
    if let Err(error) = write_file(folder, OLD_MARK, &format!("{known}\n")) {
        warn!(%node, %error, "an old folder cannot be marked as one: a later run finds out again");
    }
    why_old(folder, node, known)
}

fn why_old(folder: &Path, node: NodeId, known: Boot) -> StartError {
    let path = folder.to_owned();
    if known == Boot::default() {
        StartError::SetBack { path, node }
    } else {
        StartError::Superseded { path, node, known }
    }
}

/// Refuses a folder that is an old one.
pub(super) fn check_newest(folder: &Path, node: NodeId) -> Result<(), StartError> {
    match number_in(&folder.join(OLD_MARK))? {
        None => Ok(()),
        Some(known) => Err(why_old(folder, node, Boot(known))),
    }
}

/// A run of this node that used a folder that is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Who knows that run.
    pub(crate) by: NodeId,
    /// Its number.
    pub(crate) run: Boot,
}

/// Why the replicas of a node do not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unbegun {
    /// The folder is new, and these have not answered.
    Waits(Vec<NodeId>),
    /// The folder is new, and not the node's first one.
    Lost(Loss),
}

impl fmt::Display for Unbegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits(missing) => {
                let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
                let names = names.join(", ");
                write!(f, "its data folder is new, and it waits to hear whether {names} know it")
            }
            Self::Lost(Loss { by, run }) => write!(
                f,
                "its data folder is new, but node {by} has met run {run} of it, which had another one"
            ),
        }
    }
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing for those that wait.
    Waits,
    /// All replicas may begin.
    Begins,
    /// Those may begin whose chain has a replica on the node that has answered.
    BeginsWithIt,
    /// A later run has used another folder, and this one has served.
    OldCopy(Boot),
}

/// Whether the replicas of this node may begin with what its folder holds.
#[derive(Debug)]
pub(crate) struct Beginning {
    node: NodeId,
    boot: Boot,
    folder: Option<PathBuf>,
    /// The run before this one.
    last_run: Boot,
    /// The first run of a folder that was not whole when this one began.
    first_run: Boot,
    is_new: AtomicBool,
    /// Whether it was told that what was written here before this run is gone.
    has_told_loss: AtomicBool,
    asking: Mutex<Asking>,
}

/// What the others have said.
#[derive(Debug, Default)]
struct Asking {
    /// Whether replicas wait.
    waits: bool,
    /// Whether managers need not wait.
    is_excused: bool,
    answered: BTreeSet<NodeId>,
    loss: Option<Loss>,
    /// Why nothing waits any more.
    whole: Option<Whole>,
}

/// Why a folder that was new is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    /// It is the node's first one.
    First,
    /// What was in another one is here again, or managers know that it is not.
    Again,
}

/// What is known of a folder when a run begins.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) node: NodeId,
    pub(super) boot: Boot,
    /// `None`: nothing is kept, and nobody asked.
    pub(super) folder: Option<PathBuf>,
    pub(super) last_run: Boot,
    /// The first run of a folder that is not whole yet.
    pub(super) first_run: Option<Boot>,
}

impl Beginning {
    pub(super) fn of(found: Found) -> Self {
        let Found { node, boot, folder, last_run, first_run } = found;
        let (is_new, asking) = (AtomicBool::new(first_run.is_some()), Mutex::default());
        let first_run = first_run.unwrap_or_default();
        let has_told_loss = AtomicBool::new(false);
        Self { node, boot, folder, last_run, first_run, is_new, has_told_loss, asking }
    }

    /// What the node may still have of earlier runs.
    pub(crate) fn keeps(&self) -> Keeps {
        match &self.folder {
            None => Keeps::Nothing,
            Some(_) if self.is_new() => Keeps::NewFolder,
            Some(_) => Keeps::All,
        }
    }

    /// The newest run before this one that used the folder, or this one.
    pub(crate) fn continues(&self) -> Boot {
        self.last_run.max(self.first_run)
    }

    /// Whether the folder was not whole when this run began.
    pub(crate) fn was_new(&self) -> bool {
        self.first_run != Boot::default()
    }

    /// Whether the folder is not whole yet.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    /// The folder is whole: there was no other, or what it held is here or accounted for elsewhere.
    pub(crate) fn end(&self, whole: Whole) {
        if let Some(folder) = &self.folder
            && self.is_new.swap(false, Ordering::AcqRel)
        {
            is_whole_now(folder);
        }
        let mut asking = self.asking.lock();
        (asking.waits, asking.whole) = (false, Some(whole));
    }

    /// Replicas wait from now on for what the others say.
    pub(crate) fn wait(&self) {
        self.asking.lock().waits = true;
    }

    /// Whether replicas wait.
    pub(crate) fn waits(&self) -> bool {
        self.asking.lock().waits
    }

    /// What replicas wait for; `peers`: all others.
    pub(crate) fn unbegun(&self, peers: impl Iterator<Item = NodeId>) -> Option<Unbegun> {
        let asking = self.asking.lock();
        match asking.loss {
            _ if !asking.waits => None,
            Some(loss) => Some(Unbegun::Lost(loss)),
            None => {
                let missing = peers.filter(|peer| !asking.answered.contains(peer));
                Some(Unbegun::Waits(missing.collect()))
            }
        }
    }

    /// Why a datacenter with managers must not begin with this node's empty folder: a node of another
    /// one knows another folder of it, or no node of another one has answered yet; `peers`: all others.
    pub(crate) fn doubt(&self, peers: impl Iterator<Item = NodeId>) -> Option<Unbegun> {
        let asking = self.asking.lock();
        if !self.is_new() {
            return None;
        }
        if let Some(loss) = asking.loss {
            return Some(Unbegun::Lost(loss));
        }
        let heard: BTreeSet<_> = asking.answered.iter().map(|node| node.datacenter).collect();
        let is_unheard = |peer: &NodeId| {
            peer.datacenter != self.node.datacenter && !heard.contains(&peer.datacenter)
        };
        let unheard: Vec<NodeId> = peers.filter(is_unheard).collect();
        (!unheard.is_empty() && !asking.is_excused).then_some(Unbegun::Waits(unheard))
    }

    /// A person has said that the node need not wait for others.
    pub(crate) fn excuse(&self) {
        self.asking.lock().is_excused = true;
    }

    /// Takes what a node has answered that was dialled; `peers`: all others.
    pub(crate) fn hear(&self, hello: &Hello, mut peers: impl Iterator<Item = NodeId>) -> Verdict {
        let known = hello.known;
        let mut asking = self.asking.lock();
        let is_later = self.continues() < known && known != self.boot;
        let is_of_another = known != Boot::default() && known < self.first_run;
        if is_later || is_of_another && asking.whole == Some(Whole::First) {
            return Verdict::OldCopy(known);
        }
        if !self.is_new() {
            return Verdict::Waits;
        }
        if is_of_another {
            asking.loss.get_or_insert(Loss { by: hello.node, run: known });
        }
        asking.answered.insert(hello.node);
        let is_near = hello.node.datacenter == self.node.datacenter;
        if asking.loss.is_none() && peers.all(|peer| asking.answered.contains(&peer)) {
            Verdict::Begins
        } else if is_of_another && hello.keeps == Keeps::All && is_near {
            Verdict::BeginsWithIt
        } else {
            Verdict::Waits
        }
    }
}

impl Node {
    /// What this node may still have of earlier runs, as far as others must vouch for it.
    pub(crate) fn keeps(&self) -> Keeps {
        if self.config.is_managed() { Keeps::Nothing } else { self.beginning.keeps() }
    }

    /// Takes what a node that was dialled has answered to this one's hello.
    pub(crate) fn hear_answer(&self, hello: &Hello) {
        let Some(folder) = self.config.storage.folder.as_deref() else { return };
        let peers = self.links.all();
        let verdict = self.beginning.hear(hello, peers.keys().copied());
        if self.config.is_managed() {
            return; // They decide, once they know what others have said (`doubt`).
        }
        match verdict {
            Verdict::Waits => {}
            Verdict::Begins => {
                info!(node = %self.id, "no other node knows this one: it begins with nothing");
                self.beginning.end(Whole::First);
                self.begin_with(|_| true, &mut Work::begin());
            }
            Verdict::BeginsWithIt => {
                let configuration = self.configuration();
                let here = self.id.datacenter;
                let begins = |shard| configuration.chain(here, shard).contains(&hello.node);
                self.begin_with(begins, &mut Work::begin());
            }
            Verdict::OldCopy(known) => self.end_as_old(folder, hello.node, known),
        }
    }

    fn end_as_old(&self, folder: &Path, peer: NodeId, known: Boot) -> ! {
        let why = supersede(folder, self.id, known);
        error!(node = %self.id, %peer, %why, "this process ends");
        fatal::end(Fatal::OldFolder)
    }

    /// Another datacenter knows of writes that were here and are not: the process ends. Without a
    /// folder nothing is kept over a restart, and it is only told, once.
    pub(crate) fn end_as_set_back(&self, by: NodeId) {
        match self.config.storage.folder.as_deref() {
            Some(folder) => self.end_as_old(folder, by, Boot::default()),
            None if self.beginning.has_told_loss.swap(true, Ordering::AcqRel) => {}
            None => {
                error!(node = %self.id, peer = %by, "this datacenter had writes before it was started anew that are not here: nothing is kept without a data folder");
            }
        }
    }

    /// Ends what began with a new folder, once everything that others of its chains had is here.
    pub(crate) fn look_whether_whole(&self) {
        let is_withheld = |shard| self.replica(shard).is_some_and(|it| it.lock().is_withheld);
        if self.beginning.is_new()
            && !self.config.is_managed()
            && self.unsettled() == 0
            && !self.shards().any(is_withheld)
        {
            self.beginning.end(Whole::Again);
        }
    }

    /// Why replicas of this node do not begin; `None` if none is withheld.
    pub(crate) fn unbegun(&self) -> Option<Unbegun> {
        self.beginning.unbegun(self.links.all().keys().copied())
    }

    /// Why managers must not begin with this node's empty folder.
    pub(crate) fn doubt(&self) -> Option<Unbegun> {
        self.beginning.doubt(self.links.all().keys().copied())
    }

    /// How requests to a replica are refused that does not begin.
    pub(super) fn refusal_of_unbegun(&self) -> Refusal {
        match self.beginning.unbegun(std::iter::empty()) {
            Some(Unbegun::Lost(_)) => Refusal::LostFolder { node: self.id },
            Some(Unbegun::Waits(_)) | None => Refusal::NewFolder { node: self.id },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use antecede_model::{
        clock::Timestamp,
        ids::{DatacenterId, DeploymentId, MembershipEpoch},
    };

    use super::*;

    const fn node(datacenter: u16, number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(datacenter), number }
    }

    fn hello(node: NodeId, boot: u64, keeps: Keeps) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            deployment: DeploymentId::default(),
            node,
            boot: Boot(boot),
            membership: MembershipEpoch(1),
            hlc: Timestamp::ZERO,
            keeps,
            continues: Boot(boot),
            known: Boot(0),
        }
    }

    fn answer(node: NodeId, keeps: Keeps, known: u64) -> Hello {
        Hello { known: Boot(known), ..hello(node, 1, keeps) }
    }

    #[test]
    fn whom_a_node_has_met_is_known_in_later_runs_also_what_the_other_has_lost_since() {
        let folder = tempfile::tempdir().unwrap();
        let met = Met::open(Some(folder.path())).unwrap();
        let (one, two) = (node(1, 1), node(2, 1));
        assert_eq!(met.note(&hello(one, 5, Keeps::NewFolder)).unwrap(), Boot(0));
        assert_eq!(met.note(&hello(one, 6, Keeps::NewFolder)).unwrap(), Boot(5));
        assert_eq!(met.note(&hello(two, 8, Keeps::All)).unwrap(), Boot(0));
        assert_eq!(met.note(&hello(two, 9, Keeps::All)).unwrap(), Boot(8));
        assert_eq!(met.note(&hello(node(3, 1), 9, Keeps::Nothing)).unwrap(), Boot(0));
        let met = Met::open(Some(folder.path())).unwrap();
        let newest = [one, two, node(3, 1)].map(|node| met.newest(node));
        assert_eq!(newest, [Boot(5), Boot(9), Boot(0)]);
        assert_eq!(met.note(&hello(two, 7, Keeps::All)).unwrap(), Boot(9));
        assert_eq!(met.newest(two), Boot(9));
        write_file(folder.path(), MET_FILE, "node two\n").unwrap();
        assert!(matches!(Met::open(Some(folder.path())), Err(StartError::Damaged { .. })));
        let nowhere = Met::open(Some(&folder.path().join("new-folder"))).unwrap();
        fs::write(folder.path().join("new-folder"), "a file").unwrap();
        for _ in 0..2 {
            nowhere.note(&hello(one, 5, Keeps::NewFolder)).unwrap_err();
        }
        fs::remove_file(folder.path().join("new-folder")).unwrap();
        assert_eq!(nowhere.note(&hello(one, 5, Keeps::NewFolder)).unwrap(), Boot(5));
        let written = Met::open(Some(&folder.path().join("new-folder"))).unwrap();
        assert_eq!(written.newest(one), Boot(5), "what could not be written is written later");
        let memory = Met::open(None).unwrap();
        memory.note(&hello(one, 5, Keeps::All)).unwrap();
        assert_eq!(memory.newest(one), Boot(5));
    }

    #[test]
    fn a_folder_is_new_until_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let first_run = |new: Option<u64>| first_run_of(folder.path(), new.map(Boot)).unwrap();
        assert_eq!(first_run(None), None, "one of an earlier build");
        assert_eq!(first_run(Some(3)), Some(Boot(3)));
        assert_eq!(first_run(None), Some(Boot(3)), "a later run finds it as it was");
        is_whole_now(folder.path());
        assert_eq!(first_run(None), None);
        is_whole_now(folder.path());
    }

    #[test]
    fn a_run_on_an_old_copy_is_recognized_and_not_written_down() {
        let met = Met::open(None).unwrap();
        let on = |boot, continues| Hello {
            continues: Boot(continues),
            ..hello(node(1, 1), boot, Keeps::All)
        };
        met.note(&on(9, 8)).unwrap();
        assert_eq!(met.later_run(&on(9, 8)), None, "the same run again");
        assert_eq!(met.later_run(&on(10, 9)), None);
        assert_eq!(met.later_run(&on(10, 5)), Some(Boot(9)));
        assert_eq!(met.note(&on(10, 5)).unwrap(), Boot(9));
        assert_eq!(met.newest(node(1, 1)), Boot(9), "the right folder is recognized still");
        // What was lost is here again, so the first run of the new folder counts.
        assert_eq!(met.later_run(&on(12, 12)), None);
    }

    /// Run 10 of node 1.1, the run before it, and the first run of its folder while that is new.
    fn beginning(last_run: u64, first_run: Option<u64>) -> Beginning {
        let beginning = Beginning::of(Found {
            node: node(1, 1),
            boot: Boot(10),
            folder: Some("nowhere".into()),
            last_run: Boot(last_run),
            first_run: first_run.map(Boot),
        });
        if first_run.is_some() {
            beginning.wait();
        }
        beginning
    }

    const PEERS: [NodeId; 3] = [node(1, 2), node(2, 1), node(3, 1)];

    fn hear(beginning: &Beginning, node: NodeId, keeps: Keeps, known: u64) -> Verdict {
        beginning.hear(&answer(node, keeps, known), PEERS.into_iter())
    }

    #[test]
    fn a_new_node_begins_when_all_others_have_said_that_they_do_not_know_it() {
        let new = beginning(0, Some(10));
        assert_eq!(hear(&new, PEERS[0], Keeps::NewFolder, 0), Verdict::Waits);
        assert_eq!(hear(&new, PEERS[0], Keeps::NewFolder, 10), Verdict::Waits, "asked again");
        assert_eq!(hear(&new, PEERS[1], Keeps::All, 0), Verdict::Waits, "of another datacenter");
        let missing = new.unbegun(PEERS.into_iter());
        assert_eq!(missing, Some(Unbegun::Waits(vec![PEERS[2]])));
        assert_eq!(hear(&new, PEERS[2], Keeps::Nothing, 0), Verdict::Begins);
        // An earlier run with the same folder was known already.
        let again = beginning(9, Some(8));
        assert_eq!(hear(&again, PEERS[0], Keeps::NewFolder, 8), Verdict::Waits);
        assert_eq!(hear(&again, PEERS[1], Keeps::NewFolder, 9), Verdict::Waits);
        assert_eq!(hear(&again, PEERS[2], Keeps::NewFolder, 8), Verdict::Begins);
    }

    #[test]
    fn a_node_that_is_known_begins_only_with_what_others_of_its_chains_have() {
        let lost = beginning(0, Some(10));
        assert_eq!(hear(&lost, PEERS[0], Keeps::All, 0), Verdict::Waits, "lost, or not?");
        assert_eq!(hear(&lost, PEERS[1], Keeps::All, 7), Verdict::Waits);
        let loss = Loss { by: PEERS[1], run: Boot(7) };
        assert_eq!(lost.unbegun(PEERS.into_iter()), Some(Unbegun::Lost(loss)));
        assert_eq!(hear(&lost, PEERS[2], Keeps::All, 0), Verdict::Waits, "it has not met it");
        assert_eq!(hear(&lost, PEERS[0], Keeps::NewFolder, 0), Verdict::Waits, "it has nothing");
        assert_eq!(hear(&lost, PEERS[0], Keeps::All, 0), Verdict::Waits, "it came since");
        assert_eq!(hear(&lost, PEERS[0], Keeps::All, 10), Verdict::Waits, "it met this run only");
        assert_eq!(hear(&lost, PEERS[0], Keeps::All, 7), Verdict::BeginsWithIt);
        assert_eq!(lost.keeps(), Keeps::NewFolder);
        lost.end(Whole::Again);
        assert_eq!((lost.keeps(), lost.unbegun(PEERS.into_iter())), (Keeps::All, None));
        assert_eq!(hear(&lost, PEERS[1], Keeps::All, 7), Verdict::Waits, "it has it again");
        // Nor does a later run take it for new, whatever has become of the first one.
        let again = beginning(9, Some(8));
        assert_eq!(hear(&again, PEERS[1], Keeps::All, 7), Verdict::Waits);
        assert!(matches!(again.unbegun(PEERS.into_iter()), Some(Unbegun::Lost(_))));
    }

    #[test]
    fn managers_begin_with_a_new_folder_when_each_other_datacenter_has_said_that_it_knows_none() {
        let new = beginning(0, Some(10));
        let doubt = |beginning: &Beginning| beginning.doubt(PEERS.into_iter());
        assert_eq!(doubt(&new), Some(Unbegun::Waits(vec![PEERS[1], PEERS[2]])));
        hear(&new, PEERS[1], Keeps::Nothing, 0);
        assert_eq!(doubt(&new), Some(Unbegun::Waits(vec![PEERS[2]])));
        new.excuse();
        assert_eq!(doubt(&new), None, "a person knows");
        hear(&new, PEERS[2], Keeps::Nothing, 7);
        let loss = Loss { by: PEERS[2], run: Boot(7) };
        assert_eq!(doubt(&new), Some(Unbegun::Lost(loss)), "a person was wrong");
        new.end(Whole::Again);
        assert_eq!(doubt(&new), None);
        assert_eq!(doubt(&beginning(9, None)), None);
    }

    #[test]
    fn an_old_copy_is_told_by_whoever_has_met_a_later_run() {
        let usual = beginning(9, None);
        assert_eq!(hear(&usual, PEERS[1], Keeps::All, 9), Verdict::Waits);
        assert_eq!(hear(&usual, PEERS[1], Keeps::All, 10), Verdict::Waits, "this run");
        assert_eq!(hear(&usual, PEERS[1], Keeps::All, 0), Verdict::Waits);
        let copy = beginning(5, None);
        assert_eq!(hear(&copy, PEERS[1], Keeps::All, 9), Verdict::OldCopy(Boot(9)));
        // One that serves because a person has said that it never had another folder.
        let at_once = beginning(0, Some(10));
        at_once.end(Whole::First);
        assert_eq!(hear(&at_once, PEERS[1], Keeps::All, 0), Verdict::Waits);
        assert_eq!(hear(&at_once, PEERS[1], Keeps::All, 7), Verdict::OldCopy(Boot(7)));
    }
}
