// SPDX-License-Identifier: GPL-2.0

//! Inodes: our own, each stacked on one of the filesystem below, and theirs.
//!
//! C header: `include/linux/fs.h`.

use super::{bindings, eopnotsupp, superblock::SuperBlock, FileSystem, Foreign};
use core::{cell::UnsafeCell, marker::PhantomData, ops::Deref, ptr::NonNull};
use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::AlwaysRefCounted,
    types::{NotThreadSafe, Opaque},
};

/// The attributes of an inode, read together.
///
/// Read under the inode's lock where they must belong together: uid, gid and rdev are those of
/// the initial user namespace and of `stat(2)`; times are in seconds and nanoseconds.
pub(crate) use bindings::rvfs_attr as Attr;

/// What kind of object an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, fifo or socket: opened without asking the filesystem.
    Special,
}

impl Kind {
    /// Returns the kind that the type bits of `mode` say.
    pub(crate) fn of(mode: u16) -> Self {
        match u32::from(mode) & bindings::S_IFMT {
            bindings::S_IFREG => Self::Regular,
            bindings::S_IFDIR => Self::Directory,
            bindings::S_IFLNK => Self::Symlink,
            _ => Self::Special,
        }
    }
}

/// An inode of filesystem `T`, or, without it, of one we know nothing about.
///
/// # Invariants
///
/// The inode is initialised. If `T` is a [`FileSystem`], it lives in an [`InodeSlot`] whose data
/// is there, and its `i_private` is the inode below, referenced until the inode is evicted and
/// not freed before a grace period after that.
#[repr(transparent)]
pub(crate) struct Inode<T = Foreign> {
    inner: Opaque<bindings::inode>,
    _fs: PhantomData<fn() -> T>,
}

/// An inode of the filesystem below.
pub(crate) type LowerInode = Inode<Foreign>;

// SAFETY: Inodes may be used from any thread.
unsafe impl<T> Send for Inode<T> {}
// SAFETY: All methods through `&self` may run concurrently.
unsafe impl<T> Sync for Inode<T> {}

// SAFETY: `ihold` and `iput` count references, and an inode with references is not freed.
unsafe impl<T> AlwaysRefCounted for Inode<T> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference means that the count is not zero.
        unsafe { bindings::ihold(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference and gives it up.
        unsafe { bindings::iput(obj.as_ptr().cast()) };
    }
}

impl<T> Inode<T> {
    /// Makes a reference of a pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is an inode that satisfies the invariants of `Inode<T>` and stays for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *const bindings::inode) -> &'a Self {
        // SAFETY: `Inode` is transparent; the rest is the caller's promise.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.inner.get()
    }

    /// Returns the number of names.
    pub(crate) fn nlink(&self) -> u32 {
        self.attr().nlink
    }

    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> i64 {
        // SAFETY: The inode is valid; on a 64-bit machine `i_size_read` is one read.
        unsafe { (&raw const (*self.as_ptr()).i_size).read_volatile() }
    }

    /// Returns the attributes as they are in memory.
    pub(crate) fn attr(&self) -> Attr {
        let mut attr = Attr::default();
        // SAFETY: Both pointers are valid.
        unsafe { bindings::rvfs_inode_attr(self.as_ptr(), &mut attr) };
        attr
    }

    /// Returns whether the file's contents are mapped straight from the device.
    pub(crate) fn is_dax(&self) -> bool {
        // SAFETY: The inode is valid.
        unsafe { bindings::rvfs_inode_is_dax(self.as_ptr()) }
    }

    /// Returns whether this is a directory that ignores case.
    pub(crate) fn is_casefolded(&self) -> bool {
        // SAFETY: The inode is valid.
        unsafe { bindings::rvfs_inode_is_casefolded(self.as_ptr()) }
    }

    /// Returns whether the object can have extended attributes.
    pub(crate) fn has_xattrs(&self) -> bool {
        // SAFETY: The inode is valid.
        unsafe { bindings::rvfs_inode_has_xattr(self.as_ptr()) }
    }
}

