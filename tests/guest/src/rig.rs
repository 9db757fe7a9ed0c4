// SPDX-License-Identifier: GPL-2.0-or-later

//! One reelfs mount with everything around it: lower, spool, medium, daemon, and a place to restore to.

use crate::check::{ensure, Check, Failure};
use crate::device::{ring_of, Ring};
use crate::machine::{insmod, is_loaded, rmmod, run, wait_until, Mounted};
use crate::Context;
use reelfs_oracle::Oracle;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Where the stage's filesystems are mounted.
const STAGE: &str = "/run/stage";
/// For how long the log has to stand still on a frozen lower before its position is believed.
const STILL: Duration = Duration::from_millis(300);
/// How long a daemon may take for what it has to do.
const PATIENCE: Duration = Duration::from_secs(100);

/// The module loaded, and the suite's disks `lower`, `spool` and `media` mounted with new filesystems.
pub struct Stage {
    mounts: Vec<Mounted>,
    plain: bool,
}

impl Stage {
    /// Makes the lower one of this kind; spool and media are ext4.
    pub fn new(context: &Context, lower: &str) -> Check<Self> {
        Self::on(context, lower, &context.disk("lower"))
    }

    /// The same with the lower on another device.
    pub fn on(context: &Context, lower: &str, device: &Path) -> Check<Self> {
        let plain = std::env::var_os("REELFS_TEST_PLAIN").is_some();
        if !plain && !is_loaded("reelfs") {
            insmod().map_err(Failure::of)?;
            // mount(8) looks for helpers here and nowhere else.
            let _ = std::os::unix::fs::symlink("/payload/bin/mount.reelfs", "/usr/sbin/mount.reelfs");
        }
        let at = |name: &str| Path::new(STAGE).join(name);
        let mut mounts = Vec::new();
        if lower == "ext4" {
            // With project ids, which the comparer looks at.
            let features = ["-q", "-F", "-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"];
            run("mkfs.ext4", &[&features.map(AsRef::as_ref)[..], &[device.as_os_str()]].concat())
                .map_err(Failure::of)?;
            mounts.push(Mounted::new(lower, device, &at("lower"), "").map_err(Failure::of)?);
            keep_holes(device)?;
        } else {
            mounts.push(Mounted::fresh(lower, device, &at("lower")).map_err(Failure::of)?);
        }
        for name in ["spool", "media"] {
            mounts.push(Mounted::fresh("ext4", &context.disk(name), &at(name)).map_err(Failure::of)?);
        }
        Ok(Stage { mounts, plain })
    }

    /// The same disks with what a boot before has left on them.
    pub fn again(context: &Context, lower: &str) -> Check<Self> {
        let at = |name: &str| Path::new(STAGE).join(name);
        insmod().map_err(Failure::of)?;
        let device = context.disk("lower");
        let mut mounts = vec![Mounted::new(lower, &device, &at("lower"), "").map_err(Failure::of)?];
        if lower == "ext4" {
            keep_holes(&device)?;
        }
        for name in ["spool", "media"] {
            mounts.push(Mounted::new("ext4", &context.disk(name), &at(name), "").map_err(Failure::of)?);
        }
        Ok(Stage { mounts, plain: false })
    }

    /// Unmounts everything and unloads the module, which fails if anything is still in use.
    pub fn close(self) -> Check {
        for mount in self.mounts.into_iter().rev() {
            mount.unmount().map_err(Failure::of)?;
        }
        if !self.plain {
            rmmod().map_err(Failure::of)?;
        }
        Ok(())
    }
}

/// Has ext4 never write zeros into a small hole instead of keeping account of it: when it does depends on what was written
/// back when, and two trees with the same history then differ in where their holes are.
fn keep_holes(device: &Path) -> Check {
    // By its number: the node may have another name than the device.
    let number = fs::metadata(device)?.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = device.file_name().unwrap_or_default();
    Ok(fs::write(Path::new("/sys/fs/ext4").join(name).join("extent_max_zeroout_kb"), "0")?)
}

