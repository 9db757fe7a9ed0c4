// SPDX-License-Identifier: GPL-2.0

//! Superblocks, and the filesystem type that makes them.
//!
//! C headers: `include/linux/fs.h`, `include/linux/fs_context.h`.

use super::{
    bindings,
    chardev::SuperblockId,
    claim,
    context::{self, MountContext},
    dentry,
    door::Door,
    eopnotsupp,
    inode::{self, Inode, InodeSlot, LowerInode},
    inode_ops,
    mount::{OwnedPath, PrivateMount},
    work::Work,
    xattr, FileSystem, Foreign,
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, Ordering},
};
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
    seq_file::SeqFile,
    sync::{aref::ARef, Arc},
    time::Jiffies,
    types::Opaque,
};

/// A superblock of filesystem `T`, or, without it, of one we know nothing about.
///
/// # Invariants
///
/// The superblock is valid. If `T` is a [`FileSystem`], its `s_fs_info` is an [`Info<T>`].
#[repr(transparent)]
pub(crate) struct SuperBlock<T = Foreign> {
    inner: Opaque<bindings::super_block>,
    _fs: PhantomData<fn() -> T>,
}

/// A superblock of the filesystem below.
pub(crate) type LowerSuperBlock = SuperBlock<Foreign>;

// SAFETY: Superblocks may be used from any thread.
unsafe impl<T> Send for SuperBlock<T> {}
// SAFETY: All methods through `&self` may run concurrently.
unsafe impl<T> Sync for SuperBlock<T> {}

/// What is kept with one of our superblocks.
pub(super) struct Info<T: FileSystem> {
    lower: Arc<PrivateMount>,
    /// Where in the errors of the filesystem below ours has read to.
    wb_err: UnsafeCell<u32>,
    work: Work,
    door: Arc<Door<T>>,
    data: T::SuperData,
}

impl<T> SuperBlock<T> {
    /// Makes a reference of a pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a superblock that satisfies the invariants of `SuperBlock<T>` and stays for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *const bindings::super_block) -> &'a Self {
        // SAFETY: `SuperBlock` is transparent; the rest is the caller's promise.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::super_block {
        self.inner.get()
    }

    /// Returns the device number that `stat(2)` shows.
    pub(crate) fn dev(&self) -> u32 {
        // SAFETY: The superblock is valid and the number constant.
        unsafe { (*self.as_ptr()).s_dev }
    }

    /// Returns the size of a block in bytes.
    pub(crate) fn block_size(&self) -> i64 {
        // SAFETY: The superblock is valid and the size constant.
        unsafe { (*self.as_ptr()).s_blocksize as i64 }
    }
}

/// A filesystem that is not frozen, and will not be.
pub(crate) struct Thawed<'a, T: FileSystem>(&'a SuperBlock<T>);

impl<T: FileSystem> Drop for Thawed<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The superblock is valid, and `SuperBlock::try_keep_thawed` made this with the protection.
        unsafe { bindings::rvfs_sb_end_write(self.0.as_ptr()) };
    }
}

impl SuperBlock<Foreign> {
    /// Returns the name of the filesystem's type.
    pub(crate) fn type_name(&self) -> &CStr {
        // SAFETY: A superblock's type and its name stay as long as the superblock.
        unsafe { CStr::from_char_ptr(bindings::rvfs_sb_type_name(self.as_ptr())) }
    }

    /// Returns how many filesystems are stacked below this one.
    pub(crate) fn stack_depth(&self) -> i32 {
        // SAFETY: The superblock is valid and the number constant.
        unsafe { (*self.as_ptr()).s_stack_depth }
    }

    /// Returns the filesystem's UUID, zero if it has none.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        // SAFETY: Both are valid.
        unsafe { bindings::rvfs_sb_uuid(self.as_ptr(), uuid.as_mut_ptr()) };
        uuid
    }

    /// Returns the number of the filesystem's type, as `statfs(2)` shows it.
    pub(crate) fn magic(&self) -> usize {
        // SAFETY: The superblock is valid and the number constant.
        unsafe { (*self.as_ptr()).s_magic }
    }

    /// Returns whether the filesystem shows this option of its own in `/proc/mounts`. Sleeps.
    pub(crate) fn shows_option(&self, option: &CStr) -> Result<bool> {
        // SAFETY: The superblock is valid and mounted, the option a string.
        let ret = unsafe { bindings::rvfs_sb_shows_option(self.as_ptr(), option.as_char_ptr()) };
        to_result(ret)?;
        Ok(ret != 0)
    }

    /// Returns whether file handles name its objects, and find them again.
    pub(crate) fn has_handles(&self) -> bool {
        // SAFETY: The superblock is valid.
        unsafe { bindings::rvfs_sb_can_encode(self.as_ptr()) }
    }
}

