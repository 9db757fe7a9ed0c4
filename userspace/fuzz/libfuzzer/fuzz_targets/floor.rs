// SPDX-License-Identifier: GPL-2.0-or-later
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reelfs_fuzz::floor(bytes));
