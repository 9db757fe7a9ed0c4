/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads: the headers that the kernel crate's own bindings leave out. */
#include <linux/fs.h>
#include <linux/backing-file.h>
#include <linux/dcache.h>
#include <linux/exportfs.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fileattr.h>
#include <linux/filelock.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/fs_stack.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/seq_file.h>
#include <linux/splice.h>
#include <linux/stat.h>
#include <linux/statfs.h>
#include <linux/xattr.h>

#include "helpers.h"

/* Macros that bindgen cannot evaluate; the prefix is stripped afterwards (Kbuild). */
static const u32 RVFS_CONST_LOOKUP_FOLLOW = LOOKUP_FOLLOW;
static const u32 RVFS_CONST_LOOKUP_DIRECTORY = LOOKUP_DIRECTORY;
static const u32 RVFS_CONST_LOOKUP_RCU = LOOKUP_RCU;
static const u32 RVFS_CONST_SB_RDONLY = SB_RDONLY;
static const u32 RVFS_CONST_SB_ACTIVE = SB_ACTIVE;
static const u32 RVFS_CONST_FMODE_CAN_ODIRECT = (__force u32)FMODE_CAN_ODIRECT;
static const u32 RVFS_CONST_FMODE_NOWAIT = (__force u32)FMODE_NOWAIT;
static const u32 RVFS_CONST_FMODE_OPENED = (__force u32)FMODE_OPENED;
static const u32 RVFS_CONST_FMODE_WRITE = (__force u32)FMODE_WRITE;
static const u32 RVFS_CONST_FOP_BUFFER_WASYNC = (__force u32)FOP_BUFFER_WASYNC;
static const u32 RVFS_CONST_IOCB_NOWAIT = (__force u32)IOCB_NOWAIT;
static const u32 RVFS_CONST_FS_IOC_GETVERSION = FS_IOC_GETVERSION;
static const u32 RVFS_CONST_FS_IOC_GETFSLABEL = FS_IOC_GETFSLABEL;
static const u32 RVFS_CONST_IOCB_APPEND = (__force u32)IOCB_APPEND;
static const u32 RVFS_CONST_IOCB_ATOMIC = (__force u32)IOCB_ATOMIC;
static const u32 RVFS_CONST_ACL_TYPE_ACCESS = ACL_TYPE_ACCESS;
static const u32 RVFS_CONST_ACL_TYPE_DEFAULT = ACL_TYPE_DEFAULT;
