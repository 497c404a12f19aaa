//! Makes a history as large as asked, writes it as JSON lines, reads it back and judges it.
//!
//! The clients of three datacenters read and write their own datacenter's copy, which takes the
//! other datacenters' writes a little later. Run it under `time` (nothing here asks for the time):
//! `cargo run --release -p antecede-check --example speed -- OPERATIONS SESSIONS KEYS [versions] [broken]`;
//! broken: what comes last wins, so that proofs must be found.

use std::collections::{BTreeMap, VecDeque};

use antecede_check::{
    History, JudgeOptions, Kind, Record, Version, history::FinalRecord, jsonl, judge,
};

const DCS: usize = 3;
const DELAY: u64 = 300;

struct Copy {
    state: BTreeMap<u64, (String, Version)>,
    arriving: VecDeque<(u64, u64, String, Version)>,
}

fn main() -> Result<(), jsonl::ReadHistoryError> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (count, sessions, keys) = match numbers[..] {
        [count, sessions, keys, ..] => (count, sessions, keys),
        _ => (200_000, 100, 1000),
    };
    let with_versions = std::env::args().any(|word| word == "versions");
    let is_broken = std::env::args().any(|word| word == "broken");
    let made = make([count, sessions, keys], with_versions, is_broken);
    let file = jsonl::write(&made, Vec::new()).unwrap_or_default();
    drop(made);
    show(&format!("{} bytes", file.len()));
    let history = jsonl::read(&file[..])?;
    drop(file);
    show(&judge(&history, &JudgeOptions::default()).to_string());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example speaks to the terminal")]
fn show(text: &str) {
    println!("{text}");
}

fn make([count, sessions, keys]: [u64; 3], with_versions: bool, is_broken: bool) -> History {
    let mut history = History::new();
    let mut dcs: Vec<Copy> =
        (0..DCS).map(|_| Copy { state: BTreeMap::new(), arriving: VecDeque::new() }).collect();
    let mut chance = 1u64;
    let mut below = |limit: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (chance >> 33) % limit
    };
    for step in 1..=count {
        let session = below(sessions);
        let (dc, origin) = (session % DCS as u64, u16::try_from(session % DCS as u64).unwrap_or(0));
        let place = usize::try_from(dc).unwrap_or(0);
        arrive(&mut dcs[place], step.saturating_sub(DELAY), is_broken);
        // Some keys are asked for far more often than others.
        let key = below(keys).min(below(keys)).min(below(keys));
        let is_read = below(2) == 0;
        let op = if is_read { Kind::Read } else { Kind::Write };
        let mut record = Record::new(session, step, op, &format!("key:{key}"));
        record = record.at(origin, step * 1000, Some(step * 1000 + 900));
        let version = if is_read {
            let held = dcs[place].state.get(&key);
            record.value = held.map(|(value, _)| value.clone());
            held.map(|(_, version)| *version)
        } else {
            let value = format!("value:{step}");
            let version = Version(step, origin);
            record.value = Some(value.clone());
            for (other, copy) in dcs.iter_mut().enumerate() {
                if other == place {
                    copy.state.insert(key, (value.clone(), version));
                } else {
                    copy.arriving.push_back((step, key, value.clone(), version));
                }
            }
            Some(version)
        };
        record.version = version.filter(|_| with_versions);
        history.push(&record);
    }
    for (place, copy) in dcs.iter_mut().enumerate() {
        arrive(copy, u64::MAX, is_broken);
        for (key, (value, version)) in &copy.state {
            history.push_final(&FinalRecord {
                dc: u16::try_from(place).unwrap_or(0),
                node: format!("node:{place}"),
                key: format!("key:{key}"),
                value: Some(value.clone()),
                version: Some(*version).filter(|_| with_versions),
            });
        }
    }
    history
}

fn arrive(copy: &mut Copy, until: u64, is_broken: bool) {
    while copy.arriving.front().is_some_and(|&(step, ..)| step <= until) {
        let Some((_, key, value, version)) = copy.arriving.pop_front() else { break };
        let is_newer = copy.state.get(&key).is_none_or(|&(_, held)| held < version);
        if is_newer || is_broken {
            copy.state.insert(key, (value, version));
        }
    }
}
