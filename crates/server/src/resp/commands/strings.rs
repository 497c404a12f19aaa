//! Parses the commands on strings.
//!
//! Times to live become deadlines here: from now on nobody needs to know when "now" was.

use antecede_model::{
    key::KEY_BYTES_MAX,
    operation::{Action, Condition, Deadline, Operation, SetReply, Ttl},
};
use antecede_protocol::session::command::{Command, Gather};

use super::{Parsed, error::CommandError, row::Call};
use crate::resp::{integer, shape::Shape};

impl<'a> Call<'_, 'a> {
    /// An argument, which the arity ensures to be there.
    #[inline]
    pub(super) fn argument(&self, at: usize) -> &'a [u8] {
        self.arguments.get(at).copied().unwrap_or_default()
    }

    /// The arguments from a place on.
    #[inline]
    pub(super) fn from(&self, at: usize) -> &[&'a [u8]] {
        self.arguments.get(at..).unwrap_or_default()
    }

    /// An argument that is a key.
    #[inline]
    pub(super) fn key(&self, at: usize) -> Result<&'a [u8], CommandError> {
        checked_key(self.argument(at))
    }

    /// An argument that is a number.
    #[inline]
    pub(super) fn integer(&self, at: usize) -> Result<i64, CommandError> {
        integer::parse(self.argument(at)).ok_or(CommandError::NotAnInteger)
    }

    /// One action on the key at a place.
    #[inline]
    pub(super) fn on_key(&self, at: usize, action: Action<'a>) -> Result<Parsed<'a>, CommandError> {
        let operation = Operation { key: self.key(at)?, action };
        Ok(Parsed::Session(Command::One(operation), Shape::Plain))
    }

    /// The same action on each of the arguments from `at` on.
    pub(super) fn on_keys(
        &self,
        at: usize,
        action: &Action<'a>,
        gather: Gather,
    ) -> Result<Parsed<'a>, CommandError> {
        let keys = self.from(at).iter();
        let operations = keys
            .map(|key| Ok(Operation { key: checked_key(key)?, action: action.clone() }))
            .collect::<Result<_, CommandError>>()?;
        Ok(Parsed::Session(Command::Several { operations, gather }, Shape::Plain))
    }

    fn invalid_expire_time(&self) -> CommandError {
        CommandError::InvalidExpireTime { name: self.row.name }
    }

    /// The deadline that a number means.
    fn deadline(&self, number: &[u8], unit: TimeUnit) -> Result<Deadline, CommandError> {
        let number = integer::parse(number).ok_or(CommandError::NotAnInteger)?;
        let deadline = match (number, unit) {
            (i64::MIN..=0, _) => None,
            (_, TimeUnit::Seconds) => {
                number.checked_mul(1000).and_then(|millis| self.later_by(millis))
            }
            (_, TimeUnit::Millis) => self.later_by(number),
            (_, TimeUnit::AtSeconds) => number.checked_mul(1000),
            (_, TimeUnit::AtMillis) => Some(number),
        };
        let deadline = deadline.and_then(|deadline| Deadline::try_from(deadline).ok());
        deadline.ok_or_else(|| self.invalid_expire_time())
    }

    /// So many milliseconds from now, if that is a number of 64 bits.
    pub(super) fn later_by(&self, millis: i64) -> Option<i64> {
        i64::try_from(self.wall_millis).ok()?.checked_add(millis)
    }
}

/// How a deadline is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TimeUnit {
    /// `EX`
    Seconds,
    /// `PX`
    Millis,
    /// `EXAT`
    AtSeconds,
    /// `PXAT`
    AtMillis,
}

impl TimeUnit {
    fn of_option(option: &[u8]) -> Option<Self> {
        let units = [
            ("EX", Self::Seconds),
            ("PX", Self::Millis),
            ("EXAT", Self::AtSeconds),
            ("PXAT", Self::AtMillis),
        ];
        let mut units = units.into_iter();
        units.find(|(name, _)| is_word(option, name)).map(|(_, unit)| unit)
    }
}

/// Whether an argument is a word, in either case.
#[inline]
pub(super) fn is_word(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

#[inline]
fn checked_key(key: &[u8]) -> Result<&[u8], CommandError> {
    if KEY_BYTES_MAX < key.len() {
        let line =
            format!("ERR a key of {} bytes is too long, the limit is {KEY_BYTES_MAX}", key.len());
        return Err(CommandError::Line(line.into_bytes().into()));
    }
    Ok(key)
}

pub(super) fn get<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Get)
}

pub(super) fn strlen<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Length)
}

pub(super) fn getdel<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::GetAndDelete)
}

