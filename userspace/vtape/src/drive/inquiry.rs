// SPDX-License-Identifier: GPL-2.0-or-later
//! Commands that describe the drive and its cartridge: INQUIRY, REPORT LUNS, READ BLOCK LIMITS,
//! REPORT DENSITY SUPPORT, READ ATTRIBUTE (SPC-4, 6.6, 6.33, SSC-4, 7.5, 7.8, SPC-4, 6.16).

use crate::medium::Medium;
use crate::scsi::{Asc, Cdb, Sense};

use super::mode::DENSITY;
use super::{Drive, MAX_BLOCK};

/// Eight bytes of T10 vendor identification, not registered.
const VENDOR: &[u8; 8] = b"REELFS  ";
const PRODUCT: &[u8; 16] = b"VTAPE           ";
const REVISION: &[u8; 4] = b"0100";
/// Peripheral device type of a sequential-access device.
const SEQUENTIAL_ACCESS: u8 = 0x01;
/// Granularity of block lengths, as a power of two: any length.
const GRANULARITY: u8 = 0;
/// The smallest block.
const MIN_BLOCK: u16 = 1;

/// `text` in a field of fixed width, filled with spaces.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

impl<M: Medium> Drive<M> {
    pub(super) fn inquiry(&self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        let page = cdb.byte(2);
        if cdb.bit(1, 0) {
            let body = self.vital_product_data(page).ok_or(Sense::invalid_field(2))?;
            data_in.extend([SEQUENTIAL_ACCESS, page]);
            data_in.extend((body.len() as u16).to_be_bytes());
            data_in.extend(body);
        } else {
            if page != 0 {
                return Err(Sense::invalid_field(2));
            }
            // Removable medium, SPC-4, response data format 2, command queueing.
            data_in.extend([SEQUENTIAL_ACCESS, 0x80, 0x06, 0x02, 0, 0, 0, 0x02]);
            data_in.extend(VENDOR);
            data_in.extend(PRODUCT);
            data_in.extend(REVISION);
            data_in.resize(58, 0);
            // Version descriptors: SAM-5, SPC-4, SSC-4, without naming a revision.
            for standard in [0x00a0u16, 0x0460, 0x0520] {
                data_in.extend(standard.to_be_bytes());
            }
            data_in.resize(96, 0);
            data_in[4] = (96 - 5) as u8;
        }
        data_in.truncate(cdb.be16(3));
        Ok(())
    }

    fn vital_product_data(&self, page: u8) -> Option<Vec<u8>> {
        Some(match page {
            0x00 => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
            0x80 | 0xb1 => self.serial.clone().into_bytes(),
            0x83 => {
                // One designator: ASCII, of the logical unit, T10 vendor identification.
                let mut name = VENDOR.to_vec();
                name.extend(PRODUCT);
                name.extend(self.serial.bytes());
                let mut out = vec![0x02, 0x01, 0x00, name.len() as u8];
                out.extend(name);
                out
            }
            // Sequential-access device capabilities: WORM cartridges are understood.
            0xb0 => vec![0x01, 0x00],
            // TapeAlert flags that this drive can raise.
            0xb2 => super::log::supported_alerts().to_vec(),
            _ => return None,
        })
    }

    pub(super) fn report_luns(&self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        // One logical unit, number zero.
        data_in.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        data_in.truncate(cdb.be32(6) as usize);
        Ok(())
    }

    pub(super) fn read_block_limits(&self, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        data_in.extend(((u32::from(GRANULARITY) << 24) | MAX_BLOCK).to_be_bytes());
        data_in.extend(MIN_BLOCK.to_be_bytes());
        Ok(())
    }

    pub(super) fn report_density_support(&self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        if cdb.bit(1, 1) {
            return Err(Sense::invalid_field(1)); // by medium type: there is one medium
        }
        let of_medium = cdb.bit(1, 0);
        let capacity = match self.medium() {
            Some(medium) => medium.cartridge().capacity,
            None if of_medium => {
                return Err(Sense::new(crate::scsi::Key::NOT_READY, Asc::MEDIUM_NOT_PRESENT));
            }
            None => 0,
        };
        let megabytes = u32::try_from(capacity / 1_000_000).unwrap_or(u32::MAX);
        let mut descriptor = vec![DENSITY, DENSITY, 0xa0, 0, 0];
        descriptor.extend([0; 3]); // bits per mm mean nothing here
        descriptor.extend([0; 2]); // nor does a width
        descriptor.extend(1u16.to_be_bytes()); // tracks
        descriptor.extend(megabytes.to_be_bytes());
        descriptor.extend(padded::<8>("REELFS"));
        descriptor.extend(padded::<8>("VTAPE1"));
        descriptor.extend(padded::<20>("image file"));
        data_in.extend((descriptor.len() as u16 + 2).to_be_bytes());
        data_in.extend([0, 0]);
        data_in.extend(descriptor);
        data_in.truncate(cdb.be16(7));
        Ok(())
    }

    pub(super) fn read_attribute(&mut self, cdb: Cdb<'_>, data_in: &mut Vec<u8>) -> Result<(), Sense> {
        let position = self.position;
        let tape = self.tape()?;
        let cartridge = tape.cartridge();
        let mebibytes = |bytes: u64| (bytes >> 20).to_be_bytes().to_vec();
        let left = cartridge.capacity.saturating_sub(tape.used(position));
        // Identifier, format (00b binary, 01b ASCII), value; all read-only (SPC-4, 7.4).
        let attributes: [(u16, u8, Vec<u8>); 7] = [
            (0x0000, 0, mebibytes(left)),
            (0x0001, 0, mebibytes(cartridge.capacity)),
            (0x0003, 0, cartridge.loads.to_be_bytes().to_vec()),
            (0x0400, 1, padded::<8>("REELFS").to_vec()),
            (0x0401, 1, padded::<32>(&cartridge.serial).to_vec()),
            (0x0408, 0, vec![if cartridge.worm { 0x80 } else { 0x00 }]),
            (0x0806, 1, padded::<32>(&cartridge.barcode).to_vec()),
        ];
        let first = cdb.be16(8);
        let wanted = attributes.iter().filter(|(id, ..)| usize::from(*id) >= first);
        let mut body = Vec::new();
        match cdb.byte(1) & 0x1f {
            0x00 => {
                for (id, format, value) in wanted {
                    body.extend(id.to_be_bytes());
                    body.push(0x80 | format);
                    body.extend((value.len() as u16).to_be_bytes());
                    body.extend(value);
                }
            }
            0x01 => wanted.for_each(|(id, ..)| body.extend(id.to_be_bytes())),
            0x02 | 0x03 => {
                // The list of volumes, of partitions: one, the first.
                data_in.extend([0, 2, 0, 1]);
                data_in.truncate(cdb.be32(10) as usize);
                return Ok(());
            }
            _ => return Err(Sense::invalid_field(1)),
        }
        data_in.extend((body.len() as u32).to_be_bytes());
        data_in.extend(body);
        data_in.truncate(cdb.be32(10) as usize);
        Ok(())
    }
}
