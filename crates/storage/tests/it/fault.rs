//! Damage at rest, wrong folders, full and failing disks.

use std::error::Error;

use antecede_storage::{
    AppendError, Disk, HEADER_BYTES, Identity, Log, LogError, LogIndex, OpenError, Options,
    RealDisk, SimulatedDisk,
};

use crate::scene::{NODE_1, SMALL, open, record, try_open};

const FIRST_SEGMENT: &str = "00000000000000000001.log";

/// A log of `count` records, each synced before the next was written.
fn synced_one_by_one(disk: &SimulatedDisk, count: u64) -> Log {
    let (mut log, _, _) = open(disk.clone());
    for number in 0..count {
        log.append(&[&record(1, number)]).unwrap();
        log.flush().unwrap();
    }
    log
}

/// Where record `number` (from 0) of the first segment begins.
fn offset_of(number: u64) -> u64 {
    HEADER_BYTES + (0..number).map(|n| 24 + record(1, n).len() as u64).sum::<u64>()
}

#[test]
fn any_flipped_bit_in_a_synced_record_is_refused_with_segment_and_offset() {
    let disk = SimulatedDisk::new();
    drop(synced_one_by_one(&disk, 8));
    let begin = offset_of(3);
    for at in begin..offset_of(4) {
        let damaged = disk.reopen();
        damaged.flip_bit(FIRST_SEGMENT, at, u8::try_from(at % 8).unwrap()).unwrap();
        let before = damaged.operations();
        let error = try_open(damaged.clone()).unwrap_err();
        let OpenError::CorruptMiddle { path, offset, index, synced_to, .. } = &error else {
            panic!("{error}");
        };
        assert!(path.ends_with(FIRST_SEGMENT));
        assert_eq!((*offset, *index), (begin, LogIndex::new(4)));
        assert!(*index <= *synced_to);
        assert_eq!(damaged.operations(), before, "a refused log is left as it is");
    }
    open(disk.reopen());
}

#[test]
fn a_record_in_the_place_of_another_is_refused() {
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    for payload in [b"one  ", b"two  ", b"three", b"four "] {
        log.append(&[payload]).unwrap();
        log.flush().unwrap();
    }
    drop(log);
    let file = disk.open(FIRST_SEGMENT).unwrap();
    let mut whole = [0; 29];
    disk.read_at(&file, HEADER_BYTES + 29, &mut whole).unwrap();
    disk.write_at(&file, HEADER_BYTES + 58, &whole).unwrap();
    let error = try_open(disk).unwrap_err().to_string();
    assert!(error.contains("record 3 cannot be read"), "{error}");
}

#[test]
fn damage_before_an_earlier_start_is_refused() {
    let disk = SimulatedDisk::new();
    drop(synced_one_by_one(&disk, 3));
    let disk = disk.reopen();
    drop(open(disk.clone()));
    // No record was written since, but the new run's segment knows what was there.
    disk.flip_bit(FIRST_SEGMENT, offset_of(2) + 30, 1).unwrap();
    let error = try_open(disk).unwrap_err();
    assert!(matches!(error, OpenError::CorruptMiddle { .. }), "{error}");
}

#[test]
fn damage_to_the_last_record_is_refused_after_a_clean_end() {
    let disk = SimulatedDisk::new();
    let log = synced_one_by_one(&disk, 3);
    log.close().unwrap();
    disk.flip_bit(FIRST_SEGMENT, offset_of(2) + 30, 1).unwrap();
    let error = try_open(disk).unwrap_err().to_string();
    assert!(error.contains("00000000000000000001.log is damaged at byte"), "{error}");
    assert!(error.contains("record 3 cannot be read"), "{error}");
}

#[test]
fn a_bit_that_changes_before_its_sector_is_synced_stays_changed() {
    let disk = SimulatedDisk::new();
    let file = disk.create("file").unwrap();
    disk.write_at(&file, 0, &[0; 4]).unwrap();
    disk.flip_bit("file", 2, 0).unwrap();
    disk.sync(&file).unwrap();
    disk.sync_dir().unwrap();
    let after = disk.crash(1);
    let mut bytes = [9; 4];
    after.read_at(&after.open("file").unwrap(), 0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 1, 0]);
}

