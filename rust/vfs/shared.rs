// SPDX-License-Identifier: GPL-2.0

//! Shared mappings through which stores may come, watched: the filesystem is told before a page of the file below
//! becomes writable for anybody.
//!
//! Such a mapping has a file of its own below, whose operations are replaced: what the memory management asks of the
//! mapping's file (`msync`, `MADV_REMOVE`, `remap_file_pages`) goes to the file that was mapped. That file stays open as
//! long as the mapping is there, as it does on any filesystem: with it stay its locks, its hold on the mount, and
//! `ETXTBSY`. The operations of the mapping are those of the filesystem below with [`Watch`] in between, and without those
//! of userfaultfd, which would put pages in place with nobody told.
//!
//! C headers: `include/linux/mm.h`, `include/linux/backing-file.h`.
//!
//! Lock order: the faulting task's `mmap_lock` or the area's lock; pagefault protection of our superblock, of the one
//! below; the folio's lock. [`Watch::may_store`] runs under all of them.

use super::{
    bindings,
    file::{File, LowerFile, Mapping},
    inode::Inode,
    FileSystem,
};
use core::{marker::PhantomData, ops::Range};
use kernel::{container_of, error::to_result, ffi, prelude::*, sync::aref::ARef};

/// What a filesystem is told of the shared mappings of its files.
pub(crate) trait Watch {
    /// The filesystem whose files these are.
    type Fs: FileSystem;

    /// There is one more area of memory that shows the file. May sleep; `mmap_lock` is held.
    fn area_added(inode: &Inode<Self::Fs>);

    /// There is one less. As above.
    fn area_gone(inode: &Inode<Self::Fs>);

    /// From now on there may be stores into this range of the file, until it is write-protected
    /// ([`LowerInode::write_protect`](super::LowerInode::write_protect)).
    ///
    /// The range is that of the whole folio, all pages of which may become writable at once; the folio is locked. Must
    /// not wait for anything that may take long.
    fn may_store(inode: &Inode<Self::Fs>, range: Range<u64>);

    /// A fault may have changed the object's times, whether or not there will be stores. As above, no lock held but
    /// `mmap_lock` or the area's.
    fn touched(inode: &Inode<Self::Fs>);
}

/// The operations of one mapping's file and of its areas; belongs to the file, and goes when that is released.
#[repr(C)]
struct Shim {
    file_ops: bindings::file_operations,
    area_ops: bindings::vm_operations_struct,
    lower_file_ops: *const bindings::file_operations,
    lower_area_ops: *const bindings::vm_operations_struct,
    /// The file that was mapped, ours; referenced.
    user: *mut bindings::file,
}

impl Shim {
    /// # Safety
    ///
    /// `file` is the file of a mapping that [`Mapping::map_watched`] made, and not released; the result is valid until it
    /// is.
    unsafe fn of_file<'a>(file: *const bindings::file) -> &'a Self {
        // SAFETY: By the caller's promise the operations are part of a `Shim`, which the file owns.
        unsafe { &*container_of!((*file).f_op, Self, file_ops) }
    }

    /// # Safety
    ///
    /// `area` is part of such a mapping; the result is valid as long as it is.
    unsafe fn of_area<'a>(area: *const bindings::vm_area_struct) -> &'a Self {
        // SAFETY: By the caller's promise the operations are part of a `Shim`, whose file the area holds.
        unsafe { &*container_of!((*area).vm_ops, Self, area_ops) }
    }

    fn inode<T: FileSystem>(&self) -> &Inode<T> {
        // SAFETY: The file that was mapped is one of ours, of the filesystem whose operations these are.
        unsafe { Inode::from_raw((*self.user).f_inode) }
    }
}

/// The functions that the kernel calls.
///
/// They are unsafe because they believe it: that files and areas are those of mappings that [`Mapping::map_watched`]
/// made for `W`, valid during the call.
struct Vtable<W>(PhantomData<W>);

impl<W: Watch> Vtable<W> {
    unsafe extern "C" fn release(inode: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
        // SAFETY: Nobody uses the file any more, nor an area of it. What is done with its operations after this is done
        // with those of the filesystem below, to which the reference to its module belongs.
        unsafe {
            let shim: *mut Shim = container_of!((*file).f_op, Shim, file_ops).cast_mut();
            let shim = KBox::from_raw(shim);
            (*file).f_op = shim.lower_file_ops;
            let ret = match (*shim.lower_file_ops).release {
                Some(release) => release(inode, file),
                None => 0,
            };
            bindings::fput(shim.user);
            ret
        }
    }

