#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/programs.sh [NAME]: prints the directory that tools/cargo puts released programs
# into, or the path of one of them.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

# in-root chooses the first part, tools/cargo the second.
dir=$REELFS_CACHE/target/$(checkout_key)/x86_64-unknown-linux-gnu/release
printf '%s\n' "$dir${1:+/$1}"
