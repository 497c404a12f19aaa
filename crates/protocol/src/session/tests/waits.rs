//! Tokens and `WAIT`.

use std::sync::Arc;

use antecede_model::{context::Dependencies, membership::Gone, token::SessionToken};

use super::*;
use crate::message::{Asker, Body};

const THIRD: DatacenterId = DatacenterId(3);

fn stamp(millis: u64) -> u64 {
    (START + millis) << 16
}

/// A past that another datacenter showed.
fn past(exact: Vec<Dependency>, floor: Vec<(DatacenterId, Timestamp)>) -> Context {
    let time = Timestamp(stamp(0));
    Context::from_parts(Dependencies { exact, floor }, time, [(THERE, time)])
}

fn after(context: Context, timeout_millis: u64) -> Command<'static> {
    Command::After { context: Box::new(context), timeout_millis }
}

/// What was asked of tails: shard, request number, writes.
fn asked_of_tails(scene: &Scene) -> Vec<(NodeId, ShardId, RequestId, usize)> {
    scene
        .around
        .sent
        .iter()
        .map(|(to, message)| {
            let Message::Shard(message) = message else { panic!("{message:?}") };
            let Body::AwaitApplied { asker: Asker::Session(id), writes } = &message.body else {
                panic!("{message:?}")
            };
            (*to, message.shard, *id, writes.len())
        })
        .collect()
}

fn applied(id: RequestId, shard: ShardId) -> SessionInput<'static> {
    let reply = Reply {
        response: Response::Ok,
        wrote: None,
        observed: SmallVec::new(),
        shard,
        visible_at: Timestamp(stamp(2)),
    };
    SessionInput::Reply(id, reply)
}

mod tokens {
    use super::*;

    #[test]
    fn a_token_holds_the_context() {
        let mut scene = Scene::of_three();
        let key = key(2, 0);
        let asked = scene.ask(&Command::One(set(&key, b"v")));
        assert!(!scene.can_take(&Command::Token), "it would miss the open write");
        scene.reply(&asked, wrote(&asked, stamp(0)));
        scene.take(&Command::Token);
        let answers = scene.answers();
        let Some(Response::Bytes(token)) = answers.last() else { panic!("{answers:?}") };
        let token = std::str::from_utf8(token).unwrap();
        let Configuration { deployment, membership, .. } = scene.configuration;
        let membership = membership.epoch;
        let read = SessionToken::decode(token, deployment, membership);
        assert_eq!(read.as_ref(), Ok(scene.session.context()));
    }

    #[test]
    fn what_this_datacenter_showed_is_taken_at_once() {
        let mut scene = Scene::of_three();
        let time = Timestamp(stamp(0));
        let exact = vec![named(THERE, 1, stamp(0) - 5)];
        let dependencies = Dependencies { exact, floor: vec![(THIRD, Timestamp(3))] };
        let own = Context::from_parts(dependencies, time, [(HERE, time)]);
        scene.take(&after(own.clone(), 0));
        assert_eq!(scene.answers(), [Response::Ok]);
        assert_eq!(scene.session.context(), &own);
        assert_eq!(asked_of_tails(&scene), []);
    }

    #[test]
    fn what_the_cuts_cover_or_began_here_is_taken_at_once() {
        let mut scene = Scene::of_three();
        scene.applied = Cut::of([(THERE, Timestamp(50)), (THIRD, Timestamp(9))]);
        let exact = vec![named(THERE, 1, 50), named(HERE, 2, 77)];
        scene.take(&after(past(exact, vec![(THIRD, Timestamp(9))]), 0));
        assert_eq!(scene.answers(), [Response::Ok]);
        assert_eq!(scene.exact().len(), 2);
        assert!(scene.session.context().is_covered_at(HERE), "it was found covered here");
    }

    /// A datacenter is let go of; it may come back under another number.
    fn let_go(scene: &mut Scene, id: DatacenterId, successor: Option<DatacenterId>) {
        let members = Arc::make_mut(&mut scene.configuration.membership);
        let name = members.members.remove(&id).unwrap().name;
        let gone = Gone { name, was_lost: true, since: members.epoch, successor };
        members.gone.insert(id, gone);
    }

    #[test]
    fn a_past_of_a_lost_datacenter_is_refused_unless_it_was_shown_here() {
        let mut scene = Scene::of_three();
        let_go(&mut scene, THERE, None);
        scene.stable = Cut::of([(THERE, Timestamp::MAX)]);
        scene.applied = scene.stable.clone();
        let lost = [Response::Refused(Refusal::Lost { datacenter: THERE })];
        scene.take(&after(past(vec![named(THERE, 1, 51)], Vec::new()), 0));
        assert_eq!(scene.answers(), lost);
        scene.take(&after(past(Vec::new(), vec![(THERE, Timestamp(51))]), 0));
        assert_eq!(scene.answers(), lost);
        assert_eq!(scene.session.context(), &Context::default());
        let time = Timestamp(stamp(0));
        let exact = vec![named(THERE, 1, 51)];
        let dependencies = Dependencies { exact, floor: Vec::new() };
        scene.take(&after(Context::from_parts(dependencies, time, [(HERE, time)]), 0));
        assert_eq!(scene.answers(), [Response::Ok]);
    }

