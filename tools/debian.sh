# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
#
# Where Debian's packages come from: the mirror, and the host's settings for reaching it.

# debian_mirror: the mirror to use: REELFS_MIRROR, or the one of the host's own sources.
debian_mirror() {
	if [ -n "${REELFS_MIRROR:-}" ]; then
		printf '%s\n' "$REELFS_MIRROR"
		return
	fi
	_found=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' \
		2>/dev/null | sed -n 's/^Debian \(http[^ ]*\)$/\1/p' | sed -n '1s,/$,,p')
	if [ -z "$_found" ]; then
		echo "no Debian mirror in this machine's apt sources: set REELFS_MIRROR to one" >&2
		return 1
	fi
	printf '%s\n' "$_found"
}

# debian_sources: one-line sources of Debian 13 and its backports, a line each, in
# files under the cache (mmdebstrap takes file names).
debian_sources() {
	_mirror=$(debian_mirror)
	_list=$REELFS_TMP/sources.list
	{
		printf 'deb %s trixie main\n' "$_mirror"
		printf 'deb %s trixie-updates main\n' "$_mirror"
		printf 'deb %s trixie-backports main\n' "$_mirror"
	} >"$_list"
	printf '%s\n' "$_list"
}

# debian_apt_conf: the host's settings for reaching a mirror (proxy, retries, date
# checks), as an apt configuration file on standard output.
debian_apt_conf() {
	apt-config dump 2>/dev/null | grep -E \
		'^Acquire::(http|https|Retries|ForceIPv[46]|Check-Date|Check-Valid-Until)(::[^ ]*)? "..*";' || :
	printf 'Acquire::Languages "none";\n'
	printf 'Acquire::Retries "3";\n'
	printf 'APT::Install-Recommends "false";\n'
}
