//! The table of all models: what each one says, where it comes from, and which file judges it.
//!
//! One row a model, one file with one entry function for each row; the four session guarantees
//! share theirs.

use crate::{
    causal, converged, durable,
    history::History,
    judge::JudgeOptions,
    linearizable, online,
    order::Order,
    session::{self, Guarantee},
    verdict::Verdict,
};

/// What a model judges.
pub(crate) struct Subject<'h> {
    pub(crate) history: &'h History,
    /// Laid out once for all models; or why that cannot be done.
    pub(crate) order: Result<Order<'h>, Verdict>,
    /// What causal+ says after the fact and by versions: other models may follow from them.
    pub(crate) causal: Verdict,
    pub(crate) online: Verdict,
    pub(crate) options: JudgeOptions,
}

impl<'h> Subject<'h> {
    pub(crate) fn new(history: &'h History, options: JudgeOptions) -> Self {
        let order = Order::new(history, options.order);
        let causal = match &order {
            Ok(order) => causal::check_order(order),
            Err(verdict) => verdict.clone(),
        };
        let online = online::check(history, options.order);
        Self { history, order, causal, online, options }
    }
}

/// A consistency model.
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// What it promises, in one sentence.
    pub property: &'static str,
    /// Where it was first said.
    pub source: &'static str,
    /// The file that judges it.
    pub file: &'static str,
    pub(crate) check: fn(&Subject<'_>) -> Verdict,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All models, in the order in which a report tells them.
pub const MODELS: &[Model] = &[
    Model {
        name: "linearizable",
        property: "each key in a datacenter is a linearizable register",
        source: "CRAQ, section 2; Herlihy and Wing 1990",
        file: "linearizable.rs",
        check: |subject| linearizable::check(subject.history, subject.options.linearizable),
    },
    Model {
        name: "causal+",
        property: "no read shows a write before what it depends on, and writes have one order",
        source: "COPS, section 3.1; Bouajjani et al. 2017",
        file: "causal.rs",
        check: |subject| subject.causal.clone(),
    },
    Model {
        name: "causal+ by versions",
        property: "the order of versions extends cause and effect, and reads follow it",
        source: "COPS, section 3.2",
        file: "online.rs",
        check: |subject| subject.online.clone(),
    },
    Model {
        name: "read your writes",
        property: "a session sees what it wrote",
        source: "Terry et al. 1994",
        file: "session.rs",
        check: |subject| guarantee(subject, Guarantee::ReadYourWrites),
    },
    Model {
        name: "monotonic reads",
        property: "a session never sees older values than before",
        source: "Terry et al. 1994",
        file: "session.rs",
        check: |subject| guarantee(subject, Guarantee::MonotonicReads),
    },
    Model {
        name: "monotonic writes",
        property: "writes of a session are seen in its order",
        source: "Terry et al. 1994",
        file: "session.rs",
        check: |subject| guarantee(subject, Guarantee::MonotonicWrites),
    },
    Model {
        name: "writes follow reads",
        property: "a write is seen only with what its session had read",
        source: "Terry et al. 1994",
        file: "session.rs",
        check: |subject| guarantee(subject, Guarantee::WritesFollowReads),
    },
    Model {
        name: "converged",
        property: "after healing all datacenters hold the same",
        source: "COPS, section 3.2",
        file: "converged.rs",
        check: |subject| converged::check(subject.history),
    },
    Model {
        name: "durable",
        property: "nothing that was acknowledged is lost",
        source: "Chain Replication, section 3",
        file: "durable.rs",
        check: |subject| durable::check(subject.history),
    },
];

fn guarantee(subject: &Subject<'_>, guarantee: Guarantee) -> Verdict {
    let by_versions = match subject.online {
        Verdict::Passed { .. } | Verdict::NothingToCheck { .. } => true,
        Verdict::Violated { .. } | Verdict::Undecided { .. } => false,
    };
    let is_implied = subject.causal.is_passed() && by_versions;
    match &subject.order {
        Ok(order) => session::check_order(order, guarantee, is_implied),
        Err(verdict) => session::without_order(verdict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_name_of_its_own() {
        let mut names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MODELS.len());
    }
}
