// SPDX-License-Identifier: GPL-2.0
/*
 * C side of the wrappers in rust/vfs/: see helpers.h.
 */
#include <linux/backing-file.h>
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/delayed_call.h>
#include <linux/exportfs.h>
#include <linux/file.h>
#include <linux/fileattr.h>
#include <linux/fsnotify.h>
#include <linux/highmem.h>
#include <linux/iversion.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/folio_batch.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/rmap.h>
#include <linux/seq_file.h>
#include <linux/splice.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <linux/xattr.h>

#include "helpers.h"

void rvfs_inode_attr(const struct inode *inode, struct rvfs_attr *attr)
{
	attr->mode = inode->i_mode;
	attr->nlink = inode->i_nlink;
	/*
	 * As the initial user namespace, which maps every id to itself, sees them; asking it is dear,
	 * and every record asks.
	 */
	attr->uid = __kuid_val(inode->i_uid);
	attr->gid = __kgid_val(inode->i_gid);
	attr->rdev_major = MAJOR(inode->i_rdev);
	attr->rdev_minor = MINOR(inode->i_rdev);
	attr->generation = inode->i_generation;
	attr->flags = inode->i_flags;
	attr->ino = inode->i_ino;
	attr->version = inode_peek_iversion_raw(inode);
	attr->size = i_size_read(inode);
	attr->atime = inode_get_atime(inode);
	attr->mtime = inode_get_mtime(inode);
	attr->ctime = inode_get_ctime(inode);
}

#define RVFS_COPIED_FLAGS (S_SYNC | S_DIRSYNC | S_APPEND | S_IMMUTABLE)

void rvfs_inode_copy_attr(struct inode *inode, struct inode *lower)
{
	/* i_lock, because readers of several attributes together (stat, setattr) may not hold i_rwsem. */
	spin_lock(&inode->i_lock);
	inode->i_uid = lower->i_uid;
	inode->i_gid = lower->i_gid;
	inode->i_mode = lower->i_mode;
	inode_set_atime_to_ts(inode, inode_get_atime(lower));
	inode_set_mtime_to_ts(inode, inode_get_mtime(lower));
	inode_set_ctime_to_ts(inode, inode_get_ctime(lower));
	i_size_write(inode, i_size_read(lower));
	set_nlink(inode, lower->i_nlink);
	spin_unlock(&inode->i_lock);
	if ((inode->i_flags ^ lower->i_flags) & RVFS_COPIED_FLAGS)
		inode_set_flags(inode, lower->i_flags & RVFS_COPIED_FLAGS, RVFS_COPIED_FLAGS);
}

void rvfs_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

int rvfs_inode_lock_killable(struct inode *inode)
{
	return down_write_killable(&inode->i_rwsem);
}

bool rvfs_inode_trylock(struct inode *inode)
{
	return inode_trylock(inode);
}

void rvfs_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

bool rvfs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

bool rvfs_inode_is_dax(const struct inode *inode)
{
	return IS_DAX(inode);
}

bool rvfs_inode_is_casefolded(const struct inode *inode)
{
	return IS_CASEFOLDED(inode);
}

bool rvfs_inode_has_xattr(const struct inode *inode)
{
	return inode->i_opflags & IOP_XATTR;
}

/* @inode is I_NEW: nobody else sees it yet. */
void rvfs_inode_fill(struct inode *inode, struct inode *lower)
{
	inode->i_ino = lower->i_ino;
	inode->i_mode = lower->i_mode;
	inode->i_rdev = lower->i_rdev;
	inode->i_blkbits = lower->i_blkbits;
	inode->i_generation = lower->i_generation;
	/* Times are the lower inode's affair: nothing may be stamped on the copy. */
	inode->i_flags |= S_NOCMTIME | S_NOATIME;
#ifdef CONFIG_FS_POSIX_ACL
	inode->i_acl = inode->i_default_acl = ACL_DONT_CACHE;
#endif
	if (special_file(inode->i_mode))
		init_special_inode(inode, inode->i_mode, inode->i_rdev);
	rvfs_inode_copy_attr(inode, lower);
}

int rvfs_inode_references(const struct inode *inode)
{
	return icount_read_once(inode);
}

void rvfs_inode_evict(struct inode *inode)
{
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
}

