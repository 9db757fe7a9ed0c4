// SPDX-License-Identifier: GPL-2.0-or-later
//! Each command of the drive, by the rules of SSC-4 and SPC-4.

mod common;

use common::{be64, bench, six, small, Bench};
use proptest::prelude::*;
use vtape::drive::{Drive, Reset, MAX_BLOCK};
use vtape::medium::{block_cost, Medium, Memory, FILEMARK_COST, FILEMARK_RESERVE};
use vtape::scsi::{opcode, Asc, Field, Key, Sense};

const FIXED: u8 = 1;
const SILI: u8 = 2;

fn filemark(residue: i64) -> Sense {
    Sense::new(Key::NO_SENSE, Asc::FILEMARK_DETECTED).residue(residue).with_filemark()
}

fn end_of_data(residue: i64) -> Sense {
    Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED).residue(residue)
}

fn beginning(residue: i64) -> Sense {
    Sense::new(Key::NO_SENSE, Asc::BEGINNING_OF_MEDIUM_DETECTED).residue(residue).with_eom()
}

fn wrong_length(residue: i64) -> Sense {
    Sense::new(Key::NO_SENSE, Asc::NONE).residue(residue).with_ili()
}

fn warning() -> Sense {
    Sense::new(Key::NO_SENSE, Asc::END_OF_MEDIUM_DETECTED).residue(0).with_eom()
}

fn overflow(residue: i64) -> Sense {
    Sense::new(Key::VOLUME_OVERFLOW, Asc::END_OF_MEDIUM_DETECTED).residue(residue).with_eom()
}

fn read(flags: u8, count: u32) -> [u8; 6] {
    six(opcode::READ_6, flags, count)
}

fn write(flags: u8, count: u32) -> [u8; 6] {
    six(opcode::WRITE_6, flags, count)
}

#[test]
fn news_comes_before_anything_but_a_look_at_the_drive() {
    let mut drive = Drive::<Memory>::new("X");
    assert!(drive.insert(Memory::with_capacity(1 << 20, 0)).is_ok());
    let mut bench = Bench { drive };
    assert_eq!(bench.good(&[opcode::INQUIRY, 0, 0, 0, 36, 0], &[])[0], 0x01);
    let told = |asc| Sense::new(Key::UNIT_ATTENTION, asc);
    assert_eq!(bench.bad(&[0; 6], &[]), told(Asc::POWER_ON_OCCURRED));
    let sense = bench.good(&[opcode::REQUEST_SENSE, 0, 0, 0, 252, 0], &[]);
    assert_eq!((sense[2], sense[12], sense[13]), (6, 0x28, 0x00));
    bench.good(&[0; 6], &[]);
    let sense = bench.good(&[opcode::REQUEST_SENSE, 1, 0, 0, 252, 0], &[]);
    assert_eq!(sense[..4], [0x72, 0, 0, 0]);
}

#[test]
fn without_a_cartridge_only_the_drive_can_be_asked() {
    let mut bench = small();
    assert!(bench.drive.remove(false).is_ok());
    let absent = Sense::new(Key::NOT_READY, Asc::MEDIUM_NOT_PRESENT);
    for cdb in [read(0, 1), write(0, 1), six(opcode::REWIND, 0, 0), [0; 6]] {
        assert_eq!(bench.bad(&cdb, &[0]), absent);
    }
    bench.good(&[opcode::MODE_SENSE_6, 0, 0x3f, 0, 255, 0], &[]);
    bench.good(&[opcode::READ_BLOCK_LIMITS, 0, 0, 0, 0, 0], &[]);
    assert_eq!(bench.bad(&[opcode::LOAD_UNLOAD, 0, 0, 0, 1, 0], &[]), absent);
}

