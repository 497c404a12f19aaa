//! Commands over several shards, scans, transactions.

use antecede_model::{configuration::Chain, operation::Scan, sighting::Sighting};

use super::*;

/// Shards that answer at once, in the order in which they are asked.
#[derive(Default)]
struct Shards {
    keys: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    stamp: u64,
    refusing: Option<ShardId>,
    served: usize,
    open_max: usize,
}

impl Shards {
    fn serve(&mut self, scene: &mut Scene) {
        while self.served < scene.around.asked.len() {
            self.open_max = self.open_max.max(scene.around.asked.len() - self.served);
            let asked = scene.around.asked[self.served].clone();
            self.served += 1;
            let reply = if self.refusing == Some(asked.shard) {
                plain(&asked, Response::Refused(Refusal::OutOfMemory))
            } else {
                self.reply(&asked)
            };
            scene.reply(&asked, reply);
        }
    }

    fn reply(&mut self, asked: &Asked) -> Reply {
        let before = self.stamp;
        let response = match asked.operation() {
            ShardOperation::One(operation) => self.run(&operation),
            ShardOperation::Batch { operations, .. } => {
                Response::List(operations.iter().map(|one| self.run(one)).collect())
            }
            ShardOperation::Scan(scan) => self.scan(asked.shard, &scan),
            ShardOperation::Count => {
                Response::Integer(i64::try_from(self.of(asked.shard).count()).unwrap())
            }
            ShardOperation::Random { .. } => {
                let key = self.of(asked.shard).next();
                key.map_or(Response::Nil, |key| Response::Bytes(key.clone()))
            }
            ShardOperation::Replicated { .. } => Response::Integer(0),
        };
        let made = (before < self.stamp).then(|| wrote(asked, self.stamp));
        Reply { response, ..made.unwrap_or_else(|| plain(asked, Response::Nil)) }
    }

    fn run(&mut self, operation: &Operation<'_>) -> Response {
        let found = self.keys.get(operation.key);
        if operation.action == Action::Observe {
            return Response::Observed(match found {
                Some((stamp, _)) => Sighting::Present(version(HERE, *stamp)),
                None => Sighting::Absent { at: Timestamp(self.stamp) },
            });
        }
        if operation.action == Action::Get {
            return found.map_or(Response::Nil, |(_, value)| Response::Bytes(value.clone()));
        }
        if let Action::Set { value, .. } = operation.action {
            self.stamp += 1;
            self.keys.insert(operation.key.to_vec(), (self.stamp, value.to_vec()));
            return Response::Ok;
        }
        assert_eq!(operation.action, Action::Delete, "no other action is imitated");
        let was_there = self.keys.remove(operation.key).is_some();
        self.stamp += u64::from(was_there);
        Response::Integer(i64::from(was_there))
    }

    fn of(&self, shard: ShardId) -> impl Iterator<Item = &Vec<u8>> {
        let count = ShardCount::new(4).unwrap();
        self.keys.keys().filter(move |key| count.shard_of(key) == shard)
    }

    fn scan(&self, shard: ShardId, scan: &Scan<'_>) -> Response {
        let mut found: Vec<_> = self
            .of(shard)
            .map(|key| (hash_of(key, 0), key.clone()))
            .filter(|(hash, _)| scan.from <= *hash)
            .collect();
        found.sort_unstable();
        let count = usize::try_from(scan.count).unwrap();
        let mut end = found.len().min(count);
        while 0 < end && end < found.len() && found[end - 1].0 == found[end].0 {
            end += 1;
        }
        let next = found.get(end).map(|(hash, _)| *hash);
        let keys = found.into_iter().take(end).map(|(_, key)| key).collect();
        Response::Scanned { next, keys }
    }

    fn ask(&mut self, scene: &mut Scene, command: &Command<'_>) -> Response {
        scene.take(command);
        self.serve(scene);
        let mut answers = scene.answers();
        assert_eq!(answers.len(), 1, "{command:?}");
        assert!(scene.session.is_idle());
        answers.remove(0)
    }
}

fn bytes(text: &str) -> Response {
    Response::Bytes(text.as_bytes().to_vec())
}

fn every_scene() -> [Scene; 4] {
    let mut named = Scene::alone();
    named.around.stamps = Some(1_000);
    [Scene::alone(), named, Scene::of_three(), Scene::elsewhere()]
}

mod keys_of_several_shards {
    use super::*;

