//! Matches names against Redis's glob patterns: `*`, `?`, `[a-z]`, `[^a]` and `\x`.
//!
//! One place to go back to (the last `*`) is all that is remembered, so that no pattern costs more
//! than its length times the text's.

/// Whether `text` matches `pattern`; letters of either case are alike.
#[must_use]
pub fn matches_any_case(pattern: &[u8], text: &[u8]) -> bool {
    let mut at = Position { pattern: 0, text: 0 };
    let mut last_star: Option<Position> = None;
    while at.text < text.len() {
        let rest = &pattern[at.pattern.min(pattern.len())..];
        if rest.first() == Some(&b'*') {
            last_star = Some(Position { pattern: at.pattern + 1, text: at.text });
            at.pattern += 1;
            continue;
        }
        if let Some(taken) = match_one(rest, text[at.text].to_ascii_lowercase()) {
            at = Position { pattern: at.pattern + taken, text: at.text + 1 };
            continue;
        }
        let Some(star) = &mut last_star else { return false };
        star.text += 1;
        at = *star;
    }
    pattern[at.pattern.min(pattern.len())..].iter().all(|byte| *byte == b'*')
}

#[derive(Clone, Copy)]
struct Position {
    pattern: usize,
    text: usize,
}

/// Matches one byte against the first item of a pattern; how long that item is, if it matches.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (escaped.to_ascii_lowercase() == byte).then_some(2),
        [b'[', class @ ..] => {
            let (length, is_match) = match_class(class, byte);
            is_match.then_some(length + 1)
        }
        [plain, ..] => (plain.to_ascii_lowercase() == byte).then_some(1),
    }
}

/// How long a class is (without its opening bracket), and whether it holds the byte.
fn match_class(class: &[u8], byte: u8) -> (usize, bool) {
    let is_negated = class.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut is_found = false;
    loop {
        match &class[at.min(class.len())..] {
            [] => return (class.len(), is_found != is_negated),
            [b']', ..] => return (at + 1, is_found != is_negated),
            [b'\\', escaped, ..] => {
                is_found |= escaped.to_ascii_lowercase() == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                is_found |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [single, ..] => {
                is_found |= single.to_ascii_lowercase() == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("max*", "maxmemory", true),
            ("MAX*", "maxmemory", true),
            ("max*y", "maxmemory", true),
            ("max*x", "maxmemory", false),
            ("m?x", "max", true),
            ("m?x", "mx", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[abc", "b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a*b*c", "aXbXbXc", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let matches = matches_any_case(pattern.as_bytes(), text.as_bytes());
            assert_eq!(matches, expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends_soon() {
        let pattern = b"a*".repeat(200);
        let text = b"a".repeat(2000);
        assert!(!matches_any_case(&[pattern.as_slice(), b"b"].concat(), &text));
    }

    proptest::proptest! {
        #[test]
        fn a_text_matches_itself_escaped_and_stars_around_any_of_its_parts(text: Vec<u8>) {
            let escaped: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
            proptest::prop_assert!(matches_any_case(&escaped, &text));
            let middle = &escaped[text.len() / 2 * 2..];
            proptest::prop_assert!(matches_any_case(&[b"*", middle, b"*"].concat(), &text));
        }

        #[test]
        fn any_pattern_behind_a_star_matches_if_it_matches_alone(
            pattern: Vec<u8>, text: Vec<u8>
        ) {
            let behind_star = [b"*".as_slice(), &pattern].concat();
            let implied = !matches_any_case(&pattern, &text) || matches_any_case(&behind_star, &text);
            proptest::prop_assert!(implied);
        }
    }
}
