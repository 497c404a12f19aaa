//! Says in words what a change of the members waits for, and who has to move.
//!
//! It follows `antecede_protocol::manager::membership`: what has to be there before the next step.

use antecede_model::{
    ids::{DatacenterId, NodeId},
    membership::{Member, Membership, Standing},
};
use antecede_protocol::manager::membership::in_words;

/// What is said of one that lapses.
const LAPSING: &str = "lapsing: the others go on without it until it has come back by itself";

/// The change that is under way, such as "ap (4) is being added"; `None` while there is none.
pub(crate) fn change_of(members: &Membership) -> Option<String> {
    let (id, standing) = members.changing()?;
    let member = members.members.get(&id)?;
    let what = if member.is_lapsed { LAPSING } else { in_words(standing) };
    Some(format!("datacenter {} ({id}) is {what}", member.name))
}

/// What it waits for. `laggards` are nodes of the datacenter `here` that do not act by it yet.
pub(crate) fn waits_of(
    members: &Membership,
    here: DatacenterId,
    laggards: &[NodeId],
) -> Vec<String> {
    let Some((changing, standing)) = members.changing() else { return Vec::new() };
    let name = |id: DatacenterId| members.members.get(&id).map_or("?", |member| &member.name);
    let others = members.members.iter().filter(|(id, _)| **id != changing);
    let not_acting = |(id, member): (&DatacenterId, &Member)| {
        (member.acknowledged < members.epoch).then(|| {
            let nodes: Vec<String> = laggards.iter().map(ToString::to_string).collect();
            let why = if *id == here && !nodes.is_empty() {
                format!("node {} does not act by it yet", nodes.join(", node "))
            } else {
                "see that its nodes run and reach those of the others".to_owned()
            };
            format!(
                "datacenter {} has not acknowledged version {}: {why}",
                member.name, members.epoch
            )
        })
    };
    match standing {
        Standing::Open => Vec::new(),
        Standing::Joining { .. } => others.filter_map(not_acting).collect(),
        Standing::Copying { from } => vec![format!(
            "datacenter {} copies what {} has, and then what came meanwhile",
            name(changing),
            name(from)
        )],
        Standing::Leaving => {
            let own = members.members.get(&changing);
            let silent = own.and_then(|own| not_acting((&changing, own)));
            vec![silent.unwrap_or_else(|| {
                format!("the others have not applied all that {} has written", name(changing))
            })]
        }
        Standing::Lost => {
            let silent: Vec<String> = others.clone().filter_map(not_acting).collect();
            let missing = others.filter(|(_, member)| {
                member.done < members.epoch && members.epoch <= member.acknowledged
            });
            let shares = missing.map(|(_, member)| {
                format!(
                    "datacenter {} has not all yet that any other has of {}",
                    member.name,
                    name(changing)
                )
            });
            silent.into_iter().chain(shares).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use antecede_protocol::manager::membership::{Said, Wish, wished, with_word_of};

    use super::*;

    const HERE: DatacenterId = DatacenterId(1);

    fn two() -> Membership {
        let member = |name: &str| Member::open(name.to_owned(), BTreeMap::new());
        Membership::first([(HERE, member("eu")), (DatacenterId(2), member("us"))])
    }

    #[test]
    fn who_has_not_acknowledged_is_named_with_the_nodes_that_are_known() {
        assert!(waits_of(&two(), HERE, &[]).is_empty());
        assert_eq!(change_of(&two()), None);
        let node = NodeId { datacenter: DatacenterId(3), number: 1 };
        let nodes = BTreeMap::from([(node, "host:1".to_owned())]);
        let (id, name) = (DatacenterId(3), "ap".to_owned());
        let joining = wished(&two(), &Wish::Add { id, name, nodes, from: None }).unwrap();
        assert_eq!(change_of(&joining).unwrap(), "datacenter ap (3) is being added");
        let late = [NodeId { datacenter: HERE, number: 3 }];
        assert_eq!(
            waits_of(&joining, HERE, &late),
            [
                "datacenter eu has not acknowledged version 2: node 1.3 does not act by it yet",
                "datacenter us has not acknowledged version 2: see that its nodes run and reach \
                 those of the others",
            ]
        );
        let said = Said { acknowledged: joining.epoch, ..Said::default() };
        let heard = with_word_of(&joining, HERE, said).unwrap();
        assert_eq!(waits_of(&heard, HERE, &late).len(), 1);
    }

    #[test]
    fn whose_data_is_waited_for_is_named() {
        let leaving = wished(&two(), &Wish::Remove(DatacenterId(2))).unwrap();
        let waits = waits_of(&leaving, HERE, &[]);
        assert!(waits[0].starts_with("datacenter us has not acknowledged version 2"), "{waits:?}");
        let said = Said { acknowledged: leaving.epoch, ..Said::default() };
        let heard = with_word_of(&leaving, DatacenterId(2), said).unwrap();
        let waits = waits_of(&heard, HERE, &[]);
        assert_eq!(waits, ["the others have not applied all that us has written"]);
        let lost = wished(&two(), &Wish::RemoveLost(DatacenterId(2))).unwrap();
        let heard = with_word_of(&lost, HERE, Said { acknowledged: lost.epoch, ..said }).unwrap();
        let waits = waits_of(&heard, HERE, &[]);
        assert_eq!(waits, ["datacenter eu has not all yet that any other has of us"]);
    }
}