/// A mount and what belongs to it.
pub struct Rig {
    stage: Option<Stage>,
    /// Name of the daemon's configuration.
    pub name: String,
    /// The lower directory.
    pub lower: PathBuf,
    /// Where it is mounted.
    pub mnt: PathBuf,
    /// The daemon's spool.
    pub spool: PathBuf,
    /// The directory with the volume files.
    pub media: PathBuf,
    /// Where [`Rig::restore`] puts the tree: on the lower filesystem, so that it can hold all that the lower can.
    pub restored: PathBuf,
    /// There is no reelfs in between.
    pub plain: bool,
    /// What the comparer leaves out, of this lower.
    pub ignored: Vec<&'static str>,
    /// The daemon.
    pub program: &'static str,
    /// Variables for the daemon.
    pub environment: Vec<(String, String)>,
    config: PathBuf,
    daemon: Option<Child>,
    tap: Option<crate::consumer::Tap>,
    mounted: bool,
}

/// What a daemon's configuration says, where it differs from the default.
pub struct Config {
    /// Bytes that the spool may take.
    pub spool_limit: &'static str,
    /// Bytes that a volume holds; the next one follows.
    pub capacity: &'static str,
    /// More sections.
    pub more: &'static str,
}

impl Default for Config {
    fn default() -> Self {
        Config { spool_limit: "512M", capacity: "1G", more: "" }
    }
}

impl Rig {
    /// Directories on the stage for a mount of this name; nothing is mounted or started.
    pub fn new(stage: Stage, name: &str) -> Check<Self> {
        let plain = stage.plain;
        let mut rig = Self::on_stage(name, plain)?;
        rig.stage = Some(stage);
        Ok(rig)
    }

    /// The same on a stage that somebody else keeps.
    pub fn on_stage(name: &str, plain: bool) -> Check<Self> {
        let at = |disk: &str, name: &str| Path::new(STAGE).join(disk).join(name);
        let lower = at("lower", &format!("{name}.lower"));
        let mut rig = Rig {
            stage: None,
            name: name.to_owned(),
            mnt: if plain { lower.clone() } else { Path::new(STAGE).join(format!("{name}.mnt")) },
            lower,
            spool: at("spool", name),
            media: at("media", name),
            restored: at("lower", &format!("{name}.restored")),
            plain,
            ignored: Vec::new(),
            program: "reeld",
            environment: Vec::new(),
            config: Path::new(STAGE).join(format!("{name}.toml")),
            daemon: None,
            tap: None,
            mounted: false,
        };
        for directory in [&rig.lower, &rig.mnt, &rig.spool, &rig.media] {
            fs::create_dir_all(directory)?;
        }
        rig.configure(&Config::default())?;
        Ok(rig)
    }

    /// Writes the daemon's configuration.
    pub fn configure(&mut self, config: &Config) -> Check {
        let path = self.media.display();
        let media =
            format!("kind = \"directory\"\npath = \"{path}\"\ncapacity = \"{}\"\npool = \"tests\"", config.capacity);
        self.write_config(config, &media)
    }

    /// Writes the daemon's configuration with another `[media]` section.
    pub fn configure_media(&mut self, media: &str) -> Check {
        self.write_config(&Config::default(), media)
    }

    fn write_config(&self, config: &Config, media: &str) -> Check {
        let (mount, spool, limit) = (self.mnt.display(), self.spool.display(), config.spool_limit);
        let text = format!(
            "mount = \"{mount}\"\n\n[spool]\ndirectory = \"{spool}\"\nsegment = \"4M\"\nlimit = \"{limit}\"\n\n\
             [media]\n{media}\n\n[stream]\nhigh = \"8M\"\nage = \"1s\"\n\n[daemon]\ndrain = \"90s\"\n{}",
            config.more
        );
        Ok(fs::write(&self.config, text)?)
    }

