// SPDX-License-Identifier: GPL-2.0

//! Names: our own dentries, each stacked on one of the filesystem below, and theirs.
//!
//! C header: `include/linux/dcache.h`.

use super::{
    bindings,
    inode::{Inode, LowerInode},
    superblock::SuperBlock,
    FileSystem, Foreign,
};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque,
};

/// A dentry of filesystem `T`, or, without it, of one we know nothing about.
///
/// # Invariants
///
/// The dentry is valid. If `T` is a [`FileSystem`] and the dentry went through its `lookup`,
/// its `d_fsdata` is the dentry below, referenced until ours is released.
#[repr(transparent)]
pub(crate) struct Dentry<T = Foreign> {
    inner: Opaque<bindings::dentry>,
    _fs: PhantomData<fn() -> T>,
}

/// A dentry of the filesystem below.
pub(crate) type LowerDentry = Dentry<Foreign>;

// SAFETY: Dentries may be used from any thread.
unsafe impl<T> Send for Dentry<T> {}
// SAFETY: All methods through `&self` may run concurrently.
unsafe impl<T> Sync for Dentry<T> {}

// SAFETY: `dget` and `dput` count references, and a dentry with references is not freed.
unsafe impl<T> AlwaysRefCounted for Dentry<T> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference means that the count is not zero.
        unsafe { bindings::rvfs_dget(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference and gives it up.
        unsafe { bindings::dput(obj.as_ptr().cast()) };
    }
}

impl<T> Dentry<T> {
    /// Makes a reference of a pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a dentry that satisfies the invariants of `Dentry<T>` and stays for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *const bindings::dentry) -> &'a Self {
        // SAFETY: `Dentry` is transparent; the rest is the caller's promise.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::dentry {
        self.inner.get()
    }

    /// Returns the inode, or nothing if the name does not exist (any more, or yet).
    pub(crate) fn inode(&self) -> Option<&Inode<T>> {
        // SAFETY: The dentry is valid; the inode stays while the dentry is referenced and
        // positive, and is not freed before the end of an RCU walk.
        unsafe {
            let ptr = bindings::rvfs_d_inode(self.as_ptr());
            if ptr.is_null() {
                None
            } else {
                Some(Inode::from_raw(ptr))
            }
        }
    }

    /// Returns whether the name was removed, or the dentry is no longer found by it.
    pub(crate) fn is_unhashed(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::rvfs_d_unhashed(self.as_ptr()) }
    }

    /// Returns whether both are the same dentry.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.as_ptr() == other.as_ptr()
    }

    /// Returns whether this is `ancestor` or anywhere below it.
    pub(crate) fn is_within(&self, ancestor: &Self) -> bool {
        // SAFETY: Both are valid.
        unsafe { bindings::is_subdir(self.as_ptr(), ancestor.as_ptr()) }
    }
}

impl Dentry<Foreign> {
    /// Looks a name up in this directory, without asking for permission. Sleeps.
    ///
    /// The result has no inode if there is no such name.
    pub(crate) fn lookup(&self, name: &[u8]) -> Result<ARef<LowerDentry>> {
        let len = name.len().try_into()?;
        // SAFETY: The name is valid during the call, and the dentry is a directory's or the
        // lookup fails.
        let ptr = unsafe {
            let mut qstr = bindings::rvfs_qstr(name.as_ptr(), len);
            bindings::lookup_noperm_unlocked(&mut qstr, self.as_ptr())
        };
        let ptr = NonNull::new(from_err_ptr(ptr)?).ok_or(ENOENT)?;
        // SAFETY: The lookup returned a reference of ours.
        Ok(unsafe { ARef::from_raw(ptr.cast()) })
    }

    /// Reads the target of a symbolic link into `out`; returns its length. [`ERANGE`] if it is longer, [`EINVAL`] for
    /// anything else than a link. Sleeps.
    pub(crate) fn read_link(&self, out: &mut [u8]) -> Result<usize> {
        // SAFETY: The dentry is valid and the memory ours to write.
        let ret = unsafe { bindings::rvfs_read_link(self.as_ptr(), out.as_mut_ptr().cast(), out.len()) };
        to_result(ret)?;
        Ok(usize::try_from(ret)?)
    }
}

impl<T: FileSystem> Dentry<T> {
    /// Returns the dentry below.
    pub(crate) fn lower(&self) -> &LowerDentry {
        // SAFETY: By the type's invariants.
        unsafe { LowerDentry::from_raw((*self.as_ptr()).d_fsdata.cast()) }
    }

    /// Returns the superblock.
    pub(crate) fn superblock(&self) -> &SuperBlock<T> {
        // SAFETY: A dentry's superblock stays as long as the dentry.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).d_sb) }
    }

    /// Returns the last component. The parent directory's lock must be held.
    pub(crate) fn name(&self) -> &[u8] {
        let mut name = core::ptr::null();
        let mut len = 0;
        // SAFETY: The name does not change while the parent is locked.
        unsafe {
            bindings::rvfs_d_name(self.as_ptr(), &mut name, &mut len);
            core::slice::from_raw_parts(name, len as usize)
        }
    }

