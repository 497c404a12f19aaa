//! Says which datacenters a deployment has, and what each may do: a value with an epoch.
//!
//! It is agreed on once for the whole deployment, since datacenters that decided for themselves
//! could disagree (PITFALLS A14, B41), and each datacenter then carries it in its own part of the
//! configuration. Every message between datacenters names its epoch, and another one is refused,
//! so that what was decided under one set of datacenters is never used under another (A15).
//!
//! Invariant: either one datacenter at most joins, copies or leaves, or any number of them are lost;
//! an id is never used again, also when its datacenter is gone.
//! Not here: what follows what, and why (`protocol::manager::membership`).

use std::collections::BTreeMap;

use crate::{
    codec::{DecodeError, Reader, Writer},
    ids::{DatacenterId, MembershipEpoch, NodeId},
};

/// The format in which this build writes a membership; it is raised when a field is changed, and
/// not when one is added.
const FORMAT: u8 = 1;

/// What a datacenter may do, and what the others do for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is being added and answers nobody. The others keep everything for it from when each has
    /// acknowledged this epoch; it waits until all have.
    Joining {
        /// Whose data it shall copy; the first that serves if none is named.
        from: Option<DatacenterId>,
    },
    /// All others keep everything for it: it copies from one of them, then follows all of them,
    /// and answers nobody yet.
    Copying {
        /// Whose data it copies.
        from: DatacenterId,
    },
    /// It serves.
    Open,
    /// It takes no writes any more, and hands out what it has.
    Leaving,
    /// It is lost for ever, or let go of because it is behind: the others hand each other what any
    /// of them has of it.
    Lost,
}

/// One datacenter of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What people call it.
    pub name: String,
    /// Its nodes, each with the address where others reach it; empty where settings say so alone.
    pub nodes: BTreeMap<NodeId, String>,
    /// What it may do.
    pub standing: Standing,
    /// The newest epoch that all of its nodes act by.
    pub acknowledged: MembershipEpoch,
    /// The newest epoch of which it has done all that is asked of it: copied, handed out.
    pub done: MembershipEpoch,
    /// Whether it is lost only because it is too far behind (lapsed): its nodes come back by
    /// themselves, under a number of their own.
    pub is_lapsed: bool,
}

impl Member {
    /// One that serves from the beginning.
    #[must_use]
    pub const fn open(name: String, nodes: BTreeMap<NodeId, String>) -> Self {
        Self {
            name,
            nodes,
            standing: Standing::Open,
            acknowledged: MembershipEpoch(0),
            done: MembershipEpoch(0),
            is_lapsed: false,
        }
    }
}

/// A datacenter that is a member no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// What people called it.
    pub name: String,
    /// Whether it was lost, so that the end of what it had written may be missing.
    pub was_lost: bool,
    /// The epoch that went on without it.
    pub since: MembershipEpoch,
    /// Under which number its nodes may come back, with its name, if it had lapsed.
    pub successor: Option<DatacenterId>,
}

/// The datacenters of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Grows by one with each change of who may do what.
    pub epoch: MembershipEpoch,
    /// The datacenters.
    pub members: BTreeMap<DatacenterId, Member>,
    /// Those that are members no more; what they wrote counts as applied everywhere.
    pub gone: BTreeMap<DatacenterId, Gone>,
}

impl Membership {
    /// The first one of a deployment: all of them serve.
    #[must_use]
    pub fn first(members: impl IntoIterator<Item = (DatacenterId, Member)>) -> Self {
        Self {
            epoch: MembershipEpoch(1),
            members: members.into_iter().collect(),
            gone: BTreeMap::new(),
        }
    }

    /// What a datacenter may do; `None` if it is no member.
    #[must_use]
    pub fn standing(&self, id: DatacenterId) -> Option<Standing> {
        self.members.get(&id).map(|member| member.standing)
    }

    /// The datacenter that is anything but open; the first of them where several are lost.
    #[must_use]
    pub fn changing(&self) -> Option<(DatacenterId, Standing)> {
        let changing = self.members.iter().find(|(_, member)| member.standing != Standing::Open);
        changing.map(|(id, member)| (*id, member.standing))
    }

    /// Those that are lost and not given up yet.
    pub fn lost(&self) -> impl Iterator<Item = DatacenterId> {
        let is_lost = |(_, member): &(&DatacenterId, &Member)| member.standing == Standing::Lost;
        self.members.iter().filter(is_lost).map(|(id, _)| *id)
    }