struct kmem_cache *rvfs_inode_cache_create(const char *name, unsigned int size, unsigned int align,
					   void (*ctor)(void *))
{
	return kmem_cache_create(name, size, align, SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

void *rvfs_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

void rvfs_rcu_barrier(void)
{
	rcu_barrier();
}

int rvfs_encode_fid(struct inode *inode, u32 *words, int *max_words)
{
	return exportfs_encode_fid(inode, (struct fid *)words, max_words);
}

/*
 * Calls @visit for each inode of @sb whose inode below has no name, a reference
 * held meanwhile; for a few others too, so that none is held up for long.
 */
void rvfs_each_unnamed(struct super_block *sb, void *data,
		       void (*visit)(void *data, struct inode *inode))
{
	struct inode *inode, *previous = NULL;

	spin_lock(&sb->s_inode_list_lock);
	list_for_each_entry(inode, &sb->s_inodes, i_sb_list) {
		struct inode *lower;

		spin_lock(&inode->i_lock);
		/* A bad one is one that was never completed. */
		if ((inode_state_read(inode) & (I_NEW | I_FREEING | I_WILL_FREE)) || is_bad_inode(inode)) {
			spin_unlock(&inode->i_lock);
			continue;
		}
		lower = inode->i_private;
		if (READ_ONCE(lower->i_nlink) && !need_resched()) {
			spin_unlock(&inode->i_lock);
			continue;
		}
		__iget(inode);
		spin_unlock(&inode->i_lock);
		spin_unlock(&sb->s_inode_list_lock);

		visit(data, inode);
		/* Only now: the inode that was held kept its place in the list. */
		iput(previous);
		previous = inode;

		cond_resched();
		spin_lock(&sb->s_inode_list_lock);
	}
	spin_unlock(&sb->s_inode_list_lock);
	iput(previous);
}

int rvfs_get_write_access(struct inode *inode)
{
	return get_write_access(inode);
}

void rvfs_put_write_access(struct inode *inode)
{
	put_write_access(inode);
}

int rvfs_notify_change(struct dentry *dentry, struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int err;

	inode_lock(inode);
	err = notify_change(&nop_mnt_idmap, dentry, attr, NULL);
	inode_unlock(inode);
	return err;
}

/*
 * What was asked of our inode, made fit to be asked of the one below: its own
 * filesystem decides how set-id bits go, and neither our struct file nor the
 * fact that O_TRUNC asked means anything to it.
 */
void rvfs_iattr_strip(struct iattr *attr)
{
	if (attr->ia_valid & (ATTR_KILL_SUID | ATTR_KILL_SGID))
		attr->ia_valid &= ~ATTR_MODE;
	attr->ia_valid &= ~(ATTR_FILE | ATTR_OPEN);
}

struct qstr rvfs_qstr(const unsigned char *name, u32 len)
{
	return QSTR_LEN(name, len);
}

struct inode *rvfs_d_inode(const struct dentry *dentry)
{
	return READ_ONCE(dentry->d_inode);
}

bool rvfs_d_unhashed(const struct dentry *dentry)
{
	return d_unhashed(dentry);
}

struct dentry *rvfs_dget(struct dentry *dentry)
{
	return dget(dentry);
}

/*
 * A directory belongs to the mount if it is below its root. For anything else this
 * can only be said if it has one name, and that one is in memory: what is certainly
 * elsewhere does not belong to it.
 */
static int rvfs_acceptable(void *context, struct dentry *dentry)
{
	struct vfsmount *mnt = context;

	if (is_subdir(dentry, mnt->mnt_root))
		return 1;
	if (d_is_dir(dentry))
		return 0;
	return d_inode(dentry)->i_nlink != 1 || d_unhashed(dentry) ||
	       !is_subdir(dentry, dentry->d_sb->s_root);
}

/* NULL or an error where the handle names nothing in @mnt. */
struct dentry *rvfs_decode_handle(struct vfsmount *mnt, u32 *words, int count, int type)
{
	return exportfs_decode_fh_raw(mnt, (struct fid *)words, count, type, 0, rvfs_acceptable, mnt);
}

/* The target of a symbolic link into @out; its length. -ERANGE: it is longer. */
int rvfs_read_link(struct dentry *dentry, char *out, size_t size)
{
	DEFINE_DELAYED_CALL(done);
	const char *target = vfs_get_link(dentry, &done);
	size_t len;

	if (IS_ERR(target))
		return PTR_ERR(target);
	len = strlen(target);
	if (len <= size)
		memcpy(out, target, len);
	do_delayed_call(&done);
	return len <= size ? len : -ERANGE;
}

void rvfs_d_name(const struct dentry *dentry, const unsigned char **name, u32 *len)
{
	*name = dentry->d_name.name;
	*len = dentry->d_name.len;
}

int rvfs_vfs_create(struct dentry *dentry, umode_t mode)
{
	return vfs_create(&nop_mnt_idmap, dentry, mode, NULL);
}

struct dentry *rvfs_vfs_mkdir(struct dentry *dentry, umode_t mode)
{
	return vfs_mkdir(&nop_mnt_idmap, d_inode(dentry->d_parent), dentry, mode, NULL);
}

int rvfs_vfs_mknod(struct dentry *dentry, umode_t mode, dev_t dev)
{
	return vfs_mknod(&nop_mnt_idmap, d_inode(dentry->d_parent), dentry, mode, dev, NULL);
}

int rvfs_vfs_symlink(struct dentry *dentry, const char *target)
{
	return vfs_symlink(&nop_mnt_idmap, d_inode(dentry->d_parent), dentry, target, NULL);
}

int rvfs_vfs_link(struct dentry *old, struct dentry *dentry)
{
	return vfs_link(old, &nop_mnt_idmap, d_inode(dentry->d_parent), dentry, NULL);
}

int rvfs_vfs_unlink(struct dentry *dentry)
{
	return vfs_unlink(&nop_mnt_idmap, d_inode(dentry->d_parent), dentry, NULL);
}

int rvfs_vfs_rmdir(struct dentry *dentry)
{
	return vfs_rmdir(&nop_mnt_idmap, d_inode(dentry->d_parent), dentry, NULL);
}

int rvfs_start_renaming(struct renamedata *rd, struct dentry *old_parent,
			struct dentry *new_parent, struct dentry *old,
			struct dentry *new, unsigned int flags)
{
	*rd = (struct renamedata) {
		.mnt_idmap = &nop_mnt_idmap,
		.old_parent = old_parent,
		.new_parent = new_parent,
		.flags = flags,
	};
	return start_renaming_two_dentries(rd, old, new);
}

int rvfs_setattr_prepare(struct dentry *dentry, struct iattr *attr)
{
	return setattr_prepare(&nop_mnt_idmap, dentry, attr);
}

int rvfs_inode_permission(struct inode *inode, int mask)
{
	return inode_permission(&nop_mnt_idmap, inode, mask);
}

fmode_t rvfs_file_mode(const struct file *file)
{
	return file->f_mode;
}

void rvfs_file_add_mode(struct file *file, fmode_t mode)
{
	file->f_mode |= mode;
}

unsigned int rvfs_file_flags(const struct file *file)
{
	return READ_ONCE(file->f_flags);
}

void rvfs_file_clear_flags(struct file *file, unsigned int flags)
{
	file->f_flags &= ~flags;
}

void rvfs_file_sync_flags(struct file *file, unsigned int flags, unsigned int mask)
{
	spin_lock(&file->f_lock);
	file->f_flags = (file->f_flags & ~mask) | (flags & mask);
	file->f_iocb_flags = iocb_flags(file);
	spin_unlock(&file->f_lock);
}

bool rvfs_file_mnt_noatime(const struct file *file)
{
	return file->f_path.mnt->mnt_flags & MNT_NOATIME;
}

/*
 * Write @len bytes of kernel memory to @file at exactly @pos, never
 * synchronously, and with @nowait without waiting. With @write_held the caller
 * holds file_start_write(file).
 */
ssize_t rvfs_lower_write(struct file *file, void *data, size_t len, loff_t pos, bool direct,
			 bool nowait, bool write_held)
{
	struct kvec vec = { .iov_base = data, .iov_len = len };
	struct iov_iter iter;
	struct kiocb kiocb;
	ssize_t ret;

	if (direct && !(file->f_mode & FMODE_CAN_ODIRECT))
		return -EINVAL;
	init_sync_kiocb(&kiocb, file);
	kiocb.ki_flags &= ~(IOCB_APPEND | IOCB_DSYNC | IOCB_SYNC | IOCB_NOWAIT | IOCB_DIRECT);
	if (direct)
		kiocb.ki_flags |= IOCB_DIRECT;
	kiocb.ki_pos = pos;
	iov_iter_kvec(&iter, ITER_SOURCE, &vec, 1, len);

	if (!write_held && !nowait)
		return vfs_iocb_iter_write(file, &kiocb, &iter);

	if (!(file->f_mode & FMODE_WRITE) || !file->f_op->write_iter)
		return -EBADF;
	if (nowait) {
		kiocb.ki_flags |= IOCB_NOWAIT | IOCB_NOIO;
		if (!write_held && !file_start_write_trylock(file))
			return -EAGAIN;
	}
	ret = file->f_op->write_iter(&kiocb, &iter);
	if (nowait && !write_held)
		file_end_write(file);
	if (ret > 0)
		fsnotify_modify(file);
	return ret;
}

void rvfs_file_start_write(struct file *file)
{
	file_start_write(file);
}

void rvfs_file_end_write(struct file *file)
{
	file_end_write(file);
}

/* Returns how many bytes could *not* be faulted in. */
size_t rvfs_fault_in_readable(struct iov_iter *from, size_t len)
{
	return fault_in_iov_iter_readable(from, len);
}

size_t rvfs_copy_from_iter_nofault(void *to, size_t len, struct iov_iter *from)
{
	size_t copied;

	pagefault_disable();
	/* Without the checks for hardened usercopy: @to is memory that was made for this, and no object. */
	copied = _copy_from_iter(to, len, from);
	pagefault_enable();
	return copied;
}

void rvfs_iov_revert(struct iov_iter *iter, size_t len)
{
	iov_iter_revert(iter, len);
}

/* 0: no; 1: the data; 2: everything. */
int rvfs_fsync_needed(const struct kiocb *iocb)
{
	if (!iocb_is_dsync(iocb))
		return 0;
	return iocb->ki_flags & IOCB_SYNC ? 2 : 1;
}

struct rvfs_pipe_actor {
	int (*actor)(void *data, const void *from, size_t len);
	void *data;
};

static int rvfs_pipe_actor(struct pipe_inode_info *pipe, struct pipe_buffer *buf,
			   struct splice_desc *sd)
{
	struct rvfs_pipe_actor *a = sd->u.data;
	char *from = kmap_local_page(buf->page);
	int ret = a->actor(a->data, from + buf->offset, sd->len);

	kunmap_local(from);
	return ret;
}

ssize_t rvfs_splice_from_pipe(struct pipe_inode_info *pipe, size_t len, unsigned int flags,
			      loff_t pos, void *data,
			      int (*actor)(void *data, const void *from, size_t len))
{
	struct rvfs_pipe_actor a = { .actor = actor, .data = data };
	struct splice_desc sd = {
		.total_len = len,
		.flags = flags,
		.pos = pos,
		.u.data = &a,
	};
	ssize_t ret;

	pipe_lock(pipe);
	ret = __splice_from_pipe(pipe, &sd, rvfs_pipe_actor);
	pipe_unlock(pipe);
	return ret;
}

ssize_t rvfs_splice_read(struct file *file, struct file *lower, loff_t *ppos,
			 struct pipe_inode_info *pipe, size_t len, unsigned int flags)
{
	struct backing_file_ctx ctx = { .cred = lower->f_cred };
	struct kiocb iocb;
	ssize_t ret;

	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = *ppos;
	ret = backing_file_splice_read(lower, &iocb, pipe, len, flags, &ctx);
	*ppos = iocb.ki_pos;
	return ret;
}

struct dentry *rvfs_file_dentry(const struct file *file)
{
	return file->f_path.dentry;
}

const struct cred *rvfs_current_cred(void)
{
	return current_cred();
}

unsigned long rvfs_vma_flags(const struct vm_area_struct *vma)
{
	return vma->vm_flags;
}

/* Nonzero for areas whose pages are not all the page cache's. */
int rvfs_area_is_ordinary(const struct vm_area_struct *area)
{
	return area->vm_ops && !(area->vm_flags & (VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB)) ? 0 : -ENODEV;
}

void rvfs_area_ops_without_userfaultfd(struct vm_operations_struct *ops)
{
#ifdef CONFIG_USERFAULTFD
	ops->uffd_ops = NULL;
#endif
}

struct vm_area_struct *rvfs_fault_area(const struct vm_fault *fault)
{
	return fault->vma;
}

/*
 * After page_mkwrite returned @ret: where the folio is in the file. It is locked
 * then, and stays so until it is writable. An empty range where it will not be.
 */
vm_fault_t rvfs_fault_folio(struct vm_fault *fault, vm_fault_t ret, u64 *start, u64 *end)
{
	struct folio *folio = page_folio(fault->page);

	*start = *end = 0;
	if (ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY))
		return ret;
	if (!(ret & VM_FAULT_LOCKED)) {
		folio_lock(folio);
		if (!folio->mapping) {
			folio_unlock(folio);
			return VM_FAULT_NOPAGE;
		}
		ret |= VM_FAULT_LOCKED;
	}
	*start = folio_pos(folio);
	*end = *start + folio_size(folio);
	return ret;
}

void rvfs_start_pagefault(struct inode *inode)
{
	sb_start_pagefault(inode->i_sb);
}

void rvfs_end_pagefault(struct inode *inode)
{
	sb_end_pagefault(inode->i_sb);
}

bool rvfs_sb_try_start_write(struct super_block *sb)
{
	return sb_start_write_trylock(sb);
}

void rvfs_sb_end_write(struct super_block *sb)
{
	sb_end_write(sb);
}

/*
 * Make every page table entry of the range clean and read-only. The folios stay
 * dirty. @held is told which of them somebody may write to all the same: because
 * they are pinned for that, or because there are references that the page cache,
 * the page tables and the caller do not account for.
 */
void rvfs_write_protect(struct inode *inode, u64 start, u64 end, void *data,
			void (*held)(void *data, u64 start, u64 end, bool pinned))
{
	struct address_space *mapping = inode->i_mapping;
	pgoff_t index = start >> PAGE_SHIFT, last = (end - 1) >> PAGE_SHIFT;
	struct folio_batch batch;
	unsigned int i;

	folio_batch_init(&batch);
	while (filemap_get_folios(mapping, &index, last, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++) {
			struct folio *folio = batch.folios[i];
			u64 pos;
			bool pinned;

			folio_lock(folio);
			if (folio->mapping == mapping) {
				/* As folio_clear_dirty_for_io() does, but for what comes after. */
				if (folio_mkclean(folio))
					folio_mark_dirty(folio);
				/* Whoever takes the folio now finds no writable entry any more, and faults. */
				smp_mb();
				pos = folio_pos(folio);
				pinned = folio_maybe_dma_pinned(folio);
				if (pinned || folio_expected_ref_count(folio) + 1 < folio_ref_count(folio))
					held(data, pos, pos + folio_size(folio), pinned);
			}
			folio_unlock(folio);
		}
		folio_batch_release(&batch);
		cond_resched();
	}
}

/* The end of the folio, or, without one, of the page that has bytes before @pos and behind; else @pos. */
u64 rvfs_folio_end(struct inode *inode, u64 pos)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, pos >> PAGE_SHIFT);
	u64 end;

	if (IS_ERR(folio))
		return round_up(pos, PAGE_SIZE);
	end = folio_pos(folio) < pos ? folio_pos(folio) + folio_size(folio) : pos;
	folio_put(folio);
	return end;
}

