//! What is said between datacenters that have much to make up for, counted message by message.

use super::*;
use crate::{geo::inbox::CREDIT, message::Received};

/// What a peer is sent before it tells that it takes them.
const AT_FIRST: usize = 128;

/// How many messages are of a kind.
fn count_of(deployment: &Deployment, is_it: impl Fn(&Body) -> bool) -> usize {
    deployment.said.iter().filter(|(_, message)| is_it(&message.body)).count()
}

/// How many entries were sent to another datacenter.
fn entries_sent(deployment: &Deployment) -> usize {
    let mut sent = 0;
    for (_, message) in &deployment.said {
        if let Body::Replicate(replicate) = &message.body {
            sent += replicate.entries.len();
        }
    }
    sent
}

fn is_report(body: &Body) -> bool {
    matches!(body, Body::Received(_))
}

#[test]
fn a_peer_that_was_away_is_sent_little_until_it_tells_that_it_takes_it() {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.cut_off(1, 2);
    let count = 3 * AT_FIRST;
    for number in 0..count {
        deployment.put(1, &format!("key{number}"), "v");
    }
    // It asks, is told that nothing has come, and what it sends then is lost again.
    deployment.cut.retain(|(from, _)| from.datacenter == dc(1));
    deployment.pass(2_000);
    deployment.said.clear();
    deployment.cut.clear();
    deployment.pass(50);
    while deployment.said.is_empty() {
        deployment.pass(50);
    }
    let before_report = deployment.said.iter().position(|(_, message)| is_report(&message.body));
    deployment.said.truncate(before_report.unwrap_or(deployment.said.len()));
    let sent = entries_sent(&deployment);
    assert!(sent <= AT_FIRST, "{sent} entries before it had told anything");
    deployment.pass(2_000);
    for number in [0, AT_FIRST, count - 1] {
        assert_eq!(deployment.get(2, &format!("key{number}")), value("v"));
    }
    assert!(count < usize::try_from(CREDIT).unwrap(), "credit alone would have let all of them go");
}

#[test]
fn a_peer_that_does_not_answer_is_asked_and_sent_nothing_again() {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.put(1, "before", "v");
    deployment.pass(1_000);
    deployment.cut_off(1, 2);
    deployment.said.clear();
    let count = 3 * AT_FIRST;
    for number in 0..count {
        deployment.put(1, &format!("key{number}"), "v");
    }
    deployment.pass(5_000);
    let sent = entries_sent(&deployment);
    assert!(sent <= 2 * AT_FIRST, "{sent} entries to nobody in five seconds");
    let asked = count_of(&deployment, |body| matches!(body, Body::Replicate(_)));
    assert!(10 < asked, "asked {asked} times: soon sent on once it answers");
}

#[test]
fn nothing_is_sent_twice_while_a_peer_catches_up() {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.cut_off(1, 2);
    let count = 5 * AT_FIRST;
    for number in 0..count {
        deployment.put(1, &format!("key{number}"), "v");
    }
    deployment.pass(1_000);
    deployment.said.clear();
    deployment.cut.clear();
    deployment.pass(3_000);
    assert_eq!(deployment.get(2, &format!("key{}", count - 1)), value("v"));
    let of_ticks = 32; // Both sides make some meanwhile.
    let sent = entries_sent(&deployment);
    // What was sent into the cut is sent once more.
    assert!((count..count + AT_FIRST + of_ticks).contains(&sent), "{sent} entries were sent");
}

#[test]
fn reports_of_one_moment_are_gathered() {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.put(1, "before", "v");
    deployment.pass(1_000);
    deployment.said.clear();
    let count = 100;
    for number in 0..count {
        deployment.put(1, &format!("key{number}"), "v"); // Each arrives and is applied alone.
    }
    let at_once = count_of(&deployment, is_report);
    assert!((1..=2).contains(&at_once), "{at_once} reports of {count} writes in a moment");
    deployment.pass(100);
    let wrote = deployment.put(1, "last", "v").wrote.unwrap();
    deployment.pass(100);
    let told = deployment.said.iter().rev().find_map(|(_, message)| {
        if let Body::Received(received) = &message.body { Some(received.applied_to) } else { None }
    });
    assert!(Some(wrote.stamp) <= told, "the last one was told of: {told:?}");
}