impl Inode<Foreign> {
    /// Encodes the file handle that names the inode for as long as its filesystem lives.
    ///
    /// Returns the handle's type and its length in bytes. [`EOVERFLOW`] if `words` is too small.
    pub(crate) fn encode_handle(&self, words: &mut [u32]) -> Result<(u8, usize)> {
        let mut len: kernel::ffi::c_int = words.len().try_into()?;
        // SAFETY: `words` has room for `len` words.
        let ret = unsafe { bindings::rvfs_encode_fid(self.as_ptr(), words.as_mut_ptr(), &mut len) };
        to_result(ret)?;
        let ty = u8::try_from(ret)?;
        if ty == 0xff {
            return Err(EOVERFLOW);
        }
        Ok((ty, usize::try_from(len)?.saturating_mul(4)))
    }

    /// Asks whether the caller may access the object as `mask` says.
    pub(crate) fn permission(&self, mask: AccessMask) -> Result {
        // SAFETY: The inode is valid, or, in an RCU walk, not freed before the walk's end.
        to_result(unsafe { bindings::rvfs_inode_permission(self.as_ptr(), mask.0) })
    }

    /// Keeps the file from being executed while the guard lives; [`ETXTBSY`] if it is.
    pub(crate) fn write_access(&self) -> Result<InodeWriteAccess<'_>> {
        // SAFETY: The inode is valid.
        to_result(unsafe { bindings::rvfs_get_write_access(self.as_ptr()) })?;
        Ok(InodeWriteAccess(self))
    }

    /// Returns where the file's extents are, as the filesystem below says.
    pub(crate) fn fiemap(&self, request: &mut FiemapRequest<'_>) -> Result {
        // SAFETY: The inode is valid and its operations do not change.
        let op = unsafe { (*(*self.as_ptr()).i_op).fiemap }.ok_or_else(eopnotsupp)?;
        // SAFETY: The request came from the VFS for an inode of the same shape.
        to_result(unsafe { op(self.as_ptr(), request.info, request.start, request.len) })
    }
}

/// Write access to an inode, as an open file that is written has it.
pub(crate) struct InodeWriteAccess<'a>(&'a LowerInode);

impl Drop for InodeWriteAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken when the guard was made.
        unsafe { bindings::rvfs_put_write_access(self.0.as_ptr()) };
    }
}

/// `MAY_*` bits of a permission check.
#[derive(Clone, Copy)]
pub(crate) struct AccessMask(i32);

impl AccessMask {
    pub(super) fn new(mask: i32) -> Self {
        Self(mask)
    }
}

/// A question for the map of a file's extents.
pub(crate) struct FiemapRequest<'a> {
    info: *mut bindings::fiemap_extent_info,
    start: u64,
    len: u64,
    _info: PhantomData<&'a mut ()>,
}

impl FiemapRequest<'_> {
    pub(super) fn new(info: *mut bindings::fiemap_extent_info, start: u64, len: u64) -> Self {
        Self { info, start, len, _info: PhantomData }
    }
}

/// The memory of one of our inodes.
///
/// The inode comes first, so that a pointer to one is a pointer to the other.
#[repr(C)]
pub(super) struct InodeSlot<D> {
    inode: Opaque<bindings::inode>,
    data: UnsafeCell<Option<D>>,
}

impl<D> InodeSlot<D> {
    /// # Safety
    ///
    /// The slot's memory is valid, and nobody else uses it.
    pub(super) unsafe fn reset(slot: *mut Self) {
        // SAFETY: The constructor left `None`, and so does every reset.
        unsafe { *(*slot).data.get() = None };
    }

    /// # Safety
    ///
    /// The inode is new, so that nobody else uses the slot.
    pub(super) unsafe fn complete(slot: *mut Self, data: D) {
        // SAFETY: The caller's promise.
        unsafe { *(*slot).data.get() = Some(data) };
    }

    /// # Safety
    ///
    /// The inode is being evicted.
    pub(super) unsafe fn is_complete(slot: *mut Self) -> bool {
        // SAFETY: The data is not written any more.
        unsafe { (*(*slot).data.get()).is_some() }
    }
}

/// Constructor of the slabs that slots are cut from.
///
/// # Safety
///
/// `slot` is the memory of an [`InodeSlot<D>`].
pub(super) unsafe extern "C" fn slot_ctor<D>(slot: *mut kernel::ffi::c_void) {
    let slot: *mut InodeSlot<D> = slot.cast();
    // SAFETY: The memory is ours to initialise; the inode comes first.
    unsafe {
        bindings::inode_init_once(slot.cast());
        (&raw mut (*slot).data).write(UnsafeCell::new(None));
    }
}