/* Opens @inode for reading, as the kernel and not as whoever happens to ask. */
struct file *rvfs_open_reader(struct vfsmount *mnt, struct inode *inode)
{
	struct path path = { .mnt = mnt };
	struct file *file;

	ihold(inode);
	path.dentry = d_obtain_alias(inode);
	if (IS_ERR(path.dentry))
		return ERR_CAST(path.dentry);
	file = dentry_open(&path, O_RDONLY | O_LARGEFILE | O_NOATIME, kernel_cred());
	dput(path.dentry);
	return file;
}

/* Narrows the range to its first part that is no hole. -ENXIO: there is none. */
int rvfs_next_data(struct file *file, loff_t *start, loff_t *end)
{
	loff_t data, hole;

	data = vfs_llseek(file, *start, SEEK_DATA);
	if (data < 0)
		return data;
	if (data >= *end)
		return -ENXIO;
	hole = vfs_llseek(file, data, SEEK_HOLE);
	if (hole < 0)
		return hole;
	*start = data;
	*end = min(*end, hole);
	return 0;
}

struct rvfs_names {
	struct dir_context ctx;
	void *data;
	bool (*take)(void *data, const char *name, int len);
	bool any, full;
};

static bool rvfs_take_name(struct dir_context *ctx, const char *name, int len, loff_t pos, u64 ino,
			   unsigned int type)
{
	struct rvfs_names *names = container_of(ctx, struct rvfs_names, ctx);

	names->any = true;
	if (!name_is_dot_dotdot(name, len) && !names->take(names->data, name, len))
		names->full = true;
	return !names->full;
}