impl<T: FileSystem> SuperBlock<T> {
    fn info(&self) -> &Info<T> {
        // SAFETY: By the type's invariants.
        unsafe { &*(*self.as_ptr()).s_fs_info.cast() }
    }

    /// Returns what the filesystem keeps with the superblock.
    pub(crate) fn data(&self) -> &T::SuperData {
        &self.info().data
    }

    /// Returns our mount of the filesystem below.
    pub(crate) fn lower(&self) -> &Arc<PrivateMount> {
        &self.info().lower
    }

    /// Keeps the filesystem from being frozen as long as the result lives; `None` if it is frozen, or is to be. Never sleeps.
    pub(crate) fn try_keep_thawed(&self) -> Option<Thawed<'_, T>> {
        // SAFETY: The superblock is valid.
        unsafe { bindings::rvfs_sb_try_start_write(self.as_ptr()) }.then(|| Thawed(self))
    }

    /// Has [`FileSystem::background`] run as soon as possible. Never sleeps.
    pub(crate) fn run_background(&self) {
        self.info().work.run();
    }

    /// Has [`FileSystem::background`] run after this time, unless it is to run anyway, sooner or later. Never sleeps.
    pub(crate) fn run_background_in(&self, delay: Jiffies) {
        self.info().work.run_in(delay);
    }

    /// Waits until [`FileSystem::background`] has ended, begins it now if it was asked for, and lets it run no more. Sleeps.
    pub(crate) fn stop_background(&self) {
        self.info().work.stop();
    }

    /// Writes everything of the filesystem below to its device and waits for that.
    ///
    /// The caller holds our superblock's `s_umount`, as it is around `sync_fs`. Writeback errors
    /// seen below are handed on to those who watch this superblock for errors (`syncfs`).
    pub(crate) fn sync_lower(&self) -> Result {
        // SAFETY: Both superblocks are valid; the cursor is used by this function alone, under
        // its lock.
        to_result(unsafe {
            bindings::rvfs_sync_lower(self.as_ptr(), self.lower().superblock().as_ptr(), self.info().wb_err.get())
        })
    }

    /// Calls `visit` with each of our inodes in memory that has no name, and maybe with some that have one. Sleeps.
    pub(crate) fn each_unnamed(&self, mut visit: &mut dyn FnMut(&Inode<T>)) {
        unsafe extern "C" fn call<T: FileSystem>(data: *mut kernel::ffi::c_void, inode: *mut bindings::inode) {
            // SAFETY: `data` is what is passed below, and the inode one of ours, complete and referenced.
            let (visit, inode) =
                unsafe { (&mut *data.cast::<&mut dyn FnMut(&Inode<T>)>(), Inode::<T>::from_raw(inode)) };
            visit(inode);
        }
        // SAFETY: The superblock is valid, all its inodes are stacked, and `visit` is there during the call.
        unsafe { bindings::rvfs_each_unnamed(self.as_ptr(), (&raw mut visit).cast(), Some(call::<T>)) };
    }

    /// Returns our inode on top of `lower`, making it if there is none. Sleeps.
    pub(crate) fn stack(&self, lower: &LowerInode) -> Result<ARef<Inode<T>>> {
        if lower.is_casefolded() || lower.is_dax() {
            return Err(eopnotsupp());
        }
        // SAFETY: The superblock is valid; the callbacks treat the key as what it is. A new
        // inode takes a reference to the one below (`set`).
        let ptr = unsafe {
            bindings::iget5_locked(
                self.as_ptr(),
                lower.as_ptr() as u64,
                Some(Callbacks::<T>::test),
                Some(Callbacks::<T>::set),
                lower.as_ptr().cast(),
            )
        };
        let ptr = NonNull::new(ptr).ok_or(ENOMEM)?;
        // SAFETY: `iget5_locked` returned a reference.
        if !unsafe { bindings::rvfs_inode_is_new(ptr.as_ptr()) } {
            // SAFETY: As above; an inode that is not new is complete.
            return Ok(unsafe { ARef::from_raw(ptr.cast()) });
        }
        let data = match T::inode_data(self, lower) {
            Ok(data) => data,
            Err(e) => {
                // SAFETY: The inode is new, and ours to fail. Eviction copes without data.
                unsafe { bindings::iget_failed(ptr.as_ptr()) };
                return Err(e);
            }
        };
        // SAFETY: The inode is new: nobody else reads or writes it before it is unlocked.
        unsafe {
            let slot: *mut InodeSlot<T::InodeData> = ptr.as_ptr().cast();
            InodeSlot::complete(slot, data);
            bindings::rvfs_inode_fill(ptr.as_ptr(), lower.as_ptr());
            inode_ops::set_operations::<T>(ptr.as_ptr());
            bindings::unlock_new_inode(ptr.as_ptr());
            Ok(ARef::from_raw(ptr.cast()))
        }
    }
}

