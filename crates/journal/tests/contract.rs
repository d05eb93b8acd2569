//! What every engine promises, asked of each.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#[path = "support/members.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod members;
#[path = "support/place.rs"]
mod place;
#[path = "support/scratch.rs"]
mod scratch;

#[path = "contract/cases.rs"]
mod cases;

/// Every case, with a fresh journal of each engine.
macro_rules! contract {
    ($($case:ident)*) => {
        contract!(memory: $($case)*);
        contract!(sqlite: $($case)*);
        contract!(etcd: $($case)*);
    };
    ($engine:ident: $($case:ident)*) => {
        mod $engine {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(place) = super::place::Place::$engine().await {
                    super::cases::$case(place).await;
                }
            })*
        }
    };
}

contract! {
    a_new_journal_is_empty
    records_come_in_order
    whoever_reads_after_a_position_gets_all_above_it
    cells_and_record_appear_together_or_not_at_all
    nobody_sees_half_a_commit
    of_writers_who_knew_the_same_one_wins
    a_version_never_comes_twice
    a_trimmed_journal_says_from_where_to_read
    trimming_goes_to_the_last_record_that_there_is
    a_change_is_noticed
    what_was_written_is_there_after_opening_again
    what_is_allowed_fits_and_what_is_larger_is_refused
    names_and_texts_may_be_odd
}
