// SPDX-License-Identifier: GPL-2.0-or-later
//! Daemons: one for each mount, with a spool and a medium for each stream.
//!
//! Which spool a filesystem belongs to is in its mark. A filesystem that was made anew has none, and gets a new spool.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use reelfs_format::mark::{Mark, MARK_LEN, MARK_XATTR};
use reelfs_format::uapi::{RING_ATTACHED, RING_MOUNTED};
use reelfs_sys::device::Device;

use super::stage::TOP;

/// How long a daemon may take for what it has to do, on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(20);

/// The mark of the directory that is to be mounted, or was; `None` where there is none.
pub fn mark(root: &Path) -> Result<Option<Mark>> {
    let mut value = [0; MARK_LEN];
    let length = match rustix::fs::getxattr(root, MARK_XATTR, &mut value[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("the mark of {}", root.display())),
    };
    let mark = Mark::parse(value.get(..length).unwrap_or_default());
    mark.map(Some).map_err(|error| anyhow::anyhow!("the mark of {}: {error:?}", root.display()))
}

fn name_of(stream: [u8; 16]) -> PathBuf {
    Path::new(TOP).join("streams").join(hex::encode(stream))
}

/// The spool of a stream, if this machine has made it.
pub fn spool_of(stream: [u8; 16]) -> Option<Spool> {
    Some(Spool(fs::read_to_string(name_of(stream)).ok()?.parse().ok()?))
}

/// A spool, its medium, and what is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool(pub u32);

impl Spool {
    /// One that nobody has used.
    pub fn fresh() -> Result<Self> {
        let parent = Path::new(TOP).join("spool");
        for number in 1.. {
            match fs::create_dir(parent.join(number.to_string())) {
                Ok(()) => {
                    fs::create_dir_all(Spool(number).media())?;
                    return Ok(Spool(number));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| parent.display().to_string()),
            }
        }
        bail!("no number is left for a spool")
    }

    fn directory(self) -> PathBuf {
        Path::new(TOP).join("spool").join(self.0.to_string())
    }

    /// Where the volumes are.
    pub fn media(self) -> PathBuf {
        Path::new(TOP).join("media").join(self.0.to_string())
    }

    /// Where the daemon's messages go.
    pub fn log(self) -> PathBuf {
        Path::new(TOP).join("log").join(format!("{}.reeld", self.0))
    }

    /// Why what is restored from this medium need not be what the lower filesystem holds; empty if it has to be.
    pub fn doubts(self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let mut doubts = Vec::new();
        for (sign, doubt) in [
            ("did not end cleanly", "the lower filesystem was cut off before it was unmounted"),
            ("--adopt", "the lower filesystem was replaced or rolled back"),
        ] {
            if text.contains(sign) {
                doubts.push(doubt);
            }
        }
        doubts.join("; ")
    }

    fn configuration(self, mount: &Path) -> Result<PathBuf> {
        let path = Path::new(TOP).join("log").join(format!("xfstests-{}.toml", self.0));
        let text = format!(
            "mount = \"{}\"\n\n[spool]\ndirectory = \"{}\"\nsegment = \"4M\"\nlimit = \"1G\"\n\n\
             [media]\nkind = \"directory\"\npath = \"{}\"\ncapacity = \"1G\"\npool = \"xfstests\"\n\n\
             [stream]\nhigh = \"8M\"\nage = \"1s\"\n\n[daemon]\ndrain = \"90s\"\n",
            mount.display(),
            self.directory().display(),
            self.media().display()
        );
        fs::create_dir_all(Path::new(TOP).join("log"))?;
        fs::create_dir_all(Path::new(TOP).join("streams"))?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Starts a daemon for this mount and waits until it is attached; its process.
    pub fn attach(self, mount: &Path, more: &[&str]) -> Result<u32> {
        let config = self.configuration(mount)?;
        let log = File::options().create(true).append(true).open(self.log())?;
        // A group of its own: what ends a test does not end the daemon.
        let mut child = Command::new("reeld")
            .arg(config)
            .arg("--exit-when-unmounted")
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .current_dir("/")
            .spawn()
            .context("reeld")?;
        // Memory is to be taken from the tests, not from what they wait for.
        let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), "-1000");
        let stream = self.wait_attached(&mut child, mount)?;
        fs::write(name_of(stream), self.0.to_string())?;
        Ok(child.id())
    }

    fn wait_attached(self, child: &mut Child, mount: &Path) -> Result<[u8; 16]> {
        const WANTED: u32 = RING_ATTACHED | RING_MOUNTED;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rings = Device::open()?.list()?;
            let newest = rings
                .iter()
                .filter(|ring| ring.source_path() == mount.as_os_str().as_bytes() && ring.state & RING_MOUNTED != 0)
                .max_by_key(|ring| ring.ring);
            if let Some(ring) = newest.filter(|ring| ring.state & WANTED == WANTED) {
                return Ok(ring.stream);
            }
            if let Some(status) = child.try_wait()? {
                bail!("reeld: {status}: {}", self.said());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                bail!("reeld did not attach within {} s: {}", PATIENCE.as_secs(), self.said());
            }
            std::thread::sleep(STEP);
        }
    }

    /// The last thing that the daemon has said.
    pub fn said(self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().last().unwrap_or_default().to_owned()
    }
}

/// The daemon for a mount that has just been made, of the filesystem whose mark this was; spool and process.
pub fn start(mount: &Path, mark: Option<&Mark>) -> Result<(Spool, u32)> {
    let known = mark.and_then(|mark| spool_of(mark.stream));
    if let Some(spool) = known {
        match spool.attach(mount, &[]) {
            Ok(process) => return Ok((spool, process)),
            // The tree was put back to what it had been.
            Err(error) if format!("{error:#}").contains("--adopt") => {}
            Err(error) => return Err(error),
        }
    }
    let spool = Spool::fresh()?;
    let more: &[&str] = if mark.is_some() { &["--adopt"] } else { &[] };
    if mark.is_some() {
        // For [`Spool::doubts`]: what this log begins with is not empty.
        fs::create_dir_all(Path::new(TOP).join("log"))?;
        fs::write(spool.log(), "started with --adopt\n")?;
    }
    Ok((spool, spool.attach(mount, more)?))
}

/// Waits for a daemon to have put everything on its medium after its mount has gone.
pub fn wait_for(process: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // Who ends without a parent is a zombie until the machine's first process has looked.
    let ended = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
    };
    while !ended() {
        ensure!(Instant::now() < deadline, "reeld ({process}) did not end within {} s", PATIENCE.as_secs());
        std::thread::sleep(STEP);
    }
    Ok(())
}
