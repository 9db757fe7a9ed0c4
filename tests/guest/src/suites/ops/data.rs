// SPDX-License-Identifier: GPL-2.0-or-later

//! Operations on what is in files.

use super::place::{cases, Lower, Place};
use crate::check::{ensure, same, Check, Failure};
use crate::pattern::{aligned, pattern};
use crate::worker;
use crate::Test;
use rustix::fs::{FallocateFlags, Mode, OFlags, CWD};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::process::{Resource, Rlimit};
use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const CASES: &[Test] = cases![data:
    "write" write,
    "write-in-place" write_in_place,
    "write-behind-the-end" write_behind_the_end,
    "write-nothing" write_nothing,
    "write-append" write_append,
    "write-append-flag" write_append_flag,
    "write-append-from-several-processes" append_together,
    "write-synchronous" write_synchronous,
    "write-direct" write_direct,
    "write-direct-unaligned" write_direct_unaligned,
    "write-vectored" write_vectored,
    "write-large" write_large,
    "write-short-by-a-faulting-buffer" write_faulting,
    "write-short-by-a-limit" write_limited,
    "write-nowait" write_nowait,
    "write-nowait-while-locked" write_nowait_locked,
    "write-nowait-while-frozen" write_nowait_frozen,
    "write-flags-refused" write_flags_refused,
    "write-flags-of-fcntl" set_flags,
    "read-flags" read_flags,
    "write-refused" write_refused,
    "write-zeros" write_zeros,
    "truncate-down" truncate_down,
    "truncate-up" truncate_up,
    "truncate-within-a-block" truncate_within_block,
    "truncate-to-the-same-size" truncate_same,
    "truncate-by-path" truncate_by_path,
    "truncate-by-open" truncate_by_open,
    "truncate-refused" truncate_refused,
    "sparse" sparse,
    "copy-file-range" copy_file_range,
    "copy-by-cp" copy_by_cp,
    "splice" splice,
    "sendfile" sendfile,
    "fallocate" fallocate,
    "fallocate-keep-size" fallocate_keep_size,
    "fallocate-punch-hole" punch_hole,
    "fallocate-zero-range" zero_range,
    "fallocate-collapse-and-insert" shifts,
    "reading-leaves-no-record" reading,
    "race-of-writes-and-truncates" race_data,
];

fn rw(p: &Place, name: &str) -> Check<File> {
    Ok(File::options().create(true).truncate(false).read(true).write(true).open(p.at(name))?)
}

fn write(p: &Place) -> Check {
    let mut file = rw(p, "f")?;
    p.recorded(|| Ok(file.write_all(b"one")?))?;
    for length in [1, 7, 8, 4095, 4096, 4097, 65_536, 100_000] {
        file.write_all(&pattern(length, length as u64))?;
    }
    same!(fs::read(p.at("f"))?, fs::read(p.below("f"))?);
    Ok(())
}

fn write_in_place(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(50_000, 1), 0)?;
    for step in 0..40 {
        file.write_all_at(&pattern(333, step), (step * 7919) % 49_000)?;
    }
    same!(file.metadata()?.size(), 50_000);
    Ok(())
}

fn write_behind_the_end(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(b"x", 1 << 20)?;
    file.write_all_at(b"y", 100_000)?;
    file.write_all_at(b"z", (5 << 30) + 17)?;
    same!(file.metadata()?.size(), (5 << 30) + 18);
    // Far holes would only cost time when the trees are compared.
    file.set_len(2 << 20)?;
    Ok(())
}

fn write_nothing(p: &Place) -> Check {
    let file = rw(p, "f")?;
    let before = file.metadata()?.mtime_nsec();
    p.unrecorded(|| {
        let _: () = same!(file.write_at(b"", 10)?, 0);
        Ok(())
    })?;
    same!(file.metadata()?.mtime_nsec(), before);
    Ok(())
}

