#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/module.sh [DIR]: builds reelfs.ko and prints its path.
#
# DIR is a kernel's directory as kernel.sh or debug-kernel.sh makes it; without it the
# stock kernel, or KDIR=, a prepared tree of the user's own. The sources are copied
# into the cache first, one copy per kernel: the checkout stays clean, builds for
# several kernels do not undo each other, and nothing unchanged is built again.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

[ -e "$REELFS_TOP/Kbuild" ] || die "no Kbuild in $REELFS_TOP"
if [ -n "${1:-}" ]; then
	name=$(basename "$(readlink -f "$1")")
	tree=$1/build
elif [ -n "${KDIR:-}" ]; then
	[ -e "$KDIR/Module.symvers" ] || die "KDIR=$KDIR is not a prepared kernel tree: it has no Module.symvers; run make (or modules_prepare, and add the kernel's Module.symvers) in there first"
	tree=$(readlink -f "$KDIR")
	name=kdir-$(printf %s "$tree" | sha256sum | cut -c1-12)
	export REELFS_BIND="${REELFS_BIND:-} $tree"
else
	kernel=$("$REELFS_TOP/tools/kernel.sh")
	name=$(basename "$(readlink -f "$kernel")")
	tree=$kernel/build
fi
# Warnings are errors with REELFS_STRICT=1, in a copy of its own: other flags, other objects.
strict=
if [ -n "${REELFS_STRICT:-}" ]; then
	strict=W=e
	name=$name-strict
fi
out=$(own_directory module)/$name
mkdir -p "$out"

build() {
	# Checksums rather than times: a checkout of the same contents builds nothing.
	"$REELFS_TOP/tools/in-root" rsync -a --checksum --delete \
		--exclude='*.o' --exclude='*.ko' --exclude='*.mod' --exclude='*.mod.c' \
		--exclude='.*.cmd' --exclude='.*.d' --exclude='*.symvers' --exclude='*.order' \
		--exclude='*_generated.rs' --exclude='*.rmeta' --exclude='*.so' --exclude='*.a' \
		--include='/Kbuild' --include='/rust/***' --exclude='/*' \
		"$REELFS_TOP/" "$out/"
	# A kernel that clang built takes modules that clang built.
	llvm=
	! grep -q '^CONFIG_CC_IS_CLANG=y' "$tree/.config" || llvm=LLVM=1
	# shellcheck disable=SC2086 # each of the two is one word or none
	"$REELFS_TOP/tools/in-root" make -C "$tree" M="$out" $llvm $strict -j"$(nproc)" modules
}

with_lock "module-$(checkout_key)-$name" heartbeat "module for $name" build
printf '%s\n' "$out/reelfs.ko"
