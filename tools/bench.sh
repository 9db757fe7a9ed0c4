#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/bench.sh [OUT [ARG...]]: measures in a test machine what operations cost and
# makes the page and the plots of it in OUT (Documentation/benchmarks). Further
# arguments go to reelfs-bench-run.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

out=${1:-$REELFS_TOP/Documentation/benchmarks}
[ $# -eq 0 ] || shift
mkdir -p "$out"
out=$(cd "$out" && pwd)

kernel=$("$REELFS_TOP/tools/kernel.sh")
image=$("$REELFS_TOP/tools/guest-image.sh")
module=$("$REELFS_TOP/tools/module.sh" "$kernel")
programs=$("$REELFS_TOP/tools/userspace.sh" -p reelvm -p reelfs-bench -p reeld)

REELFS_BIND="${REELFS_BIND:-} $out"
export REELFS_BIND
"$REELFS_TOP/tools/in-root" env \
	REELVM_KERNEL="$kernel" REELVM_IMAGE="$image" REELVM_PROGRAMS="$programs" \
	"$programs/reelfs-bench-run" --out "$out" --module "$module" "$@"
emulator=$("$REELFS_TOP/tools/in-root" qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
"$REELFS_TOP/tools/in-root" "$programs/reelfs-bench-report" "$out/samples.jsonl" \
	--out "$out" --instruction-ns 2 \
	--fact "kernel=$(cat "$kernel/release"), as Debian ships it" \
	--fact "machine=QEMU $emulator, one emulated processor, \`-icount shift=1 -cpu max,-fsrm,-erms\`"
