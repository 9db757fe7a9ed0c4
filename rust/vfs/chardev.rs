// SPDX-License-Identifier: GPL-2.0

//! A character device of the misc class.
//!
//! The kernel crate's `miscdevice` can neither be polled nor does an open descriptor pin the module; this can, and
//! does.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::bindings;
use kernel::error::to_result;
use kernel::ffi;
use kernel::fs::File;
use kernel::mm::virt::VmaNew;
use kernel::prelude::*;
use kernel::sync::poll::PollTable;
use kernel::types::Opaque;

/// What stands behind one open descriptor of a device.
///
/// Calls come in any order, at the same time and from several tasks; `release` is dropping.
pub(crate) trait CharDevice: Send + Sync + Sized + 'static {
    /// Name in `/dev`; the node belongs to root, with mode 0600.
    const NAME: &'static CStr;

    /// A descriptor is being opened. May sleep.
    fn open() -> Result<Pin<KBox<Self>>>;

    /// `ioctl(2)`, of 32-bit callers too. `argument` is as the caller gave it. May sleep.
    fn ioctl(&self, command: u32, argument: usize) -> Result<isize>;

    /// `mmap(2)` from the `first`-th page on.
    fn mmap(&self, area: &VmaNew, first: usize) -> Result;

    /// `poll(2)`: which of `POLL*` hold. May sleep.
    fn poll(&self, file: &File, table: &PollTable<'_>) -> u32;
}

/// A device that is there until this is dropped.
///
/// # Invariants
///
/// `inner` is registered by `misc_register`.
#[repr(transparent)]
#[pin_data(PinnedDrop)]
pub(crate) struct CharDeviceRegistration<T: CharDevice> {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    _device: PhantomData<T>,
}

// SAFETY: `misc_deregister` may be called from any task.
unsafe impl<T: CharDevice> Send for CharDeviceRegistration<T> {}
// SAFETY: There are no methods.
unsafe impl<T: CharDevice> Sync for CharDeviceRegistration<T> {}

impl<T: CharDevice> CharDeviceRegistration<T> {
    /// Makes the device. From here on it may be opened.
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                let device = bindings::miscdevice {
                    minor: bindings::MISC_DYNAMIC_MINOR as ffi::c_int,
                    name: kernel::str::as_char_ptr_in_const_context(T::NAME),
                    fops: &Operations::<T>::TABLE,
                    mode: 0o600,
                    ..pin_init::zeroed()
                };
                // SAFETY: The slot is ours to initialise.
                unsafe { slot.write(device) };
                // SAFETY: What was written stays where it is, pinned, until it is deregistered on drop.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
            _device: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T: CharDevice> PinnedDrop for CharDeviceRegistration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered, by the type's invariants.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}

struct Operations<T>(PhantomData<T>);

impl<T: CharDevice> Operations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        mmap: Some(Self::mmap),
        poll: Some(Self::poll),
        llseek: Some(bindings::noop_llseek),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `file` is one that [`Self::open`] succeeded for and [`Self::release`] was not called for, and stays so for `'a`.
    unsafe fn device<'a>(file: *mut bindings::file) -> &'a T {
        // SAFETY: `open` stored a pointer to a `T` that lives until `release`.
        unsafe { &*(*file).private_data.cast::<T>() }
    }

    /// # Safety
    ///
    /// `inode` and `file` are those of a file of this device that is being opened.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
        // SAFETY: Both are those of a file being opened.
        let result = unsafe { bindings::nonseekable_open(inode, file) };
        if result != 0 {
            return result;
        }
        match T::open() {
            Ok(device) => {
                // SAFETY: It is moved nowhere: the other operations borrow it, `release` pins it again.
                let device = KBox::into_raw(unsafe { Pin::into_inner_unchecked(device) });
                // SAFETY: The file is being opened: its private data is ours to set.
                unsafe { (*file).private_data = device.cast() };
                0
            }
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// `file` is one that [`Self::open`] succeeded for, and this is the last operation on it.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
        // SAFETY: `open` stored a pointer made by `KBox::into_raw`; this is the last operation on the file.
        let device = unsafe { KBox::from_raw((*file).private_data.cast::<T>()) };
        drop(Pin::from(device));
        0
    }

