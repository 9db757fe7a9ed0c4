// SPDX-License-Identifier: GPL-2.0-or-later
//! The suites, in the order in which they run by default.

pub mod device;
mod durable;
mod kill;
mod media;
mod ring;
pub mod ops;
mod smoke;
mod vtape;

use crate::Suite;

/// All of them.
pub const ALL: &[Suite] = &[smoke::SUITE, vtape::SUITE, device::SUITE, ops::EXT4, ops::XFS, ops::BTRFS, ops::TMPFS, durable::SUITE, ring::SUITE, media::SUITE, kill::RANDOM, kill::FAILPOINTS];
