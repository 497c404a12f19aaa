//! Reads what is typed at the demo's prompt.
//!
//! A verb begins with a backslash. A line that begins with the name of a datacenter is a command
//! for its first node. Names may be shortened as long as they mean one datacenter.

use std::time::Duration;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Tell what there is to type.
    Help,
    /// Show nodes and addresses.
    Datacenters,
    /// Make both ways between two datacenters take this long.
    Delay {
        /// By number.
        one: usize,
        /// By number.
        other: usize,
        /// One way.
        delay: Duration,
    },
    /// Cut two datacenters off from each other.
    Partition {
        /// By number.
        one: usize,
        /// By number.
        other: usize,
    },
    /// End one cut, or all.
    Heal(Option<(usize, usize)>),
    /// Show how far datacenters are behind each other.
    Lag,
    /// Show the anomaly that causal order prevents.
    Photo {
        /// As JSON.
        as_json: bool,
    },
    /// A command for a datacenter.
    Command {
        /// By number.
        datacenter: usize,
        /// Its words.
        words: Vec<String>,
    },
    /// End.
    Quit,
}

/// What there is to type.
pub(crate) const HELP: &str = "\
\\dc                      nodes and addresses
\\delay A B 200ms         every way between datacenters A and B takes 200 ms
\\partition A B           cut A and B off from each other
\\heal [A B]              end this cut, or all
\\lag                     how far each datacenter is behind the others, in ms
\\photo [--json]          the photo anomaly: without causal order, and with it
A GET key                a command for datacenter A
\\quit                    end
Names may be shortened: eu, us, ap.";

/// The verb of a line; `None` if it is empty.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn read(line: &str, names: &[String]) -> Result<Option<Verb>, String> {
    let words = split(line)?;
    let Some((first, rest)) = words.split_first() else { return Ok(None) };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let Some(name) = first.strip_prefix('\\') else {
        let datacenter = place_of(first, names)
            .map_err(|_| format!("\"{first}\" is neither a verb nor a datacenter; try \\help"))?;
        if rest.is_empty() {
            return Err(format!("what is {first} to do? give a command such as: {first} GET key"));
        }
        let words = rest.into_iter().map(str::to_owned).collect();
        return Ok(Some(Verb::Command { datacenter, words }));
    };
    let pair = |one: &str, other: &str| -> Result<(usize, usize), String> {
        let (one, other) = (place_of(one, names)?, place_of(other, names)?);
        if one == other {
            return Err("give two different datacenters".to_owned());
        }
        Ok((one, other))
    };
    let verb = match (name, &rest[..]) {
        ("help" | "h" | "?", []) => Verb::Help,
        ("dc", [] | ["ls"]) => Verb::Datacenters,
        ("delay", [one, other, delay]) => {
            let (one, other) = pair(one, other)?;
            Verb::Delay { one, other, delay: crate::arguments::time(delay)? }
        }
        ("partition", [one, other]) => {
            let (one, other) = pair(one, other)?;
            Verb::Partition { one, other }
        }
        ("heal", []) => Verb::Heal(None),
        ("heal", [one, other]) => Verb::Heal(Some(pair(one, other)?)),
        ("lag", []) => Verb::Lag,
        ("photo", []) => Verb::Photo { as_json: false },
        ("photo", ["--json"]) => Verb::Photo { as_json: true },
        ("quit" | "q" | "exit", []) => Verb::Quit,
        _ => return Err(format!("\"{}\" is not a verb; try \\help", line.trim())),
    };
    Ok(Some(verb))
}

/// The number of the datacenter that a name, or the start of one, means.
fn place_of(word: &str, names: &[String]) -> Result<usize, String> {
    if let Some(place) = names.iter().position(|name| name == word) {
        return Ok(place);
    }
    let mut meant = names.iter().enumerate().filter(|(_, name)| name.starts_with(word));
    match (meant.next(), meant.next()) {
        (Some((place, _)), None) if !word.is_empty() => Ok(place),
        _ => Err(format!("there is no datacenter {word}; there are {}", names.join(", "))),
    }
}

/// Words between blanks; quotes keep blanks together.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (Some(_) | None, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<Option<Verb>, String> {
        let names = ["eu-west", "us-east", "ap-south"].map(str::to_owned);
        read(line, &names)
    }

    fn check(line: &str, wanted: Verb) {
        assert_eq!(read_line(line), Ok(Some(wanted)), "{line}");
    }

    #[test]
    fn every_verb_is_read() {
        check("\\help", Verb::Help);
        check(" \\dc ", Verb::Datacenters);
        let delay = Duration::from_millis(200);
        check("\\delay eu-west us 200ms", Verb::Delay { one: 0, other: 1, delay });
        check("\\partition ap eu", Verb::Partition { one: 2, other: 0 });
        check("\\heal", Verb::Heal(None));
        check("\\heal us ap", Verb::Heal(Some((1, 2))));
        check("\\lag", Verb::Lag);
        check("\\photo", Verb::Photo { as_json: false });
        check("\\photo --json", Verb::Photo { as_json: true });
        check("\\q", Verb::Quit);
        assert_eq!(read_line("  "), Ok(None));
    }

    #[test]
    fn a_datacenter_takes_commands_with_quoted_words() {
        let words = ["SET", "k", "a b", ""].map(str::to_owned).to_vec();
        check("ap SET k \"a b\" ''", Verb::Command { datacenter: 2, words });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, part) in [
            ("\\delay eu us", "not a verb"),
            ("\\delay eu us soon", "500ms"),
            ("\\delay eu eu 1ms", "different"),
            ("\\partition eu mars", "no datacenter mars"),
            ("\\fly", "not a verb"),
            ("GET k", "neither a verb nor a datacenter"),
            ("eu", "GET key"),
            ("eu SET 'k", "quote"),
        ] {
            let message = read_line(line).unwrap_err();
            assert!(message.contains(part), "{line}: {message}");
        }
    }
}
