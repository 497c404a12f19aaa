//! Files of other nodes, formats and programs; damage at rest; the tables on disk.

use std::panic::{AssertUnwindSafe, catch_unwind};

use antecede_model::ids::ShardId;
use antecede_storage::checkpoint::{
    CHECKPOINT_FORMAT, CheckpointError, CheckpointOptions, CheckpointStore, OpenCheckpointsError,
    RealCheckpoints, SimulatedCheckpoints,
};
use antecede_storage::{Disk, Identity, RealDisk, SimulatedDisk};
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, TableHandle,
};
use tempfile::TempDir;

use super::{FILE, Model, SparseDisk, apply, meta, on_this_machine, open, options, put, scan};
use crate::scene::NODE_1;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const RECORDS: Table = TableDefinition::new("records-00003");
const SHARDS: Table = TableDefinition::new("shards");
const HEAD: Table = TableDefinition::new("head");

fn three_records() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = on_this_machine(&folder);
    let changes = [put(3, "a", "1"), put(3, "b", "2"), put(3, "c", "3"), meta(3, "m")];
    store.write(&apply(&mut Model::new(), &changes)).unwrap();
    folder
}

fn change(folder: &TempDir, table: Table, key: &[u8], value: Option<&[u8]>) {
    let database = Database::open(folder.path().join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        match value {
            Some(value) => drop(table.insert(key, value).unwrap()),
            None => drop(table.remove(key).unwrap()),
        }
    }
    transaction.commit().unwrap();
}

