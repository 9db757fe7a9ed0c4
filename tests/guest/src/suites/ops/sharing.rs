// SPDX-License-Identifier: GPL-2.0-or-later

//! Files that share extents: clones, deduplication, and copies that the lower does itself.

use super::place::{cases, Lower, Place};
use crate::check::{ensure, same, Check};
use crate::pattern::pattern;
use crate::Test;
use rustix::fs::{SeekFrom, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

pub const CASES: &[Test] = cases![sharing:
    "clone-whole" clone_whole,
    "clone-over-contents" clone_over_contents,
    "clone-range" clone_range,
    "clone-within-a-file" clone_within,
    "clone-of-the-tail" clone_tail,
    "clone-of-a-large-hole" clone_large_hole,
    "clone-of-nothing" clone_nothing,
    "clone-refused" clone_refused,
    "clone-clears-capability" clone_clears_capability,
    "clone-while-written" clone_while_written,
    "dedupe-same" dedupe_same,
    "dedupe-different" dedupe_different,
    "dedupe-of-holes-and-zeros" dedupe_holes,
    "copy-file-range-of-sparse-files" copy_sparse,
    "copy-file-range-unaligned" copy_unaligned,
];

fn rw(p: &Place, name: &str) -> Check<File> {
    Ok(File::options().create(true).truncate(false).read(true).write(true).open(p.at(name))?)
}

/// Whether the lower can; where it cannot, it says so as it would without us.
fn shares(p: &Place) -> Check<bool> {
    let can = matches!(p.kind()?, Lower::Xfs | Lower::Btrfs);
    if !can {
        fs::write(p.at("from"), pattern(8192, 1))?;
        let (from, to) = (File::open(p.at("from"))?, rw(p, "to")?);
        p.refused(&[Errno::OPNOTSUPP], || rustix::fs::ioctl_ficlone(&to, &from))?;
    }
    Ok(can)
}

/// `FICLONERANGE`; 0 or the negated errno.
fn clone(p: &Place, to: &str, at: u64, from: &str, offset: u64, length: u64) -> Check<i64> {
    const SCRIPT: &str = r#"
        my ($to, $from, $offset, $length, $at) = @ARGV;
        open(T, "+<", $to) or die "open: $!";
        open(F, "<", $from) or die "open: $!";
        my $range = pack("q Q Q Q", fileno(F), $offset, $length, $at);
        print defined(ioctl(T, 0x4020940d, $range)) ? 0 : -($!+0);
    "#;
    let numbers = [offset, length, at].map(|number| number.to_string());
    let (to, from) = (p.at(to), p.at(from));
    let mut arguments = vec![to.as_os_str(), from.as_os_str()];
    arguments.extend(numbers.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    p.perl(SCRIPT, &arguments)
}

const DIFFERS: i64 = -1000;

/// `FIDEDUPERANGE`; bytes, [`DIFFERS`] or the negated errno.
fn dedupe(p: &Place, to: &str, at: u64, from: &str, offset: u64, length: u64) -> Check<i64> {
    const SCRIPT: &str = r#"
        my ($to, $from, $offset, $length, $at) = @ARGV;
        my $form = "Q Q S S L q Q Q l L";
        open(T, "+<", $to) or die "open: $!";
        open(F, "<", $from) or die "open: $!";
        my $range = pack($form, $offset, $length, 1, 0, 0, fileno(T), $at, 0, 0, 0);
        if (!defined(ioctl(F, 0xc0189436, $range))) { print -($!+0); exit }
        my ($bytes, $status) = (unpack($form, $range))[7, 8];
        print $status == 1 ? -1000 : $status < 0 ? $status : $bytes;
    "#;
    let numbers = [offset, length, at].map(|number| number.to_string());
    let (to, from) = (p.at(to), p.at(from));
    let mut arguments = vec![to.as_os_str(), from.as_os_str()];
    arguments.extend(numbers.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    p.perl(SCRIPT, &arguments)
}

fn refused(result: i64, errno: Errno) -> Check {
    same!(result, -i64::from(errno.raw_os_error()));
    Ok(())
}

const BLOCK: u64 = 4096;

/// Data, a hole, data, a hole larger than a record, data, a tail that is no whole block.
fn patchwork(p: &Place, name: &str) -> Check<u64> {
    let file = rw(p, name)?;
    file.write_all_at(&pattern(3 * 4096, 1), 0)?;
    file.write_all_at(&pattern(2_500_000, 2), 10 * BLOCK)?;
    file.write_all_at(&pattern(5000, 3), 8 << 20)?;
    let size = (9 << 20) + 777;
    file.set_len(size)?;
    file.sync_all()?;
    Ok(size)
}

fn hole(file: &File, from: u64) -> Check<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::Hole(from))?)
}

