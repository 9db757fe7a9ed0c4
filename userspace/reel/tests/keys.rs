// SPDX-License-Identifier: GPL-2.0-or-later

//! Identities from the command line: made, shown, checked, and what encrypted volumes ask of whoever reads them.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{assert_same, write_coded, Tree};
use reelfs_keys::Recipients;
use reelfs_media::library::volume_files;
use reelfs_media::pool::Pool;
use reelfs_media::writer::Coding;

fn output(args: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_reel")).args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

fn run(status: i32, args: &[&str]) -> String {
    let (found, out, err) = output(args);
    assert_eq!(found, Some(status), "reel {args:?}: {out}{err}");
    out + &err
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A new identity: its file and its recipient.
fn identity(directory: &Path, name: &str) -> (PathBuf, String) {
    let path = directory.join(name);
    let (status, out, err) = output(&["key", "generate", shown(&path)]);
    assert_eq!(status, Some(0), "{err}");
    (path, out.trim().to_owned())
}

#[test]
fn identities_are_made_shown_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (path, recipient) = identity(dir.path(), "id");
    assert!(recipient.starts_with("age1"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    assert!(run(1, &["key", "generate", shown(&path)]).contains("never overwritten"));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(run(0, &["key", "show", shown(&path)]).trim(), recipient);
    assert!(run(0, &["key", "check", shown(&path)]).contains(&recipient));

    // What is typed from the paper is the identity again.
    let paper = run(0, &["key", "show", "--paper", shown(&path)]);
    assert!(paper.contains(&recipient));
    let groups: Vec<_> = paper.lines().skip_while(|line| !line.starts_with("The same in groups")).skip(2).collect();
    let typed: String = groups.iter().take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let copy = dir.path().join("typed");
    fs::write(&copy, &typed).unwrap();
    assert_eq!(run(0, &["key", "show", shown(&copy)]).trim(), recipient);
    fs::write(&copy, typed.replace('q', "p").replacen('e', "f", 3)).unwrap();
    let said = run(1, &["key", "check", shown(&copy)]);
    assert!(said.contains("typed") && said.contains("line 1"), "{said}");
}

#[test]
fn encrypted_volumes_are_restored_with_an_identity_and_refused_without() {
    let dir = tempfile::tempdir().unwrap();
    let (path, recipient) = identity(dir.path(), "id");
    let (other, other_recipient) = identity(dir.path(), "other");
    let (lower, volumes, target) = (dir.path().join("lower"), dir.path().join("volumes"), dir.path().join("target"));
    fs::create_dir(&lower).unwrap();
    fs::create_dir(&volumes).unwrap();
    let mut tree = Tree::new(&lower);
    for number in 0..40 {
        let name = format!("file-{number}");
        tree.create(&name);
        tree.write(&name, 0, &vec![number; 100_000]);
    }
    let recipients = Recipients::parse(&[&recipient]).unwrap();
    let coding = || Coding { pool: Pool::inline(), level: Some(3), lock: Some(recipients.lock().unwrap()) };
    write_coded(&volumes, &tree.log.bytes, Some(512 << 10), coding);
    let count = volume_files(&volumes).unwrap().len();

    let (to, from, id, id2) = (shown(&target), shown(&volumes), shown(&path), shown(&other));
    for command in [vec!["restore", "--to", to, from], vec!["verify", from], vec!["dump", from]] {
        let said = run(1, &command);
        for word in ["test-00000", &recipient, "--identity FILE", "encrypted"] {
            assert!(said.contains(word), "{command:?}: {said}");
        }
        let said = run(1, &[&command[..], &["--identity", id2]].concat());
        assert!(said.contains(&other_recipient) && said.contains(&recipient), "{said}");
    }
    assert!(fs::read_dir(&target).is_err() || fs::read_dir(&target).unwrap().count() <= 1);
    let _ = fs::remove_dir_all(&target);
    // What is on the volumes can be seen by anybody, and what is in the files cannot.
    let said = run(0, &["dump", "--blocks", from]);
    assert!(said.contains("ZstdEncrypted") && said.contains(&recipient) && !said.contains("file-1"), "{said}");
    assert!(run(1, &["key", "check", id2, from]).contains("DOES NOT OPEN"));
    assert_eq!(run(0, &["key", "check", id, from]).matches(": opens").count(), count);

    let said = run(0, &["restore", "--to", to, from, "--identity", id2, "--identity", id]);
    assert!(said.contains("encrypted"), "{said}");
    assert_same(&lower, &target);
    run(0, &["verify", from, "-i", id]);
    assert!(run(0, &["dump", from, "-i", id]).contains("file-1"));
}

#[test]
fn an_identity_with_a_passphrase_needs_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let new = reelfs_keys::NewIdentity::generate();
    let path = dir.path().join("protected");
    let phrase = reelfs_keys::SecretString::from("phrase".to_owned());
    fs::write(&path, &*new.file("now", Some(phrase)).unwrap()).unwrap();
    // Without a terminal of its own nobody can be asked.
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(env!("CARGO_BIN_EXE_reel")).args(["key", "show"]).arg(&path);
    let done = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("protected") && said.contains("passphrase") && said.contains("terminal"), "{said}");
}
