// SPDX-License-Identifier: GPL-2.0

//! Open files: ours, each with one of the filesystem below behind it.
//!
//! C headers: `include/linux/fs.h`, `include/linux/backing-file.h`.

use super::{
    bindings,
    dentry::{Dentry, LowerDentry},
    inode::{Inode, Locked},
    remap::Remap,
    FileSystem,
};
use core::{marker::PhantomData, ops::Range, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, from_result, to_result},
    ffi,
    iov::{IovIterDest, IovIterSource},
    prelude::*,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque,
};

/// `open(2)` flags that the filesystem below is not to see: they were obeyed above, or they ask
/// for durability, which is asked for separately.
const NOT_BELOW: u32 = bindings::O_CREAT
    | bindings::O_EXCL
    | bindings::O_NOCTTY
    | bindings::O_TRUNC
    | bindings::O_APPEND
    | bindings::O_SYNC
    | bindings::O_DSYNC;

/// Flags that `fcntl(F_SETFL)` may change and the file below has to follow.
const FOLLOWED: u32 = bindings::O_NONBLOCK | bindings::O_DIRECT;

/// An open file of filesystem `T`.
///
/// # Invariants
///
/// The file is ours and open, and its `private_data` is the file below, referenced until ours is
/// released.
#[repr(transparent)]
pub(crate) struct File<T> {
    inner: Opaque<bindings::file>,
    _fs: PhantomData<fn() -> T>,
}

impl<T: FileSystem> File<T> {
    /// # Safety
    ///
    /// `ptr` is a file that satisfies the invariants and stays for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *const bindings::file) -> &'a Self {
        // SAFETY: `File` is transparent; the rest is the caller's promise.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::file {
        self.inner.get()
    }

    /// Returns the inode that is open.
    pub(crate) fn inode(&self) -> &Inode<T> {
        // SAFETY: An open file holds its inode.
        unsafe { Inode::from_raw((*self.as_ptr()).f_inode) }
    }

    /// Returns the file below, its flags brought up to date.
    pub(crate) fn lower(&self) -> &LowerFile {
        // SAFETY: By the type's invariants.
        let lower = unsafe { LowerFile::from_raw((*self.as_ptr()).private_data.cast()) };
        // SAFETY: Both files are valid.
        unsafe {
            let flags = (&raw const (*self.as_ptr()).f_flags).read_volatile();
            if (flags ^ (&raw const (*lower.as_ptr()).f_flags).read_volatile()) & FOLLOWED != 0 {
                bindings::rvfs_file_sync_flags(lower.as_ptr(), flags, FOLLOWED);
            }
        }
        lower
    }

    /// Opens the file's inode below once more, to be read only.
    pub(crate) fn open_readonly(&self) -> Result<ARef<LowerFile>> {
        LowerFile::open(self.as_ptr(), self.inode(), bindings::O_RDONLY | bindings::O_LARGEFILE)
    }

    /// Returns what is to be durable when a write returns, if anything.
    pub(crate) fn wants_sync(&self) -> Option<Sync> {
        // SAFETY: The file is valid.
        Sync::from_raw(unsafe { bindings::rvfs_file_fsync_needed(self.as_ptr()) })
    }

    /// Strips set-id bits and file capabilities, as a write by this caller must.
    ///
    /// Calls the filesystem's own `setattr` and xattr operations.
    pub(crate) fn remove_privs(&self, _lock: &Locked<'_, T>) -> Result {
        // SAFETY: The file is valid and its inode locked.
        to_result(unsafe { bindings::file_remove_privs(self.as_ptr()) })
    }
}

/// A file of the filesystem below, opened on behalf of one of ours.
///
/// # Invariants
///
/// The file is a backing file, opened with [`NOT_BELOW`] taken off its flags.
#[repr(transparent)]
pub(crate) struct LowerFile {
    inner: Opaque<bindings::file>,
}

// SAFETY: Files may be used from any thread.
unsafe impl Send for LowerFile {}
// SAFETY: All methods through `&self` may run concurrently.
unsafe impl core::marker::Sync for LowerFile {}

