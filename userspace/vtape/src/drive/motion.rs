// SPDX-License-Identifier: GPL-2.0-or-later
//! Commands that move the tape or say where it is: REWIND, SPACE, LOCATE, READ POSITION, LOAD
//! UNLOAD (SSC-4, 7.9, 7.10, 6.3, 7.7, 7.2).
//!
//! Moving flushes the buffer first, as every drive does.

use crate::medium::{block_cost, Medium};
use crate::scsi::{Asc, Cdb, Key, Sense};

use super::{Drive, Slot};

/// Where a motion ended that could not be completed.
enum Stop {
    /// At a filemark, and how many objects short.
    Filemark(i64),
    /// At the beginning of the tape.
    Beginning(i64),
    /// At the end of data.
    EndOfData(i64),
}

impl From<Stop> for Sense {
    fn from(stop: Stop) -> Self {
        // The residue is never negative, whatever the direction (SSC-4, 7.9).
        match stop {
            Stop::Filemark(left) => Sense::new(Key::NO_SENSE, Asc::FILEMARK_DETECTED).residue(left).with_filemark(),
            Stop::Beginning(left) => {
                Sense::new(Key::NO_SENSE, Asc::BEGINNING_OF_MEDIUM_DETECTED).residue(left).with_eom()
            }
            Stop::EndOfData(left) => Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED).residue(left),
        }
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl<M: Medium> Drive<M> {
    pub(super) fn in_early_warning(&self) -> bool {
        self.medium().is_some_and(|tape| {
            let cartridge = tape.cartridge();
            let warning = cartridge.capacity.saturating_sub(cartridge.early_warning);
            tape.used(self.position) >= warning
        })
    }

    pub(super) fn rewind(&mut self) -> Result<(), Sense> {
        self.flush()?;
        self.position = 0;
        Ok(())
    }

    pub(super) fn space(&mut self, code: u8, n: i64) -> Result<(), Sense> {
        let code = code & 0x0f;
        if code > 3 {
            return Err(Sense::invalid_field(1));
        }
        self.flush()?;
        let position = self.position;
        let tape = self.tape()?;
        let distance = n.unsigned_abs();
        let (to, stop) = match (code, n) {
            (3, _) => (tape.objects(), None),
            (_, 0) => (position, None),
            (0, 1..) => blocks_forward(tape, position, distance),
            (0, _) => blocks_backward(tape, position, distance),
            (1, 1..) => filemarks_forward(tape, position, distance),
            (1, _) => filemarks_backward(tape, position, distance),
            (_, 1..) => run_forward(tape, position, distance),
            (_, _) => run_backward(tape, position, distance),
        };
        self.position = to;
        stop.map_or(Ok(()), |stop| Err(stop.into()))
    }

    fn go_to(&mut self, target: Option<u64>) -> Result<(), Sense> {
        self.flush()?;
        let end = self.tape()?.objects();
        match target {
            Some(target) if target <= end => {
                self.position = target;
                Ok(())
            }
            _ => {
                self.position = end;
                Err(Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED))
            }
        }
    }

    pub(super) fn locate_10(&mut self, cdb: Cdb<'_>) -> Result<(), Sense> {
        // Byte 1 bit 2 asks for the address format of the vendor's choice: it is the same one.
        if cdb.bit(1, 1) && cdb.byte(8) != 0 {
            return Err(Sense::invalid_field(8));
        }
        self.go_to(Some(u64::from(cdb.be32(3))))
    }

    pub(super) fn locate_16(&mut self, cdb: Cdb<'_>) -> Result<(), Sense> {
        if cdb.bit(1, 1) && cdb.byte(3) != 0 {
            return Err(Sense::invalid_field(3));
        }
        let identifier = cdb.be64(4);
        let target = match (cdb.byte(1) >> 3) & 0x7 {
            0 => Some(identifier),
            // A logical file begins after the filemark that ends the one before.
            1 if identifier == 0 => Some(0),
            1 => self.tape()?.filemark(identifier - 1).map(|filemark| filemark + 1),
            3 => Some(self.tape()?.objects()),
            _ => return Err(Sense::invalid_field(1)),
        };
        self.go_to(target)
    }

    pub(super) fn read_position(&mut self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        let position = self.position;
        let beginning = u8::from(position == 0) << 7;
        let end = u8::from(self.in_early_warning()) << 6;
        let tape = self.tape()?;
        // What is in the buffer: objects that a power failure now would lose.
        let safe = if position == tape.objects() { tape.synchronized() } else { position };
        let objects_buffered = position - safe;
        let overhead = objects_buffered * block_cost(0);
        let bytes_buffered = (tape.used(position) - tape.used(safe)).saturating_sub(overhead);
        match cdb.byte(1) & 0x1f {
            // 01h is the vendor-specific address format, which is the same one.
            0x00 | 0x01 => {
                let mut out = [0; 20];
                out[0] = beginning | end;
                match (u32::try_from(position), u32::try_from(safe)) {
                    (Ok(first), Ok(last)) => {
                        out[4..8].copy_from_slice(&first.to_be_bytes());
                        out[8..12].copy_from_slice(&last.to_be_bytes());
                    }
                    _ => out[0] |= 0x04, // the location is unknown in so few bytes
                }
                match (u32::try_from(objects_buffered), u32::try_from(bytes_buffered)) {
                    (Ok(objects @ 0..=0xff_ffff), Ok(bytes)) => {
                        out[12..16].copy_from_slice(&objects.to_be_bytes());
                        out[16..20].copy_from_slice(&bytes.to_be_bytes());
                    }
                    _ => out[0] |= 0x30, // neither count is known
                }
                data_in.extend(out);
            }
            0x06 => {
                let mut out = [0; 32];
                out[0] = beginning | end;
                out[8..16].copy_from_slice(&position.to_be_bytes());
                let file = tape.filemarks_before(position);
                out[16..24].copy_from_slice(&file.to_be_bytes());
                data_in.extend(out);
            }
            0x08 => {
                let mut out = [0; 32];
                out[0] = beginning | end;
                out[3] = 0x1c;
                let objects = u32::try_from(objects_buffered).unwrap_or(u32::MAX).min(0xff_ffff);
                out[4..8].copy_from_slice(&objects.to_be_bytes());
                out[8..16].copy_from_slice(&position.to_be_bytes());
                out[16..24].copy_from_slice(&safe.to_be_bytes());
                out[24..32].copy_from_slice(&bytes_buffered.to_be_bytes());
                data_in.extend(out);
                data_in.truncate(cdb.be16(7));
            }
            _ => return Err(Sense::invalid_field(1)),
        }
        Ok(())
    }