fn clone_whole(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    patchwork(p, "from")?;
    let (from, to) = (File::open(p.at("from"))?, rw(p, "to")?);
    p.recorded(|| Ok(rustix::fs::ioctl_ficlone(&to, &from)?))?;
    ensure!(fs::read(p.at("to"))? == fs::read(p.below("from"))?, "other bytes");
    same!(hole(&to, 0)?, 3 * BLOCK);
    // Neither sees what is written to the other.
    to.write_all_at(b"into the clone", 5000)?;
    rw(p, "from")?.write_all_at(b"into the source", 50_000)?;
    let cp = Command::new("cp").arg("--reflink=always").arg(p.at("from")).arg(p.at("by-cp")).status()?;
    ensure!(cp.success(), "cp --reflink=always failed");
    Ok(())
}

/// The clone replaces what was there, holes included, and leaves what is behind it.
fn clone_over_contents(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    let size = patchwork(p, "from")?;
    let to = rw(p, "to")?;
    to.write_all_at(&pattern(12 << 20, 9), 0)?;
    p.recorded(|| clone(p, "to", BLOCK, "from", 0, 9 << 20).map(drop))?;
    same!(to.metadata()?.size(), 12 << 20);
    same!(hole(&to, 0)?, 4 * BLOCK);
    ensure!(fs::read(p.at("to"))?[4096..(9 << 20) + 4096] == fs::read(p.at("from"))?[..9 << 20], "other bytes");
    // The whole of it, which has a tail, cannot go into the middle of a block.
    refused(clone(p, "to", 0, "from", 0, size)?, Errno::INVAL)?;
    // Onto the end, it can: the size follows, past what was there and past a hole.
    same!(clone(p, "to", 20 << 20, "from", 0, 0)?, 0);
    same!(to.metadata()?.size(), (20 << 20) + size);
    Ok(())
}

fn clone_range(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    patchwork(p, "from")?;
    let to = rw(p, "to")?;
    for (at, offset, length) in [(0, 2, 1), (5, 1, 20), (2000, 10, 300), (100, 500, 400)] {
        same!(clone(p, "to", at * BLOCK, "from", offset * BLOCK, length * BLOCK)?, 0);
    }
    ensure!(fs::read(p.at("to"))? == fs::read(p.below("to"))?, "other bytes in the lower");
    same!(to.metadata()?.size(), 2300 * BLOCK);
    Ok(())
}

fn clone_within(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    rw(p, "f")?.write_all_at(&pattern(40 * 4096, 4), 0)?;
    same!(clone(p, "f", 20 * BLOCK, "f", 0, 10 * BLOCK)?, 0);
    same!(clone(p, "f", 60 * BLOCK, "f", 30 * BLOCK, 10 * BLOCK)?, 0);
    p.unrecorded(|| refused(clone(p, "f", 5 * BLOCK, "f", 0, 10 * BLOCK)?, Errno::INVAL))
}

