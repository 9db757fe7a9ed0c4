// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers for writing a stackable filesystem: one whose inodes, dentries and files each
//! have one of another filesystem below, where the contents are.
//!
//! The wrappers know the VFS and nothing of what the filesystem is for. A filesystem implements
//! [`FileSystem`] and the traits it names, and registers itself ([`Registration`]). Types with a
//! filesystem as their parameter are its own (`Inode<T>`, `Dentry<T>`), those without
//! (`LowerInode`, `LowerDentry`, `LowerFile`) belong to the one below; so neither is taken for
//! the other. Locks are guards, and what needs a lock asks to be shown it.
//!
//! What bindgen cannot reach is in `helpers.c`.

pub(crate) mod chardev;
mod claim;
mod context;
mod dentry;
mod dirop;
mod door;
mod file;
mod inode;
mod inode_ops;
mod mount;
mod reader;
mod remap;
mod shared;
mod superblock;
mod tmpfile;
pub(crate) mod wait;
mod work;
mod xattr;

pub(crate) use claim::Claim;
pub(crate) use context::MountContext;
pub(crate) use dentry::{Dentry, DentryOperations, LowerDentry, NewDentry, Walk};
pub(crate) use dirop::{Creating, Removing, RenameMode, Renaming};
pub(crate) use door::Door;
pub(crate) use file::{File, FileOperations, Kiocb, LowerFile, Mapping, Pipe, Source, Sync as SyncKind, WriteMode};
pub(crate) use inode::{Attr, Inode, Kind, Locked, LowerInode};
pub(crate) use inode_ops::{FileAttr, InodeOperations, LinkTarget, SetAttr, Target};
pub(crate) use mount::{OwnedPath, PrivateMount};
pub(crate) use reader::{Hold, LowerReader};
pub(crate) use remap::{Extent, Remap};
pub(crate) use shared::Watch;
pub(crate) use superblock::{InodeCache, Registration, SuperBlock};
pub(crate) use tmpfile::Unnamed;
pub(crate) use xattr::{Acl, AclKind, AclXattr, SetMode, XattrOperations};

use kernel::{prelude::*, seq_file::SeqFile, sync::Arc};

// The kernel crate has no constants for these.

/// The operation is not offered for this object.
pub(crate) fn eopnotsupp() -> Error {
    Error::from_errno(-(bindings::EOPNOTSUPP as i32))
}

/// The attribute is not there.
pub(crate) fn enodata() -> Error {
    Error::from_errno(-(bindings::ENODATA as i32))
}

/// What was to be the same is not.
pub(crate) fn ebade() -> Error {
    Error::from_errno(-(bindings::EBADE as i32))
}

/// What was looked up is no longer there.
pub(crate) fn estale() -> Error {
    Error::from_errno(-(bindings::ESTALE as i32))
}

/// Returns `len` bytes that are zero. May sleep.
///
/// `KVVec::from_elem` stores them one after the other, which for a buffer of a page takes longer than making a file.
pub(crate) fn zeros(len: usize) -> Result<KVVec<u8>> {
    let mut bytes = KVVec::with_capacity(len, GFP_KERNEL | __GFP_ZERO)?;
    // SAFETY: There is room for that many, and the allocator has made them zero.
    unsafe { bytes.inc_len(len) };
    Ok(bytes)
}

/// Stands for a filesystem that is not ours.
pub(crate) struct Foreign;

/// A stackable filesystem.
pub(crate) trait FileSystem: Sized + Send + Sync + 'static {
    /// The name that `mount -t` takes.
    const NAME: &'static CStr;
    /// What `statfs(2)` shows as type.
    const MAGIC: isize;
    /// The name of the slabs in `/proc/slabinfo`.
    const INODE_CACHE_NAME: &'static CStr;

    /// Mount options.
    type Options: Default + Send;
    /// What is kept with a superblock.
    type SuperData: Send + Sync;
    /// What is kept with an inode. Dropped where nothing may sleep.
    type InodeData: Send + Sync;

    /// Operations on inodes of regular files.
    type RegularInode: InodeOperations<Fs = Self>;
    /// Operations on inodes of directories.
    type DirectoryInode: InodeOperations<Fs = Self>;
    /// Operations on inodes of symbolic links.
    type SymlinkInode: InodeOperations<Fs = Self>;
    /// Operations on inodes of devices, fifos and sockets.
    type SpecialInode: InodeOperations<Fs = Self>;
    /// Operations on open regular files.
    type RegularFile: FileOperations<Fs = Self>;
    /// Operations on open directories.
    type DirectoryFile: FileOperations<Fs = Self>;
    /// Operations on dentries.
    type Dentries: DentryOperations<Self>;
    /// Operations on extended attributes.
    type Xattrs: XattrOperations<Self>;

    /// Returns where inodes come from.
    fn inode_cache() -> &'static InodeCache;

    /// Takes a mount option; [`ENOPARAM`] for one it does not know.
    fn parse(ctx: &mut MountContext<'_, Self>, key: &CStr, value: Option<&CStr>) -> Result;

    /// Prepares a mount of what is at `path`, with superblock `id`, which `door` will lead to.
    fn mount(
        ctx: &MountContext<'_, Self>,
        path: &OwnedPath,
        id: chardev::SuperblockId,
        door: &Arc<Door<Self>>,
    ) -> Result<(Arc<PrivateMount>, Self::SuperData)>;

    /// Changes the options of a mount.
    fn reconfigure(ctx: &mut MountContext<'_, Self>, sb: &SuperBlock<Self>) -> Result;

    /// Prints the options, each after a comma.
    fn show_options(data: &Self::SuperData, m: &SeqFile);

    /// Makes what is to be kept with a new inode on top of `lower`.
    fn inode_data(sb: &SuperBlock<Self>, lower: &LowerInode) -> Result<Self::InodeData>;

    /// Is told that an inode leaves memory. Must not wait for user space.
    fn evict(inode: &Inode<Self>);

    /// Makes everything durable if `wait`, or begins to.
    fn sync_fs(sb: &SuperBlock<Self>, wait: bool) -> Result;

    /// Does what was put off ([`SuperBlock::run_background`]), in a task of the kernel's. Never runs twice at once.
    fn background(sb: &SuperBlock<Self>);

    /// Is told that unmounting begins: `sync_fs` may follow, nothing else. Stops background work, and lets go of all
    /// inodes that it holds.
    fn unmounting(sb: &SuperBlock<Self>);

    /// Is told that the superblock is gone; what is below still is there.
    fn unmounted(data: &Self::SuperData);
}

/// The kernel crate's bindings, and what they leave out.
#[allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]
mod bindings {
    pub use kernel::bindings::*;
    use kernel::ffi;
    use pin_init::MaybeZeroable;

    type __kernel_size_t = usize;
    type __kernel_ssize_t = isize;
    type __kernel_ptrdiff_t = isize;

    /// `struct fs_context` where the kernel crate's types mention it: there it is opaque.
    pub type opaque_fs_context = kernel::bindings::fs_context;
    /// `struct kstatfs`, likewise.
    pub type opaque_kstatfs = kernel::bindings::kstatfs;

    include!(env!("RVFS_BINDINGS"));
}
