// SPDX-License-Identifier: GPL-2.0-or-later
//! Volumes on tape, written and read by the code that daemon and command use, through the kernel's own st driver: what
//! happens at the end of a tape, after errors and resets, and to tapes that are not ours.

use std::path::Path;

use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::{Identity, RecordType, WriteBody};
use reelfs_media::label::{self, LabelState, NewLabel};
use reelfs_media::library::{Library, Supply, TapeLibrary};
use reelfs_media::reader::{Begin, LogReader, OnGap, ReadError, RecordReader, VolumeSource, Wanted};
use reelfs_media::tape::Tape;
use reelfs_media::writer::{inspect, Coding, Predecessor, Progress, Stream, VolumeWriter, WriteError};
use reelfs_media::{LogState, Medium, MediumError, Position, Read, Written};
use zerocopy::FromZeros;

use crate::machine::run;
use crate::tape::{create, vtape, Drive, Fallible, Server};
use crate::{Context, Suite, Test, TestResult};

pub const SUITE: Suite = Suite {
    name: "volumes",
    timeout: 900,
    disks: &[],
    set_up: |_| {
        for module in ["target_core_user", "tcm_loop", "st", "sg"] {
            run("modprobe", &[module])?;
        }
        Ok(())
    },
    tests: &[
        Test::new("labels", labels),
        Test::new("three-kinds-of-end", three_ends),
        Test::new("an-empty-drive-does-not-wait", empty_drive),
        Test::new("written-and-read-back", read_back),
        Test::new("spanning-tapes", spanning),
        Test::new("going-on-after-a-restart", resuming),
        Test::new("a-write-error", write_error),
        Test::new("a-reset-between-bursts", reset_between),
        Test::new("a-reset-within-a-burst", reset_within),
        Test::new("another-tape-is-not-written", another_tape),
        Test::new("an-unreadable-block-is-named", unreadable),
        Test::new("write-once-tapes", write_once),
    ],
    ..Suite::DEFAULT
};

const SEGMENT: u64 = 4 << 20;
const POOL: &str = "pool";
const BLOCK: usize = 64 << 10;

fn stream() -> Stream {
    Stream { uuid: [5; 16], timeline: 1, origin: "guest".into() }
}

fn log(bytes: usize) -> LogBuilder {
    let mut log = LogBuilder::new();
    let object = Identity::new(1, b"object").unwrap_or(Identity::NONE);
    let mut number = 1_u32;
    while log.bytes.len() < bytes {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (number >> 8) as usize % 200_000 + 1;
        let data: Vec<u8> = (0..length).map(|at| (at as u32 ^ number) as u8).collect();
        let _ = log.push(RecordType::Write, 0, object, &WriteBody::new_zeroed(), &Payload::of(&data));
    }
    log
}

fn labelled(drive: &Drive, name: &str) -> Fallible<Tape> {
    let mut new = NewLabel::new(name, POOL);
    new.block_size = BLOCK;
    let mut tape = Tape::open_writable(&drive.device)?;
    label::write(&mut tape, &new.build()?, false)?;
    Ok(tape)
}

fn begin(tape: Tape, before: Option<&Predecessor>, log: LogState) -> Fallible<VolumeWriter<Tape>> {
    Ok(VolumeWriter::begin(tape, label::pool_uuid(POOL), stream(), before, log, Coding::plain())?)
}

/// Drives that hold the volumes of a set, in order.
struct Drives(Vec<Drive>);

