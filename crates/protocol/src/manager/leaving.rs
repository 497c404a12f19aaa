//! Says when a node that is asked to stop may do so.
//!
//! It serves on while it is needed. Then it gives up its right to serve, lets what its heads have
//! taken be committed, and says that it leaves; it may stop once it is out of all chains.

use antecede_model::{configuration::Datacenter, ids::NodeId};

/// Whether a node is the only one to serve some shard that another one may serve soon.
#[must_use]
pub fn is_needed(part: &Datacenter, node: NodeId) -> bool {
    part.chains.iter().any(|chain| {
        let may_come = chain.waiting.keys().any(|other| !part.absent.contains(other));
        chain.serving == [node] && may_come
    })
}

/// Whether a node serves nothing any more, or what nobody else will take: the others leave as well.
#[must_use]
pub fn is_out(part: &Datacenter, node: NodeId) -> bool {
    part.chains.iter().all(|chain| !chain.serving.contains(&node) || chain.serving == [node])
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        configuration::{Chain, Waiting},
        ids::{DatacenterId, Epoch},
    };

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(1), number }
    }

    /// Two chains of three nodes: one that all serve, and another one.
    fn part(serving: &[u16], waiting: &[u16], absent: &[u16]) -> Datacenter {
        let chain = |serving: &[u16], waiting: &[u16]| Chain {
            epoch: Epoch(1),
            serving: serving.iter().map(|number| node(*number)).collect(),
            waiting: waiting.iter().map(|at| (node(*at), Waiting::Offline)).collect(),
        };
        let chains = vec![chain(&[1, 2, 3], &[]), chain(serving, waiting)];
        let mut part = Datacenter::of("here".to_owned(), [1, 2, 3].map(node).to_vec(), chains);
        part.absent = absent.iter().map(|number| node(*number)).collect();
        part
    }

    #[test]
    fn the_only_one_that_serves_is_needed_while_another_may_come() {
        assert!(!is_needed(&part(&[1, 2], &[3], &[]), node(1)));
        assert!(is_needed(&part(&[1], &[2, 3], &[]), node(1)));
        assert!(is_needed(&part(&[1], &[2, 3], &[3]), node(1)));
        assert!(!is_needed(&part(&[1], &[2, 3], &[2, 3]), node(1)), "nobody is there to come");
        assert!(!is_needed(&part(&[2], &[1, 3], &[]), node(1)));
    }

    #[test]
    fn a_node_is_out_once_it_serves_with_nobody() {
        let mut part = part(&[1, 2], &[3], &[]);
        assert!(!is_out(&part, node(1)));
        part.chains[0].serving = vec![node(2), node(3)];
        assert!(!is_out(&part, node(1)));
        part.chains[1].serving = vec![node(1)];
        assert!(is_out(&part, node(1)), "nobody is left to take it");
        part.chains[1].serving = vec![node(2)];
        assert!(is_out(&part, node(1)));
    }
}