#[test]
fn reading_one_block_tells_when_its_length_is_another() {
    let mut bench = small();
    bench.write(&[7; 100]);
    for (flags, count, sense, length) in [
        (0, 100, None, 100),
        (0, 300, Some(wrong_length(200)), 100),
        (0, 60, Some(wrong_length(-40)), 60),
        (SILI, 300, None, 100),
        (SILI, 60, None, 60),
    ] {
        bench.rewind();
        let (found, data) = bench.run(&read(flags, count), &[]);
        assert_eq!((found, data.len()), (sense, length), "{flags} {count}");
        assert_eq!(bench.position(), (1, 0), "beyond the block whatever its length");
    }
    // With a block length set, suppression no longer covers a block that is too long.
    bench.block_length(512);
    bench.rewind();
    assert_eq!(bench.bad(&read(SILI, 60), &[]), wrong_length(-40));
    bench.rewind();
    assert_eq!(bench.run(&read(SILI, 300), &[]).0, None);
}

#[test]
fn reading_fixed_blocks_counts_what_was_not_read() {
    let mut bench = small();
    bench.block_length(512);
    for _ in 0..3 {
        bench.write(&[1; 512]);
    }
    bench.write(&[2; 100]);
    bench.write(&[3; 512]);
    bench.filemarks(1);
    bench.write(&[4; 512]);

    bench.rewind();
    assert_eq!(bench.good(&read(FIXED, 2), &[]).len(), 1024);
    let (sense, data) = bench.run(&read(FIXED, 4), &[]);
    assert_eq!((sense, data.len()), (Some(wrong_length(3)), 512));
    assert_eq!(bench.position(), (4, 0), "beyond the block that was wrong");
    let (sense, data) = bench.run(&read(FIXED, 9), &[]);
    assert_eq!((sense, data.len()), (Some(filemark(8)), 512));
    assert_eq!(bench.position(), (6, 1));
    let (sense, data) = bench.run(&read(FIXED, 9), &[]);
    assert_eq!((sense, data.len()), (Some(end_of_data(8)), 512));
    assert_eq!(bench.position(), (7, 1));
    assert_eq!(bench.bad(&read(0, 40), &[]), end_of_data(40));
}

#[test]
fn impossible_transfers_are_refused() {
    let mut bench = small();
    assert_eq!(bench.bad(&read(FIXED, 1), &[]).field, Some(Field::Command(1)), "no block length");
    bench.block_length(512);
    assert_eq!(bench.bad(&read(FIXED | SILI, 1), &[]).field, Some(Field::Command(1)));
    assert_eq!(bench.bad(&write(0, MAX_BLOCK + 1), &[]).field, Some(Field::Command(2)));
    let short = Sense::new(Key::ABORTED_COMMAND, Asc::DATA_PHASE_ERROR);
    assert_eq!(bench.bad(&write(FIXED, 2), &[0; 1023]), short);
    assert_eq!(bench.position(), (0, 0));
    for cdb in [read(0, 0), write(0, 0), read(FIXED, 0), write(FIXED, 0)] {
        assert!(bench.good(&cdb, &[]).is_empty());
    }
    assert_eq!(bench.position(), (0, 0));
    let unknown = Sense::illegal(Asc::INVALID_COMMAND_OPERATION_CODE);
    assert_eq!(bench.bad(&[0x04, 0, 0, 0, 0, 0], &[]), unknown, "FORMAT MEDIUM");
    assert_eq!(bench.bad(&six(opcode::WRITE_FILEMARKS_6, 2, 1), &[]).field, Some(Field::Command(1)));
}

