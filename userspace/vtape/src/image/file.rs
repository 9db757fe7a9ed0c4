// SPDX-License-Identifier: GPL-2.0-or-later
//! A cartridge in a file: the [`Medium`] that outlives the process.
//!
//! Order of writing. A record's data is written before its header, so that a header that can
//! be read was preceded by its data in all but a crash; `synchronize` brings both to stable
//! storage and only then notes the new end in the file's header, which may lag. Before
//! anything is written over, the noted end is lowered and the file cut, both on stable
//! storage, so that old records can never follow new ones.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use zerocopy::{FromZeros, IntoBytes};

use crate::medium::{Cartridge, Index, Medium, Object, ReadError, RECORD_OVERHEAD};

use super::format::{Header, Record, BLOCK, DATA_START, FILEMARK, HEADERS, MAGIC, PROTECTED, VERSION, WORM};
use super::scan::scan;
use super::ImageError;

/// What an image is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looking at it, as many at a time as want to.
    Read,
    /// A drive, or surgery: alone.
    Write,
}

/// A cartridge to be made.
#[derive(Clone, Debug)]
pub struct Blank {
    /// Bytes of records that fit.
    pub capacity: u64,
    /// Bytes before the capacity from which writes are told of the end.
    pub early_warning: u64,
    /// Write once.
    pub worm: bool,
    /// The sticker: at most 32 printable ASCII characters.
    pub barcode: String,
}

/// A cartridge in a file.
pub struct Image {
    file: File,
    path: PathBuf,
    header: Header,
    cartridge: Cartridge,
    index: Index,
    /// Objects known to be on stable storage.
    synchronized: u64,
    /// Objects that damage swallowed.
    lost: u64,
    /// Bytes after the end of data that have to go before anything is appended.
    tail: u64,
    writable: bool,
}

/// Smallest capacity: below it nothing useful fits.
const MIN_CAPACITY: u64 = 64 << 10;
const MAX_CAPACITY: u64 = i64::MAX as u64 / 4;

impl Blank {
    /// Makes the image file `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// `Parameters` for a cartridge that cannot be; `Io`, `AlreadyExists` among them.
    pub fn create(&self, path: &Path) -> Result<(), ImageError> {
        if !(MIN_CAPACITY..=MAX_CAPACITY).contains(&self.capacity) {
            return Err(ImageError::Parameters("the capacity must be between 64K and 2E"));
        }
        if self.early_warning >= self.capacity {
            return Err(ImageError::Parameters(
                "early warning must begin before the tape ends; give less than the capacity",
            ));
        }
        let mut barcode = [0; 32];
        let text = self.barcode.as_bytes();
        if text.len() > barcode.len() || !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(ImageError::Parameters("a barcode has at most 32 printable ASCII characters"));
        }
        barcode[..text.len()].copy_from_slice(text);

        let mut header = Header::new_zeroed();
        header.magic = MAGIC;
        header.version = VERSION.into();
        header.size = (size_of::<Header>() as u32).into();
        header.uuid = *uuid::Uuid::new_v4().as_bytes();
        header.generation = 1.into();
        header.capacity = self.capacity.into();
        header.early_warning = self.early_warning.into();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        header.created = now.as_secs().into();
        header.end = DATA_START.into();
        header.flags = (if self.worm { WORM } else { 0 }).into();
        header.barcode = barcode;
        let header = header.sealed();

        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let written = file
            .set_len(DATA_START)
            .and_then(|()| file.write_all_at(header.as_bytes(), HEADERS[0]))
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory_of(path));
        if written.is_err() {
            // Half an image helps nobody, and the name is wanted for the next attempt.
            let _ = std::fs::remove_file(path);
        }
        Ok(written?)
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn read_header(file: &File) -> Result<Header, ImageError> {
    let mut best: Option<Header> = None;
    let mut complaint = ImageError::NotAnImage;
    for offset in HEADERS {
        let mut bytes = [0; size_of::<Header>()];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error.into()),
        }
        match Header::parse(&bytes) {
            Ok(header) => {
                let newer = |best: &Header| header.generation.get() > best.generation.get();
                if best.as_ref().is_none_or(newer) {
                    best = Some(header);
                }
            }
            // The copy that says most about what is wrong is the one to complain of.
            Err(ImageError::NotAnImage) => {}
            Err(error) => complaint = error,
        }
    }
    best.ok_or(complaint)
}

