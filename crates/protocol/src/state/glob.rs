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
