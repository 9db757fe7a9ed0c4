// SPDX-License-Identifier: GPL-2.0-or-later
//! Commands that move data or change what is recorded: READ, VERIFY, WRITE, WRITE FILEMARKS,
//! ERASE (SSC-4, 5.3, 7.8, 5.10, 5.6, 5.2).

use crate::medium::{block_cost, Medium, Object, ReadError, FILEMARK_COST, FILEMARK_RESERVE};
use crate::scsi::{Asc, Cdb, Key, Sense};

use super::{Drive, MAX_BLOCK};

/// What a transfer of blocks asks for.
struct Transfer {
    /// Counted in blocks of the length that the mode's block descriptor sets.
    fixed: bool,
    /// A block of another length than asked for is no news.
    suppress_length: bool,
    /// Blocks if fixed, bytes of the one block if not.
    count: u32,
    /// Length of each block that is asked for.
    length: u32,
}

impl<M: Medium> Drive<M> {
    fn transfer(&self, cdb: Cdb<'_>) -> Result<Transfer, Sense> {
        let fixed = cdb.bit(1, 0);
        let count = cdb.be24(2);
        let length = if fixed { self.mode.block_length } else { count };
        if fixed && length == 0 {
            return Err(Sense::invalid_field(1));
        }
        Ok(Transfer { fixed, suppress_length: false, count, length })
    }

    pub(super) fn read(&mut self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        let mut transfer = self.transfer(cdb)?;
        transfer.suppress_length = cdb.bit(1, 1);
        if transfer.fixed && transfer.suppress_length {
            return Err(Sense::invalid_field(1));
        }
        let result = self.read_blocks(&transfer, data_in);
        self.counters.bytes_read += data_in.len() as u64;
        result
    }

    pub(super) fn verify(&mut self, cdb: Cdb<'_>) -> Result<(), Sense> {
        if cdb.bit(1, 1) {
            // Byte by byte comparison with data from the initiator.
            return Err(Sense::invalid_field(1));
        }
        let transfer = self.transfer(cdb)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let result = self.read_blocks(&transfer, &mut scratch);
        self.scratch = scratch;
        result
    }

