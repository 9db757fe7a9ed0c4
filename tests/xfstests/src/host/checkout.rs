// SPDX-License-Identifier: GPL-2.0-or-later
//! The user's checkout of xfstests. It is read, never written to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

/// What is there when a checkout has been built.
const BUILT: [&str; 3] = ["ltp/fsstress", "src/lstat64", "src/vfs/vfstest"];

/// A checkout that has been built.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// Where it is.
    pub path: PathBuf,
    /// Changes when a file of it does.
    pub id: String,
}

impl Checkout {
    /// The checkout in this directory.
    pub fn open(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
        ensure!(path.join("check").is_file(), "{} is no checkout of xfstests: it has no check", path.display());
        for file in BUILT {
            ensure!(
                path.join(file).is_file(),
                "{} has not been built: it has no {file}; Documentation/testing.md says how it is",
                path.display()
            );
        }
        let mut hash = blake3::Hasher::new();
        walk(&path, &path, &mut hash)?;
        Ok(Checkout { id: hash.finalize().to_hex()[..16].to_owned(), path })
    }

    /// An image of it for the machines, made once. Older ones go.
    pub fn image(&self, cache: &Path) -> Result<PathBuf> {
        let directory = cache.join("xfstests");
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let image = directory.join(format!("{}.erofs", self.id));
        if image.exists() {
            return Ok(image);
        }
        let new = directory.join(format!("{}.new", self.id));
        let done = Command::new("mkfs.erofs")
            .args(["-T0", "--quiet", "--all-root", "-x-1", "--exclude-path=.git"])
            .args([&new, &self.path])
            .output()
            .context("mkfs.erofs")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "mkfs.erofs: {}: {}", done.status, said.trim());
        for entry in fs::read_dir(&directory)?.flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "erofs") {
                fs::remove_file(entry.path()).with_context(|| entry.path().display().to_string())?;
            }
        }
        fs::rename(&new, &image).with_context(|| image.display().to_string())?;
        Ok(image)
    }
}

/// Adds the name, length and time of every file, in order.
fn walk(top: &Path, directory: &Path, hash: &mut blake3::Hasher) -> Result<()> {
    let mut entries: Vec<_> =
        fs::read_dir(directory).with_context(|| directory.display().to_string())?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let metadata = entry.metadata().with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            if path != top.join(".git") {
                walk(top, &path, hash)?;
            }
            continue;
        }
        let state = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        hash.update(format!("{} {state:?}\n", path.display()).as_bytes());
    }
    Ok(())
}