/// A deployment in which a write of the third datacenter waits in the second for one of the first.
fn with_a_blocked_write(shards: u32) -> (Deployment, String) {
    let mut deployment = Deployment::of(3, 1, shards);
    let cause = deployment.put(1, "cause", "v");
    let is_elsewhere = |key: &String| deployment.shard_of(key) != deployment.shard_of("cause");
    let effect = (0..).map(|number| format!("effect{number}")).find(is_elsewhere).unwrap();
    deployment.cut_off(1, 2);
    let cause = deployment.put_after(1, "cause", "again", &after_write(&cause));
    deployment.put_after(3, &effect, "v", &after_write(&cause));
    (deployment, effect)
}

#[test]
fn a_question_without_an_answer_is_asked_ever_more_seldom() {
    let (mut deployment, effect) = with_a_blocked_write(4);
    let is_ask = |body: &Body| matches!(body, Body::AwaitApplied { .. });
    assert_eq!(count_of(&deployment, is_ask), 1);
    deployment.pass(10_000);
    let asked = count_of(&deployment, is_ask);
    assert!((4..=9).contains(&asked), "asked {asked} times in ten seconds");
    assert_eq!(deployment.get(2, &effect), Response::Nil);
    deployment.cut.clear();
    deployment.pass(1_000);
    assert_eq!(deployment.get(2, &effect), value("v"));
}

#[test]
fn nobody_is_left_waiting_or_asking_once_all_is_applied() {
    let (mut deployment, effect) = with_a_blocked_write(4);
    deployment.pass(1_000);
    deployment.cut.clear();
    deployment.pass(2_000);
    assert_eq!(deployment.get(2, &effect), value("v"));
    for node in deployment.nodes.values() {
        for shard in node.shards.values() {
            assert_eq!(shard.blocked_count(), 0);
            assert!(!shard.waiters.waits() && !shard.is_asked(), "{:?}", shard.waiters);
        }
    }
    deployment.said.clear();
    deployment.pass(3_000);
    assert_eq!(count_of(&deployment, |body| matches!(body, Body::AwaitApplied { .. })), 0);
}

#[test]
fn however_many_wait_few_questions_are_asked_again_at_a_time() {
    let mut deployment = Deployment::of(3, 1, 4);
    let count = 1_000;
    let shard_of = |deployment: &Deployment, key: &str| deployment.shard_of(key);
    deployment.cut_off(1, 2);
    for number in 0..count {
        let cause = format!("cause{number}");
        let elsewhere = |key: &String| shard_of(&deployment, key) != shard_of(&deployment, &cause);
        let effect = (0..).map(|way| format!("effect{number}.{way}")).find(elsewhere).unwrap();
        let wrote = deployment.put(1, &cause, "v");
        deployment.put_after(3, &effect, "v", &after_write(&wrote));
    }
    deployment.said.clear();
    deployment.pass(10_000);
    let asked = deployment.said.iter().map(|(_, message)| {
        if let Body::AwaitApplied { writes, .. } = &message.body { writes.len() } else { 0 }
    });
    let asked: usize = asked.sum();
    // Each of four shards asks every 300 ms for 16 at most; each of the writes seven times would be
    // more.
    assert!((500..=2_200).contains(&asked), "asked for {asked} writes in ten seconds");
    deployment.cut.clear();
    deployment.pass(3_000);
    for number in 0..count {
        assert_eq!(deployment.get(2, &format!("cause{number}")), value("v"));
    }
    assert!(
        deployment
            .nodes
            .values()
            .flat_map(|node| node.shards.values())
            .all(|shard| { shard.blocked_count() == 0 && !shard.waiters.waits() })
    );
}

#[test]
fn a_peer_where_many_wait_is_sent_few_more_and_none_stands_behind_them_for_long() {
    let mut deployment = Deployment::of(3, 1, 256);
    deployment.cut_off(1, 2);
    let cause = deployment.put(1, "cause", "v");
    deployment.pass(1_000);
    deployment.cut_off(3, 2);
    let count = 1_000;
    for number in 0..count {
        deployment.put_after(3, &format!("{{e}}{number}"), "v", &after_write(&cause));
    }
    deployment.put(3, "{e}free", "v");
    let blocked = |deployment: &Deployment| -> usize {
        let here = deployment.nodes.iter().filter(|(id, _)| id.datacenter == dc(2));
        here.flat_map(|(_, node)| node.shards.values().map(Shard::blocked_count)).sum()
    };
    deployment.cut.retain(|(from, to)| from.datacenter == dc(1) || to.datacenter == dc(1));
    let heals_at = deployment.millis;
    while deployment.get(2, "{e}free") == Response::Nil {
        deployment.pass(100);
        let rounds = (deployment.millis - heals_at) / 300 + 1;
        let most = AT_FIRST + (8 << rounds);
        assert!(blocked(&deployment) <= most, "{} wait in {rounds} rounds", blocked(&deployment));
        assert!(rounds <= 9, "what waits for nothing stands behind what waits");
    }
    assert_eq!(blocked(&deployment), count);
    deployment.cut.clear();
    deployment.pass(3_000);
    assert_eq!(blocked(&deployment), 0);
    assert_eq!(deployment.get(2, "{e}999"), value("v"));
}

