/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Rust side cannot reach by itself: static inlines, macros, and members
 * of anonymous unions (whose generated names move between kernel versions).
 * Nothing here decides anything.
 */
#ifndef RVFS_HELPERS_H
#define RVFS_HELPERS_H

#include <linux/fs.h>
#include <linux/fileattr.h>
#include <linux/fs_context.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/pipe_fs_i.h>
#include <linux/slab.h>
#include <linux/uio.h>

struct rvfs_attr {
	umode_t mode;
	u32 nlink;
	u32 uid;
	u32 gid;
	u32 rdev_major;
	u32 rdev_minor;
	u32 generation;
	u32 flags;
	u64 ino;
	u64 version;
	s64 size;
	struct timespec64 atime;
	struct timespec64 mtime;
	struct timespec64 ctime;
};

/* inode */
void rvfs_inode_attr(const struct inode *inode, struct rvfs_attr *attr);
void rvfs_inode_copy_attr(struct inode *inode, struct inode *lower);
void rvfs_inode_lock(struct inode *inode);
int rvfs_inode_lock_killable(struct inode *inode);
bool rvfs_inode_trylock(struct inode *inode);
void rvfs_inode_unlock(struct inode *inode);
bool rvfs_inode_is_new(struct inode *inode);
bool rvfs_inode_is_dax(const struct inode *inode);
bool rvfs_inode_is_casefolded(const struct inode *inode);
bool rvfs_inode_has_xattr(const struct inode *inode);
void rvfs_inode_fill(struct inode *inode, struct inode *lower);
void rvfs_inode_evict(struct inode *inode);
int rvfs_inode_references(const struct inode *inode);
struct kmem_cache *rvfs_inode_cache_create(const char *name, unsigned int size, unsigned int align,
					   void (*ctor)(void *));
void *rvfs_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache);
void rvfs_rcu_barrier(void);
int rvfs_encode_fid(struct inode *inode, u32 *words, int *max_words);
void rvfs_each_unnamed(struct super_block *sb, void *data,
		       void (*visit)(void *data, struct inode *inode));
int rvfs_get_write_access(struct inode *inode);
void rvfs_put_write_access(struct inode *inode);
int rvfs_notify_change(struct dentry *dentry, struct iattr *attr);
void rvfs_iattr_strip(struct iattr *attr);

/* dentry and names */
struct qstr rvfs_qstr(const unsigned char *name, u32 len);
struct inode *rvfs_d_inode(const struct dentry *dentry);
bool rvfs_d_unhashed(const struct dentry *dentry);
struct dentry *rvfs_dget(struct dentry *dentry);
struct dentry *rvfs_decode_handle(struct vfsmount *mnt, u32 *words, int count, int type);
int rvfs_read_link(struct dentry *dentry, char *out, size_t size);
void rvfs_d_name(const struct dentry *dentry, const unsigned char **name, u32 *len);
int rvfs_vfs_create(struct dentry *dentry, umode_t mode);
struct dentry *rvfs_vfs_mkdir(struct dentry *dentry, umode_t mode);
int rvfs_vfs_mknod(struct dentry *dentry, umode_t mode, dev_t dev);
int rvfs_vfs_symlink(struct dentry *dentry, const char *target);
int rvfs_vfs_link(struct dentry *old, struct dentry *dentry);
int rvfs_vfs_unlink(struct dentry *dentry);
int rvfs_vfs_rmdir(struct dentry *dentry);
int rvfs_start_renaming(struct renamedata *rd, struct dentry *old_parent,
			struct dentry *new_parent, struct dentry *old,
			struct dentry *new, unsigned int flags);
int rvfs_setattr_prepare(struct dentry *dentry, struct iattr *attr);
int rvfs_inode_permission(struct inode *inode, int mask);

/* file and iov */
fmode_t rvfs_file_mode(const struct file *file);
void rvfs_file_add_mode(struct file *file, fmode_t mode);
unsigned int rvfs_file_flags(const struct file *file);
void rvfs_file_clear_flags(struct file *file, unsigned int flags);
void rvfs_file_sync_flags(struct file *file, unsigned int flags, unsigned int mask);
bool rvfs_file_mnt_noatime(const struct file *file);
ssize_t rvfs_lower_write(struct file *file, void *data, size_t len, loff_t pos, bool direct,
			 bool nowait, bool write_held);
void rvfs_file_start_write(struct file *file);
void rvfs_file_end_write(struct file *file);
size_t rvfs_fault_in_readable(struct iov_iter *from, size_t len);
size_t rvfs_copy_from_iter_nofault(void *to, size_t len, struct iov_iter *from);
void rvfs_iov_revert(struct iov_iter *iter, size_t len);
int rvfs_fsync_needed(const struct kiocb *iocb);
ssize_t rvfs_splice_from_pipe(struct pipe_inode_info *pipe, size_t len, unsigned int flags,
			      loff_t pos, void *data,
			      int (*actor)(void *data, const void *from, size_t len));
