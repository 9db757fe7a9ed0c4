// SPDX-License-Identifier: GPL-2.0-or-later

//! `stress-*`: several processes do everything that can be done to a tree, at random; at random moments the oracle notes
//! what the tree is. At the end every such moment, and the end, is restored from the media and compared.

use crate::check::{ensure, Check};
use crate::pattern::Random;
use crate::rig::{Config, Rig, Stage};
use crate::worker;
use crate::{Context, Suite, Test, TestResult, When};
use std::fs;
use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WORKERS: u32 = 4;

const SUITE: Suite = Suite {
    timeout: 3600,
    memory: 1536,
    when: When::OnDemand,
    disks: &[("lower", 3072), ("spool", 1024), ("media", 4096)],
    ..Suite::DEFAULT
};

pub const EXT4: Suite =
    Suite { name: "stress-ext4", tests: &[Test::new("moments", |c| moments(c, "ext4")).limit(3000)], ..SUITE };
pub const XFS: Suite =
    Suite { name: "stress-xfs", tests: &[Test::new("moments", |c| moments(c, "xfs")).limit(3000)], ..SUITE };
pub const BTRFS: Suite =
    Suite { name: "stress-btrfs", tests: &[Test::new("moments", |c| moments(c, "btrfs")).limit(3000)], ..SUITE };

/// The seed of a run: `REELFS_TEST_SEED` repeats one.
pub fn seed() -> Check<u32> {
    if let Some(text) = std::env::var_os("REELFS_TEST_SEED") {
        return Ok(text.to_string_lossy().parse()?);
    }
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos() % 100_000)
}

fn moments(context: &Context, lower: &str) -> TestResult {
    let (steps, notes) = if context.short { (3000, 5) } else { (80_000, 40) };
    let seed = seed()?;
    println!("      seed {seed}");
    let mut random = Random::new(u64::from(seed));
    let mut rig = Rig::new(Stage::new(context, lower)?, "stress")?;
    rig.configure(&Config { capacity: "64M", ..Config::default() })?;
    rig.mount("ring=8m")?;
    rig.start_daemon()?;
    let tree = rig.mnt.join("tree");
    fs::create_dir(&tree)?;
    let mut workers: Vec<Child> = Vec::new();
    for number in 0..WORKERS {
        workers.push(worker::stress(&tree, seed * WORKERS + number, steps).spawn()?);
    }
    let noted = if rig.plain { Ok(0) } else { note_while_they_work(&rig, &mut workers, &mut random, notes) };
    for child in &mut workers {
        if noted.is_err() {
            let _ = child.kill();
        }
        let status = child.wait()?;
        ensure!(noted.is_err() || status.success(), "a worker failed: {status}");
    }
    let noted = noted?;
    ensure!(rig.plain || noted > 0, "the work was done before anything was noted");
    println!("      {} records, {noted} moments", rig.records()?);
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn note_while_they_work(rig: &Rig, workers: &mut [Child], random: &mut Random, notes: u32) -> Check<u32> {
    for noted in 0..notes {
        std::thread::sleep(Duration::from_millis(random.below(700)));
        let mut at_work = false;
        for child in workers.iter_mut() {
            at_work |= child.try_wait()?.is_none();
        }
        if !at_work {
            return Ok(noted);
        }
        rig.note()?;
    }
    Ok(notes)
}
