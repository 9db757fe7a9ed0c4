// SPDX-License-Identifier: GPL-2.0-or-later
//! Cartridges: of which kinds, in and out of drives, over restarts.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::machine::run;
use crate::tape::{block, blocks, create, errno, read_block, try_vtape, vtape, Server};
use crate::{Context, TestResult};

const IO: i32 = Errno::IO.raw_os_error();

pub fn write_once(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M --worm")?;
    let (server, drive) = Server::with(&image)?;
    let (first, second) = (blocks(1, &[5000, 6000]), blocks(2, &[7000]));
    drive.write_file(&first)?;
    drive.write_file(&second)?;

    // A direct, aligned write is synchronous: its own call fails.
    let attempt = |at: &str| -> Result<Option<i32>, Box<dyn std::error::Error>> {
        drive.mt(at)?;
        let mut tape = drive.open()?;
        let first = errno(tape.write(&vec![0; 65536]));
        let later = errno(tape.write(&vec![0; 65536]));
        Ok(first.or(later))
    };
    for at in ["seek 0", "seek 1", "seek 2", "seek 3", "seek 4"] {
        assert_eq!(attempt(at)?, Some(IO), "{at}");
    }
    drive.mt("seek 1")?;
    assert!(drive.mt("weof 1").is_err());
    assert!(drive.mt("erase").is_err());
    let generic = drive.generic.display().to_string();
    let alerts = run("sg_logs", &["--page=0x2e", &generic])?;
    assert!(alerts.contains("WORM medium - overwrite attempted: 1"), "{alerts}");

    drive.mt("eod")?;
    drive.write_file(&first)?;
    drive.mt("rewind")?;
    for expected in [&first, &second, &first] {
        assert!(drive.read_file()? == *expected);
        drive.mt("fsr 0")?;
    }
    server.stop()
}

pub fn write_protection(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let (server, drive) = Server::with(&image)?;
    let data = blocks(1, &[5000]);
    drive.write_file(&data)?;
    server.stop()?;

    vtape(&["protect", &image])?;
    let (server, drive) = Server::with(&image)?;
    let opened = OpenOptions::new().read(true).write(true).open(&drive.device);
    assert_eq!(errno(opened), Some(Errno::ROFS.raw_os_error()));
    assert!(drive.read_file()? == data);
    assert!(drive.mt("weof").is_err());
    assert!(drive.mt("status")?.contains("WR_PROT"));

    vtape(&["protect", "--drive", "tape", "--off"])?;
    drive.mt("rewind")?;
    drive.write_file(&blocks(2, &[10]))?;
    // The tab moves while the device is open: the drive itself refuses.
    let mut tape = drive.open()?;
    vtape(&["protect", "--drive", "tape"])?;
    let refused = errno(tape.write(&vec![0; 65536])).or(errno(tape.write(&vec![0; 65536])));
    assert_eq!(refused, Some(IO));
    drop(tape);
    server.stop()
}

pub fn survives_a_restart(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let data = blocks(1, &[5000, 100_000, 1]);
    let (server, drive) = Server::with(&image)?;
    drive.write_file(&data)?;
    // Nobody waits for this filemark: the server itself makes it safe when it is told to end.
    let generic = drive.generic.display().to_string();
    run("sg_raw", &[generic.as_str(), "10", "01", "00", "00", "01", "00"])?;
    server.stop()?;
    let (server, drive) = Server::with(&image)?;
    assert!(drive.read_file()? == data);
    drive.mt("eod")?;
    assert_eq!(drive.tell()?, 5);
    drive.write_file(&data)?;
    server.stop()?;
    let listing = vtape(&["dump", "--check", "--each", &image])?;
    assert_eq!(listing.lines().count(), 10, "{listing}");
    Ok(())
}

/// A killed server leaves its devices behind. The next one removes them, and the tape holds
/// all that had been written.
pub fn survives_a_kill(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let data = blocks(1, &[5000, 100_000]);
    for round in 0..if context.short { 2 } else { 5 } {
        let (server, drive) = Server::with(&image)?;
        if round > 0 {
            assert!(drive.read_file()? == data, "round {round}");
        }
        drive.mt("rewind")?;
        drive.write_file(&data)?;
        server.kill()?;
    }
    let (status, _) = try_vtape(&["status", "tape"])?;
    assert_eq!(status, Some(1));
    vtape(&["clean", "tape"])?;
    assert!(vtape(&["dump", &image])?.contains("end of data"));
    Ok(())
}

