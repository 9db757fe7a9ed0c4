// SPDX-License-Identifier: GPL-2.0-or-later

//! The spool: the log on the spool disk, as `Documentation/format/spool.md` specifies it.
//!
//! - [`Spool`] is the directory: its stream, its segment size, its lock.
//! - [`recover`](Spool::recover) finds the end of the log after any interruption and tells a torn tail from damage.
//! - [`Writer`] appends batches of records and returns when they are on stable storage.
//! - [`Reader`] gives records back by LSN, every checksum looked at again.
//!
//! Nothing here knows `/dev/reelfs` or media, and nothing logs: what happened is returned.
//!
//! Order of locks: there are none but the lock on the directory, held from [`Spool::open`] on.

mod buffer;
mod directory;
mod error;
mod floor;
mod prepare;
mod reader;
mod recovery;
mod segment;
mod writer;

pub use buffer::AlignedBuf;
pub use directory::{Segment, Spool, SpoolMeta, META_NAME};
pub use error::SpoolError;
pub use floor::FloorFile;
pub use reader::{Reader, Records};
pub use recovery::{Note, Recovered};
pub use segment::{file_name, parse_file_name, Geometry};
pub use writer::{SegmentSource, Writer};