/// What the VFS calls back, apart from the operations of files and inodes.
///
/// They are unsafe because they believe the VFS: that pointers are to objects of filesystem `T`, valid during the call,
/// and locked as `Documentation/filesystems/locking.rst` says of the operation.
pub(super) struct Callbacks<T>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    unsafe extern "C" fn test(inode: *mut bindings::inode, key: *mut kernel::ffi::c_void) -> kernel::ffi::c_int {
        // SAFETY: The inode is valid; the pointer is compared and not followed.
        unsafe { ((*inode).i_private == key).into() }
    }

    unsafe extern "C" fn set(inode: *mut bindings::inode, key: *mut kernel::ffi::c_void) -> kernel::ffi::c_int {
        // SAFETY: The inode is new, and the key an inode that `stack` has a reference to.
        unsafe {
            bindings::ihold(key.cast());
            (*inode).i_private = key;
        }
        0
    }

    unsafe extern "C" fn alloc_inode(sb: *mut bindings::super_block) -> *mut bindings::inode {
        let cache = T::inode_cache().ptr.load(Ordering::Relaxed);
        // SAFETY: The cache exists while the type is registered, and was made for this slot.
        unsafe {
            let slot: *mut InodeSlot<T::InodeData> = bindings::rvfs_alloc_inode_sb(sb, cache).cast();
            if !slot.is_null() {
                InodeSlot::reset(slot);
            }
            slot.cast()
        }
    }

    unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
        let cache = T::inode_cache().ptr.load(Ordering::Relaxed);
        // SAFETY: A grace period has passed since the inode was evicted; nobody has it any more.
        unsafe {
            InodeSlot::<T::InodeData>::reset(inode.cast());
            bindings::kmem_cache_free(cache, inode.cast());
        }
    }

    unsafe extern "C" fn evict_inode(inode: *mut bindings::inode) {
        // SAFETY: The inode is being evicted: no references are left. The pointer to the inode
        // below stays for readers in RCU walks, the reference goes.
        unsafe {
            if InodeSlot::<T::InodeData>::is_complete(inode.cast()) {
                T::evict(Inode::from_raw(inode));
            }
            bindings::rvfs_inode_evict(inode);
            let lower = (*inode).i_private;
            if !lower.is_null() {
                bindings::iput(lower.cast());
            }
        }
    }

    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        buf: *mut bindings::opaque_kstatfs,
    ) -> kernel::ffi::c_int {
        // SAFETY: The VFS passes a dentry of ours and a buffer to fill.
        unsafe {
            let dentry = dentry::Dentry::<T>::from_raw(dentry);
            let path = dentry.superblock().lower().path(dentry.lower());
            let ret = bindings::vfs_statfs(path.as_ptr(), buf.cast());
            if ret == 0 {
                (*buf.cast::<bindings::kstatfs>()).f_type = T::MAGIC;
            }
            ret
        }
    }

    unsafe extern "C" fn sync_fs(sb: *mut bindings::super_block, wait: kernel::ffi::c_int) -> kernel::ffi::c_int {
        // SAFETY: The VFS passes a superblock of ours, mounted or being unmounted.
        match T::sync_fs(unsafe { SuperBlock::from_raw(sb) }, wait != 0) {
            Ok(()) => 0,
            Err(e) => e.to_errno(),
        }
    }

    unsafe extern "C" fn background(sb: *mut bindings::super_block) {
        // SAFETY: The superblock is ours, and stays until this has ended (`kill_sb`).
        T::background(unsafe { SuperBlock::from_raw(sb) });
    }

    /// The VFS has stopped those who change something, and called `sync_fs`: that is all there is to freezing.
    unsafe extern "C" fn freeze_fs(_: *mut bindings::super_block) -> kernel::ffi::c_int {
        0
    }

    /// The VFS lets go on whom it has stopped.
    unsafe extern "C" fn unfreeze_fs(_: *mut bindings::super_block) -> kernel::ffi::c_int {
        0
    }

    unsafe extern "C" fn show_options(m: *mut bindings::seq_file, root: *mut bindings::dentry) -> kernel::ffi::c_int {
        // SAFETY: The VFS passes the root of a superblock of ours, and a file to print to.
        unsafe {
            let sb = SuperBlock::<T>::from_raw((*root).d_sb);
            T::show_options(sb.data(), SeqFile::from_raw(m));
        }
        0
    }

    unsafe extern "C" fn kill_sb(sb: *mut bindings::super_block) {
        // SAFETY: The superblock is ours, and this is its end. `s_fs_info` was set before anything
        // could fail, and nobody uses it once the superblock is shut down.
        unsafe {
            let info: *mut Info<T> = (*sb).s_fs_info.cast();
            if let Some(info) = info.as_ref() {
                info.door.close();
            }
            if !(*sb).s_root.is_null() {
                let sb = SuperBlock::<T>::from_raw(sb);
                T::unmounting(sb);
                sb.stop_background();
            }
            bindings::kill_anon_super(sb);
            if let Some(info) = NonNull::new(info) {
                let info = KBox::from_raw(info.as_ptr());
                T::unmounted(&info.data);
            }
        }
    }

    const SUPER: &'static bindings::super_operations = &bindings::super_operations {
        alloc_inode: Some(Self::alloc_inode),
        free_inode: Some(Self::free_inode),
        // An inode without users goes at once, and with it the hold on the inode below.
        drop_inode: Some(bindings::inode_just_drop),
        evict_inode: Some(Self::evict_inode),
        statfs: Some(Self::statfs),
        sync_fs: Some(Self::sync_fs),
        freeze_fs: Some(Self::freeze_fs),
        unfreeze_fs: Some(Self::unfreeze_fs),
        show_options: Some(Self::show_options),
        ..pin_init::zeroed()
    };

    /// Makes a superblock for the mount that `ctx` describes, and its root.
    pub(super) fn get_tree(ctx: &mut MountContext<'_, T>) -> Result {
        let path = OwnedPath::lookup_directory(ctx.source()?)?;
        let fc = ctx.as_ptr();
        // SAFETY: The context is valid, and `set_anon_super_fc` right for a filesystem without
        // a device.
        let sb = from_err_ptr(unsafe { bindings::sget_fc(fc.cast(), None, Some(bindings::set_anon_super_fc)) })?;
        match Self::fill(ctx, &path, sb) {
            Ok(root) => {
                // SAFETY: The superblock is complete, and stays until `kill_sb` closes the door; the context takes a
                // reference to its root.
                unsafe {
                    (*sb).s_root = root;
                    (*sb).s_flags |= bindings::SB_ACTIVE as usize;
                    (*fc).root = bindings::rvfs_dget(root);
                    SuperBlock::<T>::from_raw(sb).info().door.open(sb);
                }
                Ok(())
            }
            Err(e) => {
                // SAFETY: The superblock is ours, its `s_umount` held; `kill_sb` cleans up.
                unsafe { bindings::deactivate_locked_super(sb) };
                Err(e)
            }
        }
    }

    /// Fills a new superblock; returns its root.
    fn fill(
        ctx: &MountContext<'_, T>,
        path: &OwnedPath,
        sb: *mut bindings::super_block,
    ) -> Result<*mut bindings::dentry> {
        // The memory first: what `mount` makes is taken back by `kill_sb` alone.
        let info = KBox::<Info<T>>::new_uninit(GFP_KERNEL)?;
        // SAFETY: The work goes with the information, which `kill_sb` frees before the superblock goes.
        let work = unsafe { Work::new(sb, Self::background) }?;
        let door = Door::new()?;
        let (lower, data) = T::mount(ctx, path, SuperblockId::new(sb), &door)?;
        // SAFETY: The superblock below is valid.
        let wb_err = unsafe { bindings::rvfs_sample_wb_err(lower.superblock().as_ptr()) };
        let info = KBox::into_raw(KBox::write(info, Info { lower, wb_err: UnsafeCell::new(wb_err), work, door, data }));
        // SAFETY: The superblock is new, its `s_umount` held; nobody else uses it yet. From here
        // on `kill_sb` frees the information.
        let sb = unsafe {
            (*sb).s_fs_info = info.cast();
            (*sb).s_op = Self::SUPER;
            (*sb).s_magic = T::MAGIC as usize;
            (*sb).s_xattr = xattr::Vtable::<T>::HANDLERS.0.as_ptr();
            bindings::set_default_d_op(sb, dentry::Vtable::<T>::TABLE);
            bindings::rvfs_sb_copy_limits(sb, (*info).lower.superblock().as_ptr());
            if (*info).lower.is_readonly() {
                (*sb).s_flags |= bindings::SB_RDONLY as usize;
            }
            SuperBlock::<T>::from_raw(sb)
        };
        Self::make_root(sb)
    }

    fn make_root(sb: &SuperBlock<T>) -> Result<*mut bindings::dentry> {
        let lower = sb.lower().root().inode().ok_or(ENOENT)?;
        let inode = ARef::into_raw(sb.stack(lower)?);
        // SAFETY: `d_make_root` takes over the reference, whether it succeeds or not; the root is
        // not visible before it is returned.
        unsafe {
            let root = bindings::d_make_root(inode.as_ptr().cast());
            if root.is_null() {
                return Err(ENOMEM);
            }
            (*root).d_fsdata = bindings::rvfs_dget(sb.lower().root().as_ptr()).cast();
            Ok(root)
        }
    }
}

