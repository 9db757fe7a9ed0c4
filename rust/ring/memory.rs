// SPDX-License-Identifier: GPL-2.0

//! The memory of a ring: its pages, how the kernel sees them and how a consumer does.
//!
//! The pages hold, in this order, one [`Control`], the commit queue and the data. The kernel maps the data's pages
//! twice in a row, so that no record wraps; user space maps what it wants of them, read-only. All memory is taken when
//! the ring is made. Who may write which byte is decided in [`book`](super::book); this file holds the `unsafe` that
//! follows from it.
//!
//! C header: [`include/linux/vmalloc.h`](srctree/include/linux/vmalloc.h)

use core::mem::{align_of, offset_of, size_of};
use core::ptr::NonNull;

use kernel::alloc::flags::__GFP_ZERO;
use kernel::ffi;
use kernel::mm::virt::{flags, VmaNew};
use kernel::page::{Page, PAGE_SIZE};
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::Arc;

use super::book::{Queue, Taken};
use crate::format::uapi::{Control, QueueEntry};

extern "C" {
    fn rring_map(pages: *const *mut ffi::c_void, count: ffi::c_uint) -> *mut ffi::c_void;
    fn rring_unmap(address: *const ffi::c_void);
}

/// [`Control`] as the kernel writes it.
#[repr(C)]
pub(crate) struct ControlWords {
    /// See [`Control::commits`].
    pub(crate) commits: Atomic<u64>,
    /// See [`Control::committed`].
    pub(crate) committed: Atomic<u64>,
    /// See [`Control::acknowledged`].
    pub(crate) acknowledged: Atomic<u64>,
    /// See [`Control::wanted`].
    pub(crate) wanted: Atomic<u64>,
}

const _: () = {
    assert!(size_of::<ControlWords>() == size_of::<Control>());
    assert!(offset_of!(ControlWords, commits) == offset_of!(Control, commits));
    assert!(offset_of!(ControlWords, committed) == offset_of!(Control, committed));
    assert!(offset_of!(ControlWords, acknowledged) == offset_of!(Control, acknowledged));
    assert!(offset_of!(ControlWords, wanted) == offset_of!(Control, wanted));
    assert!(align_of::<QueueEntry>() <= PAGE_SIZE && PAGE_SIZE % size_of::<QueueEntry>() == 0);
};

/// Where things are in the pages, in bytes from the first one.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Offset of the queue.
    pub(crate) queue: usize,
    /// Number of entries of the queue; a power of two.
    pub(crate) entries: usize,
    /// Offset of the data.
    pub(crate) data: usize,
    /// Length of the data; a power of two.
    pub(crate) size: usize,
}

impl Layout {
    /// The layout of a ring with `size` bytes of data and `entries` queue entries, both powers of two.
    fn new(size: usize, entries: usize) -> Result<Self> {
        if !size.is_power_of_two() || !entries.is_power_of_two() || size < PAGE_SIZE {
            return Err(EINVAL);
        }
        let queue = PAGE_SIZE;
        let bytes = entries.checked_mul(size_of::<QueueEntry>()).ok_or(EINVAL)?;
        let data = bytes.checked_next_multiple_of(PAGE_SIZE).and_then(|n| n.checked_add(queue)).ok_or(EINVAL)?;
        data.checked_add(size).and_then(|end| end.checked_add(size)).ok_or(EINVAL)?;
        Ok(Self { queue, entries, data, size })
    }
}

/// The pages of a ring and the kernel's mapping of them.
///
/// # Invariants
///
/// - `base` points to a mapping, writable and valid until drop, of `pages` in order, followed by the pages from
///   `layout.data` on once more: `layout.data + 2 * layout.size` bytes.
/// - The control words are only ever accessed as atomics; the queue only through the one [`QueueMemory`].
pub(crate) struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    pages: KVVec<Page>,
}

// SAFETY: The mapping belongs to no task. Access to it is bound to atomics, to the one `QueueMemory` and to `Taken`.
unsafe impl Send for Memory {}
// SAFETY: As above; nothing can be reached through `&Memory` alone but atomics.
unsafe impl Sync for Memory {}

