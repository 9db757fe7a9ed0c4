// SPDX-License-Identifier: GPL-2.0-or-later

//! The directory that becomes the root of the restored tree, and the staging directory in it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{fchmod, mkdirat, openat, removexattr, renameat, statat, AtFlags, Mode, OFlags, CWD};

use crate::args::Restore;
use crate::outcome::Failure;
use crate::replay::namespace::Namespace;
use crate::select::Selection;
use crate::show;

/// The directory in the target that holds what is on its way. Only one restore at a time goes to a target.
pub const STAGING: &str = ".reelfs-restore";
/// Its file that says that the target was empty when the restore began.
const MARK: &str = "began-empty";
/// Its file with the state of the restore.
const STATE: &str = "state";
/// Its file with the part of the tree that is wanted.
const SELECTION: &str = "selection";
/// The directory that ext4 makes in every new filesystem.
const LOST_FOUND: &str = "lost+found";

/// The target, and what is in it while it is being filled.
pub struct Target {
    /// Its path.
    pub path: PathBuf,
    /// The directory.
    pub root: OwnedFd,
    /// The staging directory.
    pub staging: OwnedFd,
    staging_name: String,
    /// An interrupted restore can be gone on with.
    pub resumable: bool,
}

impl Target {
    /// Makes the target ready: new, or with what an interrupted restore has left if that is to go on.
    pub fn prepare(args: &Restore) -> Result<Self, Failure> {
        let failed = |doing: &str, error: io::Error| Failure::io(format!("{}: {doing}", args.to.display()), error);
        match fs::create_dir(&args.to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("mkdir", error)),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &args.to, flags, Mode::empty()).map_err(|errno| failed("open", errno.into()))?;
        let open = |name: &str| {
            openat(&root, name, flags | OFlags::NOFOLLOW, Mode::empty())
                .map_err(|errno| failed("opening the staging directory", errno.into()))
        };
        if let Some(name) = interrupted(&args.to) {
            if !args.resume {
                let text = format!("{}: an interrupted restore is in it; go on with --resume", args.to.display());
                return Err(Failure::Failed(text));
            }
            if fs::symlink_metadata(args.to.join(&name).join(STATE)).is_ok() {
                let staging = open(&name)?;
                return Ok(Target { path: args.to.clone(), root, staging, staging_name: name, resumable: true });
            }
            clear_interrupted(&args.to, &name)
                .map_err(|error| failed("removing what an interrupted restore left", error))?;
        }
        let entries = entries(&args.to).map_err(|error| failed("reading the directory", error))?;
        if !entries.is_empty() && !args.non_empty {
            let first = show::name(entries[0].as_bytes());
            let text = format!(
                "{}: not empty (it has {first}); to restore into it without replacing anything, say --non-empty",
                args.to.display()
            );
            return Err(Failure::Failed(text));
        }
        mkdirat(&root, STAGING, Mode::RWXU).map_err(|errno| failed("making the staging directory", errno.into()))?;
        let staging = open(STAGING)?;
        let target = Target { path: args.to.clone(), root, staging, staging_name: STAGING.into(), resumable: false };
        // What is made in staging must not inherit what the target hands down.
        let _ = removexattr(target.staging_path(), "system.posix_acl_default");
        fchmod(&target.staging, Mode::RWXU).map_err(|errno| failed("chmod of the staging directory", errno.into()))?;
        if entries.is_empty() {
            fs::write(target.staging_path().join(MARK), "").map_err(|error| failed("writing into staging", error))?;
        }
        Ok(target)
    }

    /// Path of the staging directory.
    pub fn staging_path(&self) -> PathBuf {
        self.path.join(&self.staging_name)
    }

    /// Path of the file with the state.
    pub fn state_path(&self) -> PathBuf {
        self.staging_path().join(STATE)
    }

    /// Path of the file with the part that is wanted.
    pub fn selection_path(&self) -> PathBuf {
        self.staging_path().join(SELECTION)
    }

    /// Removes staging, as far as it goes. The target is as it was.
    pub fn clear(&self) {
        let _ = fs::remove_dir_all(self.staging_path());
    }

    /// Begins anew: whatever an interrupted restore left is removed.
    pub fn clear_interrupted(&self) -> Result<(), Failure> {
        clear_interrupted(&self.path, &self.staging_name).map_err(|error| {
            Failure::io(format!("{}: removing what an interrupted restore left", self.path.display()), error)
        })
    }

    /// Makes room for the names in the tree's root: the staging directory gives way, and so does an empty `lost+found`.
    /// Fails, before anything has a name, where one is there already.
    pub fn make_way(&mut self, namespace: &mut Namespace, selection: Option<&Selection>) -> Result<(), Failure> {
        let failed = |doing: &str, error: io::Error| Failure::io(format!("{}: {doing}", self.path.display()), error);
        let Some(root) = namespace.root() else { return Ok(()) };
        let has =
            |namespace: &mut Namespace, name: &str| namespace.name(root, name.as_bytes()).map(|entry| entry.is_some());
        if has(namespace, &self.staging_name)? {
            for number in 0_u32.. {
                let other = format!("{STAGING}.{number}");
                if !has(namespace, &other)? {
                    renameat(&self.root, &self.staging_name, &self.root, &other)
                        .map_err(|errno| failed("renaming the staging directory", errno.into()))?;
                    self.staging_name = other;
                    break;
                }
            }
        }
        // An empty one was made with the filesystem and is in the way of the tree's own.
        if has(namespace, LOST_FOUND)? {
            let _ = fs::remove_dir(self.path.join(LOST_FOUND));
        }
        let mut after = None;
        loop {
            let (names, next) = namespace.names_after(root, after.as_deref())?;
            for (name, _) in names {
                let wanted = selection.is_none_or(|selection| selection.has_name(root, &name));
                if wanted && statat(&self.root, &*name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    let shown = show::name(&name);
                    return Err(Failure::Failed(format!("{}: {shown} is there already", self.path.display())));
                }
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes staging when the tree stands. The state goes last: until then an interrupted restore can go on.
    pub fn remove_staging(&self) -> io::Result<()> {
        let path = self.staging_path();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        for name in [MARK, SELECTION, "selection.new", "state.new", STATE] {
            match fs::remove_file(path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::remove_dir(path)
    }
}

/// The name of the staging directory that a restore has left.
fn interrupted(path: &Path) -> Option<String> {
    // One that gave way to a name of the tree has a number.
    let names = fs::read_dir(path).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| name.strip_prefix(STAGING).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        .filter(|name| fs::symlink_metadata(path.join(name)).is_ok_and(|data| data.is_dir()))
        .collect();
    names.sort_by_key(|name| {
        let directory = path.join(name);
        let has = |file: &str| fs::symlink_metadata(directory.join(file)).is_ok_and(|data| data.is_file());
        (!has(STATE), !has(MARK), name.len())
    });
    names.into_iter().next().filter(|name| {
        let is_ours = |file: &str| fs::symlink_metadata(path.join(name).join(file)).is_ok();
        name == STAGING || is_ours(STATE) || is_ours(MARK)
    })
}

/// The names in a directory, without the empty directory that a new filesystem has.
fn entries(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let made_with_it =
            name == OsStr::new(LOST_FOUND) && fs::read_dir(entry.path()).is_ok_and(|mut d| d.next().is_none());
        if !made_with_it {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes what a restore left that cannot go on. Where it had begun in an empty directory, that is everything.
fn clear_interrupted(path: &Path, staging: &str) -> io::Result<()> {
    let mark = path.join(staging).join(MARK);
    if fs::symlink_metadata(mark).is_ok() {
        for name in entries(path)? {
            let entry = path.join(&name);
            if name == OsStr::new(staging) {
                continue;
            }
            if fs::symlink_metadata(&entry)?.is_dir() {
                fs::remove_dir_all(&entry)?;
            } else {
                fs::remove_file(&entry)?;
            }
        }
    }
    fs::remove_dir_all(path.join(staging))
}
