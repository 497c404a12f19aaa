//! Judges every history of `tests/histories`: the name of the file tells the verdict.

use antecede_check::{
    OrderOptions, Pattern, Verdict, causal, notation,
    session::{self, Guarantee},
};

/// File, text, and what causal+ must say: a pattern, or nothing.
const HISTORIES: &[(&str, &str, Option<Pattern>)] = &[
    row("bad_co_read", include_str!("../histories/bad_co_read.txt"), Some(Pattern::WriteCORead)),
    row("bad_cyclic_co", include_str!("../histories/bad_cyclic_co.txt"), Some(Pattern::CyclicCO)),
    row(
        "bad_gettrans_frac",
        include_str!("../histories/bad_gettrans_frac.txt"),
        Some(Pattern::WriteCOInitRead),
    ),
    row(
        "bad_init_read",
        include_str!("../histories/bad_init_read.txt"),
        Some(Pattern::WriteCOInitRead),
    ),
    row(
        "bad_monotonic_read",
        include_str!("../histories/bad_monotonic_read.txt"),
        Some(Pattern::WriteCORead),
    ),
    row("bad_ryw", include_str!("../histories/bad_ryw.txt"), Some(Pattern::WriteCOInitRead)),
    row("bad_thinair", include_str!("../histories/bad_thinair.txt"), Some(Pattern::ThinAirRead)),
    row(
        "bad_transitive",
        include_str!("../histories/bad_transitive.txt"),
        Some(Pattern::WriteCOInitRead),
    ),
    row(
        "bad_transitive_trans",
        include_str!("../histories/bad_transitive_trans.txt"),
        Some(Pattern::WriteCOInitRead),
    ),
    row("ccv_cyclic_cf", include_str!("../histories/ccv_cyclic_cf.txt"), Some(Pattern::CyclicCF)),
    row(
        "ccv_cyclic_cf_later",
        include_str!("../histories/ccv_cyclic_cf_later.txt"),
        Some(Pattern::CyclicCF),
    ),
    row("ok_ccv_not_cm", include_str!("../histories/ok_ccv_not_cm.txt"), None),
    row("ok_concurrent_lww", include_str!("../histories/ok_concurrent_lww.txt"), None),
    row("ok_gettrans", include_str!("../histories/ok_gettrans.txt"), None),
    row("ok_long_fork", include_str!("../histories/ok_long_fork.txt"), None),
    row("ok_nontrans_same", include_str!("../histories/ok_nontrans_same.txt"), None),
    row("ok_photo", include_str!("../histories/ok_photo.txt"), None),
];

const fn row(
    name: &'static str,
    text: &'static str,
    pattern: Option<Pattern>,
) -> (&'static str, &'static str, Option<Pattern>) {
    (name, text, pattern)
}

#[test]
fn each_history_gets_the_verdict_of_its_name() {
    for (name, text, pattern) in HISTORIES {
        let history = notation::parse(text).unwrap();
        let verdict = causal::check(&history, OrderOptions::default());
        assert_eq!(verdict.violation().map(|violation| violation.pattern), *pattern, "{name}");
        assert_eq!(verdict.is_passed(), pattern.is_none(), "{name}: {verdict}");
        assert_eq!(name.starts_with("ok_"), pattern.is_none(), "{name}");
    }
}

#[test]
fn every_file_of_the_folder_is_judged() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/histories");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let judged: Vec<String> = HISTORIES.iter().map(|(name, ..)| format!("{name}.txt")).collect();
    assert_eq!(files, judged);
}

#[test]
fn a_proof_names_only_the_operations_that_matter() {
    let mut text = String::new();
    for noise in 0..50 {
        text += &format!("w(n{noise},1,0,{noise})\nr(n{noise},1,1,{})\n", 100 + noise);
    }
    text += include_str!("../histories/bad_transitive.txt")
        .replace(",0)", ",200)")
        .replace(",1)", ",201)")
        .replace(",2)", ",202)")
        .replace(",3)", ",203)")
        .replace(",4)", ",204)")
        .as_str();
    let verdict = causal::check(&notation::parse(&text).unwrap(), OrderOptions::default());
    let violation = verdict.violation().expect("it is broken");
    assert_eq!(violation.pattern, Pattern::WriteCOInitRead);
    assert_eq!(violation.steps.len(), 5, "{violation}");
}

#[test]
fn the_proof_of_a_conflict_tells_the_whole_cycle() {
    let text = include_str!("../histories/ccv_cyclic_cf.txt");
    let verdict = causal::check(&notation::parse(text).unwrap(), OrderOptions::default());
    assert_eq!(
        verdict.to_string(),
        "VIOLATED: CyclicCF: no order of concurrent writes fits what was read
  1. session 1 #2 dc 0: write 1 = 2 in transaction 2
       wrote the key
  2. session 1 #3 dc 0: read 1 -> 1 in transaction 3
       had that write in its past and returned the next one, so the next one comes later
  3. session 0 #0 dc 0: write 1 = 1 in transaction 0
       is that next one
  4. session 0 #1 dc 0: read 1 -> 2 in transaction 1
       had both in its past and returned the first: the first comes later, and before itself"
    );
}

fn guarantees(text: &str) -> Vec<Guarantee> {
    let history = notation::parse(text).expect("it is in the notation");
    let broken = |guarantee: &Guarantee| {
        session::check(&history, *guarantee, OrderOptions::default()).violation().is_some()
    };
    session::GUARANTEES.into_iter().filter(broken).collect()
}

#[test]
fn each_session_guarantee_is_told_from_the_others() {
    let ryw = include_str!("../histories/bad_ryw.txt");
    assert_eq!(guarantees(ryw), [Guarantee::ReadYourWrites]);
    let monotonic_reads = include_str!("../histories/bad_monotonic_read.txt");
    assert_eq!(guarantees(monotonic_reads), [Guarantee::MonotonicReads]);
    let monotonic_writes = include_str!("../histories/bad_co_read.txt");
    assert_eq!(guarantees(monotonic_writes), [Guarantee::MonotonicWrites]);
    let writes_follow_reads = include_str!("../histories/bad_transitive.txt");
    assert_eq!(guarantees(writes_follow_reads), [Guarantee::WritesFollowReads]);
    let in_one_transaction = include_str!("../histories/bad_transitive_trans.txt");
    assert_eq!(guarantees(in_one_transaction), [Guarantee::WritesFollowReads]);
}

#[test]
fn good_histories_keep_all_session_guarantees() {
    for (name, text, _) in HISTORIES.iter().filter(|(name, ..)| name.starts_with("ok_")) {
        assert_eq!(guarantees(text), [], "{name}");
    }
}

#[test]
fn a_guarantee_without_a_read_to_judge_has_nothing_to_check() {
    let history = notation::parse("w(1,1,0,0)\nw(2,2,1,1)").unwrap();
    for guarantee in session::GUARANTEES {
        let verdict = session::check(&history, guarantee, OrderOptions::default());
        assert!(matches!(verdict, Verdict::NothingToCheck { .. }), "{verdict}");
    }
}

#[test]
fn a_line_that_is_not_in_the_notation_is_named() {
    let error = notation::parse("w(1,1,0,0)\n\n# note\nr(1,1,0)\n").unwrap_err();
    assert_eq!(error.line, 4);
    for line in ["x(1,1,0,0)", "w(1,1,0,0", "w(,1,0,0)", "w(1,1,0,0,0)", "r(1,1,a,0)", "w"] {
        assert!(notation::parse(line).is_err(), "{line}");
    }
}