/// How many entries a peer is sent in six seconds in which it takes no more than it has, and applies
/// so many of them every 300 ms.
fn sent_without_credit(applied_each_time: usize) -> usize {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.cut_off(1, 2);
    let stamps: Vec<Timestamp> = (0..1_000)
        .map(|number| deployment.put(1, &format!("key{number}"), "v").wrote.unwrap().stamp)
        .collect();
    let [here, there] = [1, 2].map(|place| deployment.replica(place, "key", 0));
    let shard = deployment.shard_of("key");
    deployment.said.clear();
    for round in 0..20 {
        let (boot, replica) =
            (deployment.nodes[&there].boot, &deployment.nodes[&there].shards[&shard]);
        let report = Received {
            membership: replica.configuration.membership.epoch,
            lineage: replica.configuration.lineage(dc(1), shard),
            received_to: stamps[AT_FIRST - 1 + entries_sent(&deployment)],
            applied_to: stamps[applied_each_time * round],
            above: Vec::new(),
            credit: 0,
        };
        let report = replica.message(Body::Received(report));
        deployment.deliver(there, here, boot, &report);
        deployment.pass(300);
    }
    entries_sent(&deployment)
}

#[test]
fn a_peer_that_moves_is_sent_few_more_until_it_takes_them() {
    let to_one_that_moves = sent_without_credit(1);
    assert!((100..=20 * 8).contains(&to_one_that_moves), "{to_one_that_moves} entries");
    let to_one_that_stands = sent_without_credit(0);
    assert_eq!(to_one_that_stands, 1_000 - AT_FIRST);
}

#[test]
fn a_peer_where_some_wait_gives_credit_for_as_many_as_there_is_room_for() {
    let mut deployment = Deployment::of(3, 1, 256);
    deployment.put(3, "{e}before", "v");
    deployment.pass(1_000);
    deployment.cut_off(1, 2);
    let cause = deployment.put(1, "cause", "v");
    deployment.pass(1_000);
    deployment.said.clear();
    let (count, waiting_max) = (40, 64);
    for number in 0..count {
        deployment.put_after(3, &format!("{{e}}{number}"), "v", &after_write(&cause));
    }
    deployment.pass(1_000);
    let shard = deployment.shard_of("{e}before");
    let credits = deployment.said.iter().filter_map(|(to, message)| {
        let Body::Received(received) = &message.body else { return None };
        (to.datacenter == dc(3) && message.shard == shard).then_some(received.credit)
    });
    assert_eq!(credits.min(), Some(waiting_max - count), "the other peer takes all");
}

#[test]
fn a_shard_where_some_wait_reports_ten_times_a_second() {
    let mut deployment = Deployment::of(3, 1, 256);
    deployment.put(3, "{e}before", "v");
    deployment.cut_off(1, 2);
    let cause = deployment.put(1, "cause", "v");
    for number in 0..16 {
        deployment.put_after(3, &format!("{{e}}{number}"), "v", &after_write(&cause));
    }
    deployment.pass(1_000);
    let shard = deployment.shard_of("{e}before");
    deployment.said.clear();
    for number in 0..40 {
        deployment.put(3, &format!("{{e}}free{number}"), "v");
        deployment.pass(50);
    }
    let to_third = deployment.said.iter().filter(|(to, _)| to.datacenter == dc(3));
    let here = to_third.filter(|(_, message)| message.shard == shard && is_report(&message.body));
    // The first datacenter is not cut off from the third and tells it every time.
    let reports = here.count() - 40;
    assert!((18..=22).contains(&reports), "{reports} reports in two seconds");
}
