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
//! One that is too far behind can be let go of (it lapses): it is lost for the others, and gets a
//! number under which its nodes may join anew, with its name, as soon as they hear of it.
//!
//! One that is lost does not wait for the change of another one: that is given up. Who leaves stays,
//! and who is being added is gone; people ask again.
//!
//! Why joining comes first: a write is left out of the dependencies of later ones once every
//! member has applied it. While one member counts without the new one, such a write could be
//! missing there (PITFALLS A15).
//!
//! Assumes: a datacenter says that it acts by an epoch when all of its nodes do that may answer.
//! Ensures: the epoch grows by one with each change of a standing; an id is never given again, and a
//! name only to what comes back.

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
    /// It answers nobody, or is about to go.
    #[error(
        "datacenter {name} is {what}: only one that serves can be let go of to come back; remove it \
         instead"
    )]
    NotServing {
        /// What people call it.
        name: String,
        /// What it is in.
        what: &'static str,
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
    /// One that is too far behind is let go of, and comes back by itself as a new one.
    Lapse(DatacenterId),
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
        Wish::Lapse(id) => lapsed(old, *id),
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
    if is_used(old, id, name) || nodes.keys().any(|node| node.datacenter != id) {
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

/// Whether a number or a name has or had a bearer, or is kept for one that comes back.
fn is_used(old: &Membership, id: DatacenterId, name: &str) -> bool {
    let has_bearer = old.members.contains_key(&id) || old.gone.contains_key(&id);
    let is_called = old.members.values().any(|member| member.name == name);
    let mut before = old.gone.values();
    let comes_back = old.gone.values().find(|gone| gone.successor == Some(id));
    has_bearer
        || is_called
        || match comes_back {
            Some(gone) => gone.name != name,
            None => before.any(|gone| gone.name == name),
        }
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

fn lapsed(old: &Membership, id: DatacenterId) -> Result<Membership, MembershipError> {
    let standing = old.standing(id).ok_or(MembershipError::Unknown { id })?;
    match standing {
        Standing::Open => {
            let mut next = lost(old, id)?;
            if let Some(member) = next.members.get_mut(&id) {
                member.is_lapsed = true;
            }
            Ok(next)
        }
        Standing::Joining { .. }
        | Standing::Copying { .. }
        | Standing::Leaving
        | Standing::Lost => {
            let name = old.members[&id].name.clone();
            Err(MembershipError::NotServing { name, what: in_words(standing) })
        }
    }
}

/// What goes on without the change that is under way of another datacenter, which would wait for
/// the lost one for ever: one that leaves stays, one that is being added is gone. If that was about
/// to come back it may do so again, under the next number: its name is nobody else's.
fn interrupted(old: &Membership, lost: DatacenterId) -> Result<Membership, MembershipError> {
    let Some((id, standing)) = old.changing().filter(|(id, _)| *id != lost) else {
        return Ok(following(old));
    };
    match standing {
        Standing::Joining { .. } | Standing::Copying { .. } => {
            let mut next = without(old, id, false);
            if let Some(gone) = next.gone.get_mut(&id).filter(|_| old.comes_back(id)) {
                gone.successor = old.unused();
            }
            Ok(next)
        }
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
    let successor = old.unused();
    if let Some(member) = next.members.remove(&id) {
        let successor = successor.filter(|_| member.is_lapsed);
        next.gone.insert(id, Gone { name: member.name, was_lost, since: next.epoch, successor });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dc(id: u16) -> DatacenterId {
        DatacenterId(id)
    }

    fn first(count: u16) -> Membership {
        let open = |id: u16| (dc(id), Member::open(format!("dc{id}"), BTreeMap::new()));
        Membership::first((1..=count).map(open))
    }

    fn add(id: u16) -> Wish {
        let nodes = [(NodeId { datacenter: dc(id), number: 1 }, format!("ten:{id}"))].into();
        Wish::Add { id: dc(id), name: format!("dc{id}"), nodes, from: None }
    }

    /// A datacenter acts by the present members, and has perhaps done what they ask of it.
    fn say(members: &Membership, id: u16, is_done: bool) -> Membership {
        let done = if is_done { members.epoch } else { MembershipEpoch(0) };
        let said = Said { acknowledged: members.epoch, done };
        with_word_of(members, dc(id), said).unwrap_or_else(|| members.clone())
    }

    fn step(members: &Membership) -> (Membership, Step) {
        next_membership(members).expect("something follows")
    }

    #[test]
    fn one_that_is_added_copies_when_all_others_act_and_serves_when_it_is_done() {
        let joining = wished(&first(3), &add(4)).unwrap();
        assert_eq!(joining.standing(dc(4)), Some(Standing::Joining { from: None }));
        let told = say(&say(&say(&joining, 1, false), 2, false), 4, true);
        assert_eq!(next_membership(&told), None, "one has not acknowledged yet");
        let (copying, why) = step(&say(&told, 3, false));
        assert_eq!(why, Step::Copies(dc(4)));
        assert_eq!(copying.standing(dc(4)), Some(Standing::Copying { from: dc(1) }));
        assert_eq!(next_membership(&copying), None, "what it said of the last epoch is no word");
        let (open, why) = step(&say(&copying, 4, true));
        assert_eq!((why, open.changing()), (Step::Opens(dc(4)), None));
        assert_eq!(open.epoch, MembershipEpoch(4));
    }

    #[test]
    fn one_change_is_under_way_at_a_time_and_no_name_is_used_twice() {
        let joining = wished(&first(2), &add(3)).unwrap();
        let refused = wished(&joining, &add(4)).unwrap_err();
        assert!(matches!(refused, MembershipError::Changing { id, .. } if id == dc(3)));
        assert!(wished(&joining, &Wish::Remove(dc(1))).is_err());
        let given_up = wished(&joining, &Wish::Remove(dc(3))).unwrap();
        assert!(given_up.is_gone(dc(3)), "nobody was answered there: it is gone at once");
        assert!(matches!(wished(&given_up, &add(3)), Err(MembershipError::Used { .. })));
        let Wish::Add { nodes, .. } = add(4) else { unreachable!() };
        let same_name = Wish::Add { id: dc(4), name: "dc3".to_owned(), nodes, from: None };
        assert!(matches!(wished(&given_up, &same_name), Err(MembershipError::Used { .. })));
        assert!(wished(&given_up, &add(4)).is_ok());
    }

    #[test]
    fn what_is_added_needs_nodes_of_its_own_and_a_donor_that_is_there() {
        let wish = |id: u16, nodes: &[u16], from: Option<u16>| {
            let node = |number: &u16| NodeId { datacenter: dc(*number), number: 1 };
            let nodes = nodes.iter().map(|number| (node(number), String::new())).collect();
            Wish::Add { id: dc(id), name: "new".to_owned(), nodes, from: from.map(dc) }
        };
        assert!(wished(&first(2), &wish(3, &[3], Some(2))).is_ok());
        let without = wished(&first(2), &wish(3, &[], None));
        assert!(matches!(without, Err(MembershipError::NoNodes { .. })));
        let of_another = wished(&first(2), &wish(3, &[2], None));
        assert!(matches!(of_another, Err(MembershipError::Used { .. })));
        let from_nobody = wished(&first(2), &wish(3, &[3], Some(9)));
        assert_eq!(from_nobody, Err(MembershipError::Unknown { id: dc(9) }));
    }

    #[test]
    fn one_that_leaves_is_gone_when_it_has_handed_out_all() {
        let leaving = wished(&first(2), &Wish::Remove(dc(1))).unwrap();
        assert_eq!(leaving.standing(dc(1)), Some(Standing::Leaving));
        let told = say(&say(&leaving, 1, false), 2, true);
        assert_eq!(next_membership(&told), None);
        let (gone, why) = step(&say(&told, 1, true));
        assert_eq!(why, Step::Left(dc(1)));
        assert!(gone.is_gone(dc(1)) && !gone.gone[&dc(1)].was_lost);
        let last = wished(&gone, &Wish::Remove(dc(2))).unwrap_err();
        assert!(matches!(last, MembershipError::Last { .. }));
        assert!(wished(&gone, &Wish::RemoveLost(dc(2))).is_err());
    }

    #[test]
    fn one_that_is_lost_is_given_up_when_all_survivors_have_shared() {
        let lost = wished(&first(3), &Wish::RemoveLost(dc(3))).unwrap();
        let told = say(&say(&lost, 1, true), 2, false);
        assert_eq!(next_membership(&told), None, "one may have more of it");
        let (gone, why) = step(&say(&told, 2, true));
        assert_eq!(why, Step::GivenUp(dc(3)));
        assert!(gone.gone[&dc(3)].was_lost);
    }

    #[test]
    fn a_second_loss_does_not_wait_for_the_first() {
        let lost = wished(&first(4), &Wish::RemoveLost(dc(3))).unwrap();
        let both = wished(&lost, &Wish::RemoveLost(dc(4))).unwrap();
        assert_eq!(both.lost().collect::<Vec<_>>(), vec![dc(3), dc(4)]);
        let told = say(&say(&both, 1, true), 2, true);
        let (gone, _) = step(&told);
        assert!(gone.is_gone(dc(3)) && gone.is_gone(dc(4)));
        assert_eq!((gone.epoch, gone.changing()), (MembershipEpoch(both.epoch.0 + 1), None));
    }

    #[test]
    fn one_that_lapses_is_lost_and_may_come_back_under_a_number_of_its_own() {
        let lapsing = wished(&first(3), &Wish::Lapse(dc(2))).unwrap();
        assert_eq!(lapsing.standing(dc(2)), Some(Standing::Lost));
        assert!(lapsing.is_lapsed(dc(2)) && !lapsing.is_lapsed(dc(1)));
        let (gone, why) = step(&say(&say(&lapsing, 1, true), 3, true));
        assert_eq!(why, Step::GivenUp(dc(2)));
        assert_eq!(gone.gone[&dc(2)].successor, Some(dc(4)));
        assert!(gone.is_lapsed(dc(2)) && gone.gone[&dc(2)].was_lost);
        let called = |id: u16, name: &str| {
            let Wish::Add { nodes, .. } = add(id) else { unreachable!() };
            wished(&gone, &Wish::Add { id: dc(id), name: name.to_owned(), nodes, from: None })
        };
        assert!(matches!(called(4, "dc4"), Err(MembershipError::Used { .. })), "it is kept");
        assert!(matches!(called(5, "dc2"), Err(MembershipError::Used { .. })));
        assert!(matches!(called(2, "dc2"), Err(MembershipError::Used { .. })));
        let back = called(4, "dc2").unwrap();
        assert_eq!(back.members[&dc(4)].name, "dc2");
        assert!(called(5, "dc5").is_ok(), "others may come, too");
        let (copying, _) = step(&say(&say(&back, 1, false), 3, false));
        let (open, _) = step(&say(&copying, 4, true));
        let again = wished(&open, &Wish::Lapse(dc(4))).unwrap();
        let (gone, _) = step(&say(&say(&again, 1, true), 3, true));
        assert_eq!(gone.gone[&dc(4)].successor, Some(dc(5)));
        assert!(matches!(wished(&gone, &add(4)), Err(MembershipError::Used { .. })));
    }

    #[test]
    fn one_whose_return_is_interrupted_comes_back_under_the_next_number() {
        let lapsing = wished(&first(4), &Wish::Lapse(dc(2))).unwrap();
        let (gone, _) = step(&say(&say(&say(&lapsing, 1, true), 3, true), 4, true));
        let called = |members: &Membership, id: u16| {
            let Wish::Add { nodes, .. } = add(id) else { unreachable!() };
            wished(members, &Wish::Add { id: dc(id), name: "dc2".to_owned(), nodes, from: None })
        };
        let back = called(&gone, 5).unwrap();
        let lost = wished(&back, &Wish::RemoveLost(dc(1))).unwrap();
        assert_eq!(lost.gone[&dc(5)].successor, Some(dc(6)));
        let (gone, _) = step(&say(&say(&lost, 3, true), 4, true));
        assert!(matches!(called(&gone, 7), Err(MembershipError::Used { .. })));
        assert!(called(&gone, 6).is_ok());
        let removed = wished(&back, &Wish::Remove(dc(5))).unwrap();
        assert_eq!(removed.gone[&dc(5)].successor, None, "people want it gone");
    }

    #[test]
    fn one_that_does_not_serve_does_not_lapse_and_one_that_has_lapsed_can_be_lost() {
        let leaving = wished(&first(3), &Wish::Remove(dc(1))).unwrap();
        let refused = wished(&leaving, &Wish::Lapse(dc(1))).unwrap_err();
        assert!(matches!(refused, MembershipError::NotServing { .. }), "{refused}");
        let last = wished(&first(1), &Wish::Lapse(dc(1))).unwrap_err();
        assert!(matches!(last, MembershipError::Last { .. }));
        let lapsing = wished(&first(4), &Wish::Lapse(dc(2))).unwrap();
        let both = wished(&lapsing, &Wish::Lapse(dc(3))).unwrap();
        let (gone, _) = step(&say(&say(&both, 1, true), 4, true));
        let successors: Vec<_> = gone.gone.values().map(|gone| gone.successor).collect();
        assert_eq!(successors, [Some(dc(5)), Some(dc(6))]);
    }

    #[test]
    fn a_loss_ends_the_change_that_would_wait_for_the_lost_one() {
        let leaving = wished(&first(3), &Wish::Remove(dc(1))).unwrap();
        let lost = wished(&leaving, &Wish::RemoveLost(dc(2))).unwrap();
        assert_eq!(lost.standing(dc(1)), Some(Standing::Open));
        let joining = wished(&first(3), &add(4)).unwrap();
        let lost = wished(&joining, &Wish::RemoveLost(dc(2))).unwrap();
        assert!(lost.is_gone(dc(4)));
        let itself = wished(&leaving, &Wish::RemoveLost(dc(1))).unwrap();
        assert_eq!(itself.standing(dc(1)), Some(Standing::Lost));
    }

    #[test]
    fn a_plan_for_another_version_is_refused() {
        let members = first(2);
        assert_eq!(refuse_outdated(&members, MembershipEpoch(1)), Ok(()));
        assert!(refuse_outdated(&members, MembershipEpoch(2)).is_err());
    }

    #[test]
    fn a_part_takes_newer_members_once_and_begins_anew_where_one_leaves() {
        let chains = vec![antecede_model::configuration::Chain::of(Vec::new())];
        let part = Datacenter::of("dc1".to_owned(), Vec::new(), chains);
        let joining = Arc::new(wished(&first(2), &add(3)).unwrap());
        let next = with_members(&part, &joining).unwrap();
        assert_eq!((next.epoch, next.chains[0].epoch), (Epoch(2), Epoch(1)));
        assert_eq!(with_members(&next, &joining), None);
        let leaving = Arc::new(wished(&first(2), &Wish::Remove(dc(2))).unwrap());
        let next = with_members(&part, &leaving).unwrap();
        assert_eq!((next.epoch, next.chains[0].epoch), (Epoch(2), Epoch(2)));
    }

    #[test]
    fn a_datacenter_acknowledges_when_all_nodes_that_may_answer_act() {
        let node = |number| NodeId { datacenter: dc(1), number };
        let mut part = Datacenter::of("dc1".to_owned(), vec![node(1), node(2)], Vec::new());
        part.membership = Some(Arc::new(first(2)));
        let mut facts = Facts { epoch: part.epoch, ..Facts::default() };
        facts.adopted.insert(node(1));
        assert_eq!(acknowledged(&part, &facts), MembershipEpoch(0));
        part.absent.insert(node(2));
        assert_eq!(acknowledged(&part, &facts), MembershipEpoch(1));
        facts.epoch = Epoch(9);
        assert_eq!(acknowledged(&part, &facts), MembershipEpoch(0), "of another state");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_ids_are_used_once_and_somebody_serves(
            moves in proptest::collection::vec((0..6_u8, 1..8_u16, any::<bool>()), 1..60),
        ) {
            let mut members = first(3);
            for (kind, id, flag) in moves {
                let before = members.clone();
                let next = match kind {
                    0 => wished(&members, &add(id)).ok(),
                    1 => wished(&members, &Wish::Remove(dc(id))).ok(),
                    2 => wished(&members, &Wish::RemoveLost(dc(id))).ok(),
                    3 => Some(say(&members, id, flag)),
                    4 => wished(&members, &Wish::Lapse(dc(id))).ok(),
                    _ => next_membership(&members).map(|(next, _)| next),
                };
                members = next.unwrap_or(members);
                let kept = before.gone.iter().all(|(id, gone)| members.gone.get(id) == Some(gone));
                prop_assert!(kept && members.members.keys().all(|id| !members.gone.contains_key(id)));
                let standings = |members: &Membership| -> Vec<(DatacenterId, Standing)> {
                    members.members.iter().map(|(id, member)| (*id, member.standing)).collect()
                };
                let grows = u64::from(standings(&before) != standings(&members));
                prop_assert_eq!(members.epoch.0, before.epoch.0 + grows);
                let serves = |member: &Member| {
                    matches!(member.standing, Standing::Open | Standing::Leaving)
                };
                prop_assert!(members.members.values().any(serves));
                let changing = members.members.values();
                let alone = changing.filter(|member| {
                    !matches!(member.standing, Standing::Open | Standing::Lost)
                });
                let alone = alone.count();
                prop_assert!(alone <= 1 && (alone == 0 || members.lost().next().is_none()));
            }
        }
    }
}
