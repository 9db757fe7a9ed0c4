// SPDX-License-Identifier: GPL-2.0-or-later

//! `faults`: everything at random while the kernel refuses memory, one allocation in some hundred, to those who work on the
//! mount. An operation for which there is none fails as a whole or is recorded as far as it went; the log is never
//! stopped by it, and tree and log agree.
//!
//! The kernel has to have fault injection (`Documentation/fault-injection/fault-injection.rst`): the debug kernel has. ext4
//! is not among the lowers: without memory it says of itself that it is in error, and shows blocks again that it had cut
//! off.

use super::stress;
use crate::check::{ensure, Check};
use crate::pattern::Random;
use crate::rig::{Config, Rig, Stage};
use crate::worker;
use crate::{skip, Context, Suite, Test, TestResult};
use std::fs;
use std::path::Path;
use std::process::Child;

const DEBUGFS: &str = "/sys/kernel/debug";
/// Of a hundred allocations, so many fail.
const PERCENT: u32 = 1;
/// Where allocations can be made to fail: slabs, and whole pages.
const PLACES: [&str; 2] = ["failslab", "fail_page_alloc"];

pub const SUITE: Suite = Suite {
    name: "faults",
    timeout: 3600,
    memory: 1536,
    disks: &[("lower", 2048), ("spool", 1024), ("media", 2048)],
    tests: &[
        Test::new("no-memory-tmpfs", |c| no_memory(c, "tmpfs")).limit(1500),
        Test::new("no-memory-xfs", |c| no_memory(c, "xfs")).limit(1500),
    ],
    ..Suite::DEFAULT
};

/// Allocations fail for tasks that ask for it; not any more when this is dropped.
struct Faults;

impl Faults {
    fn begin() -> Check<Self> {
        for place in PLACES {
            let set = |name: &str, value: &str| fs::write(Path::new(DEBUGFS).join(place).join(name), value);
            set("task-filter", "Y")?;
            set("ignore-gfp-wait", "N")?;
            set("verbose", "0")?;
            set("interval", "1")?;
            set("times", "-1")?;
            set("probability", &PERCENT.to_string())?;
        }
        fs::write(Path::new(DEBUGFS).join("fail_page_alloc/min-order"), "0")?;
        Ok(Faults)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        for place in PLACES {
            let _ = fs::write(Path::new(DEBUGFS).join(place).join("probability"), "0");
        }
    }
}

fn no_memory(context: &Context, lower: &str) -> TestResult {
    if !Path::new(DEBUGFS).join("failslab").exists() {
        // There already, or this kernel has none.
        let _ = crate::machine::run("mount", &["-t", "debugfs", "debugfs", DEBUGFS]);
    }
    if !Path::new(DEBUGFS).join("failslab").exists() {
        return skip("this kernel has no fault injection");
    }
    let steps = if context.short { 2_000 } else { 20_000 };
    let seed = stress::seed()?;
    println!("      seed {seed}");
    let mut random = Random::new(u64::from(seed));
    let mut rig = Rig::new(Stage::new(context, lower)?, "faults")?;
    rig.configure(&Config { capacity: "64M", ..Config::default() })?;
    rig.mount("ring=8m")?;
    rig.start_daemon()?;
    let tree = rig.mnt.join("tree");
    fs::create_dir(&tree)?;
    let faults = Faults::begin()?;
    let workers: Result<Vec<Child>, _> = (0..3)
        .map(|number| worker::stress_without_memory(&tree, random.below(1 << 30) as u32 + number, steps).spawn())
        .collect();
    let mut failed = Vec::new();
    for mut child in workers? {
        let status = child.wait()?;
        failed.extend((!status.success()).then_some(status));
    }
    drop(faults);
    ensure!(failed.is_empty(), "workers failed: {failed:?}");
    // The log goes on.
    fs::create_dir(rig.mnt.join("afterwards"))?;
    println!("      {} records", rig.records()?);
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}
