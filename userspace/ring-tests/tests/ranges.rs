// SPDX-License-Identifier: GPL-2.0-or-later
//! Properties of the set of ranges, held against a list of all bytes.

use proptest::prelude::*;
use reelfs_ring_tests::ranges::{Ranges, Span};
use std::collections::BTreeSet;
use std::ops::Range;

const END: u64 = 64;

type TestRanges = Ranges<Vec<Span>>;

fn ranges(capacity: usize) -> TestRanges {
    Ranges::new(vec![Span::default(); capacity])
}

/// Takes everything out, and says which bytes it was.
fn drain(set: &mut TestRanges) -> BTreeSet<u64> {
    let mut bytes = BTreeSet::new();
    while let Some(piece) = set.take(0..u64::MAX, u64::MAX) {
        assert!(piece.start < piece.end, "an empty piece");
        for byte in piece {
            assert!(bytes.insert(byte), "byte {byte} came twice");
        }
    }
    assert!(set.is_empty());
    bytes
}

fn small_range() -> impl Strategy<Value = Range<u64>> {
    (0..END, 0..12u64).prop_map(|(start, length)| start..start + length)
}

#[derive(Clone, Debug)]
enum Step {
    Add(Range<u64>),
    Take(Range<u64>, u64),
    Grow(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => small_range().prop_map(Step::Add),
        2 => (small_range(), 1..20u64).prop_map(|(within, max)| Step::Take(within, max)),
        1 => (1..40usize).prop_map(Step::Grow),
    ]
}

proptest! {
    /// With places for all, the set is exactly what was added and not taken.
    #[test]
    fn with_places_for_all_it_is_exact(steps in prop::collection::vec(step(), 0..60)) {
        let mut set = ranges(100);
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                Step::Add(range) => {
                    set.add(range.clone());
                    model.extend(range);
                }
                Step::Take(within, max) => {
                    let first = within.clone().find(|byte| model.contains(byte));
                    let piece = set.take(within.clone(), max);
                    prop_assert_eq!(piece.as_ref().map(|piece| piece.start), first);
                    for byte in piece.clone().into_iter().flatten() {
                        prop_assert!(within.contains(&byte) && model.remove(&byte));
                    }
                    prop_assert!(piece.is_none_or(|piece| piece.end - piece.start <= max));
                }
                Step::Grow(places) => drop(set.grow(vec![Span::default(); 100 + places])),
            }
        }
        prop_assert_eq!(drain(&mut set), model);
    }

    /// With few places, nothing that was added is missing, and nothing comes that lies outside of all.
    #[test]
    fn with_few_places_nothing_is_missing(capacity in 2..6usize, steps in prop::collection::vec(step(), 0..60)) {
        let mut set = ranges(capacity);
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                Step::Add(range) => {
                    set.add(range.clone());
                    model.extend(range);
                }
                Step::Take(within, max) => {
                    for byte in set.take(within, max).into_iter().flatten() {
                        model.remove(&byte);
                    }
                }
                Step::Grow(places) => drop(set.grow(vec![Span::default(); places])),
            }
            prop_assert!(set.len() <= set.capacity());
        }
        let held = drain(&mut set);
        prop_assert!(model.is_subset(&held), "missing: {:?}", model.difference(&held));
    }

    /// What is behind a place begins with the first byte there.
    #[test]
    fn behind_begins_with_the_first(added in prop::collection::vec(small_range(), 0..20), from in 0..END) {
        let mut set = ranges(100);
        added.iter().for_each(|range| set.add(range.clone()));
        let bytes = || added.iter().cloned().flatten().filter(|byte| *byte >= from);
        let expected = bytes().min().zip(bytes().max()).map(|(first, last)| first..last + 1);
        prop_assert_eq!(set.behind(from), expected);
    }
}

#[test]
fn the_closest_become_one() {
    let mut set = ranges(3);
    for start in [0, 100, 110] {
        set.add(start..start + 1);
    }
    set.add(500..501);
    assert_eq!(set.len(), 3);
    assert_eq!(set.take(0..u64::MAX, u64::MAX), Some(0..1));
    assert_eq!(set.take(0..u64::MAX, u64::MAX), Some(100..111));
    assert_eq!(set.take(0..u64::MAX, u64::MAX), Some(500..501));
}

#[test]
fn a_new_one_joins_its_neighbour_where_that_is_closest() {
    let mut set = ranges(2);
    set.add(0..1);
    set.add(1000..1001);
    set.add(1005..1006);
    set.add(990..991);
    assert_eq!(set.len(), 2);
    assert_eq!(set.take(0..u64::MAX, u64::MAX), Some(0..1));
    assert_eq!(set.take(0..u64::MAX, u64::MAX), Some(990..1006));
}

#[test]
fn the_greatest_numbers_do_no_harm() {
    let mut set = ranges(2);
    set.add(u64::MAX - 1..u64::MAX);
    set.add(0..1);
    set.add(5..6);
    assert_eq!(set.take(2..u64::MAX, u64::MAX), Some(2..6));
    assert_eq!(set.behind(7), Some(u64::MAX - 1..u64::MAX));
}