    /// Returns the parent. Its lock must be held, so that it stays the parent.
    pub(crate) fn parent(&self) -> &Self {
        // SAFETY: A dentry holds its parent, which does not change while it is locked.
        unsafe { Self::from_raw((*self.as_ptr()).d_parent) }
    }

    /// Makes the name forgotten, so that it is looked up again.
    pub(crate) fn forget(&self) {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_drop(self.as_ptr()) };
    }

    /// Gives the name its inode: it exists now. The parent must be locked, the dentry negative.
    pub(crate) fn instantiate(&self, inode: ARef<Inode<T>>) {
        let inode = ARef::into_raw(inode);
        // SAFETY: The dentry takes the reference over.
        unsafe { bindings::d_instantiate(self.as_ptr(), inode.as_ptr().cast()) };
    }
}

/// A dentry in the course of its first lookup: nothing is below it yet.
pub(crate) struct NewDentry<'a, T: FileSystem> {
    dentry: &'a Dentry<T>,
}

impl<T: FileSystem> NewDentry<'_, T> {
    /// # Safety
    ///
    /// `ptr` is a dentry of ours under lookup.
    pub(super) unsafe fn from_raw(ptr: *mut bindings::dentry) -> Self {
        Self {
            // SAFETY: The caller's promise.
            dentry: unsafe { Dentry::from_raw(ptr) },
        }
    }

    /// Returns the name that is looked up.
    pub(crate) fn name(&self) -> &[u8] {
        self.dentry.name()
    }

    /// Stacks the dentry on `lower` and connects it with `inode`, or leaves it negative.
    ///
    /// Returns another dentry where the inode is a directory that already had one.
    pub(crate) fn connect(
        self,
        lower: ARef<LowerDentry>,
        inode: Option<ARef<Inode<T>>>,
    ) -> Result<Option<ARef<Dentry<T>>>> {
        let inode = inode.map_or(core::ptr::null_mut(), |i| ARef::into_raw(i).as_ptr().cast());
        // SAFETY: The dentry is under lookup, so nobody reads `d_fsdata` yet; it takes over the
        // reference to `lower`, as `d_splice_alias` does that to the inode.
        let ptr = unsafe {
            (*self.dentry.as_ptr()).d_fsdata = ARef::into_raw(lower).as_ptr().cast();
            bindings::d_splice_alias(inode, self.dentry.as_ptr())
        };
        let ptr = from_err_ptr(ptr)?;
        // SAFETY: A dentry that is returned comes with a reference.
        Ok(NonNull::new(ptr).map(|ptr| unsafe { ARef::from_raw(ptr.cast()) }))
    }
}

/// What a filesystem decides about its dentries.
pub(crate) trait DentryOperations<T: FileSystem> {
    /// Returns whether the dentry still says the truth.
    ///
    /// With `walk` [`Walk::Rcu`] nothing may sleep; [`ECHILD`] asks to be called again without.
    fn revalidate(dentry: &Dentry<T>, parent: &LowerInode, walk: Walk) -> Result<bool>;
}

/// How a path is being walked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Under `rcu_read_lock`, without references.
    Rcu,
    /// With references; may sleep.
    Ref,
}

/// The functions that the kernel calls.
///
/// They are unsafe because they believe the VFS: that pointers are to objects of filesystem `T`, valid during the call,
/// and locked as `Documentation/filesystems/locking.rst` says of the operation.
pub(super) struct Vtable<T>(PhantomData<T>);

impl<T: FileSystem> Vtable<T> {
    unsafe extern "C" fn d_revalidate(
        dir: *mut bindings::inode,
        _name: *const bindings::qstr,
        dentry: *mut bindings::dentry,
        flags: kernel::ffi::c_uint,
    ) -> kernel::ffi::c_int {
        let walk = if flags & bindings::LOOKUP_RCU != 0 { Walk::Rcu } else { Walk::Ref };
        // SAFETY: The VFS passes an inode and a dentry of ours that are valid during the call.
        let (dir, dentry) = unsafe { (Inode::<T>::from_raw(dir), Dentry::<T>::from_raw(dentry)) };
        match T::Dentries::revalidate(dentry, dir.lower(), walk) {
            Ok(valid) => valid.into(),
            Err(e) => e.to_errno(),
        }
    }

    unsafe extern "C" fn d_release(dentry: *mut bindings::dentry) {
        // SAFETY: The dentry is about to be freed; it owns the reference to the one below, if it
        // got so far.
        unsafe {
            let lower = (*dentry).d_fsdata;
            if !lower.is_null() {
                bindings::dput(lower.cast());
            }
        }
    }

    pub(super) const TABLE: &'static bindings::dentry_operations = &bindings::dentry_operations {
        d_revalidate: Some(Self::d_revalidate),
        d_release: Some(Self::d_release),
        ..pin_init::zeroed()
    };
}
