#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/check.sh [CHECK...]: what can be said about the sources without running them:
# licence, unsafe, shell, user_format, kernel_format, clippy, module. Goes on after a
# failure and ends with the counts.
set -u

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
. "$REELFS_TOP/tools/lib.sh"
cd "$REELFS_TOP" || exit 1

# sources PATTERN...: the files that belong to the tree and match, also in a clone that
# git does not want to talk about because somebody else owns it.
sources() {
	git -c safe.directory='*' ls-files --cached --others --exclude-standard -- "$@" |
		while read -r file; do
			[ ! -f "$file" ] || printf '%s\n' "$file"
		done
}

check_licence() {
	missing=$(sources '*.rs' '*.c' '*.h' '*.sh' '*.toml' Makefile Kbuild tools .ci |
		grep -v -e '\.lock$' | sort -u | xargs grep -L 'SPDX-License-Identifier:' --) || :
	[ -z "$missing" ] || {
		printf 'no SPDX line in:\n%s\n' "$missing"
		return 1
	}
}

check_kernel_format() {
	sources 'rust/*.rs' | xargs tools/in-root rustfmt --check --edition 2021
}

check_user_format() {
	tools/cargo fmt --all --check
}

check_clippy() {
	tools/cargo clippy --workspace --all-targets -- -D warnings
}

check_module() {
	# Not below an unprepared KDIR: the strict build is for the stock kernel.
	[ ! -e Kbuild ] || REELFS_STRICT=1 tools/module.sh >/dev/null
}

check_unsafe() {
	# The rooms in which unsafe code may be; everywhere else the compiler is told to
	# forbid it for user space, and this does for the module. Its entry point vouches for
	# what has to happen once.
	found=$(sources 'rust/*.rs' | grep -v -e '^rust/vfs[./]' -e '^rust/ring[./]' -e '^rust/reelfs_main.rs$' |
		xargs grep -nE '\bunsafe( impl|  *fn|  *extern)? *[{a-zA-Z]' -- | grep -vE ':[0-9]+: *//') || :
	[ -z "$found" ] || {
		printf '%s\n' "$found"
		return 1
	}
}

check_shell() {
	sources tools tests .ci | while read -r file; do
		case $(head -c 32 "$file" | head -n 1) in
		'#!/bin/sh'*) printf '%s\n' "$file" ;;
		esac
	done | xargs tools/in-root shellcheck -s sh --severity=warning -e SC1091 --
}

passed=0
failed=0
[ $# -gt 0 ] || set -- licence unsafe shell user_format kernel_format clippy module
for check; do
	printf '== check %s\n' "$check"
	if "check_$check" 2>&1; then
		passed=$((passed + 1))
	else
		printf 'FAIL  check %s\n' "$check"
		failed=$((failed + 1))
	fi
done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
