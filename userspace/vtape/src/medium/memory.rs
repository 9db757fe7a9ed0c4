// SPDX-License-Identifier: GPL-2.0-or-later
//! A cartridge in memory, for the tests of the drive.

use std::io;

use super::{Cartridge, Index, Medium, Object, ReadError};

/// A cartridge that is gone with the process.
#[derive(Clone, Debug)]
pub struct Memory {
    cartridge: Cartridge,
    index: Index,
    data: Vec<Vec<u8>>,
    synchronized: u64,
}

impl Memory {
    /// An empty cartridge.
    pub fn new(cartridge: Cartridge) -> Self {
        Self { cartridge, index: Index::default(), data: Vec::new(), synchronized: 0 }
    }

    /// A rewritable cartridge of `capacity` bytes.
    pub fn with_capacity(capacity: u64, early_warning: u64) -> Self {
        Self::new(Cartridge {
            serial: "MEMORY".into(),
            barcode: String::new(),
            capacity,
            early_warning,
            worm: false,
            protected: false,
            loads: 0,
        })
    }

    /// The cartridge, to be changed.
    pub fn cartridge_mut(&mut self) -> &mut Cartridge {
        &mut self.cartridge
    }

    /// Makes object `number` unreadable.
    pub fn damage(&mut self, number: u64) {
        let mut index = Index::default();
        for n in 0..self.index.objects() {
            match self.index.object(n) {
                _ if n == number => index.push_damaged(self.index.used(n + 1) - self.index.used(n)),
                Some(Object::Block(length)) => index.push_block(length),
                Some(Object::Filemark) => index.push_filemark(),
                _ => index.push_damaged(self.index.used(n + 1) - self.index.used(n)),
            }
        }
        self.index = index;
    }
}

impl Medium for Memory {
    fn cartridge(&self) -> &Cartridge {
        &self.cartridge
    }

    fn objects(&self) -> u64 {
        self.index.objects()
    }

    fn object(&self, number: u64) -> Option<Object> {
        self.index.object(number)
    }

    fn used(&self, number: u64) -> u64 {
        self.index.used(number)
    }

    fn filemarks_before(&self, number: u64) -> u64 {
        self.index.filemarks_before(number)
    }

    fn filemark(&self, nth: u64) -> Option<u64> {
        self.index.filemark(nth)
    }

    fn read(&mut self, number: u64, out: &mut Vec<u8>) -> Result<(), ReadError> {
        match self.index.object(number) {
            Some(Object::Block(_)) => {
                out.extend_from_slice(&self.data[number as usize]);
                Ok(())
            }
            _ => Err(ReadError::Corrupt),
        }
    }

    fn truncate(&mut self, objects: u64) -> io::Result<()> {
        self.index.truncate(objects);
        self.data.truncate(objects as usize);
        self.synchronized = self.synchronized.min(objects);
        Ok(())
    }

    fn append_block(&mut self, data: &[u8]) -> io::Result<()> {
        self.index.push_block(data.len() as u32);
        self.data.push(data.to_vec());
        Ok(())
    }

    fn append_filemark(&mut self) -> io::Result<()> {
        self.index.push_filemark();
        self.data.push(Vec::new());
        Ok(())
    }

    fn synchronize(&mut self) -> io::Result<()> {
        self.synchronized = self.index.objects();
        Ok(())
    }

    fn synchronized(&self) -> u64 {
        self.synchronized
    }

    fn set_protected(&mut self, protected: bool) -> io::Result<()> {
        self.cartridge.protected = protected;
        Ok(())
    }
}
