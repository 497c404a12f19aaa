//! Which datacenters a deployment begins with, as the settings say, and who agrees on them later.
//!
//! A datacenter that the settings call added belongs to none of that: it is a member once the
//! deployment has agreed on it. So all nodes may have the same file, older ones an older one, and
//! all of them derive the same first members.

use std::collections::BTreeMap;

use antecede_model::{
    ids::{DatacenterId, NodeId},
    membership::{Member, Membership},
};

use super::{Config, ControlStore, DatacenterConfig, EtcdConfig};

/// Stands for the witness among those who agree; no datacenter has this number.
pub(crate) const WITNESS: NodeId = NodeId { datacenter: DatacenterId(0), number: 1 };

/// Datacenters of which a node takes part at first: more than five members only make the agreement
/// slower.
const FOUNDERS_MAX: usize = 5;

/// Where the deployment's datacenters are agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeploymentStore<'a> {
    /// Among one node of each datacenter.
    Embedded,
    /// By an etcd that all datacenters ask.
    Etcd(&'a EtcdConfig),
}

impl Config {
    /// The datacenters with which the deployment began.
    pub(crate) fn founders(&self) -> impl Iterator<Item = &DatacenterConfig> {
        self.datacenters.iter().filter(|there| !there.is_added)
    }

    /// Whether this node's datacenter was added to a deployment that was there before.
    pub(crate) fn is_added(&self) -> bool {
        self.founders().all(|there| there.id != self.node.datacenter)
    }

    /// The first members: the same in every datacenter.
    pub(crate) fn first_members(&self) -> Membership {
        let member = |there: &DatacenterConfig| {
            let node = |(number, addresses): (u16, &super::NodeAddresses)| {
                (NodeId { datacenter: there.id, number }, addresses.peer.clone())
            };
            let nodes = (1_u16..).zip(&there.nodes).map(node).collect();
            (there.id, Member::open(there.name.clone(), nodes))
        };
        Membership::first(self.founders().map(member))
    }

    /// Where the datacenters are agreed on.
    ///
    /// # Errors
    /// Why nowhere, and what to do.
    pub(crate) fn deployment_store(&self) -> Result<DeploymentStore<'_>, String> {
        if self.datacenters.len() < 2 {
            let why = "the settings name one datacenter, and nobody to agree on more: name the \
                       other one in the settings of all nodes (with added = true), and restart them";
            return Err(why.to_owned());
        }
        match self.control.store {
            ControlStore::None => {
                Err("chains are as the settings say (control.store = \"none\"), \
                                       and so are datacenters: set control.store on all nodes"
                    .to_owned())
            }
            ControlStore::Embedded | ControlStore::Etcd => self.managed_store(),
        }
    }

    fn managed_store(&self) -> Result<DeploymentStore<'_>, String> {
        if let Some(there) = self.datacenters.iter().find(|there| !self.is_managed_in(there.id)) {
            return Err(format!(
                "datacenter {} has no address for the agreement: set control beside the other \
                 addresses of its first node, in the settings of all nodes",
                there.name
            ));
        }
        match &self.control.etcd {
            None => Ok(DeploymentStore::Embedded),
            Some(_) => {
                self.control.deployment_etcd.as_ref().map(DeploymentStore::Etcd).ok_or_else(|| {
                    "control.deployment_endpoints is missing: name an etcd that the nodes of all \
                     datacenters ask, in the settings of all nodes"
                        .to_owned()
                })
            }
        }
    }

    /// Who agrees on the datacenters at first, and where they are reached: the first node of each
    /// datacenter with which the deployment began, and the witness. None where nobody does.
    pub(crate) fn deployment_members(&self) -> BTreeMap<NodeId, String> {
        if self.deployment_store() != Ok(DeploymentStore::Embedded) {
            return BTreeMap::new();
        }
        let first = |there: &DatacenterConfig| {
            let node = NodeId { datacenter: there.id, number: 1 };
            Some((node, there.nodes.first()?.control.clone()?))
        };
        let witness = self.control.witness.clone().map(|address| (WITNESS, address));
        let places = FOUNDERS_MAX - usize::from(witness.is_some());
        self.founders().filter_map(first).take(places).chain(witness).collect()
    }

    /// Where this node takes part in the agreement on datacenters; `None` if it does not.
    pub(crate) fn deployment_address(&self) -> Option<String> {
        if self.deployment_store() != Ok(DeploymentStore::Embedded) || self.node.number != 1 {
            return None;
        }
        self.control_members().get(&self.node).cloned()
    }
}
