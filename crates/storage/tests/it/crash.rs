//! Power losses at every write and at random moments: what was synced is there, what is there is a
//! prefix of what was appended, and what was cut off never comes back.

use antecede_storage::{Disk, Log, LogError, LogIndex, Options, SimulatedDisk};

use crate::scene::{Draw, NODE_1, Records, SMALL, open, record};

/// What is known about the log from outside.
#[derive(Clone, Default)]
struct Known {
    appended: Records,
    synced: usize,
}

impl Known {
    /// Checks what a recovery has found, and takes it as the new truth.
    fn check(&mut self, found: &Records, seed: u64) {
        assert!(self.synced <= found.len(), "seed {seed}: lost a synced record");
        assert!(found.len() <= self.appended.len(), "seed {seed}: found what nobody appended");
        assert!(*found == self.appended[..found.len()], "seed {seed}: found other records");
        self.appended.truncate(found.len());
        self.synced = found.len();
    }
}

/// Appends, writes and syncs as `draw` says, until it is enough or the power goes.
fn work(
    disk: &SimulatedDisk,
    known: &mut Known,
    generation: u64,
    steps: u64,
    draw: &mut Draw,
) -> Result<(), LogError> {
    let mut found = Records::new();
    let opened = Log::open(
        disk.clone(),
        Options { zero_ahead: generation.is_multiple_of(2), ..SMALL },
        NODE_1,
        |_, payload| found.push(payload.to_vec()),
    );
    let Ok((mut log, _)) = opened else {
        return Ok(()); // The power went while opening.
    };
    known.check(&found, generation);
    for _ in 0..steps {
        match draw.below(8) {
            0..=4 => {
                let bytes = record(generation, known.appended.len() as u64);
                log.append(&[&bytes[..5], &bytes[5..]]).unwrap();
                known.appended.push(bytes);
            }
            5 | 6 => {
                log.write()?;
            }
            _ => {
                log.write()?;
                let positions = log.sync()?;
                assert_eq!(positions.synced_to, positions.written_to);
                known.synced = usize::try_from(positions.synced_to.get()).unwrap();
            }
        }
    }
    Ok(())
}

#[test]
fn every_synced_record_survives_a_power_loss_at_every_operation() {
    let total = {
        let disk = SimulatedDisk::new();
        work(&disk, &mut Known::default(), 1, 120, &mut Draw(1)).unwrap();
        disk.operations()
    };
    assert!(50 < total, "the work has operations to cut the power in");
    let mut torn = 0;
    for operations in 0..=total {
        let disk = SimulatedDisk::new();
        disk.cut_power_after(operations);
        let mut known = Known::default();
        let _ended = work(&disk, &mut known, 1, 120, &mut Draw(1));
        for seed in 0..40 {
            let mut known = known.clone();
            let (_, found, report) = open(disk.crash(seed));
            known.check(&found, seed);
            torn += u64::from(0 < report.torn_bytes);
        }
    }
    assert!(100 < torn, "only {torn} crashes left a torn end");
}

#[test]
fn nothing_cut_off_comes_back_over_many_generations_of_crashes() {
    let mut cut_count = 0;
    for seed in 0..1500 {
        let mut draw = Draw(seed);
        let mut disk = SimulatedDisk::new();
        let mut known = Known::default();
        for generation in 0..8 {
            if draw.below(2) == 0 {
                disk.cut_power_after(draw.below(60));
            }
            let steps = draw.below(60);
            let _ended = work(&disk, &mut known, generation, steps, &mut draw);
            let appended = known.appended.len();
            // Now and then only the process ends; what it wrote must then last, once it was read.
            disk = if draw.below(4) == 0 { disk.reopen() } else { disk.crash(draw.below(1 << 30)) };
            if draw.below(3) == 0 {
                // Power goes during the recovery, too.
                disk.cut_power_after(draw.below(12));
                let _ended = work(&disk, &mut known, generation, 0, &mut draw);
                disk = disk.crash(draw.below(1 << 30));
            }
            let (log, found, _) = open(disk.clone());
            known.check(&found, seed);
            cut_count += u64::from(found.len() < appended);
            drop(log);
        }
    }
    assert!(1000 < cut_count, "only {cut_count} crashes cut something off");
}

#[test]
fn a_sync_covers_segments_that_were_sealed_before_it() {
    for seed in 0..300 {
        let disk = SimulatedDisk::new();
        let (mut log, _, _) = open(disk.clone());
        for number in 0..60 {
            log.append(&[&record(1, number)]).unwrap();
            log.write().unwrap();
        }
        let positions = log.sync().unwrap();
        assert_eq!(positions.synced_to, LogIndex::new(60));
        let (_, found, report) = open(disk.crash(seed));
        assert_eq!(found.len(), 60, "seed {seed}");
        assert!(2 < report.segments, "the records fill several segments");
        assert_eq!(report.torn_bytes, 0);
    }
}