ssize_t rvfs_splice_read(struct file *file, struct file *lower, loff_t *ppos,
			 struct pipe_inode_info *pipe, size_t len, unsigned int flags);
struct dentry *rvfs_file_dentry(const struct file *file);
const struct cred *rvfs_current_cred(void);

/* mappings */
unsigned long rvfs_vma_flags(const struct vm_area_struct *vma);
int rvfs_area_is_ordinary(const struct vm_area_struct *area);
void rvfs_area_ops_without_userfaultfd(struct vm_operations_struct *ops);
struct vm_area_struct *rvfs_fault_area(const struct vm_fault *fault);
vm_fault_t rvfs_fault_folio(struct vm_fault *fault, vm_fault_t ret, u64 *start, u64 *end);
void rvfs_start_pagefault(struct inode *inode);
void rvfs_end_pagefault(struct inode *inode);
bool rvfs_sb_try_start_write(struct super_block *sb);
void rvfs_sb_end_write(struct super_block *sb);
void rvfs_write_protect(struct inode *inode, u64 start, u64 end, void *data,
			void (*held)(void *data, u64 start, u64 end, bool pinned));
u64 rvfs_folio_end(struct inode *inode, u64 pos);
struct file *rvfs_open_reader(struct vfsmount *mnt, struct inode *inode);
int rvfs_next_data(struct file *file, loff_t *start, loff_t *end);
int rvfs_read_names(struct file *file, loff_t *pos, void *data,
		    bool (*take)(void *data, const char *name, int len));

/* work */
struct rvfs_work;
struct rvfs_work *rvfs_work_new(struct super_block *sb, void (*run)(struct super_block *sb));
void rvfs_work_queue(struct rvfs_work *work, unsigned long delay, bool sooner);
void rvfs_work_stop(struct rvfs_work *work);
void rvfs_work_free(struct rvfs_work *work);

/* door */
struct rvfs_door;
struct rvfs_door *rvfs_door_new(void);
void rvfs_door_set(struct rvfs_door *door, struct super_block *sb);
struct super_block *rvfs_door_enter(struct rvfs_door *door, const struct cred **cred);
void rvfs_door_leave(struct rvfs_door *door, const struct cred *cred);
void rvfs_door_free(struct rvfs_door *door);

/* mount */
void rvfs_fc_error(struct fs_context *fc, const char *message);
const char *rvfs_param_string(const struct fs_parameter *param);
bool rvfs_is_idmapped_mnt(const struct vfsmount *mnt);
bool rvfs_mnt_readonly(struct vfsmount *mnt);
void rvfs_sb_copy_limits(struct super_block *sb, struct super_block *lower);
int rvfs_sync_fs(struct super_block *sb);
int rvfs_sync_lower(struct super_block *sb, struct super_block *lower, u32 *cursor);
u32 rvfs_sample_wb_err(struct super_block *lower);
const char *rvfs_sb_type_name(const struct super_block *sb);
bool rvfs_sb_can_encode(const struct super_block *sb);
int rvfs_sb_shows_option(struct super_block *sb, const char *option);

int rvfs_dir_is_empty(const struct path *path);
int rvfs_sync_path(const struct path *path);
void rvfs_sb_uuid(const struct super_block *sb, u8 *uuid);
int rvfs_file_fsync_needed(const struct file *file);
long rvfs_lower_ioctl(struct file *file, unsigned int command, unsigned long argument);
ssize_t rvfs_lower_read(struct file *file, void *data, size_t len, loff_t pos);
int rvfs_fileattr_get(struct dentry *dentry, u32 *flags, u32 *projid);
u32 rvfs_fileattr_flags(const struct file_kattr *fa);
int rvfs_fileattr_set(struct dentry *dentry, struct file_kattr *fa);

/* symlinks, ACLs */
const char *rvfs_get_link(struct dentry *dentry, struct delayed_call *done);
struct posix_acl *rvfs_get_acl(struct dentry *dentry, int type);
int rvfs_set_acl(struct dentry *dentry, struct posix_acl *acl, int type);
void *rvfs_acl_to_xattr(struct posix_acl *acl, size_t *size);
void *rvfs_acl_xattr(struct inode *inode, int type, size_t *size);
int rvfs_setxattr(struct dentry *dentry, const char *name, const void *value, size_t size,
		  int flags);
int rvfs_removexattr(struct dentry *dentry, const char *name);
ssize_t rvfs_getxattr(struct dentry *dentry, const char *name, void *value, size_t size);

#endif
