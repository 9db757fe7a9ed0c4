// SPDX-License-Identifier: GPL-2.0-or-later
//! Drives that fail, and tapes that are damaged.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::tape::{block, blocks, create, errno, read_block, try_vtape, vtape, write_block, Drive, Server};
use crate::{Context, TestResult};

const IO: i32 = Errno::IO.raw_os_error();
const LENGTH: usize = 64 << 10;

pub fn injected_errors(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    vtape(&["inject", "tape", "--on", "write", "--nth", "3", "--sense", "3/0c/00"])?;
    let mut tape = drive.open()?;
    let results: Vec<_> = (0..5).map(|seed| errno(tape.write(&block(seed, LENGTH)))).collect();
    assert_eq!(results, [None, None, Some(IO), None, None]);
    drop(tape);
    drive.mt("rewind")?;
    let expected: Vec<_> = [0, 1, 3, 4].iter().map(|&seed| block(seed, LENGTH)).collect();
    assert!(drive.read_file()? == expected);

    // The error comes although the block was written.
    drive.mt("rewind")?;
    vtape(&["inject", "tape", "--on", "write", "--sense", "4/44/00", "--after"])?;
    let mut tape = drive.open()?;
    assert_eq!(errno(tape.write(&block(9, LENGTH))), Some(IO));
    drop(tape);
    drive.mt("rewind")?;
    let mut tape = drive.open_to_read()?;
    assert!(read_block(&mut tape)? == Some(block(9, LENGTH)));
    drop(tape);

    drive.mt("rewind")?;
    vtape(&["inject", "tape", "--on", "read", "--sense", "3/11/00"])?;
    let mut tape = drive.open_to_read()?;
    assert_eq!(errno(read_block(&mut tape)), Some(IO));
    drop(tape);
    drive.mt("rewind")?;

    vtape(&["inject", "tape", "--on", "rewind", "--delay", "1500"])?;
    let started = Instant::now();
    drive.mt("rewind")?;
    assert!(started.elapsed() >= Duration::from_millis(1500));

    vtape(&["inject", "tape", "--on", "write", "--sense", "3/0c/00", "--times", "1000"])?;
    vtape(&["inject", "tape", "--clear"])?;
    drive.write_file(&blocks(1, &[LENGTH]))?;
    assert_eq!(try_vtape(&["inject", "tape", "--sense", "nonsense"])?.0, Some(1));
    server.stop()
}

/// After a reset the drive is at the beginning, and the driver lets nobody write there by
/// accident.
pub fn reset(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    let mut tape = drive.open()?;
    write_block(&mut tape, &block(1, LENGTH))?;
    write_block(&mut tape, &block(2, LENGTH))?;
    vtape(&["reset", "tape"])?;
    let attempts: Vec<_> = (3..6).map(|seed| errno(tape.write(&block(seed, LENGTH)))).collect();
    assert_eq!(attempts, [Some(IO); 3], "the position is not known");
    drop(tape);
    holds_only(&drive, &[1, 2])?;

    // A reset in the middle of a file, at a write that the program sees fail.
    drive.mt("rewind")?;
    vtape(&["inject", "tape", "--on", "write", "--nth", "2", "--reset"])?;
    let mut tape = drive.open()?;
    write_block(&mut tape, &block(7, LENGTH))?;
    assert_eq!(errno(tape.write(&block(8, LENGTH))), Some(IO));
    drop(tape);
    holds_only(&drive, &[7])?;
    server.stop()
}

/// These blocks, and no filemark after them.
fn holds_only(drive: &Drive, seeds: &[u64]) -> TestResult {
    drive.mt("rewind")?;
    let mut tape = drive.open_to_read()?;
    for &seed in seeds {
        assert!(read_block(&mut tape)? == Some(block(seed, LENGTH)), "block {seed}");
    }
    assert_eq!(errno(read_block(&mut tape)), Some(IO), "the end of data");
    Ok(())
}

/// Only a filemark that is waited for proves that data is on the tape.
pub fn power_loss(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    let kept = blocks(1, &[LENGTH; 3]);
    drive.write_file(&kept)?;
    let mut tape = drive.open()?;
    for seed in 10..15 {
        write_block(&mut tape, &block(seed, LENGTH))?;
    }
    let status = vtape(&["status", "tape"])?;
    assert!(status.contains("at object 9 of 9 (4 safe)"), "{status}");
    vtape(&["reset", "--power-loss", "tape"])?;
    drop(tape);
    drive.mt("rewind")?;
    assert!(drive.read_file()? == kept);
    drive.mt("eod")?;
    assert_eq!(drive.tell()?, 4);
    server.stop()
}

pub fn damage(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let data = blocks(1, &[LENGTH; 4]);
    let (server, drive) = Server::with(&image)?;
    drive.write_file(&data)?;
    server.stop()?;

    // Damage that the drive notices costs one block.
    vtape(&["flip", "--block", "1", "--byte", "777", "--medium-error", &image])?;
    assert_eq!(try_vtape(&["dump", "--check", &image])?.0, Some(3));
    let (server, drive) = Server::with(&image)?;
    let mut tape = drive.open_to_read()?;
    assert!(read_block(&mut tape)?.as_ref() == Some(&data[0]));
    assert_eq!(errno(read_block(&mut tape)), Some(IO));
    assert!(read_block(&mut tape)?.as_ref() == Some(&data[2]));
    drop(tape);
    server.stop()?;

    // Flipped back; then damage that it does not notice.
    vtape(&["flip", "--block", "1", "--byte", "777", "--medium-error", &image])?;
    vtape(&["flip", "--block", "2", "--byte", "5", &image])?;
    vtape(&["dump", "--check", &image])?;
    let (server, drive) = Server::with(&image)?;
    let found = drive.read_file()?;
    let mut expected = data.clone();
    expected[2][5] ^= 0xff;
    assert!(found == expected);
    server.stop()?;

    // A damaged record header: the tape goes on behind it.
    let bytes = std::fs::read(&image)?;
    let second = 8192 + LENGTH + 40;
    let mut damaged = bytes.clone();
    damaged[second..second + 8].fill(0);
    std::fs::write(&image, &damaged)?;
    let (server, drive) = Server::with(&image)?;
    let mut tape = drive.open_to_read()?;
    assert!(read_block(&mut tape)?.as_ref() == Some(&expected[0]));
    assert_eq!(errno(read_block(&mut tape)), Some(IO));
    assert!(read_block(&mut tape)?.as_ref() == Some(&expected[2]));
    drop(tape);
    drive.mt("eod")?;
    assert_eq!(drive.tell()?, 5);
    server.stop()
}
