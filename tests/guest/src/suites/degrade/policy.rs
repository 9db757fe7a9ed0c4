// SPDX-License-Identifier: GPL-2.0-or-later

//! The policy changed under way, and limits for users.

use super::{
    acknowledge_all, attach, done, entry, is_degraded, mounted, number, options, until_degraded, until_recording,
};
use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::machine::{run, wait_until};
use crate::pattern::pattern;
use crate::rig::Rig;
use crate::{Context, TestResult};
use reelfs_format::uapi::UserEntry;
use reelfs_sys::device::Device;
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn remount(rig: &Rig, options: &str) -> Check {
    let options = format!("remount,{options}");
    run("mount", &["-o".as_ref(), options.as_ref(), rig.mnt.as_os_str()]).map(drop).map_err(Failure::of)
}

pub fn by_remount(_: &Context) -> TestResult {
    let rig = mounted("remount", "ring=1m")?;
    let has = |wanted: &str| -> Check<bool> { Ok(options(&rig)?.iter().any(|option| option == wanted)) };
    ensure!(has("onstall=block")? && has("stall=30")? && has("flush=5")?, "{:?}", options(&rig)?);
    let mut ring = attach(&rig, 0)?;
    // Somebody who waits finds the new policy.
    let path = rig.mnt.join("file");
    let writer = Background::start("a writer", move || fs::write(path, pattern(3_000_000, 1)));
    writer.waits()?;
    remount(&rig, "onstall=fail,stall=1")?;
    let failed = writer.ends()?.err().and_then(|error| Errno::from_io_error(&error));
    same!(failed, Some(Errno::IO));
    remount(&rig, "onstall=degrade,flush=7,uidlimit=1m")?;
    ensure!(has("onstall=degrade")? && has("stall=1")? && has("flush=7")?, "{:?}", options(&rig)?);
    same!(number(&rig, "uidlimit")?, Some(1 << 20));
    fs::write(rig.mnt.join("other"), pattern(3_000_000, 1))?;
    until_degraded(&rig)?;
    // What /proc/mounts has beside the options is no obstacle (mount(8) repeats it), nor is what cannot change.
    for bad in ["onstall=sometimes", "ring=2m", "stall=0", "flush=0", "uidlimit=1", "gaps"] {
        let refused = remount(&rig, bad).is_err();
        ensure!(refused == (bad != "gaps"), "{bad}: refused {refused}");
    }
    // In a gap, but not with this policy: what would go unrecorded waits, or fails.
    remount(&rig, "onstall=block,uidlimit=0")?;
    same!(number(&rig, "uidlimit")?, None);
    let directory = rig.mnt.join("directory");
    let waiter = Background::start("a change", move || fs::create_dir(directory));
    waiter.waits()?;
    acknowledge_all(&mut ring)?;
    until_recording(&rig)?;
    waiter.ends()??;
    ensure!(!is_degraded(&rig), "still");
    done(rig, Some(ring))
}

fn as_user(uid: u32, script: String) -> Check<Child> {
    let id = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", &script]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

fn user(rig: &Rig, uid: u32) -> Check<UserEntry> {
    let ring = entry(rig)?.ring;
    let users = Device::open()?.users(ring)?;
    Ok(users.into_iter().find(|user| user.uid == uid).unwrap_or_default())
}

/// Whoever floods the log waits, and nobody else does.
pub fn a_user_has_his_limit(_: &Context) -> TestResult {
    const LIMIT: u64 = 256 << 10;
    let rig = mounted("limit", "ring=4m,uidlimit=256k")?;
    let mut ring = attach(&rig, 0)?;
    for name in ["1000", "1001", "root"] {
        fs::create_dir(rig.mnt.join(name))?;
        fs::set_permissions(rig.mnt.join(name), fs::Permissions::from_mode(0o777))?;
    }
    acknowledge_all(&mut ring)?;
    let mnt = rig.mnt.display();
    let mut flood = as_user(1000, format!("exec dd if=/dev/zero of={mnt}/1000/flood bs=20000 count=50"))?;
    let waits = || user(&rig, 1000).is_ok_and(|user| user.waits > 0);
    wait_until("the flood is dammed", super::SOON, waits)?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(flood.try_wait()?.is_none(), "a megabyte went through");
    let held = user(&rig, 1000)?.held;
    ensure!(held <= LIMIT && held > LIMIT - 30_000, "{held} bytes held");
    // Nobody else waits, however he comes.
    let begin = Instant::now();
    let mut other = as_user(1001, format!("cd {mnt}/1001 && mkdir d && dd if=/dev/zero of=file bs=20000 count=5"))?;
    ensure!(other.wait()?.success(), "another user");
    fs::write(rig.mnt.join("root/file"), pattern(500_000, 1))?;
    ensure!(begin.elapsed() < Duration::from_secs(10) * crate::harness::slowness(), "{:?}", begin.elapsed());
    same!(user(&rig, 1001)?.waits, 0);
    ensure!(user(&rig, 0)?.held > LIMIT, "the superuser has a limit");
    // As room comes back, he goes on; and in the end nobody has anything.
    while flood.try_wait()?.is_none() {
        acknowledge_all(&mut ring)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(flood.wait()?.success(), "the flood");
    same!(fs::metadata(rig.lower.join("1000/flood"))?.len(), 1_000_000);
    acknowledge_all(&mut ring)?;
    let held: u64 = Device::open()?.users(entry(&rig)?.ring)?.iter().map(|user| user.held).sum();
    same!(held, 0);
    // One change that is longer than the limit is possible; and who waits can be killed.
    fs::write(rig.mnt.join("1000/long"), "")?;
    fs::set_permissions(rig.mnt.join("1000/long"), fs::Permissions::from_mode(0o666))?;
    acknowledge_all(&mut ring)?;
    let mut flood = as_user(1000, format!("exec dd if=/dev/zero of={mnt}/1000/long bs=1M count=1 conv=notrunc"))?;
    let long = rig.lower.join("1000/long");
    let longer = || fs::metadata(&long).is_ok_and(|found| found.len() > LIMIT);
    wait_until("more than the limit is written at once", super::SOON, longer)?;
    ensure!(flood.try_wait()?.is_none(), "twice more than the limit");
    flood.kill()?;
    flood.wait()?;
    done(rig, Some(ring))
}

/// More users than there are entries: none is forgotten in the sum.
pub fn users_are_counted(_: &Context) -> TestResult {
    let rig = mounted("users", "ring=4m")?;
    let mut ring = attach(&rig, 0)?;
    fs::set_permissions(&rig.mnt, fs::Permissions::from_mode(0o777))?;
    let count = 200;
    let before: u64 = Device::open()?.users(entry(&rig)?.ring)?.iter().map(|user| user.records).sum();
    for uid in 5000..5000 + count {
        let done_it = as_user(uid, format!("mkdir {}/{uid}", rig.mnt.display()))?.wait()?;
        ensure!(done_it.success(), "uid {uid}");
        if uid % 50 == 0 {
            acknowledge_all(&mut ring)?;
        }
    }
    let users = Device::open()?.users(entry(&rig)?.ring)?;
    let records: u64 = users.iter().map(|user| user.records).sum();
    same!(records, before + u64::from(count));
    ensure!(users.len() <= 128, "{} entries", users.len());
    let mut uids: Vec<_> = users.iter().map(|user| user.uid).collect();
    uids.sort_unstable();
    uids.dedup();
    same!(uids.len(), users.len());
    done(rig, Some(ring))
}
