// SPDX-License-Identifier: GPL-2.0-or-later

//! Device-mapper devices over a suite's disks, for lowers that stall and fail: dmsetup(8).

use crate::check::{Check, Failure};
use crate::machine::run;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A device, removed when this is dropped.
pub struct Dm {
    name: &'static str,
}

/// Length of a block device in sectors of 512 bytes.
pub fn sectors(device: &Path) -> Check<u64> {
    let said = run("blockdev", &[OsStr::new("--getsz"), device.as_os_str()]).map_err(Failure::of)?;
    Ok(said.trim().parse()?)
}

impl Dm {
    /// Makes a device of this table.
    pub fn new(name: &'static str, table: &str) -> Check<Self> {
        // Where it is no module, it is there.
        let _ = run("modprobe", &["dm-mod"]);
        setup(&["create", name, "--table", table])?;
        Ok(Dm { name })
    }

    /// The device's node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(self.name)
    }

    /// Has whatever comes wait; what waits in the filesystem above is not written out for it.
    pub fn suspend(&self) -> Check {
        setup(&["suspend", "--noflush", "--nolockfs", self.name])
    }

    /// The same after the filesystem above was frozen, as LVM does for a snapshot.
    pub fn suspend_frozen(&self) -> Check {
        setup(&["suspend", self.name])
    }

    /// Lets what waits go on.
    pub fn resume(&self) -> Check {
        setup(&["resume", self.name])
    }

    /// Puts another table in place, in the middle of whatever goes on.
    pub fn load(&self, table: &str) -> Check {
        setup(&["load", self.name, "--table", table])?;
        self.suspend()?;
        self.resume()
    }
}

impl Drop for Dm {
    fn drop(&mut self) {
        let _ = self.resume();
        if let Err(failure) = setup(&["remove", "--retry", self.name]) {
            eprintln!("      {failure}");
        }
    }
}

fn setup(arguments: &[&str]) -> Check {
    // Without udev it makes the nodes itself, if it is told so.
    let done = Command::new("dmsetup").env("DM_DISABLE_UDEV", "1").args(arguments).output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Failure::new(format!("dmsetup {}: {}: {}", arguments.join(" "), done.status, said.trim())))
}
