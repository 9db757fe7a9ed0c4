// SPDX-License-Identifier: GPL-2.0-or-later

//! The formats of reelfs for user space.
//!
//! The files behind these modules are the kernel module's own (`rust/format/`); nothing is defined twice.

pub mod build;

#[path = "../../../rust/format/mark.rs"]
pub mod mark;
#[path = "../../../rust/format/record.rs"]
pub mod record;
#[path = "../../../rust/format/spool.rs"]
pub mod spool;
#[path = "../../../rust/format/uapi.rs"]
pub mod uapi;
#[path = "../../../rust/format/view.rs"]
pub mod view;
#[path = "../../../rust/format/volume.rs"]
pub mod volume;

/// CRC32C (Castagnoli; RFC 3720, appendix B.4) of `bytes` appended to bytes whose checksum is `crc`; 0 to begin with.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}
