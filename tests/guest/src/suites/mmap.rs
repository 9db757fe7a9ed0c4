// SPDX-License-Identifier: GPL-2.0-or-later

//! `mmap-*`: stores through shared mappings, each way in which they could be missed; then restore from the media alone,
//! then comparison with the lower.
//!
//! Cases share a mount, as those of `ops` do. It captures nothing by the clock (`flush=3600`): what a case does not bring
//! about is captured when a file is unmapped, or never, and then the trees differ at the end.

mod cases;
mod log;

pub use log::SUITE as LOG;

use crate::machine::run;
use crate::rig::{Rig, Stage};
use crate::suites::ops::place;
use crate::{Context, Suite, TestResult, When};

const SUITE: Suite = Suite {
    timeout: 2400,
    disks: &[("lower", 2048), ("spool", 1024), ("media", 2048), ("slow", 64)],
    tear_down: restored_equals_lower,
    tests: cases::CASES,
    ..Suite::DEFAULT
};

pub const EXT4: Suite = Suite { name: "mmap-ext4", set_up: |c| set_up(c, "ext4"), ..SUITE };
pub const XFS: Suite = Suite { name: "mmap-xfs", when: When::Long, set_up: |c| set_up(c, "xfs"), ..SUITE };
pub const BTRFS: Suite = Suite { name: "mmap-btrfs", when: When::Long, set_up: |c| set_up(c, "btrfs"), ..SUITE };
pub const TMPFS: Suite = Suite { name: "mmap-tmpfs", set_up: |c| set_up(c, "tmpfs"), memory: 2048, ..SUITE };

fn set_up(context: &Context, kind: &str) -> TestResult {
    let stage = Stage::new(context, kind)?;
    if kind == "tmpfs" {
        // Large folios, which the other filesystems make of themselves.
        run("mount", &["-o", "remount,huge=always", "/run/stage/lower"])?;
    }
    let mut rig = Rig::new(stage, "mmap")?;
    if kind == "tmpfs" {
        // There a large folio fills the holes around what is written, and those that are only read.
        rig.ignored.push("data");
    }
    rig.mount("flush=3600")?;
    rig.start_daemon()?;
    place::exchange(Some(rig));
    Ok(())
}

fn restored_equals_lower(_: &Context) -> TestResult {
    let mut rig = place::exchange(None).ok_or("the mount is not there")?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}
