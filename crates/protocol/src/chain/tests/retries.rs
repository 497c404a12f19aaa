//! Requests with an id take effect once, whoever is asked again, and get one answer.

use antecede_model::retry::WrittenId;

use super::*;
use crate::retries::ANSWER_BYTES_MAX;

/// Milliseconds since 1970 at which every deployment of these tests is at least.
const NOW: u64 = 1_000_000;

fn id(number: u64) -> Retry {
    let text = format!("dc1.app:{}", NOW * 1000 + number);
    WrittenId::of(text.as_bytes()).unwrap().with_words(7)
}

fn append(text: &str) -> Action<'_> {
    Action::Append { value: text.as_bytes() }
}

fn set_if_absent(value: &str) -> Action<'_> {
    let (ttl, reply) = (Ttl::Clear, SetReply::Status);
    Action::Set { value: value.as_bytes(), condition: Condition::IfAbsent, ttl, reply }
}

impl Deployment {
    fn ask_with(&mut self, number: u64, node: NodeId, action: Action<'_>) -> u64 {
        self.ask_as(Some(&id(number)), node, "k", action, &Carried::default())
    }

    fn told(&mut self, number: u64, node: NodeId, action: Action<'_>) -> Response {
        let asked = self.ask_with(number, node, action);
        self.settle();
        self.replies[&asked].response.clone()
    }

    fn value(&mut self) -> Response {
        self.get(1, "k")
    }
}

fn bytes(text: &str) -> Response {
    Response::Bytes(text.as_bytes().to_vec())
}

/// The process of a node ends and begins again on what its disk holds.
fn restarted(deployment: &mut Deployment, node: NodeId) {
    deployment.crash(node);
    deployment.start(node);
    deployment.settle();
    deployment.pass(500);
}

#[test]
fn a_repeat_is_answered_with_the_first_answer_and_changes_nothing() {
    let mut deployment = Deployment::of(1, 1, 1);
    let head = deployment.replica(1, "k", 0);
    assert_eq!(deployment.told(1, head, append("ab")), Response::Integer(2));
    assert_eq!(deployment.told(2, head, append("c")), Response::Integer(3));
    assert_eq!(deployment.told(1, head, append("ab")), Response::Integer(2));
    assert_eq!(deployment.value(), bytes("abc"));
}

#[test]
fn a_repeat_is_told_like_a_read_of_the_first_execution() {
    let mut deployment = Deployment::of(2, 1, 1);
    let head = deployment.replica(1, "k", 0);
    let first = deployment.ask_with(1, head, append("ab"));
    deployment.settle();
    let wrote = deployment.replies[&first].wrote.unwrap();
    let again = deployment.ask_with(1, head, append("ab"));
    deployment.settle();
    let reply = &deployment.replies[&again];
    assert_eq!(reply.wrote, None);
    let seen: Vec<Timestamp> = reply.observed.iter().map(|version| version.timestamp).collect();
    assert_eq!(seen, [wrote.stamp]);
}

#[test]
fn an_answer_without_an_effect_is_kept_as_well() {
    let mut deployment = Deployment::of(1, 1, 1);
    let head = deployment.replica(1, "k", 0);
    deployment.put(1, "k", "there");
    assert_eq!(deployment.told(1, head, set_if_absent("mine")), Response::Nil);
    assert_eq!(deployment.told(2, head, Action::Delete), Response::Integer(1));
    assert_eq!(deployment.told(1, head, set_if_absent("mine")), Response::Nil);
    assert_eq!(deployment.value(), Response::Nil);
    restarted(&mut deployment, head);
    assert_eq!(deployment.told(1, head, set_if_absent("mine")), Response::Nil);
    assert_eq!(deployment.told(3, head, set_if_absent("mine")), Response::Ok);
}

#[test]
fn an_answer_without_an_effect_reaches_other_datacenters_as_an_entry() {
    let mut deployment = Deployment::of(2, 2, 1);
    let head = deployment.replica(1, "k", 0);
    deployment.put(1, "k", "there");
    assert_eq!(deployment.told(1, head, set_if_absent("mine")), Response::Nil);
    deployment.put(1, "k", "after");
    deployment.pass(1000);
    assert_eq!(deployment.get(2, "k"), bytes("after"));
    let ends = |deployment: &Deployment, datacenter| {
        let node = deployment.replica(datacenter, "k", 0);
        deployment.nodes[&node].shards[&ShardId(0)].lines[&dc(1)].durable.watermark()
    };
    assert_eq!(ends(&deployment, 1), ends(&deployment, 2));
}

