//! Matches keys against patterns as Redis does: `*`, `?`, `[a-z]`, `[^a]`, `\` before a character.
//!
//! Oddities of Redis are kept: an unclosed class ends with the pattern, `]` closes a class at once,
//! `[a-]` is a range up to `]`, and an empty key matches only `*` and the empty pattern.
//!
//! The matcher does not call itself: after a mismatch it goes back to the last star only, which is
//! enough. That is still the product of both lengths at worst, so the steps are limited.

/// Matches, with at most `*steps` steps, which are taken off. `None` if they did not suffice.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], steps: &mut u64) -> Option<bool> {
    if pattern == b"*" {
        return Some(true);
    }
    let mut at = 0;
    let mut text_at = 0;
    // Behind the last star, and the text that is tried there.
    let mut star: Option<(usize, usize)> = None;
    while text_at < text.len() {
        *steps = steps.checked_sub(1)?;
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            if at == pattern.len() {
                return Some(true);
            }
            star = Some((at, text_at));
            continue;
        }
        if let Some(next) = match_one(pattern, at, text[text_at], steps) {
            at = next;
            text_at += 1;
            continue;
        }
        let Some((behind_star, tried)) = star else { return Some(false) };
        star = Some((behind_star, tried + 1));
        at = behind_star;
        text_at = tried + 1;
    }
    let is_at_end = pattern[at..].iter().all(|byte| *byte == b'*') && !text.is_empty();
    Some(is_at_end || at == pattern.len())
}

/// Matches one byte against the part of the pattern at `at`, which is no star; tells where the
/// next part begins.
fn match_one(pattern: &[u8], at: usize, byte: u8, steps: &mut u64) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => match_class(pattern, at + 1, byte, steps),
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte).then_some(at + 2),
        literal => (literal == byte).then_some(at + 1),
    }
}

fn match_class(pattern: &[u8], start: usize, byte: u8, steps: &mut u64) -> Option<usize> {
    let mut at = start;
    let is_negated = pattern.get(at) == Some(&b'^');
    if is_negated {
        at += 1;
    }
    let mut is_match = false;
    let end = loop {
        *steps = steps.saturating_sub(1);
        match pattern[at..] {
            [] => break at,
            [b'\\', escaped, ..] => {
                is_match |= escaped == byte;
                at += 2;
            }
            [b']', ..] => break at + 1,
            [first, b'-', last, ..] => {
                is_match |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                is_match |= literal == byte;
                at += 1;
            }
        }
    };
    (is_match != is_negated).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), &mut 1_000_000).unwrap()
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "anything"),
            ("", ""),
            ("h?llo", "hello"),
            ("h*llo", "hllo"),
            ("h*llo", "heeeello"),
            ("h**o*", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("a\\*b", "a*b"),
            ("a\\", "a\\"),
            ("[\\]]", "]"),
            ("[a\\-z]", "-"),
            ("[abc", "b"),
            ("[a-", "-"),
            ("[a-]", "^"),
            ("[^]x", "ax"),
            ("*a*a*b", "aaacaab"),
            ("*[0-9]", "key7"),
            ("a*", "a"),
        ] {
            assert!(is_match(pattern, text), "{pattern:?} must match {text:?}");
        }
    }

    #[test]
    fn patterns_do_not_match_as_in_redis() {
        for (pattern, text) in [
            ("", "a"),
            ("**", ""),
            ("?", ""),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("a\\*b", "axb"),
            ("[]", "]"),
            ("[]a]", "a"),
            ("[", "["),
            ("[a-", "b"),
            ("*b", "abc"),
            ("a*c", "ab"),
            ("a", "ab"),
            ("ab", "a"),
            ("*[0-9]", "key"),
        ] {
            assert!(!is_match(pattern, text), "{pattern:?} must not match {text:?}");
        }
    }

    #[test]
    fn a_pattern_that_takes_too_long_is_given_up() {
        let text = [b'a'; 2000];
        let pattern = [&b"*"[..], &b"a".repeat(300)].concat();
        assert_eq!(matches(&[&pattern[..], b"b"].concat(), &text, &mut 10_000), None);
        let mut steps = 10_000;
        assert_eq!(matches(&pattern, &text[..310], &mut steps), Some(true));
        assert!(steps < 10_000, "steps are taken off");
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_matched_without_a_panic(
            pattern in proptest::collection::vec(
                proptest::sample::select(&b"*?[]^-\\ab"[..]), 0..12),
            text in proptest::collection::vec(
                proptest::sample::select(&b"ab]-^*["[..]), 0..8),
        ) {
            let found = matches(&pattern, &text, &mut 1_000_000);
            proptest::prop_assert_eq!(found, Some(recursive(&pattern, &text, true)));
        }
    }

    /// The same language, told by trying everything.
    fn recursive(pattern: &[u8], text: &[u8], is_start: bool) -> bool {
        if is_start && text.is_empty() {
            return pattern.is_empty() || pattern == b"*";
        }
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                (0..=text.len()).any(|skipped| recursive(rest, &text[skipped..], false))
            }
            (_, []) => pattern.is_empty(),
            (_, [byte, rest @ ..]) => {
                let end = (1..=pattern.len()).rev().find(|end| is_one(&pattern[..*end], pattern));
                end.is_some_and(|end| accepts(&pattern[..end], *byte))
                    && recursive(&pattern[end.unwrap_or(0)..], rest, false)
            }
        }
    }

    /// Whether `part` is the whole first part of `pattern`, one that stands for one byte.
    fn is_one(part: &[u8], pattern: &[u8]) -> bool {
        match pattern {
            [b'[', ..] => class_length(pattern) == part.len(),
            [b'\\', _, ..] => part.len() == 2,
            _ => part.len() == 1,
        }
    }

    fn members(class: &[u8]) -> (Vec<(u8, u8)>, usize) {
        let mut members = vec![];
        let mut at = 0;
        while at < class.len() && class[at] != b']' {
            let rest = &class[at..];
            let (member, length) = if rest[0] == b'\\' && 1 < rest.len() {
                ((rest[1], rest[1]), 2)
            } else if 2 < rest.len() && rest[1] == b'-' {
                ((rest[0].min(rest[2]), rest[0].max(rest[2])), 3)
            } else {
                ((rest[0], rest[0]), 1)
            };
            members.push(member);
            at += length;
        }
        (members, (at + 1).min(class.len()))
    }

    fn class_length(pattern: &[u8]) -> usize {
        let start = if pattern.get(1) == Some(&b'^') { 2 } else { 1 };
        start + members(&pattern[start..]).1
    }

    fn accepts(part: &[u8], byte: u8) -> bool {
        match part {
            [b'?'] => true,
            [b'\\', escaped] => *escaped == byte,
            [b'[', b'^', class @ ..] => {
                !members(class).0.iter().any(|(low, high)| (*low..=*high).contains(&byte))
            }
            [b'[', class @ ..] => {
                members(class).0.iter().any(|(low, high)| (*low..=*high).contains(&byte))
            }
            [literal, ..] => *literal == byte,
            [] => false,
        }
    }
}
