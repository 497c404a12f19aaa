//! Answers are in order; what is open at one time; where requests go, and what becomes of lost ones.

use proptest::prelude::*;

use super::*;

#[test]
fn answers_leave_in_the_order_of_the_commands() {
    let mut scene = Scene::elsewhere();
    let keys = [key(0, 0), key(1, 0), key(2, 0)];
    let asked: Vec<_> = keys.iter().map(|key| scene.ask(&one(get(key)))).collect();
    scene.reply(&asked[2], plain(&asked[2], Response::Integer(3)));
    scene.reply(&asked[1], plain(&asked[1], Response::Integer(2)));
    assert_eq!(scene.answers(), []);
    scene.reply(&asked[0], plain(&asked[0], Response::Integer(1)));
    let wanted = [1, 2, 3].map(Response::Integer);
    assert_eq!(scene.answers(), wanted);
    assert!(scene.session.is_idle());
}

#[test]
fn what_needs_no_shard_is_answered_behind_what_is_open() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let asked = scene.ask(&one(get(&key)));
    scene.take(&Command::Unwatch);
    scene.take(&Command::Level(None));
    assert_eq!(scene.answers(), []);
    scene.reply(&asked, plain(&asked, Response::Nil));
    let level = Response::Bytes(b"linearizable".to_vec());
    assert_eq!(scene.answers(), [Response::Nil, Response::Ok, level]);
}

#[test]
fn an_answer_to_another_session_or_given_twice_is_ignored() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let asked = scene.ask(&one(get(&key)));
    let mut other = asked.clone();
    other.id.session = SessionId(8);
    scene.reply(&other, plain(&other, Response::Nil));
    assert_eq!(scene.answers(), []);
    scene.reply(&asked, found(&asked, HERE, 5));
    scene.reply(&asked, found(&asked, HERE, 6));
    assert_eq!(scene.answers(), [Response::Integer(5)]);
    assert_eq!(scene.exact(), [named(HERE, 0, 5)]);
}

mod places {
    use super::*;

    #[test]
    fn reads_go_to_the_replica_on_this_node_and_writes_to_the_head() {
        let mut scene = Scene::of_three();
        for shard in 0..4 {
            let key = key(shard, 0);
            let asked = scene.ask(&one(get(&key)));
            assert_eq!((asked.to, asked.carried.place), (node(1), Place::Anywhere));
            scene.reply(&asked, plain(&asked, Response::Nil));
            let asked = scene.ask(&one(set(&key, b"v")));
            let head = scene.configuration.head(HERE, ShardId(shard)).unwrap();
            assert_eq!((asked.to, asked.carried.place), (head, Place::Head));
            scene.reply(&asked, wrote(&asked, 5));
        }
    }

    #[test]
    fn a_read_behind_an_open_write_of_its_shard_is_evaluated_at_the_head() {
        let mut scene = Scene::of_three();
        let key = key(2, 0);
        let write = scene.ask(&one(set(&key, b"v")));
        let read = scene.ask(&one(get(&key)));
        assert_eq!((read.to, read.carried.place), (node(3), Place::Head));
        scene.reply(&write, wrote(&write, 5));
        // The read may still be computed from what only the head has.
        let next = scene.ask(&one(get(&key)));
        assert_eq!((next.to, next.carried.place), (node(3), Place::Head));
        scene.reply(&read, found(&read, HERE, 5));
        scene.reply(&next, found(&next, HERE, 5));
        assert_eq!(scene.answers().len(), 3);
        let later = scene.ask(&one(get(&key)));
        assert_eq!((later.to, later.carried.place), (node(1), Place::Anywhere));
    }

    #[test]
    fn in_one_log_reads_behind_open_writes_see_uncommitted_state() {
        let mut scene = Scene::alone();
        scene.around.stamps = Some(100);
        let keys: Vec<_> = (0..4).map(|shard| key(shard, 0)).collect();
        let first = scene.ask(&one(get(&keys[1])));
        assert_eq!(first.carried.place, Place::Anywhere, "nothing is open");
        scene.reply(&first, plain(&first, Response::Nil));
        let write = scene.ask(&one(set(&keys[0], b"v")));
        let other = scene.ask(&one(get(&keys[2])));
        assert_eq!(other.carried.place, Place::Head, "what is open may have found more");
        let own = scene.ask(&one(get(&keys[0])));
        assert_eq!(own.carried.place, Place::Head);
        scene.reply(&write, wrote(&write, 100));
        scene.reply(&other, plain(&other, Response::Nil));
        let behind = scene.ask(&one(get(&keys[3])));
        assert_eq!(behind.carried.place, Place::Head, "it must not be older than the one before");
    }
}

