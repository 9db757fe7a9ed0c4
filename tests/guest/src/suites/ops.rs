// SPDX-License-Identifier: GPL-2.0-or-later

//! `ops-*`: each operation through the mount, then restore from the media alone, then comparison with the lower.
//!
//! All cases share one mount and one daemon, each in a directory of its own that bears its name. After each, what the
//! mount shows is compared with the lower. When all are done the mount goes, the daemon drains, the tree is restored
//! and compared with the lower: the tear-down's failure names the directories, and so the cases.
//!
//! With `REELFS_TEST_PLAIN` set there is no reelfs: the cases run on the lower itself, which shows whether they ask for
//! what Linux gives.

mod allocation;
mod attributes;
mod data;
mod names;
pub mod place;
mod refusals;
mod sharing;
mod trees;
mod unnamed;

use crate::rig::{Rig, Stage};
use crate::{Context, Suite, Test, TestResult, When};

const GROUPS: [&[Test]; 8] = [
    names::CASES,
    unnamed::CASES,
    trees::CASES,
    data::CASES,
    allocation::CASES,
    sharing::CASES,
    attributes::CASES,
    refusals::CASES,
];

const COUNT: usize = {
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
};

const TESTS: [Test; COUNT] = {
    let mut all = [names::CASES[0]; COUNT];
    let (mut group, mut at) = (0, 0);
    while group < GROUPS.len() {
        let mut index = 0;
        while index < GROUPS[group].len() {
            all[at] = GROUPS[group][index];
            (index, at) = (index + 1, at + 1);
        }
        group += 1;
    }
    all
};

const SUITE: Suite = Suite {
    timeout: 2400,
    disks: &[("lower", 3072), ("spool", 1024), ("media", 2048)],
    tear_down: restored_equals_lower,
    tests: &TESTS,
    ..Suite::DEFAULT
};

pub const EXT4: Suite = Suite { name: "ops-ext4", set_up: |c| set_up(c, "ext4"), ..SUITE };
pub const XFS: Suite = Suite { name: "ops-xfs", set_up: |c| set_up(c, "xfs"), ..SUITE };
pub const BTRFS: Suite = Suite { name: "ops-btrfs", when: When::Long, set_up: |c| set_up(c, "btrfs"), ..SUITE };
pub const TMPFS: Suite = Suite { name: "ops-tmpfs", set_up: |c| set_up(c, "tmpfs"), memory: 2048, ..SUITE };

fn set_up(context: &Context, kind: &str) -> TestResult {
    let stage = Stage::new(context, kind)?;
    let mut rig = Rig::new(stage, "ops")?;
    rig.mount("")?;
    rig.start_daemon()?;
    place::exchange(Some(rig));
    Ok(())
}

fn restored_equals_lower(_: &Context) -> TestResult {
    let mut rig = place::exchange(None).ok_or("the mount is not there")?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    rig.close()?;
    Ok(())
}
