//! Decides in one sweep whether reads and writes of unique values are a linearizable register.
//!
//! A write and the reads that returned it form a cluster. Its zone reaches from the first moment at
//! which one of them had ended to the last moment at which one of them began. Forward zones (the
//! first is earlier) are times at which the register certainly held the value: no two may overlap.
//! A backward zone must not lie inside a forward one (Gibbons and Korach 1997).
//!
//! Assumes: values are unique, nobody removes the key, every read value was written (`linearizable`
//! ensures it).

/// One operation: where its value's write stands, and its times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Place of the operation in the caller's list.
    pub(crate) place: usize,
    /// The number of its value; 0 is the initial state.
    pub(crate) cluster: usize,
    pub(crate) is_write: bool,
    pub(crate) call: u64,
    /// `u64::MAX` if it never returned.
    pub(crate) ret: u64,
}

/// Operations, by place, that no order explains, with their parts in the proof.
pub(crate) type Clash = Vec<(usize, &'static str)>;

#[derive(Clone, Copy)]
struct Zone {
    /// The operation that ended first, and when; the initial state ended before all.
    first_end: (u64, Option<usize>),
    /// The operation that began last, and when.
    last_start: (u64, Option<usize>),
    write: Option<usize>,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.first_end.0 < self.last_start.0
    }

    fn low(&self) -> u64 {
        self.first_end.0.min(self.last_start.0)
    }

    fn high(&self) -> u64 {
        self.first_end.0.max(self.last_start.0)
    }
}

/// Why `spans` are no linearizable register; `None` if they are.
pub(crate) fn clash(spans: &[Span]) -> Option<Clash> {
    let count = spans.iter().map(|span| span.cluster + 1).max()?;
    let mut writes: Vec<Option<&Span>> = vec![None; count];
    for span in spans.iter().filter(|span| span.is_write) {
        writes[span.cluster] = Some(span);
    }
    let early = |read: &&Span| {
        writes[read.cluster].is_some_and(|write| !read.is_write && read.ret < write.call)
    };
    if let Some(read) = spans.iter().find(early) {
        let write = writes[read.cluster].map(|write| write.place);
        return Some(vec![
            (read.place, "returned the value and had ended"),
            (write.unwrap_or(read.place), "before this write of it began"),
        ]);
    }
    clash_of_zones(zones(spans, count))
}

fn zones(spans: &[Span], count: usize) -> Vec<Zone> {
    let empty = Zone { first_end: (u64::MAX, None), last_start: (0, None), write: None };
    let mut zones = vec![empty; count];
    zones[0].first_end = (0, None);
    for span in spans {
        let zone = &mut zones[span.cluster];
        // One nanosecond is added, so that the initial state ends before all that begin at 0.
        let (call, ret) = (span.call.saturating_add(1), span.ret.saturating_add(1));
        if zone.first_end.1.is_none() && span.cluster != 0 || ret < zone.first_end.0 {
            zone.first_end = (ret, Some(span.place));
        }
        if zone.last_start.1.is_none() || zone.last_start.0 < call {
            zone.last_start = (call, Some(span.place));
        }
        if span.is_write {
            zone.write = Some(span.place);
        }
    }
    zones.retain(|zone| zone.last_start.1.is_some());
    zones
}

fn clash_of_zones(mut zones: Vec<Zone>) -> Option<Clash> {
    zones.sort_by_key(|zone| (zone.low(), zone.high()));
    // Of the forward zones so far, the one that reaches furthest: they must not overlap.
    let mut forward: Vec<&Zone> = Vec::new();
    for zone in zones.iter().filter(|zone| zone.is_forward()) {
        if let Some(last) = forward.last()
            && zone.low() < last.high()
        {
            return Some(overlap(last, zone));
        }
        forward.push(zone);
    }
    for zone in zones.iter().filter(|zone| !zone.is_forward()) {
        let before = forward.partition_point(|other| other.low() < zone.low());
        let around = before.checked_sub(1).map(|place| forward[place]);
        if let Some(around) = around
            && zone.high() < around.high()
        {
            return Some(inside(zone, around));
        }
    }
    None
}

fn overlap(a: &Zone, b: &Zone) -> Clash {
    let mut clash = Vec::new();
    let mut show = |place: Option<usize>, why| {
        if let Some(place) = place
            && clash.iter().all(|&(shown, _)| shown != place)
        {
            clash.push((place, why));
        }
    };
    show(a.write, "wrote one value");
    show(a.first_end.1, "had ended, so the key held that value before");
    show(b.write, "wrote another value");
    show(b.first_end.1, "had ended, so the key held the other value before");
    show(a.last_start.1, "began after both, and still is about the one value");
    show(b.last_start.1, "began after both, and still is about the other value");
    clash
}

fn inside(zone: &Zone, around: &Zone) -> Clash {
    let mut clash = Vec::new();
    let mut show = |place: Option<usize>, why| {
        if let Some(place) = place
            && clash.iter().all(|&(shown, _)| shown != place)
        {
            clash.push((place, why));
        }
    };
    show(around.write, "wrote one value");
    show(around.first_end.1, "had ended, so the key held that value from here");
    show(zone.write, "began later and wrote another value");
    show(zone.last_start.1, "began later, about the other value");
    show(zone.first_end.1, "had ended, so the other value was there in between");
    show(around.last_start.1, "began still later and found the one value again");
    clash
}