mod pipelines {
    use super::*;

    #[test]
    fn a_command_for_another_shard_waits_for_the_answer_to_a_write() {
        let mut scene = Scene::of_three();
        let (a, b) = (key(2, 0), key(1, 0));
        let write = scene.ask(&one(set(&a, b"v")));
        assert!(!scene.can_take(&one(set(&b, b"v"))));
        assert!(!scene.can_take(&one(get(&b))));
        assert!(!scene.can_take(&Command::Token));
        assert!(scene.can_take(&one(set(&a, b"w"))));
        assert!(scene.can_take(&one(get(&a))));
        scene.reply(&write, wrote(&write, 5));
        assert!(scene.can_take(&one(set(&b, b"v"))));
    }

    #[test]
    fn a_write_never_overtakes_the_answer_of_a_read() {
        let mut scene = Scene::of_three();
        let a = key(2, 0);
        let read = scene.ask(&one(get(&a)));
        assert!(!scene.can_take(&one(set(&a, b"v"))));
        scene.reply(&read, plain(&read, Response::Nil));
        // Whether a delete writes is not known before it is answered.
        let write = scene.ask(&one(delete(&a)));
        assert!(!scene.can_take(&one(set(&a, b"v"))));
        assert!(scene.can_take(&one(get(&a))));
        scene.reply(&write, plain(&write, Response::Integer(0)));
        assert!(scene.can_take(&one(set(&a, b"v"))));
    }

    #[test]
    fn reads_of_all_shards_run_side_by_side() {
        let mut scene = Scene::of_three();
        for shard in 0..4 {
            let key = key(shard, 0);
            scene.take(&one(get(&key)));
        }
        assert_eq!(scene.around.asked.len(), 4);
    }

    #[test]
    fn in_one_log_commands_flow_once_the_stamps_of_writes_are_known() {
        let mut scene = Scene::alone();
        let (a, b) = (key(0, 0), key(1, 0));
        let unknown = scene.ask(&one(set(&a, b"v")));
        assert!(!scene.can_take(&one(set(&b, b"v"))), "it could not carry the first one");
        assert!(scene.can_take(&one(set(&a, b"v"))), "the head knows the first one");
        assert!(scene.can_take(&one(get(&b))));
        scene.reply(&unknown, wrote(&unknown, 5));
        scene.around.stamps = Some(100);
        scene.take(&one(set(&a, b"v")));
        scene.take(&one(delete(&b)));
        scene.take(&one(set(&a, b"v")));
        assert_eq!(scene.around.asked.len(), 4);
    }

    #[test]
    fn a_one_replica_chain_on_another_node_is_another_log() {
        let mut scene = Scene::of([&[1], &[1], &[2], &[2]]);
        scene.around.stamps = Some(100);
        let (here, there) = (key(0, 0), key(2, 0));
        scene.take(&one(set(&here, b"v")));
        assert!(!scene.can_take(&one(set(&there, b"v"))));
        assert!(!scene.can_take(&one(get(&there))));
    }

    #[test]
    fn only_so_many_commands_are_open() {
        let mut scene = Scene::alone();
        let key = key(0, 0);
        for _ in 0..super::super::super::OUTSTANDING_MAX {
            scene.take(&one(set(&key, b"v")));
        }
        assert!(!scene.can_take(&one(set(&key, b"v"))));
        let first = scene.around.asked[0].clone();
        scene.reply(&first, wrote(&first, 1));
        assert!(scene.can_take(&one(set(&key, b"v"))));
    }
}

mod reread {
    use super::*;

    #[test]
    fn a_read_that_may_be_older_than_what_an_earlier_one_found_is_read_again() {
        let mut scene = Scene::elsewhere();
        let (a, b) = (key(0, 0), key(2, 0));
        let first = scene.ask(&one(get(&a)));
        let second = scene.ask(&one(get(&b)));
        scene.reply(&second, found(&second, HERE, 3));
        scene.reply(&first, found(&first, HERE, 9));
        assert_eq!(scene.answers(), [Response::Integer(9)]);
        let again = scene.around.asked.last().unwrap().clone();
        assert_ne!(again.id, second.id);
        assert_eq!(again.operation, second.operation);
        scene.reply(&second, found(&second, HERE, 3));
        assert_eq!(scene.answers(), [], "the older answer does not count");
        scene.reply(&again, found(&again, HERE, 10));
        assert_eq!(scene.answers(), [Response::Integer(10)]);
    }

