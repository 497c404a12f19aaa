//! This node's part in the agreement on which datacenters there are, while its manager leads.
//!
//! A look: the members as the deployment has agreed on them, then what holds in this datacenter and
//! what was heard of its nodes. From these follow, one at a look: the first members are written;
//! newer ones are copied into the datacenter's part, which its nodes take over; once all of them
//! have, the deployment is told, and once this datacenter has done what is asked of it, that too;
//! then whatever follows (`antecede_protocol::manager::membership`).
//!
//! It goes its own way, beside leases and the datacenter's decisions: while the deployment's
//! agreement cannot be reached, nothing here changes.
//!
//! The first node of each datacenter is a member of that agreement, with a file of its own beside
//! that of the datacenter's, and answers at the same address.
//!
//! Invariant: a datacenter acknowledges an epoch only when every node of it that may answer acts by
//! it: nodes that are absent have no right to serve until they have taken its part over.
//! Limits: of more than five datacenters only five have a member.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use antecede_control::{
    ConfigurationStore, StoreError, StoreKey,
    embedded::{EmbeddedStore, GroupId, Member, MembershipError, Port, StoreOptions, Timing, Way},
    store::Revision,
};
use antecede_model::{
    codec::{Reader, Writer},
    configuration::{Configuration, Datacenter},
    ids::{DatacenterId, Epoch, MembershipEpoch, NodeId},
    membership::{Membership, Standing},
};
use antecede_protocol::manager::{
    Facts,
    membership::{Said, Wish, acknowledged, next_membership, wished, with_members, with_word_of},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info, warn};

use super::{agreement::Agreement, decoded, encoded, manage::facts_of, member::Place};
use crate::aside::now_called;
use crate::config::members::{DeploymentStore, WITNESS};
use crate::config::{Config, NodeAddresses};
use crate::fatal::{self, Fatal};
use crate::node::{Node, StartError};

/// How long a request may take, all attempts together: members are far apart.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long one member may take to answer.
pub(super) const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// How long other members may take to say whether they have begun.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How often a manager looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often while something changes.
const CHANGING_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked who votes.
pub(super) const VOTERS_EVERY: Duration = Duration::from_secs(5);
/// Between datacenters: nobody is taken for gone because of one slow round there and back, and few
/// rounds are made while nothing happens.
pub(super) const TIMING: Timing = Timing {
    heartbeat: Duration::from_secs(1),
    silence_min: Duration::from_secs(3),
    silence_max: Duration::from_secs(5),
    learn_limit: Duration::from_secs(30),
};
/// The file of a member.
pub(crate) const FILE: &str = "deployment-agreement";
/// Tells that a folder has held one.
pub(crate) const MARK: &str = "deployment-member";
/// The epoch of the members with which a deployment begins.
const FIRST: MembershipEpoch = MembershipEpoch(1);
/// Where the members of the deployment are kept.
const KEY: &str = "members";

/// A node's part in the agreement of the deployment.
#[derive(Debug)]
pub(crate) struct Deployment {
    store: Arc<dyn ConfigurationStore>,
    key: StoreKey,
    /// The same, where it is embedded.
    embedded: Option<EmbeddedStore>,
    group: GroupId,
    /// Where this node's member listens, if it has one.
    port: Option<Port>,
    /// Whether an empty member begins without hearing from other founders.
    at_once: bool,
    member: tokio::sync::Mutex<Option<Member>>,
}

/// The members as they were read.
struct Agreed {
    revision: Revision,
    members: Membership,
}

impl Deployment {
    /// A node's way to it; `None` where nobody agrees. `port` is where its member may listen.
    pub(super) fn of(
        node: &Node,
        port: Option<Port>,
        at_once: bool,
    ) -> Result<Option<Self>, StartError> {
        let group = GroupId { deployment: node.configuration().deployment, datacenter: None };
        let key = StoreKey::new(KEY).expect("the key is short");
        let (store, embedded): (Arc<dyn ConfigurationStore>, _) =
            match node.config.deployment_store() {
                Err(_) => return Ok(None),
                Ok(DeploymentStore::Embedded) => {
                    let store = EmbeddedStore::new(options_of(node, group, REQUEST_LIMIT));
                    (Arc::new(store.clone()), Some(store))
                }
                #[cfg(feature = "etcd")]
                Ok(DeploymentStore::Etcd(config)) => {
                    (super::etcd::of_deployment(node, group, config)?, None)
                }
                #[cfg(not(feature = "etcd"))]
                Ok(DeploymentStore::Etcd(_)) => unreachable!("such settings were refused"),
            };
        let is_member = embedded.is_some() && node.config.deployment_address().is_some();
        let port = port.filter(|_| is_member);
        let member = tokio::sync::Mutex::default();
        Ok(Some(Self { store, key, embedded, group, port, at_once, member }))
    }

