#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Prepares a stock Debian kernel for building and running the module, and prints the
# directory that holds it:
#
#	build/		a source tree that modules, Rust ones too, are built against
#	vmlinuz		the kernel as Debian ships it
#	modules/	its modules (lib/modules/RELEASE)
#	release		its release string
#	linux.tar.xz	the source as Debian packed it
#
# Debian's headers package has no Rust metadata, so the tree is made from the source
# package of the same version with Debian's configuration and the same compiler;
# Debian's Module.symvers and release strings then go over the result, and what is
# built against it loads into the kernel that Debian built.
#
# The archive drops old versions, so none is named here: the newest of the series in
# kernel.supported for which image, headers and source are all there is taken, and
# looked up again after a day. KERNEL=RELEASE (7.2.12+deb13-amd64) chooses another.
# Runs inside the build root.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"
[ -n "${REELFS_IN_ROOT:-}" ] || exec "$REELFS_TOP/tools/in-root" "$0" "$@"

apt=$REELFS_CACHE/apt
kernels=$REELFS_CACHE/kernel
# Raised when a prepared tree comes out differently; a new compiler makes a new tree too.
recipe=$( { echo 1; rustc -vV; bindgen --version; gcc --version; } | sha256sum | cut -c1-8)
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/cache" "$kernels"
cat >"$apt/apt.conf" <<-END
	Dir::State::lists "$apt/lists";
	Dir::Cache "$apt/cache";
	Dir::Cache::archives "$apt/archives";
	APT::Sandbox::User "root";
END
export APT_CONFIG="$apt/apt.conf"

update() {
	heartbeat "Debian package lists" apt-get update --error-on=any
}

# versions PACKAGE: the versions the archive has of it, a line each.
versions() {
	apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' '
}