// SAFETY: `get_file` and `fput` count references, and a file with references is not freed.
unsafe impl AlwaysRefCounted for LowerFile {
    fn inc_ref(&self) {
        // SAFETY: A shared reference means that the count is not zero.
        unsafe { bindings::get_file(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference and gives it up.
        unsafe { bindings::fput(obj.as_ptr().cast()) };
    }
}

impl LowerFile {
    /// # Safety
    ///
    /// `ptr` is a file that satisfies the invariants and stays for `'a`.
    unsafe fn from_raw<'a>(ptr: *const bindings::file) -> &'a Self {
        // SAFETY: `LowerFile` is transparent; the rest is the caller's promise.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::file {
        self.inner.get()
    }

    /// Opens the inode below `file` once more, as it is open.
    pub(super) fn open_again<T: FileSystem>(file: &File<T>) -> Result<ARef<Self>> {
        // SAFETY: The file is open.
        let flags = unsafe { bindings::rvfs_file_flags(file.lower().as_ptr()) };
        Self::open(file.as_ptr(), file.inode(), flags & !NOT_BELOW)
    }

    /// Returns the name by which it was opened.
    pub(crate) fn dentry(&self) -> &LowerDentry {
        // SAFETY: An open file holds its path.
        unsafe { LowerDentry::from_raw(bindings::rvfs_file_dentry(self.as_ptr())) }
    }

    fn open<T: FileSystem>(user: *mut bindings::file, inode: &Inode<T>, flags: u32) -> Result<ARef<Self>> {
        // SAFETY: The file is being opened or open, so its path is there; the caller's
        // credentials are valid during the call, and the file takes its own reference to them.
        unsafe {
            let dentry = Dentry::<T>::from_raw(bindings::rvfs_file_dentry(user));
            let path = inode.superblock().lower().path(dentry.lower());
            let file = from_err_ptr(bindings::backing_file_open(
                user,
                flags as ffi::c_int,
                path.as_ptr(),
                bindings::rvfs_current_cred(),
            ))?;
            let file = NonNull::new(file).ok_or(ENFILE)?;
            Ok(ARef::from_raw(file.cast()))
        }
    }

    /// Writes `data` at exactly `pos`, never synchronously; returns how much was written.
    pub(crate) fn write_at(&self, data: &mut [u8], pos: i64, mode: &WriteMode<'_>) -> Result<usize> {
        // SAFETY: The file is valid and the memory there; a write only reads it.
        let ret = unsafe {
            bindings::rvfs_lower_write(
                self.as_ptr(),
                data.as_mut_ptr().cast(),
                data.len(),
                pos,
                mode.direct,
                mode.nowait,
                mode.held.is_some(),
            )
        };
        bytes(ret)
    }

    /// Reads from `pos` into `out`, up to the end of the file; returns how much there was.
    pub(crate) fn read_at(&self, out: &mut [u8], pos: i64) -> Result<usize> {
        // SAFETY: The file is valid and the memory ours to write.
        bytes(unsafe { bindings::rvfs_lower_read(self.as_ptr(), out.as_mut_ptr().cast(), out.len(), pos) })
    }

    /// Keeps the filesystem below from being frozen while the guard lives.
    pub(crate) fn write_protection(&self) -> LowerWriteProtection<'_> {
        // SAFETY: The file is valid.
        unsafe { bindings::rvfs_file_start_write(self.as_ptr()) };
        LowerWriteProtection(self)
    }

    /// Makes a range durable; reports each writeback error once per open file.
    pub(crate) fn fsync(&self, range: Range<i64>, how: Sync) -> Result {
        // SAFETY: The file is valid.
        to_result(unsafe {
            bindings::vfs_fsync_range(self.as_ptr(), range.start, range.end, (how == Sync::Data).into())
        })
    }

    /// Allocates, frees or shifts a range. Takes write protection itself.
    pub(crate) fn fallocate(&self, mode: i32, offset: i64, len: i64) -> Result {
        // SAFETY: The file is valid.
        to_result(unsafe { bindings::vfs_fallocate(self.as_ptr(), mode, offset, len) })
    }

    /// Says how a range is going to be used.
    pub(crate) fn fadvise(&self, offset: i64, len: i64, advice: i32) -> Result {
        // SAFETY: The file is valid.
        to_result(unsafe { bindings::vfs_fadvise(self.as_ptr(), offset, len, advice) })
    }
}

/// How a file below is written.
#[derive(Clone, Copy, Default)]
pub(crate) struct WriteMode<'a> {
    /// Past the page cache.
    pub(crate) direct: bool,
    /// [`EAGAIN`] where it would have to wait.
    pub(crate) nowait: bool,
    /// Proof that the caller has the write protection, which is taken for the call otherwise.
    pub(crate) held: Option<&'a LowerWriteProtection<'a>>,
}

