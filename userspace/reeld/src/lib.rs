// SPDX-License-Identifier: GPL-2.0-or-later

//! The daemon of reelfs.
//!
//! Threads, and what each may wait for:
//!
//! | thread | does | waits for |
//! |---|---|---|
//! | capture | ring to spool, acknowledge ([`capture`]) | the ring, the spool's disk |
//! | keeper | makes and removes segments ([`keeper`]) | the spool's disk |
//! | streamer | spool to media ([`streamer`]) | the spool's disk, drives, operators |
//! | checkpoint | has the tree told by the kernel ([`checkpoint`]) | the ring, the spool, the lower filesystem |
//! | control | answers `reel status` and `reel checkpoint` ([`control`]) | its client, for a bounded time |
//! | log | prints messages ([`logger`]) | whoever reads them |
//! | main | attaches, starts, stops ([`daemon`]) | all but the capture thread's disk |
//!
//! Locks: [`status::Status::shared`] and the list in [`capture::Prepared`], both held for a few instructions, never
//! during I/O and never together.

pub mod capture;
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod control;
pub mod daemon;
pub mod keeper;
pub mod keyring;
pub mod logger;
pub mod source;
pub mod state;
pub mod status;
pub mod streamer;
pub mod units;

/// The points at which a daemon built with the feature `failpoints` can be made to stop, in the order in which a record
/// passes them. `FAILPOINTS=NAME=3*off->panic` in its environment has it die at the fourth passing of `NAME`.
pub const FAILPOINTS: &[&str] = &[
    "capture-before-write",
    "rollover-before-take",
    "rollover-after-take",
    "rollover-after-header",
    "capture-after-write",
    "capture-after-acknowledge",
    "prepare-before-rename",
    "prepare-after-rename",
    "volume-before-begin",
    "volume-after-begin",
    "stream-before-block",
    "stream-after-block",
    "stream-before-filemark",
    "stream-after-filemark",
    "state-before-rename",
    "state-after-rename",
    "keeper-before-remove",
];
