// SPDX-License-Identifier: GPL-2.0

//! The formats: what leaves the kernel. The files below are shared with user space (`userspace/format`).

#![allow(unreachable_pub)]

pub(crate) mod mark;
// User space reads what the kernel only writes.
#[allow(dead_code)]
pub(crate) mod record;
#[allow(dead_code)]
pub(crate) mod uapi;

/// CRC32C (Castagnoli; RFC 3720, appendix B.4) of `bytes` appended to bytes whose checksum is `crc`; 0 to begin with.
///
/// C header: [`include/linux/crc32.h`](srctree/include/linux/crc32.h), whose `crc32c()` leaves the inversions at both
/// ends to its caller.
pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    !crate::ring::crc32c(!crc, bytes)
}
