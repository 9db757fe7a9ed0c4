#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/demo.sh: the whole product once, in three test machines.
#
#	1	stock kernel, module, daemon: ordinary programs work on a recorded tree; the
#		log goes to virtual tapes. A copy and a listing of the tree are kept aside.
#		Then the disk is destroyed.
#	2	the tapes and a statically linked reel, nothing else: restores to a new disk.
#		(Before that once with a flipped byte, which has to be noticed.)
#	3	the restored disk and the copy: rsync and the comparer compare.
#
# Ends with a table and "identical", or with what differs and status 1.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"

demo=$REELFS_TOP/tests/demo
work=$REELFS_CACHE/demo
# What can be had on two processors without virtualisation within the time promised.
capacity=${REELFS_DEMO_CAPACITY:-64M}
transactions=${REELFS_DEMO_TRANSACTIONS:-2000}
parts='linux/fs linux/kernel linux/mm linux/lib'

# prepare_sources KERNEL: a tarball of a good part of the kernel's sources.
prepare_sources() {
	sources=$REELFS_CACHE/demo-sources-$(printf %s "$1 $parts" | sha256sum | cut -c1-12).tar
	[ ! -e "$sources" ] || return 0
	rm -rf "$work/sources"
	mkdir -p "$work/sources"
	heartbeat 'taking sources out of the kernel tarball' \
		"$REELFS_TOP/tools/in-root" sh -c '
			top=$(tar -tJf "$1" 2>/dev/null | head -n 1 | cut -d/ -f1)
			wanted=
			for part in $3; do wanted="$wanted $top/${part#linux/}"; done
			tar -C "$2" -xJf "$1" $wanted
			mv "$2/$top" "$2/linux"
			tar -C "$2" --owner=0 --group=0 -cf "$4.new" linux
			mv "$4.new" "$4"' sh "$1/linux.tar.xz" "$work/sources" "$parts" "$sources"
	rm -rf "$work/sources"
}

# machine NUMBER SCRIPT ARG...: one machine; options for reelvm are in $options.
machine() {
	number=$1
	script=$2
	shift 2
	# shellcheck disable=SC2086 # words
	"$REELFS_TOP/tools/reelvm" run --name "demo-$number" --timeout 1200 --memory 2048 \
		--results "$work/results" --file "$script.sh=$demo/$script.sh" $options \
		-- bash "/payload/$script.sh" "$@"
}

figure() {
	sed -n "s/^$1=//p" "$work/results/"* 2>/dev/null | head -n 1
}

# rate BYTES SECONDS
rate() {
	awk -v bytes="${1:-0}" -v seconds="${2:-0}" 'BEGIN { printf "%.1f MB/s", (seconds > 0) ? bytes / seconds / 1e6 : 0 }'
}

megabytes() {
	awk -v bytes="${1:-0}" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'
}

start=$(date +%s)
kernel=$("$REELFS_TOP/tools/kernel.sh")
rm -rf "$work"
mkdir -p "$work/results"
prepare_sources "$kernel"

# Nothing that only the suites need.
export REELVM_PACKAGES='-p reelvm -p reeld -p reel -p mount-reelfs -p vtape -p treecmp'
echo
echo '== 1: work, recorded'
options="--disk lower=$work/lower:4096 --disk spool=$work/spool:1024 --disk tapes=$work/tapes:1024 --disk copy=$work/copy:4096 --file sources.tar=$sources"
machine 1 record "$capacity" "$transactions"

echo
echo '== The disk is destroyed, and the spool with it.'
rm -f "$work/lower" "$work/spool"

export REELVM_PACKAGES=none
echo
echo '== 2: a machine that has the tapes and reel'
options="--disk tapes=$work/tapes --disk new=$work/new:4096 --bare --program reel --program vtape"
machine 2 restore

echo
echo '== 3: comparison'
options="--disk new=$work/new --disk copy=$work/copy --bare --program treecmp"
verdict=identical
machine 3 compare || verdict="DIFFERENT: $(figure different)"

log=$(figure log_bytes)
echo
printf '  %-34s %s\n' \
	'operations recorded' "$(figure records)" \
	'objects in the tree' "$(figure objects)" \
	'bytes in the tree' "$(megabytes "$(figure bytes)")" \
	'bytes in the log' "$(megabytes "$log")" \
	'tapes' "$(figure tapes) of $capacity" \
	'work, recorded' "$(figure work_seconds) s, $(rate "$log" "$(figure work_seconds)") of log" \
	'spool to tape, meanwhile' "$(megabytes "$(figure tape_bytes)"), $(rate "$(figure tape_bytes)" "$(figure tape_seconds)") while the drive runs" \
	'unmounting, the rest to tape' "$(figure drain_seconds) s" \
	'a flipped byte' "noticed, named, status $(figure flip_status)" \
	'restore' "$(figure restore_seconds) s, $(rate "$log" "$(figure restore_seconds)") of log" \
	'all in all' "$(($(date +%s) - start)) s" \
	'restored tree' "$verdict"
[ "$verdict" = identical ]
rm -rf "$work"
