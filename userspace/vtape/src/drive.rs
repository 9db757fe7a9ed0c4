// SPDX-License-Identifier: GPL-2.0-or-later
//! The drive: command blocks in, status, sense and data out.
//!
//! It does no input or output but through [`Medium`], keeps no time and starts no thread, so
//! that `cargo test` can put it through every command. Who carries the commands to it is the
//! business of [`crate::target`]; one process may hold several drives.
//!
//! The behaviour is that of SSC-4 (INCITS 516), explicit address mode, one partition. Where
//! the standard leaves a choice, the page Documentation/vtape.md says which was taken.

mod fault;
mod inquiry;
mod log;
mod mode;
mod motion;
mod transfer;

use std::collections::VecDeque;
use std::time::Duration;

pub use fault::{Class, Effect, Fault};
pub use log::{Alert, Counters};
pub use mode::DENSITY;

use crate::medium::{Medium, Object};
use crate::scsi::{opcode, Asc, Cdb, Key, Sense, Status};
use fault::Faults;
use log::Alerts;
use mode::Mode;

/// Blocks larger than this are refused.
///
/// It is what the `tcm_loop` transport carries in one command: 256 segments of a page.
pub const MAX_BLOCK: u32 = 1 << 20;

/// How a command ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Why it did not simply succeed.
    pub sense: Option<Sense>,
    /// Wait so long before answering (an injected fault).
    pub delay: Duration,
    /// What went wrong on the host's side, for the log.
    pub trouble: Option<String>,
}

impl Outcome {
    /// The status byte.
    pub fn status(&self) -> Status {
        match self.sense {
            None => Status::Good,
            Some(_) => Status::CheckCondition,
        }
    }
}

/// What is in the drive's mouth.
enum Slot<M> {
    Empty,
    /// Present, but not threaded: LOAD brings it back.
    Unloaded(M),
    Loaded(M),
}

/// A kind of reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The transport reset the logical unit.
    LogicalUnit,
    /// The drive's firmware restarted; its buffer reached the tape first.
    Internal,
    /// Power failed: what no synchronising command had covered is not on the tape.
    PowerLoss,
}

/// What cannot be done to the drive's mouth, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotError {
    /// There is a cartridge in the way.
    Occupied,
    /// There is no cartridge.
    Empty,
    /// An initiator prevents removal.
    Prevented,
}

/// An SSC tape drive.
pub struct Drive<M> {
    serial: String,
    slot: Slot<M>,
    /// Number of the object that would be read next.
    position: u64,
    mode: Mode,
    /// News that each initiator has to be told before anything else. There is one initiator.
    attentions: VecDeque<Asc>,
    prevented: bool,
    faults: Faults,
    alerts: Alerts,
    counters: Counters,
    trouble: Option<String>,
    /// Data read only to be checked.
    scratch: Vec<u8>,
}

/// What has to be true before a command is carried out.
#[derive(PartialEq, Eq)]
enum Needs {
    /// Nothing: the command always works.
    Nothing,
    /// The initiator knows of all news.
    Attention,
    /// And a cartridge is loaded.
    Medium,
}

impl<M: Medium> Drive<M> {
    /// A drive without cartridge that was just switched on. `serial` is its serial number.
    pub fn new(serial: impl Into<String>) -> Self {
        Self {
            serial: serial.into(),
            slot: Slot::Empty,
            position: 0,
            mode: Mode::default(),
            attentions: VecDeque::from([Asc::POWER_ON_OCCURRED]),
            prevented: false,
            faults: Faults::default(),
            alerts: Alerts::default(),
            counters: Counters::default(),
            trouble: None,
            scratch: Vec::new(),
        }
    }

    /// Carries out one command.
    ///
    /// `bytes` is the command block, or more; `data_out` is what the initiator sent; what it
    /// shall receive is put into `data_in`, which is emptied first.
    pub fn execute(&mut self, bytes: &[u8], data_out: &[u8], data_in: &mut Vec<u8>) -> Outcome {
        data_in.clear();
        let mut delay = Duration::ZERO;
        let sense = self.run(bytes, data_out, data_in, &mut delay).err();
        if let Some(sense) = &sense {
            self.alerts.note(bytes.first().copied().unwrap_or_default(), sense);
        }
        Outcome { sense, delay, trouble: self.trouble.take() }
    }

    fn run(&mut self, bytes: &[u8], data_out: &[u8], data_in: &mut Vec<u8>, delay: &mut Duration) -> Result<(), Sense> {
        let cdb = Cdb::new(bytes)?;
        let needs = needs(cdb.opcode());
        if needs != Needs::Nothing {
            if let Some(asc) = self.attentions.pop_front() {
                return Err(Sense::new(Key::UNIT_ATTENTION, asc));
            }
        }
        if needs == Needs::Medium && self.medium().is_none() {
            return Err(Sense::new(Key::NOT_READY, Asc::MEDIUM_NOT_PRESENT));
        }
        let Some(fault) = Class::of(cdb.opcode()).and_then(|class| self.faults.strike(class)) else {
            return self.dispatch(cdb, data_out, data_in);
        };
        match fault {
            Effect::Delay(time) => {
                *delay = time;
                self.dispatch(cdb, data_out, data_in)
            }
            Effect::Fail(sense) => Err(sense),
            Effect::FailAfter(sense) => self.dispatch(cdb, data_out, data_in).and(Err(sense)),
            Effect::Reset => {
                self.reset(Reset::Internal);
                self.run(bytes, data_out, data_in, delay)
            }
        }
    }

