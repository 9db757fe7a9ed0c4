// SPDX-License-Identifier: GPL-2.0-or-later
//! From the bytes of an image to the list of its objects.
//!
//! Records are followed one by one. Where one is not sound, it matters on which side of the
//! header's `end` it lies: before it, something that was safe has been damaged, and the scan
//! goes on at the next sound record; after it, a crash interrupted a write that nobody was
//! promised, and the tape ends there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::medium::{Index, RECORD_OVERHEAD};

use super::format::{Header, Record, BLOCK, DATA_START, FILEMARK, RECORD_MAGIC};
use super::ImageError;

/// Bytes read at a time.
const WINDOW: usize = 1 << 20;
/// Objects that damage may swallow before the image is refused: each costs memory.
const MAX_LOST: u64 = 1 << 24;

/// What a scan found.
pub(super) struct Scan {
    pub(super) index: Index,
    /// Filemarks counted, lost ones included.
    pub(super) filemarks: u64,
    /// Objects that are beyond telling.
    pub(super) lost: u64,
    /// Bytes after the end of data: the remains of an interrupted write.
    pub(super) tail: u64,
}

/// A file read through one window, mostly forwards.
struct Window<'f> {
    file: &'f File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'f> Window<'f> {
    fn new(file: &'f File) -> io::Result<Self> {
        Ok(Self { file, length: file.metadata()?.len(), start: 0, bytes: Vec::new() })
    }

    /// The bytes from `offset` on: at least `want` of them unless the file ends.
    fn at(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        let end = (offset + want as u64).min(self.length);
        let have = self.start..self.start + self.bytes.len() as u64;
        if offset < have.start || end > have.end {
            // Headers of large blocks lie far apart: read no more than was asked for then.
            let near = offset >= have.start && offset <= have.end + WINDOW as u64 / 16;
            let size = if near { want.max(WINDOW) } else { want.max(4096) } as u64;
            let size = size.min(self.length.saturating_sub(offset)) as usize;
            self.bytes.resize(size, 0);
            self.file.read_exact_at(&mut self.bytes, offset)?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..).unwrap_or_default())
    }
}

struct Scanner<'f> {
    window: Window<'f>,
    header: &'f Header,
    scan: Scan,
    offset: u64,
}

/// Lists the objects of the image `file` with this `header`.
///
/// # Errors
///
/// `Io`; `Geometry` when more is missing than can be accounted for.
pub(super) fn scan(file: &File, header: &Header) -> Result<Scan, ImageError> {
    let scan = Scan { index: Index::default(), filemarks: 0, lost: 0, tail: 0 };
    let window = Window::new(file)?;
    let mut scanner = Scanner { window, header, scan, offset: DATA_START };
    scanner.run()?;
    Ok(scanner.scan)
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), ImageError> {
        loop {
            if let Some(record) = self.record_at(self.offset)? {
                let expected =
                    record.number.get() == self.scan.index.objects() && record.filemarks.get() == self.scan.filemarks;
                if expected && self.whole(self.offset, &record)? {
                    self.accept(&record);
                    continue;
                }
            }
            if self.offset >= self.header.end.get() {
                self.scan.tail = self.window.length.saturating_sub(self.offset);
                return Ok(());
            }
            self.skip_damage()?;
        }
    }

    fn record_at(&mut self, offset: u64) -> Result<Option<Record>, ImageError> {
        let bytes = self.window.at(offset, size_of::<Record>())?;
        Ok(Record::parse(bytes, &self.header.uuid, offset))
    }

    /// Whether the record's data is there. Behind the header's `end` only intact data counts:
    /// the record may have reached the disk before its data did.
    fn whole(&mut self, offset: u64, record: &Record) -> Result<bool, ImageError> {
        let length = record.length.get() as usize;
        let end = offset + record.extent();
        if end <= self.header.end.get() {
            return Ok(end <= self.window.length);
        }
        // The padding of the last record may be missing; nothing is lost by that.
        let data = offset + RECORD_OVERHEAD;
        if data + length as u64 > self.window.length {
            return Ok(false);
        }
        let bytes = self.window.at(data, length)?;
        Ok(bytes.get(..length).is_some_and(|data| crc32c::crc32c(data) == record.data_checksum.get()))
    }

    fn accept(&mut self, record: &Record) {
        match record.kind {
            BLOCK => self.scan.index.push_block(record.length.get()),
            _ => {
                self.scan.index.push_filemark();
                self.scan.filemarks += 1;
            }
        }
        self.offset += record.extent();
    }

    /// Goes to the next sound record, or to the `end` when there is none, and accounts for the
    /// objects that must have been between.
    fn skip_damage(&mut self) -> Result<(), ImageError> {
        let next = self.next_sound()?;
        let (to, number, filemarks) = match next {
            Some((offset, record)) => (offset, record.number.get(), record.filemarks.get()),
            None => {
                let header = self.header;
                (header.end.get(), header.objects.get(), header.filemarks.get())
            }
        };
        let size = to - self.offset;
        let contradiction = ImageError::Geometry("the records do not add up");
        let Some(lost @ 1..) = number.checked_sub(self.scan.index.objects()) else {
            return Err(contradiction);
        };
        let Some(filemarks_lost) = filemarks.checked_sub(self.scan.filemarks) else {
            return Err(contradiction);
        };
        if lost > size / RECORD_OVERHEAD || filemarks_lost > lost || lost > MAX_LOST {
            return Err(contradiction);
        }
        // In which order they came is not known: the filemarks are put last, so that what
        // follows has the right file number and reading stops at the damage first.
        let blocks = lost - filemarks_lost;
        let filemark_bytes = filemarks_lost * RECORD_OVERHEAD;
        let mut left = size - filemark_bytes;
        if blocks == 0 && left > 0 {
            return Err(contradiction);
        }
        for _ in 0..blocks {
            self.scan.index.push_damaged(left);
            left = 0;
        }
        (0..filemarks_lost).for_each(|_| self.scan.index.push_filemark());
        self.scan.filemarks = filemarks;
        self.scan.lost += lost;
        self.offset = to;
        Ok(())
    }

    fn next_sound(&mut self) -> Result<Option<(u64, Record)>, ImageError> {
        let mut offset = self.offset + 8;
        while offset < self.header.end.get().min(self.window.length) {
            let bytes = self.window.at(offset, size_of::<Record>())?;
            // Look for the magic in the whole window before asking for more.
            let found = bytes.chunks(8).position(|chunk| chunk.starts_with(&RECORD_MAGIC));
            let Some(found) = found else {
                offset += (bytes.len() as u64).next_multiple_of(8).max(8);
                continue;
            };
            offset += found as u64 * 8;
            if let Some(record) = self.record_at(offset)? {
                let follows =
                    record.number.get() > self.scan.index.objects() && record.filemarks.get() >= self.scan.filemarks;
                if follows && [BLOCK, FILEMARK].contains(&record.kind) {
                    return Ok(Some((offset, record)));
                }
            }
            offset += 8;
        }
        Ok(None)
    }
}