#[test]
fn a_repeat_waits_until_the_first_execution_is_committed() {
    let mut deployment = Deployment::of(1, 2, 1);
    let (head, tail) = (deployment.replica(1, "k", 0), deployment.replica(1, "k", 1));
    deployment.nodes.get_mut(&tail).unwrap().holds_disk = true;
    let first = deployment.ask_with(1, head, append("ab"));
    let again = deployment.ask_with(1, head, append("ab"));
    deployment.settle();
    assert!(!deployment.replies.contains_key(&first) && !deployment.replies.contains_key(&again));
    deployment.nodes.get_mut(&tail).unwrap().holds_disk = false;
    deployment.pass(500);
    assert_eq!(deployment.replies[&first].response, Response::Integer(2));
    assert_eq!(deployment.replies[&again].response, Response::Integer(2));
    assert_eq!(deployment.value(), bytes("ab"));
}

#[test]
fn an_id_of_another_request_is_refused() {
    let mut deployment = Deployment::of(1, 1, 1);
    let head = deployment.replica(1, "k", 0);
    assert_eq!(deployment.told(1, head, append("ab")), Response::Integer(2));
    let other = Retry { words: 8, ..id(1) };
    let asked = deployment.ask_as(Some(&other), head, "k", append("x"), &Carried::default());
    deployment.settle();
    let refused = Response::Refused(Refusal::OtherRequest);
    assert_eq!(deployment.replies[&asked].response, refused);
    assert_eq!(deployment.value(), bytes("ab"));
}

#[test]
fn an_id_ahead_of_the_clock_is_refused_and_not_executed() {
    let mut deployment = Deployment::of(1, 1, 1);
    let head = deployment.replica(1, "k", 0);
    let ahead = (deployment.millis - NOW + 501) * 1000;
    let refused = Refusal::Drift { ahead_millis: 501, limit_millis: 500 };
    assert_eq!(deployment.told(ahead, head, append("x")), Response::Refused(refused));
    assert_eq!(deployment.told(ahead - 1000, head, append("y")), Response::Integer(1));
    assert_eq!(deployment.value(), bytes("y"));
}

#[test]
fn a_forgotten_id_is_never_executed_again() {
    let mut deployment = Deployment::of(1, 1, 1);
    let head = deployment.replica(1, "k", 0);
    for number in 1..=u64::try_from(RETRIES).unwrap() + 2 {
        assert!(matches!(deployment.told(number, head, append("x")), Response::Integer(_)));
    }
    let forgotten_to = id(2).number;
    let refused = Response::Refused(Refusal::Forgotten { shard: ShardId(0), forgotten_to });
    assert_eq!(deployment.told(1, head, append("x")), refused);
    assert_eq!(deployment.told(2, head, append("x")), refused);
    assert_eq!(deployment.told(3, head, append("x")), Response::Integer(3));
    restarted(&mut deployment, head);
    assert_eq!(deployment.told(2, head, append("x")), refused);
    assert_eq!(deployment.told(3, head, append("x")), Response::Integer(3));
    assert_eq!(deployment.value(), bytes(&"x".repeat(RETRIES + 2)));
}

#[test]
fn a_long_answer_is_not_given_again_and_the_request_not_executed_again() {
    let mut deployment = Deployment::of(1, 1, 1);
    let head = deployment.replica(1, "k", 0);
    let long = "x".repeat(ANSWER_BYTES_MAX);
    deployment.put(1, "k", &long);
    assert_eq!(deployment.told(1, head, Action::GetAndDelete), bytes(&long));
    deployment.put(1, "k", "new");
    let limit = u32::try_from(ANSWER_BYTES_MAX).unwrap();
    let refused = Response::Refused(Refusal::NotKept { limit });
    assert_eq!(deployment.told(1, head, Action::GetAndDelete), refused);
    assert_eq!(deployment.value(), bytes("new"));
}

#[test]
fn a_read_needs_no_id() {
    let mut deployment = Deployment::of(1, 1, 1);
    let head = deployment.replica(1, "k", 0);
    let end = deployment.nodes[&head].shards[&ShardId(0)].end();
    assert_eq!(deployment.told(1, head, Action::Get), Response::Nil);
    assert_eq!(deployment.nodes[&head].shards[&ShardId(0)].end(), end);
}

#[test]
fn a_restarted_head_knows_what_it_had_not_committed() {
    let mut deployment = Deployment::of(1, 2, 1);
    let (head, tail) = (deployment.replica(1, "k", 0), deployment.replica(1, "k", 1));
    deployment.nodes.get_mut(&tail).unwrap().holds_disk = true;
    let first = deployment.ask_with(1, head, append("ab"));
    deployment.settle();
    assert!(!deployment.replies.contains_key(&first));
    deployment.nodes.get_mut(&tail).unwrap().holds_disk = false;
    restarted(&mut deployment, head);
    assert_eq!(deployment.told(1, head, append("ab")), Response::Integer(2));
    assert_eq!(deployment.value(), bytes("ab"));
}
