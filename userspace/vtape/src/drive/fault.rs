// SPDX-License-Identifier: GPL-2.0-or-later
//! Faults that an operator armed: the nth command of a kind fails, waits, or finds the drive
//! reset.

use std::time::Duration;

use crate::scsi::{opcode, Sense};

/// Kinds of command that a fault can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Class {
    Read,
    Write,
    Filemark,
    Space,
    Locate,
    Position,
    Rewind,
    Erase,
    Load,
    Mode,
    Ready,
}

impl Class {
    /// The class of an operation; some are in none, so that a drive can always be looked at.
    pub fn of(operation: u8) -> Option<Class> {
        Some(match operation {
            opcode::READ_6 | opcode::VERIFY_6 => Class::Read,
            opcode::WRITE_6 => Class::Write,
            opcode::WRITE_FILEMARKS_6 => Class::Filemark,
            opcode::SPACE_6 | opcode::SPACE_16 => Class::Space,
            opcode::LOCATE_10 | opcode::LOCATE_16 => Class::Locate,
            opcode::READ_POSITION => Class::Position,
            opcode::REWIND => Class::Rewind,
            opcode::ERASE_6 => Class::Erase,
            opcode::LOAD_UNLOAD => Class::Load,
            opcode::MODE_SENSE_6 | opcode::MODE_SENSE_10 | opcode::MODE_SELECT_6 | opcode::MODE_SELECT_10 => {
                Class::Mode
            }
            opcode::TEST_UNIT_READY => Class::Ready,
            _ => return None,
        })
    }
}

/// What an armed fault does when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// The command is not carried out and fails with this.
    Fail(Sense),
    /// The command is carried out and fails with this all the same.
    FailAfter(Sense),
    /// The answer comes so much later.
    Delay(Duration),
    /// The drive resets itself first; the command meets a unit attention.
    Reset,
}

/// An armed fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// The kind of command it waits for; `None` is any of them.
    pub on: Option<Class>,
    /// It strikes at the nth such command from now, counted from one.
    pub nth: u64,
    /// And at so many after that one, in a row.
    pub times: u64,
    /// What it does.
    pub effect: Effect,
}

/// The faults of one drive.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn arm(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.0).len()
    }

    pub(super) fn armed(&self) -> &[Fault] {
        &self.0
    }

    /// Counts a command of `class` and says what strikes it. The oldest fault wins.
    pub(super) fn strike(&mut self, class: Class) -> Option<Effect> {
        let mut struck = None;
        for fault in &mut self.0 {
            if fault.on.is_some_and(|on| on != class) {
                continue;
            }
            if fault.nth > 1 {
                fault.nth -= 1;
            } else if struck.is_none() && fault.times > 0 {
                fault.times -= 1;
                struck = Some(fault.effect);
            }
        }
        self.0.retain(|fault| fault.times > 0);
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_the_nth_command_of_its_class_and_no_other() {
        let mut faults = Faults::default();
        faults.arm(Fault { on: Some(Class::Write), nth: 2, times: 2, effect: Effect::Reset });
        assert_eq!(faults.strike(Class::Read), None);
        assert_eq!(faults.strike(Class::Write), None);
        assert_eq!(faults.strike(Class::Write), Some(Effect::Reset));
        assert_eq!(faults.strike(Class::Read), None);
        assert_eq!(faults.strike(Class::Write), Some(Effect::Reset));
        assert_eq!(faults.strike(Class::Write), None);
        assert!(faults.armed().is_empty());
    }
}
