// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes a machine ready: disks, directories, users, the copy of the checkout, the configuration.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::run;
use crate::journal::Subject;

/// Everything of this program is below here.
pub const TOP: &str = "/run/xfstests";
/// Where xfstests mounts the device for its tests.
pub const TEST_DIR: &str = "/mnt/test";
/// Where it mounts the device that tests may do anything to.
pub const SCRATCH_MNT: &str = "/mnt/scratch";
/// The machine's copy of the checkout; changes to it are in memory.
pub const CHECKOUT: &str = "/run/xfstests/checkout";
/// Where what `check` leaves goes.
pub const RESULTS: &str = "/run/xfstests/results";
/// Where the system's programs are, without the links to this one.
pub const SYSTEM_PATH: &str = "/payload/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The links to this program.
const LINKS: &str = "/run/xfstests/bin";
/// Names under which it takes another program's place.
pub const TAKES_PLACE_OF: [&str; 4] = ["mount", "umount", "df", "logger"];
/// What the checkout's `common/rc` reads at its end.
const HOOKS: &str = "/payload/hooks.sh";

/// What a machine is for.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What the tests run on.
    pub subject: Subject,
    /// Type of the lower filesystem.
    pub lower: String,
}

/// The device of one of the machine's disks.
pub fn disk(name: &str) -> Result<PathBuf> {
    let link = Path::new("/dev/disk/by-id").join(name);
    fs::canonicalize(&link).with_context(|| link.display().to_string())
}