fn clone_tail(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    rw(p, "from")?.write_all_at(&pattern(3 * 4096 + 100, 6), 0)?;
    rw(p, "to")?.write_all_at(&pattern(2 * 4096 + 50, 7), 0)?;
    same!(clone(p, "to", BLOCK, "from", 2 * BLOCK, 0)?, 0);
    same!(p.at("to").metadata()?.size(), 2 * BLOCK + 100);
    // A small file, which some lowers keep with its metadata.
    fs::write(p.at("small"), "a few bytes")?;
    rw(p, "small-clone")?;
    same!(clone(p, "small-clone", 0, "small", 0, 0)?, 0);
    same!(fs::read(p.at("small-clone"))?, b"a few bytes");
    Ok(())
}

fn clone_large_hole(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    let from = rw(p, "from")?;
    from.write_all_at(b"far away", 5 << 30)?;
    let to = rw(p, "to")?;
    to.write_all_at(&pattern(100_000, 1), 0)?;
    let ((), records) = p.counted(|| rustix::fs::ioctl_ficlone(&to, &from)).and_then(|(done, n)| Ok((done?, n)))?;
    ensure!(p.plain() || records < 20, "{records} records of a hole");
    same!(to.metadata()?.size(), (5 << 30) + 8);
    // Far holes would only cost time when the trees are compared.
    from.set_len(1 << 20)?;
    to.set_len(1 << 20)?;
    Ok(())
}

fn clone_nothing(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    let (from, to) = (rw(p, "empty")?, rw(p, "to")?);
    to.write_all_at(b"stays", 0)?;
    rustix::fs::ioctl_ficlone(&to, &from)?;
    same!(fs::read(p.at("to"))?, b"stays");
    Ok(())
}

fn clone_refused(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    fs::write(p.at("from"), pattern(20 * 4096, 1))?;
    fs::write(p.at("to"), pattern(20 * 4096, 2))?;
    let calls = [(100, 0, BLOCK), (0, 100, BLOCK), (0, 0, 5000), (0, 20 * BLOCK + BLOCK, BLOCK), (0, BLOCK, u64::MAX)];
    for (at, offset, length) in calls {
        p.unrecorded(|| refused(clone(p, "to", at, "from", offset, length)?, Errno::INVAL))?;
    }
    let (from, to) = (File::open(p.at("from"))?, File::open(p.at("to"))?);
    p.refused(&[Errno::BADF], || rustix::fs::ioctl_ficlone(&to, &from))?;
    let append = File::options().append(true).open(p.at("to"))?;
    p.refused(&[Errno::BADF], || rustix::fs::ioctl_ficlone(&append, &from))?;
    fs::write("/tmp/elsewhere", "x")?;
    let elsewhere = File::open("/tmp/elsewhere")?;
    let to = rw(p, "to")?;
    p.refused(&[Errno::XDEV], || rustix::fs::ioctl_ficlone(&to, &elsewhere))
}

fn clone_clears_capability(p: &Place) -> Check {
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if !shares(p)? {
        return Ok(());
    }
    fs::write(p.at("from"), pattern(8192, 1))?;
    let to = rw(p, "to")?;
    rustix::fs::fsetxattr(&to, "security.capability", &CAPABILITY, XattrFlags::empty())?;
    rustix::fs::ioctl_ficlone(&to, &File::open(p.at("from"))?)?;
    let left = rustix::fs::lgetxattr(p.below("to"), "security.capability", &mut [0; 64][..]);
    ensure!(left.is_err(), "the capability survived");
    Ok(())
}

/// A clone is of one moment, whoever writes to the source or to the clone meanwhile.
fn clone_while_written(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    let from = rw(p, "from")?;
    from.write_all_at(&[0; 1 << 20], 0)?;
    let to = rw(p, "to")?;
    let done = std::sync::atomic::AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut step = 0_u8;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                step = step.wrapping_add(1);
                from.write_all_at(&[step; 200_000], 100_000)?;
                to.write_all_at(&[step; 5000], 600_000)?;
            }
            Ok::<_, std::io::Error>(())
        });
        let cloned: Check = (0..30).try_for_each(|round| {
            let clone = rw(p, &format!("clone-{round}"))?;
            rustix::fs::ioctl_ficlone(&clone, &from)?;
            rustix::fs::ioctl_ficlone(&to, &from)?;
            let bytes = fs::read(p.at(&format!("clone-{round}")))?;
            ensure!(bytes[100_000..300_000].iter().all(|byte| *byte == bytes[100_000]), "torn");
            Ok(())
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (cloned, writer.join())
    });
    result.0?;
    ensure!(matches!(result.1, Ok(Ok(()))), "the writer failed");
    Ok(())
}

