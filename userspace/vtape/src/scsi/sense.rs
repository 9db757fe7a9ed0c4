// SPDX-License-Identifier: GPL-2.0-or-later
//! Sense data: why a command did not simply succeed (SPC-4, 4.5).

use std::fmt;
use std::str::FromStr;

/// The sense key: the kind of trouble, or of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u8);

impl Key {
    /// Nothing wrong; the flags and the additional code say what there is to know.
    pub const NO_SENSE: Key = Key(0x0);
    /// There is no usable medium.
    pub const NOT_READY: Key = Key(0x2);
    /// The medium failed.
    pub const MEDIUM_ERROR: Key = Key(0x3);
    /// The drive failed.
    pub const HARDWARE_ERROR: Key = Key(0x4);
    /// The command asks for something that is not offered.
    pub const ILLEGAL_REQUEST: Key = Key(0x5);
    /// Something changed behind the initiator's back.
    pub const UNIT_ATTENTION: Key = Key(0x6);
    /// The medium may not be written.
    pub const DATA_PROTECT: Key = Key(0x7);
    /// Nothing is recorded here.
    pub const BLANK_CHECK: Key = Key(0x8);
    /// The command was given up.
    pub const ABORTED_COMMAND: Key = Key(0xb);
    /// The medium is full and data is left over.
    pub const VOLUME_OVERFLOW: Key = Key(0xd);

    /// The key with this number, if it is one (four bits).
    pub fn new(key: u8) -> Option<Key> {
        (key < 16).then_some(Key(key))
    }

    /// The number of the key.
    pub fn code(self) -> u8 {
        self.0
    }
}

/// Additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asc(pub u8, pub u8);

#[allow(missing_docs)] // Each is the name that SPC-4 annex D gives to the pair.
impl Asc {
    pub const NONE: Asc = Asc(0x00, 0x00);
    pub const FILEMARK_DETECTED: Asc = Asc(0x00, 0x01);
    pub const END_OF_MEDIUM_DETECTED: Asc = Asc(0x00, 0x02);
    pub const BEGINNING_OF_MEDIUM_DETECTED: Asc = Asc(0x00, 0x04);
    pub const END_OF_DATA_DETECTED: Asc = Asc(0x00, 0x05);
    pub const WRITE_ERROR: Asc = Asc(0x0c, 0x00);
    pub const UNRECOVERED_READ_ERROR: Asc = Asc(0x11, 0x00);
    pub const PARAMETER_LIST_LENGTH_ERROR: Asc = Asc(0x1a, 0x00);
    pub const INVALID_COMMAND_OPERATION_CODE: Asc = Asc(0x20, 0x00);
    pub const INVALID_FIELD_IN_CDB: Asc = Asc(0x24, 0x00);
    pub const LOGICAL_UNIT_NOT_SUPPORTED: Asc = Asc(0x25, 0x00);
    pub const INVALID_FIELD_IN_PARAMETER_LIST: Asc = Asc(0x26, 0x00);
    pub const WRITE_PROTECTED: Asc = Asc(0x27, 0x00);
    pub const SOFTWARE_WRITE_PROTECTED: Asc = Asc(0x27, 0x02);
    pub const MEDIUM_MAY_HAVE_CHANGED: Asc = Asc(0x28, 0x00);
    pub const POWER_ON_OCCURRED: Asc = Asc(0x29, 0x01);
    pub const BUS_DEVICE_RESET_OCCURRED: Asc = Asc(0x29, 0x03);
    pub const DEVICE_INTERNAL_RESET: Asc = Asc(0x29, 0x04);
    pub const WORM_OVERWRITE_ATTEMPTED: Asc = Asc(0x30, 0x0c);
    pub const SAVING_PARAMETERS_NOT_SUPPORTED: Asc = Asc(0x39, 0x00);
    pub const MEDIUM_NOT_PRESENT: Asc = Asc(0x3a, 0x00);
    pub const INTERNAL_TARGET_FAILURE: Asc = Asc(0x44, 0x00);
    pub const DATA_PHASE_ERROR: Asc = Asc(0x4b, 0x00);
    pub const MEDIUM_REMOVAL_PREVENTED: Asc = Asc(0x53, 0x02);
}

/// Sense data before it is laid out in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The kind of trouble.
    pub key: Key,
    /// The particular trouble.
    pub asc: Asc,
    /// The INFORMATION field; for a tape, what was asked for and not done.
    ///
    /// Held in two's complement, because one of its meanings (a block longer than the
    /// transfer asked for) is negative.
    pub information: Option<i64>,
    /// A filemark stopped the command.
    pub filemark: bool,
    /// The position is in early warning, or at either end of the medium.
    pub eom: bool,
    /// The block is not of the length asked for.
    pub ili: bool,
    /// The byte that was wrong, for ILLEGAL REQUEST.
    pub field: Option<Field>,
}

/// Which byte of what the initiator sent was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// This byte of the command block.
    Command(u16),
    /// This byte of the parameter list.
    Parameter(u16),
}

/// Length of the sense data returned in fixed format.
pub const FIXED_LENGTH: usize = 18;

impl Sense {
    /// Sense data with no flag set and no information.
    pub const fn new(key: Key, asc: Asc) -> Self {
        Self { key, asc, information: None, filemark: false, eom: false, ili: false, field: None }
    }