impl<T: FileSystem> Inode<T> {
    fn slot(&self) -> &InodeSlot<T::InodeData> {
        // SAFETY: By the type's invariants.
        unsafe { &*self.as_ptr().cast() }
    }

    /// Returns the inode below.
    pub(crate) fn lower(&self) -> &LowerInode {
        // SAFETY: By the type's invariants `i_private` is an inode that outlives ours.
        unsafe { LowerInode::from_raw((*self.as_ptr()).i_private.cast()) }
    }

    /// Returns what the filesystem keeps with the inode.
    pub(crate) fn data(&self) -> &T::InodeData {
        // SAFETY: Written once, while the inode was new and nobody else had it.
        match unsafe { &*self.slot().data.get() } {
            Some(data) => data,
            // By the type's invariants.
            None => unreachable!(),
        }
    }

    /// Returns the superblock.
    pub(crate) fn superblock(&self) -> &SuperBlock<T> {
        // SAFETY: An inode's superblock stays as long as the inode.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
    }

    /// Returns how many references there are. Nobody gets a new one to an object without a name, but from an old one.
    pub(crate) fn references(&self) -> i32 {
        // SAFETY: The inode is valid.
        unsafe { bindings::rvfs_inode_references(self.as_ptr()) }
    }

    /// Copies the attributes of the inode below, so that the VFS judges by them.
    pub(crate) fn refresh(&self) {
        // SAFETY: Both inodes are valid.
        unsafe { bindings::rvfs_inode_copy_attr(self.as_ptr(), self.lower().as_ptr()) };
    }

    /// The same, but only if somebody else has changed the size of the object below: whoever is to write at the end has
    /// to know where that is.
    pub(crate) fn refresh_if_resized(&self) {
        if self.size() != self.lower().size() {
            self.refresh();
        }
    }

    /// Takes the inode's lock; [`EINTR`] if the caller is killed while it sleeps.
    pub(crate) fn lock_killable(&self) -> Result<Locked<'_, T>> {
        // SAFETY: The inode is valid.
        to_result(unsafe { bindings::rvfs_inode_lock_killable(self.as_ptr()) })?;
        Ok(Locked { inode: self, owned: true, _nts: NotThreadSafe })
    }

    /// Takes the inode's lock, if nobody has it.
    pub(crate) fn try_lock(&self) -> Option<Locked<'_, T>> {
        // SAFETY: The inode is valid.
        let taken = unsafe { bindings::rvfs_inode_trylock(self.as_ptr()) };
        // Made only if it was taken: dropping a guard gives the lock back.
        taken.then(|| Locked { inode: self, owned: true, _nts: NotThreadSafe })
    }

    /// The lock, where the VFS took it before it called us.
    ///
    /// # Safety
    ///
    /// The caller of the operation holds the inode's lock, exclusively, during `'a`.
    pub(super) unsafe fn assume_locked<'a>(ptr: *const bindings::inode) -> Locked<'a, T> {
        Locked {
            // SAFETY: An inode on which the VFS calls an operation is ours and valid.
            inode: unsafe { Self::from_raw(ptr) },
            owned: false,
            _nts: NotThreadSafe,
        }
    }
}

/// One of our inodes, its `i_rwsem` held exclusively.
pub(crate) struct Locked<'a, T: FileSystem> {
    inode: &'a Inode<T>,
    owned: bool,
    _nts: NotThreadSafe,
}

impl<'a, T: FileSystem> Locked<'a, T> {
    /// Takes the locks of two objects that are no directories, in the VFS's order; the second is missing if it is the
    /// first.
    pub(crate) fn both(first: &'a Inode<T>, second: &'a Inode<T>) -> (Self, Option<Self>) {
        // SAFETY: Both inodes are valid; callers have files open, not directories.
        unsafe { bindings::lock_two_nondirectories(first.as_ptr(), second.as_ptr()) };
        let lock = |inode| Self { inode, owned: true, _nts: NotThreadSafe };
        (lock(first), (!core::ptr::eq(first, second)).then(|| lock(second)))
    }
}

impl<T: FileSystem> Deref for Locked<'_, T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        self.inode
    }
}

impl<T: FileSystem> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: Taken when the guard was made.
            unsafe { bindings::rvfs_inode_unlock(self.inode.as_ptr()) };
        }
    }
}
