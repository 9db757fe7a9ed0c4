// SPDX-License-Identifier: GPL-2.0

//! The log of a mount, from the operation that makes a record to the consumer that has it on stable storage.
//!
//! - [`book`] is the arithmetic: room, LSNs, acknowledgement;
//! - [`memory`] is the memory, and where the `unsafe` is, besides the registry's lock and two calls into C in [`sys`];
//! - [`log`] ties them together: taking room, committing, the end;
//! - [`wait`] is waiting for it, and for how long;
//! - [`attach`] is the consumer's side: attaching, acknowledging, detaching, and what becomes of a log without a mount;
//! - [`room`] is what a writer holds in between;
//! - [`checkpoint`] is what the consumer has put into it besides, and from where;
//! - [`gap`] is what happens instead where the mount goes on without its log;
//! - [`shares`] counts who has how much of the ring;
//! - [`registry`] knows all logs.
//!
//! Nothing here knows what a filesystem is, except through [`Lower`] and [`Objects`].
//!
//! # Lock order
//!
//! 1. locks of the VFS, above and below (inode, `s_umount`): held by callers, and taken by [`Lower`] under 2;
//! 2. `Log::control` (mutex): one attach, discard or unmount at a time;
//! 3. the registry (mutex), and `Log::pin` (mutex), never both;
//! 4. `Log::state` (spinlock): everything about one log; short, never sleeping;
//! 5. the wait queues' own locks.
//!
//! `mmap_lock` is held around `mmap` handlers, which take nothing above 4.

#[deny(unsafe_code)]
mod attach;
// Public in itself, because it is compiled for its tests elsewhere.
#[allow(unreachable_pub)]
#[deny(unsafe_code)]
mod book;
#[deny(unsafe_code)]
mod checkpoint;
#[deny(unsafe_code)]
mod gap;
#[deny(unsafe_code)]
mod log;
mod memory;
mod registry;
#[deny(unsafe_code)]
mod room;
#[allow(unreachable_pub)]
#[deny(unsafe_code)]
mod shares;
mod sys;
#[deny(unsafe_code)]
mod wait;

pub(crate) use attach::Consumer;
pub(crate) use checkpoint::Objects;
pub(crate) use log::{Config, Log, Lower, Onstall, Policy, Root, RING_DEFAULT, RING_MAX, RING_MIN, STALL_DEFAULT};
pub(crate) use registry::{find, find_from, find_mounted, init};
pub(crate) use room::Room;
pub(crate) use sys::crc32c;
