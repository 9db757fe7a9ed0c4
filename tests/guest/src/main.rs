// SPDX-License-Identifier: GPL-2.0-or-later
//! The suites that run inside a test machine.

fn main() {}
