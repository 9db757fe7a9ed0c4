// SPDX-License-Identifier: GPL-2.0-or-later
//! Operation codes (SPC-4 annex D, SSC-4 table 13).
#![allow(missing_docs)] // The names are the documentation; the standard holds the rest.

pub const TEST_UNIT_READY: u8 = 0x00;
pub const REWIND: u8 = 0x01;
pub const REQUEST_SENSE: u8 = 0x03;
pub const READ_BLOCK_LIMITS: u8 = 0x05;
pub const READ_6: u8 = 0x08;
pub const WRITE_6: u8 = 0x0a;
pub const WRITE_FILEMARKS_6: u8 = 0x10;
pub const SPACE_6: u8 = 0x11;
pub const INQUIRY: u8 = 0x12;
pub const VERIFY_6: u8 = 0x13;
pub const MODE_SELECT_6: u8 = 0x15;
pub const RESERVE_6: u8 = 0x16;
pub const RELEASE_6: u8 = 0x17;
pub const ERASE_6: u8 = 0x19;
pub const MODE_SENSE_6: u8 = 0x1a;
pub const LOAD_UNLOAD: u8 = 0x1b;
pub const SEND_DIAGNOSTIC: u8 = 0x1d;
pub const PREVENT_ALLOW: u8 = 0x1e;
pub const LOCATE_10: u8 = 0x2b;
pub const READ_POSITION: u8 = 0x34;
pub const REPORT_DENSITY_SUPPORT: u8 = 0x44;
pub const LOG_SELECT: u8 = 0x4c;
pub const LOG_SENSE: u8 = 0x4d;
pub const MODE_SELECT_10: u8 = 0x55;
pub const RESERVE_10: u8 = 0x56;
pub const RELEASE_10: u8 = 0x57;
pub const MODE_SENSE_10: u8 = 0x5a;
pub const READ_ATTRIBUTE: u8 = 0x8c;
pub const SPACE_16: u8 = 0x91;
pub const LOCATE_16: u8 = 0x92;
pub const REPORT_LUNS: u8 = 0xa0;
