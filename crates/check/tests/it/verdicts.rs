//! Verdicts on single situations: outcomes, levels, final states, versions, and the report.

use antecede_check::{
    History, JudgeOptions, Kind, Level, LinearizableOptions, OrderOptions, Outcome, Pattern,
    Record, Verdict, Version, causal, converged, durable,
    history::FinalRecord,
    jsonl, judge, linearizable, notation,
    online::{self, Event, Online, Place, Read, Write},
    session::{self, Guarantee},
};

/// A history, operation by operation; each line has its own session unless told.
#[derive(Default)]
struct Story {
    history: History,
    seq: u64,
}

impl Story {
    fn add(&mut self, session: u64, op: Kind, value: Option<&str>, change: impl Fn(&mut Record)) {
        self.seq += 1;
        let now = self.seq * 100;
        let mut record =
            Record::new(session, self.seq, op, "k").with_value(value).at(0, now, Some(now + 10));
        change(&mut record);
        if record.outcome == Outcome::Unknown {
            record.ret_ns = None;
        }
        self.history.push(&record);
    }

    fn write(&mut self, session: u64, value: &str) {
        self.add(session, Kind::Write, Some(value), |_| {});
    }

    fn read(&mut self, session: u64, value: Option<&str>) {
        self.add(session, Kind::Read, value, |_| {});
    }

    fn ends(&mut self, dc: u16, value: Option<&str>, version: Option<Version>) {
        self.history.push_final(&FinalRecord {
            dc,
            node: format!("n{dc}"),
            key: "k".to_owned(),
            value: value.map(str::to_owned),
            version,
        });
    }

    fn causal(&self) -> Option<Pattern> {
        pattern(&causal::check(&self.history, OrderOptions::default()))
    }

    fn linearizable(&self) -> Option<Pattern> {
        pattern(&linearizable::check(&self.history, LinearizableOptions::default()))
    }
}

fn pattern(verdict: &Verdict) -> Option<Pattern> {
    verdict.violation().map(|violation| violation.pattern)
}

fn unknown(record: &mut Record) {
    record.outcome = Outcome::Unknown;
}

fn failed(record: &mut Record) {
    record.outcome = Outcome::Fail;
}

mod outcomes {
    use super::*;

    #[test]
    fn a_failed_write_must_not_be_read() {
        let mut story = Story::default();
        story.add(1, Kind::Write, Some("a"), failed);
        story.read(2, Some("a"));
        assert_eq!(story.causal(), Some(Pattern::ThinAirRead));
        assert!(story.linearizable().is_some());
    }

    #[test]
    fn an_unknown_write_may_be_read_or_not_and_late() {
        let mut story = Story::default();
        story.add(1, Kind::Write, Some("a"), unknown);
        story.read(1, None);
        assert_eq!((story.causal(), story.linearizable()), (None, None));
        story.read(2, Some("a"));
        story.read(1, Some("a"));
        assert_eq!((story.causal(), story.linearizable()), (None, None));
        story.read(2, None);
        assert_eq!(story.causal(), Some(Pattern::WriteCOInitRead));
        assert_eq!(story.linearizable(), Some(Pattern::NotLinearizable));
    }

    #[test]
    fn what_came_before_an_unknown_write_is_in_its_past() {
        let mut story = Story::default();
        story.add(1, Kind::Write, Some("a"), |record| record.key = "j".to_owned());
        story.add(1, Kind::Write, Some("b"), unknown);
        story.read(2, Some("b"));
        story.add(2, Kind::Read, None, |record| record.key = "j".to_owned());
        assert_eq!(story.causal(), Some(Pattern::WriteCOInitRead));
        let guarantee = Guarantee::MonotonicWrites;
        let verdict = session::check(&story.history, guarantee, OrderOptions::default());
        assert_eq!(pattern(&verdict), Some(Pattern::MonotonicWrites));
    }

    #[test]
    fn a_value_keeps_the_version_that_it_was_written_with() {
        let mut story = Story::default();
        story.add(1, Kind::Write, Some("a"), |record| record.version = Some(Version(5, 0)));
        story.add(2, Kind::Read, Some("a"), |record| record.version = Some(Version(5, 0)));
        assert_eq!(story.causal(), None);
        story.add(2, Kind::Read, Some("a"), |record| record.version = Some(Version(6, 0)));
        assert_eq!(story.causal(), Some(Pattern::ThinAirRead));
    }