#[test]
fn a_record_larger_than_a_segment_survives() {
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    let large = vec![7; 100_000];
    log.append(&[b"before"]).unwrap();
    log.append(&[&large]).unwrap();
    log.append(&[b"after"]).unwrap();
    log.flush().unwrap();
    drop(log);
    let (_, found, _) = open(disk.crash(3));
    assert_eq!(found, [b"before".to_vec(), large, b"after".to_vec()]);
}

#[test]
fn a_torn_end_is_cut_and_the_log_goes_on_behind_it() {
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    log.append(&[b"synced"]).unwrap();
    log.flush().unwrap();
    for number in 0..6 {
        log.append(&[&record(1, number)]).unwrap();
    }
    log.write().unwrap();
    let torn = (0..100).map(|seed| disk.crash(seed)).find_map(|crashed| {
        let (log, found, report) = open(crashed.clone());
        (0 < report.torn_bytes && found.len() < 6).then_some((crashed, log, found))
    });
    let (disk, mut log, mut found) = torn.expect("some crash tears the end");
    let first = disk.open("00000000000000000001.log").unwrap();
    let kept: usize = found.iter().map(|record| 24 + record.len()).sum();
    assert_eq!(disk.size(&first).unwrap(), 4096 + kept as u64, "its space is given back");
    log.append(&[b"of the next run"]).unwrap();
    log.flush().unwrap();
    drop(log);
    found.push(b"of the next run".to_vec());
    let (_, found_again, report) = open(disk.crash(1));
    assert_eq!(found_again, found);
    assert_eq!(report.torn_bytes, 0, "what was cut is gone from the disk");
}

#[test]
fn a_segment_is_never_read_beyond_the_beginning_of_the_next() {
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    log.append(&[b"synced"]).unwrap();
    log.flush().unwrap();
    log.append(&[b"lost"]).unwrap();
    log.write().unwrap();
    let name = "00000000000000000001.log";
    let mut stale = [0; 28];
    disk.read_at(&disk.open(name).unwrap(), 4096 + 30, &mut stale).unwrap();
    let crashed = (0..100).map(|seed| disk.crash(seed)).find_map(|crashed| {
        let (log, found, _) = open(crashed.clone());
        (found.len() == 1).then_some((crashed, log))
    });
    let (disk, mut log) = crashed.expect("some crash loses the second record");
    log.append(&[b"instead"]).unwrap();
    log.flush().unwrap();
    drop(log);
    // As if the file had never been cut.
    disk.write_at(&disk.open(name).unwrap(), 4096 + 30, &stale).unwrap();
    assert_eq!(open(disk).1, [b"synced".to_vec(), b"instead".to_vec()]);
}

#[test]
fn each_run_has_a_larger_boot_number() {
    let mut disk = SimulatedDisk::new();
    let mut boots = Vec::new();
    for seed in 0..6 {
        let (mut log, _, report) = open(disk.clone());
        assert_eq!(log.boot(), report.boot);
        boots.push(report.boot);
        if seed % 2 == 0 {
            log.append(&[b"unsynced"]).unwrap();
            log.write().unwrap();
        }
        drop(log);
        disk = disk.crash(seed);
    }
    assert_eq!(boots, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn power_may_go_at_every_operation_of_a_recovery() {
    let mut removed_count = 0;
    for seed in 0..60 {
        let disk = SimulatedDisk::new();
        let mut known = Known::default();
        work(&disk, &mut known, 1, 30, &mut Draw(seed)).unwrap();
        // Several segments that are not synced, so that later ones may stay when earlier are lost.
        let (mut log, found, _) = open(disk.reopen());
        drop(log);
        let disk = disk.reopen();
        (log, _, _) = open(disk.clone());
        known.check(&found, seed);
        for number in 0..50 {
            known.appended.push(record(2, number));
            log.append(&[known.appended.last().unwrap()]).unwrap();
            log.write().unwrap();
        }
        let crashed = disk.crash(seed);
        let segments = crashed.list().unwrap().len();
        let total = {
            let whole = crashed.reopen();
            open(whole.clone());
            removed_count += u64::from(whole.list().unwrap().len() + 1 < segments);
            whole.operations()
        };
        for operations in 0..=total {
            for crash_seed in 0..6 {
                let again = crashed.reopen();
                again.cut_power_after(operations);
                drop(crate::scene::try_open(again.clone()));
                let again = again.crash(seed * 1000 + crash_seed);
                let (log, found, _) = open(again.clone());
                known.clone().check(&found, seed);
                let names = again.list().unwrap();
                assert!(!names.iter().any(|name| name.ends_with(".tmp")), "left over: {names:?}");
                drop(log);
            }
        }
    }
    assert!(10 < removed_count, "only {removed_count} recoveries removed segments");
}
