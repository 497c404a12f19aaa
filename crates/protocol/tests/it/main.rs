//! Integration tests of the protocol: its stories, played by machines in virtual time.
//!
//! Each story is a file in `tests/scenarios` and a test of the same name here.

#[cfg(test)]
mod scenario;

/// One test for each story of a folder.
macro_rules! stories {
    ($folder:ident { $($story:ident)* }) => {
        #[cfg(test)]
        mod $folder {
            $(
                #[test]
                fn $story() {
                    crate::scenario::play(concat!(stringify!($folder), "/", stringify!($story)));
                }
            )*

            /// Names of the stories that are played.
            pub(crate) const STORIES: &[&str] =
                &[$(concat!(stringify!($folder), "/", stringify!($story))),*];
        }
    };
}

stories! {
    chain {
        acknowledgement_waits_for_the_new_run
        copied_replica_restarts
        copy_goes_on_after_a_restart
        copy_goes_on_with_another_tail
        copy_is_not_overtaken_by_writes
        copy_under_writes
        copy_waits_until_the_others_have_synced
        dark_chain_is_lit_by_the_longest_log
        deposed_head_takes_back
        dirty_read_asks_the_tail
        expired_key_is_hidden_once
        expired_key_on_a_full_disk
        forward_repeated_and_lost
        full_disk_of_the_tail
        head_dies_and_the_middle_goes_on
        head_takes_back
        lease_ends_and_nothing_is_answered
        logs_that_went_two_ways_are_named
        lost_log_is_named
        low_disk_behind_the_head
        middle_and_tail_restart
        middle_dies_and_the_head_sends_again
        middle_waits_for_what_was_shown
        power_loss_of_the_chain
        promise_lost_on_the_way_to_a_new_tail
        promise_of_an_earlier_run
        read_handed_to_a_head_that_dies
        replica_is_back_within_the_kept_log
        reply_without_effect_waits
        restarted_run_has_no_right
        stale_boot_meets_a_new_run
        stale_boot_refused
        stale_epoch_refused
        tail_dies_and_the_middle_commits
        tail_persists_first
        tail_waits_for_what_it_has_shown
        tail_waits_for_whom_it_vouches_for
        what_was_taken_alone_commits_alone
        vouched_run_ends_and_the_next_has_half_a_copy
        write_and_commit
    }
}
stories! {
    geo {
        concurrent_writes_converge
        cut_covers_only_what_is_committed
        cut_waits_for_every_shard
        dependency_in_another_shard
        drift_is_refused_and_nothing_lost
        expired_key_leaves_nothing
        fetch_is_bounded
        floor_waits_for_the_cut
        full_disk_does_not_fetch_in_a_circle
        gap_is_sent_again
        headers_only_above_the_limit
        late_repeat_joins_what_is_applied_above
        new_epoch_goes_on
        question_survives_the_tail
        receiver_resumes_at_the_watermark
        repeated_replicate_is_ignored
        replicate_with_previous
        same_key_waits_for_seen
        stamps_stay_above_ticks
        ticks_make_stable_and_stop
        tombstone_goes_at_second_stability
        unrelated_write_goes_on
    }
}
stories! {
    session {
        eventual_write_carries_nothing
        exec_over_two_shards_refused
        pipeline_to_one_shard
        pipeline_to_two_shards
        pipelined_writes_over_a_slow_link
        read_behind_a_transaction_that_found_uncommitted_state
        read_behind_a_write
        read_of_nothing_depends_on_the_tombstone
        session_goes_on_at_the_new_head
        several_shards_in_one_command
        stamp_exceeds_what_was_shown
        token_at_home_never_waits
        token_refused_at_the_time_out
        token_waits_until_covered
        unknown_outcome_keeps_the_context
        wait_counts_datacenters
        watch_aborts
        watch_of_an_absent_key
    }
}

#[cfg(test)]
mod stories {
    use crate::{chain, geo, scenario, session};

    /// A beginning that later lines say true and false things about.
    const BEGINNING: &str = "\
datacenters 2, chain of 2, shards 4
session s1 at A: SET {2}y 1
cut A - B
put {1}x = v at A, as w
pass 1 ms
put {3}z = u at A, as later
hold disk of A tail
put {1}x = dirty at A, as open
";

    #[test]
    fn every_file_is_played() {
        let mut played = [chain::STORIES, geo::STORIES, session::STORIES].concat();
        played.sort_unstable();
        assert_eq!(played, scenario::all());
    }

