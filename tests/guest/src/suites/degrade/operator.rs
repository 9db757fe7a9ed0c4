// SPDX-License-Identifier: GPL-2.0-or-later

//! What the operator gets to see: in the kernel log, from the daemon, and when a tree is restored or verified.

use super::{entry, until_degraded, until_recording};
use crate::check::{ensure, same, Failure};
use crate::machine::{run, sh};
use crate::pattern::pattern;
use crate::rig::{none, Config, Rig};
use crate::{Context, TestResult};
use rustix::process::Signal;
use std::fs::{self, File};
use std::process::Command;

pub fn is_told(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("operator", false)?;
    rig.configure(&Config { more: "\n[checkpoint]\nresync = false\n", ..Config::default() })?;
    rig.mount("onstall=degrade,stall=1,ring=1m")?;
    rig.start_daemon()?;
    for name in ["before", "during", "after"] {
        fs::create_dir(rig.mnt.join(name))?;
        fs::write(rig.mnt.join(name).join("file"), pattern(300_000, 1))?;
    }
    File::open(&rig.mnt)?.sync_all()?;
    // All of it, as it was when the gap began.
    let copy = rig.lower.with_extension("copy");
    run("cp", &["-a".as_ref(), rig.lower.as_os_str(), copy.as_os_str()]).map_err(Failure::of)?;
    rig.signal(Signal::STOP)?;
    // The last thing that is in the log.
    fs::write(rig.mnt.join("during/last"), "known")?;
    File::open(rig.mnt.join("during/last"))?.sync_all()?;
    until_degraded(&rig)?;
    fs::write(rig.mnt.join("during/new"), "in no log")?;
    fs::write(rig.mnt.join("during/file"), pattern(2_000_000, 2))?;
    fs::remove_dir_all(rig.mnt.join("during"))?;
    fs::create_dir(rig.mnt.join("during"))?;
    fs::write(rig.mnt.join("during/new"), "in no log")?;
    let gap = entry(&rig)?.gap_lsn;
    rig.signal(Signal::CONT)?;
    until_recording(&rig)?;
    fs::write(rig.mnt.join("during/new"), "a file that no log knows")?;
    fs::write(rig.mnt.join("after/file"), pattern(400_000, 3))?;
    fs::write(rig.mnt.join("after/new"), pattern(10_000, 4))?;
    File::open(&rig.mnt)?.sync_all()?;
    let lsn = format!("{gap:#x}");
    let status = run("reel", &["status", &rig.name]).map_err(Failure::of)?;
    ensure!(status.contains(&lsn) && status.contains("lacks_changes_from"), "reel status:\n{status}");
    let kernel = sh("dmesg | grep -F 'it has a gap'").map_err(Failure::of)?;
    ensure!(kernel.contains(&lsn), "{kernel}");
    rig.unmount()?;
    rig.drain()?;
    let said = fs::read_to_string(format!("/results/{}.reeld.log", rig.name))?;
    ensure!(said.contains("GAP: the log could take no records"), "reeld said:\n{said}");

    // Restored as a whole, it is said what it is worth.
    let (code, said) = rig.restore_output(&[])?;
    ensure!(code == Some(5), "exit {code:?}: {said}");
    for word in ["GAP in stream", &lsn, "the log has a gap", "left out"] {
        ensure!(said.contains(word), "{word} is not in:\n{said}");
    }
    for name in ["before", "after"] {
        let differences = rig.differences(&rig.lower.join(name), &rig.restored.join(name))?;
        none(&format!("{name}: restored tree and lower differ"), &differences)?;
    }
    let verified = Command::new("reel").arg("verify").arg(&rig.media).output()?;
    let text = String::from_utf8_lossy(&[verified.stdout, verified.stderr].concat()).into_owned();
    ensure!(verified.status.code() == Some(5) && text.contains(&lsn), "reel verify: {}:\n{text}", verified.status);

    // Up to the gap, it is the tree.
    fs::remove_dir_all(&rig.restored)?;
    let (code, said) = rig.restore_output(&["--at", &lsn])?;
    ensure!(code == Some(0) && !said.contains("GAP"), "exit {code:?}: {said}");
    same!(fs::read(rig.restored.join("during/file"))?, pattern(300_000, 1));
    for name in ["before", "after"] {
        let differences = rig.differences(&copy.join(name), &rig.restored.join(name))?;
        none(&format!("{name}: restored tree and what was there when the gap began differ"), &differences)?;
    }
    let names = fs::read_dir(rig.restored.join("during"))?.count();
    ensure!(names == 2 && fs::read(rig.restored.join("during/last"))? == b"known", "{names} names");
    fs::remove_dir_all(&rig.restored)?;
    fs::remove_dir_all(&copy)?;
    Ok(rig.close()?)
}

/// The daemon closes a gap by itself, as soon as there is a log again: what changed in it is in the log then, and the tree
/// comes back as a whole.
pub fn is_closed(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("closed", false)?;
    rig.mount("onstall=degrade,stall=1,ring=1m")?;
    rig.start_daemon()?;
    fs::create_dir(rig.mnt.join("d"))?;
    fs::write(rig.mnt.join("d/changed"), pattern(300_000, 1))?;
    fs::write(rig.mnt.join("d/removed"), pattern(300_000, 2))?;
    File::open(&rig.mnt)?.sync_all()?;
    rig.signal(Signal::STOP)?;
    fs::write(rig.mnt.join("d/last"), "known")?;
    File::open(rig.mnt.join("d/last"))?.sync_all()?;
    until_degraded(&rig)?;
    fs::write(rig.mnt.join("d/changed"), pattern(2_000_000, 3))?;
    fs::remove_file(rig.mnt.join("d/removed"))?;
    fs::rename(rig.mnt.join("d/last"), rig.mnt.join("moved"))?;
    fs::create_dir(rig.mnt.join("new"))?;
    fs::write(rig.mnt.join("new/file"), "in no log")?;
    rig.signal(Signal::CONT)?;
    until_recording(&rig)?;
    fs::write(rig.mnt.join("new/after"), pattern(10_000, 4))?;
    rig.wait_for_agreement()?;
    same!(entry(&rig)?.gap_lsn, 0);
    rig.note()?;
    fs::write(rig.mnt.join("new/last"), pattern(10_000, 5))?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    // Nor does the mark say otherwise.
    rig.mount("onstall=degrade")?;
    rig.start_daemon()?;
    same!(entry(&rig)?.gap_lsn, 0);
    Ok(rig.close()?)
}