    #[test]
    fn a_removal_that_began_later_does_not_excuse_absence() {
        let mut story = Story::default();
        story.write(1, "a");
        story.read(1, None);
        story.add(2, Kind::Delete, None, |record| record.result = Some(1));
        assert_eq!(story.causal(), Some(Pattern::WriteCOInitRead));
    }

    #[test]
    fn a_value_that_was_written_twice_leaves_the_judge_undecided() {
        let mut story = Story::default();
        story.write(1, "a");
        story.write(2, "a");
        story.read(3, Some("a"));
        let verdict = causal::check(&story.history, OrderOptions::default());
        assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
        assert!(!judge(&story.history, &JudgeOptions::default()).is_clean());
    }

    #[test]
    fn two_operations_with_one_number_leave_the_judge_undecided() {
        let mut story = Story::default();
        story.add(1, Kind::Write, Some("a"), |record| record.seq = 7);
        story.add(1, Kind::Read, Some("a"), |record| record.seq = 7);
        let verdict = causal::check(&story.history, OrderOptions::default());
        assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
    }

    #[test]
    fn a_read_after_a_removal_may_find_nothing_but_not_after_a_later_write() {
        let mut story = Story::default();
        story.write(1, "a");
        story.add(1, Kind::Delete, None, |record| record.result = Some(1));
        story.read(1, None);
        assert_eq!((story.causal(), story.linearizable()), (None, None));
        story.write(1, "b");
        story.read(1, None);
        assert_eq!(story.causal(), Some(Pattern::WriteCOInitRead));
        assert_eq!(story.linearizable(), Some(Pattern::NotLinearizable));
    }

    #[test]
    fn a_removal_that_was_seen_by_a_later_write_does_not_excuse_absence() {
        let mut story = Story::default();
        story.add(1, Kind::Delete, None, |record| record.version = Some(Version(5, 0)));
        story.add(2, Kind::Read, None, |record| record.version = Some(Version(5, 0)));
        story.write(2, "b");
        story.read(3, Some("b"));
        assert_eq!(story.causal(), None);
        story.read(3, None);
        assert_eq!(story.causal(), Some(Pattern::WriteCOInitRead));
    }

    #[test]
    fn a_failed_condition_needs_the_key_to_be_there() {
        let mut story = Story::default();
        story.add(1, Kind::WriteIfAbsent, Some("a"), |record| record.result = Some(1));
        story.add(2, Kind::WriteIfAbsent, Some("b"), |record| record.result = Some(0));
        story.read(3, Some("a"));
        assert_eq!((story.causal(), story.linearizable()), (None, None));
        story.add(4, Kind::WriteIfAbsent, Some("c"), |record| record.result = Some(1));
        assert_eq!(story.linearizable(), Some(Pattern::NotLinearizable));

        let mut empty = Story::default();
        empty.add(1, Kind::WriteIfAbsent, Some("a"), |record| record.result = Some(0));
        assert_eq!(empty.linearizable(), Some(Pattern::NotLinearizable));
    }
}

mod levels {
    use super::*;

    fn photo(level: Level) -> History {
        let mut story = Story::default();
        let photo = |record: &mut Record| {
            record.key = "photo".to_owned();
            record.level = level;
        };
        let album = |record: &mut Record| {
            record.key = "album".to_owned();
            record.level = level;
        };
        story.add(1, Kind::Write, Some("picture"), photo);
        story.add(1, Kind::Write, Some("picture 1"), album);
        story.add(2, Kind::Read, Some("picture 1"), album);
        story.add(2, Kind::Read, None, photo);
        story.history
    }

    #[test]
    fn the_photo_anomaly_is_one_only_above_the_eventual_level() {
        let strict = OrderOptions::default();
        let all = OrderOptions { with_eventual: true };
        let verdict = causal::check(&photo(Level::Causal), strict);
        assert_eq!(pattern(&verdict), Some(Pattern::WriteCOInitRead));
        let verdict = causal::check(&photo(Level::Eventual), strict);
        assert!(matches!(verdict, Verdict::NothingToCheck { .. }), "{verdict}");
        let verdict = causal::check(&photo(Level::Eventual), all);
        assert_eq!(pattern(&verdict), Some(Pattern::WriteCOInitRead));
    }

    #[test]
    fn an_eventual_write_brings_no_past_to_a_causal_reader() {
        let mut story = Story::default();
        story.add(1, Kind::Write, Some("a"), |record| record.key = "j".to_owned());
        story.add(1, Kind::Write, Some("b"), |record| record.level = Level::Eventual);
        story.read(2, Some("b"));
        story.add(2, Kind::Read, None, |record| record.key = "j".to_owned());
        assert_eq!(story.causal(), None);
    }