    #[test]
    fn what_was_applied_before_the_reads_were_sent_makes_none_of_them_old() {
        let mut scene = Scene::elsewhere();
        scene.applied = Cut::of([(HERE, Timestamp(9))]);
        let (a, b) = (key(0, 0), key(2, 0));
        let first = scene.ask(&one(get(&a)));
        let second = scene.ask(&one(get(&b)));
        scene.reply(&second, found(&second, HERE, 3));
        scene.reply(&first, found(&first, HERE, 9));
        assert_eq!(scene.answers(), [9, 3].map(Response::Integer));
    }

    #[test]
    fn what_was_evaluated_on_this_node_before_the_next_was_handed_over_makes_none_old() {
        let mut scene = Scene::of_three();
        scene.around.answers_at_once = true;
        let (a, b) = (key(0, 0), key(2, 0));
        let first = scene.ask(&one(get(&a)));
        let second = scene.ask(&one(get(&b)));
        scene.reply(&first, found(&first, HERE, 9));
        scene.reply(&second, found(&second, HERE, 3));
        assert_eq!(scene.answers(), [9, 3].map(Response::Integer));
    }

    /// What happens next in [`pipelined_reads_never_go_back`].
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Another client writes b, then a.
        Write,
        /// The session is given a read of a or b.
        Ask(bool),
        /// A replica evaluates one of the requests that have arrived.
        Evaluate(prop::sample::Index),
        /// One of the answers arrives.
        Deliver(prop::sample::Index),
        /// A link is lost, with what is under way on it.
        Lose(bool),
        /// The applied cut reaches what is visible.
        Apply,
        /// So many milliseconds pass: a silent replica's reads go on to the next.
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Write),
            6 => any::<bool>().prop_map(Step::Ask),
            6 => any::<prop::sample::Index>().prop_map(Step::Evaluate),
            6 => any::<prop::sample::Index>().prop_map(Step::Deliver),
            1 => any::<bool>().prop_map(Step::Lose),
            1 => Just(Step::Apply),
            1 => (1_u64..600).prop_map(Step::Pass),
        ]
    }

    /// Another client counts up b, then a. Stamps: 2 for the first b, 3 for the first a, and so on.
    #[derive(Default)]
    struct Counter {
        written: u64,
        arrived: Vec<Asked>,
        evaluated: Vec<(Asked, Reply)>,
        taken: usize,
    }

    impl Counter {
        fn write(&mut self) {
            self.written += 1;
        }

        /// The newest of the two keys: a has even numbers of writes behind it, b odd ones.
        fn value(&self, is_a: bool) -> u64 {
            if is_a { self.written & !1 } else { self.written.saturating_sub(1) | 1 }
        }

        fn arrive(&mut self, scene: &Scene) {
            self.arrived.extend_from_slice(&scene.around.asked[self.taken..]);
            self.taken = scene.around.asked.len();
        }

        fn evaluate(&mut self, at: usize) {
            let asked = self.arrived.remove(at);
            let value = self.value(asked.shard == ShardId(0));
            let reply = found(&asked, HERE, value);
            self.evaluated.push((asked, reply));
        }
    }

    proptest! {
        #[test]
        fn pipelined_reads_never_go_back(steps in proptest::collection::vec(step(), 1..120)) {
            let mut scene = Scene::elsewhere();
            let (a, b) = (key(0, 0), key(2, 0));
            let mut counter = Counter::default();
            let mut order = Vec::new();
            for step in steps {
                match step {
                    Step::Write => counter.write(),
                    Step::Ask(is_a) => {
                        order.push(is_a);
                        scene.take(&one(get(if is_a { &a } else { &b })));
                    }
                    Step::Evaluate(at) if !counter.arrived.is_empty() => {
                        counter.evaluate(at.index(counter.arrived.len()));
                    }
                    Step::Deliver(at) if !counter.evaluated.is_empty() => {
                        let (asked, reply) =
                            counter.evaluated.remove(at.index(counter.evaluated.len()));
                        scene.reply(&asked, reply);
                    }
                    Step::Lose(is_two) => {
                        let lost = node(if is_two { 2 } else { 3 });
                        counter.arrive(&scene);
                        counter.arrived.retain(|asked| asked.to != lost);
                        counter.evaluated.retain(|(asked, _)| asked.to != lost);
                        scene.input(SessionInput::LinkLost(lost));
                    }
                    Step::Apply => {
                        scene.applied = Cut::of([(HERE, Timestamp(counter.written))]);
                    }
                    Step::Pass(millis) => scene.after(millis),
                    Step::Evaluate(_) | Step::Deliver(_) => {}
                }
                counter.arrive(&scene);
            }
            // Some may be held, so time passes too.
            for _ in 0..1_000 {
                while !counter.arrived.is_empty() {
                    counter.evaluate(0);
                }
                match counter.evaluated.is_empty() {
                    true if scene.session.is_idle() => break,
                    true => scene.after(5),
                    false => {
                        let (asked, reply) = counter.evaluated.remove(0);
                        scene.reply(&asked, reply);
                    }
                }
                counter.arrive(&scene);
            }
            prop_assert!(scene.session.is_idle());
            let answers = scene.answers();
            prop_assert_eq!(answers.len(), order.len());
            let mut seen = 0;
            for (is_a, answer) in order.into_iter().zip(answers) {
                // What cannot be reached any more says so, and nothing of the past.
                let Response::Integer(value) = answer else { continue };
                let at_least = if is_a { seen & !1 } else { (seen - 1) | 1 };
                prop_assert!(at_least <= value, "{} after {}", value, seen);
                seen = seen.max(value);
            }
        }
    }
}

