#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/xfstests.sh: runs the checkout of xfstests in XFSTESTS_DIR, which has to be built,
# on a filesystem, on overlayfs over it and on reelfs over it, in test machines, and
# compares. What has run is kept, and the next run goes on.
#
#	FS=ext4|xfs		the filesystem (ext4)
#	TESTS="generic/001 ..."	these tests
#	GROUP="quick ..."	the generic tests in these groups (quick)
#	SUBJECTS="reelfs ..."	only on these of lower, overlayfs, reelfs; without the first
#				and the last nothing is judged
#	SHARD=K/N		the Kth part of N of them
#	MINUTES=N		begin no more tests after so long
#	LIMIT=SECONDS		what one test may take (900)
#	AGAIN=1			run again what was run already
#	REELFS_TEST_SHORT=1	the short list (tests/xfstests/short)
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

[ -n "${XFSTESTS_DIR:-}" ] ||
	die "XFSTESTS_DIR is not set; name a built checkout of xfstests (Documentation/testing.md says how to build one)"
[ -d "$XFSTESTS_DIR" ] || die "XFSTESTS_DIR=$XFSTESTS_DIR is not a directory; name a built checkout of xfstests"
XFSTESTS_DIR=$(cd "$XFSTESTS_DIR" && pwd)
export XFSTESTS_DIR

kernel=${REELVM_KERNEL:-$("$REELFS_TOP/tools/kernel.sh")}
image=$("$REELFS_TOP/tools/guest-image.sh" "$REELFS_TOP/tools/xfstests.packages")
module=${REELVM_MODULE:-$("$REELFS_TOP/tools/module.sh" "$kernel")}
if [ "${REELVM_PACKAGES:-}" = none ]; then
	programs=$("$REELFS_TOP/tools/programs.sh")
else
	# shellcheck disable=SC2086 # options, separated by blanks
	programs=$("$REELFS_TOP/tools/userspace.sh" ${REELVM_PACKAGES:-})
fi

set -- --fs "${FS:-ext4}" --module "$module" --lists "$REELFS_TOP/tests/xfstests"
[ -z "${SUBJECTS:-}" ] || set -- "$@" --subjects "$SUBJECTS"
[ -z "${SHARD:-}" ] || set -- "$@" --shard "$SHARD"
[ -z "${MINUTES:-}" ] || set -- "$@" --minutes "$MINUTES"
[ -z "${LIMIT:-}" ] || set -- "$@" --limit "$LIMIT"
[ -z "${AGAIN:-}" ] || set -- "$@" --again
if [ -n "${TESTS:-}" ]; then
	set -- "$@" --tests "$TESTS"
elif [ -n "${GROUP:-}" ]; then
	set -- "$@" --groups "$GROUP"
elif [ -n "${REELFS_TEST_SHORT:-}" ]; then
	set -- "$@" --short
fi
exec "$REELFS_TOP/tools/in-root" env \
	REELVM_KERNEL="$kernel" REELVM_IMAGE="$image" REELVM_PROGRAMS="$programs" \
	"$programs/reelfs-xfstests-run" "$@" "$XFSTESTS_DIR"