    fn dispatch(&mut self, cdb: Cdb<'_>, data_out: &[u8], data_in: &mut Vec<u8>) -> Result<(), Sense> {
        match cdb.opcode() {
            // A reservation excludes other initiators, and there are none.
            opcode::TEST_UNIT_READY
            | opcode::SEND_DIAGNOSTIC
            | opcode::RESERVE_6
            | opcode::RESERVE_10
            | opcode::RELEASE_6
            | opcode::RELEASE_10 => Ok(()),
            opcode::REQUEST_SENSE => self.request_sense(cdb, data_in),
            opcode::INQUIRY => self.inquiry(cdb, data_in),
            opcode::REPORT_LUNS => self.report_luns(cdb, data_in),
            opcode::READ_BLOCK_LIMITS => self.read_block_limits(data_in),
            opcode::REPORT_DENSITY_SUPPORT => self.report_density_support(cdb, data_in),
            opcode::READ_ATTRIBUTE => self.read_attribute(cdb, data_in),
            opcode::MODE_SENSE_6 | opcode::MODE_SENSE_10 => self.mode_sense(cdb, data_in),
            opcode::MODE_SELECT_6 | opcode::MODE_SELECT_10 => self.mode_select(cdb, data_out),
            opcode::LOG_SENSE => self.log_sense(cdb, data_in),
            opcode::LOG_SELECT => self.log_select(cdb),
            opcode::READ_6 => self.read(cdb, data_in),
            opcode::VERIFY_6 => self.verify(cdb),
            opcode::WRITE_6 => self.write(cdb, data_out),
            opcode::WRITE_FILEMARKS_6 => self.write_filemarks(cdb),
            opcode::ERASE_6 => self.erase(),
            opcode::REWIND => self.rewind(),
            opcode::SPACE_6 => self.space(cdb.byte(1), cdb.signed24(2)),
            opcode::SPACE_16 => self.space(cdb.byte(1), cdb.be64(4) as i64),
            opcode::LOCATE_10 => self.locate_10(cdb),
            opcode::LOCATE_16 => self.locate_16(cdb),
            opcode::READ_POSITION => self.read_position(cdb, data_in),
            opcode::LOAD_UNLOAD => self.load_unload(cdb),
            opcode::PREVENT_ALLOW => {
                self.prevented = cdb.bit(4, 0);
                Ok(())
            }
            _ => Err(Sense::illegal(Asc::INVALID_COMMAND_OPERATION_CODE)),
        }
    }

    /// The loaded cartridge.
    pub fn medium(&self) -> Option<&M> {
        match &self.slot {
            Slot::Loaded(medium) => Some(medium),
            Slot::Unloaded(_) | Slot::Empty => None,
        }
    }

    /// The cartridge in the drive's mouth, loaded or not.
    pub fn cartridge_in_slot(&self) -> Option<&M> {
        match &self.slot {
            Slot::Loaded(medium) | Slot::Unloaded(medium) => Some(medium),
            Slot::Empty => None,
        }
    }

    /// The loaded cartridge, for a command that was checked to need one.
    fn tape(&mut self) -> Result<&mut M, Sense> {
        match &mut self.slot {
            Slot::Loaded(medium) => Ok(medium),
            _ => Err(Sense::new(Key::NOT_READY, Asc::MEDIUM_NOT_PRESENT)),
        }
    }

    /// Number of the object that would be read next.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the drive has done since it was switched on.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Puts a cartridge in and loads it. The initiator learns that the medium changed.
    ///
    /// # Errors
    ///
    /// [`SlotError::Occupied`], with the cartridge handed back, unless the one inside was
    /// unloaded, in which case that one is handed out.
    pub fn insert(&mut self, medium: M) -> Result<Option<M>, (SlotError, M)> {
        if matches!(self.slot, Slot::Loaded(_)) {
            return Err((SlotError::Occupied, medium));
        }
        let old = std::mem::replace(&mut self.slot, Slot::Loaded(medium));
        self.position = 0;
        self.counters.loads += 1;
        self.attention(Asc::MEDIUM_MAY_HAVE_CHANGED);
        match old {
            Slot::Unloaded(medium) => Ok(Some(medium)),
            _ => Ok(None),
        }
    }