    #[test]
    fn only_reads_that_asked_for_it_must_follow_real_time() {
        let mut story = Story::default();
        story.write(1, "a");
        story.write(1, "b");
        story.add(2, Kind::Read, Some("a"), |record| record.level = Level::Causal);
        assert_eq!(story.linearizable(), None);
        story.read(3, Some("a"));
        assert_eq!(story.linearizable(), Some(Pattern::NotLinearizable));
    }
}

mod datacenters {
    use super::*;

    #[test]
    fn a_key_is_strict_only_where_it_is_written_unless_asked() {
        let mut story = Story::default();
        story.write(1, "a");
        story.write(1, "b");
        story.add(2, Kind::Read, Some("b"), |record| record.dc = 1);
        story.add(2, Kind::Read, Some("a"), |record| record.dc = 1);
        let strict = LinearizableOptions::default();
        let verdict = linearizable::check(&story.history, strict);
        assert!(matches!(verdict, Verdict::NothingToCheck { .. }), "{verdict}");

        story.add(3, Kind::Read, Some("b"), |record| record.dc = 0);
        let remote = LinearizableOptions { with_remote_writes: true, ..strict };
        let verdict = linearizable::check(&story.history, remote);
        assert_eq!(pattern(&verdict), None, "{verdict}");
        story.add(2, Kind::Read, Some("b"), |record| record.dc = 1);
        let verdict = linearizable::check(&story.history, remote);
        assert_eq!(pattern(&verdict), Some(Pattern::NotLinearizable), "a write arrives once");
    }

    #[test]
    fn a_remote_write_cannot_arrive_before_it_was_called() {
        let mut story = Story::default();
        story.add(2, Kind::Read, Some("a"), |record| record.dc = 1);
        story.write(1, "a");
        let remote = LinearizableOptions { with_remote_writes: true, work_max: 1000 };
        let verdict = linearizable::check(&story.history, remote);
        assert_eq!(pattern(&verdict), Some(Pattern::NotLinearizable));
    }
}

mod finals {
    use super::*;

    fn with_version(story: &mut Story, value: &str, version: Version) {
        story.add(1, Kind::Write, Some(value), |record| record.version = Some(version));
    }

    #[test]
    fn replicas_that_differ_have_not_converged() {
        let mut story = Story::default();
        story.write(1, "a");
        story.ends(0, Some("a"), None);
        assert!(converged::check(&story.history).is_passed());
        story.ends(1, None, None);
        assert_eq!(pattern(&converged::check(&story.history)), Some(Pattern::Diverged));
    }

    #[test]
    fn equal_values_of_different_versions_have_not_converged() {
        let mut story = Story::default();
        story.ends(0, Some("a"), Some(Version(1, 0)));
        story.ends(1, Some("a"), Some(Version(1, 1)));
        assert_eq!(pattern(&converged::check(&story.history)), Some(Pattern::Diverged));
    }

    #[test]
    fn an_older_version_than_acknowledged_is_found() {
        let mut story = Story::default();
        with_version(&mut story, "a", Version(1, 0));
        with_version(&mut story, "b", Version(2, 0));
        story.ends(0, Some("a"), Some(Version(1, 0)));
        assert_eq!(pattern(&converged::check(&story.history)), Some(Pattern::StaleFinal));
        assert_eq!(pattern(&durable::check(&story.history)), Some(Pattern::Lost));
    }

    #[test]
    fn a_larger_version_supersedes_what_was_acknowledged() {
        let mut story = Story::default();
        with_version(&mut story, "b", Version(2, 0));
        with_version(&mut story, "a", Version(1, 1));
        story.ends(0, Some("b"), Some(Version(2, 0)));
        assert!(durable::check(&story.history).is_passed());
        assert!(converged::check(&story.history).is_passed());
    }

    #[test]
    fn a_larger_tombstone_that_no_client_wrote_is_no_loss() {
        let mut story = Story::default();
        with_version(&mut story, "a", Version(2, 0));
        story.ends(0, None, Some(Version(3, 0)));
        assert!(durable::check(&story.history).is_passed());
    }

