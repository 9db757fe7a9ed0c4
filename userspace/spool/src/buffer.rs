// SPDX-License-Identifier: GPL-2.0-or-later

//! Memory whose address suits `O_DIRECT`.
//!
//! The address of a `Vec`'s allocation does not change while it is neither grown nor dropped, so an aligned window
//! into one that is a block longer than needed will do, and no `unsafe` is needed.

use reelfs_format::spool::SPOOL_BLOCK;

/// A zeroed buffer of fixed length that begins at a multiple of [`SPOOL_BLOCK`].
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of `len` bytes. Allocates, and touches every page.
    pub fn new(len: usize) -> Self {
        let mut memory = vec![0; len + SPOOL_BLOCK];
        let start = memory.as_ptr().align_offset(SPOOL_BLOCK);
        // `vec![0; n]` maps zero pages that are not there yet; writing makes them so before the buffer is needed.
        memory.iter_mut().step_by(SPOOL_BLOCK).for_each(|byte| *byte = std::hint::black_box(0));
        AlignedBuf { memory, start, len }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