    /// Takes part until the task is ended.
    pub(super) async fn live(&self, node: &Arc<Node>, agreement: &Agreement) -> Infallible {
        tokio::join!(self.manage(node, agreement), self.vote(node));
        std::future::pending().await
    }

    /// The members as they are agreed on now; `None` if nobody has begun.
    pub(crate) async fn read(&self) -> Result<Option<Membership>, StoreError> {
        Ok(self.agreed().await?.map(|agreed| agreed.members))
    }

    /// Lets others follow the members that hold now; `None` if nobody has begun.
    pub(crate) async fn replace<E>(
        &self,
        decide: impl FnOnce(&Membership) -> Result<Membership, E>,
    ) -> Result<Option<Result<Membership, E>>, StoreError> {
        let Some(agreed) = self.agreed().await? else { return Ok(None) };
        let decided = decide(&agreed.members);
        if let Ok(next) = &decided {
            self.swap(Some(agreed.revision), next).await?;
        }
        Ok(Some(decided))
    }

    /// Whether those who vote have no majority without a datacenter.
    pub(super) async fn needs(&self, id: DatacenterId) -> Result<bool, MembershipError> {
        let Some(store) = &self.embedded else { return Ok(false) };
        let voters = store.members().await?;
        let voters = voters.iter().filter(|(_, known)| known.votes);
        let (own, others): (Vec<_>, Vec<_>) = voters.partition(|(node, _)| node.datacenter == id);
        Ok(!own.is_empty() && others.len() <= own.len())
    }

    /// Stops the member, if there is one.
    pub(super) async fn stop(&self) {
        if let Some(member) = self.member.lock().await.take() {
            member.stop().await;
        }
    }

    async fn agreed(&self) -> Result<Option<Agreed>, StoreError> {
        let Some(stored) = self.store.read(&self.key).await? else { return Ok(None) };
        let mut reader = Reader::new(&stored.value);
        let members = Membership::read(&mut reader).and_then(|read| reader.finish().map(|()| read));
        match members {
            Ok(members) => Ok(Some(Agreed { revision: stored.revision, members })),
            Err(error) => {
                error!(%error, "the deployment's agreement holds members that this build cannot read");
                Ok(None)
            }
        }
    }

    async fn swap(
        &self,
        expected: Option<Revision>,
        members: &Membership,
    ) -> Result<Revision, StoreError> {
        let mut bytes = Vec::new();
        members.write(&mut Writer::new(&mut bytes));
        self.store.compare_and_swap(&self.key, expected, bytes.into()).await
    }

    /// Looks while this node decides for its datacenter.
    async fn manage(&self, node: &Arc<Node>, agreement: &Agreement) {
        while !node.is_stopping() {
            let mut pause = LOOK_EVERY;
            if agreement.leads() {
                match Box::pin(self.look(node, agreement)).await {
                    Ok(true) => pause = CHANGING_EVERY,
                    Ok(false) => {}
                    // Somebody else was first: the next look sees what they did.
                    Err(StoreError::Conflict { .. }) => pause = CHANGING_EVERY,
                    Err(why) => node.control.on_deployment_silence(node, &why),
                }
            } else {
                node.control.forget_deployment();
            }
            sleep(pause).await;
        }
    }