    /// Mounts, with these options.
    pub fn mount(&mut self, options: &str) -> Check {
        if self.plain {
            return Ok(());
        }
        let mut command = Command::new("mount");
        command.args(["-t", "reelfs"]);
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        let done = command.arg(&self.lower).arg(&self.mnt).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "mount: {}: {}", done.status, said.trim());
        self.mounted = true;
        Ok(())
    }

    /// Unmounts.
    pub fn unmount(&mut self) -> Check {
        if std::mem::take(&mut self.mounted) {
            run("umount", &[&self.mnt]).map_err(Failure::of)?;
        }
        Ok(())
    }

    /// Takes note that it was unmounted by other means.
    pub fn was_unmounted(&mut self) {
        self.mounted = false;
    }

    /// Starts the daemon and waits until it is attached.
    pub fn start_daemon(&mut self) -> Check {
        if self.plain {
            return Ok(());
        }
        if std::env::var_os("REELFS_TEST_BARE").is_some() {
            self.tap = Some(crate::consumer::Tap::start(&self.mnt, 0, &self.spool.join("log"))?);
            return Ok(());
        }
        let before = fs::metadata(self.daemon_log()).map_or(0, |data| data.len());
        self.spawn_daemon()?;
        // By its own word: as long as it is about to, it has the mount open.
        let says_so = |rig: &Self| {
            let said = fs::read(rig.daemon_log()).unwrap_or_default();
            String::from_utf8_lossy(said.get(before as usize..).unwrap_or_default()).contains(" attached to ")
        };
        let attached = wait_until("the daemon attaches", PATIENCE, || {
            self.ring().is_ok_and(|ring| ring.attached()) && says_so(self) || !self.daemon_lives()
        });
        attached.map_err(|late| Failure::new(format!("{late}; it said:\n{}", self.daemon_said())))?;
        ensure!(self.daemon_lives(), "the daemon ended:\n{}", self.daemon_said());
        Ok(())
    }

    /// Starts the daemon for a ring that outlived its mount, and waits until it is drained.
    pub fn start_daemon_for_the_rest(&mut self) -> Check {
        self.spawn_daemon()?;
        let drained = wait_until("the ring drains", PATIENCE, || self.ring().is_err() || !self.daemon_lives());
        drained.map_err(|late| Failure::new(format!("{late}; the daemon said:\n{}", self.daemon_said())))?;
        ensure!(self.daemon_lives(), "the daemon ended:\n{}", self.daemon_said());
        Ok(())
    }

    fn spawn_daemon(&mut self) -> Check {
        fs::create_dir_all("/results")?;
        let log = fs::File::options().create(true).append(true).open(self.daemon_log())?;
        let mut command = Command::new(self.program);
        command.arg(&self.config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.daemon = Some(command.spawn()?);
        Ok(())
    }

    /// Whether the daemon was started and has not ended.
    pub fn daemon_lives(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The daemon's process id.
    pub fn daemon_id(&self) -> Check<u32> {
        self.daemon.as_ref().map(Child::id).ok_or_else(|| Failure::new("no daemon was started"))
    }

    /// Where the daemon's messages go; the file is brought to the host.
    fn daemon_log(&self) -> PathBuf {
        Path::new("/results").join(format!("{}.reeld.log", self.name))
    }

    /// The end of what the daemon has said.
    pub fn daemon_said(&self) -> String {
        let text = fs::read_to_string(self.daemon_log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: rustix::process::Signal) -> Check {
        let id = i32::try_from(self.daemon_id()?)?;
        let pid = rustix::process::Pid::from_raw(id).ok_or_else(|| Failure::new("no process id"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for the daemon to end.
    pub fn wait_for_daemon(&mut self) -> Check<ExitStatus> {
        let Some(mut child) = self.daemon.take() else { return Err(Failure::new("no daemon was started")) };
        let ended = wait_until("the daemon ends", PATIENCE, || !matches!(child.try_wait(), Ok(None)));
        if let Err(late) = ended {
            let text = self.daemon_said();
            self.daemon = Some(child);
            return Err(Failure::new(format!("{late}; it said:\n{text}")));
        }
        Ok(child.wait()?)
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill_daemon(&mut self) -> Check {
        self.signal(rustix::process::Signal::KILL)?;
        let status = self.wait_for_daemon()?;
        ensure!(status.signal() == Some(9), "the daemon had ended by itself: {status}:\n{}", self.daemon_said());
        Ok(())
    }

    /// Lets the daemon write everything to the medium and end.
    pub fn drain(&mut self) -> Check {
        if self.plain {
            return Ok(());
        }
        if let Some(tap) = self.tap.take() {
            return tap.wait();
        }
        self.signal(rustix::process::Signal::TERM)?;
        let status = self.wait_for_daemon()?;
        ensure!(status.success(), "the daemon ended with {status}:\n{}", self.daemon_said());
        Ok(())
    }

    /// Restores from the media to [`Rig::restored`], which must not be there.
    pub fn restore(&self) -> Check {
        if std::env::var_os("REELFS_TEST_BARE").is_some() {
            std::os::unix::fs::symlink(&self.lower, &self.restored)?;
        }
        if self.plain || std::env::var_os("REELFS_TEST_BARE").is_some() {
            return Ok(());
        }
        let done = self.restore_output(&[])?;
        ensure!(done.0 == Some(0), "reel restore: exit {:?}:\n{}", done.0, done.1);
        Ok(())
    }

    /// Restores with more arguments; gives exit status and what was said.
    pub fn restore_output(&self, more: &[&str]) -> Check<(Option<i32>, String)> {
        let mut command = Command::new("reel");
        command.arg("restore").arg("--to").arg(&self.restored).args(more).arg(&self.media);
        let done = command.stdin(Stdio::null()).output()?;
        let said = [done.stdout, done.stderr].concat();
        Ok((done.status.code(), String::from_utf8_lossy(&said).trim().to_owned()))
    }

    /// Restores and compares with the lower; then restores each moment that was noted ([`Rig::note`]), and compares.
    pub fn restored_equals_lower(&self) -> Check {
        self.restore()?;
        none("restored tree and lower differ", &self.differences(&self.lower, &self.restored)?)?;
        self.moments_are_restored()
    }

    /// The oracle of this mount.
    fn oracle(&self) -> Oracle {
        Oracle {
            lower: self.lower.clone(),
            frozen: self.mnt.clone(),
            notes: Path::new(STAGE).join(format!("{}.notes", self.name)),
            still: STILL * crate::harness::slowness(),
        }
    }

    /// Notes what the tree is at this moment, whatever works on it; the LSN.
    pub fn note(&self) -> Check<u64> {
        Ok(self.oracle().note()?)
    }

    /// Restores each moment that was noted, and compares. All of the log has to be on the media.
    pub fn moments_are_restored(&self) -> Check {
        let work = self.restored.with_extension("moments");
        fs::create_dir_all(&work)?;
        for verdict in self.oracle().judge(&self.media, &work)? {
            let lsn = verdict.lsn.unwrap_or_default();
            none(&format!("restored tree and lower differ at LSN {lsn:#x}"), &verdict.faults)?;
            println!("      LSN {lsn:#x}: identical, {} names", verdict.names);
        }
        Ok(fs::remove_dir_all(work)?)
    }

    /// What the comparer says about two trees; the mark on the lower root is not theirs, and xfs shows access control
    /// lists by a second name, which a mount does not.
    pub fn differences(&self, first: &Path, second: &Path) -> Check<Vec<String>> {
        if self.plain {
            return Ok(Vec::new());
        }
        let mut command = Command::new("treecmp");
        command.args(["diff", "--limit", "100000", "--ignore", "xattr:trusted.reelfs"]);
        command.args(["--ignore", "xattr:trusted.SGI_ACL_*"]);
        for key in &self.ignored {
            command.args(["--ignore", key]);
        }
        command.arg(first).arg(second);
        let done = command.output()?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        match done.status.code() {
            Some(0) => Ok(Vec::new()),
            Some(1) => Ok(said.lines().map(str::to_owned).collect()),
            _ => Err(Failure::new(format!("treecmp: {}", String::from_utf8_lossy(&done.stderr).trim()))),
        }
    }

    /// Number of records that the mount has committed.
    pub fn records(&self) -> Check<u64> {
        if self.plain {
            Ok(0)
        } else {
            Ok(self.ring()?.entry().records)
        }
    }

    /// The mount's ring, as the device has it; it may outlive the mount.
    pub fn ring(&self) -> Check<Ring> {
        ring_of(&self.lower)
    }

    /// Ends everything that is still there, as it should be ended.
    pub fn close(mut self) -> Check {
        self.unmount()?;
        if self.daemon.is_some() {
            self.drain()?;
        }
        match self.stage.take() {
            Some(stage) => stage.close(),
            None => Ok(()),
        }
    }
}

impl Drop for Rig {
    /// After a failure: nothing may be left that would fail the tests after this one.
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.mounted {
            let _ = run("umount", &["-l".as_ref(), self.mnt.as_os_str()]);
        }
        // Records that nobody will take would keep the module.
        let left = self.ring().ok().filter(|ring| !ring.mounted() && !ring.attached());
        if let (Some(ring), Ok(device)) = (left, reelfs_sys::device::Device::open()) {
            let _ = device.discard(ring.entry().ring, ring.entry().committed);
        }
    }
}

/// Fails with the lines, if there are any.
pub fn none(what: &str, lines: &[String]) -> Check {
    let shown: Vec<_> = lines.iter().take(40).map(String::as_str).collect();
    ensure!(lines.is_empty(), "{what} ({}):\n  {}", lines.len(), shown.join("\n  "));
    Ok(())
}
