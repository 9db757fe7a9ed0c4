// SPDX-License-Identifier: GPL-2.0-or-later
//! Blocks of all lengths, written and read.

use std::io::{Read, Write};
use std::time::Instant;

use rustix::io::Errno;

use crate::machine::{run, sh};
use crate::tape::{block, blocks, create, errno, read_block, write_block, Server, MAX_BLOCK};
use crate::{Context, TestResult};

/// Programs that look at drives understand what this one says of itself.
pub fn describes_itself(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 64M --worm --barcode A00001L8")?;
    let (server, drive) = Server::with(&image)?;
    let generic = drive.generic.display().to_string();
    let of = |program: &str, options: &str| {
        let mut arguments: Vec<&str> = options.split_whitespace().collect();
        arguments.push(&generic);
        run(program, &arguments)
    };
    let expect = |text: String, words: &[&str]| {
        for word in words {
            assert!(text.contains(word), "no '{word}' in:\n{text}");
        }
    };
    drive.settle()?;
    expect(of("sg_inq", "")?, &["VTAPE", "tape"]);
    expect(of("sg_inq", "--descriptors")?, &["SAM-5", "SPC-4", "SSC-4"]);
    expect(of("sg_vpd", "--page=sn")?, &["tape"]);
    expect(of("sg_vpd", "--page=di")?, &["REELFS"]);
    expect(of("sg_vpd", "--page=0xb0")?, &["b0 00 02 01"]); // WORM is understood
    expect(of("sg_modes", "-a")?, &["Medium configuration", "Device configuration"]);
    expect(of("sg_logs", "--page=0x2e")?, &["Read failure: 0"]);
    expect(of("sg_logs", "--page=0x0c")?, &["WRITE"]);
    expect(of("sg_logs", "-a")?, &["ape alert"]);
    expect(of("sg_read_attr", "")?, &["A00001L8"]);
    expect(of("sg_luns", "")?, &["0000000000000000"]);
    of("sg_turs", "")?;
    expect(drive.mt("status")?, &["ONLINE", "BOT", "Tape block size 0 bytes"]);
    server.stop()
}

/// Each block comes back as long as it was written, into a buffer that is longer.
pub fn variable_blocks(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 64M")?;
    let (server, drive) = Server::with(&image)?;
    let lengths = [1, 2, 511, 512, 513, 4096, 10_240, 65_535, 65_536, 262_144, MAX_BLOCK - 1];
    let written = blocks(1, &lengths);
    drive.write_file(&written)?;
    drive.mt("rewind")?;
    let read = drive.read_file()?;
    assert!(read == written, "lengths {:?}", read.iter().map(Vec::len).collect::<Vec<_>>());
    server.stop()
}

/// A buffer shorter than the block: the driver says so, and the block after it follows.
pub fn short_buffer(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 64M")?;
    let (server, drive) = Server::with(&image)?;
    let written = blocks(1, &[8192, 3000]);
    drive.write_file(&written)?;
    drive.mt("rewind")?;
    let mut tape = drive.open_to_read()?;
    let mut small = [0; 4096];
    assert_eq!(errno(tape.read(&mut small)), Some(Errno::NOMEM.raw_os_error()));
    assert_eq!(read_block(&mut tape)?.as_ref(), Some(&written[1]));
    drop(tape);
    server.stop()
}

/// In fixed-block mode lengths are multiples, and a block of another length is an error.
pub fn fixed_blocks(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 64M")?;
    let (server, drive) = Server::with(&image)?;
    drive.mt("setblk 4096")?;
    let data = block(1, 40 * 4096);
    let mut tape = drive.open()?;
    write_block(&mut tape, &data)?;
    assert_eq!(errno(tape.write(&data[..1000])), Some(Errno::INVAL.raw_os_error()));
    drop(tape);
    assert_eq!(drive.tell()?, 41, "forty blocks and a filemark");

    drive.mt("rewind")?;
    let mut tape = drive.open_to_read()?;
    let mut all = Vec::new();
    let mut buffer = vec![0; 7 * 4096];
    loop {
        match tape.read(&mut buffer)? {
            0 => break,
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
    drop(tape);
    assert!(all == data);

    drive.mt("rewind")?;
    drive.mt("setblk 512")?;
    let mut tape = drive.open_to_read()?;
    assert_eq!(errno(tape.read(&mut buffer[..512])), Some(Errno::IO.raw_os_error()));
    drop(tape);
    drive.mt("setblk 0")?;
    drive.mt("rewind")?;
    let read = drive.read_file()?;
    assert_eq!(read.len(), 40);
    assert!(read.concat() == data);
    assert!(drive.mt("setblk 2097152").is_err(), "more than the drive's limit");
    server.stop()
}

/// Blocks of 256 KiB and of 1 MiB, compared, and how fast they went.
pub fn large_blocks(context: &Context) -> TestResult {
    let total: usize = if context.short { 32 << 20 } else { 128 << 20 };
    let image = create(&context.scratch.join("a"), "--capacity 256M")?;
    for length in [256 << 10, MAX_BLOCK] {
        let (server, drive) = Server::with(&image)?;
        drive.mt("rewind")?;
        let count = total / length;
        // A few kinds of block, so that making them is not what is measured.
        let kinds: Vec<Vec<u8>> = (0..7).map(|seed| block(seed, length)).collect();
        let started = Instant::now();
        let mut tape = drive.open()?;
        for n in 0..count {
            write_block(&mut tape, &kinds[n % kinds.len()])?;
        }
        drop(tape);
        let wrote = started.elapsed();
        drive.mt("rewind")?;
        let started = Instant::now();
        let mut tape = drive.open_to_read()?;
        let mut buffer = vec![0; length];
        for n in 0..count {
            assert_eq!(tape.read(&mut buffer)?, length);
            assert!(buffer == kinds[n % kinds.len()], "block {n}");
        }
        assert_eq!(tape.read(&mut buffer)?, 0);
        drop(tape);
        let read = started.elapsed();
        let rate = |took: std::time::Duration| total as f64 / 1e6 / took.as_secs_f64();
        println!(
            "      {} KiB blocks: written at {:.0} MB/s, read at {:.0} MB/s",
            length >> 10,
            rate(wrote),
            rate(read)
        );
        server.stop()?;
    }
    let (server, drive) = Server::with(&image)?;
    let mut tape = drive.open()?;
    assert!(tape.write(&vec![0; MAX_BLOCK + 1]).is_err(), "more than the drive's limit");
    drop(tape);
    server.stop()
}

/// The programs that everybody uses.
pub fn dd_and_tar(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 256M")?;
    let (server, drive) = Server::with(&image)?;
    let device = drive.device.display();
    let scratch = context.scratch.display();
    sh(&format!(
        "cd {scratch}
         tar -b 128 -cf {device} -C /usr lib/git-core
         dd if=/bin/bash of={device} bs=64k status=none
         mt -f {device} rewind
         mkdir out
         tar -b 128 -xf {device} -C out
         diff -r --no-dereference /usr/lib/git-core out/lib/git-core
         # tar may stop before the filemark.
         mt -f {device} asf 1
         dd if={device} of=bash bs=1M status=none
         cmp bash /bin/bash"
    ))?;
    server.stop()
}
