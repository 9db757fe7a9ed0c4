#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tools/fuzz.sh [ROUNDS]: runs the fuzz targets over every parser and fails unless they
# reach enough of the format's code. Stable compiler; the same rounds are the same inputs.
set -eu

REELFS_TOP=${REELFS_TOP:-$(cd "$(dirname "$0")/.." && pwd)}
ROUNDS=${1:-200000}
# Lines of each file of rust/format that the targets have to reach, in percent. Writing
# (seal, build) is not theirs.
FLOOR=70

cd "$REELFS_TOP/userspace"
exec "$REELFS_TOP/tools/in-root" sh -c '
set -eu
rounds=$1 floor=$2
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/coverage"
# A named target keeps the flag away from build scripts, which would leave profiles about.
CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu RUSTFLAGS="-C instrument-coverage" \
	cargo build --quiet --release -p reelfs-fuzz
profiles="$CARGO_TARGET_DIR/profiles"
rm -rf "$profiles"
mkdir -p "$profiles"
program="$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release/reelfs-fuzz"
LLVM_PROFILE_FILE="$profiles/%p.profraw" "$program" fuzz/corpus "$rounds"
llvm-profdata merge -sparse -o "$profiles/all" "$profiles"/*.profraw
llvm-cov report "$program" -instr-profile "$profiles/all" ../rust/format/*.rs 2>/dev/null |
	awk -v floor="$floor" "
	\$1 ~ /(view|volume|spool|mark)\\.rs\$/ {
		# File, then regions, functions and lines: number, missed, percentage each.
		lines = \$10 + 0
		seen++
		printf \"%-12s %6.2f %% of lines\\n\", \$1, lines
		if (lines < floor) {
			printf \"%s: below the floor of %d %%\\n\", \$1, floor
			bad = 1
		}
	}
	END { exit bad || seen < 4 }"
' sh "$ROUNDS" "$FLOOR"