mod losses {
    use super::*;

    const UNREACHABLE: Response = Response::Refused(Refusal::Unreachable { shard: ShardId(0) });
    const UNKNOWN: Response = Response::Refused(Refusal::UnknownOutcome);

    #[test]
    fn a_write_on_a_lost_link_has_an_unknown_outcome() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        let read = scene.ask(&one(get(&key)));
        scene.reply(&read, found(&read, THERE, 5));
        let write = scene.ask(&one(set(&key, b"v")));
        scene.input(SessionInput::LinkLost(node(3)));
        assert_eq!(scene.answers(), [Response::Integer(5)]);
        scene.input(SessionInput::LinkLost(node(2)));
        assert_eq!(scene.answers(), [UNKNOWN]);
        assert_eq!(scene.exact(), [named(THERE, 0, 5)], "the context stays");
        scene.reply(&write, wrote(&write, 9));
        assert_eq!(scene.answers(), []);
        assert_eq!(scene.exact(), [named(THERE, 0, 5)], "a late answer is ignored");
    }

    #[test]
    fn a_read_on_a_lost_link_is_sent_to_the_others() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        let first = scene.ask(&one(get(&key)));
        scene.input(SessionInput::LinkLost(first.to));
        let second = scene.around.asked.last().unwrap().clone();
        assert_ne!(second.to, first.to);
        assert_eq!(second.operation, first.operation);
        scene.reply(&first, found(&first, HERE, 1));
        assert_eq!(scene.answers(), []);
        scene.input(SessionInput::LinkLost(second.to));
        assert_eq!(scene.answers(), []);
        scene.after(5);
        let third = scene.around.asked.last().unwrap().clone();
        assert_eq!(third.to, first.to, "its link may be back");
        scene.around.unlinked.extend([node(2), node(3)]);
        scene.input(SessionInput::LinkLost(third.to));
        scene.after(2_495);
        assert_eq!(scene.answers(), [UNREACHABLE]);
    }

    #[test]
    fn a_read_behind_a_lost_write_is_answered_by_another_replica() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        scene.take(&one(set(&key, b"v")));
        let read = scene.ask(&one(get(&key)));
        assert_eq!((read.to, read.carried.place), (node(2), Place::Head));
        scene.input(SessionInput::LinkLost(node(2)));
        assert_eq!(scene.answers(), [UNKNOWN]);
        let again = scene.around.asked.last().unwrap().clone();
        assert_eq!((again.to, again.carried.place), (node(3), Place::Anywhere));
        scene.reply(&again, plain(&again, Response::Nil));
        assert_eq!(scene.answers(), [Response::Nil]);
    }

    #[test]
    fn without_a_link_nothing_is_unknown() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        scene.around.unlinked.insert(node(2));
        scene.take(&one(set(&key, b"v")));
        scene.after(2_500);
        assert_eq!(scene.answers(), [UNREACHABLE]);
        let read = scene.ask(&one(get(&key)));
        assert_eq!(read.to, node(3));
        scene.reply(&read, plain(&read, Response::Nil));
        scene.around.unlinked.insert(node(3));
        scene.take(&one(get(&key)));
        scene.after(2_500);
        assert_eq!(scene.answers(), [Response::Nil, UNREACHABLE]);
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        scene.take(&one(set(&key, b"v")));
        assert_eq!(scene.out.wake, Some(Steady(Duration::from_secs(5))));
        scene.after(4_999);
        assert_eq!(scene.answers(), []);
        assert_eq!(scene.out.overdue, []);
        scene.after(1);
        assert_eq!(scene.answers(), [UNKNOWN]);
        assert_eq!(scene.out.wake, None);
        let waited = Duration::from_secs(5);
        let (shard, to, place) = (ShardId(0), node(2), Place::Head);
        assert_eq!(scene.out.overdue, [Overdue { shard, to, place, waited }]);
    }

    #[test]
    fn a_read_goes_on_from_silent_replicas_with_more_patience_each_time() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        scene.take(&one(get(&key)));
        let mut asked = Vec::new();
        for millis in 0..5_000 {
            let (count, to) = (scene.around.asked.len(), scene.around.asked.last().unwrap().to);
            if asked.last().is_none_or(|(known, _, _)| *known < count) {
                asked.push((count, millis, to.number));
            }
            assert_eq!(scene.answers(), []);
            scene.after(1);
        }
        // The pause of 5 ms comes when both replicas were silent.
        let expected = [(1, 0, 3), (2, 250, 2), (3, 755, 3), (4, 1_755, 2)];
        assert_eq!(asked, expected);
        assert_eq!(scene.answers(), [UNREACHABLE]);
        let (shard, to, place) = (ShardId(0), node(2), Place::Anywhere);
        let waited = Duration::from_secs(5);
        assert_eq!(scene.out.overdue, [Overdue { shard, to, place, waited }], "only at the end");
    }

    /// Reads once, where a replica never answers and all others refuse; how often each was asked
    /// while time passed.
    fn asked_beside_a_silent_one(
        chain: &[u16],
        silent: u16,
        refusals: u32,
    ) -> BTreeMap<u16, usize> {
        let mut scene = Scene::of([chain, chain, chain, chain]);
        let key = key(0, 0);
        scene.around.refusals = refusals;
        scene.take(&one(get(&key)));
        let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
        let mut answered = 0;
        for _ in 0..100 {
            let asked = scene.around.asked[answered..].to_vec();
            answered += asked.len();
            for request in asked {
                *counts.entry(request.to.number).or_default() += 1;
                if request.to.number != silent {
                    let refused = Response::Refused(Refusal::NoLease { shard: ShardId(0) });
                    scene.reply(&request, plain(&request, refused));
                }
            }
            scene.after(10);
        }
        assert_eq!(scene.answers(), []);
        counts
    }

    #[test]
    fn a_read_goes_round_a_replica_that_was_silent_about_it() {
        // The one that the session would ask first.
        let counts = asked_beside_a_silent_one(&[2, 3, 4], 3, 0);
        assert!(counts[&3] == 1 && 9 < counts[&2] && 9 < counts[&4], "{counts:?}");
        // The one behind the replica on its own node, which refuses at once.
        let counts = asked_beside_a_silent_one(&[1, 2, 3], 2, u32::MAX);
        assert!(counts[&2] == 1 && 9 < counts[&3], "{counts:?}");
    }

    #[test]
    fn a_read_that_a_silent_replica_has_is_answered_where_it_was_refused_before() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        let first = scene.ask(&one(get(&key)));
        scene.reply(
            &first,
            plain(&first, Response::Refused(Refusal::NoLease { shard: ShardId(0) })),
        );
        let second = scene.around.asked.last().unwrap().clone();
        assert_ne!(second.to, first.to);
        scene.after(250);
        scene.after(5);
        let third = scene.around.asked.last().unwrap().clone();
        assert_eq!(third.to, first.to);
        scene.reply(&second, plain(&second, Response::Nil));
        assert_eq!(scene.answers(), [], "what comes late is for nobody");
        scene.reply(&third, plain(&third, Response::Nil));
        assert_eq!(scene.answers(), [Response::Nil]);
    }

    #[test]
    fn a_read_at_the_head_is_not_moved_past_an_open_write() {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        scene.take(&one(set(&key, b"v")));
        scene.take(&one(get(&key)));
        scene.after(2_500);
        assert_eq!(scene.around.asked.len(), 2);
        scene.after(2_500);
        assert_eq!(scene.answers(), [UNKNOWN, UNREACHABLE]);
    }

    #[test]
    fn a_local_read_is_given_up_at_its_time_out() {
        let mut scene = Scene::of_three();
        let key = key(0, 0);
        scene.take(&one(get(&key)));
        scene.after(5_000);
        assert_eq!(scene.answers(), [UNREACHABLE]);
    }
}