    /// The members that hold and exchange data: all but one that is lost.
    pub fn present(&self) -> impl Iterator<Item = DatacenterId> {
        let is_present = |(_, member): &(&DatacenterId, &Member)| member.standing != Standing::Lost;
        self.members.iter().filter(is_present).map(|(id, _)| *id)
    }

    /// Whether nothing of a datacenter can be missing or come any more.
    #[must_use]
    pub fn is_gone(&self, id: DatacenterId) -> bool {
        self.gone.contains_key(&id)
    }

    /// Whether a datacenter is let go of because it was behind, and comes back by itself.
    #[must_use]
    pub fn is_lapsed(&self, id: DatacenterId) -> bool {
        self.members.get(&id).is_some_and(|member| member.is_lapsed)
            || self.gone.get(&id).is_some_and(|gone| gone.successor.is_some())
    }

    /// Whether a number is that of one that comes back, with the name that it had before.
    #[must_use]
    pub fn comes_back(&self, id: DatacenterId) -> bool {
        self.gone.values().any(|gone| gone.successor == Some(id))
    }

    /// A number that no datacenter has, had, or may come back under; `None` if all are used.
    #[must_use]
    pub fn unused(&self) -> Option<DatacenterId> {
        let used = self.members.keys().chain(self.gone.keys());
        let reserved = self.gone.values().filter_map(|gone| gone.successor.as_ref());
        let last = used.chain(reserved).max().map_or(0, |id| id.0);
        last.checked_add(1).map(DatacenterId)
    }

    /// Writes it, so that earlier and later builds can read it: fields are only ever added, at the
    /// end of their list, and one that an earlier build lacked has a value for that.
    pub fn write(&self, to: &mut Writer<'_>) {
        to.u8(FORMAT);
        to.fields(|to| self.write_fields(to));
    }

    fn write_fields(&self, to: &mut Writer<'_>) {
        to.number(self.epoch.0);
        to.length(self.members.len());
        for (id, member) in &self.members {
            to.datacenter(*id);
            to.fields(|to| write_member(member, to));
        }
        to.length(self.gone.len());
        for (id, gone) in &self.gone {
            to.datacenter(*id);
            to.fields(|to| {
                to.bytes(gone.name.as_bytes());
                to.u8(u8::from(gone.was_lost));
                to.number(gone.since.0);
                to.option(gone.successor, Writer::datacenter);
            });
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none, or of a format that this build does not read.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            FORMAT => from.fields(Self::read_fields),
            found => Err(DecodeError::UnknownTag { what: "format of a membership", found }),
        }
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: MembershipEpoch(from.number()?),
            members: from
                .list("datacenters", |from| Ok((from.datacenter()?, from.fields(read_member)?)))?
                .into_iter()
                .collect(),
            gone: from
                .list("datacenters that are gone", |from| {
                    Ok((from.datacenter()?, from.fields(read_gone)?))
                })?
                .into_iter()
                .collect(),
        })
    }
}

fn write_member(member: &Member, to: &mut Writer<'_>) {
    to.bytes(member.name.as_bytes());
    to.length(member.nodes.len());
    for (node, address) in &member.nodes {
        to.node(*node);
        to.bytes(address.as_bytes());
    }
    match member.standing {
        Standing::Open => to.u8(0),
        Standing::Joining { from } => {
            to.u8(1);
            to.option(from, Writer::datacenter);
        }
        Standing::Copying { from } => {
            to.u8(2);
            to.datacenter(from);
        }
        Standing::Leaving => to.u8(3),
        Standing::Lost => to.u8(4),
    }
    to.number(member.acknowledged.0);
    to.number(member.done.0);
    to.flag(member.is_lapsed);
}

fn read_gone(from: &mut Reader<'_>) -> Result<Gone, DecodeError> {
    let name = text(from)?;
    let was_lost = match from.u8()? {
        0 => false,
        1 => true,
        found => return Err(DecodeError::UnknownTag { what: "kind of loss", found }),
    };
    let since = MembershipEpoch(from.number()?);
    let successor = if from.is_empty() { None } else { from.option(Reader::datacenter)? };
    Ok(Gone { name, was_lost, since, successor })
}

