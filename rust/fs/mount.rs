// SPDX-License-Identifier: GPL-2.0

//! Mounting and unmounting, and what lasts as long as a mount.

use super::{
    options::Options,
    ReelFs,
};
use crate::vfs::{Claim, FileSystem, MountContext, OwnedPath, PrivateMount, SuperBlock};
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::{prelude::*, seq_file::SeqFile, seq_print};

/// Filesystems below which every kind of change is known to be captured.
const SUPPORTED: &[&CStr] = &[c"ext4", c"xfs", c"btrfs", c"tmpfs"];

/// A mount.
pub(crate) struct Mounted {
    options: Options,
    /// Set when unmounting begins: from then on nobody waits for the log's consumer.
    leaving: AtomicBool,
    _claim: Claim,
}

impl Mounted {
    /// Prints the options as `/proc/mounts` shows them.
    pub(super) fn show_options(&self, m: &SeqFile) {
        seq_print!(m, ",ring={}", self.options.ring());
        seq_print!(m, ",onstall={}", self.options.on_stall().name());
        seq_print!(m, ",flush={}", self.options.flush());
        if self.options.force() {
            seq_print!(m, ",force");
        }
    }

    /// Unmounting begins.
    pub(super) fn unmounting(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The superblock is gone.
    pub(super) fn unmounted(&self, _lower: &PrivateMount) {}
}

/// Looks at what is to be mounted, refuses what cannot be recorded, and takes the rest.
pub(super) fn mount(
    ctx: &MountContext<'_, ReelFs>,
    path: &OwnedPath,
) -> Result<(PrivateMount, Mounted)> {
    let sb = path.superblock();
    let ty = sb.type_name();
    if ty.to_bytes() == ReelFs::NAME.to_bytes() {
        return Err(ctx.refuse(EINVAL, fmt!("this directory is already on a reelfs mount")));
    }
    if sb.stack_depth() > 0 {
        return Err(ctx.refuse(
            EINVAL,
            fmt!("{} is itself stacked on another filesystem", ty),
        ));
    }
    if path.is_idmapped() {
        return Err(ctx.refuse(EINVAL, fmt!("the directory is on an id-mapped mount")));
    }
    if !SUPPORTED.iter().any(|name| name.to_bytes() == ty.to_bytes()) && !ctx.options().force() {
        return Err(ctx.refuse(
            EINVAL,
            fmt!("{} is not supported below (ext4, xfs, btrfs and tmpfs are; force overrides)", ty),
        ));
    }
    if !sb.has_handles() {
        return Err(ctx.refuse(
            EINVAL,
            fmt!("{} has no file handles, by which the log names objects", ty),
        ));
    }
    let root = path.dentry().inode().ok_or(ENOENT)?;
    if root.is_casefolded() {
        return Err(ctx.refuse(EINVAL, fmt!("the directory ignores case")));
    }
    let claim = Claim::new(path.dentry()).map_err(|e| {
        ctx.refuse(e, fmt!("the directory, or part of it, is mounted already"))
    })?;
    let lower = path.clone_mount().map_err(|e| {
        ctx.refuse(e, fmt!("the directory's mount cannot be cloned"))
    })?;
    if lower.is_readonly() && !ctx.is_readonly() {
        return Err(ctx.refuse(EROFS, fmt!("the directory is on a read-only mount")));
    }
    let mounted = Mounted {
        options: ctx.options().settled(),
        leaving: AtomicBool::new(false),
        _claim: claim,
    };
    Ok((lower, mounted))
}

/// Checks that a remount changes nothing that cannot be changed.
pub(super) fn reconfigure(ctx: &mut MountContext<'_, ReelFs>, sb: &SuperBlock<ReelFs>) -> Result {
    if !ctx.options().agrees_with(&sb.data().options) {
        return Err(ctx.refuse(
            EINVAL,
            fmt!("ring=, onstall= and flush= are fixed when the filesystem is mounted"),
        ));
    }
    if !ctx.is_readonly() && sb.lower().is_readonly() {
        return Err(ctx.refuse(EROFS, fmt!("the directory below is on a read-only mount")));
    }
    Ok(())
}

/// Makes everything durable, below and in the log.
pub(super) fn sync(sb: &SuperBlock<ReelFs>, wait: bool) -> Result {
    if !wait {
        return Ok(());
    }
    sb.sync_lower()
}
