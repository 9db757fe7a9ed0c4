// SPDX-License-Identifier: GPL-2.0-or-later

//! Tapes, through the kernel's `st` driver.
//!
//! Blocks have variable length, the driver's own buffering is off, filemarks wait. Facts from
//! `Documentation/scsi/st.rst` and `drivers/scsi/st.c`: at early warning a write returns `ENOSPC` and has written
//! nothing, and the next one goes through; at the hard end every one returns it. A read of zero bytes is a filemark
//! or, right behind one, the end of data; elsewhere the end of data is `EIO`, told from damage by its position alone.
//! A blocking open of an empty drive waits two minutes, so no open here blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use reelfs_format::volume::{Label, VolumeError, LABEL_LEN};
use reelfs_sys::st::{self, op};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::label::LabelState;
use crate::medium::{Medium, MediumError, Position, Read, Written};

/// Buffering in the driver, which would hide which write an error belongs to (`MT_ST_BUFFER_WRITES`,
/// `MT_ST_ASYNC_WRITES`, `MT_ST_READ_AHEAD`).
const DRIVER_BUFFERING: i32 = 0x1 | 0x2 | 0x4;

/// A tape drive and the tape in it.
#[derive(Debug)]
pub struct Tape {
    path: PathBuf,
    file: Option<File>,
    writable: bool,
    /// Known once the label has been read.
    block_size: Option<usize>,
    /// The last write was refused for want of room.
    refused: bool,
}

impl Tape {
    /// Opens a drive for reading. [`MediumError::NoVolume`] if it is empty, [`MediumError::Busy`] if it is in use.
    pub fn open(path: &Path) -> Result<Self, MediumError> {
        let mut tape = Self::new(path, false);
        tape.attach()?;
        Ok(tape)
    }

    /// Opens a drive for reading and writing. [`MediumError::WriteProtected`] if the tape in it cannot be written.
    pub fn open_writable(path: &Path) -> Result<Self, MediumError> {
        let mut tape = Self::new(path, true);
        tape.attach()?;
        Ok(tape)
    }

    fn new(path: &Path, writable: bool) -> Self {
        Tape { path: path.into(), file: None, writable, block_size: None, refused: false }
    }

    /// Opens the device anew: the driver looks at the drive only then, after a reset or another tape.
    fn attach(&mut self) -> Result<(), MediumError> {
        self.file = None;
        self.block_size = None;
        self.refused = false;
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new()
            .read(true)
            .write(self.writable)
            .custom_flags(flags)
            .open(&self.path)
            .map_err(|source| self.error("opening the drive", source))?;
        let status = st::status(&file).map_err(|source| self.error("MTIOCGET", source))?;
        if !status.online() {
            return Err(MediumError::NoVolume { medium: self.describe() });
        }
        if self.writable && status.write_protected() {
            return Err(MediumError::WriteProtected { medium: self.describe() });
        }
        if st::operate(&file, op::SETBLK, 0).is_err() {
            // After a reset the driver does nothing else before the tape has been at a place that is known.
            st::operate(&file, op::REW, 1).map_err(|source| self.error("rewinding", source))?;
            st::operate(&file, op::SETBLK, 0).map_err(|source| self.error("MTSETBLK 0", source))?;
        }
        // These need CAP_SYS_ADMIN and only make good what an administrator may have changed: without them errors
        // are still noticed, at the filemark.
        let off = st::CLEAR_BOOLEANS | DRIVER_BUFFERING | st::NO_WAIT | st::NO_WAIT_EOF;
        let _ = st::operate(&file, op::SETDRVBUFFER, off);
        let _ = st::operate(&file, op::SETDRVBUFFER, st::SET_BOOLEANS | st::SCSI2_LOGICAL);
        self.file = Some(file);
        Ok(())
    }

    fn file(&self) -> Result<&File, MediumError> {
        self.file.as_ref().ok_or_else(|| MediumError::NoVolume { medium: self.describe() })
    }

    fn operate(&self, code: i16, count: i32, doing: &'static str) -> Result<(), MediumError> {
        st::operate(self.file()?, code, count).map_err(|source| self.error(doing, source))
    }

