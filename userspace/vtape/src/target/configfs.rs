// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's objects for a drive, made and removed through configfs.
//!
//! Facts: K:`Documentation/target/tcmu-design.rst`, K:`drivers/target/target_core_user.c`,
//! K:`drivers/target/loopback/tcm_loop.c`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use reelfs_sys::tcmu::Ring;

use super::{names_in, read_text, wait_for};

const CONFIGFS: &str = "/sys/kernel/config";
const CORE: &str = "/sys/kernel/config/target/core";
const LOOPBACK: &str = "/sys/kernel/config/target/loopback";
const UIO: &str = "/sys/class/uio";

/// Highest number of a group of backstores that is tried.
const MAX_GROUPS: u32 = 256;
/// Mebibytes of data in flight: one command carries at most one, and few are queued.
const DATA_AREA_MB: u32 = 16;
/// Seconds after which the kernel gives up on a command that nobody answers.
///
/// Long enough for a slow disk under the image, short enough that a killed server does not
/// block its users for ever.
const COMMAND_TIMEOUT: u32 = 300;

/// A path that is removed when this is dropped.
enum Undo {
    Directory(PathBuf),
    Link(PathBuf),
}

/// Things to be undone, the last first.
#[derive(Default)]
struct Undoes(Vec<Undo>);

impl Undoes {
    fn make_directory(&mut self, path: &Path) -> Result<()> {
        fs::create_dir(path).with_context(|| format!("{}: making it", path.display()))?;
        self.0.push(Undo::Directory(path.to_owned()));
        Ok(())
    }

    fn make_link(&mut self, to: &Path, path: &Path) -> Result<()> {
        std::os::unix::fs::symlink(to, path)
            .with_context(|| format!("{}: linking to {}", path.display(), to.display()))?;
        self.0.push(Undo::Link(path.to_owned()));
        Ok(())
    }
}

impl Drop for Undoes {
    fn drop(&mut self) {
        while let Some(undo) = self.0.pop() {
            let (path, result) = match undo {
                Undo::Directory(path) => (path.clone(), fs::remove_dir(path)),
                Undo::Link(path) => (path.clone(), fs::remove_file(path)),
            };
            if let Err(error) = result {
                eprintln!("vtape: {}: removing it: {error}; 'vtape clean' tries again", path.display());
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{}: writing '{text}'", path.display()))
}

/// Loads the modules and mounts configfs, where that has not been done.
///
/// # Errors
///
/// When the kernel has no target core at the end of it.
pub(super) fn prepare() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root can plug in a drive; run 'vtape serve' as root");
    }
    for module in ["configfs", "uio", "target_core_user", "tcm_loop", "st", "sg"] {
        // A kernel may have it built in, and a machine may have no modprobe: what counts is
        // whether the directories are there afterwards.
        let _ = Command::new("modprobe").arg("-q").arg(module).status();
    }
    if !Path::new(CORE).is_dir() && names_in(Path::new(CONFIGFS)).is_empty() {
        rustix::mount::mount("configfs", CONFIGFS, "configfs", rustix::mount::MountFlags::empty(), None)
            .with_context(|| format!("{CONFIGFS}: mounting configfs"))?;
    }
    if !Path::new(CORE).is_dir() {
        bail!(
            "{CORE}: not there; the kernel needs target_core_user and tcm_loop \
             (Debian: package linux-image-amd64, then 'modprobe target_core_user')"
        );
    }
    match fs::create_dir(LOOPBACK) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("{LOOPBACK}: making it; try 'modprobe tcm_loop'"))
        }
        _ => Ok(()),
    }
}

/// The kernel's end of the command ring.
pub(super) struct Backstore {
    path: PathBuf,
    name: String,
    _undoes: Undoes,
}

/// What is written into the kernel's object to know it again.
fn marker(name: &str) -> String {
    format!("vtape/{name}")
}

impl Backstore {
    pub(super) fn create(name: &str) -> Result<Self> {
        let mut undoes = Undoes::default();
        let group = Self::create_group()?;
        undoes.0.push(Undo::Directory(group.clone()));
        let path = group.join(name);
        undoes.make_directory(&path)?;
        // The size is a disk's, which this is not; it must be there and at least a block.
        let control =
            format!("dev_config={},dev_size=1048576,hw_block_size=512,max_data_area_mb={DATA_AREA_MB}", marker(name));
        write(&path.join("control"), &control)?;
        write(&path.join("enable"), "1")?;
        write(&path.join("attrib/cmd_time_out"), &COMMAND_TIMEOUT.to_string())?;
        // Resets are carried out by the kernel; the drive wants to hear of them.
        write(&path.join("attrib/tmr_notification"), "1")?;
        Ok(Self { path, name: name.to_owned(), _undoes: undoes })
    }