/// Type of the lower filesystem.
pub fn lower() -> Result<String> {
    let file = Path::new(TOP).join("lower");
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// Makes a new filesystem.
pub fn mkfs(kind: &str, device: &Path) -> Result<()> {
    let force = if kind == "xfs" { "-f" } else { "-F" };
    run(&format!("mkfs.{kind}"), &["-q".as_ref(), force.as_ref(), device.as_os_str()]).map(drop)
}

/// Mounts it.
pub fn mount(kind: &str, device: &Path, at: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    let words = ["-t".as_ref(), kind.as_ref(), "-o".as_ref(), options.as_ref(), device.as_os_str(), at.as_os_str()];
    run("mount", &words)?;
    if kind == "ext4" && !options.split(',').any(|option| option == "ro") {
        keep_holes(device)?;
    }
    Ok(())
}

/// Has ext4 never write zeros into a small hole instead of keeping account of it: when it does depends on what was
/// written back when, and two trees with the same history then differ in where their holes are.
pub fn keep_holes(device: &Path) -> Result<()> {
    let device = fs::canonicalize(device)?;
    let file = Path::new("/sys/fs/ext4").join(device.file_name().unwrap_or_default()).join("extent_max_zeroout_kb");
    // Not where the filesystem has no extents.
    match file.exists() {
        true => fs::write(&file, "0").with_context(|| file.display().to_string()),
        false => Ok(()),
    }
}

impl Stage {
    /// What this machine was made ready for.
    pub fn of_machine() -> Result<Self> {
        let file = Path::new(TOP).join("subject");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let subject = Subject::of(&text).with_context(|| format!("{}: {text}", file.display()))?;
        Ok(Stage { subject, lower: lower()? })
    }

    /// Makes the machine ready.
    pub fn set_up(&self) -> Result<()> {
        for directory in [TOP, LINKS, RESULTS, TEST_DIR, SCRATCH_MNT] {
            fs::create_dir_all(directory)?;
        }
        fs::write(Path::new(TOP).join("lower"), &self.lower)?;
        fs::write(Path::new(TOP).join("subject"), self.subject.name())?;
        self.users()?;
        // Tests of locks talk to themselves over it.
        run("ip", &["link", "set", "lo", "up"])?;
        self.copy()?;
        self.configuration()?;
        for name in TAKES_PLACE_OF {
            if self.subject == Subject::Reelfs || name == "logger" {
                symlink("/payload/bin/reelfs-xfstests", Path::new(LINKS).join(name))?;
            }
        }
        if self.subject == Subject::Reelfs {
            self.reelfs()?;
        }
        Ok(())
    }

    /// Those whom tests become.
    fn users(&self) -> Result<()> {
        let mut passwd = fs::File::options().append(true).open("/etc/passwd")?;
        let mut group = fs::File::options().append(true).open("/etc/group")?;
        let mut shadow = fs::File::options().append(true).open("/etc/shadow")?;
        for (number, name) in [(1001, "fsgqa"), (1002, "123456-fsgqa"), (1003, "fsgqa2")] {
            writeln!(passwd, "{name}:x:{number}:{number}::/home/{name}:/bin/bash")?;
            writeln!(group, "{name}:x:{number}:")?;
            // su(1) looks for whom it does not know here either.
            writeln!(shadow, "{name}:*:20000:0:99999:7:::")?;
            let home = Path::new("/home").join(name);
            fs::create_dir_all(&home)?;
            std::os::unix::fs::chown(&home, Some(number), Some(number))?;
        }
        // Tests start programs through login shells of these.
        Ok(fs::write("/etc/environment", format!("PATH={SYSTEM_PATH}\n"))?)
    }

    /// The checkout, on a read-only disk, with a layer over it that takes the changes.
    fn copy(&self) -> Result<()> {
        let image = Path::new(TOP).join("image");
        mount("erofs", &disk("xfstests")?, &image, "ro")?;
        let (upper, work) = (Path::new(TOP).join("upper"), Path::new(TOP).join("work"));
        for directory in [&upper, &work, Path::new(CHECKOUT)] {
            fs::create_dir_all(directory)?;
        }
        let layers = format!("lowerdir={},upperdir={},workdir={}", image.display(), upper.display(), work.display());
        run("mount", &["-t", "overlay", "-o", &layers, "overlay", CHECKOUT])?;
        if self.subject == Subject::Reelfs {
            let file = Path::new(CHECKOUT).join("common/rc");
            let mut text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            text.push_str(&format!("\n. {HOOKS}\n"));
            fs::write(&file, text)?;
        }
        Ok(())
    }

    fn configuration(&self) -> Result<()> {
        let (test, scratch, log) = (disk("test")?, disk("scratch")?, disk("logwrites")?);
        let lines = [
            format!("export FSTYP={}", self.lower),
            format!("export TEST_DEV={}", test.display()),
            format!("export TEST_DIR={TEST_DIR}"),
            format!("export SCRATCH_DEV={}", scratch.display()),
            format!("export SCRATCH_MNT={SCRATCH_MNT}"),
            format!("export LOGWRITES_DEV={}", log.display()),
            // Empty, overlayfs's options would go to the filesystem below it.
            "export MOUNT_OPTIONS='-o relatime'".to_owned(),
            "export TEST_FS_MOUNT_OPTS='-o relatime'".to_owned(),
            format!("export RESULT_BASE={RESULTS}"),
        ];
        Ok(fs::write(Path::new(TOP).join("local.config"), lines.join("\n") + "\n")?)
    }

    fn reelfs(&self) -> Result<()> {
        run("insmod", &["/payload/reelfs.ko"])?;
        // mount(8) looks for helpers here and nowhere else.
        symlink("/payload/bin/mount.reelfs", "/usr/sbin/mount.reelfs")?;
        for name in ["spool", "media"] {
            let device = disk(name)?;
            mkfs("ext4", &device)?;
            // What is deleted is given back to the host.
            mount("ext4", &device, &Path::new(TOP).join(name), "discard")?;
        }
        Ok(())
    }

    /// Takes away what [`Stage::set_up`] has made, which fails where something is still in use.
    pub fn tear_down(&self) -> Result<()> {
        let mut made = vec!["checkout", "image"];
        if self.subject == Subject::Reelfs {
            run("rmmod", &["reelfs"])?;
            made.extend(["spool", "media"]);
        }
        made.iter().try_for_each(|name| run("umount", &[Path::new(TOP).join(name)]).map(drop))
    }

    /// The `PATH` of the tests.
    pub fn path(&self) -> String {
        format!("{LINKS}:{SYSTEM_PATH}")
    }
}