    fn error(&self, doing: &'static str, source: io::Error) -> MediumError {
        let medium = self.describe();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOMEDIUM | Errno::NXIO) => MediumError::NoVolume { medium },
            Some(Errno::BUSY) => MediumError::Busy { medium },
            Some(Errno::ACCESS | Errno::ROFS) => MediumError::WriteProtected { medium },
            _ if self.position_lost() => MediumError::PositionLost { medium },
            _ => MediumError::Io { medium, doing, source },
        }
    }

    /// Whether the driver saw a reset. Sysfs says so; where it does not, a failing call has to be enough.
    fn position_lost(&self) -> bool {
        let Some(name) = self.path.file_name() else {
            return false;
        };
        let flag = Path::new("/sys/class/scsi_tape").join(name).join("position_lost_in_reset");
        std::fs::read_to_string(flag).is_ok_and(|text| text.trim() == "1")
    }

    /// `EIO` from a read: the end of the data, or a block that cannot be read.
    fn judge(&mut self, here: Position, source: io::Error) -> Result<Read, MediumError> {
        if self.position_lost() {
            return Err(MediumError::PositionLost { medium: self.describe() });
        }
        let end = self.seek_end_of_data()?;
        if here >= end {
            return Ok(Read::EndOfData);
        }
        Err(MediumError::Unreadable { medium: self.describe(), position: here.0, source })
    }

    fn read_into(&mut self, block: &mut Vec<u8>, length: usize) -> Result<Read, MediumError> {
        let here = self.position()?;
        block.resize(length, 0);
        let mut file = self.file()?;
        let count = match file.read(block) {
            Ok(count) => count,
            Err(source) => {
                block.clear();
                return match source.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::IO) => self.judge(here, source),
                    Some(Errno::NOSPC) => Ok(Read::EndOfMedium),
                    Some(Errno::NOMEM | Errno::OVERFLOW) => {
                        Err(MediumError::Unreadable { medium: self.describe(), position: here.0, source })
                    }
                    _ => Err(self.error("read", source)),
                };
            }
        };
        block.truncate(count);
        if count > 0 {
            return Ok(Read::Block);
        }
        let status = st::status(self.file()?).map_err(|source| self.error("MTIOCGET", source))?;
        // The driver's flags tell a filemark from the end, except behind a seek: then the position does.
        if status.at_end_of_data() {
            Ok(Read::EndOfData)
        } else if status.at_end_of_tape() && self.position()? == here {
            Ok(Read::EndOfMedium)
        } else if status.at_filemark() || self.position()? > here {
            Ok(Read::Filemark)
        } else {
            Ok(Read::EndOfData)
        }
    }
}

impl Medium for Tape {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn loaded(&mut self) -> Result<bool, MediumError> {
        match self.attach() {
            Ok(()) => Ok(true),
            Err(MediumError::NoVolume { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_label(&mut self) -> Result<LabelState, MediumError> {
        self.attach()?;
        self.operate(op::REW, 1, "rewinding")?;
        let mut block = Vec::new();
        match self.read_into(&mut block, LABEL_LEN) {
            Ok(Read::Block) => {}
            Ok(Read::EndOfData | Read::EndOfMedium) => return Ok(LabelState::Blank),
            // A filemark, or a block longer than a label: somebody's tape.
            Ok(Read::Filemark) | Err(MediumError::Unreadable { .. }) => {
                return Ok(LabelState::Foreign(VolumeError::Magic))
            }
            Err(error) => return Err(error),
        }
        match Label::parse(&block) {
            Ok(label) => {
                let label = *label;
                self.block_size = Some(label.block_size.get() as usize);
                // The filemark behind the label.
                self.seek(Position(2))?;
                Ok(LabelState::Labelled(Box::new(label)))
            }
            Err(error) => Ok(LabelState::Foreign(error)),
        }
    }

    fn write_label(&mut self, label: &Label) -> Result<(), MediumError> {
        self.attach()?;
        self.operate(op::REW, 1, "rewinding")?;
        let mut file = self.file()?;
        let written = file.write(label.as_bytes()).map_err(|source| self.error("writing the label", source))?;
        if written != LABEL_LEN {
            return Err(self.error("writing the label", io::ErrorKind::WriteZero.into()));
        }
        self.write_filemark()?;
        self.block_size = Some(label.block_size.get() as usize);
        Ok(())
    }

    fn read_block(&mut self, block: &mut Vec<u8>) -> Result<Read, MediumError> {
        self.read_into(block, self.block_size.unwrap_or(LABEL_LEN))
    }

    fn write_block(&mut self, block: &[u8]) -> Result<Written, MediumError> {
        if !self.writable {
            return Err(MediumError::WriteProtected { medium: self.describe() });
        }
        let mut file = self.file()?;
        match file.write(block) {
            Ok(count) if count == block.len() => {
                self.refused = false;
                Ok(Written::Taken)
            }
            Ok(_) => Err(self.error("writing a block", io::ErrorKind::WriteZero.into())),
            Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                let twice = std::mem::replace(&mut self.refused, true);
                Ok(if twice { Written::Full } else { Written::EarlyWarning })
            }
            Err(source) => Err(self.error("writing a block", source)),
        }
    }

    fn write_filemark(&mut self) -> Result<(), MediumError> {
        // MTWEOF, not MTWEOFI: the drive answers when its buffer is on the tape.
        self.operate(op::WEOF, 1, "writing a filemark")
    }

    fn position(&mut self) -> Result<Position, MediumError> {
        st::position(self.file()?).map(Position).map_err(|source| self.error("MTIOCPOS", source))
    }

    fn seek(&mut self, position: Position) -> Result<(), MediumError> {
        let block = i32::try_from(position.0)
            .map_err(|_| self.error("seeking", io::Error::from(io::ErrorKind::InvalidInput)))?;
        self.operate(op::SEEK, block, "seeking")
    }

    fn seek_end_of_data(&mut self) -> Result<Position, MediumError> {
        self.operate(op::EOM, 1, "going to the end of the data")?;
        self.position()
    }

    fn unload(&mut self) -> Result<(), MediumError> {
        self.operate(op::OFFL, 1, "ejecting")?;
        self.file = None;
        Ok(())
    }
}
