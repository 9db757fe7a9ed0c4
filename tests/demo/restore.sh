#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Second machine of the demo: it has the tapes, a drive for each, and `reel`; no module,
# no spool, no configuration. Restores to an empty disk.
set -euo pipefail

disk=/dev/disk/by-id
mkdir -p /results /d/tapes /d/new
figures=/results/restore
now() { date +%s%N; }
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }

if [ -e /sys/module/reelfs ] || [ -e /payload/reelfs.ko ] || [ -e /etc/reelfs ]; then
	echo 'this machine has more than the tapes and reel'
	exit 1
fi
mount "$disk/tapes" /d/tapes
mkfs.ext4 -q -F -O quota,project "$disk/new"
mount "$disk/new" /d/new

# plug IMAGE...: a drive for each cartridge; sets vtape and devices.
plug() {
	local number=0 drives=() image
	devices=()
	for image; do
		drives+=(--drive "drive$number=$image")
		devices+=("/dev/nst$number")
		number=$((number + 1))
	done
	vtape serve "${drives[@]}" >/tmp/vtape.log 2>&1 &
	vtape=$!
	for image in "${devices[@]}"; do
		for _ in $(seq 300); do
			[ -e "$image" ] && break
			sleep 0.1
		done
	done
}

unplug() {
	kill "$vtape"
	wait "$vtape" || true
	for _ in $(seq 100); do
		[ -e /dev/nst0 ] || break
		sleep 0.1
	done
}

echo 'First with one byte of the first tape flipped, on a copy: that must be noticed.'
cp /d/tapes/DEMO01 /d/new/DEMO01
# Object 0 is the label, 1 the volume start; 20 is in the middle of the log.
vtape flip --block 20 --byte 5000 /d/new/DEMO01
mkdir /d/new/damaged
plug /d/new/DEMO01 /d/tapes/DEMO02 /d/tapes/DEMO03 /d/tapes/DEMO04
status=0
reel restore --quiet --to /d/new/damaged "${devices[@]}" >/tmp/damaged.log 2>&1 || status=$?
sed 's/^/    /' /tmp/damaged.log
unplug
rm -rf /d/new/DEMO01 /d/new/damaged
if [ "$status" != 3 ]; then
	echo "  reel restore ended with status $status instead of 3"
	exit 1
fi
if ! grep -q DEMO01 /tmp/damaged.log || ! grep -q 'block' /tmp/damaged.log; then
	echo '  the message does not name tape and block'
	exit 1
fi
echo "  status $status, tape and block named."
echo "flip_status=$status" >>"$figures"

echo 'Restoring from the tapes as they are.'
mkdir /d/new/data
plug /d/tapes/DEMO0*
start=$(now)
reel restore --json --to /d/new/data "${devices[@]}" >/results/restore.json
sync
echo "restore_seconds=$(seconds "$start" "$(now)")" >>"$figures"
echo "records=$(sed -n 's/.*"records":\([0-9]*\).*/\1/p' /results/restore.json)" >>"$figures"
echo "log_bytes=$(sed -n 's/.*"lsn":\([0-9]*\).*/\1/p' /results/restore.json)" >>"$figures"
unplug
umount /d/new /d/tapes
