// SPDX-License-Identifier: GPL-2.0-or-later

//! Where a byte of the log lies: segment numbers, file names, offsets.

use reelfs_format::record::Lsn;
use reelfs_format::spool::{SegmentError, SegmentHeader, SEGMENT_HEADER_LEN, SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN};
use zerocopy::little_endian::{I64, U32, U64};

/// Ending of a segment file's name.
const SUFFIX: &str = ".segment";

/// Name of the file of segment `number`: 16 hexadecimal digits, so that names sort as numbers do.
pub fn file_name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number in a segment file's name, or `None` if it is not the name of one.
pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // One number has one name.
    (file_name(number) == name).then_some(number)
}

/// What all segments of a spool have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The stream.
    pub stream: [u8; 16],
    /// Timeline of the stream.
    pub timeline: u32,
    /// Length of a segment in bytes, its header not counted.
    pub segment_size: u64,
}

impl Geometry {
    /// Whether a segment may have this length.
    pub fn valid_size(segment_size: u64) -> bool {
        (SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&segment_size) && segment_size % 4096 == 0
    }

    /// Number of the segment that holds the byte at `lsn`.
    pub fn number(&self, lsn: Lsn) -> u64 {
        lsn / self.segment_size
    }

    /// LSN of the first byte of segment `number`.
    pub fn start(&self, number: u64) -> Lsn {
        number.saturating_mul(self.segment_size)
    }

    /// Offset in its file of the byte at `lsn`.
    pub fn offset(&self, lsn: Lsn) -> u64 {
        SEGMENT_HEADER_LEN as u64 + lsn % self.segment_size
    }

    /// Length of a segment file in bytes.
    pub fn file_len(&self) -> u64 {
        SEGMENT_HEADER_LEN as u64 + self.segment_size
    }

    /// The header of segment `number`, complete.
    pub fn header(&self, number: u64, first_record: Lsn, created: i64) -> SegmentHeader {
        let mut header = SegmentHeader {
            magic: [0; 8],
            version: U32::ZERO,
            crc: U32::ZERO,
            stream: self.stream,
            number: U64::new(number),
            segment_size: U64::new(self.segment_size),
            first_record: U64::new(first_record),
            created: I64::new(created),
            timeline: U32::new(self.timeline),
            reserved: U32::ZERO,
            rest: [0; 4024],
        };
        header.seal();
        header
    }

    /// LSN of the first record that starts in segment `number`, from its header, or how the header is wrong.
    pub(crate) fn check_header(&self, number: u64, bytes: &[u8]) -> Result<Lsn, HeaderFault> {
        let header = SegmentHeader::parse(bytes).map_err(HeaderFault::Format)?;
        let first = header.first_record.get();
        if header.stream != self.stream {
            let stream = uuid::Uuid::from_bytes(header.stream);
            return Err(HeaderFault::Foreign(format!("of another stream, {stream}")));
        }
        if header.number.get() != number || header.segment_size.get() != self.segment_size {
            return Err(HeaderFault::Foreign(format!(
                "segment {} of {} bytes, not what its name and spool.toml say",
                header.number.get(),
                header.segment_size.get()
            )));
        }
        if first >= self.start(number).saturating_add(self.segment_size) {
            return Err(HeaderFault::Format(SegmentError::FirstRecord(first)));
        }
        Ok(first)
    }
}

/// How a segment's header is wrong.
pub(crate) enum HeaderFault {
    /// It breaks the format, as a header does that was never written or was interrupted.
    Format(SegmentError),
    /// It is whole and says something else.
    Foreign(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_one() {
        assert_eq!(file_name(0x2a), "000000000000002a.segment");
        for number in [0, 1, 0x2a, u64::MAX] {
            assert_eq!(parse_file_name(&file_name(number)), Some(number));
        }
        for name in
            ["2a.segment", "000000000000002A.segment", "+00000000000002a.segment", "000000000000002a", ".segment"]
        {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
