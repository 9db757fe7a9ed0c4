// SPDX-License-Identifier: GPL-2.0-or-later
//! A virtual SSC tape drive: image files in, `/dev/st0` out.
//!
//! * [`scsi`]: command blocks, status and sense data.
//! * [`medium`]: what a cartridge is to a drive.
//! * [`drive`]: the drive itself, which does no input or output of its own.
//! * [`image`]: a cartridge in a file.
//! * [`target`]: a drive as a SCSI device of this machine.
//! * [`control`]: talking to a running server.
//! * [`cli`]: the commands.

pub mod cli;
pub mod control;
pub mod drive;
pub mod image;
pub mod medium;
pub mod scsi;
pub mod target;