/// The filesystem below will not be frozen.
pub(crate) struct LowerWriteProtection<'a>(&'a LowerFile);

impl Drop for LowerWriteProtection<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken when the guard was made.
        unsafe { bindings::rvfs_file_end_write(self.0.as_ptr()) };
    }
}

/// How much is to be durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// The data, and what is needed to read it back (`fdatasync`, `O_DSYNC`).
    Data,
    /// All attributes too (`fsync`, `O_SYNC`).
    All,
}

impl Sync {
    fn from_raw(raw: ffi::c_int) -> Option<Self> {
        match raw {
            0 => None,
            1 => Some(Self::Data),
            _ => Some(Self::All),
        }
    }
}

/// Splits what a C function returned into bytes and error.
fn bytes(ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret as ffi::c_int))
}

fn to_ssize(result: Result<usize>) -> isize {
    match result {
        Ok(n) => n as isize,
        Err(e) => e.to_errno() as isize,
    }
}

/// A read or write of one of our files.
pub(crate) struct Kiocb<'a, T: FileSystem> {
    ptr: *mut bindings::kiocb,
    _file: PhantomData<&'a File<T>>,
}

impl<'a, T: FileSystem> Kiocb<'a, T> {
    /// Returns the file.
    pub(crate) fn file(&self) -> &'a File<T> {
        // SAFETY: The request holds the file.
        unsafe { File::from_raw((*self.ptr).ki_filp) }
    }

    fn flags(&self) -> u32 {
        // SAFETY: The request is valid.
        unsafe { (*self.ptr).ki_flags as u32 }
    }

    /// Returns the position in the file.
    pub(crate) fn pos(&self) -> i64 {
        // SAFETY: The request is valid.
        unsafe { (*self.ptr).ki_pos }
    }

    /// Moves the position.
    pub(crate) fn set_pos(&mut self, pos: i64) {
        // SAFETY: The request is valid and ours to change.
        unsafe { (*self.ptr).ki_pos = pos };
    }

    /// Returns whether the caller must not sleep.
    pub(crate) fn is_nowait(&self) -> bool {
        self.flags() & bindings::IOCB_NOWAIT != 0
    }

    /// Returns whether the page cache is to be passed by.
    pub(crate) fn is_direct(&self) -> bool {
        self.flags() & bindings::IOCB_DIRECT != 0
    }

    /// Returns what is to be durable when the write returns, if anything.
    pub(crate) fn wants_sync(&self) -> Option<Sync> {
        // SAFETY: The request is valid.
        Sync::from_raw(unsafe { bindings::rvfs_fsync_needed(self.ptr) })
    }

    /// Makes the checks that come before every write: limits, and the position where it appends.
    ///
    /// The inode must be locked and its size fresh. Shortens `from` to what may be written and
    /// returns its length.
    pub(crate) fn write_checks(&mut self, _lock: &Locked<'_, T>, from: &mut IovIterSource<'_>) -> Result<usize> {
        // SAFETY: Both are valid.
        bytes(unsafe { bindings::generic_write_checks(self.ptr, from.as_raw()) })
    }

    /// Strips set-id bits and file capabilities, as a write by this caller must. [`EAGAIN`] if there is something to
    /// strip and the caller must not wait.
    ///
    /// Calls the filesystem's own `setattr` and xattr operations.
    pub(crate) fn remove_privs(&self, _lock: &Locked<'_, T>) -> Result {
        // SAFETY: The request is valid and its inode locked. (Times are not touched: the inode is marked so.)
        to_result(unsafe { bindings::kiocb_modified(self.ptr) })
    }

    /// Reads through the file below.
    pub(crate) fn read_lower(&mut self, to: &mut IovIterDest<'_>) -> Result<usize> {
        let lower = self.file().lower();
        // SAFETY: All are valid; a request that is queued holds the files.
        bytes(unsafe { bindings::rvfs_read_iter(self.ptr, lower.as_ptr(), to.as_raw()) })
    }
}

