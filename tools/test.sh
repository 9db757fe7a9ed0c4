#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/test.sh TARGET...: runs targets of the Makefile one after the other, goes on
# after a failure, and closes with all their counts added up. With CI=true the suites
# take their short form: fewer rounds of the same kinds.
set -u

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"
cd "$REELFS_TOP" || exit 1
mkdir -p "$REELFS_TMP"

[ "${CI:-}" != true ] || export REELFS_TEST_SHORT=1

# counts LOG: "PASSED FAILED SKIPPED" of what cargo's runner printed, or of the last
# line in the plain form, the totals of the suites and checks.
counts() {
	awk '
	/^test result: / {
		for (i = 2; i <= NF; i++) {
			if ($i == "passed;") p += $(i - 1)
			if ($i == "failed;") f += $(i - 1)
			if ($i == "ignored;") s += $(i - 1)
		}
	}
	/^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { lp = $1; lf = $3; ls = $5 }
	END { print p + lp, f + lf, s + ls }' "$1"
}

passed=0
failed=0
skipped=0
broken=
for target; do
	started=$(date +%s)
	printf '=== %s\n' "$target"
	log=$(mktemp "$REELFS_TMP/test.XXXXXX")
	# A pipe has the status of its end, so the status goes through a file.
	{
		make --no-print-directory "$target" </dev/null 2>&1
		echo $? >"$log.status"
	} | tee "$log"
	status=$(cat "$log.status")
	# shellcheck disable=SC2046 # three numbers
	set -- $(counts "$log") "$@"
	p=$1 f=$2 s=$3
	shift 3
	# A target that failed without a test that did is a failure too.
	if [ "$status" -ne 0 ]; then
		broken="$broken $target"
		[ "$f" -gt 0 ] || f=1
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	rm -f "$log" "$log.status"
	printf '=== %s: %s passed, %s failed, %s skipped in %s s\n' \
		"$target" "$p" "$f" "$s" "$(($(date +%s) - started))"
done
[ -z "$broken" ] || printf 'failed:%s\n' "$broken"
tail=
[ "$skipped" -eq 0 ] || tail=", $skipped skipped"
printf '%s passed, %s failed%s\n' "$passed" "$failed" "$tail"
[ -z "$broken" ]
