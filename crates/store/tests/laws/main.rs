//! What a store promises, wherever it is: each law is run on a folder and on a bucket of a real server. And what only a
//! bucket can do: lie, hang, and be away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bucket;
mod place;
mod suite;

/// Each law as a test of each home.
macro_rules! on_every_home {
    ($($law:ident),* $(,)?) => {
        mod folder {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                crate::suite::$law(&crate::place::Place::folder()).await;
            })*
        }
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                crate::suite::$law(&crate::place::Place::bucket(stringify!($law)).await).await;
            })*
        }
    };
}

on_every_home!(
    what_is_made_is_listed_read_and_shown,
    a_name_is_found_in_any_case_and_keeps_its_spelling,
    each_part_of_a_new_name_is_spelled_as_it_is_there,
    an_upload_with_another_digest_leaves_nothing,
    a_copy_shares_its_blobs_and_outlives_the_original,
    what_another_process_writes_is_seen_at_once,
    a_delete_removes_what_only_that_model_used,
    what_another_process_is_about_to_name_survives_a_delete,
    pruning_takes_old_orphans_and_nothing_else,
    a_damaged_manifest_is_passed_over_and_stops_the_pruning,
    a_model_without_its_blob_is_told_to_be_pulled,
    a_manifest_or_a_blob_that_is_too_long_is_refused,
    a_header_is_read_however_long_it_is,
    a_file_that_is_no_model_is_refused_and_goes,
    a_blob_is_brought_to_this_machine_whole,
    models_travel_as_one_file,
    a_blob_that_is_made_here_lasts,
);