pub(super) fn mget<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_keys(1, &Action::Get, Gather::List)
}

pub(super) fn getrange<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    call.on_key(1, Action::Range { start, end })
}

pub(super) fn append<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Append { value: call.argument(2) })
}

pub(super) fn setrange<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let offset = u64::try_from(call.integer(2)?)
        .map_err(|_| CommandError::fixed("ERR offset is out of range"))?;
    call.on_key(1, Action::SetRange { offset, value: call.argument(3) })
}

pub(super) fn getset<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let (condition, reply) = (Condition::Always, SetReply::Previous);
    call.on_key(1, Action::Set { value: call.argument(2), condition, ttl: Ttl::Clear, reply })
}

pub(super) fn setnx<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let (condition, reply) = (Condition::IfAbsent, SetReply::Flag);
    call.on_key(1, Action::Set { value: call.argument(2), condition, ttl: Ttl::Clear, reply })
}

pub(super) fn setex<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    set_until(call, TimeUnit::Seconds)
}

pub(super) fn psetex<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    set_until(call, TimeUnit::Millis)
}

fn set_until<'a>(call: &Call<'_, 'a>, unit: TimeUnit) -> Result<Parsed<'a>, CommandError> {
    let ttl = Ttl::Until(call.deadline(call.argument(2), unit)?);
    let (condition, reply) = (Condition::Always, SetReply::Status);
    call.on_key(1, Action::Set { value: call.argument(3), condition, ttl, reply })
}

pub(super) fn set<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let value = call.argument(2);
    let mut condition = Condition::Always;
    let mut ttl = Ttl::Clear;
    let mut reply = SetReply::Status;
    if 3 < call.arguments.len() {
        let mut expiry = None;
        let mut options = call.from(3).iter();
        while let Some(option) = options.next() {
            let may_expire = |unit| ttl == Ttl::Clear && is_none_or_of(expiry, unit);
            if is_word(option, "NX") && condition != Condition::IfPresent {
                condition = Condition::IfAbsent;
            } else if is_word(option, "XX") && condition != Condition::IfAbsent {
                condition = Condition::IfPresent;
            } else if is_word(option, "GET") {
                reply = SetReply::Previous;
            } else if is_word(option, "KEEPTTL") && expiry.is_none() {
                ttl = Ttl::Keep;
            } else if let Some(unit) = TimeUnit::of_option(option)
                && may_expire(unit)
                && let Some(number) = options.next()
            {
                expiry = Some((unit, *number));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if let Some((unit, number)) = expiry {
            ttl = Ttl::Until(call.deadline(number, unit)?);
        }
    }
    call.on_key(1, Action::Set { value, condition, ttl, reply })
}

/// Whether a time to live was not given yet, or in the same unit, which then counts again.
fn is_none_or_of(expiry: Option<(TimeUnit, &[u8])>, unit: TimeUnit) -> bool {
    expiry.is_none_or(|(given, _)| given == unit)
}

pub(super) fn getex<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let mut ttl = Ttl::Keep;
    let mut expiry = None;
    let mut options = call.from(2).iter();
    while let Some(option) = options.next() {
        let may_expire = |unit| ttl == Ttl::Keep && is_none_or_of(expiry, unit);
        if is_word(option, "PERSIST") && expiry.is_none() {
            ttl = Ttl::Clear;
        } else if let Some(unit) = TimeUnit::of_option(option)
            && may_expire(unit)
            && let Some(number) = options.next()
        {
            expiry = Some((unit, *number));
        } else {
            return Err(CommandError::Syntax);
        }
    }
    match expiry.map(|(unit, number)| call.deadline(number, unit)) {
        None => {}
        Some(Ok(deadline)) => ttl = Ttl::Until(deadline),
        Some(Err(error)) => {
            let operation = Operation { key: call.key(1)?, action: Action::Get };
            let shape = Shape::NilOrError(error.line());
            return Ok(Parsed::Session(Command::One(operation), shape));
        }
    }
    call.on_key(1, Action::GetAndExpire { ttl })
}

pub(super) fn mset<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let pairs = call.from(1).chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(CommandError::WrongArity { name: call.row.name });
    }
    let operations = pairs
        .map(|pair| {
            let (condition, reply) = (Condition::Always, SetReply::Status);
            let action = Action::Set { value: pair[1], condition, ttl: Ttl::Clear, reply };
            Ok(Operation { key: checked_key(pair[0])?, action })
        })
        .collect::<Result<_, CommandError>>()?;
    Ok(Parsed::Session(Command::Several { operations, gather: Gather::Ok }, Shape::Plain))
}