    fn read_blocks(&mut self, transfer: &Transfer, out: &mut Vec<u8>) -> Result<(), Sense> {
        let count = i64::from(transfer.count);
        let blocks = if transfer.fixed { count } else { count.min(1) };
        for done in 0..blocks {
            // What was asked for and not done: in blocks, or all the bytes of the one block.
            let residue = count - if transfer.fixed { done } else { 0 };
            let position = self.position;
            let kept = out.len();
            if transfer.fixed && kept as u64 + u64::from(transfer.length) > u64::from(u32::MAX) {
                return Err(Sense::invalid_field(2));
            }
            let object = self.tape()?.object(position);
            let Some(object) = object else {
                return Err(Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED).residue(residue));
            };
            // Whatever it is, the position is beyond it afterwards.
            self.position += 1;
            let actual = match object {
                Object::Filemark => {
                    return Err(Sense::new(Key::NO_SENSE, Asc::FILEMARK_DETECTED).residue(residue).with_filemark());
                }
                Object::Damaged => return Err(unreadable(residue)),
                Object::Block(length) => length,
            };
            if transfer.fixed && actual != transfer.length {
                return Err(Sense::new(Key::NO_SENSE, Asc::NONE).residue(residue).with_ili());
            }
            match self.tape()?.read(position, out) {
                Ok(()) => self.counters.blocks_read += 1,
                Err(ReadError::Corrupt) => {
                    self.counters.read_errors += 1;
                    self.trouble = Some(format!("object {position} does not match its checksum"));
                    return Err(unreadable(residue));
                }
                Err(ReadError::Io(error)) => {
                    self.counters.read_errors += 1;
                    let asc = Asc::UNRECOVERED_READ_ERROR;
                    return Err(self.host_error("reading", &error, asc).residue(residue));
                }
            }
            if !transfer.fixed && actual != transfer.length {
                out.truncate(kept + transfer.length as usize);
                // Suppression covers short blocks, and long ones while no block length is set.
                let silent = transfer.suppress_length && (actual < transfer.length || self.mode.block_length == 0);
                if !silent {
                    return Err(Sense::new(Key::NO_SENSE, Asc::NONE).residue(count - i64::from(actual)).with_ili());
                }
            }
        }
        Ok(())
    }

    /// Refuses what neither the tab nor the mode nor the kind of cartridge lets be written at
    /// the position.
    fn check_writable(&mut self) -> Result<(), Sense> {
        let software = self.mode.software_write_protect;
        let position = self.position;
        let tape = self.tape()?;
        if tape.cartridge().protected {
            return Err(Sense::new(Key::DATA_PROTECT, Asc::WRITE_PROTECTED));
        }
        if software {
            return Err(Sense::new(Key::DATA_PROTECT, Asc::SOFTWARE_WRITE_PROTECTED));
        }
        // Of the filemarks that end the data, all but the first may be written over (SSC-4
        // 8.3.8, WORM mode filemarks restrictions 02h): they hold no data, and a program that
        // writes two and backs up over one must be able to go on.
        if tape.cartridge().worm && position < tape.objects() && position <= Self::trailing_filemarks(tape) {
            return Err(Sense::new(Key::DATA_PROTECT, Asc::WORM_OVERWRITE_ATTEMPTED));
        }
        Ok(())
    }

    /// Drops what lies from the position on, which the next object takes the place of.
    fn cut(&mut self) -> Result<(), Sense> {
        let position = self.position;
        let tape = self.tape()?;
        if position < tape.objects() {
            if let Err(error) = tape.truncate(position) {
                return Err(self.host_error("cutting", &error, Asc::WRITE_ERROR));
            }
        }
        Ok(())
    }

    fn room_for(&mut self, cost: u64, reserve: u64) -> Result<bool, Sense> {
        let position = self.position;
        let tape = self.tape()?;
        let end = tape.used(position).saturating_add(cost);
        Ok(end <= tape.cartridge().capacity.saturating_add(reserve))
    }

    /// Tells the initiator when the position is in early warning, all having been written.
    fn check_early_warning(&mut self) -> Result<(), Sense> {
        if self.in_early_warning() {
            return Err(Sense::new(Key::NO_SENSE, Asc::END_OF_MEDIUM_DETECTED).residue(0).with_eom());
        }
        Ok(())
    }

    /// Puts what is recorded on stable storage.
    pub(super) fn flush(&mut self) -> Result<(), Sense> {
        let tape = self.tape()?;
        if tape.synchronized() == tape.objects() {
            return Ok(());
        }
        match tape.synchronize() {
            Ok(()) => Ok(()),
            Err(error) => Err(self.host_error("flushing", &error, Asc::WRITE_ERROR)),
        }
    }

    pub(super) fn write(&mut self, cdb: Cdb<'_>, data: &[u8]) -> Result<(), Sense> {
        let transfer = self.transfer(cdb)?;
        if transfer.count == 0 {
            return Ok(());
        }
        if transfer.length > MAX_BLOCK {
            return Err(Sense::invalid_field(2));
        }
        let length = transfer.length as usize;
        let blocks = if transfer.fixed { transfer.count as usize } else { 1 };
        let Some(data) = blocks.checked_mul(length).and_then(|total| data.get(..total)) else {
            return Err(Sense::new(Key::ABORTED_COMMAND, Asc::DATA_PHASE_ERROR));
        };
        self.check_writable()?;
        for (done, block) in data.chunks_exact(length).enumerate() {
            let residue = i64::from(transfer.count) - if transfer.fixed { done as i64 } else { 0 };
            if !self.room_for(block_cost(length), 0)? {
                return Err(Sense::new(Key::VOLUME_OVERFLOW, Asc::END_OF_MEDIUM_DETECTED).residue(residue).with_eom());
            }
            self.cut()?;
            if let Err(error) = self.tape()?.append_block(block) {
                self.counters.write_errors += 1;
                let sense = self.host_error("writing", &error, Asc::WRITE_ERROR);
                return Err(sense.residue(residue));
            }
            self.position += 1;
            self.counters.blocks_written += 1;
            self.counters.bytes_written += length as u64;
        }
        if !self.mode.buffered {
            self.flush()?;
        }
        self.check_early_warning()
    }

    pub(super) fn write_filemarks(&mut self, cdb: Cdb<'_>) -> Result<(), Sense> {
        let immediate = cdb.bit(1, 0);
        if cdb.bit(1, 1) {
            return Err(Sense::invalid_field(1)); // setmarks, obsolete
        }
        let count = cdb.be24(2);
        if count > 0 {
            self.check_writable()?;
        }
        for done in 0..count {
            let residue = i64::from(count - done);
            if !self.room_for(FILEMARK_COST, FILEMARK_RESERVE)? {
                return Err(Sense::new(Key::VOLUME_OVERFLOW, Asc::END_OF_MEDIUM_DETECTED).residue(residue).with_eom());
            }
            self.cut()?;
            if let Err(error) = self.tape()?.append_filemark() {
                self.counters.write_errors += 1;
                let sense = self.host_error("writing a filemark", &error, Asc::WRITE_ERROR);
                return Err(sense.residue(residue));
            }
            self.position += 1;
            self.counters.filemarks_written += 1;
        }
        // This is what a program relies on: the filemark and all before it are on the tape.
        if !immediate {
            self.flush()?;
        }
        if count > 0 {
            self.check_early_warning()?;
        }
        Ok(())
    }

    pub(super) fn erase(&mut self) -> Result<(), Sense> {
        self.check_writable()?;
        self.cut()?;
        self.flush()
    }
}

fn unreadable(residue: i64) -> Sense {
    Sense::new(Key::MEDIUM_ERROR, Asc::UNRECOVERED_READ_ERROR).residue(residue)
}
