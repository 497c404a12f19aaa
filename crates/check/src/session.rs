//! Checks the four session guarantees one by one (Terry et al., 1994).
//!
//! Each guarantee says, for a read, which writes it must not be older than. Where both writes have
//! versions, these decide. Else the read makes a conflict (the one write comes before the other),
//! and a guarantee is broken if its conflicts and the causal order have a cycle: then no order of
//! the writes can be found in which the read was not older.
//!
//! Causal+ implies all four; where it is broken, these say what a client would have noticed.
//! A write is followed by what its writer had read *last* of a key: what a writer read before that
//! is left to monotonic reads.

use rustc_hash::FxHashMap;

use crate::{
    cycle::{find_cycle, is_cyclic},
    explain::{ConflictSet, Teller, chain},
    history::{History, Symbol},
    order::{Event, Order, OrderOptions, Source, What},
    verdict::{Pattern, Verdict, Violation},
};

/// One of the four promises to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// A read is not older than what its session wrote before.
    ReadYourWrites,
    /// A read is not older than what its session read before.
    MonotonicReads,
    /// Who sees a write sees what its session wrote before.
    MonotonicWrites,
    /// Who sees a write sees what its session had read before.
    WritesFollowReads,
}

/// All four, in the order in which they are told.
pub const GUARANTEES: [Guarantee; 4] = [
    Guarantee::ReadYourWrites,
    Guarantee::MonotonicReads,
    Guarantee::MonotonicWrites,
    Guarantee::WritesFollowReads,
];

impl Guarantee {
    fn pattern(self) -> Pattern {
        match self {
            Self::ReadYourWrites => Pattern::ReadYourWrites,
            Self::MonotonicReads => Pattern::MonotonicReads,
            Self::MonotonicWrites => Pattern::MonotonicWrites,
            Self::WritesFollowReads => Pattern::WritesFollowReads,
        }
    }

    fn summary(self) -> &'static str {
        match self {
            Self::ReadYourWrites => "a session read something older than it had written",
            Self::MonotonicReads => "a session read something older than it had read",
            Self::MonotonicWrites => "a write was seen without an earlier one of its session",
            Self::WritesFollowReads => "a write was seen without what its session had read",
        }
    }

    fn nothing(self) -> &'static str {
        match self {
            Self::ReadYourWrites => "no session read a key that it had written",
            Self::MonotonicReads => "no session read a key twice",
            Self::MonotonicWrites => "no session read a key after it saw a later write elsewhere",
            Self::WritesFollowReads => "no session read a key that a writer it saw had read",
        }
    }
}

/// Judges one guarantee.
pub fn check(history: &History, guarantee: Guarantee, options: OrderOptions) -> Verdict {
    match Order::new(history, options) {
        Ok(order) => check_order(&order, guarantee, false),
        Err(verdict) => without_order(&verdict),
    }
}

/// What is said of a guarantee where the history cannot be laid out.
pub(crate) fn without_order(verdict: &Verdict) -> Verdict {
    let why = match verdict.violation() {
        Some(violation) => format!("{}, so no read can be judged", violation.summary),
        None => verdict.to_string(),
    };
    Verdict::Undecided { why }
}

/// The same as `check`, laid out already. `is_implied` tells that causal+ holds, so that only what
/// there is to judge has to be counted.
pub(crate) fn check_order(order: &Order<'_>, guarantee: Guarantee, is_implied: bool) -> Verdict {
    if !is_implied && is_cyclic(order) {
        let why = "some operation comes before itself, so no read can be judged".to_owned();
        return Verdict::Undecided { why };
    }
    let mut walk = Walk {
        order,
        guarantee,
        past: Past::new(order, guarantee),
        conflicts: ConflictSet::default(),
        checked: 0,
        is_implied,
    };
    for session in &order.sessions {
        if let Err(violation) = walk.session(session) {
            return violation.into();
        }
    }
    let checked = walk.checked;
    match find_cycle(order, &walk.conflicts.finish(order)) {
        Some(mut violation) => {
            violation.pattern = guarantee.pattern();
            guarantee.summary().clone_into(&mut violation.summary);
            violation.into()
        }
        None => Verdict::passed(checked, guarantee.nothing()),
    }
}

/// What a session did to one key: places in the session, growing, each with the write it is about.
struct Touches {
    session: u32,
    touches: Vec<(u32, u32)>,
}

/// For each key and session: its writes (monotonic writes), or what it read (writes follow reads).
#[derive(Default)]
struct Past {
    by_key: FxHashMap<Symbol, Vec<Touches>>,
}

impl Past {
    fn new(order: &Order<'_>, guarantee: Guarantee) -> Self {
        let mut past = Self::default();
        let with_writes = match guarantee {
            Guarantee::ReadYourWrites | Guarantee::MonotonicReads => return past,
            Guarantee::MonotonicWrites => true,
            Guarantee::WritesFollowReads => false,
        };
        for (node, place) in (0u32..).zip(&order.nodes) {
            for event in order.events(node) {
                let about = match event.what {
                    What::Write { .. } if with_writes => node,
                    What::Read(Source::Node(source)) if !with_writes => source,
                    What::Write { .. } | What::Read(_) => continue,
                };
                let sessions = past.by_key.entry(event.key).or_default();
                let found = sessions.iter_mut().rev().find(|one| one.session == place.session);
                match found {
                    Some(one) => one.touches.push((place.index, about)),
                    None => sessions.push(Touches {
                        session: place.session,
                        touches: vec![(place.index, about)],
                    }),
                }
            }
        }
        past
    }
}