# matching RELEASE: prints the package version for which image, headers and source of
# that release are all there; fails if there is none.
matching() {
	_series=$(printf %s "$1" | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')
	for _v in $(versions "linux-image-$1"); do
		versions "linux-headers-$1" | grep -qxF "$_v" || continue
		versions "linux-source-$_series" | grep -qxF "$_v" || continue
		printf '%s\n' "$_v"
		return
	done
	return 1
}

# resolve: writes "RELEASE VERSION" of the kernel to use.
resolve() {
	update
	sed 's/#.*//; /^ *$/d' "$REELFS_TOP/tools/kernel.supported" | sort -Vr >"$REELFS_TMP/series"
	while read -r series; do
		pattern="^linux-image-$(printf %s "$series" | sed 's/\./\\./g')\\.[0-9.]*[^-]*-amd64\$"
		for release in $(apt-cache search --names-only "$pattern" |
			sed -n 's/^linux-image-\([^ ]*-amd64\) .*/\1/p' | grep -v -e -cloud- -e -rt- | sort -Vr); do
			version=$(matching "$release") || {
				say "$release: image, headers and source do not match in the archive yet"
				continue
			}
			printf '%s %s\n' "$release" "$version" >"$kernels/resolved.new"
			mv "$kernels/resolved.new" "$kernels/resolved"
			return
		done
	done <"$REELFS_TMP/series"
	die "no kernel of a supported series ($(tr '\n' ' ' <"$REELFS_TMP/series")) is complete in the archive; tools/kernel.supported lists the series"
}

# download RELEASE VERSION: fetches the packages into the cache and prints their paths.
download() {
	series=$(printf %s "$1" | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')
	want="linux-image-$1 linux-headers-$1 linux-source-$series"
	# The image may be spread over packages of the same version.
	for _dep in $(apt-cache show "linux-image-$1=$2" "linux-headers-$1=$2" |
		sed -n 's/^Depends: //p' | tr ',' '\n' | grep -F "(= $2)" | sed 's/^ *\([^ ]*\).*/\1/' | sort -u); do
		want="$want $_dep"
	done
	mkdir -p "$kernels/deb"
	: >"$REELFS_TMP/debs"
	for _p in $want; do
		_file=$(apt-cache show "$_p=$2" | sed -n 's/^Filename: .*\///p' | head -n 1)
		echo "$kernels/deb/$_file" >>"$REELFS_TMP/debs"
		if [ ! -e "$kernels/deb/$_file" ]; then
			rm -rf "$REELFS_TMP/deb"
			mkdir -p "$REELFS_TMP/deb"
			(cd "$REELFS_TMP/deb" && heartbeat "package $_p" apt-get download "$_p=$2")
			mv "$REELFS_TMP"/deb/*.deb "$kernels/deb/$_file"
		fi
	done
}

# prepare NEW RELEASE: everything between unpacked packages and a tree to build against.
prepare() {
	new=$1
	release=$2
	build=$new/build
	headers=$new/deb/usr/src/linux-headers-$release
	mkdir -p "$build"
	tar -xJf "$new/linux.tar.xz" -C "$build" --strip-components=1
	cp "$headers/.config" "$build/.config"
	cd "$build"
	make -s olddefconfig
	cp .config "$new/config"
	make -j"$(nproc)" prepare
	make -j"$(nproc)" modules_prepare
	# Debian's answers over ours: exported symbols and the release.
	cp "$headers/Module.symvers" Module.symvers
	cp "$headers/include/generated/utsrelease.h" include/generated/utsrelease.h
	printf '%s\n' "$release" >include/config/kernel.release
}

# The options by which the configuration may differ from Debian's: names of compilers
# and what is derived from them. Anything else means that the tree would not match.
check_config() {
	differ=$(diff "$1" "$2" | sed -n 's/^[<>] \(# \)\?\(CONFIG_[A-Za-z0-9_]*\).*/\2/p' | sort -u |
		grep -v -x -e CONFIG_CC_VERSION_TEXT -e CONFIG_CLANG_VERSION -e CONFIG_PAHOLE_VERSION \
			-e CONFIG_LLD_VERSION -e 'CONFIG_MODULE_SIG_KEY' -e CONFIG_SYSTEM_TRUSTED_KEYS \
			-e CONFIG_BUILD_SALT) || :
	[ -z "$differ" ] || say "note: the prepared configuration differs from Debian's in: $(echo "$differ" | tr '\n' ' ')"
}

make_kernel() {
	[ ! -e "$dir" ] || return 0
	release=$1
	version=$2
	download "$release" "$version"
	new=$dir.new
	rm -rf "$new"
	mkdir -p "$new/deb"
	while read -r deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$new/deb" --exclude=./usr/share/doc
	done <"$REELFS_TMP/debs"
	mv "$new"/deb/usr/src/linux-source-*.tar.xz "$new/linux.tar.xz"
	# Debian has moved these files between packages and directories more than once.
	modules=$(find "$new/deb" -type d -path "*/lib/modules/$release")
	find "$new/deb" -type f \( -name "vmlinuz-$release" -o -path "*/lib/modules/$release/vmlinuz" \) \
		-exec cp {} "$new/vmlinuz" \;
	if [ -z "$modules" ] || [ ! -e "$new/vmlinuz" ]; then
		die "$release: no kernel or modules in Debian's packages"
	fi
	mkdir -p "$new/modules/lib/modules"
	mv "$modules" "$new/modules/lib/modules/$release"
	rm -f "$new/modules/lib/modules/$release/build" "$new/modules/lib/modules/$release/source"
	depmod -b "$new/modules" "$release"
	printf '%s\n' "$release" >"$new/release"

	theirs=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"$/\1/p' "$new/deb/usr/src/linux-headers-$release/.config")
	ours=$(rustc --version)
	[ -n "$theirs" ] || die "$release is built without Rust (CONFIG_RUST); choose another with KERNEL="
	[ "$theirs" = "$ours" ] || die "$release was built by '$theirs', the build root has '$ours'; remove $REELFS_CACHE/root to have it made anew"

	heartbeat "kernel tree $release" prepare "$new" "$release"
	check_config "$new/deb/usr/src/linux-headers-$release/.config" "$new/config"
	rm -rf "$new/deb"
	mv "$new" "$dir"
}

choose() {
	if [ -n "${KERNEL:-}" ]; then
		dir=$kernels/$KERNEL-$recipe
		[ ! -e "$dir" ] || return 0
		update
		version=$(matching "$KERNEL") ||
			die "KERNEL=$KERNEL: the archive does not have image, headers and source of one version of it; name a release as uname -r prints it, or leave KERNEL out for the newest that is supported"
		make_kernel "$KERNEL" "$version"
		return
	fi
	looked=
	if [ ! -e "$kernels/resolved" ]; then
		resolve
		looked=yes
	elif [ -z "$(find "$kernels/resolved" -mmin -1440)" ]; then
		# Without a network yesterday's answer is as good as any.
		(resolve) || say "could not look for a newer kernel; going on with $(cat "$kernels/resolved")"
		touch "$kernels/resolved"
		looked=yes
	fi
	read -r release version <"$kernels/resolved"
	dir=$kernels/$release-$recipe
	if [ ! -e "$dir" ] && [ -z "$looked" ]; then
		# Not made yet, and by now the archive may not have it any more.
		resolve
		read -r release version <"$kernels/resolved"
		dir=$kernels/$release-$recipe
	fi
	[ -e "$dir" ] || make_kernel "$release" "$version"
	ln -sfn "${dir##*/}" "$kernels/current"
	dir=$kernels/current
}

answer() {
	choose
	printf '%s\n' "$dir"
}

with_lock kernel answer
