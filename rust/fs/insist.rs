// SPDX-License-Identifier: GPL-2.0

//! What has been done below has to be recorded, and must not fail for want of a little memory.

use kernel::{
    prelude::*,
    time::{delay::fsleep, Delta},
};

/// How often it is tried. Memory that is not there after all that will not be.
const TRIES: u32 = 50;
/// Between two tries, in milliseconds.
const PAUSE: i64 = 20;

/// Does something that may fail for lack of memory, and then again: it has to be such that it can be. Sleeps.
///
/// For what cannot be prepared before the change that it follows; everything else takes its memory before.
pub(super) fn insist<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(ENOMEM) => fsleep(Delta::from_millis(PAUSE)),
            other => return other,
        }
    }
    attempt()
}
