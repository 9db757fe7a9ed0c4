#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/userspace.sh [OPTION...]: builds the released programs of the workspace, or
# what cargo's options choose, and puts those beside them that cargo cannot name:
#
#	mount.reelfs		what mount(8) looks for; a crate's name has no dot
#	reeld-failpoints	the daemon with its failpoints compiled in, for the suites
#
# Prints the directory.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

dir=$("$REELFS_TOP/tools/programs.sh")

# beside FROM TO: makes TO a copy of FROM unless it is one.
beside() {
	[ ! -e "$dir/$1" ] || cmp -s "$dir/$1" "$dir/$2" || {
		cp "$dir/$1" "$dir/$2.new"
		mv "$dir/$2.new" "$dir/$2"
	}
}

build() {
	if [ $# -eq 0 ]; then
		# First, because the daemon without failpoints is to be the one called reeld.
		# All of the workspace, because the programs chosen decide which features of
		# shared crates are built, and those of reeld alone would be built twice.
		"$REELFS_TOP/tools/cargo" build --release --workspace --bins --features reeld/failpoints
		beside reeld reeld-failpoints
		set -- --workspace --bins
	fi
	"$REELFS_TOP/tools/cargo" build --release "$@"
	beside mount-reelfs mount.reelfs
}

# One at a time: in between, the program called reeld is the other one.
with_lock "userspace-$(checkout_key)" build "$@" >&2
printf '%s\n' "$dir"
