// SPDX-License-Identifier: GPL-2.0-or-later
//! The end of the tape: announced, then hard.

use std::fs::File;
use std::io::{Read, Write};

use rustix::io::Errno;

use crate::tape::{block, create, Drive, Fallible, Server};
use crate::{Context, TestResult};

const LENGTH: usize = 32 << 10;
/// What a block of that length takes on the tape.
const COST: usize = LENGTH + 40;

/// Writes until the driver has said `ENOSPC` so many times in a row. Returns the numbers of
/// the blocks that were taken, in order, and how many had been taken at the first `ENOSPC`.
fn fill(tape: &mut File, in_a_row: u32) -> Fallible<(Vec<u64>, usize)> {
    let (mut taken, mut first, mut refused) = (Vec::new(), None, 0);
    for seed in 0u64.. {
        match tape.write(&block(seed, LENGTH)) {
            Ok(LENGTH) => {
                refused = 0;
                taken.push(seed);
            }
            Ok(n) => return Err(format!("block {seed}: {n} bytes taken").into()),
            Err(e) if e.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                first.get_or_insert(taken.len());
                refused += 1;
                if refused == in_a_row {
                    break;
                }
            }
            Err(e) => return Err(format!("block {seed}: {e}").into()),
        }
    }
    Ok((taken, first.unwrap_or_default()))
}

/// Every block that was taken is there, in order, and nothing else.
fn check(drive: &Drive, taken: &[u64]) -> TestResult {
    drive.mt("rewind")?;
    let found = drive.read_file()?;
    assert_eq!(found.len(), taken.len());
    for (found, &seed) in found.iter().zip(taken) {
        assert!(*found == block(seed, LENGTH), "block {seed}");
    }
    Ok(())
}

/// At early warning the driver says `ENOSPC` while there is room left.
pub fn early_warning(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 4M --early-warning 1M")?;
    let (server, drive) = Server::with(&image)?;
    let mut tape = drive.open()?;
    let (taken, first) = fill(&mut tape, 1)?;
    assert_eq!(first, taken.len());
    // The block with which early warning begins is written, and answered with the warning.
    assert_eq!(first, (3usize << 20).div_ceil(COST));
    // A program that heeds the warning ends its work with a trailer.
    assert_eq!(tape.write(&block(1000, 512))?, 512);
    drop(tape);
    drive.mt("rewind")?;
    let found = drive.read_file()?;
    assert_eq!(found.len(), taken.len() + 1);
    assert!(found.last() == Some(&block(1000, 512)));
    server.stop()
}

/// Who does not heed the warning meets the end: nothing is taken any more, and nothing that
/// was taken is lost. Filemarks still fit.
pub fn hard_end(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 4M --early-warning 1M")?;
    let (server, drive) = Server::with(&image)?;
    let mut tape = drive.open()?;
    let (taken, first) = fill(&mut tape, 4)?;
    assert!(first < taken.len(), "writing goes on after the warning");
    assert_eq!(taken.len(), (4 << 20) / COST);
    drop(tape);
    drive.mt("weof 2")?;
    assert_eq!(drive.tell()?, taken.len() as u64 + 3);
    check(&drive, &taken)?;
    // All of it again: the tape is as long as it was.
    drive.mt("rewind")?;
    let mut tape = drive.open()?;
    assert_eq!(fill(&mut tape, 4)?.0.len(), taken.len());
    drop(tape);
    server.stop()
}

/// The same in fixed-block mode: the driver says how much of a write was taken.
pub fn hard_end_fixed(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 1M --early-warning 0")?;
    let (server, drive) = Server::with(&image)?;
    drive.mt("setblk 4096")?;
    let data = block(5, 64 * 4096);
    let mut tape = drive.open()?;
    let (mut written, mut refused) = (0, 0);
    while refused < 4 {
        match tape.write(&data[written % data.len()..]) {
            Ok(0) => return Err("a write took nothing and said nothing".into()),
            Ok(n) => {
                refused = 0;
                written += n;
            }
            Err(e) if e.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => refused += 1,
            Err(e) => return Err(e.into()),
        }
    }
    drop(tape);
    assert_eq!(written, (1 << 20) / (4096 + 40) * 4096);
    drive.mt("rewind")?;
    let mut tape = drive.open_to_read()?;
    let mut buffer = vec![0; 4096];
    let mut at = 0;
    while tape.read(&mut buffer)? == 4096 {
        assert!(buffer == data[at % data.len()..][..4096], "byte {at}");
        at += 4096;
    }
    assert_eq!(at, written);
    server.stop()
}