fn write_append(p: &Place) -> Check {
    let mut one = File::options().append(true).create(true).open(p.at("log"))?;
    let mut two = File::options().append(true).open(p.at("log"))?;
    for line in 0..100 {
        writeln!(if line % 2 == 0 { &mut one } else { &mut two }, "line {line}")?;
    }
    // Where pwrite(2) says "at 0" and the descriptor says "append", Linux appends.
    one.write_all_at(b"at the end", 0)?;
    ensure!(fs::read(p.at("log"))?.ends_with(b"line 99\nat the end"), "appended elsewhere");
    // The flag comes and goes with fcntl(2).
    rustix::fs::fcntl_setfl(&one, OFlags::empty())?;
    one.write_all_at(b"LINE", 0)?;
    ensure!(fs::read(p.at("log"))?.starts_with(b"LINE 0"), "still appends");
    rustix::fs::fcntl_setfl(&one, OFlags::APPEND)?;
    one.write_all_at(b"!", 0)?;
    ensure!(fs::read(p.at("log"))?.ends_with(b"at the end!"), "does not append again");
    Ok(())
}

fn write_append_flag(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(b"start", 0)?;
    rustix::io::pwritev2(&file, &[IoSlice::new(b" and end")], 0, ReadWriteFlags::APPEND)?;
    same!(fs::read(p.at("f"))?, b"start and end");
    Ok(())
}

fn append_together(p: &Place) -> Check {
    File::create(p.at("log"))?;
    worker::together(4, |number| worker::append(&p.at("log"), number, 300))?;
    let text = fs::read_to_string(p.at("log"))?;
    same!(text.lines().count(), 1200);
    for number in 0..4 {
        let mine: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("worker {number} "))).collect();
        same!(mine.len(), 300);
        ensure!(mine.windows(2).all(|pair| pair[0] < pair[1]), "lines of worker {number} out of order");
    }
    Ok(())
}

fn write_synchronous(p: &Place) -> Check {
    for (name, flag) in [("sync", OFlags::SYNC), ("dsync", OFlags::DSYNC)] {
        let file = rustix::fs::open(p.at(name), OFlags::CREATE | OFlags::RDWR | flag, Mode::RUSR)?;
        for step in 0..5 {
            rustix::io::pwrite(&file, &pattern(5000, step), step * 4000)?;
        }
    }
    let file = rw(p, "flags")?;
    for (step, flag) in [ReadWriteFlags::DSYNC, ReadWriteFlags::SYNC].into_iter().enumerate() {
        let bytes = pattern(3000, 9);
        same!(rustix::io::pwritev2(&file, &[IoSlice::new(&bytes)], step as u64 * 3000, flag)?, 3000);
    }
    file.sync_all()?;
    file.sync_data()?;
    Ok(())
}

