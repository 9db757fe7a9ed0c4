// SPDX-License-Identifier: GPL-2.0-or-later
//! MODE SENSE and MODE SELECT (SPC-4, 6.11 to 6.14 and 7.5; SSC-4, 8.3).

use crate::medium::Medium;
use crate::scsi::{opcode, Asc, Cdb, Sense};

use super::{Drive, MAX_BLOCK};

/// The density code of an image, from the range left to vendors.
pub const DENSITY: u8 = 0xf0;
/// "Leave the density as it is", in MODE SELECT.
const NO_CHANGE: u8 = 0x7f;

const CONTROL: u8 = 0x0a;
const DEVICE_CONFIGURATION: u8 = 0x10;
const MEDIUM_CONFIGURATION: u8 = 0x1d;
const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// Offset of the byte with `D_SENSE` in the control page, and the bit.
const D_SENSE: (usize, u8) = (2, 0x04);
/// Offset of the byte with `SWP` in the device configuration page, and the bit.
const SWP: (usize, u8) = (10, 0x04);

/// What an initiator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// Block length for fixed-block commands; zero while there is none.
    pub block_length: u32,
    /// Writes need not be on stable storage when they are answered.
    pub buffered: bool,
    /// The initiator protects the tape from itself.
    pub software_write_protect: bool,
    /// Sense data has descriptor format.
    pub descriptor_sense: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Self { block_length: 0, buffered: true, software_write_protect: false, descriptor_sense: false }
    }
}

/// A mode page: current or default values, and which bits can be changed.
struct Page {
    bytes: Vec<u8>,
    changeable: Vec<u8>,
}

impl Page {
    fn new(code: u8, length: u8) -> Self {
        let mut bytes = vec![0; usize::from(length) + 2];
        bytes[0] = code;
        bytes[1] = length;
        let mut changeable = vec![0; bytes.len()];
        changeable[..2].copy_from_slice(&bytes[..2]);
        Self { bytes, changeable }
    }

    fn set(mut self, at: usize, value: u8) -> Self {
        self.bytes[at] = value;
        self
    }

    fn changeable_bit(mut self, (at, bit): (usize, u8), on: bool) -> Self {
        self.changeable[at] |= bit;
        if on {
            self.bytes[at] |= bit;
        }
        self
    }
}

/// Pages in the order in which "all pages" returns them.
const PAGES: [u8; 8] = [0x01, 0x02, CONTROL, 0x0f, DEVICE_CONFIGURATION, 0x11, 0x1c, MEDIUM_CONFIGURATION];

fn page(code: u8, mode: &Mode, worm: bool) -> Option<Page> {
    Some(match code {
        // Read-write error recovery: no retries, a file has no second chance.
        0x01 => Page::new(code, 0x0a),
        // Disconnect-reconnect: nothing applies.
        0x02 => Page::new(code, 0x0e),
        CONTROL => Page::new(code, 0x0a).changeable_bit(D_SENSE, mode.descriptor_sense),
        // Data compression: none, and none to be switched on.
        0x0f => Page::new(code, 0x0e),
        DEVICE_CONFIGURATION => Page::new(code, 0x0e)
            .set(8, 0x40) // LOIS: READ POSITION and LOCATE work
            .set(10, 0x18) // EEG, SEW: what is buffered is written at early warning
            .changeable_bit(SWP, mode.software_write_protect),
        // Medium partition: one partition, and no more can be made.
        0x11 => Page::new(code, 0x06).set(4, 0x10).set(5, 0x03),
        // Informational exceptions: TapeAlert is polled (DEXCPT, no reporting).
        0x1c => Page::new(code, 0x0a).set(2, 0x08),
        MEDIUM_CONFIGURATION => {
            let page = Page::new(code, 0x1e).set(2, u8::from(worm));
            // No label may be written over; trailing filemarks but the first may.
            if worm {
                page.set(4, 0x00).set(5, 0x02)
            } else {
                page
            }
        }
        _ => return None,
    })
}

impl<M: Medium> Drive<M> {
    fn worm(&self) -> bool {
        self.medium().is_some_and(|medium| medium.cartridge().worm)
    }

