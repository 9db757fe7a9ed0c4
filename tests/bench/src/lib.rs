// SPDX-License-Identifier: GPL-2.0-or-later
//! What an operation costs through reelfs, compared with the lower filesystem and with overlayfs.
//!
//! Two programs share this crate: `reelfs-bench` does an operation many times in a directory and says what it cost,
//! inside the test machine; `reelfs-bench-report` makes tables and a plot of many such answers, on the host.
//!
//! Costs are processor time. On a machine whose clock counts instructions (`qemu -icount`), processor time *is* the
//! number of instructions, times a constant, and the same run gives the same answer; on other machines the numbers
//! are ordinary times and only as good as the machine is quiet.

pub mod cost;
pub mod op;
pub mod plot;
pub mod sample;
pub mod summary;
pub mod table;
