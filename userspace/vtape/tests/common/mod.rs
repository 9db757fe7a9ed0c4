// SPDX-License-Identifier: GPL-2.0-or-later
//! A drive on the bench: command blocks in, data and sense out.
#![allow(dead_code)] // each test program uses its part

use vtape::drive::Drive;
use vtape::medium::{Medium, Memory};
use vtape::scsi::{opcode, Sense};

/// A drive that has told its news.
pub struct Bench<M> {
    pub drive: Drive<M>,
}

/// A new drive with this cartridge, ready.
pub fn bench<M: Medium>(medium: M) -> Bench<M> {
    let mut bench = Bench { drive: Drive::new("BENCH") };
    assert!(bench.drive.insert(medium).is_ok());
    while bench.run(&[0; 6], &[]).0.is_some() {}
    bench
}

/// A drive with a rewritable cartridge of a mebibyte that warns 64 KiB before its end.
pub fn small() -> Bench<Memory> {
    bench(Memory::with_capacity(1 << 20, 64 << 10))
}

impl<M: Medium> Bench<M> {
    /// Sense, if the command did not simply succeed, and data.
    pub fn run(&mut self, cdb: &[u8], out: &[u8]) -> (Option<Sense>, Vec<u8>) {
        let mut data = Vec::new();
        let outcome = self.drive.execute(cdb, out, &mut data);
        (outcome.sense, data)
    }

    /// The data of a command that must succeed.
    #[track_caller]
    pub fn good(&mut self, cdb: &[u8], out: &[u8]) -> Vec<u8> {
        let (sense, data) = self.run(cdb, out);
        assert_eq!(sense, None, "{cdb:02x?}");
        data
    }

    /// The sense of a command that must not simply succeed.
    #[track_caller]
    pub fn bad(&mut self, cdb: &[u8], out: &[u8]) -> Sense {
        let (sense, _) = self.run(cdb, out);
        sense.unwrap_or_else(|| panic!("{cdb:02x?} succeeded"))
    }

    #[track_caller]
    pub fn write(&mut self, block: &[u8]) {
        self.good(&six(opcode::WRITE_6, 0, block.len() as u32), block);
    }

    #[track_caller]
    pub fn filemarks(&mut self, count: u32) {
        self.good(&six(opcode::WRITE_FILEMARKS_6, 0, count), &[]);
    }

    #[track_caller]
    pub fn rewind(&mut self) {
        self.good(&six(opcode::REWIND, 0, 0), &[]);
    }

    #[track_caller]
    pub fn block_length(&mut self, length: u32) {
        let mut list = [0; 12];
        list[2] = 0x10;
        list[3] = 8;
        list[8..].copy_from_slice(&length.to_be_bytes());
        self.good(&[opcode::MODE_SELECT_6, 0x10, 0, 0, 12, 0], &list);
    }

    /// The position that READ POSITION tells in its long form: object and file.
    #[track_caller]
    pub fn position(&mut self) -> (u64, u64) {
        let data = self.good(&[opcode::READ_POSITION, 0x06, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
        (be64(&data[8..16]), be64(&data[16..24]))
    }
}

/// A command of six bytes with a count of 24 bits, as most of a tape's are.
pub fn six(operation: u8, flags: u8, count: u32) -> [u8; 6] {
    let [_, a, b, c] = count.to_be_bytes();
    [operation, flags, a, b, c, 0]
}

pub fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, &byte| n << 8 | u64::from(byte))
}
