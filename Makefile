# SPDX-License-Identifier: GPL-2.0-or-later
#
# Everything is built and run inside a Debian 13 root (tools/in-root); the host needs
# make and mmdebstrap, which tools/dev installs. What is made lives under ~/.cache/reelfs
# (XDG_CACHE_HOME moves it), never in the checkout.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

export KERNEL KDIR XFSTESTS_DIR

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		awk -F'|' '{ printf "  %-14s %s\n", $$1, $$2 }'
	@printf '\nKERNEL=RELEASE chooses a Debian kernel, KDIR=DIR a prepared kernel tree, SUITES="NAME[/TEST]..." suites.\n'

# --- The product

.PHONY: demo module userspace reel-static
demo: ## record, destroy, restore, compare: the whole product once, in test machines
	@tools/demo.sh

module: ## build reelfs.ko for the stock kernel (or KERNEL=, KDIR=)
	@tools/module.sh

userspace: ## build the daemon, the command and all other programs
	@tools/userspace.sh

reel-static: ## build reel, statically linked, for rescue systems
	@tools/cargo build --release -p reel
	@tools/programs.sh reel

# --- Tests

.PHONY: test check unit fuzz vm-test stress powercut third-party xfstests test-debug mutants
test: ## every test: check, unit, vm-test (the short form with CI=true)
	@tools/test.sh check unit vm-test

check: ## formatting, lints, warnings, licence lines
	@tools/check.sh

unit: ## the tests that need no kernel
	@tools/cargo test --workspace --no-fail-fast

fuzz: ## many rounds of the fuzz targets over every parser, with a floor for what they reach
	@tools/fuzz.sh

vm-test: ## the suites on the stock kernel (SUITES= chooses)
	@tools/reelvm suites $(SUITES)

stress: ## everything at random, and every noted moment of it restored and compared
	@tools/reelvm suites $(or $(SUITES),stress-ext4 stress-xfs stress-btrfs)

powercut: ## the power cut at random under load, again and again (N= cuts; FS=ext4 or xfs)
	@tools/powercut.sh $(or $(N),100)

third-party: ## suites and programs of others on a mount: pjdfstest, fsx, databases, git, stress-ng
	@tools/reelvm suites $(or $(SUITES),pjdfstest-ext4 pjdfstest-xfs programs-ext4 programs-xfs)

xfstests: ## xfstests, built in XFSTESTS_DIR=, on FS=ext4 or xfs, on overlayfs and on reelfs over it (TESTS= or GROUP=)
	@FS="$(FS)" TESTS="$(TESTS)" GROUP="$(GROUP)" SUBJECTS="$(SUBJECTS)" SHARD="$(SHARD)" MINUTES="$(MINUTES)" LIMIT="$(LIMIT)" AGAIN="$(AGAIN)" tools/xfstests.sh

test-debug: ## the suites on a kernel with lockdep, KASAN and kmemleak (SUITES= chooses)
	@REELVM_KERNEL=$$(tools/debug-kernel.sh) && export REELVM_KERNEL && tools/reelvm suites $(SUITES)

mutants: ## break the code on purpose and see that a test notices (MUTANTS= chooses)
	@tests/mutants/run $(MUTANTS)

# --- Measurements

.PHONY: bench bench-restore
bench: ## what operations cost, as ratios to the filesystem below
	@tools/bench.sh

bench-restore: ## how long a restore takes next to tar -x of the same tree, and how much memory
	@tools/bench-restore.sh

# --- Pieces, each made when it is needed

.PHONY: root kernel debug-kernel image clean distclean
root: ## make the Debian 13 build root
	@tools/root.sh

kernel: ## fetch the stock kernel and prepare a tree to build against
	@tools/kernel.sh

debug-kernel: ## build the debug kernel
	@tools/debug-kernel.sh

image: ## make the test machines' root image
	@tools/guest-image.sh

clean: ## remove what was built from this checkout, and logs
	@tools/clean.sh

distclean: ## remove the whole cache: root, kernels, images, downloads
	@tools/clean.sh all
