#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/bench-restore.sh: how long `reel restore` takes next to `tar -x` of the same
# 100,000 small files of the kernel's source, on the filesystem of the cache; and how
# much memory it takes for 100,000 and for 400,000 files.
#
# REELFS_BENCH_FILES=N takes another number of files.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

kernel=$("$REELFS_TOP/tools/kernel.sh")
source=$REELFS_CACHE/tmp/bench-restore.$$
mkdir -p "$source"
trap 'rm -rf "$source"' EXIT
"$REELFS_TOP/tools/in-root" tar -xJf "$kernel/linux.tar.xz" -C "$source"
REELFS_BENCH_SOURCE=$source
export REELFS_BENCH_SOURCE
"$REELFS_TOP/tools/cargo" test --release -p reel --test speed -- --ignored --nocapture --test-threads 1