    /// Looks once, and does what is next; tells whether more may follow soon.
    async fn look(&self, node: &Arc<Node>, agreement: &Agreement) -> Result<bool, StoreError> {
        let here = node.id.datacenter;
        let Some(Agreed { revision, members }) = self.agreed().await? else {
            return self.begin(node).await;
        };
        let members = Arc::new(members);
        node.control.on_members(node, &members);
        if members.standing(here).is_none() && !members.is_gone(here) && node.config.comes_back() {
            return self.come_back(node, revision, &members).await;
        }
        let Some(stored) = agreement.store.read(&agreement.key).await? else { return Ok(true) };
        let Some(part) = decoded(node, &stored.value) else { return Ok(false) };
        if members.standing(here).is_none() && !members.is_gone(here) {
            let name = node.name_of(here);
            node.control.on_waiting(node, Some(format!(
                "datacenter {name} ({here}) is no member of the deployment: if it shall be added, \
                 empty its folders and say added = true in its settings, then run antecede topology \
                 plan add against a node of another datacenter"
            )));
            return Ok(false);
        }
        let is_changing = members.changing().is_some();
        if let Some(next) = part_with(&part, &members) {
            let swapped = agreement.store.compare_and_swap(
                &agreement.key,
                Some(stored.revision),
                encoded(&next),
            );
            swapped.await?;
            let (epoch, version) = (next.epoch, members.epoch);
            info!(node = %node.id, %epoch, %version, "the members of the deployment go to the nodes of this datacenter");
            return Ok(true);
        }
        let facts = facts_of(&part, &agreement.store.beats().await?);
        node.control.on_laggards(laggards(&part, &members, &facts));
        let said = said_of(&part, &members, &facts, node.has_done(members.epoch));
        if let Some(next) = said.and_then(|said| with_word_of(&members, here, said)) {
            self.swap(Some(revision), &next).await?;
            node.control.on_members(node, &Arc::new(next));
            info!(node = %node.id, version = %members.epoch, ?said, "this datacenter has told the deployment how far it is");
            return Ok(is_changing);
        }
        if let Some((next, step)) = next_membership(&members) {
            self.swap(Some(revision), &next).await?;
            info!(node = %node.id, version = %next.epoch, "decided for the deployment: {step}");
            return Ok(true);
        }
        Ok(is_changing)
    }

    /// Asks to be taken in again, under the number that was kept for this datacenter.
    async fn come_back(
        &self,
        node: &Node,
        revision: Revision,
        members: &Membership,
    ) -> Result<bool, StoreError> {
        match wished(members, &wish_to_come_back(&node.config, members)) {
            Ok(next) => {
                self.swap(Some(revision), &next).await?;
                info!(node = %node.id, version = %next.epoch, "this datacenter asks to be taken in again");
            }
            Err(why) => {
                let name = node.name_of(node.id.datacenter);
                let id = node.id.datacenter;
                let why = format!("datacenter {name} is to come back as {id}, and waits: {why}");
                node.control.on_waiting(node, Some(why));
            }
        }
        Ok(true)
    }

    /// Writes the first members, unless this datacenter came later.
    async fn begin(&self, node: &Node) -> Result<bool, StoreError> {
        if node.config.is_added() {
            node.control.on_no_members();
            return Ok(false);
        }
        let first = node.config.first_members();
        self.swap(None, &first).await?;
        info!(node = %node.id, datacenters = first.members.len(), "the first members of the deployment are written");
        Ok(true)
    }