/// A source of bytes for a write, copied once and with page faults switched off.
pub(crate) struct Source<'a, 'data>(&'a mut IovIterSource<'data>);

impl<'a, 'data> Source<'a, 'data> {
    /// Wraps the caller's buffers.
    pub(crate) fn new(iov: &'a mut IovIterSource<'data>) -> Self {
        Self(iov)
    }

    /// Returns how many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Brings the next `len` bytes into memory. May sleep, for ever if a page comes from a stuck
    /// filesystem. Returns how many are there; [`EFAULT`] if none.
    pub(crate) fn fault_in(&mut self, len: usize) -> Result<usize> {
        // SAFETY: The iterator is valid.
        let missing = unsafe { bindings::rvfs_fault_in_readable(self.0.as_raw(), len) };
        match len.saturating_sub(missing) {
            0 if len > 0 => Err(EFAULT),
            n => Ok(n),
        }
    }

    /// Copies to `out` what is in memory, up to the first byte that is not, and moves on.
    pub(crate) fn copy(&mut self, out: &mut [u8]) -> usize {
        // SAFETY: The iterator is valid and `out` ours to write.
        unsafe { bindings::rvfs_copy_from_iter_nofault(out.as_mut_ptr().cast(), out.len(), self.0.as_raw()) }
    }

    /// Moves back over the last `len` bytes copied.
    pub(crate) fn revert(&mut self, len: usize) {
        // SAFETY: Callers revert no more than they copied.
        unsafe { bindings::rvfs_iov_revert(self.0.as_raw(), len) };
    }
}

/// A pipe whose contents are to be written to a file.
pub(crate) struct Pipe<'a> {
    ptr: *mut bindings::pipe_inode_info,
    flags: u32,
    _pipe: PhantomData<&'a mut ()>,
}

impl Pipe<'_> {
    /// Gives up to `len` bytes to `sink`, a piece at a time, and removes what it took.
    ///
    /// Waits for a writer if the pipe is empty. The pipe is locked while `sink` runs. Ends when
    /// `sink` takes less than it was given.
    pub(crate) fn drain(
        &mut self,
        len: usize,
        pos: i64,
        sink: &mut dyn FnMut(&[u8]) -> Result<usize>,
    ) -> Result<usize> {
        unsafe extern "C" fn actor(data: *mut ffi::c_void, from: *const ffi::c_void, len: usize) -> ffi::c_int {
            // SAFETY: `data` is the sink passed below, and `from` a mapped part of a page.
            let (sink, piece) = unsafe {
                (
                    &mut *data.cast::<&mut dyn FnMut(&[u8]) -> Result<usize>>(),
                    core::slice::from_raw_parts(from.cast::<u8>(), len),
                )
            };
            from_result(|| Ok(ffi::c_int::try_from(sink(piece)?)?))
        }
        let mut sink = sink;
        // SAFETY: The pipe is valid, and the sink outlives the call.
        bytes(unsafe {
            bindings::rvfs_splice_from_pipe(self.ptr, len, self.flags, pos, (&raw mut sink).cast(), Some(actor))
        })
    }
}

/// A request to map one of our files.
pub(crate) struct Mapping<'a> {
    vma: *mut bindings::vm_area_struct,
    _vma: PhantomData<&'a mut ()>,
}

impl Mapping<'_> {
    pub(super) fn as_ptr(&self) -> *mut bindings::vm_area_struct {
        self.vma
    }

    fn has(&self, flag: bindings::vm_flags_t) -> bool {
        // SAFETY: The area is being set up and ours.
        unsafe { bindings::rvfs_vma_flags(self.vma) as bindings::vm_flags_t & flag != 0 }
    }

    /// Returns whether stores would go to the file.
    pub(crate) fn is_shared(&self) -> bool {
        self.has(bindings::VM_SHARED)
    }

    /// Returns whether stores are allowed, or may be later (`mprotect(2)`).
    pub(crate) fn may_be_written(&self) -> bool {
        self.has(bindings::VM_MAYWRITE)
    }

    /// Maps the file below instead of ours.
    pub(crate) fn map(&mut self, lower: &LowerFile) -> Result {
        // SAFETY: Both are valid; the area takes its own reference to the file.
        to_result(unsafe {
            let mut ctx =
                bindings::backing_file_ctx { cred: (*lower.as_ptr()).f_cred, accessed: None, end_write: None };
            bindings::backing_file_mmap(lower.as_ptr(), self.vma, &mut ctx)
        })
    }
}

