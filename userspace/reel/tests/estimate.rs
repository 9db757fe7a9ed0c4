// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel estimate` counts what is there.

#![allow(clippy::unwrap_used, missing_docs)]

use reel::estimate::look;
use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileExt};
use std::time::Duration;

fn found(make: impl FnOnce(&std::path::Path)) -> reel::estimate::Found {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    make(directory.path());
    // The blocks of a file are known when it is written out.
    rustix::fs::syncfs(File::open(directory.path()).unwrap()).unwrap();
    look(directory.path(), Duration::from_secs(5), &mut |_, _| {}).unwrap()
}

#[test]
fn names_contents_and_links() {
    let empty = found(|_| {});
    assert_eq!((empty.names, empty.directories, empty.failed), (1, 1, 0));
    assert_eq!(empty.seconds(), None);
    let some = found(|at| {
        fs::create_dir(at.join("d")).unwrap();
        fs::write(at.join("d/file"), vec![7; 1 << 20]).unwrap();
        fs::hard_link(at.join("d/file"), at.join("again")).unwrap();
        symlink("somewhere", at.join("link")).unwrap();
    });
    assert_eq!((some.names, some.directories, some.failed), (5, 2, 0));
    assert_eq!(some.contents, f64::from(1 << 20), "two names of one file are not two files");
    assert!(some.seconds().is_some());
    let records = some.log - some.contents;
    assert!((400.0..4000.0).contains(&records), "{records} bytes of records besides the contents");
}

#[test]
fn holes_are_no_contents() {
    let sparse = found(|at| {
        let file = File::create(at.join("sparse")).unwrap();
        file.write_all_at(&[1; 65_536], 0).unwrap();
        file.set_len(1 << 30).unwrap();
    });
    assert!(sparse.contents <= 131_072.0, "{} bytes", sparse.contents);
}
