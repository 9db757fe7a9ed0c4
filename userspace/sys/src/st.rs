// SPDX-License-Identifier: GPL-2.0-or-later
//! The ioctls of the kernel's SCSI tape driver.
//!
//! C header: `include/uapi/linux/mtio.h`; behaviour: `Documentation/scsi/st.rst` and st(4). The calls here carry
//! arguments in and results out and judge nothing.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;

use rustix::fd::AsFd;
use rustix::ioctl::{self, opcode, Getter, Setter};

/// Operations of [`operate`]: `MT*` of the header. The count's meaning is in parentheses.
pub mod op {
    /// Space forward over filemarks (how many).
    pub const FSF: i16 = 1;
    /// Space backward over filemarks (how many); the position is before the last one.
    pub const BSF: i16 = 2;
    /// Space forward over blocks (how many).
    pub const FSR: i16 = 3;
    /// Space backward over blocks (how many).
    pub const BSR: i16 = 4;
    /// Write filemarks (how many) and wait until everything is on the tape.
    pub const WEOF: i16 = 5;
    /// Rewind (none).
    pub const REW: i16 = 6;
    /// Rewind and put the drive off line: eject (none).
    pub const OFFL: i16 = 7;
    /// Nothing, but flush the driver's buffer (none).
    pub const NOP: i16 = 8;
    /// Go behind the last thing recorded (none).
    pub const EOM: i16 = 12;
    /// Set the block length (bytes; 0 for blocks of variable length).
    pub const SETBLK: i16 = 20;
    /// Go to a block (its number).
    pub const SEEK: i16 = 22;
    /// Set options of the driver (`MT_ST_*`).
    pub const SETDRVBUFFER: i16 = 24;
    /// Lock the door (none).
    pub const LOCK: i16 = 28;
    /// Unlock the door (none).
    pub const UNLOCK: i16 = 29;
    /// Load the tape (none).
    pub const LOAD: i16 = 30;
    /// Write filemarks (how many) without waiting.
    pub const WEOFI: i16 = 35;
}

/// [`op::SETDRVBUFFER`]: switches the options in the low bits on.
pub const SET_BOOLEANS: i32 = 0x3000_0000;
/// [`op::SETDRVBUFFER`]: switches the options in the low bits off.
pub const CLEAR_BOOLEANS: i32 = 0x4000_0000;
/// Option: block numbers are logical, as all drives count alike, not the drive's own.
pub const SCSI2_LOGICAL: i32 = 0x800;
/// Option: ioctls do not wait for what they started.
pub const NO_WAIT: i32 = 0x2000;
/// Option: filemarks do not wait.
pub const NO_WAIT_EOF: i32 = 0x8000;
/// Option: going to the end does not count filemarks.
pub const FAST_EOM: i32 = 0x20;

/// What [`status`] says: `struct mtget`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Status {
    /// `MT_IS*`: kind of drive.
    pub kind: libc_long,
    /// Residual count.
    pub residual: libc_long,
    /// Density code in bits 24 to 31, block size in bits 0 to 23.
    pub drive: libc_long,
    /// `GMT_*` bits.
    pub general: libc_long,
    /// Soft errors since the last call.
    pub errors: libc_long,
    /// Number of filemarks before the position, -1: not known.
    pub file: i32,
    /// Number of blocks since the last filemark, -1: not known.
    pub block: i32,
}

#[allow(non_camel_case_types)]
type libc_long = std::ffi::c_long;

impl Status {
    /// Behind a filemark (`GMT_EOF`).
    pub fn at_filemark(&self) -> bool {
        self.general & 0x8000_0000 != 0
    }
    /// At the beginning of the tape (`GMT_BOT`).
    pub fn at_beginning(&self) -> bool {
        self.general & 0x4000_0000 != 0
    }
    /// Past early warning (`GMT_EOT`).
    pub fn at_end_of_tape(&self) -> bool {
        self.general & 0x2000_0000 != 0
    }
    /// Behind the last thing recorded (`GMT_EOD`).
    pub fn at_end_of_data(&self) -> bool {
        self.general & 0x0800_0000 != 0
    }
    /// Write-protected (`GMT_WR_PROT`).
    pub fn write_protected(&self) -> bool {
        self.general & 0x0400_0000 != 0
    }
    /// A tape is loaded and ready (`GMT_ONLINE`).
    pub fn online(&self) -> bool {
        self.general & 0x0100_0000 != 0
    }
    /// The door is open: no tape (`GMT_DR_OPEN`).
    pub fn door_open(&self) -> bool {
        self.general & 0x0004_0000 != 0
    }
}

#[repr(C)]
struct Operation {
    op: i16,
    count: i32,
}

#[repr(C)]
struct Place {
    block: libc_long,
}

/// `MTIOCTOP`: does `op`, one of [`op`], with `count`. Returns when it is done, which may take minutes.
///
/// Errors are the driver's: `EIO` at a filemark or the end, or the position is not known; `ENOMEDIUM` no tape;
/// `EACCES` write-protected; `EBUSY` in use.
pub fn operate(tape: &File, op: i16, count: i32) -> io::Result<()> {
    // SAFETY: MTIOCTOP reads one `struct mtop`, a short and an int as `Operation` has them (linux/mtio.h).
    let call = unsafe { Setter::<{ opcode::write::<Operation>(b'm', 1) }, Operation>::new(Operation { op, count }) };
    // SAFETY: the opcode and the type belong together, as said above; the descriptor is borrowed for the call.
    unsafe { ioctl::ioctl(tape.as_fd(), call) }?;
    Ok(())
}

/// `MTIOCGET`: the state of drive and tape.
pub fn status(tape: &File) -> io::Result<Status> {
    // SAFETY: MTIOCGET fills one `struct mtget`: five longs and two `__kernel_daddr_t` (int), as `Status` has them.
    let call = unsafe { Getter::<{ opcode::read::<Status>(b'm', 2) }, Status>::new() };
    // SAFETY: the opcode and the type belong together, as said above; the descriptor is borrowed for the call.
    Ok(unsafe { ioctl::ioctl(tape.as_fd(), call) }?)
}

/// `MTIOCPOS`: number of the block that the tape is before; filemarks count.
pub fn position(tape: &File) -> io::Result<u64> {
    // SAFETY: MTIOCPOS fills one `struct mtpos`, a long, as `Place` has it.
    let call = unsafe { Getter::<{ opcode::read::<Place>(b'm', 3) }, Place>::new() };
    // SAFETY: the opcode and the type belong together, as said above; the descriptor is borrowed for the call.
    let place: Place = unsafe { ioctl::ioctl(tape.as_fd(), call) }?;
    u64::try_from(place.block).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

const _: () = {
    assert!(std::mem::size_of::<MaybeUninit<Operation>>() == 8);
    assert!(std::mem::size_of::<MaybeUninit<Status>>() == 5 * std::mem::size_of::<libc_long>() + 8);
};