fn open_direct(p: &Place, name: &str) -> Check<Option<File>> {
    let opened =
        File::options().create(true).truncate(false).read(true).write(true).custom_flags(0o40000).open(p.at(name));
    match opened {
        // A lower without direct I/O says so.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn write_direct(p: &Place) -> Check {
    let Some(file) = open_direct(p, "f")? else { return Ok(()) };
    let mut memory = Vec::new();
    for (step, length) in [4096, 8192, 65_536, 1 << 20, (1 << 20) + 4096, 3 << 20].into_iter().enumerate() {
        let bytes = aligned(&mut memory, &pattern(length, step as u64));
        p.recorded(|| Ok(file.write_all_at(bytes, step as u64 * 8192)?))?;
    }
    // Mixed with the page cache.
    let buffered = rw(p, "f")?;
    buffered.write_all_at(b"through the page cache", 5000)?;
    file.write_all_at(aligned(&mut memory, &pattern(4096, 77)), 4096 * 3)?;
    let mut back = [0; 22];
    buffered.read_exact_at(&mut back, 5000)?;
    same!(&back, b"through the page cache");
    // Into a hole behind the end.
    file.write_all_at(aligned(&mut memory, &pattern(4096, 78)), 8 << 20)?;
    Ok(())
}

fn write_direct_unaligned(p: &Place) -> Check {
    let Some(file) = open_direct(p, "f")? else { return Ok(()) };
    // A direct write that fails may have reached the device in part: a record of that is no mistake.
    for (bytes, offset) in [(&b"neither length nor address"[..], 3), (&pattern(512, 1)[..], 512)] {
        let written = rustix::io::pwrite(&file, bytes, offset);
        ensure!(matches!(written, Ok(_) | Err(Errno::INVAL)), "{written:?}, may only be EINVAL");
    }
    Ok(())
}

fn write_vectored(p: &Place) -> Check {
    let file = rw(p, "f")?;
    let parts: Vec<Vec<u8>> = (0..200).map(|part| pattern(1 + part * 13 % 6000, part as u64)).collect();
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    same!(rustix::io::pwritev(&file, &slices, 777)?, parts.iter().map(Vec::len).sum::<usize>());
    let mut wanted = vec![0; 777];
    wanted.extend(parts.concat());
    ensure!(fs::read(p.below("f"))? == wanted, "other bytes in the lower");
    Ok(())
}

fn write_large(p: &Place) -> Check {
    let file = rw(p, "f")?;
    let bytes = pattern((5 << 20) + 12_345, 1);
    let mut at = 0;
    while at < bytes.len() {
        let written = p.recorded(|| Ok(file.write_at(&bytes[at..], at as u64)?))?;
        ensure!(written > 0, "wrote nothing");
        at += written;
    }
    // Across a boundary of records, in the middle.
    file.write_all_at(&pattern(2 << 20, 2), (1 << 20) - 5)?;
    ensure!(fs::read(p.at("f"))? == fs::read(p.below("f"))?, "other bytes in the lower");
    Ok(())
}

/// A vector whose second part is not mapped: what was copied before it is written, the rest is not.
fn write_faulting(p: &Place) -> Check {
    File::create(p.at("f"))?;
    const SCRIPT: &str = r#"
        open(F, "+<", $ARGV[0]) or die "open: $!";
        my $good = "g" x $ARGV[1];
        my $vector = pack("Q4", unpack("Q", pack("p", $good)), length($good), 4096, 100000);
        my $written = syscall(20, fileno(F), $vector, 2);
        print $written < 0 ? -($!+0) : $written;
    "#;
    let mut size = 0;
    for length in [1_u64, 100, 4096, 5000, 70_000] {
        let written = p.perl(SCRIPT, &[p.at("f").as_os_str(), length.to_string().as_ref()])?;
        // The lower may cut at a page, but it never says more than was there.
        ensure!(written >= 0 && written <= length as i64, "{length} good bytes: {written}");
        size = size.max(u64::try_from(written).unwrap_or(0));
        same!(p.at("f").metadata()?.size(), size);
    }
    // Nothing good at all: EFAULT, and nothing happened.
    p.unrecorded(|| {
        let written = p.perl(SCRIPT, &[p.at("f").as_os_str(), "0".as_ref()])?;
        same!(written, -i64::from(Errno::FAULT.raw_os_error()));
        Ok(())
    })
}

fn write_limited(p: &Place) -> Check {
    let file = rw(p, "f")?;
    let old = rustix::process::getrlimit(Resource::Fsize);
    rustix::process::setrlimit(Resource::Fsize, Rlimit { current: Some(10_000), maximum: old.maximum })?;
    let written = rustix::io::pwrite(&file, &pattern(8192, 1), 5000);
    rustix::process::setrlimit(Resource::Fsize, old)?;
    same!(written?, 5000);
    same!(file.metadata()?.size(), 10_000);
    Ok(())
}

const NOWAIT: ReadWriteFlags = ReadWriteFlags::NOWAIT;

fn write_now(file: &File, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, NOWAIT)
}

