//! Parses the commands on keys of any type, and those on all keys together.

use antecede_model::operation::{
    Action, Deadline, Description, ExpireCondition, ExpiryForm, Operation,
};
use antecede_protocol::session::command::{Command, Gather};

use super::{
    ConnectionCommand, FixedReply, Parsed, error::CommandError, row::Call, strings::is_word,
};
use crate::resp::{integer, shape::Shape};

/// How many keys `SCAN` looks at unless it is told.
const SCAN_COUNT: u64 = 10;

pub(super) fn del<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    one_or_more(call, &Action::Delete)
}

pub(super) fn exists<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    one_or_more(call, &Action::Exists)
}

fn one_or_more<'a>(call: &Call<'_, 'a>, action: &Action<'a>) -> Result<Parsed<'a>, CommandError> {
    if call.arguments.len() == 2 {
        return call.on_key(1, action.clone());
    }
    call.on_keys(1, action, Gather::Sum)
}

pub(super) fn type_of<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Type)
}

pub(super) fn persist<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Persist)
}

pub(super) fn ttl<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Expiry(ExpiryForm::Seconds))
}

pub(super) fn pttl<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Expiry(ExpiryForm::Millis))
}

pub(super) fn expiretime<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Expiry(ExpiryForm::AtSeconds))
}

pub(super) fn pexpiretime<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(1, Action::Expiry(ExpiryForm::AtMillis))
}

pub(super) fn expire<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    expire_at(call, |number| call.later_by(number.checked_mul(1000)?))
}

pub(super) fn pexpire<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    expire_at(call, |number| call.later_by(number))
}

pub(super) fn expireat<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    expire_at(call, |number| number.checked_mul(1000))
}

pub(super) fn pexpireat<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    expire_at(call, Some)
}

/// A deadline from a number, which `to_millis` turns into milliseconds since 1970.
fn expire_at<'a>(
    call: &Call<'_, 'a>,
    to_millis: impl FnOnce(i64) -> Option<i64>,
) -> Result<Parsed<'a>, CommandError> {
    let condition = expire_condition(call.from(3))?;
    let number = call.integer(2)?;
    let millis =
        to_millis(number).ok_or(CommandError::InvalidExpireTime { name: call.row.name })?;
    // A time before 1970 has passed like any other: the key goes.
    let deadline = Deadline::try_from(millis.max(0)).unwrap_or(0);
    call.on_key(1, Action::Expire { deadline, condition })
}

fn expire_condition(options: &[&[u8]]) -> Result<ExpireCondition, CommandError> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in options {
        if is_word(option, "NX") {
            nx = true;
        } else if is_word(option, "XX") {
            xx = true;
        } else if is_word(option, "GT") {
            gt = true;
        } else if is_word(option, "LT") {
            lt = true;
        } else {
            return Err(CommandError::quoting("ERR Unsupported option ", option, ""));
        }
    }
    if nx && (xx || gt || lt) {
        return Err(CommandError::fixed(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    Ok(match (nx, xx, gt, lt) {
        (_, _, true, true) => {
            return Err(CommandError::fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        (true, _, _, _) => ExpireCondition::IfNone,
        (_, true, true, _) => ExpireCondition::IfSomeAndLater,
        (_, true, _, true) => ExpireCondition::IfSomeAndEarlier,
        (_, true, _, _) => ExpireCondition::IfSome,
        (_, _, true, _) => ExpireCondition::IfLater,
        (_, _, _, true) => ExpireCondition::IfEarlier,
        (false, false, false, false) => ExpireCondition::Always,
    })
}

pub(super) fn object_encoding<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let action = Action::Describe(Description::Encoding);
    Ok(Parsed::Session(Command::One(Operation { key: call.key(2)?, action }), Shape::Bulk))
}

pub(super) fn object_refcount<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.on_key(2, Action::Describe(Description::References))
}

pub(super) fn memory_usage<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    match call.from(3) {
        [] => {}
        [option, samples] if is_word(option, "SAMPLES") => {
            // A string is measured whole, whatever the number of samples.
            if integer::parse(samples).ok_or(CommandError::NotAnInteger)? < 0 {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    }
    call.on_key(2, Action::Describe(Description::Memory))
}

pub(super) fn scan<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let cursor = parse_cursor(call.argument(1))?;
    let mut count = SCAN_COUNT;
    let mut pattern = None;
    let mut only_other_types = false;
    for option in call.from(2).chunks(2) {
        let [name, value] = option else { return Err(CommandError::Syntax) };
        if is_word(name, "COUNT") {
            let given = integer::parse(value).ok_or(CommandError::NotAnInteger)?;
            count = u64::try_from(given).unwrap_or(0);
            if count == 0 {
                return Err(CommandError::Syntax);
            }
        } else if is_word(name, "MATCH") {
            pattern = Some(*value).filter(|pattern| *pattern != b"*");
        } else if is_word(name, "TYPE") {
            only_other_types = !is_word(value, "string");
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if only_other_types {
        // No key has another type: such a scan is over before it begins.
        return Ok(Parsed::Connection(ConnectionCommand::Fixed(FixedReply::NothingScanned)));
    }
    Ok(Parsed::Session(Command::Scan { cursor, count, pattern }, Shape::Plain))
}

/// Reads a cursor as the C library reads an unsigned number: a zero byte ends the text, an empty
/// text is 0, a sign may stand in front.
fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = &text[..end];
    let invalid = CommandError::fixed("ERR invalid cursor");
    let (is_negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid);
    }
    let number = digits
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(*digit - b'0')));
    let number = number.ok_or(invalid)?;
    Ok(if is_negative { number.wrapping_neg() } else { number })
}

pub(super) fn keys<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Ok(Parsed::Session(Command::Keys { pattern: call.argument(1) }, Shape::Plain))
}

pub(super) fn dbsize<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Ok(Parsed::Session(Command::Count, Shape::Plain))
}

pub(super) fn randomkey<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    // The connection puts the drawn number in: chance does not come from a table of commands.
    Ok(Parsed::Session(Command::RandomKey { draw: 0 }, Shape::Plain))
}

pub(super) fn wait<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let count = u64::try_from(call.integer(1)?).unwrap_or(0);
    let timeout = integer::parse(call.argument(2))
        .ok_or(CommandError::fixed("ERR timeout is not an integer or out of range"))?;
    let timeout_millis =
        u64::try_from(timeout).map_err(|_| CommandError::fixed("ERR timeout is negative"))?;
    if call.later_by(timeout).is_none() {
        return Err(CommandError::fixed("ERR timeout is out of range"));
    }
    Ok(Parsed::Session(Command::Wait { count, timeout_millis }, Shape::Plain))
}