impl VolumeSource for Drives {
    fn volume(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError> {
        let drive = usize::try_from(wanted.sequence - 1).ok().and_then(|index| self.0.get(index));
        drive.map(|drive| Ok(Box::new(Tape::open(&drive.device)?) as Box<dyn Medium>)).transpose()
    }
}

fn read_all(drives: &[Drive]) -> Result<Vec<u8>, ReadError> {
    let mut reader = RecordReader::new(LogReader::new(Drives(drives.to_vec()), Begin::Log, OnGap::Search));
    let mut bytes = Vec::new();
    while let Some(record) = reader.next()? {
        bytes.extend_from_slice(record.bytes());
    }
    Ok(bytes)
}

fn reads_as(drives: &[Drive], expected: &[u8]) -> TestResult {
    let found = read_all(drives)?;
    if found != expected {
        return Err(format!("{} bytes read back instead of {}, or others", found.len(), expected.len()).into());
    }
    Ok(())
}

fn one_drive(context: &Context, options: &str) -> Fallible<(Server, Drive)> {
    Server::with(&create(&context.scratch.join("a"), options)?)
}

fn labels(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 8M")?;
    let mut tape = Tape::open_writable(&drive.device)?;
    assert!(matches!(tape.read_label()?, LabelState::Blank));
    assert!(matches!(Tape::open(&drive.device), Err(MediumError::Busy { .. })));
    drop(tape);
    let mut tape = labelled(&drive, "first")?;
    match tape.read_label()? {
        LabelState::Labelled(found) => assert_eq!(label::name(&found), "first"),
        other => return Err(format!("{other:?}").into()),
    }
    let again = NewLabel::new("second", POOL).build()?;
    assert!(label::write(&mut tape, &again, false).is_err(), "a labelled tape was overwritten");
    label::write(&mut tape, &again, true)?;
    drop(tape);

    // Tapes of others: short blocks, long blocks, a filemark at the beginning.
    for foreign in ["bs=512 count=3", "bs=65536 count=2"] {
        drive.mt("rewind")?;
        let to = format!("of={}", drive.device.display());
        let mut arguments = vec!["if=/dev/urandom", &to];
        arguments.extend(foreign.split(' '));
        run("dd", &arguments)?;
        let mut tape = Tape::open_writable(&drive.device)?;
        assert!(matches!(tape.read_label()?, LabelState::Foreign(_)), "{foreign}");
        assert!(label::write(&mut tape, &again, false).is_err());
        assert!(matches!(inspect(&mut tape), Err(WriteError::NotOurs { .. })));
    }
    drive.mt("rewind")?;
    drive.mt("weof 1")?;
    assert!(matches!(Tape::open(&drive.device)?.read_label()?, LabelState::Foreign(_)));
    server.stop()
}

fn three_ends(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 2M --early-warning 300K")?;
    let mut tape = labelled(&drive, "ends")?;
    let mut block = Vec::new();
    assert!(matches!(tape.read_label()?, LabelState::Labelled(_)));
    assert_eq!(tape.read_block(&mut block)?, Read::EndOfData);
    assert_eq!(tape.seek_end_of_data()?, Position(2));
    let mut blocks = 0_u64;
    let mut warned = false;
    loop {
        match tape.write_block(&vec![blocks as u8; BLOCK])? {
            Written::Taken => blocks += 1,
            Written::EarlyWarning => warned = true,
            Written::Full => break,
        }
    }
    assert!(warned, "no early warning");
    tape.write_filemark()?;
    tape.seek(Position(2))?;
    for number in 0..blocks {
        assert_eq!(tape.read_block(&mut block)?, Read::Block, "block {number} of {blocks}");
        assert!(block == vec![number as u8; BLOCK]);
    }
    assert_eq!(tape.read_block(&mut block)?, Read::Filemark);
    assert!(matches!(tape.read_block(&mut block)?, Read::EndOfData | Read::EndOfMedium));
    // The end of data where no filemark is before it, and behind a seek.
    let end = tape.seek_end_of_data()?;
    assert!(matches!(tape.read_block(&mut block)?, Read::EndOfData | Read::EndOfMedium));
    tape.seek(end)?;
    assert!(matches!(tape.read_block(&mut block)?, Read::EndOfData | Read::EndOfMedium));
    tape.seek(Position(end.0 - 1))?;
    assert_eq!(tape.read_block(&mut block)?, Read::Filemark);
    drop(tape);
    server.stop()
}

fn empty_drive(_: &Context) -> TestResult {
    let server = Server::start(&["tape"])?;
    let device = server.drives[0].device.clone();
    let started = std::time::Instant::now();
    assert!(matches!(Tape::open(&device), Err(MediumError::NoVolume { .. })));
    let mut library = TapeLibrary { drives: vec![device], features: 0 };
    match library.blank(POOL, 1)? {
        Supply::Waiting(what) => assert!(what.contains("is empty"), "{what}"),
        Supply::Volume(..) => return Err("a volume in an empty drive".into()),
    }
    assert!(started.elapsed().as_secs() < 10, "it waited");
    server.stop()
}

fn read_back(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 64M")?;
    let log = log(11 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    for part in log.bytes.chunks(1_234_567) {
        assert_eq!(writer.append(part)?, Progress::Open);
        assert_eq!(writer.sync()?, Progress::Open);
        assert_eq!(writer.proven().position(), writer.next_lsn());
    }
    drop(writer);
    reads_as(&[drive], &log.bytes)?;
    server.stop()
}

fn spanning(context: &Context) -> TestResult {
    let mut drives = Vec::new();
    for number in 0..5 {
        let image = create(&context.scratch.join(format!("tape{number}")), "--capacity 4M --early-warning 300K")?;
        drives.push(format!("drive{number}={image}"));
    }
    let drives: Vec<_> = drives.iter().map(String::as_str).collect();
    let server = Server::start(&drives)?;
    let log = log(11 << 20);
    let mut before: Option<Predecessor> = None;
    let mut state = LogState::origin(SEGMENT);
    let mut used = 0;
    for drive in &server.drives {
        used += 1;
        let tape = labelled(drive, &format!("tape{used}"))?;
        let mut writer = begin(tape, before.as_ref(), state)?;
        let mut progress = Progress::Open;
        while progress == Progress::Open && (writer.next_lsn() as usize) < log.bytes.len() {
            let at = writer.next_lsn() as usize;
            progress = writer.append(&log.bytes[at..log.bytes.len().min(at + 700_000)])?;
        }
        if progress == Progress::Open {
            progress = writer.sync()?;
        }
        before = Some(writer.as_predecessor());
        state = writer.proven().clone();
        let mut tape = writer.into_medium();
        let found = inspect(&mut tape)?;
        assert_eq!(found.trailer.is_some(), progress == Progress::Full, "trailer of tape {used}");
        if progress == Progress::Open {
            break;
        }
    }
    assert_eq!(state.position(), log.lsn);
    assert!((3..=5).contains(&used), "{used} tapes used");
    reads_as(&server.drives[..used], &log.bytes)?;
    match read_all(&server.drives[..1]) {
        Ok(found) if log.bytes.starts_with(&found) => {}
        other => return Err(format!("the first tape alone: {:?}", other.map(|found| found.len())).into()),
    }
    server.stop()
}

fn resuming(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 64M")?;
    let log = log(10 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    let _ = writer.append(&log.bytes[..3_000_000])?;
    assert_eq!(writer.sync()?, Progress::Open);
    // As if killed in the middle of a burst.
    let _ = writer.append(&log.bytes[3_000_000..6_000_000])?;
    drop(writer);

    let mut library = TapeLibrary { drives: vec![drive.device.clone()], features: 0 };
    let Supply::Volume(medium, found) = library.unfinished(POOL, &stream().uuid, None)? else {
        return Err("the tape is not found again".into());
    };
    assert!((3_000_000..=6_000_000).contains(&found.next_lsn), "it reaches {}", found.next_lsn);
    let (segment, chain) = found.resume_segment().ok_or("no segment")?;
    let from = (segment * SEGMENT) as usize;
    let mut first = 0;
    while first < from {
        first += reelfs_format::view::peek_length(&log.bytes[first..])?;
    }
    let mut state = LogState::at_segment(SEGMENT, segment, first as u64, chain);
    let next = found.next_lsn as usize;
    state.feed(&log.bytes[from..next])?;
    let mut writer = VolumeWriter::resume(medium, *found, stream(), state, Coding::plain())?;
    let _ = writer.append(&log.bytes[next..])?;
    assert_eq!(writer.sync()?, Progress::Open);
    drop(writer);
    reads_as(&[drive], &log.bytes)?;
    server.stop()
}

/// Appends the rest of the log, recovering from what comes.
fn append_stubbornly<M: Medium>(writer: &mut VolumeWriter<M>, log: &[u8]) -> Fallible<u32> {
    let mut errors = 0;
    loop {
        let at = writer.next_lsn() as usize;
        let result = match log.get(at..at + 500_000) {
            Some(part) => writer.append(part),
            None => writer.append(&log[at..]).and_then(|_| writer.sync()),
        };
        match result {
            Ok(_) if writer.proven().position() as usize == log.len() => return Ok(errors),
            Ok(Progress::Open) => {}
            Ok(Progress::Full) => return Err("the tape is full".into()),
            Err(error) if errors > 5 => return Err(error.into()),
            Err(error) => {
                println!("    {error}");
                errors += 1;
                writer.recover()?;
            }
        }
    }
}

fn write_error(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 64M")?;
    let log = log(6 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    let _ = writer.append(&log.bytes[..1_000_000])?;
    let _ = writer.sync()?;
    vtape(&["inject", "tape", "--on", "write", "--nth", "7", "--sense", "3/0c/00"])?;
    assert_eq!(append_stubbornly(&mut writer, &log.bytes)?, 1);
    drop(writer);
    reads_as(&[drive], &log.bytes)?;
    server.stop()
}

fn reset_between(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 64M")?;
    let log = log(6 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    let _ = writer.append(&log.bytes[..2_000_000])?;
    let _ = writer.sync()?;
    vtape(&["reset", "tape"])?;
    assert!(append_stubbornly(&mut writer, &log.bytes)? >= 1, "the reset went unnoticed");
    drop(writer);
    reads_as(&[drive], &log.bytes)?;
    server.stop()
}

fn reset_within(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 64M")?;
    let log = log(6 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    let _ = writer.append(&log.bytes[..1_000_000])?;
    let _ = writer.sync()?;
    vtape(&["inject", "tape", "--on", "write", "--nth", "9", "--reset"])?;
    assert!(append_stubbornly(&mut writer, &log.bytes)? >= 1, "the reset went unnoticed");
    drop(writer);
    reads_as(&[drive], &log.bytes)?;
    server.stop()
}

/// Somebody changes the tape between two bursts.
fn another_tape(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 16M")?;
    let other = create(&context.scratch.join("b"), "--capacity 16M")?;
    let log = log(3 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    let _ = writer.append(&log.bytes[..1_000_000])?;
    let _ = writer.sync()?;
    vtape(&["eject", "tape", "--force"]).or_else(|_| vtape(&["eject", "tape"]))?;
    vtape(&["load", "tape", &other])?;
    let before = std::fs::read(Path::new(&other))?;
    assert!(writer.append(&log.bytes[1_000_000..]).and_then(|_| writer.sync()).is_err());
    assert!(writer.recover().is_err(), "a blank tape passed for ours");
    drop(writer);
    assert!(std::fs::read(Path::new(&other))? == before, "another tape was written");
    server.stop()
}

fn unreadable(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 16M")?;
    let log = log(3 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    let _ = writer.append(&log.bytes)?;
    let _ = writer.sync()?;
    drop(writer);
    // The label, the volume start, then blocks 1, 2, ...
    vtape(&["inject", "tape", "--on", "read", "--nth", "12", "--sense", "3/11/00"])?;
    match read_all(&[drive.clone()]) {
        Err(ReadError::MissingRange { damages, .. }) if damages.len() == 1 => println!("    {}", damages[0]),
        other => return Err(format!("{:?}", other.map(|found| found.len())).into()),
    }
    // The error was the drive's; the tape is good.
    reads_as(&[drive], &log.bytes)?;
    server.stop()
}

fn write_once(context: &Context) -> TestResult {
    let (server, drive) = one_drive(context, "--capacity 16M --worm")?;
    let log = log(5 << 20);
    let mut writer = begin(labelled(&drive, "one")?, None, LogState::origin(SEGMENT))?;
    for part in log.bytes.chunks(1 << 20) {
        let _ = writer.append(part)?;
        let _ = writer.sync()?;
    }
    let mut tape = writer.into_medium();
    assert!(label::write(&mut tape, &NewLabel::new("again", POOL).build()?, true).is_err());
    drop(tape);
    reads_as(&[drive], &log.bytes)?;
    server.stop()
}