/*
 * Names of the directory from @pos on, until @take has no use for one; @pos is then
 * where that one is found. 1: to the end; 0: not; else a negative errno.
 */
int rvfs_read_names(struct file *file, loff_t *pos, void *data,
		    bool (*take)(void *data, const char *name, int len))
{
	struct rvfs_names names = { .ctx.actor = rvfs_take_name, .data = data, .take = take };
	loff_t place;
	int err;

	/* Positions mean the same whoever asks. */
	file->f_mode |= FMODE_64BITHASH;
	place = *pos ? vfs_llseek(file, *pos, SEEK_SET) : 0;
	if (place < 0)
		return place;
	/* Some filesystems end early: only one that has nothing more to say is at the end. */
	do {
		names.any = false;
		err = iterate_dir(file, &names.ctx);
	} while (!err && names.any && !names.full);
	*pos = file->f_pos;
	return err ?: !names.full;
}

struct rvfs_door {
	struct rw_semaphore lock;
	struct super_block *sb;
};

struct rvfs_door *rvfs_door_new(void)
{
	struct rvfs_door *door = kzalloc(sizeof(*door), GFP_KERNEL);

	if (door)
		init_rwsem(&door->lock);
	return door;
}

/* Waits until nobody is inside. */
void rvfs_door_set(struct rvfs_door *door, struct super_block *sb)
{
	down_write(&door->lock);
	door->sb = sb;
	up_write(&door->lock);
}

