// SPDX-License-Identifier: GPL-2.0

//! What the log needs to know of the kernel and of its caller, and the kernel crate does not say.

use kernel::bindings;
use kernel::ffi;

extern "C" {
    fn rring_crc32c(crc: u32, bytes: *const ffi::c_void, length: usize) -> u32;
    fn rring_fsuid() -> u32;
}

/// The kernel's `crc32c()`, without inversions.
///
/// C header: [`include/linux/crc32.h`](srctree/include/linux/crc32.h)
pub(crate) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    // SAFETY: The pointer and the length are those of a slice.
    unsafe { rring_crc32c(crc, bytes.as_ptr().cast(), bytes.len()) }
}

/// `current_fsuid()` in the initial user namespace: the owner that the calling task's new files get.
pub(super) fn current_fsuid() -> u32 {
    // SAFETY: There is always a current task, and it has credentials.
    unsafe { rring_fsuid() }
}

/// Wall-clock time in nanoseconds since 1970-01-01 UTC.
pub(super) fn real_time() -> i64 {
    // SAFETY: Always safe outside of an NMI.
    unsafe { bindings::ktime_get_real() }
}
