//! Decides who belongs to a deployment: what people ask for, and what follows by itself.
//!
//! One datacenter changes at a time, but any number may be lost. What people ask for makes it join, leave, or count as lost;
//! then each step waits until those that it rests on have said that they act by the last one:
//!
//! | standing | waits until | becomes |
//! |---|---|---|
//! | joining | all others act by it: from then on each keeps what the new one lacks | copying |
//! | copying | it holds all that anyone was shown before it began, and all that rests on | open |
//! | leaving | all of its nodes refuse writes, and all others have applied what it wrote | gone |
//! | lost | the others take nothing from it any more, and each has what any other has of it | gone |
//!
//! One that is lost does not wait for the change of another one: that is given up. Who leaves stays,
//! and who is being added is gone; people ask again.
//!
//! Why joining comes first: a write is left out of the dependencies of later ones once every
//! member has applied it. While one member counts without the new one, such a write could be
//! missing there (PITFALLS A15).
//!
//! Assumes: a datacenter says that it acts by an epoch when all of its nodes do that may answer.
//! Ensures: the epoch grows by one with each change of a standing; an id is never given again.
//! Not here: a datacenter that is behind for too long and is fenced (lapsed).

use std::{collections::BTreeMap, fmt, sync::Arc};

use antecede_model::{
    configuration::Datacenter,
    ids::{DatacenterId, Epoch, MembershipEpoch, NodeId},
    membership::{Gone, Member, Membership, Standing},
};

use super::Facts;

/// Why a change of the members cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another one is under way.
    #[error(
        "datacenter {name} ({id}) is {what} already; wait until that is done (`antecede topology \
         show`)"
    )]
    Changing {
        /// Whose.
        id: DatacenterId,
        /// What people call it.
        name: String,
        /// What it is in.
        what: &'static str,
    },
    /// The id or the name is or was in use.
    #[error(
        "{name} ({id}) cannot be added: the name or number of a datacenter is never used twice; \
         choose others"
    )]
    Used {
        /// The id.
        id: DatacenterId,
        /// The name.
        name: String,
    },
    /// Nothing to add.
    #[error("datacenter {name} cannot be added without nodes; name at least one")]
    NoNodes {
        /// What people call it.
        name: String,
    },
    /// Not a member.
    #[error("there is no datacenter {id} in this deployment")]
    Unknown {
        /// The id.
        id: DatacenterId,
    },
    /// Nobody else holds the data.
    #[error("datacenter {name} is the only one that serves: nothing would be left without it")]
    Last {
        /// What people call it.
        name: String,
    },
    /// The plan was made for another state.
    #[error("the members are at version {found} now, not {expected}; plan again")]
    Outdated {
        /// What was expected.
        expected: MembershipEpoch,
        /// What is there.
        found: MembershipEpoch,
    },
}

/// What people ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Another datacenter.
    Add {
        /// Its number, never used before.
        id: DatacenterId,
        /// What people call it.
        name: String,
        /// Its nodes and where others reach them.
        nodes: BTreeMap<NodeId, String>,
        /// Whose data it copies; the first that serves if none is named.
        from: Option<DatacenterId>,
    },
    /// One less, which hands out all that it has first.
    Remove(DatacenterId),
    /// One less, which does not come back: what it has not sent is given up.
    RemoveLost(DatacenterId),
}

/// What follows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// All others keep what a new datacenter needs: it may copy.
    Copies(DatacenterId),
    /// It has all that it needs: it serves.
    Opens(DatacenterId),
    /// It has handed out all that it had: it is gone.
    Left(DatacenterId),
    /// The others share what any of them had of it: it is gone.
    GivenUp(DatacenterId),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copies(id) => write!(
                f,
                "datacenter {id} begins to copy: all others keep what it will need from now on"
            ),
            Self::Opens(id) => {
                write!(f, "datacenter {id} serves: it has all that was there before it began")
            }
            Self::Left(id) => {
                write!(f, "datacenter {id} is gone: all others have applied what it had written")
            }
            Self::GivenUp(id) => write!(
                f,
                "datacenter {id} is given up: the others share all that any of them had of it"
            ),
        }
    }
}

/// What a standing is called when one is told that it is under way.
#[must_use]
pub const fn in_words(standing: Standing) -> &'static str {
    match standing {
        Standing::Joining { .. } => "being added",
        Standing::Copying { .. } => "copying",
        Standing::Open => "serving",
        Standing::Leaving => "being removed",
        Standing::Lost => "being given up",
    }
}