    fn create_group() -> Result<PathBuf> {
        for number in 0..MAX_GROUPS {
            let group = Path::new(CORE).join(format!("user_{number}"));
            match fs::create_dir(&group) {
                Ok(()) => return Ok(group),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("{}: making it", group.display()));
                }
            }
        }
        bail!("{CORE}: all of user_0 to user_{} are taken", MAX_GROUPS - 1)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the ring of this device.
    pub(super) fn open_ring(&self, patience: Duration) -> Result<Ring> {
        let group = self.path.parent().and_then(Path::file_name).unwrap_or_default();
        let number = group.to_string_lossy().replace("user_", "");
        let wanted = format!("tcm-user/{number}/{}/{}", self.name, marker(&self.name));
        let find = || {
            names_in(Path::new(UIO)).into_iter().find(|name| {
                let path = Path::new(UIO).join(name).join("name");
                fs::read_to_string(path).is_ok_and(|text| text.trim() == wanted)
            })
        };
        let Some(device) = wait_for(patience, find) else {
            bail!("{UIO}: no device is named {wanted}; see 'dmesg'");
        };
        let size_path = Path::new(UIO).join(&device).join("maps/map0/size");
        let size = read_text(&size_path)?;
        let size = usize::from_str_radix(size.trim_start_matches("0x"), 16)
            .with_context(|| format!("{}: '{size}' is not a size", size_path.display()))?;
        let node = Path::new("/dev").join(&device);
        // The node is made by the kernel or by udev, a moment after the device.
        wait_for(patience, || node.exists().then_some(()));
        Ring::open(&node, size).with_context(|| format!("{}: opening it", node.display()))
    }
}

/// The cable: a SCSI host with one target and one logical unit.
pub(super) struct Fabric {
    group: PathBuf,
    _undoes: Undoes,
}

/// A worldwide name made from the drive's: NAA 3, locally assigned, so that it is the same
/// each time and can be told from any hardware's.
fn worldwide_name(name: &str, role: u8) -> String {
    // FNV-1a: `clean` must find the name again, whatever library built it.
    let hash = name
        .bytes()
        .chain([role])
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("naa.3{:015x}", hash >> 4)
}

fn fabric_path(name: &str) -> PathBuf {
    Path::new(LOOPBACK).join(worldwide_name(name, 0))
}

impl Fabric {
    pub(super) fn create(name: &str, backstore: &Path) -> Result<Self> {
        let mut undoes = Undoes::default();
        let port = fabric_path(name);
        undoes.make_directory(&port)?;
        let group = port.join("tpgt_1");
        undoes.make_directory(&group)?;
        write(&group.join("nexus"), &worldwide_name(name, 1))?;
        let unit = group.join("lun/lun_0");
        undoes.make_directory(&unit)?;
        undoes.make_link(backstore, &unit.join("drive"))?;
        Ok(Self { group, _undoes: undoes })
    }

    /// `HOST:CHANNEL:TARGET:LUN` of the logical unit.
    pub(super) fn address(&self) -> Result<String> {
        Ok(format!("{}:0", read_text(&self.group.join("address"))?))
    }
}

/// Removes what a killed server of the drive `name` left in the kernel. Commands that still
/// wait for an answer fail. Says whether there was anything.
///
/// # Errors
///
/// What could not be removed.
pub fn clean(name: &str) -> Result<bool> {
    let mut found = false;
    let backstores: Vec<PathBuf> = names_in(Path::new(CORE))
        .into_iter()
        .map(|group| Path::new(CORE).join(group).join(name))
        .filter(|path| fs::read_to_string(path.join("info")).is_ok_and(|info| info.contains(&marker(name))))
        .collect();
    for path in &backstores {
        found = true;
        // Nobody will answer: let waiting commands fail, and no new ones in.
        write(&path.join("action/block_dev"), "1")?;
        write(&path.join("action/reset_ring"), "2")?;
    }
    let port = fabric_path(name);
    if port.is_dir() {
        found = true;
        let group = port.join("tpgt_1");
        let unit = group.join("lun/lun_0");
        let link = unit.join("drive");
        if link.is_symlink() {
            fs::remove_file(&link).with_context(|| format!("{}: removing it", link.display()))?;
        }
        for path in [unit, group, port] {
            if path.is_dir() {
                fs::remove_dir(&path).with_context(|| format!("{}: removing it", path.display()))?;
            }
        }
    }
    for path in backstores {
        fs::remove_dir(&path).with_context(|| format!("{}: removing it", path.display()))?;
        if let Some(group) = path.parent() {
            fs::remove_dir(group).with_context(|| format!("{}: removing it", group.display()))?;
        }
    }
    Ok(found)
}
