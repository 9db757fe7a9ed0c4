// SPDX-License-Identifier: GPL-2.0-or-later

//! The comparer finds one planted difference of every class, and nothing where nothing is.
//!
//! Needs root, and a `TMPDIR` with user xattrs. Project ids exist only on filesystems made with them: where this one
//! has none, the `compare` suite of the test machine does that part, on ext4.

mod plants;

use plants::{tree, PLANTS};
use std::path::Path;
use std::process::{Command, Output};
use treecmp::{compare, walk, Difference, Options};

fn treecmp(arguments: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_treecmp")).args(arguments).args(paths).output().unwrap()
}

fn differences(a: &Path, b: &Path) -> Vec<Difference> {
    let list = |path: &Path| {
        let (listing, errors) = walk(path, &Options::default()).unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        listing
    };
    compare(&list(a), &list(b))
}

#[test]
fn equal_trees_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    tree(&a).expect("making the tree needs root and user xattrs in TMPDIR");
    tree(&b).unwrap();
    assert_eq!(differences(&a, &b), []);
    assert_eq!(treecmp(&["diff"], &[&a, &b]).status.code(), Some(0));
}

#[test]
fn each_planted_difference_is_found_and_only_it() {
    let mut elsewhere = Vec::new();
    for plant in PLANTS {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        tree(&a).expect("making the tree needs root and user xattrs in TMPDIR");
        tree(&b).unwrap();
        match (plant.spoil)(&b) {
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                elsewhere.push(plant.class);
                continue;
            }
            done => done.unwrap_or_else(|error| panic!("{}: {error}", plant.class)),
        }
        let found = differences(&a, &b);
        let hit = found.iter().any(|difference| match difference {
            Difference::OnlyInFirst(path, _) | Difference::OnlyInSecond(path, _) => {
                plant.key.is_empty() && path == plant.path
            }
            Difference::Attribute { path, key, .. } => key == plant.key.as_bytes() && path == plant.path,
        });
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(hit, "{}: not found among {shown:#?}", plant.class);
        // A planted size changes the hash, a new type all that goes with it; nothing else has company.
        let alone = !matches!(
            plant.class,
            "size"
                | "type"
                | "type of a device"
                | "hard link broken"
                | "hard links swapped"
                | "name in other bytes"
                | "hole punched into zeros"
        );
        assert!(!alone || found.len() == 1, "{}: {shown:#?}", plant.class);
    }
    assert!(elsewhere.iter().all(|&class| class == "project id"), "not supported here: {elsewhere:?}");
}

#[test]
fn a_listing_stands_for_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (a, kept) = (dir.path().join("a"), dir.path().join("kept"));
    tree(&a).expect("making the tree needs root and user xattrs in TMPDIR");
    let listed = treecmp(&["list"], &[&a]);
    assert_eq!(listed.status.code(), Some(0));
    std::fs::write(&kept, &listed.stdout).unwrap();
    assert_eq!(treecmp(&["diff"], &[&kept, &a]).status.code(), Some(0));
    std::fs::write(a.join("dir/file"), "other").unwrap();
    assert_eq!(treecmp(&["diff"], &[&kept, &a]).status.code(), Some(1));
    let pattern = ["diff", "--ignore", "mtime", "--ignore", "blake3", "--ignore", "size", "--ignore", "da*"];
    assert_eq!(treecmp(&pattern, &[&kept, &a]).status.code(), Some(0));
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_equality() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, missing) = (dir.path().join("tree"), dir.path().join("missing"));
    std::fs::create_dir(&tree).unwrap();
    assert_eq!(treecmp(&["diff"], &[&tree, &missing]).status.code(), Some(2));
    assert_eq!(treecmp(&["diff"], &[&tree]).status.code(), Some(2));
    assert_eq!(treecmp(&["compare"], &[]).status.code(), Some(2));
    assert_eq!(treecmp(&["diff", "--frobnicate"], &[&tree, &tree]).status.code(), Some(2));
    std::fs::write(&missing, "not a listing").unwrap();
    assert_eq!(treecmp(&["diff"], &[&tree, &missing]).status.code(), Some(2));
}
