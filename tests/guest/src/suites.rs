// SPDX-License-Identifier: GPL-2.0-or-later
//! The suites, in the order in which they run by default.

mod checkpoint;
mod compare;
mod degrade;
pub mod device;
mod durable;
mod faults;
mod kill;
mod media;
mod mmap;
pub mod ops;
mod ring;
mod smoke;
mod stress;
mod system;
mod third_party;
mod trouble;
mod volumes;
mod vtape;

use crate::Suite;

/// All of them.
pub const ALL: &[Suite] = &[
    smoke::SUITE,
    compare::SUITE,
    vtape::SUITE,
    volumes::SUITE,
    device::SUITE,
    ops::EXT4,
    ops::XFS,
    ops::BTRFS,
    ops::TMPFS,
    mmap::EXT4,
    mmap::XFS,
    mmap::BTRFS,
    mmap::TMPFS,
    mmap::LOG,
    durable::SUITE,
    ring::SUITE,
    degrade::EXT4,
    degrade::XFS,
    system::EXT4,
    system::XFS,
    checkpoint::EXT4,
    checkpoint::XFS,
    checkpoint::BTRFS,
    checkpoint::TMPFS,
    media::SUITE,
    trouble::SUITE,
    faults::SUITE,
    stress::EXT4,
    stress::XFS,
    stress::BTRFS,
    kill::RANDOM,
    kill::FAILPOINTS,
    third_party::POSIX_EXT4,
    third_party::POSIX_XFS,
    third_party::WORK_EXT4,
    third_party::WORK_XFS,
];
