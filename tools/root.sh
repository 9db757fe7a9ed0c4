#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes the Debian 13 root in which everything is built, and prints its path.
#
# The root is named after a hash of its recipe and never changed after it was made:
# in-root mounts it read-only. It is made under another name and renamed when it is
# complete, so an interrupted run leaves nothing that looks finished.
#
# REELFS_MIRROR chooses the Debian mirror; without it the host's own is used.
# REELFS_PACKAGES names further packages (blank-separated) for a root of its own that has
# these too: for building what is not of this project.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"
. "$REELFS_TOP/tools/debian.sh"

packages=$REELFS_TOP/tools/root.packages
more=$(printf %s "${REELFS_PACKAGES:-}" | tr -s ' \t\n' '\n\n\n' | sort -u)
# The number is raised when a root comes out differently for the same packages.
root=$REELFS_CACHE/root/$({
	echo 1
	cat "$packages"
	printf %s "$more"
} | sha256sum | cut -c1-16)

make_root() {
	[ ! -e "$root" ] || return 0
	new=$root.new
	rm -rf --one-file-system "$new"
	mkdir -p "${root%/*}"
	debian_apt_conf >"$REELFS_TMP/apt.conf"
	include=$({
		sed 's/#.*//' "$packages"
		printf '%s\n' "$more"
	} | tr -s ' \t\n' , | sed 's/^,//; s/,$//')
	heartbeat "Debian 13 build root" env TMPDIR="$REELFS_TMP" mmdebstrap \
		--mode=root --variant=minbase --architectures=amd64 \
		--aptopt="$REELFS_TMP/apt.conf" \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$include" \
		trixie "$new" "$(debian_sources)"
	# What in-root mounts files of the host over.
	touch "$new/etc/resolv.conf" "$new/etc/hosts"
	mv "$new" "$root"
}

[ -e "$root" ] || with_lock root make_root
printf '%s\n' "$root"
