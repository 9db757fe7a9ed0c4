// SPDX-License-Identifier: GPL-2.0-or-later

//! `checkpoint-*`: the tree is told while it is in use, and what a restore makes of that: from the end of the checkpoint on
//! every moment comes back, from media that hold nothing from before it, and no moment before its end does.
//!
//! All tests begin with a tree that is not empty when it is mounted.

mod tree;

use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::machine::wait_until;
use crate::pattern::{pattern, Random};
use crate::rig::{Config, Rig, Stage};
use crate::{worker, Context, Suite, Test, TestResult, When};
use rustix::fs::{fallocate, linkat, openat, renameat_with, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, CWD};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

const TESTS: &[Test] = &[
    Test::new("first-snapshot", first_snapshot).limit(900),
    Test::new("under-load", under_load).limit(1800),
    Test::new("changed-while-it-is-told", changed_while_told).limit(900),
    Test::new("without-a-name", without_a_name).limit(600),
    Test::new("media-before-it-are-not-needed", media_before).limit(1200),
    Test::new("daemon-killed-midway", killed_midway).limit(900),
    Test::new("stopped", stopped).limit(600),
    Test::new("by-the-configuration", by_configuration).limit(600),
    Test::new("unmounted-midway", unmounted_midway).limit(900),
];

const SUITE: Suite = Suite {
    timeout: 4000,
    memory: 1536,
    disks: &[("lower", 2048), ("spool", 1024), ("media", 3072)],
    tear_down: |_| {
        let stage = STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Ok(stage.ok_or("no stage")?.close()?)
    },
    tests: TESTS,
    ..Suite::DEFAULT
};

pub const EXT4: Suite = Suite { name: "checkpoint-ext4", when: When::Long, set_up: |c| set_up(c, "ext4"), ..SUITE };
pub const XFS: Suite = Suite { name: "checkpoint-xfs", when: When::Long, set_up: |c| set_up(c, "xfs"), ..SUITE };
pub const BTRFS: Suite = Suite { name: "checkpoint-btrfs", when: When::Long, set_up: |c| set_up(c, "btrfs"), ..SUITE };
pub const TMPFS: Suite = Suite { name: "checkpoint-tmpfs", when: When::Long, set_up: |c| set_up(c, "tmpfs"), ..SUITE };

fn set_up(context: &Context, kind: &str) -> TestResult {
    let stage = Stage::new(context, kind)?;
    *STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(stage);
    Ok(())
}

/// How long a checkpoint may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Exit status for media that are damaged or incomplete (reel(1)).
const INCOMPLETE: Option<i32> = Some(3);

/// A tree with everything in it, mounted; no daemon yet.
fn populated(name: &str, config: &Config, options: &str) -> Check<Rig> {
    let mut rig = Rig::on_stage(name, false)?;
    rig.configure(config)?;
    tree::make(&rig.lower)?;
    rig.mount(options)?;
    Ok(rig)
}

