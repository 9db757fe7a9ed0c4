// SPDX-License-Identifier: GPL-2.0-or-later

//! Records of spool segments that were copied somewhere, or that a dead machine left.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use reelfs_format::record::Lsn;
use reelfs_format::spool::{SegmentHeader, SEGMENT_HEADER_LEN, SEGMENT_MAGIC};
use reelfs_format::view::{peek_length, RecordError, RecordView};

/// The segment files among what is named, directories looked into, in the order of the log.
pub fn among(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let data = fs::metadata(path)?;
        let candidates = if data.is_dir() {
            fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?
        } else {
            vec![path.clone()]
        };
        for candidate in candidates {
            if !fs::metadata(&candidate)?.is_file() {
                continue;
            }
            let mut bytes = vec![0; SEGMENT_HEADER_LEN];
            let whole = File::open(&candidate)?.read_exact(&mut bytes).is_ok();
            if whole && bytes.starts_with(&SEGMENT_MAGIC) {
                let number = SegmentHeader::parse(&bytes).map_or(u64::MAX, |header| header.number.get());
                found.push((number, candidate));
            }
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Reads segments one after the other.
pub struct Segments {
    /// Those still to come, the next one last.
    files: Vec<PathBuf>,
    bytes: Vec<u8>,
    at: usize,
    lsn: Lsn,
    given: usize,
    /// Where the segment that was read last ends.
    end: Lsn,
}

impl Segments {
    /// Will read these files, which are in the order of the log.
    pub fn new(mut files: Vec<PathBuf>) -> Self {
        files.reverse();
        Segments { files, bytes: Vec::new(), at: 0, lsn: 0, given: 0, end: 0 }
    }

    /// The next record, `None` at the end, or what is wrong.
    #[allow(clippy::should_implement_trait)] // A record borrows the buffer, which an iterator cannot say.
    pub fn next(&mut self) -> Result<Option<RecordView<'_>>, String> {
        self.at += self.given;
        self.lsn += self.given as u64;
        self.given = 0;
        loop {
            let rest = &self.bytes[self.at..];
            match peek_length(rest) {
                Ok(length) if length <= rest.len() => {
                    RecordView::parse(rest, Some(self.lsn)).map_err(|error| self.at_lsn(error))?;
                    self.given = length;
                    break;
                }
                Ok(_) | Err(RecordError::Truncated { .. }) => {
                    let cut = !rest.is_empty();
                    match self.load()? {
                        true => {}
                        false if cut => {
                            let lsn = self.lsn;
                            self.bytes.clear();
                            self.at = 0;
                            return Err(format!("LSN {lsn:#x}: the record goes on in a segment that is not there"));
                        }
                        false => return Ok(None),
                    }
                }
                // Room that was never written.
                Err(RecordError::Magic(0)) => {
                    self.bytes.clear();
                    self.at = 0;
                    if !self.load()? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(self.at_lsn(error)),
            }
        }
        RecordView::parse(&self.bytes[self.at..], Some(self.lsn)).map(Some).map_err(|error| error.to_string())
    }

    /// Gives up what is left of this segment and goes on with the next one; false if there is none.
    pub fn skip(&mut self) -> bool {
        self.bytes.clear();
        self.at = 0;
        !self.files.is_empty()
    }

    fn at_lsn(&self, error: RecordError) -> String {
        format!("LSN {:#x}: {error}", self.lsn)
    }

    /// Takes the next segment in; false if there is none.
    fn load(&mut self) -> Result<bool, String> {
        let Some(path) = self.files.pop() else { return Ok(false) };
        let shown = path.display();
        let bytes = fs::read(&path).map_err(|error| format!("{shown}: {error}"))?;
        let header = SegmentHeader::parse(&bytes).map_err(|error| format!("{shown}: {error}"))?;
        let size = header.segment_size.get();
        let start = header.number.get().saturating_mul(size);
        let log = bytes.get(SEGMENT_HEADER_LEN..).unwrap_or(&[]);
        let log = &log[..log.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
        self.bytes.drain(..self.at);
        self.at = 0;
        if self.bytes.is_empty() || start != self.end {
            let lost = !self.bytes.is_empty();
            let first = header.first_record.get();
            let skip = usize::try_from(first - start).unwrap_or(usize::MAX).min(log.len());
            self.bytes = log[skip..].to_vec();
            let lsn = std::mem::replace(&mut self.lsn, first);
            self.end = start.saturating_add(size);
            if lost {
                return Err(format!("LSN {lsn:#x}: the record goes on in a segment that is not there"));
            }
        } else {
            self.bytes.extend_from_slice(log);
            self.end = start.saturating_add(size);
        }
        Ok(true)
    }
}
