# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# Read at the end of common/rc, in the test machine's copy of the checkout: what xfstests
# does to a filesystem through its mount, and has to do to the one below reelfs.

# The ioctl that shuts a filesystem down is not passed on by the mount; the device has
# a mount of its own for the moment.
_reelfs_below() {
	/payload/bin/reelfs-xfstests below "$SCRATCH_MNT" "$@"
}

_scratch_shutdown() {
	_reelfs_below "$here/src/godown" "$@"
}

_scratch_shutdown_handle() {
	/payload/bin/reelfs-xfstests handle "$SCRATCH_MNT"
}

# The descriptor that is synced has to be there before the end, and to be the mount's.
_scratch_shutdown_and_syncfs() {
	$XFS_IO_PROG -x -c "open $(_scratch_shutdown_handle)" -c "shutdown -f" -c close -c syncfs \
		"$SCRATCH_MNT" | sed '/^\[[0-9]/d'
}

_require_xfs_io_shutdown() {
	_notrun "the mount does not pass the shutdown ioctl on"
}

_require_scratch_shutdown() {
	_scratch_mkfs >/dev/null 2>&1 || _notrun "SCRATCH_DEV takes no filesystem"
	_scratch_mount
	_scratch_shutdown -f >/dev/null 2>&1 || _notrun "$FSTYP cannot be shut down"
	_scratch_unmount
}
