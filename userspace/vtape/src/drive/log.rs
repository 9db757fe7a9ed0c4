// SPDX-License-Identifier: GPL-2.0-or-later
//! LOG SENSE, LOG SELECT, and what they report: counters and TapeAlert flags (SPC-4, 6.8 and
//! 7.3; SSC-4, 8.2).

use crate::medium::{Medium, Object};
use crate::scsi::{opcode, Asc, Cdb, Key, Sense};

use super::Drive;

/// A TapeAlert flag by its number (SSC-4, annex A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Alert {
    Media = 4,
    ReadFailure = 5,
    WriteFailure = 6,
    WriteProtect = 9,
    NoRemoval = 10,
    WormOverwriteAttempted = 60,
}

/// The flags that this drive can raise.
const ALERTS: [Alert; 6] = [
    Alert::Media,
    Alert::ReadFailure,
    Alert::WriteFailure,
    Alert::WriteProtect,
    Alert::NoRemoval,
    Alert::WormOverwriteAttempted,
];

/// The supported flags as the TapeAlert vital product data page lists them: flag 1 is the
/// highest bit of the first byte.
pub(super) fn supported_alerts() -> [u8; 8] {
    ALERTS.iter().fold(0u64, |bits, &alert| bits | (1 << (64 - alert as u8))).to_be_bytes()
}

/// TapeAlert flags that were raised and not yet read: flag `n` is bit `n - 1`.
#[derive(Debug, Default)]
pub(super) struct Alerts(u64);

impl Alerts {
    pub(super) fn raise(&mut self, alert: Alert) {
        self.0 |= 1 << (alert as u8 - 1);
    }

    /// Raises what belongs to the end of a command.
    pub(super) fn note(&mut self, operation: u8, sense: &Sense) {
        match (sense.key, sense.asc) {
            (Key::MEDIUM_ERROR, _) if operation == opcode::READ_6 => {
                self.raise(Alert::Media);
                self.raise(Alert::ReadFailure);
            }
            (Key::MEDIUM_ERROR, _) => {
                self.raise(Alert::Media);
                self.raise(Alert::WriteFailure);
            }
            (Key::DATA_PROTECT, Asc::WORM_OVERWRITE_ATTEMPTED) => {
                self.raise(Alert::WormOverwriteAttempted);
            }
            (Key::DATA_PROTECT, _) => self.raise(Alert::WriteProtect),
            (_, Asc::MEDIUM_REMOVAL_PREVENTED) => self.raise(Alert::NoRemoval),
            _ => {}
        }
    }

    /// Clears the flags that `page`, as it went to the initiator, has told of.
    ///
    /// Programs ask for the header alone first, to learn the length: what that left out
    /// has not been told.
    fn reported(&mut self, page: &[u8]) {
        for parameter in page.get(4..).unwrap_or_default().chunks_exact(5) {
            let number = u16::from_be_bytes([parameter[0], parameter[1]]);
            if (1..=64).contains(&number) {
                self.0 &= !(1 << (number - 1));
            }
        }
    }
}

/// What a drive has done since it was switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub loads: u64,
    pub blocks_written: u64,
    pub bytes_written: u64,
    pub filemarks_written: u64,
    pub blocks_read: u64,
    pub bytes_read: u64,
    pub write_errors: u64,
    pub read_errors: u64,
}

const SUPPORTED_PAGES: u8 = 0x00;
const WRITE_ERRORS: u8 = 0x02;
const READ_ERRORS: u8 = 0x03;
const SEQUENTIAL_ACCESS: u8 = 0x0c;
const VOLUME_STATISTICS: u8 = 0x17;
const TAPE_ALERT: u8 = 0x2e;
const TAPE_CAPACITY: u8 = 0x31;

/// One log parameter: code, format and linking, value.
struct Parameter(u16, u8, Vec<u8>);

/// Format and linking of a counter, and of a list in binary.
const COUNTER: u8 = 0x00;
const BINARY_LIST: u8 = 0x03;

fn counter(code: u16, value: u64) -> Parameter {
    Parameter(code, COUNTER, value.to_be_bytes().to_vec())
}

fn counter32(code: u16, value: u64) -> Parameter {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    Parameter(code, COUNTER, value.to_be_bytes().to_vec())
}

