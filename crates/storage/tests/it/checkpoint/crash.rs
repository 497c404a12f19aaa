//! Power losses at every operation: what was reported is there, a batch is there whole or not.

use antecede_storage::SimulatedDisk;
use antecede_storage::checkpoint::{CheckpointStore, RealCheckpoints, SimulatedCheckpoints};

use super::every::changes;
use super::{Model, apply, contents, meta, open, options, put};
use crate::scene::{Draw, NODE_1};

/// The states that batches lead through, the first one empty; and how many of them were reported.
#[derive(Default)]
struct Known {
    states: Vec<Model>,
    reported: usize,
}

/// Opens, and writes batches until it is enough or the power goes.
fn work(disk: &SimulatedDisk, batches: usize, draw: &mut Draw) -> Known {
    let mut known = Known { states: vec![Model::new()], reported: 0 };
    let Ok(store) = RealCheckpoints::open(disk.clone(), options(), NODE_1) else {
        return known;
    };
    for _ in 0..batches {
        let mut model = known.states.last().unwrap().clone();
        let batch = apply(&mut model, &changes(draw));
        known.states.push(model);
        if store.write(&batch).is_err() {
            return known;
        }
        known.reported = known.states.len() - 1;
    }
    known
}

#[test]
fn a_reported_batch_survives_a_power_loss_at_every_operation() {
    const BATCHES: usize = 4;
    let total = {
        let disk = SimulatedDisk::new();
        assert_eq!(work(&disk, BATCHES, &mut Draw(1)).reported, BATCHES);
        disk.operations()
    };
    assert!(40 < total, "only {total} operations to cut the power in");
    let (mut kept_count, mut lost_count) = (0, 0);
    for operations in 0..=total {
        let disk = SimulatedDisk::new();
        disk.cut_power_after(operations);
        let known = work(&disk, BATCHES, &mut Draw(1));
        let after_the_process = (disk.reopen(), "process");
        let after_power = (0..3).map(|seed| (disk.crash(operations * 10 + seed), "power"));
        for (found, lost) in after_power.chain([after_the_process]) {
            let found = contents(&open(found));
            let state = known.states[known.reported..].iter().position(|state| *state == found);
            let state = state.unwrap_or_else(|| {
                panic!("{lost} lost after {operations}: not a state since {}", known.reported)
            });
            if known.reported + 1 < known.states.len() {
                kept_count += u32::from(state == 1);
                lost_count += u32::from(state == 0);
            }
        }
    }
    assert!(0 < kept_count && 0 < lost_count, "kept {kept_count}, lost {lost_count}");
}

#[test]
fn stores_survive_many_generations_of_power_losses() {
    for seed in 0..25 {
        let mut draw = Draw(seed);
        let mut disk = SimulatedDisk::new();
        let mut model = Model::new();
        for generation in 0..6 {
            if draw.below(3) != 0 {
                disk.cut_power_after(draw.below(120));
            }
            let mut states = vec![model.clone()];
            let mut reported = 0;
            if let Ok(store) = RealCheckpoints::open(disk.clone(), options(), NODE_1) {
                for _ in 0..draw.below(6) {
                    let batch = apply(&mut model, &changes(&mut draw));
                    states.push(model.clone());
                    if store.write(&batch).is_err() {
                        break;
                    }
                    reported = states.len() - 1;
                }
            }
            let is_power = draw.below(3) != 0;
            disk = if is_power { disk.crash(draw.below(1 << 30)) } else { disk.reopen() };
            if draw.below(3) == 0 {
                // Power goes while opening, too.
                disk.cut_power_after(draw.below(20));
                drop(RealCheckpoints::open(disk.clone(), options(), NODE_1));
                disk = disk.crash(draw.below(1 << 30));
            }
            let store = open(disk.clone());
            let found = contents(&store);
            drop(store);
            assert!(
                states[reported..].contains(&found),
                "seed {seed}, generation {generation}: not a state since {reported}"
            );
            model = found;
            disk = disk.reopen();
        }
    }
}

#[test]
fn a_simulated_crash_keeps_what_was_finished_and_whole_batches_of_the_rest() {
    let store = SimulatedCheckpoints::new();
    let mut states = vec![Model::new()];
    for n in 0..5 {
        let mut model = states.last().unwrap().clone();
        let batch = apply(&mut model, &[put(1, "a", &format!("{n}")), meta(1, &format!("{n}"))]);
        states.push(model);
        store.begin(batch);
        if n < 2 {
            assert!(store.finish().unwrap());
        }
    }
    assert_eq!(contents(&store), states[2], "what is not finished is not seen");
    let mut found_states = Vec::new();
    for seed in 0..20 {
        let found = contents(&store.crash(seed));
        assert_eq!(found, contents(&store.crash(seed)), "the same seed gives the same crash");
        found_states.push(states.iter().position(|state| *state == found).expect("a state"));
    }
    found_states.sort_unstable();
    found_states.dedup();
    assert_eq!(found_states, [2, 3, 4, 5]);
    for _ in 0..3 {
        assert!(store.finish().unwrap());
    }
    assert!(!store.finish().unwrap());
    assert_eq!(contents(&store.crash(0)), states[5]);
    assert_eq!(store.written_count(), 5);
}
