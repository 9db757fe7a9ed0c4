#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Third machine of the demo: the restored disk beside the copy that was kept. Programs
# that know nothing of reelfs compare.
set -euo pipefail

disk=/dev/disk/by-id
mkdir -p /results /d/new /d/copy
mount -o ro,noload "$disk/new" /d/new
mount -o ro,noload "$disk/copy" /d/copy

failed=
echo 'rsync -aHAX --checksum --delete --dry-run --itemize-changes (nothing is good):'
rsync -aHAX --checksum --modify-window=-1 --delete --dry-run --itemize-changes \
	/d/copy/data/ /d/new/data/ >/results/rsync
sed 's/^/    /' /results/rsync | head -n 40
if [ -s /results/rsync ]; then
	failed="rsync finds $(wc -l </results/rsync) differences"
fi
echo 'listing of every promised attribute, holes included:'
if ! treecmp diff /d/copy/listing /d/new/data >/results/listing; then
	failed="${failed:+$failed; }the listings differ"
fi
sed 's/^/    /' /results/listing | head -n 40
echo 'the database, git and the filesystem image, asked themselves:'
mkdir /tmp/check
cp /d/new/data/shared/database* /tmp/check/
answer=$(sqlite3 /tmp/check/database 'PRAGMA integrity_check; SELECT count(*) FROM entries')
echo "    sqlite3: ${answer//$'\n'/, }"
case $answer in ok*) ;; *) failed="${failed:+$failed; }the database is damaged" ;; esac
if git -c safe.directory='*' -C /d/new/data/linux/mm fsck --strict >/tmp/git.log 2>&1; then
	echo '    git fsck: good'
else
	cat /tmp/git.log
	failed="${failed:+$failed; }git fsck fails"
fi
umount /d/new /d/copy
echo "different=$failed" >/results/compare
[ -z "$failed" ]