/// The members as people wish them, if that may be.
///
/// # Errors
/// [`MembershipError`] says why not, and what to do.
pub fn wished(old: &Membership, wish: &Wish) -> Result<Membership, MembershipError> {
    match wish {
        Wish::Add { id, name, nodes, from } => added(old, *id, name, nodes, *from),
        Wish::Remove(id) => removed(old, *id),
        Wish::RemoveLost(id) => lost(old, *id),
    }
}

fn added(
    old: &Membership,
    id: DatacenterId,
    name: &str,
    nodes: &BTreeMap<NodeId, String>,
    from: Option<DatacenterId>,
) -> Result<Membership, MembershipError> {
    refuse_while_changing(old)?;
    let names = old.members.values().map(|member| &member.name);
    let is_used = old.members.contains_key(&id)
        || old.gone.contains_key(&id)
        || names.chain(old.gone.values().map(|gone| &gone.name)).any(|known| known == name)
        || nodes.keys().any(|node| node.datacenter != id);
    if is_used {
        return Err(MembershipError::Used { id, name: name.to_owned() });
    }
    if nodes.is_empty() {
        return Err(MembershipError::NoNodes { name: name.to_owned() });
    }
    if let Some(from) = from.filter(|from| !old.members.contains_key(from)) {
        return Err(MembershipError::Unknown { id: from });
    }
    let mut next = following(old);
    let member = Member {
        standing: Standing::Joining { from },
        ..Member::open(name.to_owned(), nodes.clone())
    };
    next.members.insert(id, member);
    Ok(next)
}

fn removed(old: &Membership, id: DatacenterId) -> Result<Membership, MembershipError> {
    let standing = old.standing(id).ok_or(MembershipError::Unknown { id })?;
    match standing {
        // Nobody was ever answered there: there is nothing to hand out.
        Standing::Joining { .. } | Standing::Copying { .. } => Ok(without(old, id, false)),
        Standing::Open => {
            refuse_while_changing(old)?;
            refuse_last(old, id)?;
            let mut next = following(old);
            set_standing(&mut next, id, Standing::Leaving);
            Ok(next)
        }
        Standing::Leaving | Standing::Lost => refuse_while_changing(old).map(|()| old.clone()),
    }
}

fn lost(old: &Membership, id: DatacenterId) -> Result<Membership, MembershipError> {
    let standing = old.standing(id).ok_or(MembershipError::Unknown { id })?;
    match standing {
        Standing::Joining { .. } | Standing::Copying { .. } => Ok(without(old, id, true)),
        // One that was about to leave may be lost before it is done.
        Standing::Open | Standing::Leaving => {
            refuse_last(old, id)?;
            let mut next = interrupted(old, id)?;
            set_standing(&mut next, id, Standing::Lost);
            Ok(next)
        }
        Standing::Lost => refuse_while_changing(old).map(|()| old.clone()),
    }
}

/// What goes on without the change that is under way of another datacenter, which would wait for
/// the lost one for ever: one that leaves stays, one that is being added is gone.
fn interrupted(old: &Membership, lost: DatacenterId) -> Result<Membership, MembershipError> {
    let Some((id, standing)) = old.changing().filter(|(id, _)| *id != lost) else {
        return Ok(following(old));
    };
    match standing {
        Standing::Joining { .. } | Standing::Copying { .. } => Ok(without(old, id, false)),
        Standing::Leaving | Standing::Open => {
            let mut next = following(old);
            set_standing(&mut next, id, Standing::Open);
            Ok(next)
        }
        Standing::Lost => Ok(following(old)),
    }
}

/// What follows by itself from what datacenters have said; `None` while nothing does.
#[must_use]
pub fn next_membership(old: &Membership) -> Option<(Membership, Step)> {
    let (id, standing) = old.changing()?;
    let others = || old.members.iter().filter(|(other, _)| **other != id).map(|(_, member)| member);
    let act = || others().all(|member| old.epoch <= member.acknowledged);
    let member = &old.members[&id];
    match standing {
        Standing::Joining { from } => {
            let first = || old.members.iter().find(|(_, member)| member.standing == Standing::Open);
            let from = from.or_else(|| first().map(|(id, _)| *id)).filter(|_| act())?;
            let mut next = following(old);
            set_standing(&mut next, id, Standing::Copying { from });
            Some((next, Step::Copies(id)))
        }
        Standing::Copying { .. } => (old.epoch <= member.done).then(|| {
            let mut next = following(old);
            set_standing(&mut next, id, Standing::Open);
            (next, Step::Opens(id))
        }),
        Standing::Leaving => {
            (old.epoch <= member.done).then(|| (without(old, id, false), Step::Left(id)))
        }
        Standing::Lost => {
            let present = || old.present().map(|id| &old.members[&id]);
            let act = present().all(|member| old.epoch <= member.acknowledged);
            let have_all = act && present().all(|member| old.epoch <= member.done);
            have_all.then(|| {
                let lost: Vec<DatacenterId> = old.lost().collect();
                let next = lost.into_iter().fold(old.clone(), |rest, id| without(&rest, id, true));
                (Membership { epoch: following(old).epoch, ..next }, Step::GivenUp(id))
            })
        }
        Standing::Open => None,
    }
}