    #[test]
    fn without_versions_real_time_in_one_datacenter_tells_a_loss() {
        let mut story = Story::default();
        story.write(1, "a");
        story.write(2, "b");
        story.ends(0, Some("a"), None);
        assert_eq!(pattern(&durable::check(&story.history)), Some(Pattern::Lost));

        let mut apart = Story::default();
        apart.write(1, "a");
        apart.add(2, Kind::Write, Some("b"), |record| record.dc = 1);
        apart.ends(0, Some("a"), None);
        apart.ends(1, Some("a"), None);
        assert!(durable::check(&apart.history).is_passed(), "clocks of datacenters may differ");
    }

    #[test]
    fn absence_needs_a_removal_and_a_value_a_writer() {
        let mut story = Story::default();
        story.write(1, "a");
        story.ends(0, None, None);
        assert_eq!(pattern(&durable::check(&story.history)), Some(Pattern::Lost));
        story.add(2, Kind::Delete, None, unknown);
        assert!(durable::check(&story.history).is_passed());

        let mut strange = Story::default();
        strange.write(1, "a");
        strange.ends(0, Some("z"), None);
        assert_eq!(pattern(&durable::check(&strange.history)), Some(Pattern::Lost));
        let mut refused = Story::default();
        refused.write(1, "a");
        refused.add(2, Kind::Write, Some("b"), failed);
        refused.ends(0, Some("b"), None);
        assert_eq!(pattern(&durable::check(&refused.history)), Some(Pattern::Lost));
    }

    #[test]
    fn a_key_or_datacenter_that_was_not_reported_is_undecided() {
        let mut story = Story::default();
        story.write(1, "a");
        story.add(1, Kind::Write, Some("b"), |record| record.key = "j".to_owned());
        story.ends(0, Some("a"), None);
        let verdict = durable::check(&story.history);
        assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
        story.history.push_final(&FinalRecord {
            dc: 1,
            node: "n1".into(),
            key: "j".into(),
            value: Some("b".into()),
            version: None,
        });
        let verdict = converged::check(&story.history);
        assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
    }
}

mod events {
    use super::*;

