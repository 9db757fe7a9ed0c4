// SPDX-License-Identifier: GPL-2.0

//! Mounting and unmounting, and what lasts as long as a mount.

use super::{
    attr::DAX,
    mapped::{self, Mappings},
    options::{on_stall_name, FLUSH_DEFAULT, POLICY_DEFAULT},
    shifts::Shifts,
    state::{attributes_with_flags, identity},
    tell::Teller,
    xattr::Collector,
    ReelFs,
};
use crate::capture::{Config, Log, Lower, Root};
use crate::format::mark::{MARK_LEN, MARK_XATTR};
use crate::vfs::{
    chardev::SuperblockId, enodata, eopnotsupp, Claim, Door, FileSystem, MountContext, OwnedPath, PrivateMount,
    SetMode, SuperBlock,
};
use core::sync::atomic::{AtomicU32, Ordering};
use kernel::{prelude::*, seq_file::SeqFile, seq_print, str::CString, sync::Arc};

/// Filesystems below which every kind of change is known to be captured.
const SUPPORTED: &[&CStr] = &[c"ext4", c"xfs", c"btrfs", c"tmpfs"];

/// The longest set of extended attributes that the root may have, in bytes.
const ROOT_XATTRS_MAX: usize = 64 << 10;

/// A mount.
pub(crate) struct Mounted {
    /// After how many seconds stores through mappings are captured.
    flush: AtomicU32,
    force: bool,
    log: Arc<Log>,
    mappings: Arc<Mappings>,
    shifts: Shifts,
    _claim: Claim,
}

impl Mounted {
    /// Returns the log.
    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Returns the files that are mapped so that stores may come.
    pub(super) fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    /// Returns how often contents were shifted.
    pub(super) fn shifts(&self) -> &Shifts {
        &self.shifts
    }

    /// Returns after how many seconds stores through mappings are captured. It may change.
    pub(super) fn flush(&self) -> u32 {
        self.flush.load(Ordering::Relaxed)
    }

    /// Prints the options as `/proc/mounts` shows them, and what there is to know of gaps.
    pub(super) fn show_options(&self, m: &SeqFile) {
        let policy = self.log.policy();
        seq_print!(m, ",ring={}", self.log.size());
        seq_print!(m, ",onstall={}", on_stall_name(policy.onstall));
        seq_print!(m, ",stall={}", policy.stall);
        if let Some(limit) = policy.uid_limit {
            seq_print!(m, ",uidlimit={}", limit);
        }
        seq_print!(m, ",flush={}", self.flush());
        if self.force {
            seq_print!(m, ",force");
        }
        let state = self.log.describe();
        if state.gaps > 0 {
            seq_print!(m, ",gaps={}", state.gaps);
            seq_print!(m, ",unrecorded={},unrecorded_bytes={}", state.unrecorded, state.unrecorded_bytes);
        }
        if state.degraded_since > 0 {
            seq_print!(m, ",degraded_since={}", state.degraded_since / 1_000_000_000);
        }
    }

    /// A change below is not in the log, so nothing that follows may pretend to be complete.
    pub(super) fn lost(&self, what: &str) {
        self.log.fail_for_good(what);
    }

    /// The superblock is gone.
    pub(super) fn unmounted(&self) {
        self.log.unmounted();
    }
}

/// The tree below, as the log sees it.
struct Tree {
    lower: Arc<PrivateMount>,
}

impl Tree {
    fn mark_name() -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", MARK_XATTR))
    }
}

