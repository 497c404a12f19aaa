//! Draws what clients ask: commands on a small set of keys, with values that are never used twice.
//!
//! Few keys and many writes to each find more than the other way round. Keys come in groups that
//! share a hash tag and so a shard. Besides keys that everybody writes there are home keys, which
//! only one datacenter writes (there a register must be linearizable), and mortal keys, which
//! expire.

use antecede_model::{
    consistency::Consistency,
    context::Context,
    ids::{DatacenterId, ShardId},
    key::ShardCount,
    operation::{Action, Condition, Operation, SetReply, Ttl},
    retry::{WrittenId, words_of},
};
use antecede_protocol::session::command::{Command, Gather};

use crate::{chance::Chance, plan::Workload};

/// A key of the run, by its place in [`KeyTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub u16);

/// One key.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// Its bytes.
    pub name: String,
    /// Its group.
    pub group: u64,
    /// Where it is written, if only in one datacenter.
    pub home: Option<DatacenterId>,
    /// Whether it expires.
    pub is_mortal: bool,
    /// The shard that holds it.
    pub shard: ShardId,
}

/// All keys of a run.
#[derive(Clone, Debug)]
pub struct KeyTable {
    keys: Vec<KeyFacts>,
}

impl KeyTable {
    /// The keys that a workload speaks of.
    #[must_use]
    pub fn of(workload: &Workload, datacenters: u16, shards: ShardCount) -> Self {
        let mut keys = Vec::new();
        let mut add = |group: u64, rest: String, home, is_mortal| {
            let name = format!("{{g{group}}}{rest}");
            let shard = shards.shard_of(name.as_bytes());
            keys.push(KeyFacts { name, group, home, is_mortal, shard });
        };
        for group in 0..workload.groups {
            for number in 0..workload.hot_keys {
                add(group, format!("k{number}"), None, false);
            }
            for dc in 1..=datacenters {
                add(group, format!("h{dc}"), Some(DatacenterId(dc)), false);
            }
            if 0 < workload.mortal_per_mille {
                add(group, "m".to_owned(), None, true);
            }
        }
        Self { keys }
    }

    /// What is known of a key.
    #[must_use]
    pub fn of_id(&self, key: KeyId) -> &KeyFacts {
        &self.keys[usize::from(key.0)]
    }

    /// All keys.
    pub fn all(&self) -> impl Iterator<Item = (KeyId, &KeyFacts)> {
        let ids = (0..).map(KeyId);
        ids.zip(&self.keys)
    }

    /// The key of this name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<KeyId> {
        self.all().find(|(_, facts)| facts.name.as_bytes() == name).map(|(key, _)| key)
    }

    fn pick(&self, chance: &mut Chance, may: impl Fn(&KeyFacts) -> bool) -> Option<KeyId> {
        let fitting: Vec<KeyId> =
            self.all().filter(|(_, facts)| may(facts)).map(|(key, _)| key).collect();
        if fitting.is_empty() { None } else { Some(chance.pick(&fitting)) }
    }
}

/// What a client asks, owned.
#[derive(Clone, Debug)]
pub enum Ask {
    /// One action on one key.
    One(Step),
    /// `MGET` of keys of one shard.
    ReadSeveral(Vec<KeyId>),
    /// `MSET` of keys of one shard.
    WriteSeveral(Vec<(KeyId, String)>),
    /// `MULTI` in one shard.
    Transaction(Vec<Step>),
    /// `WAIT`.
    Wait {
        /// How many datacenters.
        count: u64,
        /// For how long, in milliseconds.
        timeout_millis: u64,
    },
    /// `CAUSAL.TOKEN`.
    Token,
    /// `CAUSAL.AFTER`.
    After(Box<Context>),
    /// `CAUSAL.LEVEL eventual`.
    Eventual,
    /// `CAUSAL.DO ID` with a command that may write.
    Retried {
        /// The id.
        id: AskId,
        /// The command.
        ask: Box<Self>,
    },
}

/// A request id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId {
    /// Where it may be executed.
    pub datacenter: DatacenterId,
    /// That datacenter's name.
    pub place: String,
    /// The client's name.
    pub client: String,
    /// Microseconds since 1970, about.
    pub number: u64,
}