    pub(super) fn load_unload(&mut self, cdb: Cdb<'_>) -> Result<(), Sense> {
        let load = cdb.bit(4, 0);
        let end_of_tape = cdb.bit(4, 2);
        if load && end_of_tape {
            return Err(Sense::invalid_field(4));
        }
        if load {
            match std::mem::replace(&mut self.slot, Slot::Empty) {
                Slot::Empty => {
                    return Err(Sense::new(Key::NOT_READY, Asc::MEDIUM_NOT_PRESENT));
                }
                Slot::Loaded(medium) => {
                    self.slot = Slot::Loaded(medium);
                    self.flush()?;
                }
                Slot::Unloaded(medium) => {
                    self.slot = Slot::Loaded(medium);
                    self.counters.loads += 1;
                    self.attention(Asc::MEDIUM_MAY_HAVE_CHANGED);
                }
            }
            self.position = 0;
            return Ok(());
        }
        if matches!(self.slot, Slot::Loaded(_)) {
            if self.prevented {
                return Err(Sense::illegal(Asc::MEDIUM_REMOVAL_PREVENTED));
            }
            self.flush()?;
        }
        self.slot = match std::mem::replace(&mut self.slot, Slot::Empty) {
            Slot::Loaded(medium) | Slot::Unloaded(medium) => Slot::Unloaded(medium),
            Slot::Empty => Slot::Empty,
        };
        self.position = 0;
        Ok(())
    }
}

/// Where a motion ends, and why there if it is not where it was to end.
type End = (u64, Option<Stop>);

fn blocks_forward(tape: &impl Medium, from: u64, distance: u64) -> End {
    let target = from.saturating_add(distance);
    match tape.filemark(tape.filemarks_before(from)) {
        Some(filemark) if filemark < target => (filemark + 1, Some(Stop::Filemark(count(target - filemark)))),
        _ if target > tape.objects() => (tape.objects(), Some(Stop::EndOfData(count(target - tape.objects())))),
        _ => (target, None),
    }
}

fn blocks_backward(tape: &impl Medium, from: u64, distance: u64) -> End {
    let before = tape.filemarks_before(from);
    let filemark = before.checked_sub(1).and_then(|nth| tape.filemark(nth));
    match filemark {
        Some(filemark) if from - filemark <= distance => {
            let passed = from - filemark - 1;
            (filemark, Some(Stop::Filemark(count(distance - passed))))
        }
        _ if distance > from => (0, Some(Stop::Beginning(count(distance - from)))),
        _ => (from - distance, None),
    }
}

fn filemarks_forward(tape: &impl Medium, from: u64, distance: u64) -> End {
    let before = tape.filemarks_before(from);
    match tape.filemark(before.saturating_add(distance - 1)) {
        Some(filemark) => (filemark + 1, None),
        None => {
            let passed = tape.filemarks_before(tape.objects()) - before;
            (tape.objects(), Some(Stop::EndOfData(count(distance - passed))))
        }
    }
}

fn filemarks_backward(tape: &impl Medium, from: u64, distance: u64) -> End {
    let before = tape.filemarks_before(from);
    match before.checked_sub(distance).and_then(|nth| tape.filemark(nth)) {
        Some(filemark) => (filemark, None),
        None => (0, Some(Stop::Beginning(count(distance - before)))),
    }
}

/// Beyond the first `length` filemarks in a row.
fn run_forward(tape: &impl Medium, from: u64, length: u64) -> End {
    let mut run = 0;
    let mut last = None;
    let mut nth = tape.filemarks_before(from);
    while let Some(filemark) = tape.filemark(nth) {
        run = if last.is_some_and(|last| filemark == last + 1) { run + 1 } else { 1 };
        if run == length {
            return (filemark + 1, None);
        }
        last = Some(filemark);
        nth += 1;
    }
    (tape.objects(), Some(Stop::EndOfData(count(length))))
}

/// Before the last `length` filemarks in a row.
fn run_backward(tape: &impl Medium, from: u64, length: u64) -> End {
    let mut run = 0;
    let mut last: Option<u64> = None;
    let mut nth = tape.filemarks_before(from);
    while let Some(filemark) = nth.checked_sub(1).and_then(|nth| tape.filemark(nth)) {
        run = if last == Some(filemark + 1) { run + 1 } else { 1 };
        if run == length {
            return (filemark, None);
        }
        last = Some(filemark);
        nth -= 1;
    }
    (0, Some(Stop::Beginning(count(length))))
}