    /// Opens this node's member, if it has one, and keeps it one of those who vote.
    async fn vote(&self, node: &Node) {
        let (Some(store), Some(port)) = (&self.embedded, &self.port) else { return };
        let Some(folder) = node.config.control_folder() else { return };
        let opened = self.open_member(node, port.clone(), folder).await;
        let failed = match opened {
            Ok(failed) => failed,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                error!(node = %node.id, %error, cause, "this node takes no part in the deployment's agreement");
                return;
            }
        };
        tokio::select! {
            () = failed => {}
            never = self.keep_voters(node, store) => match never {},
        }
    }

    /// Opens the member; what it gives ends when the member has failed, by ending the process.
    async fn open_member(
        &self,
        node: &Node,
        port: Port,
        folder: &Path,
    ) -> Result<impl Future<Output = ()> + use<>, StartError> {
        let founders = node.config.deployment_members();
        // One that has acted by members that the deployment agreed on did not found it just now.
        let may_found =
            node.configuration().membership.epoch <= FIRST && founders.contains_key(&node.id);
        let place = Place {
            group: self.group,
            node: node.id,
            folder: folder.to_owned(),
            file: FILE,
            mark: MARK,
            way: match (may_found, self.at_once) {
                (true, true) => Way::FoundsAtOnce,
                (true, false) => Way::Founds,
                (false, _) => Way::Joins,
            },
            founders,
            contacts: contacts(&node.config, &node.configuration().membership),
            port,
            request_limit: LOOK_LIMIT,
            attempt_limit: ATTEMPT_LIMIT,
            timing: TIMING,
        };
        let member = place.open(|waits| node.control.on_deployment_founding(waits)).await?;
        info!(node = %node.id, "a member of the deployment's agreement");
        let (id, failed) = (node.id, member.watch_failure());
        *self.member.lock().await = Some(member);
        Ok(async move {
            let why = failed.await;
            error!(node = %id, why, "the deployment's agreement has failed on this node: this process ends; see to the disk, then start the node again");
            fatal::end(Fatal::Disk);
        })
    }

    /// Makes this node's member one of those who vote while its datacenter serves, and takes the
    /// members of datacenters that are gone out.
    async fn keep_voters(&self, node: &Node, store: &EmbeddedStore) -> Infallible {
        let mut rounds = interval(VOTERS_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !node.is_stopping() {
            rounds.tick().await;
            let Ok(Some(members)) = self.read().await else { continue };
            let Ok(voters) = store.members().await else { continue };
            let votes = voters.get(&node.id).is_some_and(|known| known.votes);
            let is_open = members.standing(node.id.datacenter) == Some(Standing::Open);
            if is_open && !votes {
                let Some(address) = node.config.deployment_address() else { continue };
                match store.add_member(node.id, &address).await {
                    Ok(_) => info!(node = %node.id, "votes in the deployment's agreement"),
                    Err(why @ MembershipError::TooMany) => debug!(node = %node.id, %why, "no vote"),
                    Err(why) => {
                        warn!(node = %node.id, %why, "no vote in the deployment's agreement yet");
                    }
                }
            }
            let gone = voters.keys().find(|voter| members.is_gone(voter.datacenter)).copied();
            if let Some(voter) = gone.filter(|_| is_open) {
                match store.remove_member(voter).await {
                    Ok(_) | Err(MembershipError::NotMember { .. }) => {
                        info!(node = %node.id, %voter, "votes in the deployment's agreement no more");
                    }
                    Err(why) => debug!(node = %node.id, %voter, %why, "still votes"),
                }
            }
        }
        std::future::pending().await
    }
}

/// What a datacenter's part becomes when newer members are copied into it; `None` if it has them.
/// The first members are those that the settings name: they need no copy.
fn part_with(part: &Datacenter, members: &Arc<Membership>) -> Option<Datacenter> {
    with_members(part, members).filter(|_| FIRST < members.epoch)
}

/// The nodes of a datacenter that may answer and do not act by these members yet.
fn laggards(part: &Datacenter, members: &Membership, facts: &Facts) -> Vec<NodeId> {
    let has_part = part.membership.as_ref().is_some_and(|known| known.epoch == members.epoch);
    let has_none = members.epoch == FIRST;
    let acts = |node: &NodeId| has_none || has_part && facts.adopted.contains(node);
    part.present().filter(|node| !acts(node)).collect()
}

/// What a datacenter says of itself; `None` while some node of it does not act by these members.
fn said_of(part: &Datacenter, members: &Membership, facts: &Facts, has_done: bool) -> Option<Said> {
    // With all nodes absent nobody has taken anything over.
    let is_heard = part.present().next().is_some();
    // The first members are known from the settings: who has a part acts by them.
    let acts = is_heard && (members.epoch == FIRST || acknowledged(part, facts) == members.epoch);
    let done = if has_done { members.epoch } else { MembershipEpoch::default() };
    acts.then_some(Said { acknowledged: members.epoch, done })
}

/// What a datacenter that has no part yet begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// This.
    Part(Box<Datacenter>),
    /// Nothing yet, and why.
    Waits(String),
}