fn write_nowait(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(8192, 1), 0)?;
    file.sync_all()?;
    match p.kind()? {
        // These never write through the page cache without waiting.
        Lower::Ext4 | Lower::Tmpfs => return p.refused(&[Errno::OPNOTSUPP], || write_now(&file, b"now", 100)),
        // It would, and always has to wait.
        Lower::Btrfs => return p.refused(&[Errno::AGAIN], || write_now(&file, b"now", 100)),
        _ => {}
    }
    // Into pages that are in memory and blocks that are allocated there is nothing to wait for, if the time of the
    // change is that of the one before: the lower would wait to set another.
    let done = crate::machine::wait_until("a write without waiting", Duration::from_secs(20), || {
        file.write_all_at(b"to set the time", 4000).is_ok() && write_now(&file, b"at once", 100) == Ok(7)
    });
    ensure!(done.is_ok(), "would always wait");
    same!(fs::read(p.at("f"))?[100..107], b"at once"[..]);
    // What has to be durable when it returns is waited for.
    let flags = NOWAIT | ReadWriteFlags::DSYNC;
    p.refused(&[Errno::AGAIN], || rustix::io::pwritev2(&file, &[IoSlice::new(b"now")], 0, flags))
}

/// What does not get the file's lock leaves it to who has it.
fn write_nowait_locked(p: &Place) -> Check {
    let file = rw(p, "f")?;
    let long = pattern(1 << 20, 1);
    file.write_all_at(&long, 0)?;
    let stop = AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                file.write_all_at(&long, 0)?;
            }
            std::io::Result::Ok(())
        });
        // For as long as that: some are refused for other reasons, at once.
        let until = Instant::now() + Duration::from_secs(3);
        let mut refused = 0;
        let mut odd = None;
        while odd.is_none() && Instant::now() < until && !writer.is_finished() {
            match write_now(&file, b"now", 100) {
                Err(Errno::AGAIN) => refused += 1,
                Ok(3) | Err(Errno::OPNOTSUPP) => {}
                other => odd = Some(other),
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| Failure::new("the writer panicked"))??;
        ensure!(odd.is_none(), "{odd:?}");
        Check::Ok(refused)
    })?;
    // The lower has its own ways, and of a file on tmpfs the VFS knows that it is not written without waiting.
    ensure!(refused > 0 || p.plain() || p.kind()? == Lower::Tmpfs, "never came while the file was locked");
    file.write_all_at(b"afterwards", 4000)?;
    file.sync_all()?;
    Ok(fs::set_permissions(p.at("f"), fs::Permissions::from_mode(0o640))?)
}

fn write_nowait_frozen(p: &Place) -> Check {
    if p.plain() || !matches!(p.kind()?, Lower::Xfs | Lower::Btrfs) {
        return Ok(());
    }
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(8192, 1), 0)?;
    file.sync_all()?;
    let stage = p.below("..").canonicalize()?;
    let stage = stage.parent().ok_or(Errno::NOENT)?;
    let freeze = |how: &str| Command::new("fsfreeze").arg(how).arg(stage).status();
    ensure!(freeze("-f")?.success(), "fsfreeze failed");
    let started = Instant::now();
    let result = p.refused(&[Errno::AGAIN], || write_now(&file, b"now", 100));
    let took = started.elapsed();
    ensure!(freeze("-u")?.success(), "fsfreeze -u failed");
    result?;
    ensure!(took < Duration::from_secs(20), "waited for {took:?}");
    Ok(file.write_all_at(b"thawed", 100)?)
}

