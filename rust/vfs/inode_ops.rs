// SPDX-License-Identifier: GPL-2.0

//! Operations that the VFS asks of an inode.
//!
//! C header: `include/linux/fs.h`, `struct inode_operations`.

use super::{
    bindings,
    dentry::{Dentry, LowerDentry, NewDentry},
    file,
    inode::{AccessMask, FiemapRequest, Inode, Kind, Locked},
    mount::WriteAccess,
    tmpfile::Unnamed,
    xattr::{Acl, AclKind},
    FileSystem,
};
use core::{marker::PhantomData, ptr};
use kernel::{
    error::{from_err_ptr, from_result, to_result},
    ffi,
    prelude::*,
    sync::aref::ARef,
};

/// A request to change attributes.
pub(crate) struct SetAttr<'a> {
    attr: &'a mut bindings::iattr,
}

impl SetAttr<'_> {
    /// Returns whether the size is to be changed.
    pub(crate) fn sets_size(&self) -> bool {
        self.attr.ia_valid & bindings::ATTR_SIZE != 0
    }

    /// Returns which attributes are to be changed: `ATTR_*`.
    pub(crate) fn asked(&self) -> u32 {
        self.attr.ia_valid
    }

    /// Asks whether the caller may change this of that object.
    pub(crate) fn check<T: FileSystem>(&mut self, dentry: &Dentry<T>) -> Result {
        // SAFETY: Both are valid.
        to_result(unsafe { bindings::rvfs_setattr_prepare(dentry.as_ptr(), self.attr) })
    }

    /// Makes the change below; its filesystem decides how set-id bits go.
    pub(crate) fn apply(&mut self, _access: &WriteAccess<'_>, lower: &LowerDentry) -> Result {
        // SAFETY: Both are valid; the dentry is positive, as ours is.
        to_result(unsafe {
            bindings::rvfs_iattr_strip(self.attr);
            bindings::rvfs_notify_change(lower.as_ptr(), self.attr)
        })
    }
}

/// A question for attributes, and its answer.
pub(crate) struct GetAttr<'a, T: FileSystem> {
    dentry: &'a Dentry<T>,
    stat: &'a mut bindings::kstat,
    mask: u32,
    flags: u32,
}

impl<T: FileSystem> GetAttr<'_, T> {
    /// Answers with what the filesystem below says, under our device number.
    ///
    /// An object below that is on another device than the root below (a btrfs subvolume) keeps
    /// its own device number, so that device and inode number stay unique.
    pub(crate) fn from_lower(&mut self) -> Result {
        let sb = self.dentry.superblock();
        let path = sb.lower().path(self.dentry.lower());
        // SAFETY: All are valid.
        to_result(unsafe { bindings::vfs_getattr_nosec(path.as_ptr(), self.stat, self.mask, self.flags) })?;
        if self.stat.dev == sb.lower().superblock().dev() {
            self.stat.dev = sb.dev();
        }
        // Writes that must not be torn are not offered.
        self.stat.result_mask &= !bindings::STATX_WRITE_ATOMIC;
        self.stat.attributes &= !u64::from(bindings::STATX_ATTR_WRITE_ATOMIC);
        Ok(())
    }
}

/// The file attributes (`FS_IOC_GETFLAGS`) of an object.
pub(crate) struct FileAttr(*mut bindings::file_kattr);

impl FileAttr {
    /// Reads those of the object below.
    pub(crate) fn read(&mut self, lower: &LowerDentry) -> Result {
        // SAFETY: Both are valid.
        to_result(unsafe { bindings::vfs_fileattr_get(lower.as_ptr(), self.0) })
    }

    /// Returns the flags (`FS_*_FL`).
    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: The attributes are valid.
        unsafe { bindings::rvfs_fileattr_flags(self.0) }
    }

    /// Sets those of the object below, as the caller.
    pub(crate) fn apply(&mut self, _access: &WriteAccess<'_>, lower: &LowerDentry) -> Result {
        // SAFETY: Both are valid.
        to_result(unsafe { bindings::rvfs_fileattr_set(lower.as_ptr(), self.0) })
    }
}