/* The superblock, or NULL. Inside, the task has the kernel's credentials; @cred is what it had. */
struct super_block *rvfs_door_enter(struct rvfs_door *door, const struct cred **cred)
{
	int err = down_read_killable(&door->lock);

	if (err)
		return ERR_PTR(err);
	if (!door->sb) {
		up_read(&door->lock);
		return NULL;
	}
	*cred = override_creds(kernel_cred());
	return door->sb;
}

void rvfs_door_leave(struct rvfs_door *door, const struct cred *cred)
{
	revert_creds(cred);
	up_read(&door->lock);
}

void rvfs_door_free(struct rvfs_door *door)
{
	kfree(door);
}

struct rvfs_work {
	struct delayed_work work;
	struct super_block *sb;
	void (*run)(struct super_block *sb);
};

static void rvfs_work_run(struct work_struct *work)
{
	struct rvfs_work *w = container_of(to_delayed_work(work), struct rvfs_work, work);

	w->run(w->sb);
}

struct rvfs_work *rvfs_work_new(struct super_block *sb, void (*run)(struct super_block *sb))
{
	struct rvfs_work *w = kzalloc(sizeof(*w), GFP_KERNEL);

	if (w) {
		INIT_DELAYED_WORK(&w->work, rvfs_work_run);
		w->sb = sb;
		w->run = run;
	}
	return w;
}