/// Flags of `pwritev2(2)` that nobody obeys are refused, not left out.
fn write_flags_refused(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(8192, 1), 0)?;
    // RWF_ATOMIC, RWF_DONTCACHE and one that does not exist.
    for flag in [0x40, 0x80, 0x4000_0000] {
        let flags = ReadWriteFlags::from_bits_retain(flag);
        let write = || rustix::io::pwritev2(&file, &[IoSlice::new(&[7; 4096])], 0, flags);
        if !p.plain() {
            p.refused(&[Errno::OPNOTSUPP, Errno::INVAL], write)?;
        }
    }
    // RWF_NOAPPEND: at the offset, though the descriptor says "append".
    let append = File::options().append(true).open(p.at("f"))?;
    let at_the_offset = ReadWriteFlags::from_bits_retain(0x20);
    rustix::io::pwritev2(&append, &[IoSlice::new(b"in place")], 100, at_the_offset)?;
    same!(append.metadata()?.size(), 8192);
    same!(fs::read(p.at("f"))?[100..108], b"in place"[..]);
    // Without an offset, where the descriptor stands.
    let mut whole = rw(p, "f")?;
    std::io::Seek::seek(&mut whole, std::io::SeekFrom::Start(500))?;
    rustix::io::pwritev2(&whole, &[IoSlice::new(b"here")], u64::MAX, ReadWriteFlags::DSYNC)?;
    same!(fs::read(p.at("f"))?[500..504], b"here"[..]);
    Ok(())
}

/// `O_DIRECT` comes and goes with `fcntl(F_SETFL)`, below too.
fn set_flags(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(65_536, 1), 0)?;
    match rustix::fs::fcntl_setfl(&file, OFlags::DIRECT) {
        Err(Errno::INVAL) => return Ok(()),
        set => set?,
    }
    let mut memory = Vec::new();
    file.write_all_at(aligned(&mut memory, &pattern(8192, 2)), 4096)?;
    if matches!(p.kind()?, Lower::Ext4 | Lower::Xfs) {
        let odd = rustix::io::pwrite(&file, b"no whole block", 5);
        ensure!(matches!(odd, Err(Errno::INVAL)), "{odd:?}: written past O_DIRECT");
    }
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    file.write_all_at(b"at the end, through the page cache", 5)?;
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    file.write_all_at(b"in the middle", 5)?;
    same!(file.metadata()?.size(), 65_536 + 34);
    same!(fs::read(p.at("f"))?[5..18], b"in the middle"[..]);
    Ok(())
}

fn read_flags(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(8192, 1), 0)?;
    let read = |flags| {
        let mut back = [0; 100];
        let n = rustix::io::preadv2(&file, &mut [std::io::IoSliceMut::new(&mut back)], 50, flags)?;
        Ok::<_, Errno>(back[..n].to_vec())
    };
    p.unrecorded(|| {
        same!(read(ReadWriteFlags::empty())?, pattern(8192, 1)[50..150]);
        same!(read(ReadWriteFlags::HIPRI)?, pattern(8192, 1)[50..150]);
        match read(NOWAIT) {
            Ok(bytes) => ensure!(bytes == pattern(8192, 1)[50..150], "other bytes"),
            Err(error) => ensure!(matches!(error, Errno::AGAIN | Errno::OPNOTSUPP), "{error:?}"),
        }
        Ok(())
    })
}

fn write_refused(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    let read_only = File::open(p.at("f"))?;
    p.refused(&[Errno::BADF], || rustix::io::pwrite(&read_only, b"y", 0))?;
    let file = rw(p, "f")?;
    p.refused(&[Errno::FBIG, Errno::INVAL], || rustix::io::pwrite(&file, b"y", i64::MAX as u64))?;
    fs::create_dir(p.at("d"))?;
    p.refused(&[Errno::ISDIR], || rustix::fs::open(p.at("d"), OFlags::WRONLY, Mode::empty()))?;
    p.refused(&[Errno::NOENT], || rustix::fs::open(p.at("no"), OFlags::WRONLY, Mode::empty()))
}

fn write_zeros(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&[0; 20_000], 4096)?;
    same!(file.metadata()?.size(), 24_096);
    Ok(())
}

fn truncate_down(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(100_000, 1), 0)?;
    p.recorded(|| Ok(file.set_len(50_001)?))?;
    p.recorded(|| Ok(file.set_len(0)?))?;
    file.write_all_at(b"after", 10)?;
    Ok(())
}

fn truncate_up(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(b"start", 0)?;
    p.recorded(|| Ok(file.set_len(1 << 20)?))?;
    same!(file.metadata()?.size(), 1 << 20);
    Ok(())
}