/// What the daemon says of checkpoints.
fn status(rig: &Rig) -> Check<String> {
    let done = Command::new("reel").args(["status", "--json", &rig.name]).output()?;
    ensure!(done.status.success(), "reel status: {}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let (_, rest) =
        said.split_once("\"checkpoint\":{").ok_or_else(|| Failure::new(format!("no checkpoint in {said}")))?;
    Ok(rest.split_once("\"ring\":").map_or(rest, |(part, _)| part).to_owned())
}

/// The number called `key` in a part of that.
fn number(text: &str, key: &str) -> Option<u64> {
    let (_, rest) = text.split_once(&format!("\"{key}\":"))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The last complete checkpoint: LSN of its begin record, and behind its end record.
fn last(rig: &Rig) -> Check<Option<(u64, u64)>> {
    let said = status(rig)?;
    let Some((_, last)) = said.split_once("\"last\":{") else { return Ok(None) };
    Ok(number(last, "begin").zip(number(last, "end")))
}

fn is_running(rig: &Rig) -> bool {
    status(rig).is_ok_and(|said| said.contains("\"state\":\"running\""))
}

/// Waits for a complete checkpoint that begins behind this one.
fn complete_after(rig: &mut Rig, before: Option<(u64, u64)>) -> Check<(u64, u64)> {
    let mut found = None;
    let waited = wait_until("a checkpoint is complete", PATIENCE * crate::harness::slowness(), || {
        found = last(rig).ok().flatten().filter(|found| before.is_none_or(|before| found.0 > before.0));
        found.is_some() || !rig.daemon_lives()
    });
    waited
        .map_err(|late| Failure::new(format!("{late}; {:?}; the daemon said:\n{}", status(rig), rig.daemon_said())))?;
    found.ok_or_else(|| Failure::new(format!("the daemon ended:\n{}", rig.daemon_said())))
}

fn reel_checkpoint(rig: &Rig, more: &[&str]) -> Check<(bool, String)> {
    let done = Command::new("reel").arg("checkpoint").args(more).arg(&rig.name).output()?;
    let said = [done.stdout, done.stderr].concat();
    Ok((done.status.success(), String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Asks for a checkpoint and waits for it.
fn asked_for(rig: &Rig) -> Check<(u64, u64)> {
    let before = last(rig)?;
    let (done, said) = reel_checkpoint(rig, &["--wait"])?;
    ensure!(done, "reel checkpoint: {said}");
    let found = last(rig)?.ok_or_else(|| Failure::new("no complete checkpoint"))?;
    ensure!(before.is_none_or(|before| found.0 > before.0), "{found:?} after {before:?}");
    Ok(found)
}

/// All that is recorded goes to the media and the daemon ends.
fn finish(rig: &mut Rig) -> Check {
    rig.unmount()?;
    rig.drain()
}

/// A moment that nothing on the media gives back: the error says why, and what to do.
fn is_not_restorable(rig: &Rig, lsn: u64) -> Check {
    let (status, said) = rig.restore_output(&["--at", &lsn.to_string()])?;
    let _ = fs::remove_dir_all(&rig.restored);
    same!(status, INCOMPLETE);
    ensure!(said.contains("reel checkpoint"), "LSN {lsn:#x}: {said}");
    Ok(())
}

fn committed(rig: &Rig) -> Check<u64> {
    Ok(rig.ring()?.entry().committed)
}

fn clean(rig: &Rig) -> Check {
    for directory in [&rig.restored, &rig.lower, &rig.media, &rig.spool] {
        if fs::exists(directory)? {
            fs::remove_dir_all(directory)?;
        }
    }
    Ok(())
}

fn over(rig: Rig) -> TestResult {
    clean(&rig)?;
    Ok(rig.close()?)
}

fn first_snapshot(_: &Context) -> TestResult {
    let mut rig = populated("first", &Config::default(), "")?;
    rig.start_daemon()?;
    let begin = committed(&rig)?;
    let (_, end) = complete_after(&mut rig, None)?;
    rig.note()?;
    tree::change(&rig.mnt)?;
    rig.note()?;
    // One more changes nothing for those who begin with the first.
    let (second, _) = asked_for(&rig)?;
    ensure!(second >= end, "the second began at {second:#x}, before {end:#x}");
    tree::change_again(&rig.mnt)?;
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    fs::remove_dir_all(&rig.restored)?;
    is_not_restorable(&rig, begin.min(end - 8))?;
    is_not_restorable(&rig, end - 8)?;
    over(rig)
}

fn under_load(context: &Context) -> TestResult {
    let steps = if context.short { 2500 } else { 12_000 };
    let mut rig = populated("load", &Config { capacity: "64M", ..Config::default() }, "ring=4m")?;
    rig.start_daemon()?;
    let tree = rig.mnt.join("tree");
    fs::create_dir_all(&tree)?;
    let seed = super::stress::seed()?;
    println!("      seed {seed}");
    let mut workers = Vec::new();
    for number in 0..3 {
        workers.push(worker::stress(&tree, seed * 3 + number, steps).spawn()?);
    }
    let mut before = Vec::new();
    while last(&rig)?.is_none() {
        ensure!(rig.daemon_lives(), "the daemon ended:\n{}", rig.daemon_said());
        before.push(committed(&rig)?);
        std::thread::sleep(Duration::from_millis(300));
    }
    let first = last(&rig)?.ok_or("no checkpoint")?;
    rig.note()?;
    let second = asked_for(&rig)?;
    rig.note()?;
    let at_work = workers.iter_mut().any(|child| matches!(child.try_wait(), Ok(None)));
    println!("      checkpoints {first:#x?} and {second:#x?}, load {}", if at_work { "goes on" } else { "is over" });
    for child in &mut workers {
        ensure!(child.wait()?.success(), "a worker failed");
    }
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    fs::remove_dir_all(&rig.restored)?;
    before.retain(|lsn| *lsn < first.1);
    ensure!(!before.is_empty(), "the checkpoint was over before anybody looked");
    for lsn in [before[0], before[before.len() / 2], first.1 - 8] {
        is_not_restorable(&rig, lsn)?;
    }
    over(rig)
}

/// Files are shifted, cut, written and punched, and names go from one directory to another, while they are told.
fn changed_while_told(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("changed", false)?;
    tree::make(&rig.lower)?;
    let large = pattern(6 << 20, 1);
    for number in 0..6 {
        fs::write(rig.lower.join(format!("large-{number}")), &large)?;
    }
    for directory in ["from", "to", "to/below"] {
        fs::create_dir(rig.lower.join(directory))?;
    }
    for number in 0..600 {
        fs::write(rig.lower.join(format!("from/file-{number}")), number.to_string())?;
    }
    // A small ring makes many calls of it.
    rig.mount("ring=1m")?;
    rig.start_daemon()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (mnt, stopping) = (rig.mnt.clone(), Arc::clone(&stop));
    let work = Background::start("changes", move || -> Check<(u64, u64)> {
        let (mut random, mut shifts, mut moves) = (Random::new(7), 0, 0);
        while !stopping.load(Ordering::Relaxed) {
            let file = File::options().read(true).write(true).open(mnt.join(format!("large-{}", random.below(6))))?;
            let (at, length) = (random.below(1200) * 4096, (1 + random.below(4)) * 4096);
            let mode = match random.below(6) {
                // A file that is shifted all the time is never told to its end.
                0 if shifts < 40 => FallocateFlags::COLLAPSE_RANGE,
                1 if shifts < 40 => FallocateFlags::INSERT_RANGE,
                2 => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                3 => FallocateFlags::ZERO_RANGE,
                _ => FallocateFlags::empty(),
            };
            if mode.is_empty() {
                file.write_all_at(&pattern(9000, at), at + 77)?;
            } else if fallocate(&file, mode, at, length).is_ok() {
                shifts += u64::from(mode.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE));
            }
            for _ in 0..4 {
                let name = format!("file-{}", random.below(600));
                let places = ["from", "to", "to/below"].map(|place| mnt.join(place).join(&name));
                let (one, two) = (random.below(3) as usize, random.below(3) as usize);
                let flags = if random.below(8) == 0 { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
                moves += u64::from(renameat_with(CWD, &places[one], CWD, &places[two], flags).is_ok());
            }
            let _ =
                fs::hard_link(mnt.join(format!("from/file-{}", random.below(600))), mnt.join(format!("link-{moves}")));
            if random.below(10) == 0 {
                // A whole directory, to and fro.
                let (one, two) = (mnt.join("to/below"), mnt.join("from/below"));
                let _ = fs::rename(&one, &two).or_else(|_| fs::rename(&two, &one));
            }
        }
        Ok((shifts, moves))
    });
    let first = complete_after(&mut rig, None);
    let noted = first.as_ref().ok().map(|_| rig.note());
    stop.store(true, Ordering::Relaxed);
    let (shifts, moves) = work.ends()??;
    first?;
    noted.transpose()?;
    println!("      {shifts} shifts, {moves} renamings");
    ensure!(moves > 20, "only {moves} renamings");
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    over(rig)
}

/// Objects that are in use without a name, some from before the checkpoint, get one after it.
fn without_a_name(_: &Context) -> TestResult {
    let mut rig = populated("unnamed", &Config::default(), "")?;
    let unnamed = |rig: &Rig| -> Check<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        Ok(File::from(openat(CWD, &rig.mnt, flags, Mode::from_raw_mode(0o640))?))
    };
    rig.start_daemon()?;
    complete_after(&mut rig, None)?;
    let before: Vec<_> = (0..70).map(|_| unnamed(&rig)).collect::<Check<_>>()?;
    for (number, file) in before.iter().enumerate() {
        file.write_all_at(&pattern(5000 + number * 100, number as u64), 0)?;
    }
    // Open, and removed before it or while it is made.
    let removed = File::options().read(true).write(true).open(rig.mnt.join("small/file-1"))?;
    fs::remove_file(rig.mnt.join("small/file-1"))?;
    asked_for(&rig)?;
    removed.write_all_at(b"nobody will see it", 0)?;
    for (number, file) in before.iter().enumerate() {
        file.write_all_at(b"more", 100_000)?;
        let name = rig.mnt.join(format!("named-{number}"));
        linkat(file.as_fd(), "", CWD, &name, AtFlags::EMPTY_PATH)?;
    }
    drop((before, removed));
    rig.note()?;
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    over(rig)
}

/// Volumes that hold nothing but what was before a checkpoint are removed.
fn media_before(_: &Context) -> TestResult {
    let mut rig = populated("media", &Config { capacity: "8M", ..Config::default() }, "")?;
    rig.start_daemon()?;
    complete_after(&mut rig, None)?;
    let write = |from: u64| -> Check {
        for number in from..from + 8 {
            fs::write(rig.mnt.join(format!("written-{number}")), pattern(3 << 20, number))?;
        }
        Ok(())
    };
    write(0)?;
    for number in 0..6 {
        fs::remove_file(rig.mnt.join(format!("written-{number}")))?;
    }
    let (begin, _) = asked_for(&rig)?;
    rig.note()?;
    write(100)?;
    finish(&mut rig)?;
    let (status, plan) = rig.restore_output(&["--plan"])?;
    same!(status, Some(0));
    let spare: Vec<_> = plan.lines().filter(|line| line.contains("; not needed")).collect();
    let files = reelfs_media::library::volume_files(&rig.media)?;
    ensure!(!spare.is_empty() && spare.len() < files.len(), "begin {begin:#x}: {plan}");
    for file in files.iter().take(spare.len()) {
        fs::remove_file(file)?;
    }
    println!("      {} of {} volumes are not needed", spare.len(), files.len());
    rig.restored_equals_lower()?;
    let verified = Command::new("reel").arg("verify").arg(&rig.media).output()?;
    ensure!(verified.status.success(), "reel verify: {}", String::from_utf8_lossy(&verified.stdout));
    over(rig)
}

/// A tree whose checkpoint takes a while.
fn slow(name: &str) -> Check<Rig> {
    let mut rig = Rig::on_stage(name, false)?;
    tree::make(&rig.lower)?;
    for number in 0..60 {
        fs::write(rig.lower.join(format!("large-{number}")), pattern(2 << 20, number))?;
    }
    rig.mount("ring=1m")?;
    Ok(rig)
}

fn until_running(rig: &Rig) -> Check {
    wait_until("a checkpoint begins", PATIENCE, || is_running(rig)).map_err(Failure::of)
}

fn killed_midway(_: &Context) -> TestResult {
    let mut rig = slow("killed")?;
    rig.start_daemon()?;
    until_running(&rig)?;
    std::thread::sleep(Duration::from_millis(500));
    same!(last(&rig)?, None);
    rig.kill_daemon()?;
    let at_death = committed(&rig)?;
    fs::write(rig.mnt.join("meanwhile"), "x")?;
    rig.start_daemon()?;
    let (begin, end) = complete_after(&mut rig, None)?;
    ensure!(begin >= at_death, "the second began at {begin:#x}, the daemon died at {at_death:#x}");
    rig.note()?;
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    fs::remove_dir_all(&rig.restored)?;
    is_not_restorable(&rig, at_death)?;
    is_not_restorable(&rig, end - 8)?;
    over(rig)
}

fn stopped(_: &Context) -> TestResult {
    let mut rig = slow("stopped")?;
    let refused = reel_checkpoint(&rig, &[])?;
    ensure!(!refused.0, "a checkpoint without a daemon: {}", refused.1);
    rig.start_daemon()?;
    until_running(&rig)?;
    let (done, said) = reel_checkpoint(&rig, &["--stop", "--wait"])?;
    ensure!(done, "reel checkpoint --stop: {said}");
    let said = status(&rig)?;
    ensure!(said.contains("it was stopped") && last(&rig)?.is_none(), "{said}");
    let (again, said) = reel_checkpoint(&rig, &["--stop"])?;
    ensure!(!again && said.contains("no checkpoint is being made"), "{said}");
    let stopped_at = committed(&rig)?;
    let (_, end) = asked_for(&rig)?;
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    fs::remove_dir_all(&rig.restored)?;
    is_not_restorable(&rig, stopped_at.min(end - 8))?;
    over(rig)
}

fn by_configuration(_: &Context) -> TestResult {
    let more = "\n[checkpoint]\nevery_bytes = \"8M\"\n";
    let mut rig = populated("policy", &Config { more, ..Config::default() }, "")?;
    rig.start_daemon()?;
    let mut before = complete_after(&mut rig, None)?;
    for round in 0..2 {
        for number in 0..5 {
            fs::write(rig.mnt.join(format!("round-{round}-{number}")), pattern(2 << 20, number))?;
        }
        let next = complete_after(&mut rig, Some(before))?;
        ensure!(next.0 - before.1 >= 8 << 20, "{before:?}, then {next:?}");
        before = next;
    }
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    over(rig)
}

/// The mount goes before the tree has been told; so does what was in it with the first mount. The next one tells it.
fn unmounted_midway(_: &Context) -> TestResult {
    let mut rig = slow("unmounted")?;
    rig.start_daemon()?;
    until_running(&rig)?;
    rig.unmount()?;
    let unmounted = wait_until("the checkpoint ends", PATIENCE, || !is_running(&rig));
    unmounted.map_err(Failure::of)?;
    same!(last(&rig)?, None);
    fs::create_dir_all(&rig.mnt)?;
    rig.mount("")?;
    let (_, end) = complete_after(&mut rig, None)?;
    rig.note()?;
    finish(&mut rig)?;
    rig.restored_equals_lower()?;
    fs::remove_dir_all(&rig.restored)?;
    is_not_restorable(&rig, end - 8)?;
    over(rig)
}
