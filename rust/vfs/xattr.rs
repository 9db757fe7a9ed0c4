// SPDX-License-Identifier: GPL-2.0

//! Extended attributes and access control lists.
//!
//! C headers: `include/linux/xattr.h`, `include/linux/posix_acl.h`.

use super::{
    bindings,
    dentry::Dentry,
    eopnotsupp,
    inode::{Inode, Locked, LowerInode},
    mount::WriteAccess,
    FileSystem,
};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    ffi,
    prelude::*,
};

/// Whether an attribute may, must or must not exist before it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SetMode(i32);

impl SetMode {
    /// It may exist, or not.
    pub(crate) const ANY: Self = Self(0);
}

impl Dentry {
    /// Reads an attribute into `out`, or, if that is empty, returns the value's length.
    ///
    /// [`ENODATA`] if there is none, [`ERANGE`] if it does not fit. No permission is asked for.
    pub(crate) fn get_xattr(&self, name: &CStr, out: &mut [u8]) -> Result<usize> {
        let inode = self.inode().ok_or(ENOENT)?;
        if !inode.has_xattrs() {
            return Err(eopnotsupp());
        }
        // SAFETY: The dentry is positive, the name ends in NUL, and `out` is ours to write.
        size(unsafe {
            bindings::rvfs_getxattr(
                self.as_ptr(),
                name.as_char_ptr(),
                if out.is_empty() { core::ptr::null_mut() } else { out.as_mut_ptr().cast() },
                out.len(),
            )
        })
    }

    /// Lists the names of attributes, each ended by a zero byte, or, if `out` is empty, returns
    /// how long the list is.
    pub(crate) fn list_xattrs(&self, out: &mut [u8]) -> Result<usize> {
        // SAFETY: The dentry is positive, and `out` is ours to write.
        size(unsafe {
            bindings::vfs_listxattr(
                self.as_ptr(),
                if out.is_empty() { core::ptr::null_mut() } else { out.as_mut_ptr().cast() },
                out.len(),
            )
        })
    }

    /// Sets an attribute, as the caller.
    pub(crate) fn set_xattr(&self, _access: &WriteAccess<'_>, name: &CStr, value: &[u8], mode: SetMode) -> Result {
        if !self.inode().ok_or(ENOENT)?.has_xattrs() {
            return Err(eopnotsupp());
        }
        // SAFETY: The dentry is positive, the name ends in NUL, the value is there.
        to_result(unsafe {
            bindings::rvfs_setxattr(self.as_ptr(), name.as_char_ptr(), value.as_ptr().cast(), value.len(), mode.0)
        })
    }

    /// Removes an attribute, as the caller.
    pub(crate) fn remove_xattr(&self, _access: &WriteAccess<'_>, name: &CStr) -> Result {
        if !self.inode().ok_or(ENOENT)?.has_xattrs() {
            return Err(eopnotsupp());
        }
        // SAFETY: The dentry is positive, and the name ends in NUL.
        to_result(unsafe { bindings::rvfs_removexattr(self.as_ptr(), name.as_char_ptr()) })
    }

    /// Sets or removes an access control list, as the caller.
    pub(crate) fn set_acl(&self, _access: &WriteAccess<'_>, kind: AclKind, acl: &Acl) -> Result {
        // SAFETY: The dentry is positive, and the list valid or null.
        to_result(unsafe { bindings::rvfs_set_acl(self.as_ptr(), acl.ptr, kind as ffi::c_int) })
    }
}

fn size(ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret as ffi::c_int))
}

/// Which access control list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum AclKind {
    /// Who may access the object.
    Access = bindings::ACL_TYPE_ACCESS as i32,
    /// What objects made in a directory inherit.
    Default = bindings::ACL_TYPE_DEFAULT as i32,
}

impl AclKind {
    pub(super) fn from_raw(kind: ffi::c_int) -> Result<Self> {
        match kind as u32 {
            bindings::ACL_TYPE_ACCESS => Ok(Self::Access),
            bindings::ACL_TYPE_DEFAULT => Ok(Self::Default),
            _ => Err(EINVAL),
        }
    }

    /// Returns which list an extended attribute shows, if it is one.
    pub(crate) fn from_xattr_name(name: &CStr) -> Option<Self> {
        [Self::Access, Self::Default].into_iter().find(|kind| kind.xattr_name().to_bytes() == name.to_bytes())
    }

    /// Returns the name of the extended attribute that shows the list.
    pub(crate) fn xattr_name(self) -> &'static CStr {
        match self {
            Self::Access => c"system.posix_acl_access",
            Self::Default => c"system.posix_acl_default",
        }
    }
}

/// An access control list that is to be set, or removed if there is none.
pub(crate) struct Acl {
    ptr: *mut bindings::posix_acl,
}

impl Acl {
    /// # Safety
    ///
    /// `ptr` is null or a list that outlives this.
    pub(super) unsafe fn from_raw(ptr: *mut bindings::posix_acl) -> Self {
        Self { ptr }
    }

    /// Returns whether the list is to be removed.
    pub(crate) fn is_none(&self) -> bool {
        self.ptr.is_null()
    }

