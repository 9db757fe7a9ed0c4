# SPDX-License-Identifier: GPL-2.0-or-later
#
# Everything is built and run inside a Debian 13 root (tools/in-root); the host needs
# make and mmdebstrap, which tools/dev installs. "make help" lists the targets.
#
# Variables: KERNEL=RELEASE chooses a Debian kernel, KDIR=DIR a prepared kernel tree.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

IN := tools/in-root
CARGO := cd userspace && ../$(IN) cargo

export KERNEL KDIR

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		awk -F'|' '{ printf "  %-14s %s\n", $$1, $$2 }'

## Setting up

.PHONY: root kernel
root: ## make the Debian 13 build root
	@tools/root.sh

kernel: ## fetch the stock kernel and prepare a tree to build against
	@tools/kernel.sh

## Building

.PHONY: module userspace reel-static
module: ## build reelfs.ko for the stock kernel (or KERNEL=, KDIR=)
	@tools/module.sh

userspace: ## build the daemon, the command and the other programs
	@$(CARGO) build --release --workspace

reel-static: ## build reel linked statically, for rescue systems
	@tools/static.sh reel
