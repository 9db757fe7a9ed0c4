#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds the debug kernel from the stock kernel's own source and prints its directory,
# which has the same layout as kernel.sh's: lockdep, KASAN, kmemleak, fault injection
# and the kernel's and Rust's own assertions in one. Named after the stock kernel's
# version and a hash of its configuration. Takes six minutes on two idle processors; an
# interrupted build goes on where it was.
#
# KASAN together with Rust needs clang, so the whole kernel is built with it.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"
[ -n "${REELFS_IN_ROOT:-}" ] || exec "$REELFS_TOP/tools/in-root" "$0" "$@"

config=$REELFS_TOP/tools/debug-kernel.config
stock=$(readlink -f "$("$REELFS_TOP/tools/kernel.sh")")
key=$({ echo 1; cat "$config"; rustc -vV; clang --version; } | sha256sum | cut -c1-8)
release=$(cat "$stock/release")
dir=$REELFS_CACHE/kernel/debug-$release-$key

unpack() {
	rm -rf "$dir.new/build.new"
	mkdir -p "$dir.new/build.new"
	tar -xJf "$stock/linux.tar.xz" -C "$dir.new/build.new" --strip-components=1
	mv "$dir.new/build.new" "$dir.new/build"
}

configure() {
	cd "$dir.new/build"
	make LLVM=1 tinyconfig
	scripts/kconfig/merge_config.sh -m .config "$config"
	make LLVM=1 olddefconfig
	# An option that fell away silently would leave a kernel that checks less than it says.
	missing=
	for option in $(sed -n 's/^\(CONFIG_[A-Z0-9_]*=y\)$/\1/p' "$config"); do
		grep -qx "$option" .config || missing="$missing $option"
	done
	[ -z "$missing" ] || {
		echo "these options did not take:$missing"
		exit 1
	}
}

compile() {
	cd "$dir.new/build"
	make LLVM=1 -j"$(nproc)" bzImage modules
}

install() {
	cd "$dir.new/build"
	cp arch/x86/boot/bzImage "$dir.new/vmlinuz"
	cat include/config/kernel.release >"$dir.new/release"
	# Every time limit is multiplied by this.
	echo 5 >"$dir.new/slow"
	rm -rf "$dir.new/modules"
	make LLVM=1 INSTALL_MOD_PATH="$dir.new/modules" modules_install
}

make_debug() {
	[ ! -e "$dir" ] || return 0
	# What another configuration of the same release has built is a start.
	for other in "$REELFS_CACHE/kernel/debug-$release"-*; do
		[ ! -d "$other/build" ] || [ -d "$dir.new" ] || mv "$other" "$dir.new"
	done
	mkdir -p "$dir.new"
	[ -d "$dir.new/build" ] || heartbeat "debug kernel: unpacking" unpack
	heartbeat "debug kernel: configuring" configure
	heartbeat "debug kernel: compiling" compile
	heartbeat "debug kernel: finishing" install
	mv "$dir.new" "$dir"
}

with_lock debug-kernel make_debug
printf '%s\n' "$dir"