/// One action on one key.
#[derive(Clone, Debug)]
pub struct Step {
    /// The key.
    pub key: KeyId,
    /// What to do.
    pub deed: Deed,
}

/// What is done to a key.
#[derive(Clone, Debug)]
pub enum Deed {
    /// `GET`.
    Get,
    /// `SET`.
    Set(String),
    /// `SET` with `NX`.
    SetIfAbsent(String),
    /// `SET` with `GET`.
    Swap(String),
    /// `SET` with `PX`.
    SetMortal {
        /// The value.
        value: String,
        /// When it expires, in milliseconds since 1970.
        deadline: u64,
    },
    /// `DEL`.
    Delete,
    /// `GETDEL`.
    Take,
    /// `APPEND`.
    Append(String),
}

impl Step {
    /// The operation as a session takes it.
    #[must_use]
    pub fn operation<'a>(&'a self, keys: &'a KeyTable) -> Operation<'a> {
        let set = |value: &'a String, condition, ttl, reply| Action::Set {
            value: value.as_bytes(),
            condition,
            ttl,
            reply,
        };
        let action = match &self.deed {
            Deed::Get => Action::Get,
            Deed::Set(value) => set(value, Condition::Always, Ttl::Clear, SetReply::Status),
            Deed::SetIfAbsent(value) => {
                set(value, Condition::IfAbsent, Ttl::Clear, SetReply::Status)
            }
            Deed::Swap(value) => set(value, Condition::Always, Ttl::Clear, SetReply::Previous),
            Deed::SetMortal { value, deadline } => {
                set(value, Condition::Always, Ttl::Until(*deadline), SetReply::Status)
            }
            Deed::Delete => Action::Delete,
            Deed::Take => Action::GetAndDelete,
            Deed::Append(value) => Action::Append { value: value.as_bytes() },
        };
        Operation { key: keys.of_id(self.key).name.as_bytes(), action }
    }

    fn tell(&self, keys: &KeyTable) -> String {
        let key = &keys.of_id(self.key).name;
        match &self.deed {
            Deed::Get => format!("GET {key}"),
            Deed::Set(value) => format!("SET {key} {value}"),
            Deed::SetIfAbsent(value) => format!("SET {key} {value} NX"),
            Deed::Swap(value) => format!("SET {key} {value} GET"),
            Deed::SetMortal { value, deadline } => format!("SET {key} {value} PXAT {deadline}"),
            Deed::Delete => format!("DEL {key}"),
            Deed::Take => format!("GETDEL {key}"),
            Deed::Append(value) => format!("APPEND {key} {value}"),
        }
    }

    /// Whether it can change its key.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        match self.deed {
            Deed::Get => false,
            Deed::Set(_)
            | Deed::SetIfAbsent(_)
            | Deed::Swap(_)
            | Deed::SetMortal { .. }
            | Deed::Delete
            | Deed::Take
            | Deed::Append(_) => true,
        }
    }
}