#[test]
fn damage_to_the_last_batch_looks_like_a_torn_end_until_the_next_start() {
    let disk = SimulatedDisk::new();
    drop(synced_one_by_one(&disk, 3));
    let disk = disk.crash(1); // It was synced, so nothing of it is lost by that.
    let damaged = disk.reopen();
    damaged.flip_bit(FIRST_SEGMENT, offset_of(2) + 30, 1).unwrap();
    let (_, records, report) = open(damaged);
    assert_eq!((report.recovered_to, records.len()), (LogIndex::new(2), 2));
    drop(open(disk.clone()));
    let disk = disk.reopen();
    disk.flip_bit(FIRST_SEGMENT, offset_of(2) + 30, 1).unwrap();
    assert!(matches!(try_open(disk).unwrap_err(), OpenError::CorruptMiddle { .. }));
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = SimulatedDisk::new();
    drop(synced_one_by_one(&disk, 60));
    let segments = disk.list().unwrap();
    assert!(3 < segments.len());
    let middle = disk.reopen();
    middle.remove(&segments[1]).unwrap();
    let error = try_open(middle).unwrap_err();
    assert!(matches!(error, OpenError::CorruptMiddle { .. }), "{error}");
    let start = disk.reopen();
    start.remove(&segments[0]).unwrap();
    let error = try_open(start).unwrap_err();
    assert!(matches!(error, OpenError::MissingStart { .. }), "{error}");
}

#[test]
fn segments_of_an_older_run_behind_newer_ones_are_refused() {
    let disk = SimulatedDisk::new();
    drop(synced_one_by_one(&disk, 60));
    let names = disk.list().unwrap();
    let last = names.iter().rfind(|name| name.ends_with(".log")).unwrap();
    // A copy of the header page of the first run behind a segment of the second.
    let newer = disk.reopen();
    drop(open(newer.clone()));
    let copy = newer.create("00000000000000000099.log").unwrap();
    let mut bytes = vec![0; 4096];
    newer.read_at(&newer.open(last).unwrap(), 0, &mut bytes).unwrap();
    newer.write_at(&copy, 0, &bytes).unwrap();
    let error = try_open(newer).unwrap_err();
    assert!(matches!(error, OpenError::MixedRuns { found: 1, previous: 2, .. }), "{error}");
}