impl Lower for Tree {
    fn read_mark(&self, value: &mut [u8; MARK_LEN]) -> Result<Option<usize>> {
        let name = Self::mark_name()?;
        match self.lower.root().get_xattr(&name, value) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e == enodata() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn write_mark(&self, value: &[u8; MARK_LEN]) -> Result {
        let name = Self::mark_name()?;
        let access = self.lower.want_write()?;
        self.lower.root().set_xattr(&access, &name, value, SetMode::ANY)?;
        drop(access);
        self.lower.sync_root()
    }

    fn root(&self) -> Result<Root> {
        let root = self.lower.root();
        let inode = root.inode().ok_or(ENOENT)?;
        let (xattrs, xattrs_count) = Collector::new(ROOT_XATTRS_MAX)?.collect(root)?.into_parts();
        let sb = self.lower.superblock();
        Ok(Root {
            identity: identity(inode)?,
            attributes: attributes_with_flags(&inode.attr(), root),
            xattrs,
            xattrs_count,
            uuid: sb.uuid(),
            magic: sb.magic() as u64,
        })
    }

    fn sync(&self) -> Result {
        self.lower.sync_filesystem()
    }
}

/// Looks at what is to be mounted, refuses what cannot be recorded, and takes the rest.
pub(super) fn mount(
    ctx: &MountContext<'_, ReelFs>,
    path: &OwnedPath,
    id: SuperblockId,
    door: &Arc<Door<ReelFs>>,
) -> Result<(Arc<PrivateMount>, Mounted)> {
    let sb = path.superblock();
    let ty = sb.type_name();
    if ty.to_bytes() == ReelFs::NAME.to_bytes() {
        return Err(ctx.refuse(EINVAL, fmt!("this directory is already on a reelfs mount")));
    }
    if path.is_idmapped() {
        return Err(ctx.refuse(EINVAL, fmt!("the directory is on an id-mapped mount")));
    }
    if !SUPPORTED.iter().any(|name| name.to_bytes() == ty.to_bytes()) && !ctx.options().force() {
        return Err(
            ctx.refuse(EINVAL, fmt!("{} is not supported below (ext4, xfs, btrfs and tmpfs are; force overrides)", ty))
        );
    }
    if sb.stack_depth() > 0 {
        return Err(ctx.refuse(EINVAL, fmt!("{} is itself stacked on another filesystem", ty)));
    }
    if !sb.has_handles() {
        return Err(ctx.refuse(EINVAL, fmt!("{} has no file handles, by which the log names objects", ty)));
    }
    let root = path.dentry().inode().ok_or(ENOENT)?;
    if root.is_casefolded() {
        return Err(ctx.refuse(EINVAL, fmt!("the directory ignores case")));
    }
    if uses_dax(path)? {
        return Err(ctx.refuse(EINVAL, fmt!("files there would use DAX, past which nothing can be recorded")));
    }
    let claim = Claim::new(path.dentry())
        .map_err(|e| ctx.refuse(e, fmt!("the directory, or part of it, is mounted already")))?;
    let lower = path.clone_mount().map_err(|e| ctx.refuse(e, fmt!("the directory's mount cannot be cloned")))?;
    if lower.is_readonly() && !ctx.is_readonly() {
        return Err(ctx.refuse(EROFS, fmt!("the directory is on a read-only mount")));
    }
    let lower = Arc::new(lower, GFP_KERNEL)?;
    let tree = Arc::new(Tree { lower: lower.clone() }, GFP_KERNEL)?;
    check_mark(ctx, &tree)?;
    // Whether it matters depends on whose log it gets.
    let populated = !tree.lower.is_empty()?;

    let options = ctx.options();
    let mut source = KVec::new();
    source.extend_from_slice(ctx.source()?.to_bytes(), GFP_KERNEL)?;
    let policy = options.policy(POLICY_DEFAULT);
    let flush = AtomicU32::new(options.flush(FLUSH_DEFAULT));
    let (mappings, shifts, objects) = (Mappings::new()?, Shifts::new()?, Teller::new(door)?);
    let config = Config { size: options.ring(), policy, source, superblock: id, lower: tree, objects, populated };
    let log = Log::new(config)
        .map_err(|e| ctx.refuse(e, fmt!("there is no memory for a ring of {} bytes", options.ring())))?;
    let mounted = Mounted { flush, force: options.force(), log, mappings, shifts, _claim: claim };
    Ok((lower, mounted))
}

/// Whether new files in a directory would be mapped straight from the device: because the filesystem does that with all
/// of them, or because the directory says so to what is made in it.
fn uses_dax(path: &OwnedPath) -> Result<bool> {
    const ALWAYS: [&CStr; 2] = [c"dax", c"dax=always"];
    for option in ALWAYS {
        if path.superblock().shows_option(option)? {
            return Ok(true);
        }
    }
    Ok(path.dentry().file_attributes().is_some_and(|(flags, _)| flags & DAX != 0))
}

/// Refuses a tree that cannot carry the mark.
fn check_mark(ctx: &MountContext<'_, ReelFs>, tree: &Tree) -> Result {
    let mut mark = [0; MARK_LEN];
    match tree.read_mark(&mut mark) {
        // A mark that is not one is the consumer's to judge.
        Ok(_) | Err(ERANGE) => Ok(()),
        Err(e) if e == eopnotsupp() => Err(ctx
            .refuse(e, fmt!("the filesystem has no extended attributes, by which a tree and its log know each other"))),
        Err(e) => Err(ctx.refuse(e, fmt!("the mark on the directory cannot be read"))),
    }
}

/// Changes what a remount may change; what is not said stays.
pub(super) fn reconfigure(ctx: &mut MountContext<'_, ReelFs>, sb: &SuperBlock<ReelFs>) -> Result {
    let data = sb.data();
    if !ctx.options().agrees_with_ring(data.log.size()) {
        return Err(ctx.refuse(EINVAL, fmt!("ring= is fixed when the filesystem is mounted")));
    }
    if !ctx.is_readonly() && sb.lower().is_readonly() {
        return Err(ctx.refuse(EROFS, fmt!("the directory below is on a read-only mount")));
    }
    data.flush.store(ctx.options().flush(data.flush()), Ordering::Relaxed);
    data.log.set_policy(ctx.options().policy(data.log.policy()));
    Ok(())
}

/// Makes everything durable, below and in the log, stores through mappings too.
pub(super) fn sync(sb: &SuperBlock<ReelFs>, wait: bool) -> Result {
    let log = sb.data().log();
    if !wait {
        log.want(log.committed());
        return Ok(());
    }
    let captured = mapped::capture_all(sb);
    let end = log.committed();
    log.want(end);
    let lower = sb.sync_lower();
    let durable = log.wait_durable(end);
    lower.and(durable).and(captured)
}