impl Ask {
    /// The command without its id.
    #[must_use]
    pub const fn plain(&self) -> &Self {
        if let Self::Retried { ask, .. } = self { ask } else { self }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Option<&AskId> {
        if let Self::Retried { id, .. } = self { Some(id) } else { None }
    }

    /// The command as a session takes it.
    #[must_use]
    pub fn command<'a>(&'a self, keys: &'a KeyTable) -> Command<'a> {
        let operation =
            |key: &KeyId, action| Operation { key: keys.of_id(*key).name.as_bytes(), action };
        match self {
            Self::One(step) => Command::One(step.operation(keys)),
            Self::ReadSeveral(several) => Command::Several {
                operations: several.iter().map(|key| operation(key, Action::Get)).collect(),
                gather: Gather::List,
            },
            Self::WriteSeveral(several) => Command::Several {
                operations: several
                    .iter()
                    .map(|(key, value)| {
                        let action = Action::Set {
                            value: value.as_bytes(),
                            condition: Condition::Always,
                            ttl: Ttl::Clear,
                            reply: SetReply::Status,
                        };
                        operation(key, action)
                    })
                    .collect(),
                gather: Gather::Ok,
            },
            Self::Transaction(steps) => Command::Transaction {
                operations: steps.iter().map(|step| step.operation(keys)).collect(),
            },
            Self::Wait { count, timeout_millis } => {
                Command::Wait { count: *count, timeout_millis: *timeout_millis }
            }
            Self::Token => Command::Token,
            Self::After(context) => {
                Command::After { context: context.clone(), timeout_millis: 4000 }
            }
            Self::Eventual => Command::Level(Some(Consistency::Eventual)),
            Self::Retried { id, ask } => {
                let AskId { place, client, number, .. } = id;
                let id = WrittenId { datacenter: place, client, number: *number };
                let words = words_of(std::iter::once(ask.tell(keys).as_bytes()));
                Command::Retried { id, words, command: Box::new(ask.command(keys)) }
            }
        }
    }

    /// The command as people write it.
    #[must_use]
    pub fn tell(&self, keys: &KeyTable) -> String {
        let name = |key: &KeyId| keys.of_id(*key).name.clone();
        match self {
            Self::One(step) => step.tell(keys),
            Self::ReadSeveral(several) => {
                format!("MGET {}", several.iter().map(name).collect::<Vec<_>>().join(" "))
            }
            Self::WriteSeveral(several) => {
                let pairs = several.iter().map(|(key, value)| format!(" {} {value}", name(key)));
                format!("MSET{}", pairs.collect::<String>())
            }
            Self::Transaction(steps) => {
                let steps: Vec<String> = steps.iter().map(|step| step.tell(keys)).collect();
                format!("MULTI ({})", steps.join(", "))
            }
            Self::Wait { count, timeout_millis } => format!("WAIT {count} {timeout_millis}"),
            Self::Token => "CAUSAL.TOKEN".to_owned(),
            Self::After(context) => format!("CAUSAL.AFTER {context:?}"),
            Self::Eventual => "CAUSAL.LEVEL eventual".to_owned(),
            Self::Retried { id, ask } => {
                let AskId { place, client, number, .. } = id;
                format!("CAUSAL.DO ID {place}.{client}:{number} {}", ask.tell(keys))
            }
        }
    }

    /// Whether it can change a key.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            Self::One(step) => step.is_write(),
            Self::WriteSeveral(_) => true,
            Self::Transaction(steps) => steps.iter().any(Step::is_write),
            Self::Retried { ask, .. } => ask.is_write(),
            Self::ReadSeveral(_)
            | Self::Wait { .. }
            | Self::Token
            | Self::After(_)
            | Self::Eventual => false,
        }
    }
}

/// Draws the commands of one client.
#[derive(Debug)]
pub struct Drawer<'a> {
    /// The keys.
    pub keys: &'a KeyTable,
    /// What clients do.
    pub workload: &'a Workload,
    /// Where the client is now.
    pub datacenter: DatacenterId,
    /// The client's number.
    pub client: u32,
    /// Whether it removes keys: what removed a key cannot be told from a read, so that those who
    /// promise no order must not.
    pub may_delete: bool,
    /// Values given so far by this client.
    pub values: &'a mut u32,
    /// Milliseconds since 1970 on the client's node.
    pub wall_millis: u64,
}

