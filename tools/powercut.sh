#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/powercut.sh N: cuts a machine's power N times under load, or a few times more:
# the suites powercut-*, which make four cuts each, as often as that takes, by turns
# unless FS= names one. Ends with the sum.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

# As tests/guest/src/suites/powercut.rs has it.
CUTS=4

wanted=${1:-}
case $wanted in
"" | *[!0-9]* | 0*) die "the number of cuts is a whole number from 1 on, not '$wanted': make powercut N=100" ;;
esac
case ${FS:-} in
"") suites="powercut-ext4 powercut-xfs" ;;
ext4 | xfs) suites=powercut-$FS ;;
*) die "FS=$FS is not a filesystem that power is cut on; FS=ext4 or FS=xfs, or leave it out for both" ;;
esac

cuts=0 passed=0 failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT
while [ "$cuts" -lt "$wanted" ]; do
	for suite in $suites; do
		[ "$cuts" -lt "$wanted" ] || break
		# What reelvm prints is shown as it comes; its status would be tee's.
		"$REELFS_TOP/tools/reelvm" suites "$suite" 2>&1 | tee "$output"
		sum=$(tail -n 1 "$output")
		case $sum in
		*" passed, "*" failed"*) ;;
		*) die "$suite has ended without a sum; its output is above" ;;
		esac
		passed=$((passed + ${sum%% passed*}))
		sum=${sum#* passed, }
		failed=$((failed + ${sum%% failed*}))
		cuts=$((cuts + CUTS))
		# What is built now is not built again.
		export REELVM_PACKAGES=none
	done
	echo "=== $cuts of $wanted cuts: $passed passed, $failed failed"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