    fn event(session: u64, label: u64) -> Event<&'static str, u32> {
        Event { session, label, place: Place::InSession, reads: Vec::new(), writes: Vec::new() }
    }

    fn write(session: u64, label: u64, key: &'static str, at: u64) -> Event<&'static str, u32> {
        let write = Write { key, value: Some(1), version: Some(Version(at, 0)) };
        Event { writes: vec![write], ..event(session, label) }
    }

    fn read(session: u64, label: u64, key: &'static str, at: u64) -> Event<&'static str, u32> {
        let version = (at != 0).then_some(Version(at, 0));
        let read = Read { key, value: version.map(|_| 1), version };
        Event { reads: vec![read], ..event(session, label) }
    }

    fn run(events: Vec<Event<&'static str, u32>>) -> Result<u64, Pattern> {
        let mut online = Online::new();
        for event in events {
            online.observe(event).map_err(|proof| proof.pattern)?;
        }
        online.finish().map_err(|proof| proof.pattern)
    }

    #[test]
    fn a_session_waits_until_the_write_that_it_read_is_told() {
        let early = vec![read(2, 0, "b", 2), read(2, 1, "a", 1), write(1, 2, "a", 1)];
        assert_eq!(run(early.clone()), Err(Pattern::ThinAirRead));
        let mut all = early;
        all.push(write(1, 3, "b", 2));
        assert_eq!(run(all), Ok(4));
    }

    #[test]
    fn a_stale_read_is_found_also_after_waiting() {
        let events = vec![
            read(2, 0, "b", 3),
            read(2, 1, "a", 1),
            write(1, 2, "a", 1),
            write(1, 3, "a", 2),
            write(1, 4, "b", 3),
        ];
        assert_eq!(run(events), Err(Pattern::WriteCORead));
    }

    #[test]
    fn two_sessions_that_wait_for_each_other_are_a_cycle() {
        let events =
            vec![read(1, 0, "a", 1), write(1, 1, "b", 2), read(2, 2, "b", 2), write(2, 3, "a", 1)];
        assert_eq!(run(events), Err(Pattern::CyclicCO));
    }

    #[test]
    fn a_version_below_what_its_writer_has_seen_is_found() {
        let events = vec![write(1, 0, "a", 5), read(2, 1, "a", 5), write(2, 2, "a", 4)];
        assert_eq!(run(events), Err(Pattern::VersionAgainstCause));
        let events = vec![write(1, 0, "a", 5), write(2, 1, "a", 5)];
        assert_eq!(run(events), Err(Pattern::VersionReused));
    }

    #[test]
    fn absence_is_excused_only_by_a_removal_above() {
        let events = vec![write(1, 0, "a", 5), read(1, 1, "a", 0)];
        assert_eq!(run(events.clone()), Err(Pattern::WriteCOInitRead));
        let removal = |at| {
            let write = Write { key: "a", value: None, version: Some(Version(at, 0)) };
            Event { writes: vec![write], ..event(2, 9) }
        };
        let with = |last| events.iter().cloned().chain([last]).collect::<Vec<_>>();
        assert_eq!(run(with(removal(6))), Ok(3));
        assert_eq!(run(with(removal(4))), Err(Pattern::WriteCOInitRead));
    }

    #[test]
    fn an_unknown_write_takes_part_once_its_value_is_read() {
        let unknown = Event {
            place: Place::AfterSession,
            writes: vec![Write { key: "b", value: Some(7), version: None }],
            ..event(1, 1)
        };
        let found = Event {
            reads: vec![Read { key: "b", value: Some(7), version: Some(Version(9, 0)) }],
            ..event(2, 2)
        };
        let events = vec![write(1, 0, "a", 5), unknown.clone(), found.clone(), read(2, 3, "a", 5)];
        assert_eq!(run(events), Ok(3));
        let events = vec![write(1, 0, "a", 5), unknown.clone(), found.clone(), read(2, 3, "a", 0)];
        assert_eq!(run(events), Err(Pattern::WriteCOInitRead), "its past comes with it");
        let events = vec![found, unknown, read(1, 3, "b", 0)];
        assert_eq!(run(events), Ok(2), "its own session need not see it");
    }

    #[test]
    fn a_transaction_reads_one_cut() {
        let both = |at_a: u64, at_b: u64| {
            let mut event = read(3, 4, "a", at_a);
            event.reads.extend(read(3, 4, "b", at_b).reads);
            event
        };
        let writes = [write(1, 0, "a", 1), write(1, 1, "a", 2), write(1, 2, "b", 3)];
        let with = |last| writes.iter().cloned().chain([last]).collect::<Vec<_>>();
        assert_eq!(run(with(both(2, 3))), Ok(5));
        assert_eq!(run(with(both(1, 3))), Err(Pattern::WriteCORead));
    }
}

mod report {
    use super::*;

    #[test]
    fn a_model_without_anything_to_check_says_so() {
        let report = judge(&History::new(), &JudgeOptions::default());
        for model in &report.models {
            assert!(matches!(model.verdict, Verdict::NothingToCheck { .. }), "{report}");
        }
        assert!(!report.is_clean(), "nothing was checked");
        assert_eq!(report.missing(&["causal+", "durable"]), ["causal+", "durable"]);
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let history = notation::parse(include_str!("../histories/bad_ryw.txt")).unwrap();
        let report = judge(&history, &JudgeOptions::default());
        let text = report.to_string();
        assert!(text.starts_with("2 operations, 0 final states\n"), "{text}");
        assert!(text.contains("causal+              VIOLATED: WriteCOInitRead"), "{text}");
        assert!(text.contains("durable              nothing to check"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["models"][1]["model"], "causal+");
        assert_eq!(json["models"][1]["verdict"], "violated");
        assert_eq!(json["models"][1]["violation"]["pattern"], "WriteCOInitRead");
        assert_eq!(json["models"][1]["violation"]["steps"].as_array().unwrap().len(), 2);
        assert_eq!(report.missing(&["causal+"]), ["causal+"]);
    }

    #[test]
    fn a_history_is_judged_the_same_after_the_way_through_a_file() {
        let mut story = Story::default();
        story.write(1, "a");
        story.add(2, Kind::Read, Some("a"), |record| record.token_in = Some("ct1_x".into()));
        story.add(2, Kind::Increment, Some("3"), |record| {
            record.key = "counter".into();
            record.result = Some(3);
        });
        story.ends(0, Some("a"), Some(Version(3, 1)));
        let file = jsonl::write(&story.history, Vec::new()).unwrap();
        let read = jsonl::read(&file[..]).unwrap();
        let options = JudgeOptions::default();
        assert_eq!(judge(&read, &options).to_string(), judge(&story.history, &options).to_string());
        assert!(judge(&read, &options).is_clean());
    }

    #[test]
    fn keys_without_versions_are_left_out_by_versions_only() {
        let mut story = Story::default();
        story.write(1, "a");
        story.read(2, Some("a"));
        let verdict = online::check(&story.history, OrderOptions::default());
        assert!(matches!(verdict, Verdict::NothingToCheck { .. }), "{verdict}");
    }
}
