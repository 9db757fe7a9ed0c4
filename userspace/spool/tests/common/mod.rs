// SPDX-License-Identifier: GPL-2.0-or-later

//! Records and spools for the tests.
#![allow(dead_code)]

use std::fs::File;
use std::path::Path;

use reelfs_format::crc32c_append;
use reelfs_format::record::{
    record_len, seal, Attributes, Body, EmptyBody, Head, Identity, RecordType, WriteBody, HEADER_LEN,
};
use reelfs_spool::{Recovered, Spool, Writer};
use zerocopy::little_endian::U64;

/// The smallest segment size there is.
pub const SEGMENT: u64 = 4 << 20;

/// A write record with `payload` bytes that depend on `lsn` and `salt`.
pub fn record(lsn: u64, payload: usize, salt: u8) -> Vec<u8> {
    let mut record = vec![0; record_len(WriteBody::HEAD_LEN, payload).unwrap()];
    let data: Vec<u8> = (0..payload).map(|at| (at as u8) ^ (lsn as u8) ^ salt).collect();
    record[WriteBody::HEAD_LEN..WriteBody::HEAD_LEN + payload].copy_from_slice(&data);
    let head = Head {
        kind: RecordType::Write,
        flags: 0,
        lsn,
        time: 1,
        epoch: 1,
        uid: 0,
        object: Identity::new(1, &[7; 8]).unwrap(),
        payload_length: payload as u32,
        payload_crc: crc32c_append(0, &data),
    };
    seal(&mut record, &head, &WriteBody { offset: U64::new(0), attr: Attributes::ZERO }).unwrap();
    record
}

/// The smallest record there is.
pub fn tiny(lsn: u64) -> Vec<u8> {
    let mut record = vec![0; HEADER_LEN + 8];
    let head = Head {
        kind: RecordType::Noop,
        flags: 0,
        lsn,
        time: 1,
        epoch: 1,
        uid: 0,
        object: Identity::NONE,
        payload_length: 0,
        payload_crc: 0,
    };
    seal(&mut record, &head, &EmptyBody {}).unwrap();
    record
}

pub fn open(path: &Path) -> Spool {
    Spool::open_or_create(path, SEGMENT).unwrap().0
}

/// Prepares every segment when it is needed.
pub fn prepare(spool: &Spool) -> impl FnMut(u64) -> Option<File> + '_ {
    |number| Some(spool.prepare(number).unwrap())
}

/// Appends records with the given payload lengths, `batch` of them at a time; returns all their boundaries.
pub fn append(spool: &Spool, recovered: &Recovered, payloads: &[usize], batch: usize, salt: u8) -> Vec<u64> {
    let mut writer = Writer::new(spool, recovered).unwrap();
    let mut boundaries = vec![writer.end()];
    for chunk in payloads.chunks(batch) {
        for &payload in chunk {
            let record = record(writer.end(), payload, salt);
            if !writer.has_room(record.len()) {
                writer.flush(&mut prepare(spool), 1).unwrap();
            }
            boundaries.push(writer.push(&record).unwrap());
        }
        assert_eq!(writer.flush(&mut prepare(spool), 1).unwrap(), writer.end());
    }
    boundaries
}

/// Every record from `lsn` to `end`.
pub fn read_all(spool: &Spool, lsn: u64, end: u64) -> Vec<u8> {
    let mut records = reelfs_spool::Records::new(spool, lsn, 0);
    let mut bytes = Vec::new();
    loop {
        let (at, run) = records.next_run(end).unwrap();
        assert_eq!(at, lsn + bytes.len() as u64);
        if run.is_empty() {
            break;
        }
        bytes.extend_from_slice(run);
    }
    bytes
}
