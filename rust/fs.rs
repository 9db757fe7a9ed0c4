// SPDX-License-Identifier: GPL-2.0

//! The filesystem: passes operations on to the filesystem below, and records each change.
//!
//! One file per object of the VFS. Every operation that changes something has the same shape:
//! room in the log, then (where the VFS does not hold it) the lock, then the change below, then
//! the record of what resulted, committed before the lock goes. What cannot be recorded is
//! refused.
//!
//! Lock order:
//! 1. our directories, then our objects (`i_rwsem`, in the VFS's order),
//! 2. write access to the mount below,
//! 3. directories and objects below.
//!
//! Room in the log is waited for before 2, and before 1 where the VFS lets us.
//!
//! What a checkpoint wants to know is read and recorded under the same locks: see [`tell`].
//!
//! Stores through shared mappings are not operations, and are recorded apart: see [`notes`] and [`mapped`], which have
//! locks of their own below these.

mod attr;
mod contents;
mod dentry;
mod dir;
mod file;
mod inode;
mod insist;
mod mapped;
mod mount;
mod notes;
mod options;
// Public in itself, because it is compiled for its tests elsewhere.
#[allow(unreachable_pub)]
mod ranges;
mod remap;
mod shifts;
mod space;
mod state;
mod tell;
mod write;
mod xattr;

use crate::vfs::{
    chardev::SuperblockId, Door, FileSystem, Inode, InodeCache, LowerInode, MountContext, OwnedPath, PrivateMount,
    SuperBlock,
};
use kernel::{prelude::*, seq_file::SeqFile, sync::Arc};

/// The filesystem type.
pub(crate) struct ReelFs;

/// `statfs(2)` type: "REEL".
const MAGIC: isize = 0x5245_454c;

static INODES: InodeCache = InodeCache::new();

impl FileSystem for ReelFs {
    const NAME: &'static CStr = c"reelfs";
    const MAGIC: isize = MAGIC;
    const INODE_CACHE_NAME: &'static CStr = c"reelfs_inode";

    type Options = options::Options;
    type SuperData = mount::Mounted;
    type InodeData = state::InodeData;

    type RegularInode = inode::Regular;
    type DirectoryInode = dir::Directory;
    type SymlinkInode = inode::Symlink;
    type SpecialInode = inode::Special;
    type RegularFile = file::RegularFile;
    type DirectoryFile = file::DirectoryFile;
    type Dentries = dentry::Dentries;
    type Xattrs = xattr::Xattrs;

    fn inode_cache() -> &'static InodeCache {
        &INODES
    }

    fn parse(ctx: &mut MountContext<'_, Self>, key: &CStr, value: Option<&CStr>) -> Result {
        options::parse(ctx, key, value)
    }

    fn mount(
        ctx: &MountContext<'_, Self>,
        path: &OwnedPath,
        id: SuperblockId,
        door: &Arc<Door<Self>>,
    ) -> Result<(Arc<PrivateMount>, mount::Mounted)> {
        mount::mount(ctx, path, id, door)
    }

    fn reconfigure(ctx: &mut MountContext<'_, Self>, sb: &SuperBlock<Self>) -> Result {
        mount::reconfigure(ctx, sb)
    }

    fn show_options(data: &mount::Mounted, m: &SeqFile) {
        data.show_options(m);
    }

    fn inode_data(sb: &SuperBlock<Self>, lower: &LowerInode) -> Result<state::InodeData> {
        state::InodeData::new(lower, sb.data().log().committed())
    }

    fn evict(inode: &Inode<Self>) {
        inode::evict(inode);
    }

    fn sync_fs(sb: &SuperBlock<Self>, wait: bool) -> Result {
        mount::sync(sb, wait)
    }

    fn background(sb: &SuperBlock<Self>) {
        mapped::background(sb);
    }

    fn unmounting(sb: &SuperBlock<Self>) {
        mapped::unmounting(sb);
    }

    fn unmounted(data: &mount::Mounted) {
        data.unmounted();
    }
}
