// SPDX-License-Identifier: GPL-2.0-or-later

//! Space in files: every mode of `fallocate(2)` on every lower that has it, one that stops midway, and where a file
//! has data and where holes.

use super::place::{cases, Lower, Place};
use crate::check::{ensure, same, Check};
use crate::pattern::pattern;
use crate::Test;
use rustix::fs::{FallocateFlags, SeekFrom, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

pub const CASES: &[Test] = cases![allocation:
    "fallocate-every-mode" every_mode,
    "fallocate-behind-the-end" behind_the_end,
    "fallocate-without-space" without_space,
    "fallocate-too-large" too_large,
    "fallocate-refused" refused,
    "fallocate-clears-capability" clears_capability,
    "fallocate-write-zeroes" write_zeroes,
    "holes-stay-holes" holes,
    "seek-data-and-hole" seek,
    "extent-map" extents,
];

fn rw(p: &Place, name: &str) -> Check<File> {
    Ok(File::options().create(true).truncate(false).read(true).write(true).open(p.at(name))?)
}

const KEEP: FallocateFlags = FallocateFlags::KEEP_SIZE;
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE;
const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE;
const COLLAPSE: FallocateFlags = FallocateFlags::COLLAPSE_RANGE;
const INSERT: FallocateFlags = FallocateFlags::INSERT_RANGE;
const UNSHARE: FallocateFlags = FallocateFlags::UNSHARE_RANGE;

/// The modes, and which lowers have them.
const MODES: &[(&str, FallocateFlags, &[Lower])] = &[
    ("allocate", FallocateFlags::empty(), &[Lower::Ext4, Lower::Xfs, Lower::Btrfs, Lower::Tmpfs]),
    ("keep-size", KEEP, &[Lower::Ext4, Lower::Xfs, Lower::Btrfs, Lower::Tmpfs]),
    ("punch-hole", PUNCH.union(KEEP), &[Lower::Ext4, Lower::Xfs, Lower::Btrfs, Lower::Tmpfs]),
    ("zero-range", ZERO, &[Lower::Ext4, Lower::Xfs, Lower::Btrfs]),
    ("zero-range-keep-size", ZERO.union(KEEP), &[Lower::Ext4, Lower::Xfs, Lower::Btrfs]),
    ("collapse-range", COLLAPSE, &[Lower::Ext4, Lower::Xfs]),
    ("insert-range", INSERT, &[Lower::Ext4, Lower::Xfs]),
    ("unshare-range", UNSHARE, &[Lower::Xfs]),
    ("unshare-range-keep-size", UNSHARE.union(KEEP), &[Lower::Xfs]),
];

/// 256 KiB with a hole of 64 KiB in the middle.
fn prepare(p: &Place, name: &str) -> Check<File> {
    let file = rw(p, name)?;
    file.write_all_at(&pattern(98_304, 1), 0)?;
    file.write_all_at(&pattern(98_304, 2), 163_840)?;
    Ok(file)
}

fn every_mode(p: &Place) -> Check {
    let kind = p.kind()?;
    for &(name, mode, lowers) in MODES {
        let file = prepare(p, name)?;
        let call = |offset, length| rustix::fs::fallocate(&file, mode, offset, length);
        if !lowers.contains(&kind) {
            p.refused(&[Errno::OPNOTSUPP], || call(4096, 8192))?;
            continue;
        }
        // Within data, from data into the hole, and (but for shifts) not at the boundaries of blocks.
        for (offset, length) in [(4096, 8192), (81_920, 32_768), (120_000, 4096), (5000, 777)] {
            let shift = mode.intersects(COLLAPSE | INSERT);
            if shift && (offset % 4096 != 0 || length % 4096 != 0) {
                // Some lowers set the times before they look: a record of that is no mistake.
                let result = call(offset, length);
                ensure!(matches!(result, Err(Errno::INVAL)), "{result:?}");
            } else {
                p.recorded(|| Ok(call(offset, length)?))?;
            }
        }
        file.write_all_at(b"and a write behind it", 20_000)?;
        ensure!(fs::read(p.at(name))? == fs::read(p.below(name))?, "{name}: other bytes in the lower");
    }
    Ok(())
}

fn behind_the_end(p: &Place) -> Check {
    let kind = p.kind()?;
    for &(name, mode, lowers) in MODES.iter().filter(|(_, mode, _)| !mode.intersects(COLLAPSE | INSERT | UNSHARE)) {
        if !lowers.contains(&kind) {
            continue;
        }
        let file = prepare(p, name)?;
        rustix::fs::fallocate(&file, mode, 250_000, 100_000)?;
        rustix::fs::fallocate(&file, mode, 500_000, 10_000)?;
        let grows = !mode.contains(KEEP);
        same!(file.metadata()?.size(), if grows { 510_000 } else { 262_144 });
        file.set_len(300_000)?;
        file.write_all_at(b"in what was allocated", 290_000)?;
    }
    Ok(())
}

/// The lower gives up in the middle: the size may have grown already.
fn without_space(p: &Place) -> Check {
    let file = prepare(p, "f")?;
    let space = rustix::fs::statvfs(&p.dir)?;
    // What is kept back for the superuser is his.
    let free = space.f_bfree * space.f_frsize;
    let result = rustix::fs::fallocate(&file, FallocateFlags::empty(), 8192, free + (64 << 20));
    ensure!(matches!(result, Err(Errno::NOSPC)), "{result:?}");
    let size = file.metadata()?.size();
    same!(p.below("f").metadata()?.size(), size);
    // Where it has grown, what is behind the old end is a hole like any other; far ones only cost time.
    file.set_len(280_000)?;
    file.write_all_at(b"there is space again", 270_000)?;
    // The same where the size must stay.
    let kept = prepare(p, "kept")?;
    let result = rustix::fs::fallocate(&kept, KEEP, 8192, free + (64 << 20));
    ensure!(matches!(result, Err(Errno::NOSPC)), "{result:?}");
    same!(kept.metadata()?.size(), 262_144);
    kept.set_len(262_144)?;
    Ok(())
}

fn too_large(p: &Place) -> Check {
    let file = prepare(p, "f")?;
    p.refused(&[Errno::FBIG], || rustix::fs::fallocate(&file, FallocateFlags::empty(), i64::MAX as u64 - 5, 10))?;
    // The limit of the process: some lowers set the times before they look.
    let script = "trap '' XFSZ; ! prlimit --fsize=300000 fallocate -l 400000 \"$1\" 2>/dev/null";
    let done = Command::new("sh").args(["-c", script, "sh"]).arg(p.at("f")).status()?;
    ensure!(done.success(), "allocated beyond the limit");
    same!(file.metadata()?.size(), 262_144);
    Ok(())
}

fn refused(p: &Place) -> Check {
    let file = prepare(p, "f")?;
    let unknown = FallocateFlags::from_bits_retain(0x4000);
    let calls = [
        (FallocateFlags::empty(), 0, 0),
        (PUNCH, 0, 4096),
        (COLLAPSE | KEEP, 0, 4096),
        (COLLAPSE, 0, 262_144),
        (INSERT, 262_144, 4096),
        (unknown, 0, 1),
    ];
    for (mode, offset, length) in calls {
        // Some lowers set the times before they look: a record of that is no mistake.
        let result = rustix::fs::fallocate(&file, mode, offset, length);
        ensure!(matches!(result, Err(Errno::OPNOTSUPP | Errno::INVAL)), "{mode:?}: {result:?}");
    }
    same!(fs::read(p.at("f"))?, fs::read(p.below("f"))?);
    let read_only = File::open(p.at("f"))?;
    p.refused(&[Errno::BADF], || rustix::fs::fallocate(&read_only, FallocateFlags::empty(), 0, 4096))
}

fn clears_capability(p: &Place) -> Check {
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let file = prepare(p, "f")?;
    rustix::fs::fsetxattr(&file, "security.capability", &CAPABILITY, XattrFlags::empty())?;
    rustix::fs::fallocate(&file, PUNCH | KEEP, 0, 4096)?;
    let left = rustix::fs::lgetxattr(p.below("f"), "security.capability", &mut [0; 64][..]);
    ensure!(left.is_err(), "the capability survived");
    Ok(())
}

/// `FALLOC_FL_WRITE_ZEROES`: only some devices below some filesystems can.
fn write_zeroes(p: &Place) -> Check {
    let file = prepare(p, "f")?;
    let mode = FallocateFlags::from_bits_retain(0x80);
    let works = p.either(&[Errno::OPNOTSUPP], || rustix::fs::fallocate(&file, mode, 4096, 65_536))?;
    ensure!(!works || fs::read(p.at("f"))?[4096..69_632].iter().all(|byte| *byte == 0), "not zero");
    Ok(())
}

/// Every way to a hole: never written, cut off and grown again, punched, skipped by a write behind the end, preallocated
/// and never written. And zeros that were written are none.
fn holes(p: &Place) -> Check {
    let file = rw(p, "never-written")?;
    file.set_len(1 << 20)?;
    let file = rw(p, "grown-again")?;
    file.write_all_at(&pattern(1 << 20, 1), 0)?;
    file.set_len(50_000)?;
    file.set_len(1 << 20)?;
    let file = rw(p, "punched")?;
    file.write_all_at(&pattern(1 << 20, 2), 0)?;
    for block in [0_u64, 10, 11, 12, 200, 255] {
        rustix::fs::fallocate(&file, PUNCH | KEEP, block * 4096, 4096)?;
    }
    let file = rw(p, "skipped")?;
    for step in 0..20_u64 {
        file.write_all_at(&pattern(100, step), step * 40_000)?;
    }
    let file = rw(p, "preallocated")?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20)?;
    file.write_all_at(&pattern(10_000, 3), 500_000)?;
    let file = rw(p, "zeros")?;
    file.write_all_at(&vec![0; 1 << 20], 0)?;
    Ok(())
}