/// What lay behind the new end of the file must not come back when it grows again.
fn truncate_within_block(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(4096, 1), 0)?;
    file.set_len(1000)?;
    file.set_len(3000)?;
    file.write_all_at(b"x", 3500)?;
    let bytes = fs::read(p.at("f"))?;
    ensure!(bytes[1000..3500].iter().all(|&byte| byte == 0), "old bytes came back");
    Ok(())
}

fn truncate_same(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(b"12345", 0)?;
    file.set_len(5)?;
    same!(file.metadata()?.size(), 5);
    Ok(())
}

fn truncate_by_path(p: &Place) -> Check {
    fs::write(p.at("f"), pattern(10_000, 1))?;
    let cut = |size: &str| {
        let _: () = same!(Command::new("truncate").arg("-s").arg(size).arg(p.at("f")).status()?.code(), Some(0));
        Ok::<_, crate::check::Failure>(())
    };
    cut("123")?;
    cut("+9000")?;
    // truncate(2) itself, which opens nothing.
    let script = r#"print truncate($ARGV[0], 77) ? 0 : -($!+0)"#;
    same!(p.perl(script, &[p.at("f").as_os_str()])?, 0);
    same!(p.below("f").metadata()?.size(), 77);
    Ok(())
}

fn truncate_by_open(p: &Place) -> Check {
    fs::write(p.at("f"), pattern(10_000, 1))?;
    p.recorded(|| Ok(File::create(p.at("f"))?))?;
    same!(p.below("f").metadata()?.size(), 0);
    fs::write(p.at("f"), "short")?;
    let created = OFlags::CREATE | OFlags::TRUNC | OFlags::RDONLY;
    rustix::fs::open(p.at("f"), created, Mode::RUSR)?;
    same!(p.below("f").metadata()?.size(), 0);
    Ok(())
}

fn truncate_refused(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    let read_only = File::open(p.at("f"))?;
    p.refused(&[Errno::INVAL, Errno::BADF], || rustix::fs::ftruncate(&read_only, 0))?;
    let file = rw(p, "f")?;
    // Some filesystems hold a file of that size.
    if p.either(&[Errno::FBIG, Errno::INVAL], || rustix::fs::ftruncate(&file, i64::MAX as u64))? {
        file.set_len(1)?;
    }
    same!(p.below("f").metadata()?.size(), 1);
    Ok(())
}

fn sparse(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.set_len(16 << 20)?;
    for block in [0_u64, 3, 4, 100, 101, 1000, 4095] {
        file.write_all_at(&pattern(4096, block), block * 4096)?;
    }
    same!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(5 * 4096))?, 100 * 4096);
    same!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(3 * 4096))?, 5 * 4096);
    // A large hole that tar(1) keeps.
    fs::create_dir(p.at("unpacked"))?;
    let tar = Command::new("sh").arg("-c").arg("tar -cSf - f | tar -xSf - -C unpacked").current_dir(&p.dir).status()?;
    same!(tar.code(), Some(0));
    Ok(())
}

fn copy_file_range(p: &Place) -> Check {
    fs::write(p.at("from"), pattern(200_000, 1))?;
    let from = File::open(p.at("from"))?;
    let to = rw(p, "to")?;
    p.either(&[Errno::XDEV, Errno::INVAL, Errno::OPNOTSUPP], || {
        rustix::fs::copy_file_range(&from, Some(&mut 1000), &to, Some(&mut 500), 150_000)
    })?;
    // From outside into the mount.
    fs::write("/tmp/copied-from", pattern(100_000, 2))?;
    let outside = File::open("/tmp/copied-from")?;
    p.either(&[Errno::XDEV, Errno::INVAL, Errno::OPNOTSUPP], || {
        rustix::fs::copy_file_range(&outside, Some(&mut 0), &to, Some(&mut 300_000), 100_000)
    })
    .map(drop)
}

