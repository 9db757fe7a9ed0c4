// SPDX-License-Identifier: GPL-2.0-or-later

//! Mounting through the kernel's new mount interface (fsopen(2) and its kin), which says why it refuses.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Error, Result};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags,
};

use crate::mounts::FILESYSTEM;
use crate::options::Options;

/// Mounts the directory `source` at `target`. An error carries what the kernel had to say.
pub fn mount(source: &Path, target: &Path, options: &Options) -> Result<()> {
    let context = match fsopen(FILESYSTEM, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(context) => context,
        Err(Errno::NODEV) => {
            return Err(Error::from(Errno::NODEV)).context("the kernel has no reelfs; load the module: modprobe reelfs")
        }
        Err(error) => return Err(error).context("fsopen"),
    };
    fsconfig_set_string(&context, "source", source).map_err(|error| explain(&context, error))?;
    configure(&context, options)?;
    fsconfig_create(&context).map_err(|error| explain(&context, error))?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)
        .map_err(|error| explain(&context, error))?;
    move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("cannot put it at {}", target.display()))
}

/// Changes the options of the mount at `target`.
pub fn remount(target: &Path, options: &Options) -> Result<()> {
    let context = fspick(CWD, target, FsPickFlags::FSPICK_CLOEXEC)
        .with_context(|| format!("nothing to remount at {}", target.display()))?;
    configure(&context, options)?;
    // The context begins with what the superblock has now: read-only stays unless it is taken back.
    if !options.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        fsconfig_set_flag(&context, "rw").map_err(|error| explain(&context, error))?;
    }
    fsconfig_reconfigure(&context).map_err(|error| explain(&context, error))
}

fn configure(context: &OwnedFd, options: &Options) -> Result<()> {
    for (name, value) in &options.filesystem {
        match value {
            Some(value) => fsconfig_set_string(context, name.as_str(), value.as_str()),
            None => fsconfig_set_flag(context, name.as_str()),
        }
        .map_err(|error| explain(context, error))
        .with_context(|| format!("option {name}"))?;
    }
    Ok(())
}

/// An error together with the messages that the kernel left in the context.
fn explain(context: &OwnedFd, error: Errno) -> Error {
    let mut messages = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned();
        // A letter for the level, a space, the message.
        messages.push(line.get(2..).map(str::to_owned).unwrap_or(line));
        if length == 0 || messages.len() > 64 {
            break;
        }
    }
    let messages: Vec<_> = messages.into_iter().filter(|message| !message.is_empty()).collect();
    match messages.is_empty() {
        true => error.into(),
        false => Error::from(error).context(messages.join("; ")),
    }
}
