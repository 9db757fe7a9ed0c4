#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tests/fresh.sh RELEASE TARGET...: clones this tree into a clean minimal root of a
# Debian release (bookworm, trixie) that has git and nothing else, and runs
# tools/dev TARGET... there, cold: with a cache of its own, which is removed afterwards
# unless REELFS_TEST_KEEP is set.
#
# What is not committed is not in the clone.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"
. "$REELFS_TOP/tools/debian.sh"

if [ "${1:-}" = --stage2 ]; then
	at=$2
	shift 2
	mount --bind "$at" "$at"
	mount -t proc proc "$at/proc"
	mount -t sysfs sysfs "$at/sys" 2>/dev/null || mount --rbind /sys "$at/sys"
	# Nodes of its own: packages are installed in there.
	mount -t tmpfs -o mode=755 tmpfs "$at/dev"
	for node in null:3 zero:5 full:7 random:8 urandom:9; do
		mknod -m 666 "$at/dev/${node%:*}" c 1 "${node#*:}"
	done
	mkdir "$at/dev/pts" "$at/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=666 devpts "$at/dev/pts"
	ln -s pts/ptmx "$at/dev/ptmx"
	ln -s /proc/self/fd "$at/dev/fd"
	chroot "$at" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin CI="${CI:-}" \
		sh -c 'cd /root/reelfs && exec tools/dev "$@"' sh "$@"
	exit
fi

release=${1:?bookworm or trixie}
shift
[ $# -gt 0 ] || set -- test
at=$REELFS_CACHE/fresh/$release
mkdir -p "${at%/*}" "$REELFS_TMP"
if [ ! -e "$at/root/reelfs" ]; then
	rm -rf --one-file-system "$at"
	debian_apt_conf >"$REELFS_TMP/fresh.conf"
	heartbeat "minimal $release" env TMPDIR="$REELFS_TMP" mmdebstrap --mode=root \
		--variant=minbase --include=git --aptopt="$REELFS_TMP/fresh.conf" \
		"$release" "$at" "$(debian_mirror)"
	# What an administrator had to set up on this machine, he had to set up there.
	cp -L /etc/resolv.conf "$at/etc/resolv.conf"
	if [ -d /usr/local/share/ca-certificates ]; then
		mkdir -p "$at/usr/local/share"
		cp -a /usr/local/share/ca-certificates "$at/usr/local/share/"
	fi
fi
rm -rf "$at/root/reelfs"
git -c safe.directory='*' clone --quiet --no-local "$REELFS_TOP" "$at/root/reelfs"
status=0
unshare --mount --propagation private --pid --fork --kill-child -- \
	"$0" --stage2 "$at" "$@" || status=$?
if [ -z "${REELFS_TEST_KEEP:-}" ]; then
	rm -rf --one-file-system "$at"
fi
exit $status
