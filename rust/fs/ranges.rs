// SPDX-License-Identifier: GPL-2.0

//! A set of byte ranges of a file in memory that does not grow with the file.
//!
//! Where there is no place for another range, the two that are closest become one: the set then says more than was
//! added to it, never less. Plain arithmetic; its tests are in userspace/ring-tests.

use core::ops::{DerefMut, Range};

/// One range, its end not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u64,
    end: u64,
}

/// Ranges of a file, in places that the caller provides.
///
/// # Invariants
///
/// The first `len` spans are not empty, in ascending order, and do not touch each other.
pub struct Ranges<S> {
    spans: S,
    len: usize,
}

impl<S: DerefMut<Target = [Span]>> Ranges<S> {
    /// An empty set with room for as many ranges as `spans` has; at least two are wanted.
    pub fn new(spans: S) -> Self {
        Self { spans, len: 0 }
    }

    fn used(&self) -> &[Span] {
        self.spans.get(..self.len).unwrap_or(&[])
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many ranges there may be before some become one.
    pub fn capacity(&self) -> usize {
        self.spans.len()
    }

    /// Moves to other places, unless these are too few. Returns those that are not used any more.
    pub fn grow(&mut self, mut spans: S) -> S {
        let Some(places) = spans.get_mut(..self.len) else { return spans };
        places.copy_from_slice(self.used());
        core::mem::replace(&mut self.spans, spans)
    }

    /// Adds a range.
    pub fn add(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        // Those that touch the new one: from `first` up to `behind`.
        let first = self.used().partition_point(|span| span.end < start);
        let behind = self.used().partition_point(|span| span.start <= end);
        if let Some(touching) = self.used().get(first..behind) {
            for span in touching {
                start = start.min(span.start);
                end = end.max(span.end);
            }
        }
        if first < behind {
            self.remove(first + 1, behind);
        } else if self.len < self.capacity() {
            self.open(first);
        } else {
            return self.squeeze(first, start, end);
        }
        self.put(first, Span { start, end });
    }

    /// Removes spans `from..to`.
    fn remove(&mut self, from: usize, to: usize) {
        if from < to && to <= self.len {
            self.spans.copy_within(to..self.len, from);
            self.len -= to - from;
        }
    }

    /// Makes a place at `index`; there is one left.
    fn open(&mut self, index: usize) {
        if self.len < self.capacity() {
            self.spans.copy_within(index..self.len, index + 1);
            self.len += 1;
        }
    }

    fn put(&mut self, index: usize, span: Span) {
        if let Some(place) = self.spans.get_mut(index) {
            *place = span;
        }
    }

    /// Adds a range that touches none and belongs before span `next`, where there is no place left.
    fn squeeze(&mut self, next: usize, start: u64, end: u64) {
        let gaps = self.used().windows(2).map(|pair| match pair {
            [left, right] => right.start.saturating_sub(left.end),
            _ => u64::MAX,
        });
        let Some((closest, gap)) = gaps.enumerate().min_by_key(|(_, gap)| *gap) else { return self.all(start, end) };
        let before = next.checked_sub(1).and_then(|index| self.used().get(index).copied());
        let after = self.used().get(next).copied();
        let to_before = before.map_or(u64::MAX, |span| start.saturating_sub(span.end));
        let to_after = after.map_or(u64::MAX, |span| span.start.saturating_sub(end));
        match (before, after) {
            (Some(span), _) if to_before <= gap && to_before <= to_after => {
                self.put(next - 1, Span { start: span.start, end });
            }
            (_, Some(span)) if to_after <= gap => self.put(next, Span { start, end: span.end }),
            _ => {
                let (Some(left), Some(right)) =
                    (self.used().get(closest).copied(), self.used().get(closest + 1).copied())
                else {
                    return;
                };
                self.put(closest, Span { start: left.start, end: right.end });
                self.remove(closest + 1, closest + 2);
                self.add(start..end);
            }
        }
    }

    /// Makes one range of everything, with room for only one.
    fn all(&mut self, start: u64, end: u64) {
        if let Some(span) = self.spans.first_mut() {
            *span = Span { start: span.start.min(start), end: span.end.max(end) };
        }
    }

    /// Takes out the first piece of the set that lies within a range, of at most `max` bytes (more where taking less would
    /// need a place that is not there).
    pub fn take(&mut self, within: Range<u64>, max: u64) -> Option<Range<u64>> {
        let index = self.used().partition_point(|span| span.end <= within.start);
        let span = *self.used().get(index)?;
        let start = span.start.max(within.start);
        if start >= within.end {
            return None;
        }
        let mut end = span.end.min(within.end).min(start.saturating_add(max.max(1)));
        if span.start < start && end < span.end {
            if self.len < self.capacity() {
                self.open(index + 1);
                self.put(index, Span { start: span.start, end: start });
                self.put(index + 1, Span { start: end, end: span.end });
                return Some(start..end);
            }
            end = span.end;
        }
        if span.start < start {
            self.put(index, Span { start: span.start, end: start });
        } else if end < span.end {
            self.put(index, Span { start: end, end: span.end });
        } else {
            self.remove(index, index + 1);
        }
        Some(start..end)
    }

    /// From the first byte at or behind `from` that is in the set to the end of the last range.
    pub fn behind(&self, from: u64) -> Option<Range<u64>> {
        let index = self.used().partition_point(|span| span.end <= from);
        let (first, last) = (self.used().get(index)?, self.used().last()?);
        Some(first.start.max(from)..last.end)
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}
