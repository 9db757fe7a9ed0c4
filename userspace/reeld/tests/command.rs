// SPDX-License-Identifier: GPL-2.0-or-later

//! The command line: what `--check` refuses, and with which status.

use std::fs;
use std::path::Path;
use std::process::Command;

fn configuration(dir: &Path) -> String {
    format!(
        "mount = \"{0}/mnt\"\n[spool]\ndirectory = \"{0}/spool\"\nlimit = \"1G\"\n[media]\nkind = \"directory\"\n\
         pool = \"daily\"\npath = \"{0}/media\"\n[daemon]\nsocket = \"{0}/sock\"\n",
        dir.display()
    )
}

/// Exit status, and everything that was said.
fn check(dir: &Path, text: &str) -> (Option<i32>, String) {
    let path = dir.join("data.toml");
    fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_reeld")).arg("--check").arg(&path).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn check_changes_nothing_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let good = configuration(dir.path());
    fs::create_dir(dir.path().join("media")).unwrap();
    let (status, said) = check(dir.path(), &good);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("good"));
    assert!(!dir.path().join("spool").exists());

    let root = dir.path().display();
    for (from, to, named) in [
        (format!("{root}/spool"), format!("{root}/mnt/spool"), "spool.directory"),
        (format!("{root}/media"), format!("{root}/mnt/media"), "media.path"),
        (format!("{root}/sock"), format!("{root}/mnt/deep/sock"), "daemon.socket"),
        (format!("{root}/media"), format!("{root}/nowhere"), "nowhere"),
        (format!("{root}/spool"), format!("{root}/data.toml"), "not a directory"),
        (format!("mount = \"{root}/mnt\""), format!("mount = \"{root}\""), "configuration file"),
        ("limit".into(), "limti".into(), "limti"),
    ] {
        let (status, said) = check(dir.path(), &good.replace(&from, &to));
        assert_eq!(status, Some(2), "{to}: {said}");
        assert!(said.contains(named), "{to}: {said}");
    }
}

#[test]
fn check_looks_into_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let good = configuration(dir.path());
    fs::create_dir(dir.path().join("media")).unwrap();
    let spool = dir.path().join("spool");
    drop(reelfs_spool::Spool::open_or_create(&spool, 4 << 20).unwrap());
    let (status, said) = check(dir.path(), &good);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("spool.segment"), "{said}");

    fs::write(spool.join("media.json"), "{").unwrap();
    let (status, said) = check(dir.path(), &good);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("media.json"), "{said}");
    fs::remove_file(spool.join("media.json")).unwrap();

    let mut floor = reelfs_spool::FloorFile::open(&reelfs_spool::Spool::open(&spool).unwrap()).unwrap();
    floor.raise(104).unwrap();
    let (status, said) = check(dir.path(), &good);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("damaged"), "{said}");
}

#[test]
fn usage_is_status_2() {
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_reeld")).args(arguments).output().unwrap();
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["/does/not/exist.toml"]).status.code(), Some(2));
    assert_eq!(run(&["--no-such-flag", "x"]).status.code(), Some(2));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}
