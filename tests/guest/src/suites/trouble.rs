// SPDX-License-Identifier: GPL-2.0-or-later

//! `trouble`: the disk below fails in the middle of operations. What resulted is in the log; what cannot be known stops it.
//!
//! The lower is on a device-mapper device that is changed under it: writes to some of its blocks fail (dm-flakey), or
//! everything does (dm-error).

use crate::check::{ensure, same, Check, Failure};
use crate::dm::{self, Dm};
use crate::machine::run;
use crate::pattern::{aligned, pattern};
use crate::rig::{none, Rig, Stage};
use crate::{worker, Context, Suite, Test};
use rustix::io::Errno;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub const SUITE: Suite = Suite {
    name: "trouble",
    timeout: 1800,
    disks: &[("lower", 1024), ("spool", 1024), ("media", 1024)],
    tests: &[
        Test::new("direct-write-fails-midway-ext4", |c| Ok(direct_midway(c, "ext4")?)),
        Test::new("direct-write-fails-midway-xfs", |c| Ok(direct_midway(c, "xfs")?)),
        Test::new("direct-write-into-the-unreadable-ext4", |c| Ok(direct_unreadable(c, "ext4")?)),
        Test::new("direct-write-into-the-unreadable-xfs", |c| Ok(direct_unreadable(c, "xfs")?)),
        Test::new("written-back-in-vain-ext4", |c| Ok(writeback(c, "ext4")?)),
        Test::new("written-back-in-vain-xfs", |c| Ok(writeback(c, "xfs")?)),
        Test::new("lower-dies-ext4", |c| Ok(dies(c, "ext4")?)),
        Test::new("lower-dies-xfs", |c| Ok(dies(c, "xfs")?)),
    ],
    ..Suite::DEFAULT
};

/// How a part of the device fails.
#[derive(Clone, Copy)]
enum Fault {
    /// Writes fail.
    Writes,
    /// Reads and writes fail.
    All,
}

/// A device between the lower and its disk. Positions are in sectors of 512 bytes.
struct Device {
    dm: Dm,
    disk: PathBuf,
    sectors: u64,
}

impl Device {
    fn new(context: &Context) -> Check<Self> {
        let disk = context.disk("lower");
        let sectors = dm::sectors(&disk)?;
        let dm = Dm::new("trouble", &format!("0 {sectors} linear {} 0", disk.display()))?;
        Ok(Device { dm, disk, sectors })
    }

    fn path(&self) -> PathBuf {
        self.dm.path()
    }

    fn table(&self, bad: Option<(&Range<u64>, Fault)>) -> String {
        let disk = self.disk.display();
        let good = |from: u64, to: u64| format!("{from} {} linear {disk} {from}\n", to - from);
        let Some((bad, fault)) = bad else { return good(0, self.sectors) };
        let length = bad.end - bad.start;
        let middle = match fault {
            Fault::Writes => format!("{} {length} flakey {disk} {} 0 3600 1 error_writes\n", bad.start, bad.start),
            Fault::All => format!("{} {length} error\n", bad.start),
        };
        let before = if bad.start > 0 { good(0, bad.start) } else { String::new() };
        let after = if bad.end < self.sectors { good(bad.end, self.sectors) } else { String::new() };
        before + &middle + &after
    }

    fn fail(&self, bad: &Range<u64>, fault: Fault) -> Check {
        self.dm.load(&self.table(Some((bad, fault))))
    }

    fn repair(&self) -> Check {
        self.dm.load(&self.table(None))
    }
}

/// Sectors of the device that hold these bytes of a file, which are in one extent.
fn sectors(file: &Path, bytes: &Range<u64>) -> Check<Range<u64>> {
    let said = run("filefrag", &["-v".as_ref(), "-b512".as_ref(), file.as_os_str()]).map_err(Failure::of)?;
    let wanted = bytes.start / 512..bytes.end / 512;
    for line in said.lines() {
        // "   0:        0..    8191:     270336..    278527:   8192: ..."
        let numbers: Vec<u64> =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).take(5).collect();
        let [_, from, to, physical, _] = numbers[..] else { continue };
        if line.contains("..") && from <= wanted.start && wanted.end <= to + 1 {
            return Ok(physical + wanted.start - from..physical + wanted.end - from);
        }
    }
    Err(Failure::new(format!("{} is not in one extent there:\n{said}", file.display())))
}

/// A mount whose lower is on a device that can fail.
fn rig(context: &Context, kind: &str, name: &str) -> Check<(Device, Rig)> {
    let device = Device::new(context)?;
    let stage = Stage::on(context, kind, &device.path())?;
    let mut rig = Rig::new(stage, name)?;
    rig.mount("")?;
    rig.start_daemon()?;
    Ok((device, rig))
}

const SIZE: usize = 4 << 20;
/// Where the disk fails, in the file.
const BAD: Range<u64> = 2 << 20..(2 << 20) + 65_536;

/// A file of [`SIZE`] bytes on stable storage, and the sectors of [`BAD`].
fn victim(rig: &Rig) -> Check<(File, Range<u64>)> {
    let mut memory = Vec::new();
    let path = rig.mnt.join("victim");
    let file = File::options().create_new(true).read(true).write(true).custom_flags(0o40_000).open(&path)?;
    file.write_all_at(aligned(&mut memory, &pattern(SIZE, 1)), 0)?;
    file.sync_all()?;
    let bad = sectors(&rig.lower.join("victim"), &BAD)?;
    Ok((file, bad))
}

