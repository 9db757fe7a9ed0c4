// SPDX-License-Identifier: GPL-2.0-or-later
//! Read-only images made from files of the host.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::protocol::{ARGV_FILE, ENV_FILE, SHARES_FILE};
use crate::{Context, Error, Kernel};

/// What a run brings along.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// (path below `/payload`, file or directory of the host)
    pub files: Vec<(PathBuf, PathBuf)>,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Tags of 9p shares and where they are mounted.
    pub shares: Vec<(String, String)>,
}

impl Payload {
    /// Writes the image to `image`, with `staging` as a scratch directory.
    pub fn build(&self, staging: &Path, image: &Path) -> Result<(), Error> {
        let create = |dir: &Path| std::fs::create_dir_all(dir).context(|| dir.display().to_string());
        create(&staging.join("bin"))?;
        for (inside, outside) in &self.files {
            let to = staging.join(inside);
            if let Some(parent) = to.parent() {
                create(parent)?;
            }
            if outside.is_dir() {
                run(Command::new("cp").arg("-a").arg(outside).arg(&to))?;
            } else {
                // A hard link is enough, and free; another filesystem takes a copy.
                std::fs::hard_link(outside, &to)
                    .or_else(|_| std::fs::copy(outside, &to).map(|_| ()))
                    .context(|| outside.display().to_string())?;
            }
        }
        let write =
            |name: &str, contents: String| std::fs::write(staging.join(name), contents).context(|| name.to_owned());
        let mut text = String::new();
        for arg in &self.argv {
            text.extend([arg, "\0"]);
        }
        write(ARGV_FILE, std::mem::take(&mut text))?;
        for (name, value) in &self.env {
            text.extend([name, "=", value, "\0"]);
        }
        write(ENV_FILE, std::mem::take(&mut text))?;
        for (tag, dir) in &self.shares {
            text.extend([tag, " ", dir, "\n"]);
        }
        write(SHARES_FILE, text)?;
        make_erofs(image, staging)
    }
}

/// An image of the kernel's modules, made once and kept beside the kernel.
///
/// Drivers of hardware that no machine has are left out: they are most of the bytes.
pub fn modules_image(kernel: &Kernel) -> Result<PathBuf, Error> {
    const ABSENT: &str =
        "^kernel/(sound|drivers/(gpu|net/(ethernet|wireless|usb|can)|media|staging|usb|infiniband|iio|hid|platform|hwmon|accel|bluetooth))";
    let image = kernel.dir.join("modules.erofs");
    if image.exists() {
        return Ok(image);
    }
    let new = kernel.dir.join(format!("modules.erofs.{}", std::process::id()));
    let modules = kernel.dir.join("modules/lib/modules");
    if !kernel.modules().is_dir() {
        std::fs::create_dir_all(kernel.modules()).context(|| modules.display().to_string())?;
    }
    let exclude = ABSENT.replace('^', &format!("^{}/", kernel.release.replace('+', "[+]")));
    run(mkfs().arg(format!("--exclude-regex={exclude}")).arg(&new).arg(&modules))?;
    std::fs::rename(&new, &image).context(|| image.display().to_string())?;
    Ok(image)
}

fn mkfs() -> Command {
    let mut command = Command::new("mkfs.erofs");
    command.args(["-T0", "--quiet", "--all-root", "-x-1"]);
    command
}

fn make_erofs(image: &Path, from: &Path) -> Result<(), Error> {
    run(mkfs().arg(image).arg(from))
}

fn run(command: &mut Command) -> Result<(), Error> {
    let name = command.get_program().as_bytes().to_vec();
    let name = String::from_utf8_lossy(&name).into_owned();
    let output = command.output().context(|| name.clone())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{name} failed ({}): {}", output.status, text.trim())))
}