/// Data and holes, as `lseek(2)` says.
fn map(file: &File) -> Check<Vec<(u64, u64)>> {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(found),
            start => start?,
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        found.push((start, at));
    }
}

fn seek(p: &Place) -> Check {
    let file = prepare(p, "f")?;
    rustix::fs::fallocate(&file, KEEP, 300_000, 100_000)?;
    file.write_all_at(b"x", 1 << 20)?;
    let above = map(&file)?;
    same!(above, map(&File::open(p.below("f"))?)?);
    same!(above[0], (0, 98_304));
    same!(above[1].0, 163_840);
    for (from, errno) in [(SeekFrom::Data((1 << 20) + 1), Errno::NXIO), (SeekFrom::Hole(9 << 20), Errno::NXIO)] {
        p.refused(&[errno], || rustix::fs::seek(&file, from))?;
    }
    // The position is the descriptor's own, as it is left.
    rustix::fs::seek(&file, SeekFrom::Start(7))?;
    same!(rustix::fs::seek(&file, SeekFrom::Current(0))?, 7);
    same!(rustix::fs::seek(&file, SeekFrom::End(-1))?, 1 << 20);
    let mut byte = [0; 1];
    same!(rustix::io::read(&file, &mut byte)?, 1);
    same!(&byte, b"x");
    Ok(())
}

/// `FIEMAP`, by filefrag(8).
fn extents(p: &Place) -> Check {
    let file = prepare(p, "f")?;
    file.sync_all()?;
    let list = |path: &std::path::Path| {
        let done = Command::new("filefrag").args(["-v", "-k"]).arg(path).output()?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        Ok::<_, crate::check::Failure>((done.status.success(), text.replace(&path.display().to_string(), "FILE")))
    };
    let (above, below) = (list(&p.at("f"))?, list(&p.below("f"))?);
    let rows = |text: &str| text.lines().filter(|line| line.contains("..")).map(str::to_owned).collect::<Vec<_>>();
    same!(rows(&above.1), rows(&below.1));
    ensure!(p.kind()? == Lower::Tmpfs || !rows(&above.1).is_empty(), "no extents: {}", above.1);
    Ok(())
}
