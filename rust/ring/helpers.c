// SPDX-License-Identifier: GPL-2.0
/*
 * C side of rust/ring/: what the kernel offers only as macros, or to C alone.
 * Declared once more in rust/ring/memory.rs; nothing here decides anything.
 */
#include <linux/crc32.h>
#include <linux/cred.h>
#include <linux/mm.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>
#include <linux/vmalloc.h>

void *rring_map(struct page **pages, unsigned int count);
void rring_unmap(const void *address);
u32 rring_crc32c(u32 crc, const void *bytes, size_t length);
u32 rring_fsuid(void);

/* The pages in a row, each as often as it is named. */
void *rring_map(struct page **pages, unsigned int count)
{
	return vmap(pages, count, VM_MAP, PAGE_KERNEL);
}

void rring_unmap(const void *address)
{
	vunmap(address);
}

u32 rring_crc32c(u32 crc, const void *bytes, size_t length)
{
	return crc32c(crc, bytes, length);
}

u32 rring_fsuid(void)
{
	/* As the initial user namespace sees it, which maps every id to itself. */
	return __kuid_val(current_fsuid());
}