/// The first part of a datacenter: as the settings say where the deployment began with it, and with
/// one replica of each shard, to copy from elsewhere, where it came later.
pub(super) fn first_part(
    known: &Configuration,
    here: DatacenterId,
    is_added: bool,
    members: Option<&Arc<Membership>>,
) -> Option<First> {
    let name = &known.datacenter(here)?.name;
    let is_foreign = members.is_some_and(|members| members.standing(here).is_none());
    if is_foreign || is_added && members.is_none() {
        return Some(First::Waits(format!(
            "datacenter {name} ({here}) is no member of the deployment yet: run antecede topology \
             plan add {name} --id {here} against a node of another datacenter; its own settings \
             need added = true"
        )));
    }
    let (Some(members), true) = (members, is_added) else {
        let first = known.datacenter(here).filter(|first| first.epoch == Epoch(1))?;
        return Some(First::Part(Box::new(first.clone())));
    };
    let agreed: Vec<NodeId> = members.members.get(&here)?.nodes.keys().copied().collect();
    let own = &known.datacenter(here)?.nodes;
    if agreed != *own {
        let list = |nodes: &[NodeId]| -> String {
            nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        return Some(First::Waits(format!(
            "the deployment was told that datacenter {name} has the nodes {}, its settings say {}: \
             change the settings, or remove it (antecede topology plan remove {name}) and add it \
             again with another number",
            list(&agreed),
            list(own)
        )));
    }
    let mut next = known.clone();
    next.adopt_membership(members, Some(here));
    next.begin_with_one_replica(here);
    // Its nodes have one that is not begun like this, which it follows.
    let part = next.datacenter(here)?.clone();
    let (epoch, membership) = (part.epoch.next(), Some(Arc::clone(members)));
    Some(First::Part(Box::new(Datacenter { epoch, membership, ..part })))
}

/// Why a datacenter does not begin that has served before, and of which nothing is left.
pub(super) fn why_lost(name: &str, id: DatacenterId) -> String {
    format!(
        "datacenter {name} ({id}) has served before, and all that its nodes knew of that is lost: if \
         a folder of it is left, start its node with that; if not, let it come back with what the \
         others have: antecede topology plan lapse {name} against a node of another datacenter"
    )
}

/// Whether a datacenter has had a part by which it served.
pub(super) fn has_begun(members: &Membership, id: DatacenterId) -> bool {
    members.members.get(&id).is_some_and(|member| match member.standing {
        Standing::Joining { .. } | Standing::Copying { .. } => false,
        Standing::Open | Standing::Leaving | Standing::Lost => FIRST <= member.acknowledged,
    })
}

fn options_of(node: &Node, group: GroupId, request_limit: Duration) -> StoreOptions {
    StoreOptions {
        group,
        node: node.id,
        members: contacts(&node.config, &node.configuration().membership),
        request_limit,
        attempt_limit: ATTEMPT_LIMIT.min(request_limit),
    }
}

/// How a datacenter that has lapsed asks to be taken in again.
fn wish_to_come_back(config: &Config, members: &Membership) -> Wish {
    let id = config.node.datacenter;
    let before = members.gone.values().find(|gone| gone.successor == Some(id));
    let name = before.map_or_else(|| config.datacenter_name(id), |before| &before.name).to_owned();
    let nodes = config.nodes_here().map(|(id, addresses)| (id, addresses.peer.clone())).collect();
    Wish::Add { id, name, nodes, from: None }
}

/// Whom to ask first: those with whom the agreement began, by the numbers that they have now; all
/// others where none of them is left.
fn contacts(config: &Config, members: &Membership) -> BTreeMap<NodeId, String> {
    let now = |node: NodeId| now_called(members, node);
    let founders = config.deployment_members().into_iter();
    let contacts: BTreeMap<_, _> = founders.map(|(node, at)| (now(node), at)).collect();
    if contacts.keys().any(|node| *node != WITNESS) {
        return contacts;
    }
    let first = |(node, addresses): (NodeId, &NodeAddresses)| {
        let is_other = node.number == 1 && node != config.node;
        Some((now(node), addresses.control.clone().filter(|_| is_other)?))
    };
    contacts.into_iter().chain(config.nodes().filter_map(first)).collect()
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        configuration::Layout, ids::DeploymentId, key::ShardCount, membership::Gone,
    };

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(1), number }
    }

    fn three() -> Configuration {
        let names = ["eu", "us", "ap"];
        let datacenters = (1..).zip(names).map(|(id, name)| (DatacenterId(id), name.to_owned(), 3));
        Configuration::managed(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(8).unwrap(),
            chain_length: 2,
            datacenters: datacenters.collect(),
        })
    }

    fn without_the_first() -> Membership {
        let mut members = Membership::clone(&three().membership);
        members.members.remove(&DatacenterId(1));
        members
    }

    fn with_the_first_added(nodes: u16) -> Arc<Membership> {
        let nodes = (1..=nodes).map(|number| (node(number), "host:1".to_owned())).collect();
        let (id, name) = (DatacenterId(1), "eu".to_owned());
        let wish = Wish::Add { id, name, nodes, from: None };
        Arc::new(wished(&without_the_first(), &wish).unwrap())
    }

    /// Settings of the second datacenter; which of the three were added, and whether a witness votes.
    fn settings(added: [bool; 3], has_witness: bool) -> Config {
        let mut text = "[deployment]\nid = \"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"\n".to_owned();
        for (id, (name, is_added)) in (1..).zip(["eu", "us", "ap"].into_iter().zip(added)) {
            let [client, peer, control] = [1, 2, 3].map(|kind| format!("127.0.0.1:{id}{kind}"));
            text.push_str(&format!(
                "[[datacenter]]\nid = {id}\nname = \"{name}\"\nadded = {is_added}\nnode = [{{ number = \
                 1, client = \"{client}\", peer = \"{peer}\", control = \"{control}\" }}]\n"
            ));
        }
        text.push_str("[node]\ndatacenter = \"us\"\nnumber = 1\n[storage]\nfolder = \"data\"\n");
        text.push_str("[control]\nstore = \"embedded\"\n");
        if has_witness {
            text.push_str("witness = \"127.0.0.1:9\"\n");
        }
        let file = Some(("node.toml".into(), text));
        let layers = crate::config::Layers { file, ..crate::config::Layers::default() };
        Config::load(&layers).unwrap()
    }

    /// The members of three, of which some have lapsed: old numbers and those that followed.
    fn lapsed(numbers: &[(u16, u16)]) -> Membership {
        let mut members = Membership::clone(&three().membership);
        for (old, new) in numbers {
            let left = members.members.remove(&DatacenterId(*old)).unwrap();
            let (name, since) = (left.name.clone(), MembershipEpoch(2));
            let successor = Some(DatacenterId(*new));
            members.members.insert(DatacenterId(*new), left);
            let gone = Gone { name, was_lost: true, since, successor };
            members.gone.insert(DatacenterId(*old), gone);
        }
        members
    }

    #[test]
    fn those_who_agree_are_asked_by_the_numbers_that_they_have_now() {
        let asked = |config: &Config, members: &Membership| -> Vec<(u16, String)> {
            let contacts = contacts(config, members).into_iter();
            contacts.map(|(node, address)| (node.datacenter.0, address)).collect()
        };
        let founders = settings([false, false, true], false);
        let at = |id: u16, address: &str| (id, address.to_owned());
        let [eu, us, ap] = ["127.0.0.1:13", "127.0.0.1:23", "127.0.0.1:33"];
        assert_eq!(asked(&founders, &lapsed(&[])), [at(1, eu), at(2, us)]);
        assert_eq!(asked(&founders, &lapsed(&[(1, 4), (4, 6)])), [at(2, us), at(6, eu)]);
        let alone = settings([true, false, true], false);
        assert_eq!(asked(&alone, &lapsed(&[])), [at(2, us)]);
        let back = alone.returned(&[DatacenterId(2), DatacenterId(4)]);
        assert_eq!(asked(&back, &lapsed(&[(2, 4)])), [at(1, eu), at(3, ap)], "no founder is left");
        let back =
            settings([true, false, true], true).returned(&[DatacenterId(2), DatacenterId(4)]);
        assert_eq!(asked(&back, &lapsed(&[(2, 4)])), [at(0, "127.0.0.1:9"), at(1, eu), at(3, ap)]);
    }

    #[test]
    fn who_comes_back_asks_for_the_number_that_is_kept_and_its_name() {
        let mut members = lapsed(&[(2, 4)]);
        members.members.remove(&DatacenterId(4));
        let back = settings([false; 3], false).returned(&[DatacenterId(2), DatacenterId(4)]);
        let next = wished(&members, &wish_to_come_back(&back, &members)).unwrap();
        let member = &next.members[&DatacenterId(4)];
        let node = NodeId { datacenter: DatacenterId(4), number: 1 };
        assert_eq!(member.name, "us");
        assert_eq!(member.nodes, BTreeMap::from([(node, "127.0.0.1:22".to_owned())]));
        assert_eq!(member.standing, Standing::Joining { from: None });
    }

    #[test]
    fn newer_members_are_copied_once_and_the_first_ones_never() {
        let mut part = three().datacenters[&DatacenterId(1)].clone();
        let first = Arc::clone(&three().membership);
        assert_eq!(part_with(&part, &first), None);
        let newer = Arc::new(wished(&first, &Wish::Remove(DatacenterId(2))).unwrap());
        let next = part_with(&part, &newer).unwrap();
        assert_eq!((next.epoch, next.membership.as_ref()), (Epoch(2), Some(&newer)));
        part = next;
        assert_eq!(part_with(&part, &newer), None);
    }

    #[test]
    fn a_datacenter_acknowledges_when_all_its_nodes_that_are_there_act_by_it() {
        let mut part = three().datacenters[&DatacenterId(1)].clone();
        let first = Arc::clone(&three().membership);
        let newer = Arc::new(wished(&first, &Wish::Remove(DatacenterId(2))).unwrap());
        let adopted = [node(1), node(2)].into();
        let mut facts = Facts { epoch: Epoch(2), adopted, ..Facts::default() };
        assert_eq!(said_of(&part, &newer, &facts, true), None, "nobody has it");
        part = part_with(&part, &newer).unwrap();
        assert_eq!(said_of(&part, &newer, &facts, true), None);
        assert_eq!(laggards(&part, &newer, &facts), [node(3)]);
        part.absent.insert(node(3));
        let (epoch, none) = (newer.epoch, MembershipEpoch::default());
        let said = |done| Some(Said { acknowledged: epoch, done });
        assert_eq!(said_of(&part, &newer, &facts, false), said(none));
        assert_eq!(said_of(&part, &newer, &facts, true), said(epoch));
        part.absent.remove(&node(3));
        facts.adopted.insert(node(3));
        assert_eq!(said_of(&part, &newer, &facts, true), said(epoch));
        part.absent = [node(1), node(2), node(3)].into();
        assert_eq!(said_of(&part, &newer, &facts, true), None, "nobody is there");
    }

    #[test]
    fn a_datacenter_has_begun_when_it_has_told_so_and_serves() {
        let here = DatacenterId(1);
        let first = Membership::clone(&three().membership);
        assert!(!has_begun(&first, here));
        let part = three().datacenters[&here].clone();
        let said = said_of(&part, &first, &Facts::default(), false).expect("it has a part");
        let told = with_word_of(&first, here, said).expect("that is news");
        assert!(has_begun(&told, here) && !has_begun(&told, DatacenterId(2)));
        assert_eq!(with_word_of(&told, here, said), None, "it is told once");

        let mut added = Membership::clone(&with_the_first_added(3));
        let epoch = added.epoch;
        let member = added.members.get_mut(&here).unwrap();
        (member.acknowledged, member.done) = (epoch, epoch);
        assert!(!has_begun(&added, here), "who has served nobody may begin to copy again");
        added.members.get_mut(&here).unwrap().standing = Standing::Open;
        assert!(has_begun(&added, here));
    }

    #[test]
    fn a_datacenter_that_came_later_begins_when_it_is_a_member_with_one_replica_of_each_shard() {
        let here = DatacenterId(1);
        let waits = |is_added, members: Option<&Arc<Membership>>| {
            matches!(first_part(&three(), here, is_added, members), Some(First::Waits(_)))
        };
        assert!(waits(true, None));
        let others = Arc::new(without_the_first());
        assert!(waits(true, Some(&others)));
        assert!(waits(false, Some(&others)), "also where its settings do not say so");
        assert!(waits(true, Some(&with_the_first_added(2))), "other nodes than in its settings");
        let members = with_the_first_added(3);
        let first = first_part(&three(), here, true, Some(&members));
        let Some(First::Part(part)) = first else { panic!("{first:?}") };
        assert_eq!(part.membership, Some(members));
        assert_eq!(part.epoch, Epoch(2));
        for chain in &part.chains {
            let can_begin = chain.waiting_as(antecede_model::configuration::Waiting::LastServing);
            assert_eq!((can_begin.count(), chain.members().count()), (1, 2));
        }
        let founder = first_part(&three(), here, false, Some(&three().membership));
        let Some(First::Part(part)) = founder else { panic!("{founder:?}") };
        assert_eq!(*part, three().datacenters[&here]);
        assert!(first_part(&three(), here, false, None).is_some(), "without the others, too");
    }
}
