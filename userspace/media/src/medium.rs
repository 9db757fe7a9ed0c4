// SPDX-License-Identifier: GPL-2.0-or-later

//! What every place that holds a volume can do.
//!
//! The trait is narrow on purpose and follows the tape, the most restricted of media: one position, whole blocks,
//! appending at the end of the data only, three different kinds of end. Media with more abilities pretend.

use std::io;

use reelfs_format::volume::Label;

use crate::label::LabelState;

/// A place on a medium, as the medium counts: 0 is the label. Only good for going back to where one has been; on a
/// tape filemarks count, in a volume file they do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// What was found where a block was to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A block; the buffer holds it.
    Block,
    /// A filemark; the position is behind it.
    Filemark,
    /// Nothing was ever written behind this position.
    EndOfData,
    /// The medium itself ends here.
    EndOfMedium,
}

/// What became of a block that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The medium took it. Only [`Medium::write_filemark`] proves that it is stored.
    Taken,
    /// Nothing was written, because the medium is nearly full: a few more blocks will be taken when they are offered.
    EarlyWarning,
    /// Nothing was written and nothing more will be.
    Full,
}

/// Why a medium did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// There is no volume in the drive, or the volume file is not there.
    #[error("{medium}: no volume is loaded")]
    NoVolume {
        /// The medium.
        medium: String,
    },
    /// The volume cannot be written: the tab of the cartridge, the mode of the file, or how it was opened.
    #[error("{medium}: the volume is write-protected")]
    WriteProtected {
        /// The medium.
        medium: String,
    },
    /// Somebody else uses the drive or the volume file.
    #[error("{medium}: in use by another program")]
    Busy {
        /// The medium.
        medium: String,
    },
    /// The drive was reset or the volume changed; the position is not known until the label has been read again.
    #[error("{medium}: the drive was reset or the volume was changed; its position is no longer known")]
    PositionLost {
        /// The medium.
        medium: String,
    },
    /// The block at this position cannot be read, or is longer than any block of this volume.
    #[error("{medium}: the block at position {position} cannot be read: {source}")]
    Unreadable {
        /// The medium.
        medium: String,
        /// Where the block lies.
        position: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that the system refused.
    #[error("{medium}: {doing} failed: {source}")]
    Io {
        /// The medium.
        medium: String,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A place that holds one volume.
///
/// Calls are synchronous and may take as long as the medium does: a tape rewinds in minutes. Nothing is repeated
/// behind the caller's back. After any error the position is to be taken as unknown: read the label, then seek.
pub trait Medium: Send {
    /// How messages call it: the device, or the path of the volume file.
    fn describe(&self) -> String;

    /// Whether a volume is loaded. Never waits for one.
    fn loaded(&mut self) -> Result<bool, MediumError>;

    /// Goes to the beginning and reads the label. Leaves the position behind the label and its filemark.
    /// From then on blocks are as long as the label says.
    fn read_label(&mut self) -> Result<LabelState, MediumError>;

    /// Goes to the beginning and writes the label and a filemark; whatever the volume held is lost. Stored when it
    /// returns. Whether it may be done is the caller's to decide: see [`crate::label::write`].
    fn write_label(&mut self, label: &Label) -> Result<(), MediumError>;

    /// Reads what is at the position into `block`, replacing its contents, and goes behind it.
    fn read_block(&mut self, block: &mut Vec<u8>) -> Result<Read, MediumError>;

    /// Appends a block. The position has to be the end of the data.
    fn write_block(&mut self, block: &[u8]) -> Result<Written, MediumError>;

    /// Writes a filemark and returns when everything before it is on the medium: the one proof that it is.
    fn write_filemark(&mut self) -> Result<(), MediumError>;

    /// Where the medium is, as the medium says itself.
    fn position(&mut self) -> Result<Position, MediumError>;

    /// Goes to a position.
    fn seek(&mut self, position: Position) -> Result<(), MediumError>;

    /// Goes behind the last thing that was ever written and says where that is.
    fn seek_end_of_data(&mut self) -> Result<Position, MediumError>;

    /// Takes the volume out, as far as the medium can: the drive ejects it, a volume file is closed for writing.
    /// Further calls fail with [`MediumError::NoVolume`] until another volume is loaded.
    fn unload(&mut self) -> Result<(), MediumError>;

    /// Bytes the medium will take at most, where that is known.
    fn capacity(&self) -> Option<u64> {
        None
    }
}

impl<M: Medium + ?Sized> Medium for Box<M> {
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn loaded(&mut self) -> Result<bool, MediumError> {
        (**self).loaded()
    }
    fn read_label(&mut self) -> Result<LabelState, MediumError> {
        (**self).read_label()
    }
    fn write_label(&mut self, label: &Label) -> Result<(), MediumError> {
        (**self).write_label(label)
    }
    fn read_block(&mut self, block: &mut Vec<u8>) -> Result<Read, MediumError> {
        (**self).read_block(block)
    }
    fn write_block(&mut self, block: &[u8]) -> Result<Written, MediumError> {
        (**self).write_block(block)
    }
    fn write_filemark(&mut self) -> Result<(), MediumError> {
        (**self).write_filemark()
    }
    fn position(&mut self) -> Result<Position, MediumError> {
        (**self).position()
    }
    fn seek(&mut self, position: Position) -> Result<(), MediumError> {
        (**self).seek(position)
    }
    fn seek_end_of_data(&mut self) -> Result<Position, MediumError> {
        (**self).seek_end_of_data()
    }
    fn unload(&mut self) -> Result<(), MediumError> {
        (**self).unload()
    }
    fn capacity(&self) -> Option<u64> {
        (**self).capacity()
    }
}
