#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/guest-image.sh [LIST...]: makes the read-only root image that a test machine
# boots from (erofs; a tmpfs goes over it in the machine), and prints its path. It holds
# the packages of tools/guest.packages and of these lists. Named after a hash of its
# recipe, made under another name and renamed when complete.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"
. "$REELFS_TOP/tools/debian.sh"

packages=$(cat "$REELFS_TOP/tools/guest.packages" "$@")
# The number is raised when an image comes out differently for the same packages.
image=$REELFS_CACHE/guest/$({ echo 1; printf '%s\n' "$packages"; } | sha256sum | cut -c1-16).erofs

make_image() {
	[ ! -e "$image" ] || return 0
	mkdir -p "${image%/*}"
	new=${image%.erofs}.new
	rm -rf --one-file-system "$new" "$image.new"
	debian_apt_conf >"$REELFS_TMP/apt.conf"
	include=$(printf '%s\n' "$packages" | sed 's/#.*//' | tr -s ' \t\n' , | sed 's/^,//; s/,$//')
	# shellcheck disable=SC2016 # $1 is the hook's
	heartbeat "test machine's Debian 13" env TMPDIR="$REELFS_TMP" mmdebstrap \
		--mode=root --variant=minbase --architectures=amd64 \
		--aptopt="$REELFS_TMP/apt.conf" \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$include" \
		--customize-hook='mkdir -p "$1/payload" "$1/results" "$1/usr/lib/modules" "$1/mnt/a" "$1/mnt/b"' \
		--customize-hook='echo reelvm >"$1/etc/hostname"' \
		--customize-hook='echo "127.0.0.1 localhost reelvm" >"$1/etc/hosts"' \
		trixie "$new" "$(debian_sources)"
	heartbeat "test machine's image" "$REELFS_TOP/tools/in-root" \
		mkfs.erofs -T0 --quiet "$image.new" "$new"
	rm -rf --one-file-system "$new"
	mv "$image.new" "$image"
}

[ -e "$image" ] || with_lock guest make_image
printf '%s\n' "$image"