fn refused(disk: impl Disk, identity: Identity) -> OpenCheckpointsError {
    RealCheckpoints::open(disk, options(), identity).map(drop).unwrap_err()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tables_and_keys_keep_their_form() {
    assert_eq!(CHECKPOINT_FORMAT, 1);
    let folder = three_records();
    let database = Database::open(folder.path().join(FILE)).unwrap();
    let transaction = database.begin_read().unwrap();
    let mut names: Vec<String> =
        transaction.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["head", "records-00003", "shards"]);
    let rows = |table| -> Vec<(String, String)> {
        let table: ReadOnlyTable<_, _> = transaction.open_table::<&[u8], &[u8]>(table).unwrap();
        let rows = table.iter().unwrap().map(Result::unwrap);
        rows.map(|(key, value)| (hex(key.value()), hex(value.value()))).collect()
    };
    let text = |rows: &[(&str, &str)]| -> Vec<(String, String)> {
        rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let head = "616e746563686b0001000000010000007369787465656e206279746573206f6b07bc8433";
    assert_eq!(rows(HEAD), text(&[("68656164", head)]));
    let records = [("61", "6bc512e231"), ("62", "069ea5c532"), ("63", "72856c2433")];
    assert_eq!(rows(RECORDS), text(&records));
    assert_eq!(rows(SHARDS), text(&[("0003", "b7710b4c0300000000000000d88e4000fb3ccfa0016d")]));
}

#[test]
fn a_lost_record_is_noticed_when_the_shard_is_scanned() {
    let folder = three_records();
    change(&folder, RECORDS, b"b", None);
    let store = on_this_machine(&folder);
    let error = scan(&store, ShardId(3), None).unwrap_err();
    let CheckpointError::CorruptShard { shard, found, expected, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((shard, found, expected), (ShardId(3), 2, 3));

    let store = SimulatedCheckpoints::new();
    store.write(&apply(&mut Model::new(), &[put(3, "a", "1"), put(3, "b", "2")])).unwrap();
    assert!(store.lose(ShardId(3), b"a"));
    let error = scan(&store, ShardId(3), None).unwrap_err();
    assert!(matches!(error, CheckpointError::CorruptShard { found: 1, expected: 2, .. }));
}

#[test]
fn what_is_said_of_a_shard_as_a_whole_is_not_taken_damaged() {
    let store = SimulatedCheckpoints::new();
    assert!(!store.flip_meta_bit(ShardId(3), 5), "there is nothing yet");
    store.write(&apply(&mut Model::new(), &[put(3, "a", "1")])).unwrap();
    for bit in 0..300 {
        let damaged = store.crash(0);
        assert!(damaged.flip_meta_bit(ShardId(3), bit));
        let error = damaged.meta(ShardId(3)).unwrap_err();
        assert!(matches!(error, CheckpointError::CorruptMeta { .. }), "bit {bit}: {error}");
    }
}

#[test]
fn a_record_of_another_time_is_noticed_when_the_shard_is_scanned() {
    let folder = three_records();
    let old = {
        let database = Database::open(folder.path().join(FILE)).unwrap();
        let records = database.begin_read().unwrap().open_table(RECORDS).unwrap();
        records.get(b"b".as_slice()).unwrap().unwrap().value().to_vec()
    };
    let store = on_this_machine(&folder);
    store.write(&apply(&mut Model::new(), &[put(3, "b", "newer")])).unwrap();
    drop(store);
    change(&folder, RECORDS, b"b", Some(&old));
    let store = on_this_machine(&folder);
    assert_eq!(store.get(ShardId(3), b"b").unwrap(), Some(b"2".to_vec()), "sound by itself");
    let error = scan(&store, ShardId(3), None).unwrap_err();
    assert!(matches!(error, CheckpointError::CorruptShard { found: 3, expected: 3, .. }));
}

#[test]
fn a_damaged_row_names_its_shard() {
    let folder = three_records();
    change(&folder, SHARDS, &[0, 3], Some(b"no row at all, but as long as one"));
    let store = on_this_machine(&folder);
    for error in [
        store.meta(ShardId(3)).unwrap_err(),
        store.count(ShardId(3)).unwrap_err(),
        scan(&store, ShardId(3), None).unwrap_err(),
        store.write(&apply(&mut Model::new(), &[put(3, "b", "2")])).unwrap_err(),
    ] {
        assert!(matches!(error, CheckpointError::CorruptMeta { shard: ShardId(3), .. }), "{error}");
    }
}

#[test]
fn the_folder_of_another_node_is_refused() {
    let folder = three_records();
    let disk = || RealDisk::open(folder.path()).unwrap();
    let error = refused(disk(), Identity { node: 2, ..NODE_1 });
    assert!(error.to_string().contains("belongs to node 0.1"), "{error}");
    let error = refused(disk(), Identity { deployment: [9; 16], ..NODE_1 });
    assert!(matches!(error, OpenCheckpointsError::WrongIdentity { .. }), "{error}");
    open(disk());
}

#[test]
fn another_format_is_refused() {
    let folder = three_records();
    let mut head = b"antechk\0".to_vec();
    head.extend_from_slice(&7_u32.to_le_bytes());
    head.extend_from_slice(&1_u32.to_le_bytes());
    head.extend_from_slice(&NODE_1.deployment);
    head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    change(&folder, HEAD, b"head", Some(&head));
    let error = refused(RealDisk::open(folder.path()).unwrap(), NODE_1);
    assert!(
        error
            .to_string()
            .ends_with("is format 7, this build reads format 1; use the build that wrote it"),
        "{error}"
    );
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = three_records();
    let _store = on_this_machine(&folder);
    let error = refused(RealDisk::open(folder.path()).unwrap(), NODE_1);
    assert!(matches!(error, OpenCheckpointsError::Locked { .. }), "{error}");
}

#[test]
fn a_file_that_is_none_is_refused_and_left_as_it_is() {
    for bytes in [b"".as_slice(), b"some other file", &[0; 9000]] {
        let disk = SimulatedDisk::new();
        let file = disk.create(FILE).unwrap();
        disk.write_at(&file, 0, bytes).unwrap();
        let error = refused(disk.reopen(), NODE_1);
        assert!(matches!(
            error,
            OpenCheckpointsError::Damaged { .. } | OpenCheckpointsError::Io { .. }
        ));
    }
}

fn damaged_page() -> CheckpointError {
    CheckpointError::Damaged { path: FILE.into(), what: "the engine panicked".to_owned() }
}

/// Whatever bit changes at rest, no record is served that was not written.
#[test]
fn no_flipped_bit_leads_to_a_wrong_value() {
    let disk = SparseDisk::default();
    let mut model = Model::new();
    let store = open(disk.clone());
    let changes: Vec<_> =
        (0..120).map(|n| put(3, &format!("key {n}"), &format!("{n}").repeat(9))).collect();
    store.write(&apply(&mut model, &changes)).unwrap();
    drop(store);
    let begin = disk.find(b"key 77") / 4096 * 4096;
    let records = &model[&ShardId(3)].0;
    let mut noticed = 0;
    for at in (0..4096).step_by(5) {
        let damaged = disk.disk.reopen();
        let options = CheckpointOptions { cache_bytes: 0, ..options() };
        let store = RealCheckpoints::open(damaged.clone(), options, NODE_1).unwrap();
        damaged.flip_bit(FILE, begin + at, u8::try_from(at % 8).unwrap()).unwrap();
        // The engine's own numbers in a page may lead it anywhere, a panic included.
        let all = catch_unwind(AssertUnwindSafe(|| scan(&store, ShardId(3), None)));
        let all = all.unwrap_or_else(|_| Err(damaged_page()));
        noticed += u32::from(all.is_err());
        for (key, value) in all.unwrap_or_default() {
            assert_eq!(records.get(&key), Some(&value), "byte {at}");
        }
        for (key, value) in records {
            let found = catch_unwind(AssertUnwindSafe(|| store.get(ShardId(3), key)));
            if let Ok(Ok(Some(found))) = found {
                assert_eq!(found, *value, "byte {at}");
            }
        }
        drop(catch_unwind(AssertUnwindSafe(|| drop(store))));
    }
    assert!(200 < noticed, "only {noticed} scans noticed");
}
