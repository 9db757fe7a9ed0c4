// SPDX-License-Identifier: GPL-2.0

//! What a mount is configured with, from `mount(2)` or `fsconfig(2)`.
//!
//! C header: `include/linux/fs_context.h`.

use super::{
    bindings,
    superblock::{Callbacks, SuperBlock},
    FileSystem,
};
use core::{marker::PhantomData, ptr};
use kernel::{error::from_result, fmt, prelude::*, str::CString};

/// A mount being configured.
///
/// # Invariants
///
/// `fc` is valid, and its `fs_private` is the `T::Options` of this mount.
pub(crate) struct MountContext<'a, T: FileSystem> {
    fc: *mut bindings::fs_context,
    _fc: PhantomData<&'a mut T>,
}

impl<T: FileSystem> MountContext<'_, T> {
    pub(super) fn as_ptr(&self) -> *mut bindings::fs_context {
        self.fc
    }

    /// Returns the options as given so far.
    pub(crate) fn options(&self) -> &T::Options {
        // SAFETY: By the type's invariants.
        unsafe { &*(*self.fc).fs_private.cast() }
    }

    /// Returns the options, to be changed.
    pub(crate) fn options_mut(&mut self) -> &mut T::Options {
        // SAFETY: By the type's invariants; the context's mutex is held.
        unsafe { &mut *(*self.fc).fs_private.cast() }
    }

    /// Returns the name of what is to be mounted; [`EINVAL`] if none was given.
    pub(crate) fn source(&self) -> Result<&CStr> {
        // SAFETY: By the type's invariants.
        let source = unsafe { (*self.fc).source };
        if source.is_null() {
            return Err(self.refuse(EINVAL, fmt!("a directory to mount must be given")));
        }
        // SAFETY: The source is a string that stays with the context.
        Ok(unsafe { CStr::from_char_ptr(source) })
    }

    /// Returns whether the mount shall be read-only.
    pub(crate) fn is_readonly(&self) -> bool {
        // SAFETY: By the type's invariants.
        unsafe { (*self.fc).sb_flags & bindings::SB_RDONLY != 0 }
    }

    /// Returns whether there is a mount already, whose options are to change.
    pub(crate) fn is_remount(&self) -> bool {
        // SAFETY: By the type's invariants.
        unsafe { (*self.fc).purpose() == bindings::fs_context_purpose_FS_CONTEXT_FOR_RECONFIGURE }
    }

    /// Says in the mount's log why it is refused, and returns the error.
    #[must_use]
    pub(crate) fn refuse(&self, error: Error, why: fmt::Arguments<'_>) -> Error {
        if let Ok(text) = CString::try_from_fmt(why) {
            // SAFETY: By the type's invariants; the text ends in NUL.
            unsafe { bindings::rvfs_fc_error(self.fc, text.as_char_ptr()) };
        }
        error
    }
}

/// The functions that the kernel calls.
///
/// They are unsafe because they believe the VFS: that pointers are to objects of filesystem `T`, valid during the call,
/// and locked as `Documentation/filesystems/locking.rst` says of the operation.
pub(super) struct Vtable<T>(PhantomData<T>);

impl<T: FileSystem> Vtable<T> {
    pub(super) unsafe extern "C" fn init_fs_context(fc: *mut bindings::opaque_fs_context) -> kernel::ffi::c_int {
        let fc: *mut bindings::fs_context = fc.cast();
        from_result(|| {
            let options = KBox::new(T::Options::default(), GFP_KERNEL)?;
            // SAFETY: The context is new and ours to fill.
            unsafe {
                (*fc).fs_private = KBox::into_raw(options).cast();
                (*fc).ops = Self::OPS;
            }
            Ok(0)
        })
    }

    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: `init_fs_context` put the options there; this is the context's end.
        unsafe {
            let options: *mut T::Options = (*fc).fs_private.cast();
            if !options.is_null() {
                drop(KBox::from_raw(options));
                (*fc).fs_private = ptr::null_mut();
            }
        }
    }

    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> kernel::ffi::c_int {
        // SAFETY: The VFS passes a context of ours and a parameter with a name.
        let (key, value) = unsafe {
            let value = bindings::rvfs_param_string(param);
            (CStr::from_char_ptr((*param).key), if value.is_null() { None } else { Some(CStr::from_char_ptr(value)) })
        };
        let mut ctx = MountContext::<T> { fc, _fc: PhantomData };
        from_result(|| {
            T::parse(&mut ctx, key, value)?;
            Ok(0)
        })
    }

    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> kernel::ffi::c_int {
        let mut ctx = MountContext::<T> { fc, _fc: PhantomData };
        from_result(|| {
            Callbacks::<T>::get_tree(&mut ctx)?;
            Ok(0)
        })
    }

    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> kernel::ffi::c_int {
        let mut ctx = MountContext::<T> { fc, _fc: PhantomData };
        from_result(|| {
            // SAFETY: A context for reconfiguring holds the root of what it reconfigures.
            let sb = unsafe { SuperBlock::<T>::from_raw((*(*fc).root).d_sb) };
            T::reconfigure(&mut ctx, sb)?;
            Ok(0)
        })
    }

    const OPS: &'static bindings::fs_context_operations = &bindings::fs_context_operations {
        free: Some(Self::free),
        parse_param: Some(Self::parse_param),
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
        ..pin_init::zeroed()
    };
}
