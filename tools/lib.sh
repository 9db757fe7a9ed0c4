# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
#
# What every script under tools/ shares: where things live, how a step speaks, and
# how a set-up step is made to happen once, whole or not at all. To be sourced with
# REELFS_TOP set to the top of the checkout.

: "${REELFS_TOP:?set REELFS_TOP to the top of the checkout}"

# Everything that is made or downloaded lives here, never in the checkout.
REELFS_CACHE=${REELFS_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/reelfs}
# Debian 13's /tmp is memory; large temporary files belong on the cache's disk.
REELFS_TMP=$REELFS_CACHE/tmp
export REELFS_TOP REELFS_CACHE REELFS_TMP

say() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
	printf '%s: error: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# checkout_key: a short name for this checkout, so that several share one cache without
# undoing each other's builds.
checkout_key() {
	printf %s "$REELFS_TOP" | sha256sum | cut -c1-12
}

# with_lock NAME FUNCTION [ARG...]: runs the function while no other process of this
# cache runs one under the same name. The lock goes with the process that holds it.
with_lock() {
	_lock=$REELFS_CACHE/lock/$1
	shift
	mkdir -p "$REELFS_CACHE/lock" "$REELFS_TMP"
	(
		if ! flock -n 9; then
			say "waiting for another run to finish ($_lock)"
			flock 9
		fi
		"$@"
	) 9>"$_lock"
}

# own_directory KIND: where this checkout keeps what is built from it.
#
# A checkout that has none takes over the one of a checkout that is gone: most of what
# is in there was made of others' sources and is as good for this one. What more of
# them left behind is removed.
own_directory() {
	_own=$REELFS_CACHE/$1/$(checkout_key)
	[ -e "$_own/checkout" ] || with_lock "own-$1" adopt_directory "$REELFS_CACHE/$1" "$_own"
	printf '%s\n' "$_own"
}

adopt_directory() {
	for _other in "$1"/*; do
		[ -r "$_other/checkout" ] && [ ! -e "$(cat "$_other/checkout")/tools/dev" ] || continue
		if [ -e "$2" ]; then
			rm -rf --one-file-system "$_other"
		else
			mv "$_other" "$2"
		fi
	done
	mkdir -p "$2"
	printf '%s\n' "$REELFS_TOP" >"$2/checkout"
}

# heartbeat TEXT COMMAND...: runs the command with its output in a log, prints a sign
# of life with the log's last line every 20 seconds, and shows the log's end if it fails.
heartbeat() {
	_text=$1
	shift
	mkdir -p "$REELFS_CACHE/log"
	_log=$REELFS_CACHE/log/$(printf %s "$_text" | tr -cs 'A-Za-z0-9.' -).log
	say "$_text (log: $_log)"
	_start=$(date +%s)
	"$@" >"$_log" 2>&1 9>&- &
	_pid=$!
	trap 'kill "$_pid" 2>/dev/null; exit 130' INT TERM
	_tick=0
	while kill -0 "$_pid" 2>/dev/null; do
		sleep 1
		_tick=$((_tick + 1))
		if [ $((_tick % 20)) -eq 0 ]; then
			say "$_text: $(($(date +%s) - _start)) s: $(tail -n 1 "$_log" | cut -c1-100)"
		fi
	done
	trap - INT TERM
	if ! wait "$_pid"; then
		tail -n 40 "$_log" >&2
		die "$_text failed; the whole log is $_log"
	fi
	say "$_text: done in $(($(date +%s) - _start)) s"
}