    #[test]
    fn answers_have_the_order_of_the_keys() {
        for mut scene in every_scene() {
            let mut shards = Shards::default();
            let keys = [key(2, 0), key(0, 0), key(2, 1), key(1, 0)];
            let operations = keys.iter().zip([b"a", b"b", b"c", b"d"]);
            let operations = operations.map(|(key, value)| set(key, value)).collect();
            let mset = Command::Several { operations, gather: Gather::Ok };
            assert_eq!(shards.ask(&mut scene, &mset), Response::Ok);
            let operations = keys.iter().map(|key| get(key)).collect();
            let mget = Command::Several { operations, gather: Gather::List };
            let wanted = Response::List(["a", "b", "c", "d"].map(bytes).to_vec());
            assert_eq!(shards.ask(&mut scene, &mget), wanted);
            let missing = key(3, 0);
            let all = keys.iter().chain([&missing]).map(|key| delete(key)).collect();
            let del = Command::Several { operations: all, gather: Gather::Sum };
            assert_eq!(shards.ask(&mut scene, &del), Response::Integer(4));
        }
    }

    #[test]
    fn keys_of_one_shard_are_one_request() {
        let mut scene = Scene::elsewhere();
        let keys = [key(2, 0), key(2, 1)];
        let operations = keys.iter().map(|key| delete(key)).collect();
        let asked = scene.ask(&Command::Several { operations, gather: Gather::Sum });
        let items = vec![Response::Integer(1), Response::Integer(1)];
        scene.reply(&asked, plain(&asked, Response::List(items)));
        let operations = vec![get(&keys[0])];
        let asked = scene.ask(&Command::Several { operations, gather: Gather::List });
        scene.reply(&asked, plain(&asked, Response::Nil));
        let list = Response::List(vec![Response::Nil]);
        assert_eq!(scene.answers(), [Response::Integer(2), list]);
    }

    #[test]
    fn a_write_part_waits_for_the_one_before_and_depends_on_it() {
        let mut scene = Scene::elsewhere();
        let keys = [key(2, 0), key(0, 0)];
        let operations = keys.iter().map(|key| set(key, b"v")).collect();
        let first = scene.ask(&Command::Several { operations, gather: Gather::Ok });
        assert!(!scene.can_take(&Command::One(get(&keys[0]))));
        let done = |asked, stamp| {
            let response = Response::List(vec![Response::Ok]);
            Reply { response, ..wrote(asked, stamp) }
        };
        scene.reply(&first, done(&first, 9));
        let second = scene.around.asked.last().unwrap().clone();
        assert_eq!((second.shard, second.dependencies()), (ShardId(0), vec![named(HERE, 2, 9)]));
        scene.reply(&second, done(&second, 12));
        assert_eq!(scene.answers(), [Response::Ok]);
        assert_eq!(scene.exact(), [named(HERE, 0, 12)]);
    }

    #[test]
    fn one_shard_that_refuses_makes_the_whole_a_refusal() {
        for mut scene in every_scene() {
            let refusing = ShardId(2);
            let refusal = Response::Refused(Refusal::OutOfMemory);
            let mut shards = Shards { refusing: Some(refusing), ..Shards::default() };
            let keys: Vec<_> = (0..4).map(|shard| key(shard, 0)).collect();
            let operations = keys.iter().map(|key| get(key)).collect();
            let mget = Command::Several { operations, gather: Gather::List };
            assert_eq!(shards.ask(&mut scene, &mget), refusal);
            let operations = keys.iter().map(|key| set(key, b"v")).collect();
            let mset = Command::Several { operations, gather: Gather::Ok };
            assert_eq!(shards.ask(&mut scene, &mset), refusal);
            assert_eq!(shards.ask(&mut scene, &Command::Count), refusal);
            assert_eq!(shards.ask(&mut scene, &Command::Keys { pattern: b"*" }), refusal);
        }
    }

    #[test]
    fn nothing_is_asked_for_no_keys() {
        let mut scene = Scene::elsewhere();
        let several = |gather| Command::Several { operations: Vec::new(), gather };
        scene.take(&several(Gather::Sum));
        scene.take(&several(Gather::List));
        assert_eq!(scene.answers(), [Response::Integer(0), Response::List(Vec::new())]);
    }

    #[test]
    fn reads_of_several_shards_are_read_again_like_any_others() {
        let mut scene = Scene::elsewhere();
        let keys = [key(0, 0), key(2, 0)];
        let operations = keys.iter().map(|key| get(key)).collect();
        scene.take(&Command::Several { operations, gather: Gather::List });
        let [first, second] = [0, 1].map(|at| scene.around.asked[at].clone());
        let list = |reply: Reply| Reply { response: Response::List(vec![reply.response]), ..reply };
        scene.reply(&second, list(found(&second, HERE, 3)));
        scene.reply(&first, list(found(&first, HERE, 9)));
        let again = scene.around.asked[2].clone();
        scene.reply(&again, list(found(&again, HERE, 10)));
        let wanted = Response::List([9, 10].map(Response::Integer).to_vec());
        assert_eq!(scene.answers(), [wanted]);
    }
}