fn direct_midway(context: &Context, kind: &str) -> Check {
    let (device, rig) = rig(context, kind, &format!("midway-{kind}"))?;
    let (file, bad) = victim(&rig)?;
    device.fail(&bad, Fault::Writes)?;
    let mut memory = Vec::new();
    for (at, length, seed) in [(1 << 20, 2 << 20, 2), (BAD.start, 4096, 3), (BAD.end - 4096, 16_384, 4)] {
        let before = rig.records()?;
        let result = rustix::io::pwrite(&file, aligned(&mut memory, &pattern(length, seed)), at);
        // Several records; the first may be done.
        ensure!(matches!(result, Err(Errno::IO)) || result.is_ok_and(|n| n < length), "{result:?} at {at}");
        ensure!(rig.records()? > before, "nothing was recorded of what resulted");
    }
    device.repair()?;
    drop(file);
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let (above, below) = (fs::read(rig.mnt.join("victim"))?, fs::read(rig.lower.join("victim"))?);
    ensure!(above == below, "the mount shows other bytes than the lower");
    ensure!(above != pattern(SIZE, 1), "nothing was written at all");
    finish(rig)
}

fn finish(mut rig: Rig) -> Check {
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    rig.close()
}

/// Neither what was there nor what was to be there can be read: nobody knows the contents, so nobody may pretend to.
fn direct_unreadable(context: &Context, kind: &str) -> Check {
    let (device, mut rig) = rig(context, kind, &format!("unreadable-{kind}"))?;
    let (file, bad) = victim(&rig)?;
    device.fail(&bad, Fault::All)?;
    let mut memory = Vec::new();
    let result = rustix::io::pwrite(&file, aligned(&mut memory, &pattern(1 << 20, 2)), BAD.start - 4096);
    ensure!(matches!(result, Err(Errno::IO)), "{result:?}");
    let other = File::create(rig.mnt.join("another"));
    ensure!(other.as_ref().is_err_and(|error| error.raw_os_error() == Some(5)), "{other:?}: the log goes on");
    device.repair()?;
    drop(file);
    rig.unmount()?;
    rig.drain()?;
    // What was recorded before is there.
    let (status, said) = rig.restore_output(&[])?;
    ensure!(status == Some(0), "reel restore: {said}");
    let restored = fs::read(rig.restored.join("victim"))?;
    same!(restored.len(), SIZE);
    ensure!(restored[..BAD.start as usize - 4096] == pattern(SIZE, 1)[..BAD.start as usize - 4096], "other bytes");
    rig.close()
}

/// Through the page cache the error comes with `fsync`, once for each descriptor; the log has the bytes.
fn writeback(context: &Context, kind: &str) -> Check {
    let (device, rig) = rig(context, kind, &format!("writeback-{kind}"))?;
    let (direct, bad) = victim(&rig)?;
    drop(direct);
    let open = || File::options().read(true).write(true).open(rig.mnt.join("victim"));
    let (file, other) = (open()?, open()?);
    device.fail(&bad, Fault::Writes)?;
    file.write_all_at(&pattern(1 << 20, 2), BAD.start - 5000)?;
    for file in [&file, &other] {
        let result = file.sync_all();
        ensure!(result.as_ref().is_err_and(|error| error.raw_os_error() == Some(5)), "{result:?}, should be EIO");
    }
    // (As long as the device fails what it is asked to write, it fails to empty its cache, and each fsync says so.)
    device.repair()?;
    // What the disk does not have has to be written again, as on any filesystem.
    file.write_all_at(&pattern(1 << 20, 3), BAD.start - 5000)?;
    file.sync_all()?;
    drop((file, other));
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    finish(rig)
}

/// Everything fails from one moment on, under load. What was synced before is in the log, and the log can be replayed.
fn dies(context: &Context, kind: &str) -> Check {
    let (device, mut rig) = rig(context, kind, &format!("dies-{kind}"))?;
    rig.restored = rig.media.with_extension("restored");
    let kept = rig.mnt.join("kept");
    fs::create_dir(&kept)?;
    for number in 0..20 {
        let file = File::create(kept.join(format!("file-{number}")))?;
        file.write_all_at(&pattern(20_000, number), 0)?;
        file.sync_all()?;
    }
    File::open(&kept)?.sync_all()?;
    for directory in ["d1", "d2", "d3"] {
        fs::create_dir(rig.mnt.join(directory))?;
    }
    let before = rig.records()?;
    let everything = 0..device.sectors;
    std::thread::scope(|scope| {
        let mnt = &rig.mnt;
        // They end with an error.
        let load = scope.spawn(move || worker::together(4, |number| worker::shuffle(mnt, number, 3000)));
        std::thread::sleep(std::time::Duration::from_secs(2));
        let failed = device.fail(&everything, Fault::All);
        let _ = load.join();
        failed
    })?;
    let more = (0..100).try_for_each(|number| {
        let file = File::create(rig.mnt.join(format!("more-{number}")))?;
        file.write_all_at(&pattern(5000, number), 0)?;
        file.sync_all()
    });
    ensure!(more.is_err(), "the lower is dead and nobody noticed");
    ensure!(rig.records()? > before, "there was no load");
    rig.unmount()?;
    rig.drain()?;
    rig.restore()?;
    let names = fs::read_dir(rig.restored.join("kept"))?.count();
    same!(names, 20);
    let wrong: Vec<String> = (0..20_u64)
        .filter(|number| {
            let path = rig.restored.join(format!("kept/file-{number}"));
            fs::read(path).ok().as_deref() != Some(&pattern(20_000, *number))
        })
        .map(|number| format!("file-{number}"))
        .collect();
    none("synced files that were not restored as they were", &wrong)?;
    fs::remove_dir_all(&rig.restored)?;
    device.repair()?;
    rig.close()
}