/// A server killed under a program that writes: the program gets an error as soon as the next
/// server cleans up, and the tape holds what had been written, whole and in order.
pub fn killed_under_load(context: &Context) -> TestResult {
    const LENGTH: usize = 50_000;
    for round in 0..if context.short { 2 } else { 6 } {
        let path = context.scratch.join(format!("tape{round}"));
        let image = create(&path, "--capacity 256M")?;
        let (server, drive) = Server::with(&image)?;
        let mut tape = drive.open()?;
        let writer = std::thread::spawn(move || -> u64 {
            let mut taken = 0;
            while taken < 5000 && tape.write(&block(taken, LENGTH)).is_ok() {
                taken += 1;
            }
            taken
        });
        std::thread::sleep(Duration::from_millis(100 + 130 * round));
        server.kill()?;
        let (server, drive) = Server::with(&image)?;
        let taken = writer.join().map_err(|_| "the writer panicked")?;
        assert!(taken < 5000, "the kill came too late");
        let mut device = drive.open_to_read()?;
        let mut found = 0;
        while let Ok(Some(data)) = read_block(&mut device) {
            assert!(data == block(found, LENGTH), "block {found}");
            found += 1;
        }
        drop(device);
        // The driver writes behind: the last block it took may never have reached the drive.
        assert!(found + 1 >= taken, "{taken} blocks were taken, {found} are there");
        server.stop()?;
    }
    Ok(())
}

pub fn eject_and_load(context: &Context) -> TestResult {
    let first = create(&context.scratch.join("a"), "--capacity 16M --barcode FIRST")?;
    let second = create(&context.scratch.join("b"), "--capacity 16M --barcode SECOND")?;
    let (server, drive) = Server::with(&first)?;
    drive.write_file(&blocks(1, &[100]))?;
    assert_eq!(try_vtape(&["load", "tape", &second])?.0, Some(1), "the drive is full");

    // A program takes the tape out; an operator puts the next one in.
    drive.mt("offline")?;
    let open = || {
        let flags = OFlags::NONBLOCK.bits() as i32;
        OpenOptions::new().read(true).custom_flags(flags).open(&drive.device)
    };
    let status = drive.mt("status")?;
    assert!(status.contains("DR_OPEN"), "{status}");
    drop(open()?);
    vtape(&["load", "tape", &second])?;
    drive.settle()?;
    assert_eq!(drive.place()?, (0, 0));
    assert!(drive.read_file().is_err(), "the second tape is blank");
    drive.mt("rewind")?;
    drive.write_file(&blocks(2, &[200]))?;

    // A locked drive gives its cartridge only to force.
    drive.mt("lock")?;
    assert_eq!(try_vtape(&["eject", "tape"])?.0, Some(1));
    drive.mt("unlock")?;
    vtape(&["eject", "tape"])?;
    assert!(drive.mt("status")?.contains("DR_OPEN"));
    vtape(&["load", "tape", &first])?;
    drive.settle()?;
    assert!(drive.read_file()? == blocks(1, &[100]));
    // What an initiator unloaded, it can load again.
    drive.mt("offline")?;
    drive.mt("load")?;
    assert!(drive.read_file()? == blocks(1, &[100]));
    server.stop()
}

pub fn several_drives(context: &Context) -> TestResult {
    let images: Vec<String> = ["a", "b", "c"]
        .iter()
        .map(|name| create(&context.scratch.join(name), "--capacity 16M"))
        .collect::<Result<_, _>>()?;
    let options: Vec<String> = images.iter().enumerate().map(|(n, image)| format!("drive{n}={image}")).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Server::start(&options)?;
    let drives = server.drives.clone();
    let writers: Vec<_> = drives
        .into_iter()
        .zip(0u64..)
        .map(|(drive, seed)| {
            std::thread::spawn(move || {
                let data = blocks(seed * 1000, &[65536; 40]);
                let work = || -> Result<(), Box<dyn std::error::Error>> {
                    drive.write_file(&data)?;
                    drive.mt("rewind")?;
                    assert!(drive.read_file()? == data, "{}", drive.name);
                    Ok(())
                };
                work().map_err(|error| error.to_string())
            })
        })
        .collect();
    for writer in writers {
        writer.join().map_err(|_| "a thread panicked")??;
    }
    assert_eq!(vtape(&["status", "--json"])?.lines().count(), 3);
    server.stop()
}

/// Each refusal names the object and what to do, and has its exit status.
pub fn refusals(context: &Context) -> TestResult {
    let image = create(&context.scratch.join("a"), "--capacity 16M")?;
    let none = context.scratch.join("none").display().to_string();
    let junk = context.scratch.join("junk");
    std::fs::write(&junk, b"not a tape")?;
    let junk = junk.display().to_string();
    let (server, _) = Server::with(&image)?;
    let cases: [(&[&str], i32, &str); 9] = [
        (&["create", &image], 1, "exists"),
        (&["create", "--capacity", "1", &none], 1, "64K"),
        (&["create", "--capacity", "lots", &none], 2, "2G"),
        (&["info", &none], 1, "none"),
        (&["info", &junk], 1, "not a tape image"),
        (&["dump", &image], 1, "in use"),
        (&["serve", "--drive", "tape"], 1, "being served already"),
        (&["serve", "--drive", "a/b"], 1, "cannot name a drive"),
        (&["load", "other", &image], 1, "no server of drive other"),
    ];
    for (arguments, status, words) in cases {
        let (found, messages) = try_vtape(arguments)?;
        assert_eq!(found, Some(status), "{arguments:?}: {messages}");
        assert!(messages.contains(words), "{arguments:?}: {messages}");
    }
    server.stop()
}
