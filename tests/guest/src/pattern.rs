// SPDX-License-Identifier: GPL-2.0-or-later

//! Bytes to write: they look random, and are the same each time.

/// `length` bytes that depend on the seed.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// `bytes` at an address that direct I/O accepts, in memory that belongs to the caller.
pub fn aligned<'m>(memory: &'m mut Vec<u8>, bytes: &[u8]) -> &'m [u8] {
    const ALIGN: usize = 4096;
    memory.clear();
    memory.resize(bytes.len() + ALIGN, 0);
    let skip = memory.as_ptr().align_offset(ALIGN);
    let place = &mut memory[skip..skip + bytes.len()];
    place.copy_from_slice(bytes);
    place
}

/// A small generator of numbers that look random (xorshift64*).
pub struct Random(u64);

impl Random {
    /// The generator with this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit.max(1)
    }
}
