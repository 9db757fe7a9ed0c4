#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# First machine of the demo: ordinary programs work on a tree that reelfs records, and
# the log goes to tapes. Leaves figures in /results/record as NAME=VALUE.
#
# Disks: lower (the data), spool (the daemon's), tapes (cartridge images, the only thing
# that the second machine gets), copy (what the comparison is made with).
set -euo pipefail

disk=/dev/disk/by-id
capacity=$1 # of a cartridge
figures=/results/record
mkdir -p /results /d/lower /d/spool /d/tapes /d/copy

now() { date +%s%N; }
figure() { echo "$1=$2" >>"$figures"; }
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }

# step TEXT COMMAND...: does a part of the work and says how long it took.
step() {
	local text=$1 start
	shift
	printf '  %-58s' "$text"
	start=$(now)
	"$@" >/tmp/step.log 2>&1 || {
		echo "failed"
		cat /tmp/step.log
		exit 1
	}
	printf '%7s s\n' "$(seconds "$start" "$(now)")"
}

make_disks() {
	local name
	# Project ids and quotas: what ext4 can hold should be tried.
	mkfs.ext4 -q -F -O quota,project "$disk/lower"
	for name in spool tapes copy; do
		mkfs.ext4 -q -F "$disk/$name"
	done
	for name in lower spool tapes copy; do
		mount "$disk/$name" "/d/$name"
	done
	mkdir /d/lower/data /d/copy/data /data
}

# Four cartridges in four drives: a daemon fills one after the other.
make_tapes() {
	local number drives=()
	for number in 1 2 3 4; do
		vtape create --capacity "$capacity" --barcode "DEMO0$number" "/d/tapes/DEMO0$number"
		drives+=(--drive "drive$number=/d/tapes/DEMO0$number")
	done
	vtape serve "${drives[@]}" >/tmp/vtape.log 2>&1 &
	vtape=$!
	for number in 1 2 3 4; do
		for _ in $(seq 300); do
			[ -e "/dev/nst$((number - 1))" ] && break
			sleep 0.1
		done
		reel label --name "DEMO0$number" --pool demo "/dev/nst$((number - 1))"
	done
}

mount_and_start() {
	insmod /payload/reelfs.ko
	[ ! -e /payload/bin/mount.reelfs ] || ln -sf /payload/bin/mount.reelfs /usr/sbin/mount.reelfs
	mount -t reelfs /d/lower/data /data
	mkdir -p /etc/reelfs
	cat >/etc/reelfs/demo.toml <<-END
		mount = "/data"

		[spool]
		directory = "/d/spool/demo"
		segment = "8M"
		limit = "512M"

		[media]
		kind = "tape"
		devices = ["/dev/nst0", "/dev/nst1", "/dev/nst2", "/dev/nst3"]
		pool = "demo"

		[stream]
		high = "16M"
		age = "5s"
	END
	reeld /etc/reelfs/demo.toml >/results/reeld.log 2>&1 &
	reeld=$!
	# The first change waits until the daemon is there.
	touch /data/.started
	rm /data/.started
}

unpack() { tar -C /data -xf /payload/sources.tar; }

commit() {
	cd /data/linux/mm
	export GIT_AUTHOR_NAME=demo GIT_AUTHOR_EMAIL=demo@localhost
	export GIT_COMMITTER_NAME=demo GIT_COMMITTER_EMAIL=demo@localhost
	git init -q .
	git add .
	git commit -qm 'first'
	sed -i 's/struct page/struct  page/g' ./*.c
	git commit -qam 'second'
	git gc -q
	git fsck --strict
	cd /
}

edit() {
	find /data/linux/kernel -name '*.c' -print0 | xargs -0 sed -i 's/[ \t]*$//; s/unsigned int/unsigned  int/'
}

move() {
	mv /data/linux/kernel /data/linux/kernel.moved
	mkdir /data/archive
	mv /data/linux/lib /data/archive/lib
	mv /data/linux/fs/ext4 /data/archive/lib/ext4.inside
	mv /data/archive /data/attic
}

remove() {
	rm -rf /data/linux/fs/xfs /data/attic/lib/zstd
	find /data/linux/fs -name Makefile -delete
}

link() {
	cp -al /data/linux/fs/btrfs /data/linked
	ln /data/linux/fs/namei.c /data/linked/name-with-"ü"-and-$'\x01\xff'
	ln -s ../linux/nowhere /data/linked/dangling
	# Written through one name, removed under another.
	echo '/* appended */' >>/data/linked/inode.c
	rm /data/linux/fs/btrfs/super.c
}

sparse() {
	truncate -s 64M /data/disk.img
	mkfs.ext4 -q -F /data/disk.img
	dd if=/dev/urandom of=/data/disk.img bs=64k seek=500 count=5 conv=notrunc status=none
	cp --sparse=always /data/disk.img /data/disk.copy
	truncate -s 30M /data/disk.copy
	truncate -s 40M /data/disk.copy
}

