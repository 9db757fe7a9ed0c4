// SPDX-License-Identifier: GPL-2.0-or-later
//! Where each object of a tape is: sixteen bytes of memory for each.

use super::{block_cost, Object, FILEMARK_COST};

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Bytes of capacity taken before this object.
    start: u64,
    object: Object,
}

/// The list of a tape's objects.
///
/// # Invariants
///
/// `filemarks` holds the numbers of exactly the entries that are filemarks, in order; the
/// starts never decrease.
#[derive(Clone, Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
    filemarks: Vec<u64>,
    end: u64,
}

impl Index {
    /// Number of objects.
    pub fn objects(&self) -> u64 {
        self.entries.len() as u64
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number).ok()?)
    }

    /// The object with this number.
    pub fn object(&self, number: u64) -> Option<Object> {
        self.entry(number).map(|entry| entry.object)
    }

    /// Bytes taken by everything before object `number`.
    pub fn used(&self, number: u64) -> u64 {
        self.entry(number).map_or(self.end, |entry| entry.start)
    }

    /// Filemarks among the objects before `number`.
    pub fn filemarks_before(&self, number: u64) -> u64 {
        self.filemarks.partition_point(|&filemark| filemark < number) as u64
    }

    /// Object number of the filemark that has `nth` filemarks before it.
    pub fn filemark(&self, nth: u64) -> Option<u64> {
        self.filemarks.get(usize::try_from(nth).ok()?).copied()
    }

    /// Adds a block of `length` bytes at the end.
    pub fn push_block(&mut self, length: u32) {
        self.push(Object::Block(length), block_cost(length as usize));
    }

    /// Adds a filemark at the end.
    pub fn push_filemark(&mut self) {
        self.push(Object::Filemark, FILEMARK_COST);
    }

    /// Adds an object that cannot be read, taking `size` bytes.
    pub fn push_damaged(&mut self, size: u64) {
        self.push(Object::Damaged, size);
    }

    fn push(&mut self, object: Object, size: u64) {
        if object == Object::Filemark {
            self.filemarks.push(self.objects());
        }
        self.entries.push(Entry { start: self.end, object });
        self.end += size;
    }

    /// Forgets every object from `objects` on.
    pub fn truncate(&mut self, objects: u64) {
        let keep = self.filemarks_before(objects) as usize;
        self.filemarks.truncate(keep);
        self.end = self.used(objects);
        self.entries.truncate(usize::try_from(objects).unwrap_or(usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_filemarks_and_bytes_and_forgets_them() {
        let mut index = Index::default();
        index.push_block(10);
        index.push_filemark();
        index.push_filemark();
        index.push_block(8);
        assert_eq!(index.objects(), 4);
        assert_eq!(index.used(1), 56);
        assert_eq!(index.used(4), 56 + 40 + 40 + 48);
        assert_eq!(index.filemarks_before(2), 1);
        assert_eq!(index.filemark(1), Some(2));
        assert_eq!(index.filemark(2), None);
        index.truncate(2);
        assert_eq!(index.objects(), 2);
        assert_eq!(index.used(9), 96);
        assert_eq!(index.filemark(1), None);
        index.truncate(7);
        assert_eq!(index.objects(), 2);
    }
}