mod all_keys {
    use super::*;

    fn filled(count: usize) -> Shards {
        let mut shards = Shards::default();
        for at in 0..count {
            shards.keys.insert(format!("key:{at}").into_bytes(), (1, Vec::new()));
        }
        shards
    }

    fn walk(scene: &mut Scene, shards: &mut Shards, count: u64) -> (Vec<Vec<u8>>, usize) {
        let (mut cursor, mut found, mut steps) = (0, Vec::new(), 0);
        loop {
            let response = shards.ask(scene, &Command::Scan { cursor, count, pattern: None });
            let Response::Scanned { next, keys } = response else { panic!("{response:?}") };
            found.extend(keys);
            steps += 1;
            match next {
                Some(next) => {
                    assert!(cursor < next && next < 1 << 63, "{cursor} then {next}");
                    cursor = next;
                }
                None => return (found, steps),
            }
        }
    }

    #[test]
    fn a_scan_finds_every_key_once() {
        for mut scene in every_scene() {
            for count in [1, 7, 1_000] {
                let mut shards = filled(300);
                let (mut found, steps) = walk(&mut scene, &mut shards, count);
                found.sort_unstable();
                assert!(found.iter().eq(shards.keys.keys()), "{count} at a time");
                assert!(300 / count <= steps as u64, "{steps} steps of {count}");
            }
        }
    }

    #[test]
    fn a_scan_of_few_keys_takes_one_step() {
        let mut scene = Scene::of_three();
        assert_eq!(walk(&mut scene, &mut filled(0), 10), (Vec::new(), 1));
        assert_eq!(walk(&mut scene, &mut filled(8), 10).1, 1);
    }

    #[test]
    fn a_scan_goes_on_where_hashes_differ_only_in_the_bits_that_a_cursor_lacks() {
        let mut scene = Scene::elsewhere();
        scene.take(&Command::Scan { cursor: 0, count: 2, pattern: None });
        let asked = scene.around.asked[0].clone();
        let scanned = |next, key: &[u8]| Response::Scanned { next, keys: vec![key.to_vec()] };
        scene.reply(&asked, plain(&asked, scanned(Some(5), b"a")));
        let asked = scene.around.asked[1].clone();
        let ShardOperation::Scan(scan) = asked.operation() else { panic!("{asked:?}") };
        assert_eq!(scan.from, 5, "no cursor lies between this one and the first");
        scene.reply(&asked, plain(&asked, scanned(Some(3 << 15 | 7), b"b")));
        let keys = vec![b"a".to_vec(), b"b".to_vec()];
        assert_eq!(scene.answers(), [Response::Scanned { next: Some(3), keys }]);
        scene.take(&Command::Scan { cursor: 3, count: 2, pattern: None });
        let asked = scene.around.asked[2].clone();
        let ShardOperation::Scan(scan) = asked.operation() else { panic!("{asked:?}") };
        assert_eq!(scan.from, 3 << 15, "rounded down: nothing is left out");
    }

    #[test]
    fn a_cursor_behind_the_last_shard_is_the_end() {
        let mut scene = Scene::elsewhere();
        for cursor in [4 << 49, u64::MAX] {
            scene.take(&Command::Scan { cursor, count: 10, pattern: None });
            let end = Response::Scanned { next: None, keys: Vec::new() };
            assert_eq!(scene.answers(), [end]);
        }
    }

    #[test]
    fn all_keys_are_listed_counted_and_drawn_from() {
        for mut scene in every_scene() {
            let mut shards = filled(5_000);
            assert_eq!(shards.ask(&mut scene, &Command::Count), Response::Integer(5_000));
            let Response::List(found) = shards.ask(&mut scene, &Command::Keys { pattern: b"*" })
            else {
                panic!("no list")
            };
            assert_eq!(found.len(), 5_000);
            let mut shards = Shards::default();
            let nothing = shards.ask(&mut scene, &Command::RandomKey { draw: 3 });
            assert_eq!(nothing, Response::Nil);
            shards.keys.insert(key(1, 0), (1, Vec::new()));
            let some = shards.ask(&mut scene, &Command::RandomKey { draw: 3 });
            assert_eq!(some, Response::Bytes(key(1, 0)));
        }
    }

