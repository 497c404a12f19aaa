//! A deployment with nothing to do does nothing: no records, no log lines, next to no processor.

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

/// How often at most, until a span keeps the promise.
const SPANS_MAX: usize = 4;

/// The part of one core that nine nodes use at most; 0.006 on a quiet machine.
const CORE_PART_PROMISED: f64 = 0.01;

/// What the best span may have used: where other programs empty the processor's caches, each wake-up
/// takes three times as long.
const CORE_PART_MAX: f64 = 0.02;

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

    let mut part = f64::INFINITY;
    for _ in 0..SPANS_MAX {
        let used = demo.process.used_time();
        // Nobody asks the nodes anything meanwhile, or the answers would be measured.
        let span = watch(SPAN, || {});
        part = part.min((demo.process.used_time() - used).as_secs_f64() / span.as_secs_f64());
        tell(&format!("nine idle nodes use {:.2} % of a core", part * 100.0));
        if part < CORE_PART_PROMISED {
            break;
        }
    }

    assert!(positions.iter().all(|[appended, _]| 0 < *appended), "all logs have records");
    assert_eq!(demo.log_positions(), positions, "an idle log grows");
    assert_eq!(changes_below(&data), changed, "an idle disk is written");
    assert_eq!(demo.process.printed_bytes(), printed, "idle nodes print: {}", demo.process.notes());
    assert!(part < CORE_PART_MAX, "nine idle nodes use {:.2} % of a core", part * 100.0);
}