    pub(super) fn mode_sense(&self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        let ten = cdb.opcode() == opcode::MODE_SENSE_10;
        let (code, subpage) = (cdb.byte(2) & 0x3f, cdb.byte(3));
        if subpage != 0 && subpage != ALL_SUBPAGES {
            return Err(Sense::invalid_field(3));
        }
        let defaults = Mode::default();
        let (mode, changeable) = match cdb.byte(2) >> 6 {
            0 => (&self.mode, false),
            1 => (&self.mode, true),
            2 => (&defaults, false),
            _ => return Err(Sense::illegal(Asc::SAVING_PARAMETERS_NOT_SUPPORTED)),
        };
        let codes: &[u8] = match &code {
            0 => &[], // vendor's page: header and block descriptor only
            &ALL_PAGES => &PAGES,
            code => std::slice::from_ref(code),
        };
        let mut pages = Vec::new();
        for &code in codes {
            let page = page(code, mode, self.worm()).ok_or(Sense::invalid_field(2))?;
            pages.extend(if changeable { page.changeable } else { page.bytes });
        }

        let mut descriptor = Vec::new();
        if !cdb.bit(1, 3) {
            descriptor.extend([if changeable { 0 } else { DENSITY }, 0, 0, 0]);
            let length = if changeable { 0xff_ffff } else { mode.block_length };
            descriptor.extend(length.to_be_bytes());
        }

        let cartridge = self.medium().map(Medium::cartridge);
        let medium_type = 0;
        let protected = cartridge.is_some_and(|cartridge| cartridge.protected) || mode.software_write_protect;
        let specific = (u8::from(protected) << 7) | (u8::from(mode.buffered) << 4);
        if ten {
            let length = 6 + descriptor.len() + pages.len();
            data_in.extend((length as u16).to_be_bytes());
            data_in.extend([medium_type, specific, 0, 0, 0, descriptor.len() as u8]);
        } else {
            let length = 3 + descriptor.len() + pages.len();
            data_in.extend([length as u8, medium_type, specific, descriptor.len() as u8]);
        }
        data_in.extend(descriptor);
        data_in.extend(pages);
        data_in.truncate(if ten { cdb.be16(7) } else { usize::from(cdb.byte(4)) });
        Ok(())
    }

    pub(super) fn mode_select(&mut self, cdb: Cdb<'_>, data: &[u8]) -> Result<(), Sense> {
        let ten = cdb.opcode() == opcode::MODE_SELECT_10;
        if cdb.bit(1, 0) {
            return Err(Sense::invalid_field(1)); // nothing is saved
        }
        let length = if ten { cdb.be16(7) } else { usize::from(cdb.byte(4)) };
        if length == 0 {
            return Ok(());
        }
        let truncated = Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR);
        let data = data.get(..length).ok_or(truncated)?;
        let header = if ten { 8 } else { 4 };
        if data.len() < header {
            return Err(truncated);
        }
        let (at_specific, descriptor_length) =
            if ten { (3, (usize::from(data[6]) << 8) | usize::from(data[7])) } else { (2, usize::from(data[3])) };

        // All of the list is looked at before any of it takes effect.
        let mut mode = self.mode.clone();
        mode.buffered = match (data[at_specific] >> 4) & 0x7 {
            0 => false,
            1 | 2 => true,
            _ => return Err(Sense::invalid_parameter(at_specific as u16)),
        };
        let pages = header + descriptor_length;
        match descriptor_length {
            0 => {}
            8 => {
                let descriptor = data.get(header..pages).ok_or(truncated)?;
                if ![0, DENSITY, NO_CHANGE].contains(&descriptor[0]) {
                    return Err(Sense::invalid_parameter(header as u16));
                }
                let block_length = u32::from_be_bytes([0, descriptor[5], descriptor[6], descriptor[7]]);
                if block_length > MAX_BLOCK {
                    return Err(Sense::invalid_parameter(header as u16 + 5));
                }
                mode.block_length = block_length;
            }
            _ => return Err(Sense::invalid_parameter(if ten { 6 } else { 3 })),
        }
        self.select_pages(data, pages, &mut mode)?;
        if !mode.buffered && self.medium().is_some() {
            self.flush()?;
        }
        self.mode = mode;
        Ok(())
    }

    fn select_pages(&self, data: &[u8], start: usize, mode: &mut Mode) -> Result<(), Sense> {
        let mut at = start;
        while at < data.len() {
            let truncated = Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR);
            // The top bit (PS) means nothing here; the next one would start a subpage.
            let code = data[at] & 0x7f;
            let page = page(code, &self.mode, self.worm()).ok_or(Sense::invalid_parameter(at as u16))?;
            let sent = data.get(at..at + page.bytes.len()).ok_or(truncated)?;
            if sent[1] != page.bytes[1] {
                return Err(Sense::invalid_parameter(at as u16 + 1));
            }
            for (i, byte) in sent.iter().enumerate().skip(2) {
                if (byte ^ page.bytes[i]) & !page.changeable[i] != 0 {
                    return Err(Sense::invalid_parameter((at + i) as u16));
                }
            }
            match code {
                CONTROL => mode.descriptor_sense = sent[D_SENSE.0] & D_SENSE.1 != 0,
                DEVICE_CONFIGURATION => mode.software_write_protect = sent[SWP.0] & SWP.1 != 0,
                _ => {}
            }
            at += page.bytes.len();
        }
        Ok(())
    }
}