/// The slabs that a filesystem's inodes are cut from.
pub(crate) struct InodeCache {
    ptr: AtomicPtr<bindings::kmem_cache>,
}

impl InodeCache {
    /// Makes one without slabs; [`Registration`] gets them.
    pub(crate) const fn new() -> Self {
        Self { ptr: AtomicPtr::new(ptr::null_mut()) }
    }
}

/// A filesystem type that the kernel knows about.
///
/// # Invariants
///
/// `fs_type` is registered while this exists.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: FileSystem> {
    #[pin]
    fs_type: Opaque<bindings::file_system_type>,
    _fs: PhantomData<T>,
}

// SAFETY: Registering and unregistering may happen on any thread.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: There are no methods.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    /// Registers the type. A module does this once in its life.
    pub(crate) fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Modules do this once, and nothing is mounted before.
        unsafe { claim::init() };
        try_pin_init!(Self {
            fs_type <- Opaque::try_ffi_init(move |slot: *mut bindings::file_system_type| {
                // SAFETY: The constructor suits the slots, which begin with the inode.
                let cache = unsafe {
                    bindings::rvfs_inode_cache_create(
                        T::INODE_CACHE_NAME.as_char_ptr(),
                        size_of::<InodeSlot<T::InodeData>>() as u32,
                        align_of::<InodeSlot<T::InodeData>>() as u32,
                        Some(inode::slot_ctor::<T::InodeData>),
                    )
                };
                if cache.is_null() {
                    return Err(ENOMEM);
                }
                T::inode_cache().ptr.store(cache, Ordering::Relaxed);
                // SAFETY: The slot is ours to write, is pinned, and stays until unregistered.
                let ret = to_result(unsafe {
                    slot.write(bindings::file_system_type {
                        name: T::NAME.as_char_ptr(),
                        init_fs_context: Some(context::Vtable::<T>::init_fs_context),
                        kill_sb: Some(Callbacks::<T>::kill_sb),
                        owner: module.as_ptr(),
                        ..pin_init::zeroed()
                    });
                    bindings::register_filesystem(slot)
                });
                if ret.is_err() {
                    // SAFETY: Nothing was allocated from the cache.
                    unsafe { bindings::kmem_cache_destroy(cache) };
                }
                ret
            }),
            _fs: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T: FileSystem> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type's invariants. No superblock is left, or the module could not go;
        // inodes may still wait for a grace period.
        unsafe {
            bindings::unregister_filesystem(self.fs_type.get());
            bindings::rvfs_rcu_barrier();
            bindings::kmem_cache_destroy(T::inode_cache().ptr.load(Ordering::Relaxed));
        }
    }
}