    /// Returns whether the list says no more than a mode can. An access list like that becomes the mode.
    pub(crate) fn is_mode(&self) -> bool {
        // SAFETY: The list is valid; nobody wants to know the mode.
        !self.ptr.is_null() && unsafe { bindings::posix_acl_equiv_mode(self.ptr, core::ptr::null_mut()) } == 0
    }

    /// Returns the list in the form of an extended attribute. [`None`] if it is to be removed.
    pub(crate) fn to_xattr(&self) -> Result<Option<AclXattr>> {
        if self.ptr.is_null() {
            return Ok(None);
        }
        let mut len = 0;
        // SAFETY: The list is valid, and so is the place for the length.
        let ptr = from_err_ptr(unsafe { bindings::rvfs_acl_to_xattr(self.ptr, &mut len) })?;
        // INVARIANT: The function allocated that much.
        Ok(NonNull::new(ptr.cast()).map(|ptr| AclXattr { ptr, len }))
    }
}

/// The value of an extended attribute that shows an access control list.
///
/// # Invariants
///
/// `ptr` points to `len` bytes that are ours to free.
pub(crate) struct AclXattr {
    ptr: NonNull<u8>,
    len: usize,
}

impl AclXattr {
    /// Reads an object's list. [`None`] if it has none.
    pub(crate) fn read(inode: &LowerInode, kind: AclKind) -> Result<Option<Self>> {
        let mut len = 0;
        // SAFETY: The inode is valid, and so is the place for the length.
        let ptr = from_err_ptr(unsafe { bindings::rvfs_acl_xattr(inode.as_ptr(), kind as ffi::c_int, &mut len) })?;
        // INVARIANT: The function allocated that much.
        Ok(NonNull::new(ptr.cast()).map(|ptr| Self { ptr, len }))
    }

    /// Returns the value.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: By the type's invariants.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for AclXattr {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::kfree(self.ptr.as_ptr().cast()) };
    }
}

/// Extended attributes of a filesystem's objects, all namespaces through one door; access
/// control lists are operations of the inode.
pub(crate) trait XattrOperations<T: FileSystem> {
    /// Reads an attribute into `out`, or, if that is empty, returns the value's length.
    fn get(dentry: &Dentry<T>, name: &CStr, out: &mut [u8]) -> Result<usize>;

    /// Sets an attribute. The object is locked.
    fn set(dentry: &Dentry<T>, inode: &Locked<'_, T>, name: &CStr, value: &[u8], mode: SetMode) -> Result;

    /// Removes an attribute. The object is locked.
    fn remove(dentry: &Dentry<T>, inode: &Locked<'_, T>, name: &CStr) -> Result;
}

/// The list of handlers, ended by null.
#[repr(transparent)]
pub(super) struct Handlers(pub(super) [*const bindings::xattr_handler; 2]);

// SAFETY: The handlers are constant.
unsafe impl Sync for Handlers {}

/// The functions that the kernel calls.
///
/// They are unsafe because they believe the VFS: that pointers are to objects of filesystem `T`, valid during the call,
/// and locked as `Documentation/filesystems/locking.rst` says of the operation.
pub(super) struct Vtable<T>(PhantomData<T>);

impl<T: FileSystem> Vtable<T> {
    unsafe extern "C" fn get(
        _handler: *const bindings::xattr_handler,
        dentry: *mut bindings::dentry,
        _inode: *mut bindings::inode,
        name: *const ffi::c_char,
        buffer: *mut ffi::c_void,
        len: usize,
    ) -> ffi::c_int {
        let out = if len == 0 || buffer.is_null() {
            &mut []
        } else {
            // SAFETY: The VFS passes a buffer of that size.
            unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) }
        };
        // SAFETY: The dentry is ours, and the name a string.
        let result = unsafe { T::Xattrs::get(Dentry::from_raw(dentry), CStr::from_char_ptr(name), out) };
        match result {
            Ok(n) => n as ffi::c_int,
            Err(e) => e.to_errno(),
        }
    }

    unsafe extern "C" fn set(
        _handler: *const bindings::xattr_handler,
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const ffi::c_char,
        value: *const ffi::c_void,
        len: usize,
        flags: ffi::c_int,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the object's lock; it is ours, and the name is a string.
        let result = unsafe {
            let dentry = Dentry::from_raw(dentry);
            let inode: Locked<'_, T> = Inode::assume_locked(inode);
            let name = CStr::from_char_ptr(name);
            if value.is_null() {
                T::Xattrs::remove(dentry, &inode, name)
            } else {
                let value = core::slice::from_raw_parts(value.cast::<u8>(), len);
                T::Xattrs::set(dentry, &inode, name, value, SetMode(flags))
            }
        };
        match result {
            Ok(()) => 0,
            Err(e) => e.to_errno(),
        }
    }

    const HANDLER: &'static bindings::xattr_handler = &bindings::xattr_handler {
        // Matches every name.
        prefix: c"".as_ptr().cast(),
        get: Some(Self::get),
        set: Some(Self::set),
        ..pin_init::zeroed()
    };

    pub(super) const HANDLERS: &'static Handlers = &Handlers([Self::HANDLER, core::ptr::null()]);
}
