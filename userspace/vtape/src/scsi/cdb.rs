// SPDX-License-Identifier: GPL-2.0-or-later
//! A command descriptor block whose length has been checked once.

use super::{Asc, Sense};

/// A command block of the length its operation code demands.
///
/// # Invariants
///
/// The slice is as long as [`length_of`] says for its first byte, so the fields that the
/// standard defines for that operation are always inside.
#[derive(Clone, Copy, Debug)]
pub struct Cdb<'a>(&'a [u8]);

/// Length in bytes of a command block that starts with `opcode` (SPC-4, 4.2.5.1).
///
/// Vendor-specific groups count as ten bytes, as Linux takes them; the variable-length group
/// is not something a tape drive is sent, and counts as sixteen.
pub fn length_of(opcode: u8) -> usize {
    match opcode >> 5 {
        0 => 6,
        1 | 2 | 6 | 7 => 10,
        5 => 12,
        _ => 16,
    }
}

impl<'a> Cdb<'a> {
    /// Takes the command out of `bytes`, which may be longer.
    ///
    /// # Errors
    ///
    /// ILLEGAL REQUEST when `bytes` ends before the command does.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Sense> {
        let opcode = *bytes.first().ok_or(Sense::illegal(Asc::INVALID_FIELD_IN_CDB))?;
        match bytes.get(..length_of(opcode)) {
            Some(cdb) => Ok(Self(cdb)),
            None => Err(Sense::illegal(Asc::INVALID_FIELD_IN_CDB)),
        }
    }

    /// The operation code.
    pub fn opcode(self) -> u8 {
        self.byte(0)
    }

    /// Byte `at`, or zero beyond the end, which the standard calls reserved.
    pub fn byte(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Bit `bit` of byte `at`.
    pub fn bit(self, at: usize, bit: u8) -> bool {
        self.byte(at) & (1 << bit) != 0
    }

    /// The big-endian number in bytes `at..at + width`.
    fn number(self, at: usize, width: usize) -> u64 {
        (at..at + width).fold(0, |n, i| (n << 8) | u64::from(self.byte(i)))
    }

    /// A big-endian 16-bit number.
    pub fn be16(self, at: usize) -> usize {
        self.number(at, 2) as usize
    }

    /// A big-endian 24-bit number.
    pub fn be24(self, at: usize) -> u32 {
        self.number(at, 3) as u32
    }

    /// A big-endian 24-bit number in two's complement.
    pub fn signed24(self, at: usize) -> i64 {
        i64::from((self.be24(at) << 8) as i32 >> 8)
    }

    /// A big-endian 32-bit number.
    pub fn be32(self, at: usize) -> u32 {
        self.number(at, 4) as u32
    }

    /// A big-endian 64-bit number.
    pub fn be64(self, at: usize) -> u64 {
        self.number(at, 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_big_endian_and_sign_extended() {
        let cdb = Cdb::new(&[0x11, 1, 0xff, 0xff, 0xfe, 0]).expect("six bytes");
        assert_eq!(cdb.signed24(2), -2);
        assert_eq!(cdb.be24(2), 0xff_fffe);
        assert_eq!(cdb.byte(99), 0);
    }

    #[test]
    fn a_short_command_is_refused() {
        for length in 0..10 {
            let bytes = [0x34; 10];
            assert_eq!(Cdb::new(&bytes[..length]).is_ok(), length >= 10);
        }
    }
}