    /// ILLEGAL REQUEST.
    pub const fn illegal(asc: Asc) -> Self {
        Self::new(Key::ILLEGAL_REQUEST, asc)
    }

    /// ILLEGAL REQUEST because of byte `at` of the command.
    pub const fn invalid_field(at: u16) -> Self {
        let mut sense = Self::illegal(Asc::INVALID_FIELD_IN_CDB);
        sense.field = Some(Field::Command(at));
        sense
    }

    /// ILLEGAL REQUEST because of byte `at` of the parameter list.
    pub const fn invalid_parameter(at: u16) -> Self {
        let mut sense = Self::illegal(Asc::INVALID_FIELD_IN_PARAMETER_LIST);
        sense.field = Some(Field::Parameter(at));
        sense
    }

    /// The same with the INFORMATION field set to what was not done.
    pub const fn residue(mut self, left: i64) -> Self {
        self.information = Some(left);
        self
    }

    /// The same with the FILEMARK bit.
    pub const fn with_filemark(mut self) -> Self {
        self.filemark = true;
        self
    }

    /// The same with the EOM bit.
    pub const fn with_eom(mut self) -> Self {
        self.eom = true;
        self
    }

    /// The same with the ILI bit.
    pub const fn with_ili(mut self) -> Self {
        self.ili = true;
        self
    }

    fn flags(&self) -> u8 {
        (u8::from(self.filemark) << 7) | (u8::from(self.eom) << 6) | (u8::from(self.ili) << 5)
    }

    fn field_bytes(&self) -> [u8; 3] {
        // Sense-key-specific data: SKSV, C/D, and the byte's number.
        match self.field {
            None => [0; 3],
            Some(Field::Command(at)) => [0xc0, (at >> 8) as u8, at as u8],
            Some(Field::Parameter(at)) => [0x80, (at >> 8) as u8, at as u8],
        }
    }

    /// Fixed format (SPC-4, 4.5.3), current error.
    ///
    /// INFORMATION has four bytes here; a value that does not fit is left out and VALID stays
    /// clear, as the standard wants it.
    pub fn to_fixed(&self) -> [u8; FIXED_LENGTH] {
        let mut out = [0; FIXED_LENGTH];
        out[0] = 0x70;
        out[2] = self.flags() | self.key.code();
        let fits = |n: &i64| (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(n);
        if let Some(information) = self.information.filter(fits) {
            out[0] |= 0x80;
            out[3..7].copy_from_slice(&(information as u32).to_be_bytes());
        }
        out[7] = (FIXED_LENGTH - 8) as u8;
        out[12] = self.asc.0;
        out[13] = self.asc.1;
        out[15..18].copy_from_slice(&self.field_bytes());
        out
    }

    /// Descriptor format (SPC-4, 4.5.2), current error.
    pub fn to_descriptors(&self) -> Vec<u8> {
        let mut out = vec![0x72, self.key.code(), self.asc.0, self.asc.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            out.extend([0x00, 0x0a, 0x80, 0x00]);
            out.extend(information.to_be_bytes());
        }
        if self.field.is_some() {
            out.extend([0x02, 0x06, 0x00, 0x00]);
            out.extend(self.field_bytes());
            out.push(0);
        }
        if self.flags() != 0 {
            out.extend([0x04, 0x02, 0x00, self.flags()]);
        }
        out[7] = (out.len() - 8) as u8;
        out
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{:02x}/{:02x}", self.key.code(), self.asc.0, self.asc.1)
    }
}

/// Reads `KEY/ASC/ASCQ` in hexadecimal, as in `3/0c/00`.
impl FromStr for Sense {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let complaint = || format!("'{text}' is not KEY/ASC/ASCQ in hexadecimal; write for example 3/0c/00");
        let parts: Vec<u8> = text
            .split('/')
            .map(|part| u8::from_str_radix(part.trim_start_matches("0x"), 16))
            .collect::<Result<_, _>>()
            .map_err(|_| complaint())?;
        match parts[..] {
            [key, asc, ascq] => {
                let key = Key::new(key).ok_or_else(complaint)?;
                Ok(Sense::new(key, Asc(asc, ascq)))
            }
            _ => Err(complaint()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_lays_out_flags_and_information() {
        let sense = Sense::new(Key::NO_SENSE, Asc::FILEMARK_DETECTED).residue(-5).with_filemark();
        let bytes = sense.to_fixed();
        assert_eq!(bytes[0], 0xf0);
        assert_eq!(bytes[2], 0x80);
        assert_eq!(bytes[3..7], [0xff, 0xff, 0xff, 0xfb]);
        assert_eq!(bytes[12..14], [0x00, 0x01]);
    }

    #[test]
    fn information_beyond_four_bytes_is_not_valid_in_fixed_format() {
        let sense = Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED).residue(1 << 40);
        assert_eq!(sense.to_fixed()[0], 0x70);
        let bytes = sense.to_descriptors();
        assert_eq!(bytes[8..20], [0, 0x0a, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn triples_are_read_as_hexadecimal() {
        let sense: Sense = "3/0c/00".parse().expect("a triple");
        assert_eq!(sense, Sense::new(Key::MEDIUM_ERROR, Asc::WRITE_ERROR));
        for bad in ["", "3", "3/0c", "10/00/00", "x/0/0", "3/0c/00/1"] {
            assert!(bad.parse::<Sense>().is_err(), "{bad}");
        }
    }
}