/* @sooner: what is to run later runs now instead. */
void rvfs_work_queue(struct rvfs_work *w, unsigned long delay, bool sooner)
{
	/* Unbound: it may wait for room in the log for as long as nobody makes some. */
	if (sooner)
		mod_delayed_work(system_dfl_wq, &w->work, delay);
	else
		queue_delayed_work(system_dfl_wq, &w->work, delay);
}

void rvfs_work_stop(struct rvfs_work *w)
{
	flush_delayed_work(&w->work);
	disable_delayed_work_sync(&w->work);
}

void rvfs_work_free(struct rvfs_work *w)
{
	disable_delayed_work_sync(&w->work);
	kfree(w);
}

void rvfs_fc_error(struct fs_context *fc, const char *message)
{
	errorfc(fc, "%s", message);
}

const char *rvfs_param_string(const struct fs_parameter *param)
{
	return param->type == fs_value_is_string ? param->string : NULL;
}

bool rvfs_is_idmapped_mnt(const struct vfsmount *mnt)
{
	return is_idmapped_mnt(mnt);
}

bool rvfs_mnt_readonly(struct vfsmount *mnt)
{
	return __mnt_is_readonly(mnt);
}

void rvfs_sb_copy_limits(struct super_block *sb, struct super_block *lower)
{
	sb->s_maxbytes = lower->s_maxbytes;
	sb->s_blocksize = lower->s_blocksize;
	sb->s_blocksize_bits = lower->s_blocksize_bits;
	sb->s_time_gran = lower->s_time_gran;
	sb->s_time_min = lower->s_time_min;
	sb->s_time_max = lower->s_time_max;
	sb->s_stack_depth = lower->s_stack_depth + 1;
	sb->s_flags &= ~SB_POSIXACL;
	sb->s_flags |= lower->s_flags & (SB_POSIXACL | SB_SYNCHRONOUS | SB_DIRSYNC);
	sb->s_flags |= SB_NOSEC;
	if (sb_rdonly(lower))
		sb->s_flags |= SB_RDONLY;
}