impl Image {
    /// Opens the image `path` and lists what is on it: one short read for each large block.
    ///
    /// An image that the host lets nobody write is opened as write-protected.
    ///
    /// # Errors
    ///
    /// See [`ImageError`].
    pub fn open(path: &Path, access: Access) -> Result<Self, ImageError> {
        let open = |write| OpenOptions::new().read(true).write(write).open(path);
        let (file, writable) = match access {
            Access::Read => (open(false)?, false),
            Access::Write => match open(true) {
                Ok(file) => (file, true),
                Err(error) if refuses_writing(&error) => (open(false)?, false),
                Err(error) => return Err(error.into()),
            },
        };
        let lock = match access {
            Access::Read => FlockOperation::NonBlockingLockShared,
            Access::Write => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(&file, lock) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ImageError::InUse),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let header = read_header(&file)?;
        let found = scan(&file, &header)?;
        let flags = header.flags.get();
        let cartridge = Cartridge {
            serial: uuid::Uuid::from_bytes(header.uuid).simple().to_string(),
            barcode: header.barcode_text(),
            capacity: header.capacity.get(),
            early_warning: header.early_warning.get(),
            worm: flags & WORM != 0,
            protected: flags & PROTECTED != 0 || (access == Access::Write && !writable),
            loads: header.loads.get(),
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            synchronized: found.index.objects().min(header.objects.get()),
            index: found.index,
            lost: found.lost,
            tail: found.tail,
            header,
            cartridge,
            writable,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When the image was made, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.header.created.get()
    }

    /// Objects whose records are damaged beyond telling what they were.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes after the end of data, left by an interrupted write.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Counts a loading into a drive.
    ///
    /// # Errors
    ///
    /// Those of the host's storage.
    pub fn count_load(&mut self) -> io::Result<()> {
        self.cartridge.loads += 1;
        if self.writable {
            self.header.loads = self.cartridge.loads.into();
            self.write_header()?;
        }
        Ok(())
    }

    /// File offset of object `number`, or of the end of data.
    pub fn offset(&self, number: u64) -> u64 {
        DATA_START + self.index.used(number)
    }

    /// Changes byte `at` of block `number` (all its bits), as damage would.
    ///
    /// With `silent`, the record's checksum is made to fit, so that the drive delivers the
    /// changed byte without noticing; without, reading the block is a medium error.
    ///
    /// # Errors
    ///
    /// `Parameters` when there is no such byte; `Io`.
    pub fn flip(&mut self, number: u64, at: u32, silent: bool) -> Result<(), ImageError> {
        let Some(Object::Block(length)) = self.index.object(number) else {
            return Err(ImageError::Parameters("there is no block with that number"));
        };
        if at >= length {
            return Err(ImageError::Parameters("the block is not that long"));
        }
        if !self.writable {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
        }
        let offset = self.offset(number);
        let mut data = vec![0; length as usize];
        self.file.read_exact_at(&mut data, offset + RECORD_OVERHEAD)?;
        data[at as usize] ^= 0xff;
        let byte = &data[at as usize..][..1];
        self.file.write_all_at(byte, offset + RECORD_OVERHEAD + u64::from(at))?;
        if silent {
            let filemarks = self.index.filemarks_before(number);
            let record = Record::new(&self.header.uuid, offset, BLOCK, number, filemarks, &data);
            self.file.write_all_at(record.as_bytes(), offset)?;
        }
        Ok(self.file.sync_all()?)
    }

    fn write_header(&mut self) -> io::Result<()> {
        let generation = self.header.generation.get() + 1;
        self.header.generation = generation.into();
        let sealed = self.header.clone().sealed();
        self.file.write_all_at(sealed.as_bytes(), HEADERS[(generation % 2) as usize])
    }

    /// Notes in the header that everything up to object `objects` is safe.
    fn note_end(&mut self, objects: u64) -> io::Result<()> {
        self.header.end = self.offset(objects).into();
        self.header.objects = objects.into();
        self.header.filemarks = self.index.filemarks_before(objects).into();
        self.write_header()
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    /// Takes away what an interrupted write left, once, before the first append.
    fn drop_tail(&mut self) -> io::Result<()> {
        self.check_writable()?;
        if self.tail > 0 {
            self.file.set_len(self.offset(self.index.objects()))?;
            self.file.sync_data()?;
            self.tail = 0;
        }
        Ok(())
    }

    fn append(&mut self, kind: u8, data: &[u8]) -> io::Result<()> {
        self.drop_tail()?;
        let number = self.index.objects();
        let offset = self.offset(number);
        let filemarks = self.index.filemarks_before(number);
        let record = Record::new(&self.header.uuid, offset, kind, number, filemarks, data);
        if !data.is_empty() {
            let data_offset = offset + RECORD_OVERHEAD;
            self.file.write_all_at(data, data_offset)?;
            let padding = data.len().next_multiple_of(8) - data.len();
            if padding > 0 {
                self.file.write_all_at(&[0; 8][..padding], data_offset + data.len() as u64)?;
            }
        }
        self.file.write_all_at(record.as_bytes(), offset)
    }
}

fn refuses_writing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

impl Medium for Image {
    fn cartridge(&self) -> &Cartridge {
        &self.cartridge
    }

    fn objects(&self) -> u64 {
        self.index.objects()
    }

    fn object(&self, number: u64) -> Option<Object> {
        self.index.object(number)
    }

    fn used(&self, number: u64) -> u64 {
        self.index.used(number)
    }

    fn filemarks_before(&self, number: u64) -> u64 {
        self.index.filemarks_before(number)
    }

    fn filemark(&self, nth: u64) -> Option<u64> {
        self.index.filemark(nth)
    }

    fn read(&mut self, number: u64, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let Some(Object::Block(length)) = self.index.object(number) else {
            return Err(ReadError::Corrupt);
        };
        let offset = self.offset(number);
        let mut header = [0; size_of::<Record>()];
        self.file.read_exact_at(&mut header, offset).map_err(ReadError::Io)?;
        let record = Record::parse(&header, &self.header.uuid, offset)
            .filter(|record| record.number.get() == number && record.length.get() == length)
            .ok_or(ReadError::Corrupt)?;
        let kept = out.len();
        out.resize(kept + length as usize, 0);
        let data = &mut out[kept..];
        let result = match self.file.read_exact_at(data, offset + RECORD_OVERHEAD) {
            Ok(()) if crc32c::crc32c(data) == record.data_checksum.get() => return Ok(()),
            Ok(()) => ReadError::Corrupt,
            Err(error) => ReadError::Io(error),
        };
        out.truncate(kept);
        Err(result)
    }

    fn truncate(&mut self, objects: u64) -> io::Result<()> {
        self.check_writable()?;
        if objects >= self.index.objects() {
            return Ok(());
        }
        if self.header.objects.get() > objects {
            self.note_end(objects)?;
            self.file.sync_data()?;
        }
        self.file.set_len(self.offset(objects))?;
        self.file.sync_data()?;
        self.index.truncate(objects);
        self.tail = 0;
        self.synchronized = self.synchronized.min(objects);
        Ok(())
    }

    fn append_block(&mut self, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.append(BLOCK, data)?;
        self.index.push_block(length);
        Ok(())
    }

    fn append_filemark(&mut self) -> io::Result<()> {
        self.append(FILEMARK, &[])?;
        self.index.push_filemark();
        Ok(())
    }

    fn synchronize(&mut self) -> io::Result<()> {
        let objects = self.index.objects();
        if self.synchronized == objects {
            return Ok(());
        }
        self.file.sync_data()?;
        self.synchronized = objects;
        // Safe whatever becomes of the note: without it the scan finds the records itself.
        self.note_end(objects)
    }

    fn synchronized(&self) -> u64 {
        self.synchronized
    }

    fn set_protected(&mut self, protected: bool) -> io::Result<()> {
        self.check_writable()?;
        let flags = self.header.flags.get();
        let flags = if protected { flags | PROTECTED } else { flags & !PROTECTED };
        self.header.flags = flags.into();
        self.write_header()?;
        self.file.sync_data()?;
        self.cartridge.protected = protected;
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.writable {
            // A last chance only: whoever needs to know calls `synchronize` first.
            let _ = self.synchronize().and_then(|()| self.file.sync_all());
        }
    }
}

#[cfg(test)]
mod tests;
