//! The bytes on disk do not change, and no bytes make recovery panic.

use antecede_storage::{Disk, FORMAT, HEADER_BYTES, RECORD_HEADER_BYTES, SimulatedDisk};
use proptest::prelude::*;

use crate::scene::{open, try_open};

const FIRST_SEGMENT: &str = "00000000000000000001.log";

fn read(disk: &SimulatedDisk, name: &str, offset: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    let read = disk.read_at(&disk.open(name).unwrap(), offset, &mut buffer).unwrap();
    buffer.truncate(read);
    buffer
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A log with three records; the last was written after the others were synced.
fn three_records() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    log.append(&[b"first"]).unwrap();
    log.append(&[]).unwrap();
    log.flush().unwrap();
    log.append(&[b"thi", b"rd"]).unwrap();
    log.flush().unwrap();
    drop(log);
    disk
}

#[test]
fn segments_keep_their_bytes() {
    assert_eq!((FORMAT, HEADER_BYTES, RECORD_HEADER_BYTES), (1, 4096, 24));
    let disk = three_records();
    assert_eq!(disk.list().unwrap(), [FIRST_SEGMENT]);
    let header = concat!(
        "616e74656c6f6700",
        "01000000",
        "01000000",
        "7369787465656e206279746573206f6b",
        "0100000000000000",
        "175a000000000000",
        "0000000000000000",
        "00000000",
        "880c663f"
    );
    assert_eq!(hex(&read(&disk, FIRST_SEGMENT, 0, 64)), header);
    assert!(read(&disk, FIRST_SEGMENT, 64, 4032).iter().all(|byte| *byte == 0));
    let records = concat!(
        "9315d7ef",
        "05000000",
        "0100000000000000",
        "0000000000000000",
        "6669727374",
        "22f4a548",
        "00000000",
        "0200000000000000",
        "0000000000000000",
        "94560317",
        "05000000",
        "0300000000000000",
        "0200000000000000",
        "7468697264",
        "0000000000000000"
    );
    assert_eq!(hex(&read(&disk, FIRST_SEGMENT, HEADER_BYTES, 90)), records);
}

#[test]
fn the_mark_keeps_its_bytes() {
    let disk = SimulatedDisk::new();
    let (mut log, _, _) = open(disk.clone());
    log.append(&[b"first"]).unwrap();
    log.close().unwrap();
    let mark = concat!(
        "616e74656d61726b",
        "01000000",
        "01000000",
        "7369787465656e206279746573206f6b",
        "0100000000000000",
        "0100000000000000",
        "0000000000000000",
        "00000000",
        "99e165d3"
    );
    assert_eq!(hex(&read(&disk, "mark", 0, 100)), mark);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever bytes a segment holds behind its header, opening neither panics nor invents.
    #[test]
    fn any_bytes_behind_the_header_are_cut_or_refused(
        at in 0_u64..200,
        bytes in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        let disk = three_records();
        let file = disk.open(FIRST_SEGMENT).unwrap();
        disk.write_at(&file, HEADER_BYTES + at, &bytes).unwrap();
        if let Ok((_, found, _)) = try_open(disk) {
            let whole: [&[u8]; 3] = [b"first", b"", b"third"];
            prop_assert!(found.len() <= 3);
            prop_assert!(found.iter().zip(whole).all(|(found, whole)| found == whole));
        }
    }

    /// Whatever a file is called and holds, opening does not panic.
    #[test]
    fn any_header_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let disk = three_records();
        let file = disk.create(FIRST_SEGMENT).unwrap();
        disk.write_at(&file, 0, &bytes).unwrap();
        prop_assert!(try_open(disk).is_err());
    }
}
