//! A full disk refuses writes, lets reads go on, and heals without a restart.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::demo::path_text;
use tests::{Client, Dev, Reply, Stage, eventually};

/// Bytes of the small disk.
const DISK: &str = "size=24m";

/// Bytes of a segment, so that the disk holds several.
const SEGMENT: &str = "2MiB";

/// Bytes of each value.
const VALUE_BYTES: usize = 16 * 1024;

/// More writes than the rest of the last segment can take.
const WRITES_MAX: usize = 1000;

const PATIENCE: Duration = Duration::from_secs(30);

/// A small file system in memory, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let words = ["-t", "tmpfs", "-o", DISK, "antecede-test", path_text(&folder)];
        let output = Command::new("mount").args(words).output().expect("there is a mount command");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cannot mount a small disk (this needs root): {said}");
        Self(folder)
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("there is room for a name");
        for size in [64 * 1024, 4096] {
            let piece = vec![1; size];
            while file.write_all(&piece).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nobody else can have anything open in it; what is left goes with the machine.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// Writes new keys until a write is refused; how many were acknowledged, and the refusal.
fn write_until_refused(client: &mut Client, value: &str) -> (usize, Reply) {
    for number in 0..WRITES_MAX {
        let reply = client.call(&["SET", &format!("key:{number}"), value]);
        if reply != Reply::ok() {
            return (number, reply);
        }
    }
    panic!("{WRITES_MAX} writes fit onto a full disk");
}

fn assert_all_there(client: &mut Client, count: usize, value: &str) {
    for number in 0..count {
        let found = client.get(&format!("key:{number}"));
        assert!(found.as_deref() == Some(value), "key:{number} of {count}");
    }
}

fn start(stage: &Stage, data: &Path) -> Dev {
    let words = ["--data", path_text(data), "--fsync", "always"];
    Dev::start_with(stage, &words, &[("ANTECEDE_STORAGE_SEGMENT", SEGMENT)])
}

#[test]
fn a_full_disk_refuses_writes_reads_go_on_and_it_heals() {
    let stage = Stage::shared();
    let disk = SmallDisk::mount(stage.path("disk"));
    let data = disk.0.join("data");
    let dev = start(&stage, &data);
    let mut client = dev.client();
    let value = "v".repeat(VALUE_BYTES);
    client.set("before", "here");

    let ballast = disk.fill();
    let (count, refusal) = write_until_refused(&mut client, &value);
    assert!(refusal.is_refused_with("DISKFULL"), "{refusal:?} after {count} writes");
    assert!(0 < count, "the begun segment takes some writes");

    // Reads go on, also on new connections; writes stay refused, and say so at once.
    assert_eq!(client.get("before"), Some("here".to_owned()));
    assert_all_there(&mut dev.client(), count, &value);
    for _ in 0..10 {
        let reply = client.call(&["SET", "while", &value]);
        assert!(reply.is_refused_with("DISKFULL"), "{reply:?}");
    }

    std::fs::remove_file(&ballast).expect("ballast can be thrown off");
    eventually("writes are taken again", PATIENCE, || {
        (client.call(&["SET", "after", &value]) == Reply::ok()).then_some(())
    });
    assert_all_there(&mut client, count, &value);

    // What was acknowledged before, and what after, is on the disk.
    let mut dev = dev;
    dev.process.kill();
    drop(dev);
    let dev = start(&stage, &data);
    let mut client = dev.client();
    assert_eq!(client.get("before"), Some("here".to_owned()));
    assert_eq!(client.get("after"), Some(value.clone()));
    assert_all_there(&mut client, count, &value);
}