attributes() {
	cd /data
	install -d -m 2775 -g 50 shared
	setfacl -m u:1000:rwx,d:u:1000:rwx,d:g:1001:rx shared
	echo inherits >shared/file
	mkdir shared/sub
	cp /bin/true shared/program
	chmod 4755 shared/program
	cp /bin/false shared/capable
	setcap cap_net_raw+ep shared/capable
	setfattr -n user.comment -v 'a value' shared/file
	setfattr -n trusted.secret -v 0x00ff00 shared/file
	chown -R 1000:1001 attic
	find attic -name '*.h' -exec chmod 640 {} +
	touch -d '1999-12-31 23:59:59.123456789' attic/lib shared/file
	mkfifo shared/fifo
	mknod shared/null c 1 3
	mknod shared/loop b 7 0
	# Without a name, and written to.
	exec 5<>shared/unlinked
	rm shared/unlinked
	echo 'nobody will see this' >&5
	exec 5>&-
	cd /
}

# A database in rollback-journal mode: each transaction is made durable three times over.
transactions() {
	{
		echo 'PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;'
		echo 'CREATE TABLE entries(id INTEGER PRIMARY KEY, name TEXT, value BLOB);'
		echo 'CREATE INDEX names ON entries(name);'
		seq "$1" | awk '{
			print "BEGIN;"
			printf "INSERT INTO entries(name, value) VALUES(%c%x%c, randomblob(%d));\n", 39, ($1 * 7919) % 65536, 39, ($1 * 31) % 900
			if ($1 % 5 == 0) printf "UPDATE entries SET value = randomblob(50) WHERE id = %d;\n", $1 / 2
			if ($1 % 11 == 0) printf "DELETE FROM entries WHERE id = %d;\n", $1 / 3
			print "COMMIT;"
		}'
	} | sqlite3 /data/shared/database >/dev/null
	[ "$(sqlite3 /data/shared/database 'PRAGMA integrity_check')" = ok ]
}

synchronise() {
	mkdir /data/system
	rsync -aHAX /etc /usr/sbin /usr/lib/git-core /data/system/
	# And over it once more, with changes to be found.
	find /data/system/etc -type f | head -n 100 | xargs -d '\n' touch
	rsync -aHAX --checksum --delete /etc /usr/sbin /data/system/
}

echo "Recording: /data is reelfs over ext4; the log goes to a spool, and from there to tapes of $capacity."
step 'making filesystems' make_disks
step 'labelling four tapes' make_tapes
step 'loading the module, mounting, starting reeld' mount_and_start

work=$(now)
step 'tar: unpacking kernel sources' unpack
step 'git: init, add, commit, change, commit, gc, fsck' commit
step 'sed -i over the sources' edit
step 'mv: renaming trees' move
step 'rm: deleting trees and files' remove
step 'cp -al, ln: hard links' link
step 'sparse files, a filesystem image' sparse
step 'modes, owners, ACLs, xattrs, capabilities, device nodes' attributes
step "sqlite3: $2 transactions with a rollback journal" transactions "$2"
step 'rsync -aHAX into the tree, twice' synchronise
step 'sync' sync
figure work_seconds "$(seconds "$work" "$(now)")"

reel status --json demo >/results/status.json
# What has gone to tape so far, and the time that took.
media=$(sed -n 's/.*"bursts":[0-9]*,"bytes":\([0-9]*\),"busy_seconds":\([0-9.]*\).*/\1 \2/p' /results/status.json)
figure tape_bytes "${media% *}"
figure tape_seconds "${media#* }"

drain=$(now)
unmount_and_stop() {
	umount /data
	kill "$reeld"
	wait "$reeld"
}
step 'unmounting; the rest of the log goes to tape' unmount_and_stop
figure drain_seconds "$(seconds "$drain" "$(now)")"

keep_copy() {
	rsync -aHAX /d/lower/data/ /d/copy/data/
	# The mark by which a tree and its log know each other is not part of the tree.
	setfattr -x trusted.reelfs /d/copy/data
	treecmp list --ignore xattr:trusted.reelfs /d/lower/data >/d/copy/listing
}
step 'keeping a copy of the disk and a listing, to compare with' keep_copy
figure objects "$(($(wc -l </d/copy/listing) - 2))"
figure bytes "$(du -s --block-size=1 /d/lower/data | cut -f1)"

finish() {
	kill "$vtape"
	wait "$vtape" || true
	rmmod reelfs
	umount /d/lower /d/spool /d/copy
}
step 'putting everything away' finish
tapes=0
for tape in /d/tapes/DEMO*; do
	used=$(vtape info --json "$tape" | sed -n 's/.*"used":\([0-9]*\).*/\1/p')
	[ "${used:-0}" -lt 100000 ] || tapes=$((tapes + 1))
done
figure tapes "$tapes"
umount /d/tapes
