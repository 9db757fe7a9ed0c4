// SPDX-License-Identifier: GPL-2.0

//! How often the contents of files were shifted (`FALLOC_FL_COLLAPSE_RANGE`, `FALLOC_FL_INSERT_RANGE`), so that a reader
//! who comes back for the rest knows whether it is still where it was.
//!
//! An inode may leave memory between two calls, and a count kept with it would begin again. So the counts are the
//! mount's, a fixed number of them, and each file has one by its identity, maybe shared with others: who sees another
//! number than before may begin again for nothing, but never goes on where he must not.

use crate::format::{crc32c_append, record::Identity};
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// How many counts there are.
const COUNTS: u32 = 128;

/// The counts of a mount.
pub(super) struct Shifts(KVec<AtomicU64>);

impl Shifts {
    /// All counts are zero.
    pub(super) fn new() -> Result<Self> {
        let mut counts = KVec::with_capacity(COUNTS as usize, GFP_KERNEL)?;
        for _ in 0..COUNTS {
            counts.push(AtomicU64::new(0), GFP_KERNEL)?;
        }
        Ok(Self(counts))
    }

    fn of_object(&self, object: &Identity) -> Option<&AtomicU64> {
        self.0.get((crc32c_append(0, object.as_bytes()) % COUNTS) as usize)
    }

    /// A file's contents were shifted. Under its lock.
    pub(super) fn count(&self, object: &Identity) {
        if let Some(count) = self.of_object(object) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number by which to tell that a file's contents were not shifted. Under its lock.
    pub(super) fn of(&self, object: &Identity) -> u64 {
        self.of_object(object).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
