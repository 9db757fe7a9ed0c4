// SPDX-License-Identifier: GPL-2.0-or-later
//! A cartridge in a file.
//!
//! The file is append-only but for its header, survives a crash of the host at any moment,
//! and can be read when parts of it are damaged. Documentation/vtape.md specifies it.
//!
//! * [`format`]: the structures.
//! * `scan`: from bytes to the list of objects.
//! * `file`: the cartridge.

mod file;
pub mod format;
mod scan;

pub use file::{Access, Blank, Image};

use std::io;

/// Why a file cannot be used as an image. Each variant is one broken rule.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Neither header begins with the magic number.
    #[error("this is not a tape image; make one with 'vtape create'")]
    NotAnImage,
    /// A header has the magic number, and neither has a sound checksum.
    #[error("both headers are damaged; restore the first 8192 bytes from a copy of the image")]
    HeaderDamaged,
    /// Written by another version.
    #[error("the image has format version {0}, and this program reads version 1; use a newer vtape")]
    Version(u32),
    /// A feature that this program would misread.
    #[error("the image uses features {0:#x} that this program does not know; use a newer vtape")]
    Features(u32),
    /// The header's numbers contradict each other or the file.
    #[error("the header contradicts the file ({0}); restore the image from a copy")]
    Geometry(&'static str),
    /// Another process has it.
    #[error("the image is in use by another process; eject it there first")]
    InUse,
    /// The parameters of a new image make no sense.
    #[error("{0}")]
    Parameters(&'static str),
}