impl LowerDentry {
    /// Reads flags (`FS_*_FL`) and project id of the object, if its filesystem has such.
    pub(crate) fn file_attributes(&self) -> Option<(u32, u32)> {
        let mut flags = 0;
        let mut project = 0;
        // SAFETY: The dentry is positive.
        let ret = unsafe { bindings::rvfs_fileattr_get(self.as_ptr(), &mut flags, &mut project) };
        (ret == 0).then_some((flags, project))
    }
}

/// The target of a symbolic link, and how it is released.
pub(crate) struct LinkTarget<'a>(&'a mut bindings::delayed_call);

/// A target that the VFS may follow.
pub(crate) struct Target(*const ffi::c_char);

impl LinkTarget<'_> {
    /// Reads the target of the link below.
    pub(crate) fn read(self, lower: &LowerDentry) -> Result<Target> {
        // SAFETY: Both are valid.
        let ptr = unsafe { bindings::rvfs_get_link(lower.as_ptr(), self.0) };
        Ok(Target(from_err_ptr(ptr.cast_mut())?))
    }
}

/// Operations on inodes. Those that change a directory have it locked, and the object as well
/// where it is [`Locked`].
#[vtable]
pub(crate) trait InodeOperations {
    /// The filesystem whose inodes these are.
    type Fs: FileSystem;