fn dedupe_same(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    for name in ["a", "b"] {
        patchwork(p, name)?;
    }
    let length = 9 << 20;
    p.unrecorded(|| {
        let _: () = same!(dedupe(p, "b", 0, "a", 0, length)?, length as i64);
        Ok(())
    })?;
    ensure!(fs::read(p.at("a"))? == fs::read(p.at("b"))?, "other bytes");
    rw(p, "b")?.write_all_at(b"no longer shared", 4096)?;
    Ok(())
}

fn dedupe_different(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    fs::write(p.at("a"), pattern(65_536, 1))?;
    fs::write(p.at("b"), pattern(65_536, 2))?;
    p.unrecorded(|| {
        same!(dedupe(p, "b", 0, "a", 0, 65_536)?, DIFFERS);
        refused(dedupe(p, "b", 0, "a", 65_536, 65_536)?, Errno::INVAL)
    })?;
    same!(fs::read(p.at("b"))?, pattern(65_536, 2));
    Ok(())
}

/// A hole and zeros read the same, and are not.
fn dedupe_holes(p: &Place) -> Check {
    if !shares(p)? {
        return Ok(());
    }
    let (holes, zeros, more) = (rw(p, "holes")?, rw(p, "zeros")?, rw(p, "more-holes")?);
    for file in [&holes, &zeros, &more] {
        file.write_all_at(&pattern(4096, 1), 0)?;
        file.set_len(16 * BLOCK)?;
    }
    zeros.write_all_at(&[0; 8 * 4096], 4 * BLOCK)?;
    for file in [&holes, &zeros] {
        file.sync_all()?;
    }
    same!(dedupe(p, "more-holes", 0, "zeros", 0, 16 * BLOCK)?, 16 * BLOCK as i64);
    same!(dedupe(p, "zeros", 0, "holes", 0, 16 * BLOCK)?, 16 * BLOCK as i64);
    ensure!(fs::read(p.at("zeros"))? == fs::read(p.at("more-holes"))?, "other bytes");
    Ok(())
}

fn copy(p: &Place, length: usize, mut offset: u64, mut at: u64) -> Check {
    let (from, to) = (File::open(p.at("from"))?, rw(p, "to")?);
    let mut left = length;
    while left > 0 {
        let done =
            p.recorded(|| Ok(rustix::fs::copy_file_range(&from, Some(&mut offset), &to, Some(&mut at), left)?))?;
        ensure!(done > 0, "copied nothing");
        left -= done;
    }
    Ok(())
}

fn copy_sparse(p: &Place) -> Check {
    patchwork(p, "from")?;
    copy(p, 6 << 20, 0, 0)?;
    copy(p, 2 << 20, 7 << 20, 10 << 20)?;
    let (from, to) = (fs::read(p.at("from"))?, fs::read(p.below("to"))?);
    ensure!(to[..6 << 20] == from[..6 << 20], "other bytes");
    ensure!(to[10 << 20..] == from[7 << 20..9 << 20], "other bytes behind the hole");
    Ok(())
}

fn copy_unaligned(p: &Place) -> Check {
    let size = patchwork(p, "from")?;
    copy(p, 1_000_000, 12_345, 777)?;
    copy(p, 5000, size - 5000, 2_000_001)?;
    let (from, to) = (fs::read(p.at("from"))?, fs::read(p.below("to"))?);
    ensure!(to[777..1_000_777] == from[12_345..1_012_345], "other bytes");
    ensure!(to[2_000_001..] == from[from.len() - 5000..], "other bytes at the end");
    Ok(())
}
