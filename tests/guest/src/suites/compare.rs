// SPDX-License-Identifier: GPL-2.0-or-later

//! `compare`: the comparer finds one planted difference of every class, on each filesystem that trees are on.
//!
//! The same plants as in the comparer's own test, which runs wherever the checkout is; here none is left out, project
//! ids included.

#[path = "../../../compare/tests/plants/mod.rs"]
mod plants;

use crate::check::{ensure, Check};
use crate::machine::{run, Mounted};
use crate::{Context, Suite, Test, TestResult};
use std::path::Path;
use std::process::Command;

pub const SUITE: Suite = Suite {
    name: "compare",
    timeout: 300,
    disks: &[("a", 512)],
    tests: &[
        Test::new("planted-on-ext4", on_ext4),
        Test::new("planted-on-xfs", on_xfs),
        Test::new("planted-on-btrfs", on_btrfs),
    ],
    ..Suite::DEFAULT
};

fn on_ext4(context: &Context) -> TestResult {
    let device = context.disk("a");
    run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-O".as_ref(), "quota,project".as_ref(), device.as_os_str()])?;
    let fs = Mounted::new("ext4", &device, &context.scratch.join("fs"), "")?;
    planted(fs.path(), &[])?;
    fs.unmount()
}

fn on_xfs(context: &Context) -> TestResult {
    let fs = Mounted::fresh("xfs", &context.disk("a"), &context.scratch.join("fs"))?;
    planted(fs.path(), &[])?;
    fs.unmount()
}

fn on_btrfs(context: &Context) -> TestResult {
    let fs = Mounted::fresh("btrfs", &context.disk("a"), &context.scratch.join("fs"))?;
    // btrfs has no project ids.
    planted(fs.path(), &["project id"])?;
    fs.unmount()
}

fn diff(first: &Path, second: &Path) -> Check<(Option<i32>, String)> {
    let done = Command::new("treecmp").arg("diff").arg(first).arg(second).output()?;
    Ok((done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()))
}

fn planted(at: &Path, lacking: &[&str]) -> Check {
    let (first, second) = (at.join("first"), at.join("second"));
    plants::tree(&first)?;
    for plant in plants::PLANTS.iter().filter(|plant| !lacking.contains(&plant.class)) {
        plants::tree(&second)?;
        let (status, said) = diff(&first, &second)?;
        ensure!(status == Some(0), "equal trees: {status:?}: {said}");
        (plant.spoil)(&second)?;
        let (status, said) = diff(&first, &second)?;
        ensure!(status == Some(1), "{}: {status:?}: {said}", plant.class);
        let path: String = plant.path.escape_ascii().to_string().replace(' ', "\\x20").replace("\\\\", "\\x5c");
        let wanted = if plant.key.is_empty() { format!("{path}: only in") } else { format!("{path}: {}: ", plant.key) };
        ensure!(said.lines().any(|line| line.starts_with(&wanted)), "{}: no {wanted:?} in {said}", plant.class);
        std::fs::remove_dir_all(&second)?;
    }
    Ok(())
}
