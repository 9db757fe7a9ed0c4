// SPDX-License-Identifier: GPL-2.0-or-later
//! A virtual SSC tape drive.
pub mod scsi;
