// SPDX-License-Identifier: GPL-2.0-or-later
//! What a drive needs of a cartridge: a list of blocks and filemarks that ends somewhere.
//!
//! A logical object is a block or a filemark; objects are numbered from zero at the beginning
//! of the tape, as READ POSITION and LOCATE number them. Only the last object can be followed
//! by a new one: writing in the middle begins with a truncation.

mod index;
mod memory;

use std::io;

pub use index::Index;
pub use memory::Memory;

/// One logical object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A block of this many bytes.
    Block(u32),
    /// A filemark.
    Filemark,
    /// Something was recorded here, and cannot be told any more.
    Damaged,
}

/// What a cartridge is, whatever is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cartridge {
    /// Serial number in the cartridge's memory: the image's UUID.
    pub serial: String,
    /// What the sticker says; may be empty.
    pub barcode: String,
    /// Bytes of records that fit, each with its overhead ([`block_cost`]).
    pub capacity: u64,
    /// Bytes before `capacity` from which writes are told of the end.
    pub early_warning: u64,
    /// Write once: nothing that was recorded can be written over.
    pub worm: bool,
    /// The write-protect tab is set.
    pub protected: bool,
    /// How often the cartridge was put into a drive.
    pub loads: u64,
}

/// Bytes that a record takes besides its data.
pub const RECORD_OVERHEAD: u64 = 40;

/// Bytes of `capacity` that a filemark takes.
pub const FILEMARK_COST: u64 = RECORD_OVERHEAD;

/// Bytes beyond `capacity` that only filemarks may take.
///
/// Without it a tape that was filled to the brim could not be closed by a filemark, and its
/// last block would be followed by nothing that says so.
pub const FILEMARK_RESERVE: u64 = 64 << 10;

/// Bytes of `capacity` that a block of `length` bytes takes.
pub fn block_cost(length: usize) -> u64 {
    (length as u64).next_multiple_of(8) + RECORD_OVERHEAD
}

/// Why a block could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The bytes are there and are not those that were written.
    Corrupt,
    /// The host could not read the image.
    Io(io::Error),
}

/// A cartridge in a drive.
pub trait Medium {
    /// What it is.
    fn cartridge(&self) -> &Cartridge;

    /// Number of objects recorded, which is also the number of the end of data.
    fn objects(&self) -> u64;

    /// The object with this number, or `None` from the end of data on.
    fn object(&self, number: u64) -> Option<Object>;

    /// Bytes of capacity taken by everything before object `number`.
    fn used(&self, number: u64) -> u64;

    /// Filemarks among the objects before `number`.
    fn filemarks_before(&self, number: u64) -> u64;

    /// Object number of the filemark that has `nth` filemarks before it.
    fn filemark(&self, nth: u64) -> Option<u64>;

    /// Appends the data of block `number` to `out`; nothing when it fails.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]. Asking for what is not a block is `Corrupt`.
    fn read(&mut self, number: u64, out: &mut Vec<u8>) -> Result<(), ReadError>;

    /// Drops every object from `objects` on, on stable storage before it returns.
    ///
    /// # Errors
    ///
    /// Those of the host's storage; the objects may then be there or not.
    fn truncate(&mut self, objects: u64) -> io::Result<()>;

    /// Records a block. It is safe only after [`Medium::synchronize`].
    ///
    /// # Errors
    ///
    /// Those of the host's storage; the object was not recorded.
    fn append_block(&mut self, data: &[u8]) -> io::Result<()>;

    /// Records a filemark. It is safe only after [`Medium::synchronize`].
    ///
    /// # Errors
    ///
    /// Those of the host's storage; the object was not recorded.
    fn append_filemark(&mut self) -> io::Result<()>;

    /// Puts everything recorded on stable storage.
    ///
    /// # Errors
    ///
    /// Those of the host's storage; [`Medium::synchronized`] has not moved.
    fn synchronize(&mut self) -> io::Result<()>;

    /// Number of objects known to be on stable storage.
    fn synchronized(&self) -> u64;

    /// Sets or clears the write-protect tab.
    ///
    /// # Errors
    ///
    /// Those of the host's storage; the tab is as it was.
    fn set_protected(&mut self, protected: bool) -> io::Result<()>;
}