    #[test]
    fn of_each_expectation_the_true_one_holds_and_the_false_one_does_not() {
        let pairs = [
            ("w = OK", "w = nil"),
            ("open waits", "w waits"),
            ("{1}x = v at A", "{1}x = dirty at A"),
            ("{1}x = nil at B", "{1}x = v everywhere"),
            ("{1}x dirty at A", "{1}x clean at A"),
            ("{2}y clean at A", "{2}y dirty at A"),
            ("log of {1}x at A ends at #2", "log of {1}x at A ends at #1"),
            ("log of {1}x at A keeps 2 entries", "log of {1}x at A keeps 1 entries"),
            ("line A head -> A tail * <w> {1}x = v", "line A head -> A tail * <w> {1}x = dirty"),
            ("no line question", "no line forward"),
            ("1 lines forward #2", "2 lines forward #2"),
            ("order w OK | later OK", "order later OK | w OK"),
            ("0 blocked of {1}x at B", "1 blocked of {1}x at B"),
            ("0 conflicts everywhere", "1 conflicts at A tail"),
            ("0 tombstones everywhere", "1 tombstones at A"),
            ("A settled", "A settling"),
            ("w unstable at A", "w stable at A"),
            ("later stamped above w", "w stamped above later"),
            ("s1 told OK", "s1 told nil"),
            ("s1 waits for 0", "s1 waits for 1"),
            ("s1 depends on {2}y", "s1 depends on {1}x"),
            ("s1 depends on 1 writes", "s1 depends on nothing"),
            ("A head vouches for nobody", "A head vouches for A tail"),
            ("A tail finds nobody unfit", "A tail finds A head unfit"),
        ];
        for (right, wrong) in pairs {
            let story = |expected: &str| format!("{BEGINNING}expect {expected}\n----\n");
            assert!(scenario::holds(&story(right)).is_ok(), "{:?}", scenario::holds(&story(right)));
            let said = scenario::holds(&story(wrong)).unwrap_err();
            assert!(said.contains(&format!("expected {wrong}")), "{wrong} is not refused: {said}");
        }
        let wrong = scenario::holds(&format!("{BEGINNING}expect nothing written\n----\n"));
        assert!(wrong.unwrap_err().contains("records were"));
    }

    #[test]
    fn the_same_story_passes_in_the_same_way() {
        let text = format!("{BEGINNING}heal\nrelease disk of A tail\npass 2 s\n----\n");
        assert_eq!(scenario::holds(&text), scenario::holds(&text));
    }

    #[test]
    fn a_command_that_there_is_not_is_refused() {
        for command in ["puts {1}x = v at A", "put {1}x = v at D", "pass 5 hours", "expect so"] {
            assert!(scenario::holds(&format!("{BEGINNING}{command}\n----\n")).is_err());
        }
    }
}

/// That the stories notice deliberate bugs.
#[cfg(all(test, feature = "mutations"))]
mod mutations {
    use antecede_protocol::mutation::Mutation;

    use crate::scenario;

    /// Bugs, and a story whose expectations each of them breaks.
    const CAUGHT: &[(Mutation, &str)] = &[
        (Mutation::SkipDependencyChecks, "geo/dependency_in_another_shard"),
        (Mutation::NewerVersionSatisfies, "geo/unrelated_write_goes_on"),
        (Mutation::DirtyReadsAtTheMiddle, "chain/dirty_read_asks_the_tail"),
        (Mutation::TailCommitsOnItsOwnSync, "chain/tail_persists_first"),
        (Mutation::AcknowledgeBeforePersisting, "chain/middle_and_tail_restart"),
        (Mutation::ReplyFromDirtyState, "chain/reply_without_effect_waits"),
        (Mutation::RestartWithoutSettling, "chain/head_takes_back"),
        (Mutation::CountEarlierRuns, "chain/promise_of_an_earlier_run"),
        (Mutation::PassAcksUnpersisted, "chain/acknowledgement_waits_for_the_new_run"),
        (Mutation::ServeWithoutLease, "chain/lease_ends_and_nothing_is_answered"),
        (Mutation::RejoinWithUncommitted, "chain/deposed_head_takes_back"),
        (Mutation::CopyWithoutAppliedSets, "chain/copy_under_writes"),
        (Mutation::CopyWithoutHistory, "chain/copy_under_writes"),
        (Mutation::ServeHalfCopied, "chain/copy_goes_on_after_a_restart"),
        (Mutation::VouchWithoutWaiting, "chain/tail_waits_for_whom_it_vouches_for"),
        (Mutation::VouchOutOfOrder, "chain/what_was_taken_alone_commits_alone"),
        (Mutation::LoseDependenciesOnResend, "geo/receiver_resumes_at_the_watermark"),
        (Mutation::IgnorePrevious, "geo/gap_is_sent_again"),
        (Mutation::TailClockAsTick, "geo/cut_covers_only_what_is_committed"),
        (Mutation::NewHeadIgnoresTicks, "geo/stamps_stay_above_ticks"),
        (Mutation::MinimaWithoutShards, "geo/cut_waits_for_every_shard"),
        (Mutation::CollectAtFirstStability, "geo/tombstone_goes_at_second_stability"),
        (Mutation::TokenMissesLastWrite, "session/token_waits_until_covered"),
        (Mutation::TokenWithoutHlc, "session/stamp_exceeds_what_was_shown"),
        (Mutation::IgnoreLogicalTime, "session/stamp_exceeds_what_was_shown"),
        (Mutation::NoWaitInPipelines, "session/pipeline_to_two_shards"),
    ];

    #[test]
    fn each_is_caught_by_what_a_story_expects() {
        for (mutation, story) in CAUGHT {
            assert!(!scenario::holds_with(story, *mutation), "{story} holds with {mutation:?}");
        }
    }
}