    /// # Safety
    ///
    /// `file` is one that [`Self::open`] succeeded for and [`Self::release`] was not called for.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, command: ffi::c_uint, argument: ffi::c_ulong) -> ffi::c_long {
        // SAFETY: Called between `open` and `release`.
        match unsafe { Self::device(file) }.ioctl(command, argument) {
            Ok(value) => value as ffi::c_long,
            Err(error) => error.to_errno() as ffi::c_long,
        }
    }

    /// # Safety
    ///
    /// As for [`Self::ioctl`]; `vma` is being set up for it.
    unsafe extern "C" fn mmap(file: *mut bindings::file, vma: *mut bindings::vm_area_struct) -> ffi::c_int {
        // SAFETY: `vma` is being set up, for the duration of this call.
        let area = unsafe { VmaNew::from_raw(vma) };
        // SAFETY: As above; the field is plain data.
        let first = unsafe { (*vma).vm_pgoff };
        // SAFETY: Called between `open` and `release`.
        match unsafe { Self::device(file) }.mmap(area, first) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// As for [`Self::ioctl`]; `table` is null or valid for this call.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: Null or valid for the duration of this call.
        let table = unsafe { PollTable::from_raw(table) };
        // SAFETY: The file is valid for the duration of this call, which no `fdget_pos` section surrounds.
        let borrowed = unsafe { File::from_raw_file(file) };
        // SAFETY: Called between `open` and `release`.
        unsafe { Self::device(file) }.poll(borrowed, &table)
    }
}

/// Whether the calling task has `CAP_SYS_ADMIN` in the initial user namespace.
pub(crate) fn capable_sys_admin() -> bool {
    // SAFETY: Always safe in a task's context.
    unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as ffi::c_int) }
}

/// A reference that keeps this module from being unloaded.
///
/// Both ends need somebody else who keeps the module for the moment: an open descriptor of a device of ours, or a
/// mounted filesystem.
pub(crate) struct ModulePin(());

impl ModulePin {
    /// Takes the reference.
    pub(crate) fn new() -> Self {
        // SAFETY: The code that runs here is the module's, so it is there, and kept by the caller's own reference.
        unsafe { bindings::__module_get(crate::THIS_MODULE.as_ptr()) };
        Self(())
    }
}

impl Drop for ModulePin {
    fn drop(&mut self) {
        // SAFETY: The reference was taken in `new`.
        unsafe { bindings::module_put(crate::THIS_MODULE.as_ptr()) };
    }
}

/// A descriptor of the calling task, of any kind, `O_PATH` too, held open.
pub(crate) struct AnyFile(NonNull<bindings::file>);

impl AnyFile {
    /// The file behind a descriptor. `EBADF` if there is none.
    pub(crate) fn get(fd: i32) -> Result<Self> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: Any number is fine.
        let file = unsafe { bindings::fget_raw(fd) };
        NonNull::new(file).map(Self).ok_or(EBADF)
    }

    /// Which filesystem it is open on. It stays mounted for as long as this file is held.
    pub(crate) fn superblock(&self) -> SuperblockId {
        // SAFETY: The reference keeps the file; an open file has an inode, and an inode a superblock, for good.
        let superblock = unsafe { (*(*self.0.as_ptr()).f_inode).i_sb };
        SuperblockId::new(superblock)
    }
}

impl Drop for AnyFile {
    fn drop(&mut self) {
        // SAFETY: The reference was taken in `get`.
        unsafe { bindings::fput(self.0.as_ptr()) };
    }
}

/// Tells mounted filesystems apart. Only compared, never followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SuperblockId(usize);

impl SuperblockId {
    /// The id of a superblock, for as long as it is mounted.
    pub(crate) fn new(superblock: *const bindings::super_block) -> Self {
        Self(superblock as usize)
    }
}