impl<M: Medium> Drive<M> {
    pub(super) fn log_sense(&mut self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        let page = cdb.byte(2) & 0x3f;
        if cdb.byte(3) != 0 {
            return Err(Sense::invalid_field(3));
        }
        let parameters = match page {
            SUPPORTED_PAGES => {
                let pages = [
                    SUPPORTED_PAGES,
                    WRITE_ERRORS,
                    READ_ERRORS,
                    SEQUENTIAL_ACCESS,
                    VOLUME_STATISTICS,
                    TAPE_ALERT,
                    TAPE_CAPACITY,
                ];
                data_in.extend([page, 0, 0, pages.len() as u8]);
                data_in.extend(pages);
                data_in.truncate(cdb.be16(7));
                return Ok(());
            }
            WRITE_ERRORS => {
                vec![counter(0x0005, self.counters.bytes_written), counter(0x0006, self.counters.write_errors)]
            }
            READ_ERRORS => vec![counter(0x0005, self.counters.bytes_read), counter(0x0006, self.counters.read_errors)],
            SEQUENTIAL_ACCESS => vec![
                // Bytes from the initiator, to the tape, from the tape, to the initiator.
                counter(0x0000, self.counters.bytes_written),
                counter(0x0001, self.counters.bytes_written),
                counter(0x0002, self.counters.bytes_read),
                counter(0x0003, self.counters.bytes_read),
            ],
            VOLUME_STATISTICS => self.volume_statistics()?,
            TAPE_ALERT => {
                let raised = self.alerts.0;
                let flag = |n: u16| vec![u8::from((raised >> (n - 1)) & 1 != 0)];
                (1..=64).map(|n| Parameter(n, COUNTER, flag(n))).collect()
            }
            TAPE_CAPACITY => self.tape_capacity()?,
            _ => return Err(Sense::invalid_field(2)),
        };
        let first = cdb.be16(5);
        let mut body = Vec::new();
        for Parameter(code, format, value) in parameters {
            if usize::from(code) >= first {
                body.extend(code.to_be_bytes());
                body.extend([format, value.len() as u8]);
                body.extend(value);
            }
        }
        data_in.extend([page, 0]);
        data_in.extend((body.len() as u16).to_be_bytes());
        data_in.extend(body);
        data_in.truncate(cdb.be16(7));
        if page == TAPE_ALERT {
            self.alerts.reported(data_in);
        }
        Ok(())
    }

    fn volume_statistics(&self) -> Result<Vec<Parameter>, Sense> {
        let Some(tape) = self.medium() else {
            return Ok(vec![counter32(0x0000, 0)]); // page valid: no
        };
        let cartridge = tape.cartridge();
        let ascii = |code, text: &str| Parameter(code, BINARY_LIST, text.as_bytes().to_vec());
        Ok(vec![
            counter32(0x0000, 1),
            counter32(0x0001, cartridge.loads),
            counter32(0x0002, self.counters.blocks_written),
            counter32(0x0004, self.counters.write_errors),
            counter32(0x0007, self.counters.blocks_read),
            counter32(0x0009, self.counters.read_errors),
            ascii(0x0040, &cartridge.serial),
            ascii(0x0042, &cartridge.barcode),
            Parameter(0x0080, BINARY_LIST, vec![u8::from(cartridge.protected)]),
            Parameter(0x0081, BINARY_LIST, vec![u8::from(cartridge.worm)]),
        ])
    }

    fn tape_capacity(&self) -> Result<Vec<Parameter>, Sense> {
        let mebibytes = |bytes: u64| bytes >> 20;
        let (left, capacity) = self.medium().map_or((0, 0), |tape| {
            let capacity = tape.cartridge().capacity;
            (capacity.saturating_sub(tape.used(self.position)), capacity)
        });
        Ok(vec![
            counter32(0x0001, mebibytes(left)),
            counter32(0x0002, 0),
            counter32(0x0003, mebibytes(capacity)),
            counter32(0x0004, 0),
        ])
    }

    pub(super) fn log_select(&mut self, cdb: Cdb<'_>) -> Result<(), Sense> {
        if cdb.be16(7) != 0 {
            return Err(Sense::invalid_field(7)); // no parameter can be set
        }
        if cdb.bit(1, 1) {
            self.counters = super::Counters::default();
            self.alerts = Alerts::default();
        }
        Ok(())
    }

    /// TapeAlert flags that are raised, by number. Looking does not clear them.
    pub fn raised_alerts(&self) -> Vec<u8> {
        (1..=64).filter(|n| (self.alerts.0 >> (n - 1)) & 1 != 0).collect()
    }

    /// Objects of the loaded tape that cannot be told any more, counted.
    pub fn damaged_objects(&self) -> u64 {
        self.medium().map_or(0, |tape| {
            let damaged = |&n: &u64| tape.object(n) == Some(Object::Damaged);
            (0..tape.objects()).filter(damaged).count() as u64
        })
    }
}