    #[test]
    fn a_datacenter_that_is_let_go_of_takes_on_nobodys_past() {
        for (successor, refusal) in [(None, Refusal::Gone), (Some(THIRD), Refusal::Lapsed)] {
            let refused = [Response::Refused(refusal)];
            let mut scene = Scene::of_three();
            scene.applied = Cut::of([(THERE, Timestamp(50))]);
            scene.take(&after(past(vec![named(THERE, 1, 51)], Vec::new()), 5_000));
            assert_eq!(scene.answers(), []);
            let_go(&mut scene, HERE, successor);
            scene.after(1_000);
            assert_eq!(scene.answers(), refused, "it waited when this was decided");
            scene.take(&after(past(vec![named(THERE, 1, 50)], Vec::new()), 0));
            assert_eq!(scene.answers(), refused, "it is applied here, and perhaps nowhere else");
            assert_eq!(scene.session.context(), &Context::default());
        }
    }

    #[test]
    fn a_missing_write_is_asked_of_its_tail() {
        let mut scene = Scene::of_three();
        scene.applied = Cut::of([(THERE, Timestamp(50))]);
        let exact =
            vec![named(THERE, 1, 50), named(THERE, 1, 51), named(THIRD, 1, 3), named(THERE, 2, 60)];
        scene.take(&after(past(exact, Vec::new()), 1_000));
        let asked = asked_of_tails(&scene);
        let wanted = [(node(3), ShardId(1), 2), (node(1), ShardId(2), 1)];
        let found: Vec<_> =
            asked.iter().map(|(to, shard, _, count)| (*to, *shard, *count)).collect();
        assert_eq!(found, wanted);
        assert!(!scene.can_take(&Command::One(get(b"k"))), "commands behind it wait");
        assert!(scene.session.waits_for_cuts());
        scene.input(applied(asked[0].2, asked[0].1));
        assert_eq!(scene.answers(), []);
        scene.input(applied(asked[1].2, asked[1].1));
        assert_eq!(scene.answers(), [Response::Ok]);
        assert_eq!(scene.exact().len(), 4);
        assert_eq!(scene.session.context().time(), Timestamp(stamp(2)));
        assert!(scene.session.is_idle());
        assert_eq!(scene.out.wake, None);
    }

    #[test]
    fn tails_that_are_silent_are_asked_again_every_second() {
        let mut scene = Scene::of_three();
        scene.take(&after(past(vec![named(THERE, 1, 51)], Vec::new()), 5_000));
        assert_eq!(scene.out.wake, Some(Steady(Duration::from_secs(1))));
        scene.after(999);
        assert_eq!(asked_of_tails(&scene).len(), 1);
        scene.after(1);
        let asked = asked_of_tails(&scene);
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0], asked[1]);
        scene.input(SessionInput::LinkLost(node(3)));
        scene.after(1_000);
        assert_eq!(asked_of_tails(&scene).len(), 3);
        scene.input(applied(asked[0].2, asked[0].1));
        assert_eq!(scene.answers(), [Response::Ok]);
    }

    #[test]
    fn floors_wait_for_the_cut() {
        let mut scene = Scene::of_three();
        let floor = vec![(THERE, Timestamp(70))];
        scene.take(&after(past(vec![named(THERE, 1, 80)], floor), 1_000));
        scene.applied = Cut::of([(THERE, Timestamp(69))]);
        scene.after(1);
        assert_eq!(scene.answers(), []);
        scene.applied = Cut::of([(THERE, Timestamp(80))]);
        scene.after(1);
        assert_eq!(scene.answers(), [Response::Ok]);
    }

    #[test]
    fn at_the_time_out_the_client_is_told_what_is_missing() {
        let mut scene = Scene::of_three();
        let exact = vec![named(THERE, 1, 51), named(THERE, 2, 52)];
        scene.take(&after(past(exact, vec![(THIRD, Timestamp(1))]), 300));
        assert_eq!(scene.out.wake, Some(Steady(Duration::from_millis(300))));
        scene.applied = Cut::of([(THERE, Timestamp(51))]);
        scene.after(300);
        let refusal = Refusal::NotYet { missing: 2, waited_millis: 300 };
        assert_eq!(scene.answers(), [Response::Refused(refusal)]);
        assert_eq!(*scene.session.context(), Context::default());
        assert!(scene.session.is_idle());
    }

    #[test]
    fn a_time_too_far_ahead_is_refused_and_not_merged() {
        let mut scene = Scene::of_three();
        let refusal = Refusal::Drift { ahead_millis: 501, limit_millis: 500 };
        let time = Timestamp(stamp(501));
        let contexts = [
            Context::from_parts(Dependencies::default(), time, [(HERE, Timestamp(1))]),
            Context::from_parts(Dependencies::default(), Timestamp(1), [(HERE, time)]),
            past(vec![named(THERE, 1, time.0)], Vec::new()),
        ];
        for context in contexts {
            scene.take(&after(context, 1_000));
            assert_eq!(scene.answers(), [Response::Refused(refusal)]);
        }
        assert_eq!(*scene.session.context(), Context::default());
    }

    #[test]
    fn what_a_token_brought_is_carried() {
        let mut scene = Scene::of_three();
        scene.applied = Cut::of([(THERE, Timestamp(50))]);
        scene.take(&after(past(vec![named(THERE, 1, 50)], Vec::new()), 0));
        let key = key(2, 0);
        let asked = scene.ask(&Command::One(set(&key, b"v")));
        assert_eq!(asked.dependencies(), [named(THERE, 1, 50)]);
        assert_eq!(asked.carried.time, Timestamp(stamp(0)));
    }
}