    /// Takes the cartridge out, as a hand at the eject button does: what is in the buffer is
    /// written first. With `force` an initiator's prevention is ignored.
    ///
    /// # Errors
    ///
    /// [`SlotError::Empty`] and [`SlotError::Prevented`].
    pub fn remove(&mut self, force: bool) -> Result<M, SlotError> {
        if matches!(self.slot, Slot::Loaded(_)) && self.prevented && !force {
            return Err(SlotError::Prevented);
        }
        match std::mem::replace(&mut self.slot, Slot::Empty) {
            Slot::Empty => Err(SlotError::Empty),
            Slot::Unloaded(medium) => Ok(medium),
            Slot::Loaded(mut medium) => {
                self.position = 0;
                self.prevented = false;
                if let Err(error) = medium.synchronize() {
                    self.alerts.raise(Alert::WriteFailure);
                    self.trouble = Some(format!("flushing at removal: {error}"));
                }
                Ok(medium)
            }
        }
    }

    /// Sets or clears the write-protect tab of the cartridge in the drive.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none; those of [`Medium::set_protected`].
    pub fn protect(&mut self, protected: bool) -> std::io::Result<()> {
        match &mut self.slot {
            Slot::Loaded(medium) | Slot::Unloaded(medium) => medium.set_protected(protected),
            Slot::Empty => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// Resets the drive: the position is the beginning of the tape, modes and prevention are
    /// the defaults, and the initiator is told.
    pub fn reset(&mut self, kind: Reset) {
        if let Slot::Loaded(medium) = &mut self.slot {
            let result = match kind {
                Reset::PowerLoss => {
                    let safe = medium.synchronized();
                    if safe < medium.objects() {
                        medium.truncate(safe)
                    } else {
                        Ok(())
                    }
                }
                Reset::LogicalUnit | Reset::Internal => medium.synchronize(),
            };
            if let Err(error) = result {
                self.trouble = Some(format!("resetting: {error}"));
            }
        }
        self.position = 0;
        self.mode = Mode::default();
        self.prevented = false;
        self.attentions.clear();
        self.attention(match kind {
            Reset::LogicalUnit => Asc::BUS_DEVICE_RESET_OCCURRED,
            Reset::Internal => Asc::DEVICE_INTERNAL_RESET,
            Reset::PowerLoss => Asc::POWER_ON_OCCURRED,
        });
    }

    /// Arms a fault.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.arm(fault);
    }

    /// Disarms all faults and says how many there were.
    pub fn clear_faults(&mut self) -> usize {
        self.faults.clear()
    }

    /// The faults that are armed.
    pub fn faults(&self) -> &[Fault] {
        self.faults.armed()
    }

    fn attention(&mut self, asc: Asc) {
        if !self.attentions.contains(&asc) {
            self.attentions.push_back(asc);
        }
    }

    fn request_sense(&mut self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        // Sense data goes out with each answer; what is left to ask for is news and state.
        let sense = match self.attentions.pop_front() {
            Some(asc) => Sense::new(Key::UNIT_ATTENTION, asc),
            None if self.medium().is_none() => Sense::new(Key::NOT_READY, Asc::MEDIUM_NOT_PRESENT),
            None => Sense::new(Key::NO_SENSE, Asc::NONE),
        };
        if cdb.bit(1, 0) {
            data_in.extend(sense.to_descriptors());
        } else {
            data_in.extend(sense.to_fixed());
        }
        data_in.truncate(usize::from(cdb.byte(4)));
        Ok(())
    }

    /// Sense data in the format that the initiator chose in the control mode page.
    pub fn sense_bytes(&self, sense: &Sense) -> Vec<u8> {
        if self.mode.descriptor_sense {
            sense.to_descriptors()
        } else {
            sense.to_fixed().to_vec()
        }
    }

    /// Remembers what failed on the host's side and makes sense data of it.
    fn host_error(&mut self, doing: &str, error: &std::io::Error, asc: Asc) -> Sense {
        self.trouble = Some(format!("{doing}: {error}"));
        Sense::new(Key::MEDIUM_ERROR, asc)
    }

    /// Number of the first of the filemarks that end the recorded data without interruption.
    fn trailing_filemarks(tape: &M) -> u64 {
        let mut first = tape.objects();
        while first > 0 && tape.object(first - 1) == Some(Object::Filemark) {
            first -= 1;
        }
        first
    }
}

fn needs(operation: u8) -> Needs {
    match operation {
        opcode::INQUIRY | opcode::REPORT_LUNS | opcode::REQUEST_SENSE => Needs::Nothing,
        opcode::TEST_UNIT_READY
        | opcode::READ_6
        | opcode::VERIFY_6
        | opcode::WRITE_6
        | opcode::WRITE_FILEMARKS_6
        | opcode::ERASE_6
        | opcode::REWIND
        | opcode::SPACE_6
        | opcode::SPACE_16
        | opcode::LOCATE_10
        | opcode::LOCATE_16
        | opcode::READ_POSITION
        | opcode::READ_ATTRIBUTE => Needs::Medium,
        _ => Needs::Attention,
    }
}
