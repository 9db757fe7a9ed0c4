// SPDX-License-Identifier: GPL-2.0-or-later

//! Volumes: the log written to media, and read back from them.
//!
//! A [`Medium`] is a place that holds one volume: a tape drive ([`tape`]) or a volume file ([`directory`]). On top of
//! it, [`writer`] puts the log on a volume and [`reader`] takes it off again; [`library`] finds the volume to go on
//! with. Nothing here knows about the daemon, the kernel module or the tree that the log describes.
//! `Documentation/format/volume.md` specifies what is written.

pub mod codec;
pub mod directory;
pub mod key;
pub mod label;
pub mod library;
pub mod log;
pub mod medium;
pub mod pool;
pub mod reader;
pub mod tape;
pub mod writer;

pub use label::LabelState;
pub use log::{Checkpoint, LogState};
pub use medium::{Medium, MediumError, Position, Read, Written};
