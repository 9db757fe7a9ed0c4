// SPDX-License-Identifier: GPL-2.0-or-later

//! Taking the log off volumes.
//!
//! A [`VolumeReader`] finds the blocks of one volume. A [`LogReader`] reads the volumes of a stream one after the
//! other and gives out the log's bytes in order; a [`RecordReader`] makes records of them. What is nowhere is named:
//! volume, block, range.

mod error;
mod log;
mod records;
mod source;
mod volume;

pub use error::{Damage, Place, ReadError};
pub use log::{Begin, LogEnd, LogReader, Note, OnGap};
pub use records::RecordReader;
pub use source::{VolumeSource, Wanted};
pub use volume::{Item, VolumeReader};