#[test]
fn the_folder_of_another_node_is_refused() {
    let disk = SimulatedDisk::new();
    drop(open(disk.clone()));
    for identity in
        [Identity { node: 2, ..NODE_1 }, Identity { deployment: *b"another of those", ..NODE_1 }]
    {
        let error = Log::open(disk.clone(), SMALL, identity, |_, _| {}).unwrap_err();
        assert!(matches!(error, OpenError::WrongIdentity { .. }), "{error}");
        assert!(error.to_string().contains("belongs to node 0.1 of deployment 7369"), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused_by_number() {
    let disk = SimulatedDisk::new();
    drop(open(disk.clone()));
    let file = disk.open(FIRST_SEGMENT).unwrap();
    let mut header = [0; 64];
    disk.read_at(&file, 0, &mut header).unwrap();
    header[8] = 7;
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    disk.write_at(&file, 0, &header).unwrap();
    let error = try_open(disk).unwrap_err().to_string();
    assert!(error.contains("is format 7, this build reads format 1"), "{error}");
}

#[test]
fn a_folder_in_use_is_refused() {
    let disk = SimulatedDisk::new();
    let (log, _, _) = open(disk.clone());
    let error = try_open(disk.clone()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(log);
    open(disk);

    let folder = tempfile::tempdir().unwrap();
    let (log, _, _) = open(RealDisk::open(folder.path()).unwrap());
    let error = try_open(RealDisk::open(folder.path()).unwrap()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(log);
    open(RealDisk::open(folder.path()).unwrap());
}

#[test]
fn a_full_disk_is_seen_early_and_heals() {
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    disk.set_capacity(Some(8192 + 4096));
    let mut appended = Vec::new();
    while log.disk_full().is_none() {
        appended.push(record(1, appended.len() as u64));
        log.append(&[appended.last().unwrap()]).unwrap();
        let positions = log.flush().unwrap();
        assert_eq!(positions.synced_to, positions.appended_to, "seen before it is needed");
    }
    let full = log.disk_full().unwrap().clone();
    assert_eq!(full.needed, 8192);
    // What comes anyway waits, in order, once the segment is full.
    let positions = loop {
        appended.push(record(1, appended.len() as u64));
        log.append(&[appended.last().unwrap()]).unwrap();
        let positions = log.flush().unwrap();
        if positions.synced_to < positions.appended_to {
            break positions;
        }
    };
    assert_eq!(positions.appended_to.get(), appended.len() as u64);
    for _ in 0..3 {
        appended.push(record(1, appended.len() as u64));
        log.append(&[appended.last().unwrap()]).unwrap();
        assert_eq!(log.flush().unwrap().synced_to, positions.synced_to);
        assert!(log.disk_full().is_some());
    }
    let crashed = disk.crash(1);
    crashed.set_capacity(None);
    let (_, found, _) = open(crashed);
    assert_eq!(found.len() as u64, positions.synced_to.get(), "nothing promised is lost");

    disk.set_capacity(None);
    let positions = log.flush().unwrap();
    assert_eq!(positions.synced_to.get(), appended.len() as u64);
    assert!(log.disk_full().is_none());
    let (_, found, _) = open(disk.crash(2));
    assert_eq!(found, appended);
}

#[test]
fn a_log_closes_on_a_full_disk() {
    let disk = SimulatedDisk::new();
    let log = synced_one_by_one(&disk, 3);
    disk.set_capacity(Some(8192));
    assert_eq!(log.close().unwrap().synced_to, LogIndex::new(3));
    disk.set_capacity(None);
    assert_eq!(open(disk).1.len(), 3);
}

#[test]
fn a_nearly_full_disk_does_not_keep_the_log_from_opening() {
    let disk = SimulatedDisk::new();
    disk.set_capacity(Some(10_000));
    let options = Options { segment_bytes: 64 << 20, ..SMALL };
    let (mut log, _) = Log::open(disk, options, NODE_1, |_, _| {}).unwrap();
    log.append(&[b"fits"]).unwrap();
    assert_eq!(log.flush().unwrap().synced_to, LogIndex::new(1));
}

#[test]
fn a_failed_sync_is_final() {
    let disk = SimulatedDisk::new();
    let mut log = synced_one_by_one(&disk, 2);
    disk.fail_syncs_after(0);
    log.append(&[b"not on disk"]).unwrap();
    log.write().unwrap();
    let error = log.sync().unwrap_err();
    assert!(matches!(error, LogError::Sync { .. }), "{error}");
    assert!(error.source().is_some());
    // The device works again, and a second sync would succeed without having saved anything.
    disk.fail_syncs_after(u64::MAX);
    assert!(log.sync().is_err());
    assert!(log.write().is_err());
    assert_eq!(log.positions().synced_to, LogIndex::new(2));
    let (_, found, _) = open(disk.crash(1));
    assert_eq!(found.len(), 2);
}

#[test]
fn a_log_that_holds_too_much_refuses_records() {
    let options = Options { pending_bytes_max: 100, record_bytes_max: 60, ..SMALL };
    let (mut log, _) = Log::open(SimulatedDisk::new(), options, NODE_1, |_, _| {}).unwrap();
    let error = log.append(&[&[0; 61]]).unwrap_err();
    assert_eq!(error, AppendError::TooLarge { bytes: 61, limit: 60 });
    log.append(&[&[0; 60]]).unwrap();
    log.append(&[&[0; 60]]).unwrap();
    assert_eq!(log.append(&[b"x"]).unwrap_err(), AppendError::Full { held: 168, limit: 100 });
    log.write().unwrap();
    assert_eq!(log.append(&[b"x"]).unwrap(), LogIndex::new(3), "a refusal takes no number");
}

#[test]
fn the_memory_variant_counts_and_keeps_nothing() {
    let mut log = Log::<RealDisk>::memory(Options { pending_bytes_max: 100, ..SMALL });
    for _ in 0..1000 {
        log.append(&[b"some bytes"]).unwrap();
    }
    assert_eq!(log.positions().synced_to, LogIndex::new(1000));
    assert_eq!(log.flush().unwrap().synced_to, LogIndex::new(1000));
}

#[test]
fn records_before_a_cut_are_gone_and_the_rest_stays() {
    let disk = SimulatedDisk::new();
    let mut log = synced_one_by_one(&disk, 60);
    let segments = disk.list().unwrap();
    log.cut_to(LogIndex::new(30)).unwrap();
    assert!(disk.list().unwrap().len() < segments.len());
    drop(log);
    for seed in 0..20 {
        let mut first = None;
        let mut last = LogIndex::START;
        let (_, report) = Log::open(disk.crash(seed), SMALL, NODE_1, |index, payload| {
            assert_eq!(payload, record(1, index.get() - 1));
            first.get_or_insert(index);
            last = index;
        })
        .unwrap();
        assert!(first.unwrap() <= LogIndex::new(31));
        assert!(LogIndex::new(1) < first.unwrap());
        assert_eq!((last, report.recovered_to), (LogIndex::new(60), LogIndex::new(60)));
    }
}

#[test]
fn power_may_go_at_every_operation_of_a_cut() {
    let written = SimulatedDisk::new();
    drop(synced_one_by_one(&written, 60));
    let cut = |disk: &SimulatedDisk, operations: Option<u64>| -> u64 {
        let (mut log, _, _) = open(disk.clone());
        let before = disk.operations();
        if let Some(operations) = operations {
            disk.cut_power_after(operations);
        }
        assert_eq!(log.cut_to(LogIndex::new(30)).is_ok(), operations.is_none());
        disk.operations() - before
    };
    let total = cut(&written.reopen(), None);
    assert!(5 < total, "a cut of several segments has only {total} operations");
    let (mut whole_count, mut cut_count) = (0, 0);
    for operations in 0..total {
        for seed in 0..30 {
            let disk = written.reopen();
            cut(&disk, Some(operations));
            let mut found = Vec::new();
            let opened = Log::open(disk.crash(seed), SMALL, NODE_1, |index, payload| {
                assert_eq!(payload, record(1, index.get() - 1));
                found.push(index.get());
            });
            let (mut log, _) = opened.unwrap();
            assert!(found[0] <= 31 && found.iter().copied().eq(found[0]..=60));
            whole_count += u32::from(found[0] == 1);
            cut_count += u32::from(1 < found[0]);
            log.cut_to(LogIndex::new(60)).unwrap();
        }
    }
    assert!(10 < whole_count && 10 < cut_count, "{whole_count} whole, {cut_count} cut");
}

#[test]
fn a_slow_disk_reports_its_delay() {
    use std::time::Duration;
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    disk.set_delays(Duration::from_micros(10), Duration::from_millis(300));
    log.append(&[b"slow"]).unwrap();
    log.flush().unwrap();
    assert_eq!(disk.take_delay(), Duration::from_micros(300_010));
    assert_eq!(disk.take_delay(), Duration::ZERO);
}

#[test]
fn files_can_be_read_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _, _) = open(RealDisk::open(folder.path()).unwrap());
    log.append(&[b"secret"]).unwrap();
    log.close().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_real_folder_gives_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for generation in 0..3 {
        let (mut log, found, report) = open(RealDisk::open(folder.path()).unwrap());
        assert_eq!(found, expected);
        assert_eq!(report.torn_bytes, 0);
        for number in 0..100 {
            expected.push(record(generation, number));
            log.append(&[expected.last().unwrap()]).unwrap();
            if number % 7 == 0 {
                log.flush().unwrap();
            }
        }
        log.write().unwrap();
    }
}