u32 rvfs_sample_wb_err(struct super_block *lower)
{
	return errseq_sample(&lower->s_wb_err);
}

/* sync_fs for @sb: @lower's, its writeback errors handed on to whoever watches @sb. */
int rvfs_sync_fs(struct super_block *sb)
{
	int err;

	down_read(&sb->s_umount);
	err = sync_filesystem(sb);
	up_read(&sb->s_umount);
	return err;
}

int rvfs_sync_lower(struct super_block *sb, struct super_block *lower, u32 *cursor)
{
	static DEFINE_SPINLOCK(lock);
	int err = rvfs_sync_fs(lower), wb;

	spin_lock(&lock);
	wb = errseq_check_and_advance(&lower->s_wb_err, cursor);
	spin_unlock(&lock);
	if (wb)
		errseq_set(&sb->s_wb_err, wb);
	return err;
}

const char *rvfs_sb_type_name(const struct super_block *sb)
{
	return sb->s_type->name;
}

bool rvfs_sb_can_encode(const struct super_block *sb)
{
	return sb->s_export_op && sb->s_export_op->encode_fh && sb->s_export_op->fh_to_dentry;
}

/*
 * Whether @option is among those of @sb that /proc/mounts shows. There is no
 * other way to ask a filesystem for options of its own. 1: yes; 0: no; else a
 * negative errno.
 */
int rvfs_sb_shows_option(struct super_block *sb, const char *option)
{
	struct seq_file shown = { .size = PAGE_SIZE };
	char *rest, *word;
	int ret = 0;

	if (!sb->s_op->show_options)
		return 0;
	shown.buf = kzalloc(shown.size, GFP_KERNEL);
	if (!shown.buf)
		return -ENOMEM;
	if (sb->s_op->show_options(&shown, sb->s_root) || shown.count >= shown.size) {
		ret = -EOVERFLOW;
	} else {
		for (rest = shown.buf; !ret && (word = strsep(&rest, ",")); )
			ret = !strcmp(word, option);
	}
	kfree(shown.buf);
	return ret;
}

struct rvfs_dir_scan {
	struct dir_context ctx;
	bool found;
};

static bool rvfs_dir_entry(struct dir_context *ctx, const char *name, int len, loff_t pos, u64 ino,
			   unsigned int type)
{
	struct rvfs_dir_scan *scan = container_of(ctx, struct rvfs_dir_scan, ctx);

	if (name_is_dot_dotdot(name, len))
		return true;
	scan->found = true;
	return false;
}

/* 1: empty; 0: not; else a negative errno. */
int rvfs_dir_is_empty(const struct path *path)
{
	struct rvfs_dir_scan scan = { .ctx.actor = rvfs_dir_entry };
	struct file *file = dentry_open(path, O_RDONLY | O_DIRECTORY | O_LARGEFILE, current_cred());
	int err;

	if (IS_ERR(file))
		return PTR_ERR(file);
	err = iterate_dir(file, &scan.ctx);
	fput(file);
	return err ?: !scan.found;
}

