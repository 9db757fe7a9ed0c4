// SPDX-License-Identifier: GPL-2.0-or-later

//! The command `reel`: what can be done with volumes without the daemon and without the kernel module.

pub mod args;
pub mod checkpoint;
pub mod control;
pub mod dump;
pub mod estimate;
pub mod feed;
pub mod identity;
pub mod key;
pub mod label;
pub mod outcome;
pub mod progress;
pub mod replay;
pub mod restore;
pub mod select;
pub mod show;
pub mod status;
pub mod verify;
pub mod volumes;
