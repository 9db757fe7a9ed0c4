// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the tape is, and how it gets elsewhere.

use std::io::Read;

use rustix::io::Errno;

use crate::machine::run;
use crate::tape::{blocks, create, errno, read_block, Drive, Fallible, Server};
use crate::{Context, TestResult};

/// Three files of 3, 2 and 4 blocks: objects 0-2, 3 a filemark, 4-5, 6, 7-10, 11.
fn three_files(drive: &Drive) -> Fallible<Vec<Vec<Vec<u8>>>> {
    let files: Vec<_> =
        [3usize, 2, 4].iter().zip(1u64..).map(|(&n, seed)| blocks(seed * 100, &vec![5000; n])).collect();
    for file in &files {
        drive.write_file(file)?;
    }
    Ok(files)
}

/// After the last filemark a read finds nothing, once; then it is an error.
pub fn end_of_data(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    let mut buffer = vec![0; 65536];

    let mut tape = drive.open_to_read()?;
    assert_eq!(errno(tape.read(&mut buffer)), Some(Errno::IO.raw_os_error()), "a blank tape");
    drop(tape);
    drive.mt("rewind")?;

    drive.write_file(&blocks(1, &[1000]))?;
    drive.mt("rewind")?;
    let mut tape = drive.open_to_read()?;
    assert_eq!(tape.read(&mut buffer)?, 1000);
    assert_eq!(tape.read(&mut buffer)?, 0, "the filemark");
    assert_eq!(tape.read(&mut buffer)?, 0, "the end of data, gently");
    assert_eq!(errno(tape.read(&mut buffer)), Some(Errno::IO.raw_os_error()));
    drop(tape);
    assert_eq!(drive.tell()?, 2);
    server.stop()
}

pub fn spacing(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    let files = three_files(&drive)?;
    let first_of = |file: usize| files[file][0].clone();

    drive.mt("rewind")?;
    assert_eq!(drive.place()?, (0, 0));
    drive.mt("fsf 1")?;
    assert_eq!((drive.place()?, drive.tell()?), ((1, 0), 4));
    drive.mt("fsf 1")?;
    assert_eq!((drive.place()?, drive.tell()?), ((2, 0), 7));
    assert!(drive.read_file()? == files[2]);
    drive.mt("bsfm 2")?;
    assert_eq!(drive.tell()?, 7, "after the second filemark back");
    drive.mt("bsf 2")?;
    assert_eq!(drive.tell()?, 3, "before the filemark");
    drive.mt("fsfm 1")?;
    assert_eq!(drive.tell()?, 3, "and back before it");
    drive.mt("asf 1")?;
    assert!(drive.read_file()?[0] == first_of(1));

    drive.mt("asf 2")?;
    drive.mt("fsr 2")?;
    assert_eq!((drive.place()?, drive.tell()?), ((2, 2), 9));
    drive.mt("bsr 1")?;
    assert_eq!((drive.place()?, drive.tell()?), ((2, 1), 8));
    // A filemark stops spacing over blocks, on the far side of it.
    assert!(drive.mt("fsr 9").is_err());
    assert_eq!((drive.place()?, drive.tell()?), ((3, 0), 12));
    drive.mt("bsf 1")?;
    assert!(drive.mt("bsr 9").is_err());
    assert_eq!(drive.tell()?, 6);
    drive.mt("rewind")?;
    assert!(drive.mt("bsf 1").is_err(), "nothing is before the beginning");
    assert_eq!(drive.tell()?, 0);
    assert!(drive.mt("fsf 4").is_err(), "there are three filemarks");
    assert_eq!(drive.tell()?, 12);
    drive.mt("rewind")?;
    drive.mt("eod")?;
    assert_eq!((drive.place()?.0, drive.tell()?), (3, 12));
    // What is written at the end of data is a fourth file.
    drive.write_file(&blocks(900, &[77]))?;
    drive.mt("rewind")?;
    drive.mt("fsf 3")?;
    assert!(drive.read_file()? == blocks(900, &[77]));
    server.stop()
}

pub fn tell_and_seek(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    let files = three_files(&drive)?;
    let mut tape: Vec<Option<&Vec<u8>>> = Vec::new();
    for file in &files {
        tape.extend(file.iter().map(Some));
        tape.push(None);
    }
    // Back and forth, so that each target is reached from either side.
    for number in [0, 11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6] {
        drive.mt(&format!("seek {number}"))?;
        assert_eq!(drive.tell()?, number);
        let mut device = drive.open_to_read()?;
        let found = read_block(&mut device)?;
        assert!(found.as_ref() == tape[number as usize], "object {number}");
    }
    drive.mt("seek 12")?;
    assert!(drive.mt("seek 13").is_err());
    assert_eq!(drive.tell()?, 12, "the end of data");
    server.stop()
}

/// The sixteen-byte commands, which the driver itself does not use.
pub fn locate_and_long_position(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    three_files(&drive)?;
    let generic = drive.generic.display().to_string();
    let raw = |receive: &str, command: &str| {
        let mut arguments = vec!["-b", "-r", receive, &generic];
        arguments.extend(command.split_whitespace());
        // sg_raw writes the data to standard output, and words to standard error.
        std::process::Command::new("sg_raw").args(&arguments).output()
    };
    let position = || -> Fallible<(u64, u64)> {
        let data = raw("32", "34 06 00 00 00 00 00 00 00 00")?.stdout;
        let number =
            |at: usize| -> Fallible<u64> { Ok(u64::from_be_bytes(data.get(at..at + 8).ok_or("short")?.try_into()?)) };
        Ok((number(8)?, number(16)?))
    };
    let locate = |kind: u8, target: u8| {
        let kind = kind << 3;
        raw("0", &format!("92 {kind:02x} 00 00 00 00 00 00 00 00 00 {target:02x} 00 00 00 00"))
    };
    assert_eq!(position()?, (12, 3));
    assert!(locate(0, 5)?.status.success());
    assert_eq!(position()?, (5, 1));
    assert!(locate(1, 2)?.status.success(), "the third file");
    assert_eq!(position()?, (7, 2));
    assert!(locate(1, 0)?.status.success(), "the first file");
    assert_eq!(position()?, (0, 0));
    assert!(locate(3, 0)?.status.success(), "the end of data");
    assert_eq!(position()?, (12, 3));
    assert!(!locate(0, 99)?.status.success());
    assert_eq!(position()?, (12, 3));
    // SPACE(16) with a negative count: five blocks, of which a filemark leaves four.
    let space = "91 00 00 00 ff ff ff ff ff ff ff fb 00 00 00 00";
    assert!(!raw("0", space)?.status.success());
    assert_eq!(position()?, (11, 2));
    assert_eq!(run("mt", &["-f", &drive.device.display().to_string(), "rewind"])?, "");
    server.stop()
}

/// What lay behind the place of writing is gone.
pub fn writing_in_the_middle(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    let files = three_files(&drive)?;
    drive.mt("seek 1")?;
    drive.write_file(&blocks(7, &[10]))?;
    assert_eq!(drive.tell()?, 3);
    assert!(drive.mt("seek 4").is_err());
    drive.mt("rewind")?;
    assert!(drive.read_file()? == [files[0][0].clone(), blocks(7, &[10])[0].clone()]);
    server.stop()
}

pub fn erasing(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    three_files(&drive)?;
    drive.mt("seek 4")?;
    drive.mt("erase")?;
    drive.mt("rewind")?;
    assert_eq!(drive.read_file()?.len(), 3);
    drive.mt("eod")?;
    assert_eq!(drive.tell()?, 4);
    server.stop()
}