int rvfs_sync_path(const struct path *path)
{
	struct file *file = dentry_open(path, O_RDONLY | O_LARGEFILE, current_cred());
	int err;

	if (IS_ERR(file))
		return PTR_ERR(file);
	err = vfs_fsync(file, 0);
	fput(file);
	return err;
}

void rvfs_sb_uuid(const struct super_block *sb, u8 *uuid)
{
	export_uuid(uuid, &sb->s_uuid);
}

/* 0: no; 1: the data; 2: everything. */
int rvfs_file_fsync_needed(const struct file *file)
{
	struct kiocb kiocb;

	init_sync_kiocb(&kiocb, (struct file *)file);
	return rvfs_fsync_needed(&kiocb);
}

long rvfs_lower_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	if (!file->f_op->unlocked_ioctl)
		return -ENOTTY;
	return file->f_op->unlocked_ioctl(file, command, argument);
}

ssize_t rvfs_lower_read(struct file *file, void *data, size_t len, loff_t pos)
{
	return kernel_read(file, data, len, &pos);
}

int rvfs_fileattr_get(struct dentry *dentry, u32 *flags, u32 *projid)
{
	struct file_kattr fa = { .flags_valid = true };
	int err = vfs_fileattr_get(dentry, &fa);

	*flags = fa.flags;
	*projid = fa.fsx_projid;
	return err;
}

u32 rvfs_fileattr_flags(const struct file_kattr *fa)
{
	return fa->flags;
}

int rvfs_fileattr_set(struct dentry *dentry, struct file_kattr *fa)
{
	return vfs_fileattr_set(&nop_mnt_idmap, dentry, fa);
}

const char *rvfs_get_link(struct dentry *dentry, struct delayed_call *done)
{
	return vfs_get_link(dentry, done);
}

struct posix_acl *rvfs_get_acl(struct dentry *dentry, int type)
{
	return vfs_get_acl(&nop_mnt_idmap, dentry, posix_acl_xattr_name(type));
}

int rvfs_set_acl(struct dentry *dentry, struct posix_acl *acl, int type)
{
	if (!acl)
		return vfs_remove_acl(&nop_mnt_idmap, dentry, posix_acl_xattr_name(type));
	return vfs_set_acl(&nop_mnt_idmap, dentry, posix_acl_xattr_name(type), acl);
}

/* @acl in the form of the xattr; kfree() it. */
void *rvfs_acl_to_xattr(struct posix_acl *acl, size_t *size)
{
	return posix_acl_to_xattr(&init_user_ns, acl, size, GFP_KERNEL) ?: ERR_PTR(-ENOMEM);
}

/* The ACL of @inode in the form of the xattr; kfree() it. NULL: there is none. */
void *rvfs_acl_xattr(struct inode *inode, int type, size_t *size)
{
	struct posix_acl *acl;
	void *value;

	if (!IS_POSIXACL(inode))
		return NULL;
	acl = get_inode_acl(inode, type);
	if (IS_ERR_OR_NULL(acl))
		return ERR_CAST(acl);
	value = posix_acl_to_xattr(&init_user_ns, acl, size, GFP_NOFS);
	posix_acl_release(acl);
	return value ?: ERR_PTR(-ENOMEM);
}

int rvfs_setxattr(struct dentry *dentry, const char *name, const void *value, size_t size,
		  int flags)
{
	struct inode *inode = d_inode(dentry);
	int err;

	inode_lock(inode);
	err = __vfs_setxattr_locked(&nop_mnt_idmap, dentry, name, value, size, flags, NULL);
	inode_unlock(inode);
	return err;
}

int rvfs_removexattr(struct dentry *dentry, const char *name)
{
	struct inode *inode = d_inode(dentry);
	int err;

	inode_lock(inode);
	err = __vfs_removexattr_locked(&nop_mnt_idmap, dentry, name, NULL);
	inode_unlock(inode);
	return err;
}

ssize_t rvfs_getxattr(struct dentry *dentry, const char *name, void *value, size_t size)
{
	return __vfs_getxattr(dentry, d_inode(dentry), name, value, size);
}