struct Walk<'o, 'h> {
    order: &'o Order<'h>,
    guarantee: Guarantee,
    past: Past,
    conflicts: ConflictSet,
    /// Reads that were judged.
    checked: u64,
    is_implied: bool,
}

impl Walk<'_, '_> {
    fn session(&mut self, nodes: &[u32]) -> Result<(), Violation> {
        // The write that a read of the key must not be older than.
        let mut bounds: FxHashMap<Symbol, u32> = FxHashMap::default();
        // How far each other session was seen.
        let mut seen: FxHashMap<u32, u32> = FxHashMap::default();
        for &node in nodes {
            self.see(node, &mut seen);
            let events = self.order.events(node);
            for (place, event) in (self.order.first_event(node)..).zip(events) {
                let What::Read(source) = event.what else { continue };
                match self.guarantee {
                    Guarantee::ReadYourWrites | Guarantee::MonotonicReads => {
                        if let Some(&bound) = bounds.get(&event.key)
                            && source != Source::Unclear
                        {
                            self.checked += 1;
                            self.bound(event, place, source, bound)?;
                        }
                    }
                    Guarantee::MonotonicWrites | Guarantee::WritesFollowReads => {
                        let demanded = self.demanded(node, event, &seen);
                        self.checked +=
                            u64::from(!demanded.is_empty() && source != Source::Unclear);
                        for bound in demanded {
                            self.bound(event, place, source, bound)?;
                        }
                    }
                }
                if let (Guarantee::MonotonicReads, Source::Node(source)) = (self.guarantee, source)
                {
                    bounds.insert(event.key, source);
                }
            }
            if self.guarantee == Guarantee::ReadYourWrites {
                let writes = events.iter().filter(|event| matches!(event.what, What::Write { .. }));
                bounds.extend(writes.map(|event| (event.key, node)));
            }
        }
        Ok(())
    }

    /// Moves on how far other sessions were seen: up to, and without, these places.
    fn see(&self, node: u32, seen: &mut FxHashMap<u32, u32>) {
        // The write that was seen is itself a matter of monotonic reads; monotonic writes speak of
        // earlier ones. What a transaction read comes before what it wrote.
        let own = u32::from(self.guarantee == Guarantee::WritesFollowReads);
        for (source, _) in self.order.sources(node) {
            let mut at = Some((source, own));
            // A session that split off continues the one that it came from.
            while let Some((write, more)) = at {
                let place = &self.order.nodes[write as usize];
                let limit = seen.entry(place.session).or_default();
                *limit = (*limit).max(place.index + more);
                let first = self.order.at(place.session, 1);
                at = self.order.nodes[first as usize].parent.map(|parent| (parent, 1));
            }
        }
    }

    /// What the sessions that were seen had last written, or read, of the key; one is enough if
    /// nothing has to be compared.
    fn demanded(&self, node: u32, event: &Event, seen: &FxHashMap<u32, u32>) -> Vec<u32> {
        let own = self.order.nodes[node as usize].session;
        let sessions = self.past.by_key.get(&event.key).map_or(&[][..], Vec::as_slice);
        let others = sessions.iter().filter(|one| one.session != own);
        let lasts = others.filter_map(|one| {
            let limit = *seen.get(&one.session)?;
            let count = one.touches.partition_point(|&(index, _)| index < limit);
            count.checked_sub(1).map(|place| one.touches[place].1)
        });
        lasts.take(if self.is_implied { 1 } else { usize::MAX }).collect()
    }

    /// Demands that a read that returned `source` is not older than the write `bound`.
    fn bound(
        &mut self,
        event: &Event,
        reader: u32,
        source: Source,
        bound: u32,
    ) -> Result<(), Violation> {
        if self.is_implied {
            return Ok(());
        }
        let returned = match source {
            Source::Node(returned) => returned,
            Source::Unclear => return Ok(()),
            Source::Initial => return Err(self.proof(event, bound, None)),
        };
        if returned == bound {
            return Ok(());
        }
        let version = |node: u32| {
            let write = self.order.write_of(node, event.key)?;
            self.order.operation(write).version
        };
        match (version(bound), version(returned)) {
            (Some(demanded), Some(found)) if found < demanded => {
                Err(self.proof(event, bound, Some(returned)))
            }
            (Some(_), Some(_)) => Ok(()),
            (_, None) | (None, _) => {
                let place = &self.order.nodes[bound as usize];
                self.conflicts.add(returned, (place.session, place.index), reader);
                Ok(())
            }
        }
    }

    fn proof(&self, event: &Event, bound: u32, returned: Option<u32>) -> Violation {
        let mut teller =
            Teller::new(self.order, self.guarantee.pattern(), self.guarantee.summary());
        if let Some(returned) = returned {
            teller = teller.show_write(returned, event.key, "wrote the older value");
        }
        let reader = self.order.node_of_operation(event.operation);
        teller = teller.show_write(bound, event.key, "wrote the key");
        if let Some(links) =
            reader.and_then(|reader| chain(self.order, bound, reader, None, &|_| true, u32::MAX))
        {
            teller = teller.follow(bound, &links);
        }
        teller.show(event, "must not be older, and is").finish()
    }
}