fn copy_by_cp(p: &Place) -> Check {
    fs::write(p.at("from"), pattern(300_000, 1))?;
    for how in ["auto", "never"] {
        let to = p.at(&format!("to-{how}"));
        let cp = Command::new("cp").arg("-a").arg(format!("--reflink={how}")).arg(p.at("from")).arg(&to).status()?;
        same!(cp.code(), Some(0));
        ensure!(fs::read(&to)? == fs::read(p.at("from"))?, "cp --reflink={how} copied other bytes");
    }
    // std::fs::copy uses copy_file_range and falls back.
    fs::copy(p.at("from"), p.at("to-std"))?;
    Ok(())
}

fn splice(p: &Place) -> Check {
    let file = rw(p, "f")?;
    let (read, write) = rustix::pipe::pipe()?;
    rustix::io::write(&write, &pattern(30_000, 1))?;
    let mut at = 100;
    p.either(&[Errno::INVAL], || {
        rustix::pipe::splice(&read, None, &file, Some(&mut at), 30_000, rustix::pipe::SpliceFlags::empty())
    })
    .map(drop)
}

fn sendfile(p: &Place) -> Check {
    fs::write(p.at("from"), pattern(30_000, 1))?;
    let from = File::open(p.at("from"))?;
    let to = rw(p, "to")?;
    p.either(&[Errno::INVAL], || rustix::fs::sendfile(&to, &from, None, 30_000)).map(drop)
}

fn allocate(p: &Place, file: &File, mode: FallocateFlags, offset: u64, length: u64) -> Check {
    p.either(&[Errno::OPNOTSUPP, Errno::INVAL], || rustix::fs::fallocate(file, mode, offset, length)).map(drop)
}

fn fallocate(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(b"start", 0)?;
    allocate(p, &file, FallocateFlags::empty(), 0, 100_000)?;
    file.write_all_at(&pattern(4096, 3), 8192)?;
    Ok(())
}

fn fallocate_keep_size(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(b"start", 0)?;
    allocate(p, &file, FallocateFlags::KEEP_SIZE, 0, 100_000)?;
    same!(file.metadata()?.size(), 5);
    Ok(())
}

fn punch_hole(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(100_000, 1), 0)?;
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    allocate(p, &file, mode, 4096, 16_384)?;
    allocate(p, &file, mode, 40_000, 777)?;
    Ok(())
}

fn zero_range(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(100_000, 1), 0)?;
    allocate(p, &file, FallocateFlags::ZERO_RANGE, 5000, 20_000)?;
    allocate(p, &file, FallocateFlags::ZERO_RANGE, 90_000, 50_000)?;
    Ok(())
}

fn shifts(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.write_all_at(&pattern(100_000, 1), 0)?;
    allocate(p, &file, FallocateFlags::COLLAPSE_RANGE, 4096, 8192)?;
    allocate(p, &file, FallocateFlags::INSERT_RANGE, 16_384, 4096)?;
    Ok(())
}

fn reading(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    fs::write(p.at("d/f"), pattern(10_000, 1))?;
    std::os::unix::fs::symlink("d/f", p.at("s"))?;
    p.unrecorded(|| {
        fs::read(p.at("s"))?;
        fs::read_link(p.at("s"))?;
        same!(fs::read_dir(p.at("d"))?.count(), 1);
        p.at("d/f").metadata()?;
        rustix::fs::access(p.at("d/f"), rustix::fs::Access::WRITE_OK)?;
        rustix::fs::openat(CWD, p.at("d/f"), OFlags::RDWR, Mode::empty())?;
        File::open(p.at("d/f"))?.sync_all()?;
        rustix::fs::statvfs(p.at("d"))?;
        Ok(())
    })
}

fn race_data(p: &Place) -> Check {
    rw(p, "shared")?;
    worker::together(4, |number| worker::scribble(&p.at("shared"), number, 400))?;
    ensure!(fs::read(p.at("shared"))? == fs::read(p.below("shared"))?, "other bytes in the lower");
    Ok(())
}
