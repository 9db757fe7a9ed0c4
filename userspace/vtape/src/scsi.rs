// SPDX-License-Identifier: GPL-2.0-or-later
//! The words of SCSI that a tape drive speaks: command blocks, status, sense.
//!
//! Nothing here knows what a tape is. Facts are from SPC-4 and SSC-4 (INCITS 513, 516).

pub mod cdb;
pub mod opcode;
pub mod sense;

pub use cdb::Cdb;
pub use sense::{Asc, Field, Key, Sense};

/// How a command ended (SAM-5, 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done as asked.
    Good = 0x00,
    /// Look at the sense data: an error, or news that is not one.
    CheckCondition = 0x02,
    /// Not now; ask again.
    Busy = 0x08,
    /// Another initiator holds the drive.
    ReservationConflict = 0x18,
}
