#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/third-party.sh: builds the test suites of others that Debian has no package of,
# linked statically as the project's own programs are, and prints their directory.
# Everything else they are used with (fio, stress-ng, git) is in the test machine's image.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

# Name and version, as in the crates' registry. These build with the build root's compiler.
PROGRAMS="pjdfstest=0.2.2 fsx=0.3.2"

dir=$REELFS_CACHE/third-party/$(printf %s "$PROGRAMS" | sha256sum | cut -c1-12)

build() {
	[ ! -e "$dir/bin" ] || return 0
	rm -rf "$dir.new"
	for program in $PROGRAMS; do
		heartbeat "building ${program%=*} ${program#*=}" "$REELFS_TOP/tools/cargo" install \
			--locked --version "=${program#*=}" --root "$dir.new" "${program%=*}"
	done
	# A whole directory, or none.
	mv "$dir.new" "$dir"
}

mkdir -p "${dir%/*}"
with_lock third-party build >&2
printf '%s\n' "$dir/bin"