    #[test]
    fn only_so_many_requests_of_a_command_are_open() {
        let mut scene = Scene::elsewhere();
        scene.configuration.shard_count = ShardCount::new(256).unwrap();
        let chains = vec![Chain::of(vec![node(2)]); 256];
        scene.configuration.datacenters.get_mut(&HERE).unwrap().chains = chains;
        let mut shards = Shards::default();
        assert_eq!(shards.ask(&mut scene, &Command::Count), Response::Integer(0));
        assert_eq!(shards.open_max, 32);
    }
}

mod transactions {
    use super::*;

    #[test]
    fn a_transaction_is_one_request_to_the_head() {
        let mut scene = Scene::of_three();
        let keys = [key(2, 0), key(2, 1)];
        let operations = vec![get(&keys[0]), set(&keys[1], b"v")];
        let asked = scene.ask(&Command::Transaction { operations: operations.clone() });
        assert_eq!((asked.to, asked.carried.place), (node(3), Place::Head));
        let wanted = ShardOperation::Batch { watched: Vec::new(), operations };
        assert_eq!(asked.operation(), wanted);
        let list = Response::List(vec![Response::Nil, Response::Ok]);
        scene.reply(&asked, Reply { response: list.clone(), ..wrote(&asked, 9) });
        assert_eq!(scene.answers(), [list]);
    }

    #[test]
    fn keys_in_different_shards_are_refused() {
        let mut scene = Scene::of_three();
        let keys = [key(2, 0), key(1, 1)];
        let operations = keys.iter().map(|key| set(key, b"v")).collect();
        scene.take(&Command::Transaction { operations });
        assert_eq!(scene.answers(), [Response::Refused(Refusal::CrossShard)]);
    }

    #[test]
    fn a_watched_key_is_checked_at_the_head_even_by_reads() {
        let mut scene = Scene::of_three();
        let mut shards = Shards { stamp: 8, ..Shards::default() };
        let keys = [key(2, 0), key(2, 1)];
        shards.keys.insert(keys[0].clone(), (6, Vec::new()));
        let watch = Command::Watch { keys: vec![&keys[0], &keys[1]] };
        assert_eq!(shards.ask(&mut scene, &watch), Response::Ok);
        let operations = vec![get(&keys[0])];
        let asked = scene.ask(&Command::Transaction { operations: operations.clone() });
        assert_eq!((asked.to, asked.carried.place), (node(3), Place::Head));
        let absent = Sighting::Absent { at: Timestamp(8) };
        let present = Sighting::Present(version(HERE, 6));
        let watched = vec![(&keys[0][..], present), (&keys[1][..], absent)];
        assert_eq!(asked.operation(), ShardOperation::Batch { watched, operations });
        scene.reply(&asked, plain(&asked, Response::Aborted));
        assert_eq!(scene.answers(), [Response::Aborted]);
        let next = scene.ask(&Command::Transaction { operations: vec![get(&keys[0])] });
        assert_eq!(next.to, node(1), "watches end with the transaction");
    }

    #[test]
    fn a_key_that_is_hidden_while_it_is_watched_was_absent_from_then_on() {
        let mut scene = Scene::of_three();
        let key = key(2, 0);
        let asked = scene.ask(&Command::Watch { keys: vec![&key] });
        let seen = Response::Observed(Sighting::Absent { at: Timestamp(5) });
        let hiding = Reply { visible_at: Timestamp(9), ..plain(&asked, seen) };
        scene.reply(&asked, hiding);
        assert_eq!(scene.answers(), [Response::Ok]);
        let operations = vec![get(&key)];
        let asked = scene.ask(&Command::Transaction { operations: operations.clone() });
        let watched = vec![(&key[..], Sighting::Absent { at: Timestamp(9) })];
        assert_eq!(asked.operation(), ShardOperation::Batch { watched, operations });
    }

    #[test]
    fn a_watched_key_in_another_shard_is_refused() {
        let mut scene = Scene::of_three();
        let (watched, used) = (key(2, 0), key(1, 0));
        let watch = Command::Watch { keys: vec![&watched] };
        Shards::default().ask(&mut scene, &watch);
        let operations = vec![set(&used, b"v")];
        scene.take(&Command::Transaction { operations });
        assert_eq!(scene.answers(), [Response::Refused(Refusal::CrossShard)]);
    }

