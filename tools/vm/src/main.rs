// SPDX-License-Identifier: GPL-2.0-or-later
//! Boots test machines under QEMU and brings back what happened in them.

fn main() {}
