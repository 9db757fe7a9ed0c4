// SPDX-License-Identifier: GPL-2.0-or-later
//! The module goes in and comes out again, and the machine has what the other suites
//! take for granted.

use crate::machine::{insmod, is_loaded, rmmod, run, Mounted, MODULE};
use crate::{skip, Context, Suite, Test, TestResult};

pub const SUITE: Suite = Suite {
    name: "smoke",
    timeout: 180,
    tests: &[
        Test::new("programs-are-there", programs_are_there),
        Test::new("lower-filesystems-mount", lower_filesystems_mount),
        Test::new("module-loads-and-unloads", module_loads_and_unloads),
    ],
    ..Suite::DEFAULT
};

fn programs_are_there(_: &Context) -> TestResult {
    for program in ["git", "rsync", "sqlite3", "setfattr", "setfacl", "mt", "fio", "dmsetup"] {
        run("sh", &["-c", &format!("command -v {program}")]).map_err(|_| format!("{program} is missing"))?;
    }
    Ok(())
}

fn lower_filesystems_mount(context: &Context) -> TestResult {
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let fs = Mounted::fresh(kind, &context.disk("a"), &context.scratch.join(kind))?;
        std::fs::write(fs.path().join("file"), kind)?;
        assert_eq!(std::fs::read_to_string(fs.path().join("file"))?, kind);
        fs.unmount()?;
    }
    Ok(())
}

fn module_loads_and_unloads(_: &Context) -> TestResult {
    if !std::path::Path::new(MODULE).exists() {
        return skip("the module was not built");
    }
    for _ in 0..3 {
        insmod()?;
        assert!(is_loaded("reelfs"));
        let types = std::fs::read_to_string("/proc/filesystems")?;
        assert!(types.lines().any(|line| line.ends_with("\treelfs")), "{types}");
        rmmod()?;
        assert!(!is_loaded("reelfs"));
    }
    Ok(())
}
