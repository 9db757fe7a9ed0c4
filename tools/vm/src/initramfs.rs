// SPDX-License-Identifier: GPL-2.0-or-later
//! The initramfs: `reelvm-init` and the modules it needs to find the disks.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::protocol::MODULE_LIST;
use crate::{Context, Error, Kernel};

/// What has to be there before the root image can be mounted and the report be sent.
const NEEDED: &[&str] = &["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "erofs", "overlay"];

/// Makes the initramfs for a kernel.
pub fn build(kernel: &Kernel, init: &Path) -> Result<Vec<u8>, Error> {
    let read = |path: &Path| std::fs::read(path).context(|| path.display().to_string());
    let mut archive = Archive::new(Vec::new());
    let mut list = String::new();
    let mut fill = || -> std::io::Result<()> {
        for directory in ["dev", "proc", "sys", "modules", "image", "changes", "new"] {
            archive.directory(directory)?;
        }
        Ok(())
    };
    fill().context(|| "initramfs".to_owned())?;
    for module in load_order(kernel)? {
        let name = module.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        archive.file(&format!("modules/{name}"), &read(&module)?).context(|| "initramfs".to_owned())?;
        list.push_str(&name);
        list.push('\n');
    }
    archive
        .file(MODULE_LIST, list.as_bytes())
        .and_then(|()| archive.file("init", &std::fs::read(init)?))
        .context(|| format!("initramfs with {}", init.display()))?;
    archive.finish().context(|| "initramfs".to_owned())
}

/// The files of the needed modules, each after those it depends on. What is built in
/// or unknown to this kernel is left out: the machine says what it is missing.
fn load_order(kernel: &Kernel) -> Result<Vec<PathBuf>, Error> {
    let modules = kernel.modules();
    let table = modules.join("modules.dep");
    let text = match std::fs::read_to_string(&table) {
        Ok(text) => text,
        // A kernel without modules has everything built in.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::new(format!("{}: {e}", table.display()))),
    };
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.split(".ko").next().unwrap_or(name).replace('-', "_")
    };
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    for needed in NEEDED {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|p| stem(p) == *needed));
        let Some((file, depends)) = line.and_then(|line| line.split_once(':')) else {
            continue;
        };
        // modules.dep lists dependencies with the nearest first.
        for path in depends.split_whitespace().rev().chain([file]) {
            if seen.insert(path.to_owned()) {
                order.push(modules.join(path));
            }
        }
    }
    Ok(order)
}