/// What a datacenter says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The newest epoch that all of its nodes act by.
    pub acknowledged: MembershipEpoch,
    /// The newest epoch of which it has done all that is asked of it.
    pub done: MembershipEpoch,
}

/// The members with what one of them says of itself; `None` if that is no news.
#[must_use]
pub fn with_word_of(old: &Membership, id: DatacenterId, said: Said) -> Option<Membership> {
    let mut next = old.clone();
    let member = next.members.get_mut(&id)?;
    let newest = Said {
        acknowledged: said.acknowledged.max(member.acknowledged),
        done: said.done.max(member.done),
    };
    let is_news = newest != Said { acknowledged: member.acknowledged, done: member.done };
    (member.acknowledged, member.done) = (newest.acknowledged, newest.done);
    is_news.then_some(next)
}

/// What has to be there for a wish that was planned for one version.
///
/// # Errors
/// [`MembershipError::Outdated`] if it is not.
pub fn refuse_outdated(old: &Membership, expected: MembershipEpoch) -> Result<(), MembershipError> {
    if old.epoch == expected {
        return Ok(());
    }
    Err(MembershipError::Outdated { expected, found: old.epoch })
}

/// The part of a datacenter that has taken over newer members; `None` if they are not newer.
///
/// Where one leaves or is lost every chain begins a new epoch: a tail that has settled in it has
/// committed all that any replica had taken while the former members held.
#[must_use]
pub fn with_members(part: &Datacenter, newer: &Arc<Membership>) -> Option<Datacenter> {
    let known = part.membership.as_ref();
    if known.is_some_and(|known| newer.epoch <= known.epoch) {
        return None;
    }
    let mut next = part.clone();
    next.epoch = Epoch(part.epoch.0 + 1);
    next.membership = Some(Arc::clone(newer));
    let begins_anew = newer.changing().is_some_and(|(_, standing)| match standing {
        Standing::Leaving | Standing::Lost => true,
        Standing::Joining { .. } | Standing::Copying { .. } | Standing::Open => false,
    });
    if begins_anew {
        next.chains.iter_mut().for_each(|chain| chain.epoch = next.epoch);
    }
    Some(next)
}

/// The newest members that all nodes of a datacenter act by which may answer anybody.
#[must_use]
pub fn acknowledged(part: &Datacenter, facts: &Facts) -> MembershipEpoch {
    let all_act = part.present().all(|node| facts.adopted.contains(&node));
    let epoch = part.membership.as_ref().map(|membership| membership.epoch);
    epoch.filter(|_| facts.epoch == part.epoch && all_act).unwrap_or_default()
}

fn following(old: &Membership) -> Membership {
    Membership { epoch: MembershipEpoch(old.epoch.0 + 1), ..old.clone() }
}

fn without(old: &Membership, id: DatacenterId, was_lost: bool) -> Membership {
    let mut next = following(old);
    if let Some(member) = next.members.remove(&id) {
        next.gone.insert(id, Gone { name: member.name, was_lost, since: next.epoch });
    }
    next
}

fn set_standing(next: &mut Membership, id: DatacenterId, standing: Standing) {
    if let Some(member) = next.members.get_mut(&id) {
        member.standing = standing;
    }
}

fn refuse_while_changing(old: &Membership) -> Result<(), MembershipError> {
    let Some((id, standing)) = old.changing() else { return Ok(()) };
    let name = old.members[&id].name.clone();
    Err(MembershipError::Changing { id, name, what: in_words(standing) })
}

fn refuse_last(old: &Membership, id: DatacenterId) -> Result<(), MembershipError> {
    let serves = |(other, member): (&DatacenterId, &Member)| {
        *other != id && member.standing == Standing::Open
    };
    if old.members.iter().any(serves) {
        return Ok(());
    }
    Err(MembershipError::Last { name: old.members[&id].name.clone() })
}