impl Drawer<'_> {
    /// The next command.
    pub fn draw(&mut self, chance: &mut Chance) -> Ask {
        if chance.per_mille(self.workload.wait_per_mille) {
            let count = chance.between(1, 2);
            return Ask::Wait { count, timeout_millis: chance.between(1, 500) };
        }
        if chance.per_mille(self.workload.mortal_per_mille)
            && let Some(key) = self.keys.pick(chance, |facts| facts.is_mortal)
        {
            return Ask::One(Step { key, deed: self.mortal_deed(chance) });
        }
        let is_read = chance.per_mille(self.workload.read_per_mille);
        let key = self.key(chance, is_read);
        if chance.per_mille(self.workload.batch_per_mille) {
            return self.batch(chance, key, is_read);
        }
        let deed = if is_read { Deed::Get } else { self.write(chance, key) };
        Ask::One(Step { key, deed })
    }

    fn key(&self, chance: &mut Chance, is_read: bool) -> KeyId {
        let is_home = chance.per_mille(self.workload.home_per_mille);
        let here = self.datacenter;
        // Home keys are mostly read where they are written, too.
        let anywhere = is_read && chance.per_mille(250);
        let own_group = u64::from(self.client) % self.workload.groups;
        let fits = |facts: &KeyFacts| {
            !facts.is_mortal
                && facts.home.is_some() == is_home
                && (anywhere || facts.home.is_none_or(|home| home == here))
                && (!self.workload.one_group_each || facts.group == own_group)
        };
        self.keys.pick(chance, fits).expect("every group has keys of each kind")
    }

    fn batch(&mut self, chance: &mut Chance, first: KeyId, is_read: bool) -> Ask {
        let facts = self.keys.of_id(first);
        let here = self.datacenter;
        let mut several: Vec<KeyId> = self
            .keys
            .all()
            .filter(|(_, other)| other.group == facts.group && !other.is_mortal)
            .filter(|(_, other)| is_read || other.home.is_none_or(|home| home == here))
            .map(|(key, _)| key)
            .collect();
        while 4 < several.len() || (2 < several.len() && chance.per_mille(300)) {
            several.remove(chance.place(several.len()));
        }
        if is_read {
            return Ask::ReadSeveral(several);
        }
        if chance.per_mille(500) {
            let pair = |key| (key, self.value(key));
            return Ask::WriteSeveral(several.into_iter().map(pair).collect());
        }
        let mut steps = Vec::new();
        for key in several {
            let deed = if chance.per_mille(400) { Deed::Get } else { Deed::Set(self.value(key)) };
            steps.push(Step { key, deed });
        }
        Ask::Transaction(steps)
    }

    fn write(&mut self, chance: &mut Chance, key: KeyId) -> Deed {
        if self.may_delete && chance.per_mille(self.workload.delete_per_mille) {
            return if chance.per_mille(800) { Deed::Delete } else { Deed::Take };
        }
        if !chance.per_mille(self.workload.conditional_per_mille) {
            return Deed::Set(self.value(key));
        }
        match chance.below(10) {
            0..=5 => Deed::SetIfAbsent(self.value(key)),
            6..=8 => Deed::Swap(self.value(key)),
            _ => Deed::Append(self.value(key)),
        }
    }

    fn mortal_deed(&mut self, chance: &mut Chance) -> Deed {
        match chance.below(3) {
            0 => Deed::Get,
            1 => Deed::SetMortal {
                value: self.mortal_value(),
                deadline: self.wall_millis + chance.between(20, 3000),
            },
            _ => Deed::Set(self.mortal_value()),
        }
    }

    fn mortal_value(&mut self) -> String {
        *self.values += 1;
        format!("m.{}.{};", self.client, self.values)
    }

    /// A value that was never used before; it names its key.
    fn value(&mut self, key: KeyId) -> String {
        *self.values += 1;
        format!("{}.{}.{};", key.0, self.client, self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn values_are_unique_and_batches_lie_in_one_shard() {
        let mut plan = Plan::of(1);
        plan.workload.batch_per_mille = 500;
        let shards = ShardCount::new(8).unwrap();
        let keys = KeyTable::of(&plan.workload, 3, shards);
        let mut chance = Chance::new(1, 1);
        let mut seen = std::collections::BTreeSet::new();
        let mut values = 0;
        let mut drawer = Drawer {
            keys: &keys,
            workload: &plan.workload,
            datacenter: DatacenterId(2),
            client: 1,
            may_delete: true,
            values: &mut values,
            wall_millis: 0,
        };
        for _ in 0..1000 {
            let ask = drawer.draw(&mut chance);
            if let Ask::WriteSeveral(several) = ask {
                let shard = keys.of_id(several[0].0).shard;
                for (key, value) in several {
                    assert_eq!(keys.of_id(key).shard, shard);
                    assert!(seen.insert(value));
                }
            } else if let Ask::One(Step {
                key,
                deed: Deed::Set(value) | Deed::SetIfAbsent(value),
            }) = ask
            {
                assert!(keys.of_id(key).home.is_none_or(|home| home == DatacenterId(2)));
                assert!(seen.insert(value));
            }
        }
        assert!(300 < seen.len());
    }
}