#[test]
fn writing_warns_and_then_stops() {
    let (capacity, zone) = (1u64 << 20, 64u64 << 10);
    let mut bench = small();
    let cost = block_cost(1000);
    let mut written = 0;
    let end = loop {
        match bench.run(&write(0, 1000), &[5; 1000]).0 {
            None => assert!((written + 1) * cost < capacity - zone, "block {written}"),
            Some(sense) if sense == warning() => {
                assert!((written + 1) * cost >= capacity - zone, "block {written}");
            }
            Some(sense) => break sense,
        }
        written += 1;
    };
    assert_eq!(end, overflow(1000));
    assert_eq!(written, capacity / cost);
    assert_eq!(bench.position(), (written, 0));
    let data = bench.good(&[opcode::READ_POSITION, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
    assert_eq!(data[0], 0x40, "the end is near");
    // A smaller block may still fit; filemarks have room of their own.
    let left = capacity - written * cost;
    assert!(left > 2 * 48);
    assert_eq!(bench.bad(&write(0, 1), &[0]), warning());
    assert_eq!(bench.bad(&six(opcode::WRITE_FILEMARKS_6, 0, 1), &[]), warning());
    let marks = (left - 48 + FILEMARK_RESERVE) / FILEMARK_COST - 1;
    let all = six(opcode::WRITE_FILEMARKS_6, 0, marks as u32 + 5);
    assert_eq!(bench.bad(&all, &[]), overflow(5));
    // From the beginning it is all there, and writing there needs no end.
    bench.rewind();
    assert_eq!(bench.good(&read(0, 1000), &[]), [5; 1000]);
    bench.write(&[1]);
    assert_eq!(bench.bad(&read(0, 1), &[]), end_of_data(1));
}

#[test]
fn fixed_writes_say_how_many_blocks_were_left() {
    let mut bench = bench(Memory::with_capacity(10 * block_cost(512) + 100, 0));
    bench.block_length(512);
    bench.good(&write(FIXED, 4), &[1; 4 * 512]);
    assert_eq!(bench.bad(&write(FIXED, 9), &[2; 9 * 512]), overflow(3));
    assert_eq!(bench.position(), (10, 0));
}

#[test]
fn only_waiting_filemarks_make_safe() {
    let mut bench = small();
    let safe = |bench: &Bench<Memory>| bench.drive.medium().expect("a tape").synchronized();
    bench.write(&[1; 10]);
    bench.good(&six(opcode::WRITE_FILEMARKS_6, 1, 1), &[]);
    assert_eq!(safe(&bench), 0);
    let data = bench.good(&[opcode::READ_POSITION, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
    assert_eq!(data[4..12], [0, 0, 0, 2, 0, 0, 0, 0]);
    assert_eq!(data[12..16], [0, 0, 0, 2], "two objects in the buffer");
    bench.filemarks(0);
    assert_eq!(safe(&bench), 2, "none at all flushes too");
    // Unbuffered mode: each write is safe.
    bench.good(&[opcode::MODE_SELECT_6, 0x10, 0, 0, 4, 0], &[0; 4]);
    bench.write(&[1; 10]);
    assert_eq!(safe(&bench), 3);
    bench.good(&[opcode::MODE_SELECT_6, 0x10, 0, 0, 4, 0], &[0, 0, 0x10, 0]);
    bench.write(&[2; 10]);
    bench.drive.reset(Reset::PowerLoss);
    assert_eq!(bench.bad(&[0; 6], &[]), Sense::new(Key::UNIT_ATTENTION, Asc::POWER_ON_OCCURRED));
    assert_eq!(bench.drive.medium().expect("a tape").objects(), 3);
}

#[test]
fn a_write_once_tape_is_written_at_its_end_only() {
    let mut tape = Memory::with_capacity(1 << 20, 0);
    tape.cartridge_mut().worm = true;
    let mut bench = bench(tape);
    bench.write(&[1; 10]);
    bench.write(&[2; 10]);
    bench.filemarks(3);
    let refused = Sense::new(Key::DATA_PROTECT, Asc::WORM_OVERWRITE_ATTEMPTED);
    let locate = |n| six(opcode::LOCATE_10, 0, 0).into_iter().chain([n, 0, 0, 0]).collect::<Vec<_>>();
    let go = |bench: &mut Bench<Memory>, n: u8| {
        let mut cdb = locate(0);
        cdb[6] = n;
        bench.good(&cdb, &[]);
    };
    // Up to the first of the filemarks at the end.
    for n in 0..=2 {
        for cdb in [write(0, 1), six(opcode::WRITE_FILEMARKS_6, 0, 1), six(opcode::ERASE_6, 1, 0)] {
            go(&mut bench, n);
            assert_eq!(bench.bad(&cdb, &[0]), refused, "at {n}");
        }
    }
    go(&mut bench, 4);
    bench.write(&[3; 10]);
    go(&mut bench, 4);
    assert_eq!(bench.bad(&write(0, 1), &[0]), refused, "it is data now");
    go(&mut bench, 5);
    bench.write(&[4; 10]);
    bench.good(&six(opcode::ERASE_6, 0, 0), &[]);
    assert_eq!(bench.position(), (6, 2));
}

#[test]
fn both_kinds_of_protection_hold() {
    let mut bench = small();
    bench.write(&[1; 10]);
    assert!(bench.drive.protect(true).is_ok());
    let refused = Sense::new(Key::DATA_PROTECT, Asc::WRITE_PROTECTED);
    for cdb in [write(0, 1), six(opcode::WRITE_FILEMARKS_6, 0, 1), six(opcode::ERASE_6, 0, 0)] {
        assert_eq!(bench.bad(&cdb, &[0]), refused);
    }
    bench.filemarks(0);
    assert_eq!(bench.good(&[opcode::MODE_SENSE_6, 0, 0, 0, 12, 0], &[])[2] & 0x80, 0x80);
    assert!(bench.drive.protect(false).is_ok());

    // SWP in the device configuration page, as MODE SENSE returned the page.
    let mut list = bench.good(&[opcode::MODE_SENSE_10, 8, 0x10, 0, 0, 0, 0, 0, 255, 0], &[]);
    list[..2].fill(0);
    list[8 + 10] |= 0x04;
    let select = [opcode::MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    bench.good(&select, &list);
    let refused = Sense::new(Key::DATA_PROTECT, Asc::SOFTWARE_WRITE_PROTECTED);
    assert_eq!(bench.bad(&write(0, 1), &[0]), refused);
    list[8 + 10] &= !0x04;
    bench.good(&select, &list);
    bench.write(&[1]);
}

/// Objects: 0 block, 1 block, 2 filemark, 3 block, 4 filemark, 5 filemark, 6 block.
fn mixed() -> Bench<Memory> {
    let mut bench = small();
    for object in [10, 20, 0, 30, 0, 0, 40u32] {
        match object {
            0 => bench.filemarks(1),
            length => bench.write(&vec![1; length as usize]),
        }
    }
    bench
}

#[test]
fn spacing_stops_where_it_must() {
    let cases = [
        // from, code, count, to, sense
        (0, 0, 2i32, 2, None),
        (0, 0, 0, 0, None),
        (0, 0, 3, 3, Some(filemark(1))),
        (0, 0, 9, 3, Some(filemark(7))),
        (6, 0, 1, 7, None),
        (6, 0, 5, 7, Some(end_of_data(4))),
        (2, 0, 1, 3, Some(filemark(1))),
        (7, 0, -1, 6, None),
        (7, 0, -2, 5, Some(filemark(1))),
        (4, 0, -5, 2, Some(filemark(4))),
        (2, 0, -2, 0, None),
        (2, 0, -5, 0, Some(beginning(3))),
        (0, 1, 1, 3, None),
        (0, 1, 3, 6, None),
        (0, 1, 5, 7, Some(end_of_data(2))),
        (7, 1, -1, 5, None),
        (7, 1, -3, 2, None),
        (7, 1, -4, 0, Some(beginning(1))),
        (0, 2, 2, 6, None),
        (0, 2, 3, 7, Some(end_of_data(3))),
        (5, 2, 2, 7, Some(end_of_data(2))),
        (7, 2, -2, 4, None),
        (4, 2, -2, 0, Some(beginning(2))),
        (0, 3, 0, 7, None),
        (3, 3, -9, 7, None),
    ];
    let mut bench = mixed();
    for (from, code, count, to, expected) in cases {
        bench.good(&[opcode::LOCATE_10, 0, 0, 0, 0, 0, from, 0, 0, 0], &[]);
        let short = six(opcode::SPACE_6, code, (count as u32) & 0xff_ffff);
        assert_eq!(bench.run(&short, &[]).0, expected, "{from} {code} {count}");
        assert_eq!(bench.position().0, to, "{from} {code} {count}");

        bench.good(&[opcode::LOCATE_10, 0, 0, 0, 0, 0, from, 0, 0, 0], &[]);
        let mut long = [0; 16];
        long[0] = opcode::SPACE_16;
        long[1] = code;
        long[4..12].copy_from_slice(&i64::from(count).to_be_bytes());
        assert_eq!(bench.run(&long, &[]).0, expected, "{from} {code} {count}");
        assert_eq!(bench.position().0, to, "{from} {code} {count}");
    }
    assert_eq!(bench.bad(&six(opcode::SPACE_6, 4, 1), &[]).field, Some(Field::Command(1)));
    for count in [i64::MIN, i64::MAX] {
        for code in 0..3 {
            let mut long = [0; 16];
            long[0] = opcode::SPACE_16;
            long[1] = code;
            long[4..12].copy_from_slice(&count.to_be_bytes());
            bench.bad(&long, &[]);
        }
    }
}

#[test]
fn locating_and_telling_agree() {
    let mut bench = mixed();
    let locate = |bench: &mut Bench<Memory>, kind: u8, n: u64| {
        let mut cdb = [0; 16];
        cdb[0] = opcode::LOCATE_16;
        cdb[1] = kind << 3;
        cdb[4..12].copy_from_slice(&n.to_be_bytes());
        bench.run(&cdb, &[]).0
    };
    for (kind, n, at) in [
        (0, 5, (5, 2)),
        (0, 0, (0, 0)),
        (0, 7, (7, 3)),
        (1, 0, (0, 0)),
        (1, 1, (3, 1)),
        (1, 2, (5, 2)),
        (1, 3, (6, 3)),
        (3, 0, (7, 3)),
    ] {
        assert_eq!(locate(&mut bench, kind, n), None, "{kind} {n}");
        assert_eq!(bench.position(), at, "{kind} {n}");
    }
    let beyond = Some(Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED));
    for (kind, n) in [(0, 8), (0, u64::MAX), (1, 4), (1, u64::MAX)] {
        bench.rewind();
        assert_eq!(locate(&mut bench, kind, n), beyond, "{kind} {n}");
        assert_eq!(bench.position().0, 7);
    }
    bench.bad(&[opcode::LOCATE_10, 2, 0, 0, 0, 0, 0, 0, 1, 0], &[]);
    bench.rewind();
    for form in [0, 1] {
        let data = bench.good(&[opcode::READ_POSITION, form, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
        assert_eq!((data.len(), data[0]), (20, 0x80));
    }
    let data = bench.good(&[opcode::READ_POSITION, 8, 0, 0, 0, 0, 0, 0, 32, 0], &[]);
    assert_eq!((data.len(), data[0], data[3]), (32, 0x80, 0x1c));
    bench.bad(&[opcode::READ_POSITION, 7, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
}

#[test]
fn an_unreadable_block_costs_itself() {
    let mut tape = Memory::with_capacity(1 << 20, 0);
    for n in 0..3u8 {
        tape.append_block(&[n; 100]).expect("memory");
    }
    tape.damage(1);
    let mut bench = bench(tape);
    bench.block_length(100);
    let (sense, data) = bench.run(&read(FIXED, 3), &[]);
    let unreadable = Sense::new(Key::MEDIUM_ERROR, Asc::UNRECOVERED_READ_ERROR).residue(2);
    assert_eq!((sense, data.len()), (Some(unreadable), 100));
    assert_eq!(bench.good(&read(0, 100), &[]), [2; 100]);
    // TapeAlert flags 4 and 5, once; asking for the header alone tells of none.
    let log = |bench: &mut Bench<Memory>, length: u8| {
        bench.good(&[opcode::LOG_SENSE, 0, 0x6e, 0, 0, 0, 0, 1, length, 0], &[])
    };
    bench.good(&[opcode::LOG_SENSE, 0, 0x6e, 0, 0, 0, 0, 0, 4, 0], &[]);
    let page = log(&mut bench, 255);
    assert_eq!(page.len(), 4 + 64 * 5);
    let raised: Vec<usize> = (1..=64).filter(|n| page[4 + (n - 1) * 5 + 4] == 1).collect();
    assert_eq!(raised, [4, 5]);
    let page = log(&mut bench, 255);
    assert!((1..=64).all(|n| page[4 + (n - 1) * 5 + 4] == 0));
}

#[test]
fn verifying_is_reading_without_the_data() {
    let mut bench = mixed();
    bench.rewind();
    assert!(bench.good(&six(opcode::VERIFY_6, 0, 10), &[]).is_empty());
    assert_eq!(bench.bad(&six(opcode::VERIFY_6, 0, 50), &[]), wrong_length(30));
    assert_eq!(bench.bad(&six(opcode::VERIFY_6, 0, 50), &[]), filemark(50));
    bench.bad(&six(opcode::VERIFY_6, 2, 50), &[]);
}

#[test]
fn a_locked_drive_keeps_its_cartridge() {
    let mut bench = small();
    bench.good(&[opcode::PREVENT_ALLOW, 0, 0, 0, 1, 0], &[]);
    let unload = [opcode::LOAD_UNLOAD, 0, 0, 0, 0, 0];
    assert_eq!(bench.bad(&unload, &[]), Sense::illegal(Asc::MEDIUM_REMOVAL_PREVENTED));
    assert!(bench.drive.remove(false).is_err());
    bench.good(&[opcode::PREVENT_ALLOW, 0, 0, 0, 0, 0], &[]);
    bench.write(&[1; 10]);
    bench.good(&unload, &[]);
    assert_eq!(bench.bad(&[0; 6], &[]), Sense::new(Key::NOT_READY, Asc::MEDIUM_NOT_PRESENT));
    bench.good(&[opcode::LOAD_UNLOAD, 0, 0, 0, 1, 0], &[]);
    let changed = Sense::new(Key::UNIT_ATTENTION, Asc::MEDIUM_MAY_HAVE_CHANGED);
    assert_eq!(bench.bad(&[0; 6], &[]), changed);
    assert_eq!(bench.position(), (0, 0));
    assert_eq!(bench.good(&read(0, 10), &[]), [1; 10]);
    bench.good(&[opcode::PREVENT_ALLOW, 0, 0, 0, 1, 0], &[]);
    assert!(bench.drive.remove(true).is_ok(), "force");
}

#[test]
fn mode_parameters_are_what_they_say() {
    let mut bench = small();
    let all = bench.good(&[opcode::MODE_SENSE_10, 0, 0x3f, 0xff, 0, 0, 0, 4, 0, 0], &[]);
    assert_eq!(usize::from(all[0]) << 8 | usize::from(all[1]), all.len() - 2);
    let mut at = 16;
    let mut codes = Vec::new();
    while at < all.len() {
        codes.push(all[at]);
        at += 2 + usize::from(all[at + 1]);
    }
    assert_eq!(at, all.len());
    assert_eq!(codes, [0x01, 0x02, 0x0a, 0x0f, 0x10, 0x11, 0x1c, 0x1d]);
    // What was read can be written back; a bit that cannot be changed cannot.
    let mut list = all.clone();
    list[..2].fill(0);
    let select = [opcode::MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    bench.good(&select, &list);
    for spoil in 18..list.len() {
        let mut bad = list.clone();
        bad[spoil] ^= 0x01;
        assert!(bench.run(&select, &bad).0.is_some(), "byte {spoil}");
    }
    for length in 1..list.len() {
        let mut short = select;
        short[8] = length as u8;
        // Never a panic; where it ends between two pages it is a shorter list.
        bench.run(&short, &list[..length]);
    }
    assert_eq!(
        bench.bad(&[opcode::MODE_SENSE_6, 0, 0xc0, 0, 255, 0], &[]),
        Sense::illegal(Asc::SAVING_PARAMETERS_NOT_SUPPORTED)
    );
    bench.bad(&[opcode::MODE_SENSE_6, 0, 0x3e, 0, 255, 0], &[]);
    bench.block_length(2048);
    let current = bench.good(&[opcode::MODE_SENSE_6, 0, 0, 0, 12, 0], &[]);
    assert_eq!(current[9..12], [0, 8, 0]);
    let defaults = bench.good(&[opcode::MODE_SENSE_6, 0, 0x80, 0, 12, 0], &[]);
    assert_eq!(defaults[9..12], [0, 0, 0]);
}

#[test]
fn sense_data_changes_its_format_on_demand() {
    let mut bench = small();
    let mut list = bench.good(&[opcode::MODE_SENSE_10, 8, 0x0a, 0, 0, 0, 0, 0, 255, 0], &[]);
    list[..2].fill(0);
    list[8 + 2] |= 0x04;
    let select = [opcode::MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    let sense = bench.bad(&read(0, 10), &[]);
    assert_eq!(bench.drive.sense_bytes(&sense)[0], 0xf0);
    bench.good(&select, &list);
    assert_eq!(bench.drive.sense_bytes(&sense)[0], 0x72);
}

#[test]
fn what_describes_the_drive_fits_together() {
    let mut bench = small();
    let inquiry = bench.good(&[opcode::INQUIRY, 0, 0, 0, 255, 0], &[]);
    assert_eq!(usize::from(inquiry[4]) + 5, inquiry.len());
    assert_eq!(&inquiry[8..16], b"REELFS  ");
    let pages = bench.good(&[opcode::INQUIRY, 1, 0, 0, 255, 0], &[]);
    for &page in &pages[4..] {
        let data = bench.good(&[opcode::INQUIRY, 1, page, 0, 255, 0], &[]);
        assert_eq!(usize::from(data[2]) << 8 | usize::from(data[3]), data.len() - 4, "{page:#x}");
        assert_eq!(data[1], page);
    }
    bench.bad(&[opcode::INQUIRY, 1, 0xc0, 0, 255, 0], &[]);
    bench.bad(&[opcode::INQUIRY, 0, 1, 0, 255, 0], &[]);
    let limits = bench.good(&[opcode::READ_BLOCK_LIMITS, 0, 0, 0, 0, 0], &[]);
    assert_eq!(limits, [0, 0x10, 0, 0, 0, 1]);
    let pages = bench.good(&[opcode::LOG_SENSE, 0, 0x40, 0, 0, 0, 0, 0, 255, 0], &[]);
    for &page in &pages[4..] {
        let data = bench.good(&[opcode::LOG_SENSE, 0, 0x40 | page, 0, 0, 0, 0, 4, 0, 0], &[]);
        assert_eq!(usize::from(data[2]) << 8 | usize::from(data[3]), data.len() - 4, "{page:#x}");
    }
    let mut attributes = [0; 16];
    attributes[0] = opcode::READ_ATTRIBUTE;
    attributes[12] = 4;
    let data = bench.good(&attributes, &[]);
    assert_eq!(be64(&data[..4]) as usize, data.len() - 4);
    let density = bench.good(&[opcode::REPORT_DENSITY_SUPPORT, 1, 0, 0, 0, 0, 0, 1, 0, 0], &[]);
    assert_eq!(density.len(), 4 + 52);
    assert_eq!(bench.good(&[opcode::REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0], &[]).len(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No command, however odd, and no data makes the drive panic or deliver more than asked.
    #[test]
    fn any_bytes_are_answered(
        commands in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..17), prop::collection::vec(any::<u8>(), 0..600)),
            1..40,
        ),
    ) {
        let mut bench = mixed();
        for (mut cdb, out) in commands {
            // Keep counts small, so that a megabyte of filemarks is not what is tested.
            if cdb.len() > 3 && [opcode::WRITE_FILEMARKS_6, opcode::WRITE_6].contains(&cdb[0]) {
                cdb[2] = 0;
                cdb[3] = 0;
            }
            let (sense, data) = bench.run(&cdb, &out);
            prop_assert!(data.len() <= 17 << 20);
            if let Some(sense) = sense {
                prop_assert_eq!(sense.to_fixed()[0] & 0x7f, 0x70);
                prop_assert!(sense.to_descriptors().len() <= 40);
            }
        }
    }
}
