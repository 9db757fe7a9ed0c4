// SPDX-License-Identifier: GPL-2.0-or-later

//! Some rounds of every target, in every run of the tests.

use std::path::PathBuf;

use reelfs_fuzz::{driver, TARGETS};

#[test]
fn every_target_survives_some_rounds() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        if let Err(error) = driver::drive(target, &corpus, 4000) {
            panic!("{error}");
        }
    }
}