mod replicas {
    use super::*;

    fn wait(count: u64, timeout_millis: u64) -> Command<'static> {
        Command::Wait { count, timeout_millis }
    }

    fn written() -> Scene {
        let mut scene = Scene::of_three();
        let key = key(2, 0);
        let asked = scene.ask(&Command::One(set(&key, b"v")));
        scene.reply(&asked, wrote(&asked, 9));
        assert_eq!(scene.answers(), [Response::Ok]);
        scene
    }

    #[test]
    fn the_tail_of_the_last_writes_shard_is_asked() {
        let mut scene = written();
        let asked = scene.ask(&wait(1, 250));
        assert_eq!((asked.to, asked.carried.place), (node(1), Place::Tail));
        let stamp = Timestamp(9);
        let wanted = ShardOperation::Replicated { stamp, count: 1, timeout_millis: 250 };
        assert_eq!(asked.operation(), wanted);
        assert!(!scene.can_take(&Command::One(get(b"k"))));
        scene.reply(&asked, plain(&asked, Response::Integer(1)));
        assert_eq!(scene.answers(), [Response::Integer(1)]);
    }

    #[test]
    fn a_session_that_never_wrote_is_told_the_number_of_peers() {
        let mut scene = Scene::of_three();
        scene.take(&wait(1, 0));
        assert_eq!(scene.answers(), [Response::Integer(1)]);
    }

    #[test]
    fn without_peers_the_answer_is_zero_at_the_time_out() {
        let mut scene = written();
        scene.configuration.datacenters.remove(&THERE);
        scene.take(&wait(0, 100));
        assert_eq!(scene.answers(), [Response::Integer(0)]);
        scene.take(&wait(1, 100));
        assert_eq!(scene.out.wake, Some(Steady(Duration::from_millis(100))));
        scene.after(99);
        assert_eq!(scene.answers(), []);
        scene.after(1);
        assert_eq!(scene.answers(), [Response::Integer(0)]);
        scene.take(&wait(1, 0));
        scene.after(1_000_000);
        assert_eq!((scene.answers(), scene.out.wake), (vec![], None));
    }

    #[test]
    fn a_lost_question_is_asked_again_with_the_time_that_is_left() {
        let mut scene = written();
        scene.configuration.datacenters.get_mut(&HERE).unwrap().chains[2].serving.swap(1, 2);
        let first = scene.ask(&wait(1, 3_000));
        assert_eq!(first.to, node(2));
        scene.input(SessionInput::LinkLost(node(2)));
        scene.after(1_000);
        let second = scene.around.asked.last().unwrap().clone();
        assert_ne!(second.id, first.id);
        let ShardOperation::Replicated { timeout_millis, .. } = second.operation() else {
            panic!("{second:?}")
        };
        assert_eq!(timeout_millis, 2_000);
        scene.reply(&first, plain(&first, Response::Integer(0)));
        assert_eq!(scene.answers(), []);
        scene.reply(&second, plain(&second, Response::Integer(1)));
        assert_eq!(scene.answers(), [Response::Integer(1)]);
    }

    #[test]
    fn a_tail_that_cannot_be_reached_is_given_up_after_the_time_out() {
        let mut scene = written();
        scene.around.unlinked.insert(node(1));
        scene.take(&wait(1, 2_000));
        for _ in 0..6 {
            scene.after(1_000);
            assert_eq!(scene.answers(), []);
        }
        scene.after(1_000);
        let refusal = Refusal::Unreachable { shard: ShardId(2) };
        assert_eq!(scene.answers(), [Response::Refused(refusal)]);
    }
}
