// SPDX-License-Identifier: GPL-2.0-or-later

//! `/dev/reelfs` against consumers that are hostile, careless, dead, or merely slow.
//!
//! The tests are consumers themselves; no daemon runs. `Documentation/format/device.md` is what they hold the kernel to.

mod chaos;
mod checkpoints;
mod hostile;
mod stage;
mod stall;
mod states;
mod streams;
mod telling;

use crate::machine::{insmod, rmmod};
use crate::{Suite, Test, TestResult};

pub const SUITE: Suite = Suite {
    name: "device",
    timeout: 1500,
    set_up: |_| insmod(),
    tear_down: |_| rmmod(),
    tests: &[
        Test::new("opening-needs-the-capability", hostile::opening_needs_the_capability),
        Test::new("unknown-commands-are-refused", hostile::unknown_commands_are_refused),
        Test::new("bad-addresses-are-refused", hostile::bad_addresses_are_refused),
        Test::new("impossible-attaches-are-refused", hostile::impossible_attaches_are_refused),
        Test::new("nothing-works-before-attaching", hostile::nothing_works_before_attaching),
        Test::new("acknowledging-takes-boundaries-only", hostile::acknowledging_takes_boundaries_only),
        Test::new("mapping-is-for-reading-only", hostile::mapping_is_for_reading_only),
        Test::new("mappings-outlive-everything", hostile::mappings_outlive_everything),
        Test::new("records-are-whole-and-dense", streams::records_are_whole_and_dense),
        Test::new("one-consumer-at-a-time", streams::one_consumer_at_a_time),
        Test::new("attaching-again-goes-on-where-it-ended", streams::attaching_again_goes_on_where_it_ended),
        Test::new("the-mark-tells-trees-apart", streams::the_mark_tells_trees_apart),
        Test::new("a-ring-outlives-its-mount", streams::a_ring_outlives_its_mount),
        Test::new("one-history-under-one-name", streams::one_history_under_one_name),
        Test::new("discarding-wants-proof", streams::discarding_wants_proof),
        Test::new("before-the-first-consumer", stall::before_the_first_consumer),
        Test::new("a-full-ring-blocks", stall::a_full_ring_blocks),
        Test::new("a-full-ring-fails", stall::a_full_ring_fails).limit(240),
        Test::new("waiters-can-be-killed", stall::waiters_can_be_killed),
        Test::new("fsync-hurries-the-consumer", stall::fsync_hurries_the_consumer),
        Test::new("killed-consumers-lose-nothing", stall::killed_consumers_lose_nothing),
        Test::new("unmounting-waits-for-nobody", stall::unmounting_waits_for_nobody),
        Test::new("checkpoints-begin-and-end", checkpoints::begin_and_end),
        Test::new("populated-trees-are-told", checkpoints::populated_trees),
        Test::new("detaching-voids-a-checkpoint", checkpoints::detaching_voids),
        Test::new("unmounting-voids-a-checkpoint", checkpoints::unmounting_voids),
        Test::new("a-gap-voids-a-checkpoint", checkpoints::a_gap_voids),
        Test::new("a-checkpoint-waits-and-makes-no-gap", checkpoints::waits_and_makes_no_gap),
        Test::new("hostile-identities-name-nothing", checkpoints::hostile_identities),
        Test::new("objects-elsewhere-are-not-told", checkpoints::objects_elsewhere),
        Test::new("each-kind-of-object-is-told", states::each_kind_of_object),
        Test::new("many-extended-attributes-are-told", states::many_extended_attributes),
        Test::new("contents-are-told-with-holes", states::contents_with_holes),
        Test::new("stores-not-captured-come-later", states::stores_not_captured),
        Test::new("entries-are-told-in-parts", states::entries_in_parts).limit(600),
        Test::new("shifted-contents-are-told-anew", states::shifted_contents),
        Test::new("objects-without-a-name-are-found", states::objects_without_a_name),
        Test::new("any-order-of-calls", chaos::any_order_of_calls).limit(240),
    ],
    ..Suite::DEFAULT
};

/// What a test returns that uses `?` on anything.
pub(super) type Outcome = TestResult;

/// The consumer process of [`stall::killed_consumers_lose_nothing`].
pub fn consume(mount: &std::path::Path, acknowledge: bool) -> Outcome {
    stage::consume(mount, acknowledge)
}
