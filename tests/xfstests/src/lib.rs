// SPDX-License-Identifier: GPL-2.0-or-later
//! xfstests, as somebody built it, on three subjects: a filesystem, overlayfs over it, and reelfs over it.
//!
//! The tests are not changed. [`guest`] runs in the test machine: it makes the disks ready, runs `check` with one test at a
//! time, and has the oracle judge what reelfs recorded. [`host`] boots the machines, keeps what they report, and goes on
//! where an interrupted run was. What is common to both is in [`journal`]; [`expected`] and [`summary`] judge the results
//! together and know nothing of machines.

pub mod expected;
pub mod guest;
pub mod host;
pub mod journal;
pub mod select;
pub mod summary;