/// A file being opened.
pub(crate) struct Opening<'a, T: FileSystem> {
    ptr: *mut bindings::file,
    inode: &'a Inode<T>,
}

impl<'a, T: FileSystem> Opening<'a, T> {
    pub(super) fn new(ptr: *mut bindings::file, inode: &'a Inode<T>) -> Self {
        Self { ptr, inode }
    }

    /// Returns the flags with which the file below is to be opened.
    pub(super) fn flags_below(&self) -> u32 {
        // SAFETY: The file is being opened and ours.
        unsafe {
            let mut flags = bindings::rvfs_file_flags(self.ptr) & !NOT_BELOW;
            if bindings::rvfs_file_mnt_noatime(self.ptr) {
                flags |= bindings::O_NOATIME;
            }
            flags
        }
    }

    /// Opens the inode below with the caller's flags and credentials.
    pub(crate) fn open_lower(&self) -> Result<ARef<LowerFile>> {
        let lower = LowerFile::open(self.ptr, self.inode, self.flags_below())?;
        // SAFETY: The file is being opened and ours.
        unsafe { adopt(self.ptr, &lower) };
        Ok(lower)
    }
}

/// What the file below can do, ours can.
///
/// # Safety
///
/// `file` is being opened and ours.
pub(super) unsafe fn adopt(file: *mut bindings::file, lower: &LowerFile) {
    // SAFETY: The caller's promise.
    unsafe {
        bindings::rvfs_file_clear_flags(
            file,
            bindings::O_CREAT | bindings::O_EXCL | bindings::O_NOCTTY | bindings::O_TRUNC,
        );
        let mode = bindings::rvfs_file_mode(lower.as_ptr());
        bindings::rvfs_file_add_mode(file, mode & (bindings::FMODE_CAN_ODIRECT | bindings::FMODE_NOWAIT));
    }
}

/// `ioctl(2)` commands that change nothing and that are asked of the file below. (What the VFS does itself, file
/// attributes and extents among it, comes by other ways.) All others are refused, known or not: who knows what they do.
const HARMLESS_IOCTLS: [u32; 2] = [bindings::FS_IOC_GETVERSION, bindings::FS_IOC_GETFSLABEL];

/// Operations on open files.
#[vtable]
pub(crate) trait FileOperations {
    /// The filesystem whose files these are.
    type Fs: FileSystem;

    /// Opens a file; returns the one below.
    fn open(file: &Opening<'_, Self::Fs>) -> Result<ARef<LowerFile>> {
        file.open_lower()
    }

