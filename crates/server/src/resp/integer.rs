//! Reads and writes decimal numbers as strictly as Redis does.
//!
//! No sign `+`, no leading zeros, no blanks, nothing beyond 64 bits: what Redis refuses must be
//! refused here too, or the same client would be told different things.
#![deny(clippy::indexing_slicing)]

/// The longest number: a sign and 19 digits.
const TEXT_BYTES_MAX: usize = 20;

/// The number that `text` spells, if it is one.
#[must_use]
pub fn parse(text: &[u8]) -> Option<i64> {
    let (first, rest) = text.split_first()?;
    if TEXT_BYTES_MAX < text.len() {
        return None;
    }
    match (first, rest) {
        (b'0', []) => Some(0),
        (b'-', digits) if matches!(digits.first(), Some(b'1'..=b'9')) => {
            digits.iter().try_fold(0_i64, |sum, byte| add_digit(sum, *byte, false))
        }
        (b'1'..=b'9', _) => text.iter().try_fold(0_i64, |sum, byte| add_digit(sum, *byte, true)),
        _ => None,
    }
}

fn add_digit(sum: i64, byte: u8, is_positive: bool) -> Option<i64> {
    if !byte.is_ascii_digit() {
        return None;
    }
    let digit = i64::from(byte - b'0');
    let shifted = sum.checked_mul(10)?;
    if is_positive { shifted.checked_add(digit) } else { shifted.checked_sub(digit) }
}

/// Appends the digits of a number.
pub fn write_unsigned(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; TEXT_BYTES_MAX];
    let mut from = TEXT_BYTES_MAX;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        from -= 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Appends a number with its sign.
pub fn write_signed(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    write_unsigned(value.unsigned_abs(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strictly_as_redis_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("0x1", None),
            ("100000000000000000000000", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(value: i64) {
            let mut text = Vec::new();
            write_signed(value, &mut text);
            proptest::prop_assert_eq!(std::str::from_utf8(&text).unwrap(), value.to_string());
            proptest::prop_assert_eq!(parse(&text), Some(value));
        }
    }
}
