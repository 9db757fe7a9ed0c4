#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/clean.sh [all]: removes what was built from this checkout, or the whole cache.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

[ -d "$REELFS_CACHE" ] || exit 0
if grep -q " $REELFS_CACHE/" /proc/self/mounts; then
	die "something is mounted below $REELFS_CACHE; is a run still going on?"
fi
if [ "${1:-}" = all ]; then
	say "removing $REELFS_CACHE"
	rm -rf --one-file-system "$REELFS_CACHE"
else
	key=$(checkout_key)
	rm -rf --one-file-system "$REELFS_CACHE/target/$key" "$REELFS_CACHE/module/$key" \
		"$REELFS_CACHE/vm" "$REELFS_CACHE/tmp" "$REELFS_CACHE/log"
fi