    #[test]
    fn a_key_that_could_not_be_watched_aborts_the_next_transaction() {
        let mut scene = Scene::of_three();
        let key = key(2, 0);
        let mut shards = Shards { refusing: Some(ShardId(2)), ..Shards::default() };
        let watch = Command::Watch { keys: vec![&key] };
        assert!(matches!(shards.ask(&mut scene, &watch), Response::Refused(_)));
        let transaction = Command::Transaction { operations: vec![set(&key, b"v")] };
        scene.take(&transaction);
        assert_eq!(scene.answers(), [Response::Aborted]);
        shards.ask(&mut scene, &watch);
        scene.take(&Command::Unwatch);
        assert_eq!(scene.answers(), [Response::Ok]);
        shards.served = scene.around.asked.len() + 1;
        scene.ask(&transaction);
    }

    #[test]
    fn an_empty_transaction_is_an_empty_list_unless_something_is_watched() {
        let mut scene = Scene::of_three();
        let empty = Command::Transaction { operations: Vec::new() };
        scene.take(&empty);
        assert_eq!(scene.answers(), [Response::List(Vec::new())]);
        let key = key(2, 0);
        let watch = Command::Watch { keys: vec![&key] };
        Shards::default().ask(&mut scene, &watch);
        let asked = scene.ask(&empty);
        assert_eq!(asked.shard, ShardId(2));
    }

    #[test]
    fn transactions_of_one_shard_flow() {
        let mut scene = Scene::of_three();
        let key = key(2, 0);
        let transaction = Command::Transaction { operations: vec![set(&key, b"v")] };
        scene.take(&transaction);
        scene.take(&transaction);
        assert_eq!(scene.around.asked.len(), 2);
    }
}

mod whatever_happens {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Give(usize),
        Serve(prop::sample::Index),
        Lose(u16),
        Unlink(u16),
        Link,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..14_usize).prop_map(Step::Give),
            8 => any::<prop::sample::Index>().prop_map(Step::Serve),
            1 => (2..4_u16).prop_map(Step::Lose),
            1 => (2..4_u16).prop_map(Step::Unlink),
            2 => Just(Step::Link),
            2 => (1..3_000_u64).prop_map(Step::Wait),
        ]
    }

    fn commands(keys: &[Vec<u8>]) -> Vec<Command<'_>> {
        let several = |operations, gather| Command::Several { operations, gather };
        let all = |of: fn(&[u8]) -> Operation<'_>| keys.iter().map(|key| of(key)).collect();
        vec![
            Command::One(get(&keys[0])),
            Command::One(get(&keys[1])),
            Command::One(get(&keys[2])),
            Command::One(set(&keys[0], b"v")),
            Command::One(set(&keys[2], b"w")),
            Command::One(delete(&keys[2])),
            several(all(get), Gather::List),
            several(all(|key| set(key, b"v")), Gather::Ok),
            several(all(delete), Gather::Sum),
            Command::Watch { keys: vec![&keys[0]] },
            Command::Transaction { operations: vec![set(&keys[0], b"v")] },
            Command::Scan { cursor: 0, count: 2, pattern: None },
            Command::Count,
            Command::Token,
        ]
    }

    proptest! {
        #[test]
        fn every_command_is_answered_once(
            scene in 0..4_usize,
            steps in proptest::collection::vec(step(), 1..80),
        ) {
            let keys = [key(0, 0), key(1, 0), key(2, 0)];
            let commands = commands(&keys);
            let mut scene = every_scene().into_iter().nth(scene).unwrap();
            let mut shards = Shards::default();
            let (mut under_way, mut given, mut answered) = (Vec::new(), 0, 0);
            for step in steps {
                match step {
                    Step::Give(at) if scene.can_take(&commands[at]) => {
                        given += 1;
                        scene.take(&commands[at]);
                    }
                    Step::Serve(at) if !under_way.is_empty() => {
                        let asked: Asked = under_way.swap_remove(at.index(under_way.len()));
                        let reply = shards.reply(&asked);
                        scene.reply(&asked, reply);
                    }
                    Step::Lose(number) => {
                        under_way.retain(|asked| asked.to != node(number));
                        scene.input(SessionInput::LinkLost(node(number)));
                    }
                    Step::Unlink(number) => {
                        scene.around.unlinked.insert(node(number));
                    }
                    Step::Link => scene.around.unlinked.clear(),
                    Step::Wait(millis) => scene.after(millis),
                    Step::Give(_) | Step::Serve(_) => {}
                }
                under_way.append(&mut scene.around.asked);
                answered += scene.answers().len();
                prop_assert!(answered <= given);
            }
            while let Some(wake) = scene.out.wake {
                scene.after(u64::try_from(wake.0.as_millis()).unwrap() + 1 - scene.millis);
                answered += scene.answers().len();
            }
            prop_assert!(scene.session.is_idle());
            prop_assert_eq!(answered, given);
        }
    }
}