fn read_member(from: &mut Reader<'_>) -> Result<Member, DecodeError> {
    Ok(Member {
        name: text(from)?,
        nodes: from
            .list("nodes with addresses", |from| Ok((from.node()?, text(from)?)))?
            .into_iter()
            .collect(),
        standing: match from.u8()? {
            0 => Standing::Open,
            1 => Standing::Joining { from: from.option(Reader::datacenter)? },
            2 => Standing::Copying { from: from.datacenter()? },
            3 => Standing::Leaving,
            4 => Standing::Lost,
            found => return Err(DecodeError::UnknownTag { what: "standing", found }),
        },
        acknowledged: MembershipEpoch(from.number()?),
        done: MembershipEpoch(from.number()?),
        is_lapsed: if from.is_empty() { false } else { from.flag()? },
    })
}

fn text(from: &mut Reader<'_>) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(from.bytes()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(datacenter: u16, number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(datacenter), number }
    }

    #[test]
    fn a_membership_is_read_as_it_was_written() {
        let standings = [
            Standing::Open,
            Standing::Joining { from: Some(DatacenterId(1)) },
            Standing::Copying { from: DatacenterId(1) },
            Standing::Leaving,
            Standing::Lost,
        ];
        for standing in standings {
            let nodes = [(node(2, 1), "ten:1".to_owned()), (node(2, 2), String::new())];
            let mut changing = Member::open("second".to_owned(), nodes.into());
            changing.standing = standing;
            changing.acknowledged = MembershipEpoch(4);
            changing.done = MembershipEpoch(3);
            changing.is_lapsed = standing == Standing::Lost;
            let open = Member::open("first".to_owned(), BTreeMap::new());
            let mut membership =
                Membership::first([(DatacenterId(1), open), (DatacenterId(2), changing)]);
            let since = MembershipEpoch(3);
            let gone = Gone {
                name: "third".to_owned(),
                was_lost: true,
                since,
                successor: Some(DatacenterId(9)),
            };
            membership.gone.insert(DatacenterId(3), gone);
            let mut bytes = Vec::new();
            membership.write(&mut Writer::new(&mut bytes));
            let mut reader = Reader::new(&bytes);
            assert_eq!(Membership::read(&mut reader).unwrap(), membership);
            reader.finish().unwrap();
            for end in 0..bytes.len() {
                assert!(Membership::read(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn what_a_later_build_adds_is_skipped_and_the_format_keeps_its_bytes() {
        let mut one = Member::open("a".to_owned(), [(node(1, 2), "b:3".to_owned())].into());
        one.acknowledged = MembershipEpoch(4);
        let mut membership = Membership::first([(DatacenterId(1), one)]);
        let since = MembershipEpoch(5);
        let gone = Gone { name: "c".to_owned(), was_lost: true, since, successor: None };
        membership.gone.insert(DatacenterId(6), gone);
        let mut bytes = Vec::new();
        membership.write(&mut Writer::new(&mut bytes));
        let member = b"\x01a\x01\x02\x00\x01\x00\x03b:3\x00\x04\x00";
        let lost = b"\x01c\x01\x05";
        let of = |member_end: &[u8], lost_end: &[u8]| -> Vec<u8> {
            let of_length = |parts: [&[u8]; 2]| {
                let fields = parts.concat();
                [&[u8::try_from(fields.len()).unwrap()], fields.as_slice()].concat()
            };
            let members = [b"\x01\x01\x01", of_length([member, member_end]).as_slice()].concat();
            let gone = [b"\x01\x06", of_length([lost, lost_end]).as_slice()].concat();
            [b"\x01", of_length([&members, &gone]).as_slice()].concat()
        };
        assert_eq!(bytes, of(b"\x00", b"\x00"));
        for (of_member, of_lost) in [(&b""[..], &b""[..]), (b"\x00\x63", b"\x00\x63\x63")] {
            let bytes = of(of_member, of_lost);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Membership::read(&mut reader).as_ref(), Ok(&membership));
            reader.finish().unwrap();
        }
        let unknown = DecodeError::UnknownTag { what: "format of a membership", found: 9 };
        bytes[0] = 9;
        assert_eq!(Membership::read(&mut Reader::new(&bytes)), Err(unknown));
    }

    #[test]
    fn one_that_is_lost_is_a_member_and_not_present() {
        let open = || Member::open(String::new(), BTreeMap::new());
        let mut membership =
            Membership::first([(DatacenterId(1), open()), (DatacenterId(2), open())]);
        assert_eq!(membership.changing(), None);
        membership.members.get_mut(&DatacenterId(2)).unwrap().standing = Standing::Lost;
        assert_eq!(membership.changing(), Some((DatacenterId(2), Standing::Lost)));
        assert_eq!(membership.present().collect::<Vec<_>>(), vec![DatacenterId(1)]);
        assert!(!membership.is_gone(DatacenterId(2)));
    }
}