impl Memory {
    /// Takes the pages, zeroed, on the account of the calling task's memory cgroup. May sleep.
    pub(crate) fn new(size: usize, entries: usize) -> Result<(Arc<Self>, QueueMemory)> {
        let layout = Layout::new(size, entries)?;
        let data_pages = layout.size / PAGE_SIZE;
        let first_data = layout.data / PAGE_SIZE;
        let count = first_data + data_pages;

        let mut pages = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            pages.push(Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?, GFP_KERNEL)?;
        }
        let mut order: KVVec<*mut kernel::bindings::page> = KVVec::with_capacity(count + data_pages, GFP_KERNEL)?;
        for page in pages.iter() {
            order.push(page.as_ptr(), GFP_KERNEL)?;
        }
        for page in pages.iter().skip(first_data) {
            order.push(page.as_ptr(), GFP_KERNEL)?;
        }
        let total = ffi::c_uint::try_from(order.len())?;
        // SAFETY: `order` holds `total` valid pages, which are owned by `pages` for as long as the mapping lasts.
        let base = unsafe { rring_map(order.as_ptr().cast(), total) };
        let base = NonNull::new(base.cast()).ok_or(ENOMEM)?;
        // INVARIANT: The pages were mapped in this order just now.
        let memory = Memory { base, layout, pages };
        let memory = Arc::new(memory, GFP_KERNEL)?;
        let queue = QueueMemory { memory: memory.clone() };
        Ok((memory, queue))
    }

    /// Where things are.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What tells the book of this memory from others; see [`Taken::book`].
    pub(crate) fn name(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// The words that the consumer reads.
    pub(crate) fn control(&self) -> &ControlWords {
        // SAFETY: By the type's invariants `base` points to at least a page, which is zeroed at first; the words are
        // atomics, valid for any bits, and are only ever accessed as such.
        unsafe { self.base.cast::<ControlWords>().as_ref() }
    }

    /// The bytes that were taken; empty if they were taken from another ring.
    pub(crate) fn bytes<'a>(&'a self, taken: &'a mut Taken) -> &'a mut [u8] {
        if taken.book() != self.name() || taken.length() > self.layout.size {
            return &mut [];
        }
        let offset = (taken.position() & (self.layout.size as u64).wrapping_sub(1)) as usize;
        // SAFETY: `offset < size` and the data is mapped twice, `2 * size` bytes from `layout.data` on, so `length <=
        // size` bytes from `offset` on are mapped.
        let start = unsafe { self.base.as_ptr().add(self.layout.data + offset) };
        // SAFETY: `Taken` is neither copied nor made by anybody but the book with this memory's name, and what a book
        // has given out does not overlap, modulo the size, until it is given back by consuming the `Taken`; so the
        // bytes are borrowed exclusively for as long as `taken` is. (User space may read them meanwhile.)
        unsafe { core::slice::from_raw_parts_mut(start, taken.length()) }
    }

    /// Maps the pages from the `first`-th on into a process, read-only for good. For `mmap` handlers.
    ///
    /// The mapping keeps the pages, not the ring. Errors: `EPERM` for a mapping that may be written or executed,
    /// `EINVAL` for one that is private or leaves the pages, and what mapping a page can fail with.
    pub(crate) fn map(&self, vma: &VmaNew, first: usize) -> Result {
        if vma.writable() || vma.executable() {
            return Err(EPERM);
        }
        if vma.flags() & flags::SHARED == 0 {
            return Err(EINVAL);
        }
        vma.try_clear_maywrite()?;
        vma.try_clear_mayexec()?;
        // A child of the consumer has no business with the ring, nor has a core dump.
        vma.set_dontcopy();
        vma.set_dontexpand();
        vma.set_dontdump();

        let count = (vma.end() - vma.start()) / PAGE_SIZE;
        let last = first.checked_add(count).ok_or(EINVAL)?;
        let pages = self.pages.get(first..last).ok_or(EINVAL)?;
        let area = vma.set_mixedmap();
        for (index, page) in pages.iter().enumerate() {
            area.vm_insert_page(vma.start() + index * PAGE_SIZE, page)?;
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants this is a mapping of ours, and nothing borrows from it.
        unsafe { rring_unmap(self.base.as_ptr().cast()) };
    }
}

/// The commit queue of a ring. There is one per ring: whoever has it is the only one to touch the queue.
pub(crate) struct QueueMemory {
    memory: Arc<Memory>,
}

impl QueueMemory {
    fn entry(&self, index: usize) -> *mut QueueEntry {
        let index = index & (self.memory.layout.entries - 1);
        // SAFETY: The index is below `entries`, so this stays inside the queue's part of the mapping.
        let bytes =
            unsafe { self.memory.base.as_ptr().add(self.memory.layout.queue + index * size_of::<QueueEntry>()) };
        bytes.cast()
    }
}

impl Queue for QueueMemory {
    fn entries(&self) -> usize {
        self.memory.layout.entries
    }

    fn get(&self, index: usize) -> QueueEntry {
        // SAFETY: Mapped, aligned, valid for any bits; writers need `&mut self`.
        unsafe { self.entry(index).read() }
    }

    fn set(&mut self, index: usize, entry: QueueEntry) {
        // SAFETY: Mapped and aligned; `&mut self` is the only access to the queue in the kernel. User space reads an
        // entry only after the count of commits that covers it, which is stored with release ordering.
        unsafe { self.entry(index).write(entry) };
    }
}
