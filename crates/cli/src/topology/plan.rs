//! Says what a change of the members does, what it costs, and what it can lose.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::told::{Datacenter, Topology};
use super::{Addition, Change, Removal};

/// All of it, with the line that makes the change.
pub(super) fn words_of(change: &Change, now: &Topology, admin: &str) -> String {
    let mut text = format!("plan for version {}\n", now.version);
    text.push_str(&match change {
        Change::Add(wanted) => added(wanted, now),
        Change::Remove(Removal { name, lost: false }) => removed(name, now),
        Change::Remove(Removal { name, lost: true }) => lost(name, now, admin),
    });
    let _infallible = write!(
        text,
        "apply:\n  antecede topology apply {} --version {} --admin {admin}",
        change.to_words(),
        now.version
    );
    text
}

fn names<'a>(all: impl Iterator<Item = &'a Datacenter>) -> String {
    all.map(|there| there.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn added(wanted: &Addition, now: &Topology) -> String {
    let Addition { name, id, nodes, from } = wanted;
    let first = now.datacenters.iter().find(|there| there.is_open);
    let from =
        from.as_deref().or_else(|| first.map(|there| there.name.as_str())).unwrap_or("another");
    let others = names(now.datacenters.iter());
    let count = nodes.len();
    format!(
        "  datacenter {name} ({id}) with {count} nodes is added\n\
         steps:\n\
         \x20 1. it joins: {others} each keep what is written from then on, until it has it\n\
         \x20 2. it copies all data of {from}, then what was written meanwhile\n\
         \x20 3. it serves, when it has all that anybody was shown before it began\n\
         needs:\n\
         \x20 its nodes run, with settings that name all datacenters and say added = true for {name}\n\
         costs:\n\
         \x20 {from} sends all its data once; logs everywhere grow by what is written until {name} \
         serves\n\
         loses:\n\
         \x20 nothing; until step 3 it can be taken back (remove {name}), only number {id} and the name \
         are used up\n"
    )
}

fn removed(name: &str, now: &Topology) -> String {
    let others = names(now.datacenters.iter().filter(|there| there.name != name));
    let is_open = now.datacenters.iter().any(|there| there.name == name && there.is_open);
    if !is_open {
        return format!(
            "  datacenter {name}, which does not serve yet, is removed\n\
             costs:\n\
             \x20 nothing: {others} stop keeping what it would need\n\
             loses:\n\
             \x20 nothing; its number and name are never used again\n"
        );
    }
    format!(
        "  datacenter {name} is removed\n\
         steps:\n\
         \x20 1. its nodes refuse writes (READONLY): send its clients elsewhere before\n\
         \x20 2. {others} apply all that it has written\n\
         \x20 3. it is gone: its nodes refuse everything, and can be stopped\n\
         costs:\n\
         \x20 one place less that has the data\n\
         loses:\n\
         \x20 nothing; its number and name are never used again\n"
    )
}

fn lost(name: &str, now: &Topology, admin: &str) -> String {
    let mut text = format!(
        "  datacenter {name} is given up: it does not come back\n\
         steps:\n\
         \x20 1. the others take nothing from it any more\n\
         \x20 2. they give each other what any of them has of it\n\
         \x20 3. it is gone\n\
         needs:\n\
         \x20 all of its nodes are stopped for ever: what they acknowledge from now on is lost\n\
         costs:\n\
         \x20 one place less that has the data\n\
         loses:\n\
         \x20 what it had written and none of the others has received; as the node at {admin} knows:\n"
    );
    let known = now.datacenters.iter().find(|there| there.name == name);
    let others = now.datacenters.iter().filter(|there| there.name != name);
    for other in others {
        let to = known.and_then(|known| known.applied_by.get(&other.name));
        let words = match to {
            Some(to) if 0 < *to => format!("has all of it up to {}, perhaps more", moment(*to)),
            Some(_) | None => "has told nothing yet of what it has of it".to_owned(),
        };
        let _infallible = writeln!(text, "    {} {words}", other.name);
    }
    text
}

/// A moment that is given in milliseconds of Unix time.
fn moment(millis: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::node;
    use super::super::told::tests::three;
    use super::*;

    #[test]
    fn a_plan_says_what_is_lost_and_ends_with_the_line_that_makes_it() {
        let lost = Change::Remove(Removal { name: "eu".to_owned(), lost: true });
        let text = words_of(&lost, &three(), "host:9");
        assert!(text.starts_with("plan for version 4\n"), "{text}");
        assert!(text.contains("us has all of it up to 1970-01-01T00:01:01.000Z"), "{text}");
        let line = "antecede topology apply remove eu --lost --version 4 --admin host:9";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn an_addition_names_whose_data_is_copied() {
        let nodes = vec![node("4.1=host:1").unwrap()];
        let wanted = Addition { name: "sa".to_owned(), id: 4, nodes, from: None };
        let text = words_of(&Change::Add(wanted.clone()), &three(), "host:9");
        assert!(text.contains("copies all data of eu"), "{text}");
        let from = Some("us".to_owned());
        let text = words_of(&Change::Add(Addition { from, ..wanted }), &three(), "host:9");
        assert!(text.contains("copies all data of us"), "{text}");
        assert!(text.contains("eu, us, ap each keep"), "{text}");
    }

    #[test]
    fn who_does_not_serve_yet_is_removed_at_once() {
        let remove = |name: &str| Change::Remove(Removal { name: name.to_owned(), lost: false });
        assert!(words_of(&remove("ap"), &three(), "host:9").contains("does not serve yet"));
        assert!(words_of(&remove("us"), &three(), "host:9").contains("READONLY"));
    }
}