    /// `msync`: as if the descriptor were synced.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: bindings::loff_t,
        end: bindings::loff_t,
        datasync: ffi::c_int,
    ) -> ffi::c_int {
        // SAFETY: The file is there, and holds the one that was mapped.
        unsafe { bindings::vfs_fsync_range(Shim::of_file(file).user, start, end, datasync) }
    }

    /// `MADV_REMOVE`: as if the descriptor were given to `fallocate`.
    unsafe extern "C" fn fallocate(
        file: *mut bindings::file,
        mode: ffi::c_int,
        offset: bindings::loff_t,
        len: bindings::loff_t,
    ) -> ffi::c_long {
        // SAFETY: As above. The caller holds write protection of the filesystem below, which comes after our inode's lock
        // in the lock order, and takes it back when this returns: so it is given up in between.
        unsafe {
            bindings::rvfs_file_end_write(file);
            let ret = bindings::vfs_fallocate(Shim::of_file(file).user, mode, offset, len);
            bindings::rvfs_file_start_write(file);
            ret as ffi::c_long
        }
    }

    /// `remap_file_pages`: as if the descriptor were mapped anew.
    unsafe extern "C" fn mmap(file: *mut bindings::file, area: *mut bindings::vm_area_struct) -> ffi::c_int {
        // SAFETY: As above; the area is being set up, and takes its own reference to the file that it is given.
        unsafe {
            let user = Shim::of_file(file).user;
            bindings::vma_set_file(area, user);
            match (*(*user).f_op).mmap {
                Some(mmap) => mmap(user, area),
                None => ENODEV.to_errno(),
            }
        }
    }

    unsafe extern "C" fn open(area: *mut bindings::vm_area_struct) {
        // SAFETY: The area is one of ours.
        unsafe {
            let shim = Shim::of_area(area);
            if let Some(open) = (*shim.lower_area_ops).open {
                open(area);
            }
            W::area_added(shim.inode());
        }
    }

    unsafe extern "C" fn close(area: *mut bindings::vm_area_struct) {
        // SAFETY: The area is one of ours.
        unsafe {
            let shim = Shim::of_area(area);
            if let Some(close) = (*shim.lower_area_ops).close {
                close(area);
            }
            W::area_gone(shim.inode());
        }
    }

    unsafe extern "C" fn page_mkwrite(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The fault is in an area of ours. A filesystem without pages to be told of takes the generic function,
        // which the memory management would stand in for otherwise.
        unsafe {
            let shim = Shim::of_area(bindings::rvfs_fault_area(fault));
            let inode = shim.inode::<W::Fs>();
            let below = (*shim.lower_area_ops).page_mkwrite.unwrap_or(bindings::filemap_page_mkwrite);
            bindings::rvfs_start_pagefault(inode.as_ptr());
            let ret = below(fault);
            W::touched(inode);
            let mut start = 0;
            let mut end = 0;
            let ret = bindings::rvfs_fault_folio(fault, ret, &mut start, &mut end);
            if start < end {
                W::may_store(inode, start..end);
            }
            bindings::rvfs_end_pagefault(inode.as_ptr());
            ret
        }
    }
}

impl Mapping<'_> {
    /// Maps the file below instead of ours, and has every store announced to `W`.
    ///
    /// The area is one that [`Watch::area_added`] is *not* called for.
    pub(crate) fn map_watched<W: Watch>(&mut self, file: &File<W::Fs>) -> Result {
        let lower = LowerFile::open_again(file)?;
        let shim = KBox::<Shim>::new_uninit(GFP_KERNEL)?;
        self.map(&lower)?;
        self.watch::<W>(file, &lower, shim)
    }

    fn watch<W: Watch>(
        &mut self,
        file: &File<W::Fs>,
        lower: &ARef<LowerFile>,
        shim: KBox<core::mem::MaybeUninit<Shim>>,
    ) -> Result {
        let (area, lower) = (self.as_ptr(), lower.as_ptr());
        // SAFETY: The area is being set up, and has the file below as its own, which nobody else knows yet. Where this
        // fails, whoever asked for the mapping calls no operation of the area any more.
        unsafe {
            to_result(bindings::rvfs_area_is_ordinary(area))?;
            let area_ops = (*area).vm_ops;
            let shim = KBox::into_raw(KBox::write(
                shim,
                Shim {
                    file_ops: bindings::file_operations {
                        release: Some(Vtable::<W>::release),
                        fsync: Some(Vtable::<W>::fsync),
                        fallocate: Some(Vtable::<W>::fallocate),
                        mmap: Some(Vtable::<W>::mmap),
                        mmap_prepare: None,
                        ..*(*lower).f_op
                    },
                    area_ops: bindings::vm_operations_struct {
                        open: Some(Vtable::<W>::open),
                        close: Some(Vtable::<W>::close),
                        page_mkwrite: Some(Vtable::<W>::page_mkwrite),
                        // These make entries writable on their own account: for DAX, which is refused.
                        huge_fault: None,
                        pfn_mkwrite: None,
                        ..*area_ops
                    },
                    lower_file_ops: (*lower).f_op,
                    lower_area_ops: area_ops,
                    user: bindings::get_file(file.as_ptr()),
                },
            ));
            bindings::rvfs_area_ops_without_userfaultfd(&mut (*shim).area_ops);
            (*lower).f_op = &(*shim).file_ops;
            (*area).vm_ops = &(*shim).area_ops;
        }
        Ok(())
    }
}
