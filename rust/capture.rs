// SPDX-License-Identifier: GPL-2.0

//! Records as the filesystem makes them: how much room each kind takes, and how it is filled in.
//!
//! The filesystem reserves room ([`Log::reserve`], [`Log::try_reserve`]) before it touches the tree below, with a
//! `*_max` function of [`records`] for the size, and calls the function of the same name, under the locks of the
//! operation, once it knows the outcome. Those functions take the room, never sleep and never fail. Room that is
//! dropped instead is abandoned: right for an operation that had no effect.
//!
//! Nothing here decides what is recorded, or when; and nothing here waits.

#![deny(unsafe_code)]

mod payload;
mod records;
mod states;

pub(crate) use crate::ring::{
    Config, Log, Lower, Objects, Onstall, Policy, Room, Root, RING_DEFAULT, RING_MAX, RING_MIN, STALL_DEFAULT,
};
pub(crate) use payload::XattrBuffer;
pub(crate) use records::{
    attributes, create, create_max, fallocate, link, name_max, object_gone, remove_xattr, rename, rename_max,
    set_xattr, unlink, write, xattr_max, Born, Change, Entry, Outcome, Renamed,
};
pub(crate) use states::{object_data, object_state, object_state_max, Entries, Piece};