    /// Looks a name up.
    fn lookup(
        _dir: &Inode<Self::Fs>,
        _name: NewDentry<'_, Self::Fs>,
        _parent: &LowerDentry,
    ) -> Result<Option<ARef<Dentry<Self::Fs>>>> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes a regular file.
    fn create(_dir: &Locked<'_, Self::Fs>, _name: &Dentry<Self::Fs>, _mode: u16) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes a directory.
    fn mkdir(_dir: &Locked<'_, Self::Fs>, _name: &Dentry<Self::Fs>, _mode: u16) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes a device, fifo or socket.
    fn mknod(_dir: &Locked<'_, Self::Fs>, _name: &Dentry<Self::Fs>, _mode: u16, _dev: u32) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes a symbolic link.
    fn symlink(_dir: &Locked<'_, Self::Fs>, _name: &Dentry<Self::Fs>, _target: &CStr) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes a regular file without a name, and opens it. The directory is not locked.
    fn tmpfile(_dir: &Inode<Self::Fs>, _file: Unnamed<'_, Self::Fs>, _mode: u16) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes another name of an object, which is locked too.
    fn link(_old: &Dentry<Self::Fs>, _dir: &Locked<'_, Self::Fs>, _name: &Dentry<Self::Fs>) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Removes a name that is not a directory's; the object is locked too.
    fn unlink(_dir: &Locked<'_, Self::Fs>, _name: &Dentry<Self::Fs>) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Removes an empty directory, which is locked too.
    fn rmdir(_dir: &Locked<'_, Self::Fs>, _name: &Dentry<Self::Fs>) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Moves a name; flags are `RENAME_*`. What is replaced or exchanged is locked too.
    fn rename(
        _old_dir: &Locked<'_, Self::Fs>,
        _old: &Dentry<Self::Fs>,
        _new_dir: &Locked<'_, Self::Fs>,
        _new: &Dentry<Self::Fs>,
        _flags: u32,
    ) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Returns the target of a symbolic link.
    fn get_link(_name: &Dentry<Self::Fs>, _target: LinkTarget<'_>) -> Result<Target> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Decides whether the caller may access the object. May run in an RCU walk.
    fn permission(inode: &Inode<Self::Fs>, mask: AccessMask) -> Result {
        inode.lower().permission(mask)
    }

    /// Changes attributes. The object is locked.
    fn setattr(_name: &Dentry<Self::Fs>, _inode: &Locked<'_, Self::Fs>, _: SetAttr<'_>) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Returns attributes.
    fn getattr(mut request: GetAttr<'_, Self::Fs>) -> Result {
        request.from_lower()
    }

    /// Lists the names of extended attributes into `out`, each ended by a zero byte, or, if it
    /// is empty, returns how much room that may take.
    fn listxattr(_name: &Dentry<Self::Fs>, _out: &mut [u8]) -> Result<usize> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Changes file attributes. The object is locked.
    fn fileattr_set(_name: &Dentry<Self::Fs>, _inode: &Locked<'_, Self::Fs>, _attr: &mut FileAttr) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Changes or removes an access control list. The object is locked.
    fn set_acl(_name: &Dentry<Self::Fs>, _inode: &Locked<'_, Self::Fs>, _kind: AclKind, _acl: &Acl) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }
}

/// The functions that the kernel calls.
///
/// They are unsafe because they believe the VFS: that pointers are to objects of filesystem `T`, valid during the call,
/// and locked as `Documentation/filesystems/locking.rst` says of the operation.
struct Vtable<T>(PhantomData<T>);

impl<O: InodeOperations> Vtable<O> {
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        _flags: ffi::c_uint,
    ) -> *mut bindings::dentry {
        // SAFETY: The VFS passes a directory of ours, locked at least shared, and a dentry of
        // ours under lookup, whose parent is a dentry of that directory.
        let result = unsafe {
            let parent = Dentry::<O::Fs>::from_raw((*dentry).d_parent);
            O::lookup(Inode::from_raw(dir), NewDentry::from_raw(dentry), parent.lower())
        };
        match result {
            Ok(None) => ptr::null_mut(),
            Ok(Some(other)) => ARef::into_raw(other).as_ptr().cast(),
            Err(e) => e.to_ptr(),
        }
    }

    unsafe extern "C" fn create(
        _idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
        _excl: bool,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the directory's lock; both are ours.
        result(unsafe { O::create(&Inode::assume_locked(dir), Dentry::from_raw(dentry), mode) })
    }

    unsafe extern "C" fn mkdir(
        _idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> *mut bindings::dentry {
        // SAFETY: The VFS holds the directory's lock; both are ours.
        match unsafe { O::mkdir(&Inode::assume_locked(dir), Dentry::from_raw(dentry), mode) } {
            Ok(()) => ptr::null_mut(),
            Err(e) => e.to_ptr(),
        }
    }

    unsafe extern "C" fn mknod(
        _idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
        dev: bindings::dev_t,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the directory's lock; both are ours.
        result(unsafe { O::mknod(&Inode::assume_locked(dir), Dentry::from_raw(dentry), mode, dev) })
    }

    unsafe extern "C" fn symlink(
        _idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        target: *const ffi::c_char,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the directory's lock; both are ours, and the target is a string.
        result(unsafe { O::symlink(&Inode::assume_locked(dir), Dentry::from_raw(dentry), CStr::from_char_ptr(target)) })
    }

    unsafe extern "C" fn tmpfile(
        _idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        file: *mut bindings::file,
        mode: bindings::umode_t,
    ) -> ffi::c_int {
        // SAFETY: The VFS passes a directory of ours and a file whose dentry is new in it.
        result(unsafe {
            let dir = Inode::from_raw(dir);
            O::tmpfile(dir, Unnamed::new(file, dir), mode)
        })
    }

    unsafe extern "C" fn link(
        old: *mut bindings::dentry,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the locks of directory and object; all are ours.
        result(unsafe { O::link(Dentry::from_raw(old), &Inode::assume_locked(dir), Dentry::from_raw(dentry)) })
    }

    unsafe extern "C" fn unlink(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> ffi::c_int {
        // SAFETY: The VFS holds the locks of directory and object; both are ours.
        result(unsafe { O::unlink(&Inode::assume_locked(dir), Dentry::from_raw(dentry)) })
    }

    unsafe extern "C" fn rmdir(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> ffi::c_int {
        // SAFETY: The VFS holds the locks of both directories; both are ours.
        result(unsafe { O::rmdir(&Inode::assume_locked(dir), Dentry::from_raw(dentry)) })
    }

    unsafe extern "C" fn rename(
        _idmap: *mut bindings::mnt_idmap,
        old_dir: *mut bindings::inode,
        old: *mut bindings::dentry,
        new_dir: *mut bindings::inode,
        new: *mut bindings::dentry,
        flags: ffi::c_uint,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the locks of both directories; all are ours.
        result(unsafe {
            O::rename(
                &Inode::assume_locked(old_dir),
                Dentry::from_raw(old),
                &Inode::assume_locked(new_dir),
                Dentry::from_raw(new),
                flags,
            )
        })
    }

    unsafe extern "C" fn get_link(
        dentry: *mut bindings::dentry,
        _inode: *mut bindings::inode,
        done: *mut bindings::delayed_call,
    ) -> *const ffi::c_char {
        if dentry.is_null() {
            // An RCU walk: reading a link may sleep.
            return ECHILD.to_ptr();
        }
        // SAFETY: The dentry is ours, and `done` the caller's to fill.
        match unsafe { O::get_link(Dentry::from_raw(dentry), LinkTarget(&mut *done)) } {
            Ok(target) => target.0,
            Err(e) => e.to_ptr(),
        }
    }

    unsafe extern "C" fn permission(
        _idmap: *mut bindings::mnt_idmap,
        inode: *mut bindings::inode,
        mask: ffi::c_int,
    ) -> ffi::c_int {
        // SAFETY: The inode is ours.
        result(unsafe { O::permission(Inode::from_raw(inode), AccessMask::new(mask)) })
    }

    unsafe extern "C" fn setattr(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::iattr,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the object's lock; it is ours, and the request may be changed.
        result(unsafe {
            let inode = Inode::assume_locked(bindings::rvfs_d_inode(dentry));
            O::setattr(Dentry::from_raw(dentry), &inode, SetAttr { attr: &mut *attr })
        })
    }

    unsafe extern "C" fn getattr(
        _idmap: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        mask: u32,
        flags: ffi::c_uint,
    ) -> ffi::c_int {
        // SAFETY: The path is of ours, the answer the caller's to fill.
        result(unsafe {
            O::getattr(GetAttr { dentry: Dentry::from_raw((*path).dentry), stat: &mut *stat, mask, flags })
        })
    }

    unsafe extern "C" fn listxattr(dentry: *mut bindings::dentry, out: *mut ffi::c_char, size: usize) -> isize {
        let out = if size == 0 {
            &mut []
        } else {
            // SAFETY: The VFS passes a buffer of that size.
            unsafe { core::slice::from_raw_parts_mut(out.cast::<u8>(), size) }
        };
        // SAFETY: The dentry is ours.
        match O::listxattr(unsafe { Dentry::from_raw(dentry) }, out) {
            Ok(n) => n as isize,
            Err(e) => e.to_errno() as isize,
        }
    }

    unsafe extern "C" fn get_acl(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        kind: ffi::c_int,
    ) -> *mut bindings::posix_acl {
        // SAFETY: The dentry is ours; the list is handed on with its reference.
        unsafe {
            let lower = Dentry::<O::Fs>::from_raw(dentry).lower();
            bindings::rvfs_get_acl(lower.as_ptr(), kind)
        }
    }

    unsafe extern "C" fn set_acl(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        acl: *mut bindings::posix_acl,
        kind: ffi::c_int,
    ) -> ffi::c_int {
        from_result(|| {
            let kind = AclKind::from_raw(kind)?;
            // SAFETY: The VFS holds the object's lock; it is ours, and the list the caller's.
            unsafe {
                let inode = Inode::assume_locked(bindings::rvfs_d_inode(dentry));
                O::set_acl(Dentry::from_raw(dentry), &inode, kind, &Acl::from_raw(acl))?;
            }
            Ok(0)
        })
    }

    unsafe extern "C" fn fiemap(
        inode: *mut bindings::inode,
        info: *mut bindings::fiemap_extent_info,
        start: u64,
        len: u64,
    ) -> ffi::c_int {
        // SAFETY: The inode is ours.
        let inode = unsafe { Inode::<O::Fs>::from_raw(inode) };
        result(inode.lower().fiemap(&mut FiemapRequest::new(info, start, len)))
    }

    unsafe extern "C" fn fileattr_get(dentry: *mut bindings::dentry, attr: *mut bindings::file_kattr) -> ffi::c_int {
        // SAFETY: The dentry is ours, the answer the caller's to fill.
        let dentry = unsafe { Dentry::<O::Fs>::from_raw(dentry) };
        result(FileAttr(attr).read(dentry.lower()))
    }

    unsafe extern "C" fn fileattr_set(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::file_kattr,
    ) -> ffi::c_int {
        // SAFETY: The VFS holds the object's lock; it is ours, and the request may be changed.
        result(unsafe {
            let inode = Inode::assume_locked(bindings::rvfs_d_inode(dentry));
            O::fileattr_set(Dentry::from_raw(dentry), &inode, &mut FileAttr(attr))
        })
    }

    const TABLE: &'static bindings::inode_operations = &bindings::inode_operations {
        lookup: if O::HAS_LOOKUP { Some(Self::lookup) } else { None },
        create: if O::HAS_CREATE { Some(Self::create) } else { None },
        mkdir: if O::HAS_MKDIR { Some(Self::mkdir) } else { None },
        mknod: if O::HAS_MKNOD { Some(Self::mknod) } else { None },
        symlink: if O::HAS_SYMLINK { Some(Self::symlink) } else { None },
        tmpfile: if O::HAS_TMPFILE { Some(Self::tmpfile) } else { None },
        link: if O::HAS_LINK { Some(Self::link) } else { None },
        unlink: if O::HAS_UNLINK { Some(Self::unlink) } else { None },
        rmdir: if O::HAS_RMDIR { Some(Self::rmdir) } else { None },
        rename: if O::HAS_RENAME { Some(Self::rename) } else { None },
        get_link: if O::HAS_GET_LINK { Some(Self::get_link) } else { None },
        permission: Some(Self::permission),
        setattr: if O::HAS_SETATTR { Some(Self::setattr) } else { None },
        getattr: Some(Self::getattr),
        listxattr: if O::HAS_LISTXATTR { Some(Self::listxattr) } else { None },
        get_acl: if O::HAS_SET_ACL { Some(Self::get_acl) } else { None },
        set_acl: if O::HAS_SET_ACL { Some(Self::set_acl) } else { None },
        fiemap: if O::HAS_LOOKUP || O::HAS_GET_LINK { None } else { Some(Self::fiemap) },
        fileattr_get: if O::HAS_GET_LINK { None } else { Some(Self::fileattr_get) },
        fileattr_set: if O::HAS_FILEATTR_SET { Some(Self::fileattr_set) } else { None },
        ..pin_init::zeroed()
    };
}

fn result(result: Result) -> ffi::c_int {
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// Gives a new inode the operations of its kind.
///
/// # Safety
///
/// The inode is of filesystem `T`, new, and its mode is set.
pub(super) unsafe fn set_operations<T: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: The inode is new and ours to fill; the tables are static.
    unsafe {
        match Kind::of((*inode).i_mode) {
            Kind::Regular => {
                (*inode).i_op = Vtable::<T::RegularInode>::TABLE;
                (*inode).__bindgen_anon_3.i_fop = file::Vtable::<T::RegularFile>::REGULAR;
            }
            Kind::Directory => {
                (*inode).i_op = Vtable::<T::DirectoryInode>::TABLE;
                (*inode).__bindgen_anon_3.i_fop = file::Vtable::<T::DirectoryFile>::DIRECTORY;
            }
            Kind::Symlink => (*inode).i_op = Vtable::<T::SymlinkInode>::TABLE,
            Kind::Special => (*inode).i_op = Vtable::<T::SpecialInode>::TABLE,
        }
    }
}
