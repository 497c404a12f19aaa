//! A deployment with nothing to do does nothing: no records, no log lines, next to no processor.

use std::ffi::OsString;
use std::time::Duration;

use tests::demo::{changes_below, path_text};
use tests::patience::Deadline;
use tests::{Demo, Stage, eventually, tell, watch};

/// How long after the last write everything must have come to rest.
const REST_PATIENCE: Duration = Duration::from_secs(20);

/// So long nothing may change before it counts as rest.
const REST_SPAN: Duration = Duration::from_secs(2);

/// How long is measured at a time.
const SPAN: Duration = Duration::from_secs(5);

/// How often at most, until a span keeps both promises.
const SPANS_MAX: usize = 4;

/// How often in a second threads of nine nodes are woken at most; 260 to 380 times on any machine.
const WAKES_MAX: u64 = 500;

/// The part of one core that they use at most. It is 0.006 on a quiet machine, and five times that
/// where others empty the caches and take the processor away: this finds who is never asleep.
const CORE_PART_MAX: f64 = 0.1;

/// Writes in each datacenter.
const WRITES: usize = 300;

#[test]
fn an_idle_deployment_writes_nothing_and_hardly_runs() {
    let stage = Stage::alone();
    let data = stage.path("data");
    let demo = Demo::start(&stage, &["--data", path_text(&data)]);
    for dc in 0..demo.places.len() {
        let mut client = demo.client(dc, 1);
        for number in 0..WRITES {
            client.set(&format!("key:{dc}:{number}"), "value");
        }
    }
    // Rest is when the logs have stayed as they are for a while.
    let mut positions = demo.log_positions();
    let mut since = Deadline::after(REST_SPAN);
    eventually("the logs come to rest", REST_PATIENCE, || {
        let now = demo.log_positions();
        if now != positions {
            positions = now;
            since = Deadline::after(REST_SPAN);
        }
        since.is_over().then_some(())
    });
    let changed = changes_below(&data);
    let printed = demo.process.printed_bytes();

    let (mut part, mut wakes) = (f64::INFINITY, u64::MAX);
    for _ in 0..SPANS_MAX {
        let (used, sleeps) = (demo.process.used_time(), demo.process.sleeps());
        // Nobody asks the nodes anything meanwhile, or the answers would be measured.
        let span = watch(SPAN, || {});
        part = part.min((demo.process.used_time() - used).as_secs_f64() / span.as_secs_f64());
        let since = |(thread, now): (OsString, u64)| now - sleeps.get(&thread).unwrap_or(&0);
        let slept: u64 = demo.process.sleeps().into_iter().map(since).sum();
        wakes = wakes.min(slept / span.as_secs().max(1));
        let percent = part * 100.0;
        tell(&format!(
            "nine idle nodes are woken {wakes} times a second, for {percent:.2} % of a core"
        ));
        if part < CORE_PART_MAX && wakes <= WAKES_MAX {
            break;
        }
    }

    assert!(positions.iter().all(|[appended, _]| 0 < *appended), "all logs have records");
    assert_eq!(demo.log_positions(), positions, "an idle log grows");
    assert_eq!(changes_below(&data), changed, "an idle disk is written");
    assert_eq!(demo.process.printed_bytes(), printed, "idle nodes print: {}", demo.process.notes());
    assert!(wakes <= WAKES_MAX, "nine idle nodes are woken {wakes} times a second");
    assert!(part < CORE_PART_MAX, "nine idle nodes use {:.2} % of a core", part * 100.0);
}
