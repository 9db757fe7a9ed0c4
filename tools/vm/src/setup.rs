// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the pieces of a machine are on this host: kernels, root image, programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Context, Error};

/// A kernel that `tools/kernel.sh` or `tools/debug-kernel.sh` put into the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The directory with `vmlinuz`, `release` and `modules/`.
    pub dir: PathBuf,
    /// The release string, as `uname -r` prints it.
    pub release: String,
}

impl Kernel {
    /// The kernel in this directory.
    ///
    /// Fails if the directory has no `release` file.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let dir = dir.canonicalize().context(|| dir.display().to_string())?;
        let file = dir.join("release");
        let release = std::fs::read_to_string(&file).context(|| file.display().to_string())?;
        Ok(Self { dir, release: release.trim().to_owned() })
    }

    /// How much longer everything takes than on a stock kernel: a debug kernel says so
    /// in a file `slow`.
    pub fn slowness(&self) -> u32 {
        let text = std::fs::read_to_string(self.dir.join("slow"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
    }

    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The directory that holds `modules.dep`.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules/lib/modules").join(&self.release)
    }
}

/// What every machine of this host is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The project's cache.
    pub cache: PathBuf,
    /// The read-only root image.
    pub root_image: PathBuf,
    /// The statically linked programs of the project, `reelvm-init` among them.
    pub programs: PathBuf,
    /// The kernel that is booted unless a machine names another.
    pub kernel: Kernel,
    /// Patterns of kernel messages that do not fail a run.
    pub allow: PathBuf,
}

impl Setup {
    /// Reads the setup from the environment, as the Makefile provides it:
    /// `REELFS_CACHE`, `REELVM_IMAGE`, `REELVM_PROGRAMS` (default: the directory of the
    /// running program), `REELVM_KERNEL` (default: the cache's current kernel) and
    /// `REELFS_TOP` for the allow-list.
    pub fn from_env() -> Result<Self, Error> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let need =
            |name: &str| var(name).ok_or_else(|| Error::new(format!("{name} is not set; run this through make")));
        let cache = need("REELFS_CACHE")?;
        let programs = match var("REELVM_PROGRAMS") {
            Some(dir) => dir,
            None => {
                let own = std::env::current_exe().context(|| "own program".to_owned())?;
                own.parent().map(Path::to_owned).unwrap_or_default()
            }
        };
        let kernel = var("REELVM_KERNEL").unwrap_or_else(|| cache.join("kernel/current"));
        Ok(Self {
            root_image: need("REELVM_IMAGE")?,
            programs,
            kernel: Kernel::open(&kernel)?,
            allow: need("REELFS_TOP")?.join("tests/kernel-log.allow"),
            cache,
        })
    }

    /// Where machines keep their files while they run.
    pub fn work(&self) -> PathBuf {
        self.cache.join("vm")
    }

    /// Makes a new, empty directory for a machine or a suite of this name.
    ///
    /// Process numbers do not tell two runs apart: each may be in a namespace of its own.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Error> {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let work = self.work();
        std::fs::create_dir_all(&work).context(|| work.display().to_string())?;
        sweep(&work);
        loop {
            let mut random = [0; 4];
            let source = Path::new("/dev/urandom");
            std::fs::File::open(source)
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random))
                .context(|| source.display().to_string())?;
            let dir = work.join(format!("{name}-{:08x}", u32::from_le_bytes(random)));
            match std::fs::create_dir(&dir) {
                Ok(()) => return Ok(dir),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::new(format!("{}: {e}", dir.display()))),
            }
        }
    }

    /// How to run guest code here: KVM if it really runs a kernel, emulation otherwise.
    ///
    /// `/dev/kvm` can be there, open, and still not execute a guest, so a kernel is
    /// started on it once per boot of this host and the answer kept in the cache.
    pub fn accelerator(&self) -> &'static str {
        const EMULATED: &str = "tcg,thread=multi";
        if !Path::new("/dev/kvm").exists() {
            return EMULATED;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let file = self.work().join(format!("accel-{}", boot.trim()));
        if let Ok(known) = std::fs::read_to_string(&file) {
            return if known == "kvm" { "kvm" } else { EMULATED };
        }
        let works = self.kvm_runs_a_kernel();
        // Only a cache: without it the next machine asks again.
        let _ = std::fs::create_dir_all(self.work())
            .and_then(|()| std::fs::write(&file, if works { "kvm" } else { "tcg" }));
        if works {
            "kvm"
        } else {
            EMULATED
        }
    }

    fn kvm_runs_a_kernel(&self) -> bool {
        let serial = self.work().join(format!("probe-{}", std::process::id()));
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "kvm", "-cpu", "max", "-m", "256", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-append", "console=ttyS0 panic=-1"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut seen = false;
        if let Ok(mut child) = command.spawn() {
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(100));
                seen = std::fs::read(&serial).is_ok_and(|log| log.windows(13).any(|w| w == b"Linux version"));
                if seen || !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(&serial);
        seen
    }
}
/// How long a machine's files stay for somebody to look at.
const KEPT: Duration = Duration::from_secs(2 * 24 * 3600);

/// Removes what machines left behind that ended long ago: the images of a failed run take gigabytes.
fn sweep(work: &Path) {
    // What cannot be looked at or removed is another run's to deal with.
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        if entry.path().is_dir() && age.is_some_and(|age| age > KEPT) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
