//! The configuration that holds now, and until when this node may act by it.
//!
//! Both are read in every batch: the configuration by one look at a number that tells whether it
//! has changed since the reader's copy, the lease by one number. A lease is stored after the
//! configuration that it was granted for has reached all replicas.
//!
//! Invariant: the epochs of a configuration that is taken are not below those of the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use antecede_model::{clock::Steady, configuration::Configuration};
use antecede_protocol::machine::Lease;
use parking_lot::RwLock;

/// What stands for a lease that does not end.
const UNBOUNDED: u64 = u64::MAX;

/// The configuration of a node.
#[derive(Debug)]
pub(crate) struct Current {
    configuration: RwLock<Arc<Configuration>>,
    /// The last one that all replicas have been told of.
    acted_on: RwLock<Arc<Configuration>>,
    /// How often the configuration was exchanged.
    version: AtomicU64,
    /// The end of the lease in nanoseconds of the steady clock.
    lease_until: AtomicU64,
    /// Whether the node will never answer again, whatever lease it gets.
    has_given_up: AtomicBool,
}

/// A reader's copy of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    version: u64,
    pub(crate) configuration: Arc<Configuration>,
}

impl Current {
    /// A first configuration, with a lease that does not end or has ended.
    pub(crate) fn new(configuration: Arc<Configuration>, lease: Lease) -> Self {
        let current = Self {
            acted_on: RwLock::new(Arc::clone(&configuration)),
            configuration: RwLock::new(configuration),
            version: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            has_given_up: AtomicBool::new(false),
        };
        current.lease_until.store(nanos_of(lease), Ordering::Release);
        current
    }

    /// The configuration.
    pub(crate) fn configuration(&self) -> Arc<Configuration> {
        Arc::clone(&self.configuration.read())
    }

    /// A copy that can be brought up to date.
    pub(crate) fn copied(&self) -> Copied {
        let configuration = self.configuration.read();
        let version = self.version.load(Ordering::Acquire);
        Copied { version, configuration: Arc::clone(&configuration) }
    }

    /// Brings a copy up to date.
    pub(crate) fn refresh(&self, copied: &mut Copied) {
        if self.version.load(Ordering::Acquire) != copied.version {
            *copied = self.copied();
        }
    }

    /// Exchanges the configuration.
    pub(crate) fn exchange(&self, next: Arc<Configuration>) {
        let mut configuration = self.configuration.write();
        *configuration = next;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The last configuration that all replicas have been told of.
    pub(crate) fn acted_on(&self) -> Arc<Configuration> {
        Arc::clone(&self.acted_on.read())
    }

    /// All replicas have been told of a configuration.
    pub(crate) fn act_on(&self, told: Arc<Configuration>) {
        *self.acted_on.write() = told;
    }

    /// Until when the node may answer.
    pub(crate) fn lease(&self) -> Lease {
        if self.has_given_up_lease() {
            return Lease::Until(Steady::default());
        }
        match self.lease_until.load(Ordering::Acquire) {
            UNBOUNDED => Lease::Unbounded,
            nanos => Lease::Until(Steady(Duration::from_nanos(nanos))),
        }
    }

    /// Ends the lease, and every later one. Whoever looks at a replica afterwards finds it without.
    pub(crate) fn give_up_lease(&self) {
        self.has_given_up.store(true, Ordering::SeqCst);
    }

    /// Whether it was given up.
    pub(crate) fn has_given_up_lease(&self) -> bool {
        self.has_given_up.load(Ordering::SeqCst)
    }

    /// Lets the node answer until then, or longer if it may.
    pub(crate) fn extend_lease(&self, until: Steady) {
        self.lease_until.fetch_max(nanos_of(Lease::Until(until)), Ordering::AcqRel);
    }
}

fn nanos_of(lease: Lease) -> u64 {
    match lease {
        Lease::Unbounded => UNBOUNDED,
        // The largest number stands for something else.
        Lease::Until(end) => {
            u64::try_from(end.0.as_nanos()).unwrap_or(UNBOUNDED).min(UNBOUNDED - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        configuration::Layout,
        ids::{DatacenterId, DeploymentId, Epoch},
        key::ShardCount,
    };

    use super::*;

    fn configuration() -> Configuration {
        Configuration::managed(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(4).unwrap(),
            chain_length: 3,
            datacenters: vec![(DatacenterId(1), "here".to_owned(), 3)],
        })
    }

    #[test]
    fn a_copy_is_brought_up_to_date_once_the_configuration_is_exchanged() {
        let current = Current::new(Arc::new(configuration()), Lease::Unbounded);
        let mut copied = current.copied();
        let first = Arc::clone(&copied.configuration);
        current.refresh(&mut copied);
        assert!(Arc::ptr_eq(&copied.configuration, &first));
        let mut next = configuration();
        next.datacenters.get_mut(&DatacenterId(1)).unwrap().epoch = Epoch(2);
        current.exchange(Arc::new(next));
        assert!(Arc::ptr_eq(&copied.configuration, &first), "a batch keeps what it began with");
        current.refresh(&mut copied);
        assert_eq!(copied.configuration.epoch(DatacenterId(1)), Epoch(2));
    }

    #[test]
    fn a_lease_grows_only_and_one_without_an_end_stays_so() {
        let at = |millis| Steady(Duration::from_millis(millis));
        let current = Current::new(Arc::new(configuration()), Lease::Until(Steady::default()));
        current.extend_lease(at(700));
        current.extend_lease(at(500));
        assert_eq!(current.lease(), Lease::Until(at(700)));
        current.give_up_lease();
        current.extend_lease(at(900));
        assert_eq!(current.lease(), Lease::Until(Steady::default()), "for ever");
        let fixed = Current::new(Arc::new(configuration()), Lease::Unbounded);
        fixed.extend_lease(at(700));
        assert_eq!(fixed.lease(), Lease::Unbounded);
    }
}