    /// Reads. May return [`EIOCBQUEUED`](bindings::EIOCBQUEUED).
    fn read_iter(_: &mut Kiocb<'_, Self::Fs>, _: &mut IovIterDest<'_>) -> Result<usize> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Writes.
    fn write_iter(_: &mut Kiocb<'_, Self::Fs>, _: &mut IovIterSource<'_>) -> Result<usize> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Writes what comes out of a pipe, at `pos`.
    fn splice_write(_: &mut Pipe<'_>, _: &File<Self::Fs>, _pos: i64, _len: usize) -> Result<usize> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Maps the file.
    fn mmap(_: &File<Self::Fs>, _: &mut Mapping<'_>) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes the file durable: `range` includes its end, which is `i64::MAX` for all of it.
    fn fsync(_: &File<Self::Fs>, _range: Range<i64>, _how: Sync) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Allocates, frees or shifts a range.
    fn fallocate(_: &File<Self::Fs>, _mode: i32, _offset: i64, _len: i64) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Makes files share extents; returns how many bytes were done.
    fn remap(_: &Remap<'_, Self::Fs>) -> Result<i64> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Takes a hint about how a range is going to be used.
    fn fadvise(_: &File<Self::Fs>, _offset: i64, _len: i64, _advice: i32) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }
}

/// The functions that the kernel calls.
///
/// They are unsafe because they believe the VFS: that pointers are to objects of filesystem `T`, valid during the call,
/// and locked as `Documentation/filesystems/locking.rst` says of the operation.
pub(super) struct Vtable<T>(PhantomData<T>);

impl<F: FileOperations> Vtable<F> {
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
        from_result(|| {
            // SAFETY: The VFS opens a file of an inode of ours.
            let inode = unsafe { Inode::from_raw(inode) };
            let lower = F::open(&Opening { ptr: file, inode })?;
            // SAFETY: As above; `release` takes the reference back.
            unsafe { (*file).private_data = ARef::into_raw(lower).as_ptr().cast() };
            Ok(0)
        })
    }

    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
        // SAFETY: Nobody uses the file any more; it owns a reference to the one below.
        unsafe { bindings::fput((*file).private_data.cast()) };
        0
    }

    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: ffi::c_int,
    ) -> bindings::loff_t {
        // SAFETY: The file is ours and open. The position is ours, the file below knows limits,
        // holes and what directory positions mean; the lock keeps its own position to one caller.
        unsafe {
            if offset == 0 && whence as u32 == bindings::SEEK_CUR {
                return (*file).f_pos;
            }
            let file_ref = File::<F::Fs>::from_raw(file);
            let lower = file_ref.lower().as_ptr();
            let inode = file_ref.inode().as_ptr();
            bindings::rvfs_inode_lock(inode);
            (*lower).f_pos = (*file).f_pos;
            let ret = bindings::vfs_llseek(lower, offset, whence);
            (*file).f_pos = (*lower).f_pos;
            bindings::rvfs_inode_unlock(inode);
            ret
        }
    }

    unsafe extern "C" fn read_iter(kiocb: *mut bindings::kiocb, iter: *mut bindings::iov_iter) -> isize {
        let mut kiocb = Kiocb { ptr: kiocb, _file: PhantomData };
        // SAFETY: The VFS passes an iterator to write to.
        to_ssize(F::read_iter(&mut kiocb, unsafe { IovIterDest::from_raw(iter) }))
    }

    unsafe extern "C" fn write_iter(kiocb: *mut bindings::kiocb, iter: *mut bindings::iov_iter) -> isize {
        let mut kiocb = Kiocb { ptr: kiocb, _file: PhantomData };
        // SAFETY: The VFS passes an iterator to read from.
        to_ssize(F::write_iter(&mut kiocb, unsafe { IovIterSource::from_raw(iter) }))
    }

    unsafe extern "C" fn splice_read(
        file: *mut bindings::file,
        ppos: *mut bindings::loff_t,
        pipe: *mut bindings::pipe_inode_info,
        len: usize,
        flags: ffi::c_uint,
    ) -> isize {
        // SAFETY: The file is ours and open, and the rest is handed through.
        unsafe {
            let lower = File::<F::Fs>::from_raw(file).lower().as_ptr();
            bindings::rvfs_splice_read(file, lower, ppos, pipe, len, flags)
        }
    }

    unsafe extern "C" fn splice_write(
        pipe: *mut bindings::pipe_inode_info,
        file: *mut bindings::file,
        ppos: *mut bindings::loff_t,
        len: usize,
        flags: ffi::c_uint,
    ) -> isize {
        let mut pipe = Pipe { ptr: pipe, flags, _pipe: PhantomData };
        // SAFETY: The file is ours and open, the position the caller's to change.
        unsafe {
            let ret = F::splice_write(&mut pipe, File::from_raw(file), *ppos, len);
            if let Ok(n) = ret {
                *ppos = (*ppos).saturating_add(n as i64);
            }
            to_ssize(ret)
        }
    }

    unsafe extern "C" fn iterate_shared(file: *mut bindings::file, ctx: *mut bindings::dir_context) -> ffi::c_int {
        // SAFETY: The file is ours and open, its position locked by the VFS.
        unsafe {
            let lower = File::<F::Fs>::from_raw(file).lower().as_ptr();
            (*lower).f_pos = (*ctx).pos;
            bindings::iterate_dir(lower, ctx)
        }
    }

    unsafe extern "C" fn mmap(file: *mut bindings::file, vma: *mut bindings::vm_area_struct) -> ffi::c_int {
        let mut mapping = Mapping { vma, _vma: PhantomData };
        from_result(|| {
            // SAFETY: The file is ours and open.
            F::mmap(unsafe { File::from_raw(file) }, &mut mapping)?;
            Ok(0)
        })
    }

    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: bindings::loff_t,
        end: bindings::loff_t,
        datasync: ffi::c_int,
    ) -> ffi::c_int {
        let how = if datasync != 0 { Sync::Data } else { Sync::All };
        from_result(|| {
            // SAFETY: The file is ours and open.
            F::fsync(unsafe { File::from_raw(file) }, start..end, how)?;
            Ok(0)
        })
    }

    unsafe extern "C" fn fallocate(
        file: *mut bindings::file,
        mode: ffi::c_int,
        offset: bindings::loff_t,
        len: bindings::loff_t,
    ) -> ffi::c_long {
        // SAFETY: The file is ours and open.
        match F::fallocate(unsafe { File::from_raw(file) }, mode, offset, len) {
            Ok(()) => 0,
            Err(e) => e.to_errno() as ffi::c_long,
        }
    }

    unsafe extern "C" fn remap_file_range(
        from: *mut bindings::file,
        from_pos: bindings::loff_t,
        to: *mut bindings::file,
        to_pos: bindings::loff_t,
        len: bindings::loff_t,
        flags: ffi::c_uint,
    ) -> bindings::loff_t {
        // SAFETY: The VFS passes regular files of one superblock, one of which is ours.
        match unsafe { Remap::from_raw(from, from_pos, to, to_pos, len, flags) }.and_then(|request| F::remap(&request))
        {
            Ok(done) => done,
            Err(e) => e.to_errno().into(),
        }
    }

    unsafe extern "C" fn ioctl(file: *mut bindings::file, command: ffi::c_uint, argument: ffi::c_ulong) -> ffi::c_long {
        if !HARMLESS_IOCTLS.contains(&command) {
            return ENOTTY.to_errno() as ffi::c_long;
        }
        // SAFETY: The file is ours and open; the command says what the argument is.
        unsafe {
            let lower = File::<F::Fs>::from_raw(file).lower().as_ptr();
            bindings::rvfs_lower_ioctl(lower, command, argument)
        }
    }

    unsafe extern "C" fn fadvise(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        len: bindings::loff_t,
        advice: ffi::c_int,
    ) -> ffi::c_int {
        from_result(|| {
            // SAFETY: The file is ours and open.
            F::fadvise(unsafe { File::from_raw(file) }, offset, len, advice)?;
            Ok(0)
        })
    }

    /// Operations on regular files.
    pub(super) const REGULAR: &'static bindings::file_operations = &bindings::file_operations {
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: Some(Self::llseek),
        splice_read: Some(Self::splice_read),
        setlease: Some(bindings::generic_setlease),
        read_iter: if F::HAS_READ_ITER { Some(Self::read_iter) } else { None },
        write_iter: if F::HAS_WRITE_ITER { Some(Self::write_iter) } else { None },
        splice_write: if F::HAS_SPLICE_WRITE { Some(Self::splice_write) } else { None },
        mmap: if F::HAS_MMAP { Some(Self::mmap) } else { None },
        fsync: if F::HAS_FSYNC { Some(Self::fsync) } else { None },
        fallocate: if F::HAS_FALLOCATE { Some(Self::fallocate) } else { None },
        remap_file_range: if F::HAS_REMAP { Some(Self::remap_file_range) } else { None },
        fadvise: if F::HAS_FADVISE { Some(Self::fadvise) } else { None },
        unlocked_ioctl: Some(Self::ioctl),
        // What the file below cannot do without waiting, it says when it is asked.
        fop_flags: bindings::FOP_BUFFER_WASYNC,
        ..pin_init::zeroed()
    };

    /// Operations on directories.
    pub(super) const DIRECTORY: &'static bindings::file_operations = &bindings::file_operations {
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: Some(Self::llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        unlocked_ioctl: Some(Self::ioctl),
        setlease: Some(bindings::generic_setlease),
        fsync: if F::HAS_FSYNC { Some(Self::fsync) } else { None },
        ..pin_init::zeroed()
    };
}
