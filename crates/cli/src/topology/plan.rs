//! Says what a change of the members does, what it costs, and what it can lose.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::told::{Datacenter, Topology};
use super::{Addition, Change, Lapse, Removal};

/// All of it, with the line that makes the change.
pub(super) fn words_of(change: &Change, now: &Topology, admin: &str) -> String {
    let mut text = format!("plan for version {}\n", now.version);
    text.push_str(&match change {
        Change::Add(wanted) => added(wanted, now),
        Change::Remove(Removal { name, lost: false }) => removed(name, now),
        Change::Remove(Removal { name, lost: true }) => lost(name, now, admin),
        Change::Lapse(Lapse { name }) => lapsed(name, now, admin),
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
    text.push_str(&held_by_others(name, now));
    text
}

fn lapsed(name: &str, now: &Topology, admin: &str) -> String {
    let others = names(now.datacenters.iter().filter(|there| there.name != name));
    let known = now.datacenters.iter().find(|there| there.name == name);
    let behind = match known.and_then(|known| known.behind_ms) {
        Some(millis) => {
            format!("{name} is behind by {} s, as the node at {admin} knows", millis / 1_000)
        }
        None => format!("the node at {admin} does not know how far {name} is behind"),
    };
    let kept = now.kept_words(name);
    format!(
        "  datacenter {name} is let go of (it lapses), and comes back by itself with its data anew\n\
         now:\n\
         \x20 {behind}\n\
         \x20 {kept}\n\
         steps:\n\
         \x20 1. {others} take nothing from {name} any more, give each other what any of them has of \
         it, and keep nothing for it from then on\n\
         \x20 2. {name} hears of it when it reaches the others: it refuses everything (CLUSTERDOWN, \
         lapsed), and its nodes put their data aside in quarantine/ of their data folders\n\
         \x20 3. it joins under a number of its own, with the same name and nodes: it copies, then \
         serves\n\
         \x20 4. its nodes execute again what it had written and nobody else has, where the key was \
         not written since; what became of each key is in a journal beside the quarantine\n\
         needs:\n\
         \x20 a majority of the deployment's agreement; disks of {name} with room for its data twice\n\
         costs:\n\
         \x20 one place less that has the data until it is back; its data is sent to it once\n\
         loses:\n\
         \x20 nothing that it can execute again; but until it hears of it, it goes on to acknowledge \
         writes that nobody else gets (a plan cannot list them), and these count from step 4 on: keys \
         that others have written since stay as those left them\n\
         \x20 a token that names one of its writes, brought elsewhere, is refused with LOST\n\
         what the others have of it, as the node at {admin} knows:\n{}",
        held_by_others(name, now)
    )
}

/// What each of the others has of one that is let go of, a line each.
fn held_by_others(name: &str, now: &Topology) -> String {
    let mut text = String::new();
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
    fn a_plan_to_let_go_says_how_far_behind_it_is_and_what_it_may_still_acknowledge() {
        let lapse = Change::Lapse(Lapse { name: "ap".to_owned() });
        let mut now = three();
        now.datacenters[2].behind_ms = Some(95_000);
        let text = words_of(&lapse, &now, "host:9");
        for words in ["ap is behind by 95 s", "goes on to acknowledge", "a majority", "LOST"] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(text.contains("keeps 7 MiB of 100 MiB for the one furthest behind, ap"), "{text}");
        assert!(text.contains("    eu has told nothing yet"), "{text}");
        let line = "antecede topology apply lapse ap --version 4 --admin host:9";
        assert!(text.ends_with(line), "{text}");
        let unknown = Topology { kept: None, ..three() };
        assert!(words_of(&lapse, &unknown, "host:9").contains("keeps nothing that ap misses"));
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
