// SPDX-License-Identifier: GPL-2.0-or-later

//! Not tests: how long a restore takes next to `tar -x` of the same tree, and how much memory (`make bench-restore`).

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{assert_same, write_volumes, Tree};

/// Files that count as small, in bytes.
const SMALL: u64 = 64 << 10;
/// Every subject is measured so often, in turns.
const ROUNDS: usize = 5;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// The small files below a directory, relative to it, each directory before what is in it.
fn small_files(source: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut directories, mut files) = (vec![PathBuf::new()], Vec::new());
    let mut at = 0;
    while at < directories.len() {
        for entry in fs::read_dir(source.join(&directories[at])).unwrap() {
            let entry = entry.unwrap();
            let path = directories[at].join(entry.file_name());
            let data = entry.metadata().unwrap();
            if data.is_dir() {
                directories.push(path);
            } else if data.is_file() && data.len() <= SMALL {
                files.push(path);
            }
        }
        at += 1;
    }
    (directories, files)
}

/// Copies small files of `source` into the tree until there are `count`, recording it.
fn fill(tree: &mut Tree, source: &Path, count: usize) -> u64 {
    let (directories, files) = small_files(source);
    let (mut made, mut bytes) = (0, 0);
    for copy in 0.. {
        for directory in &directories {
            tree.mkdir(Path::new(&format!("copy{copy}")).join(directory).to_str().unwrap());
        }
        for file in &files {
            if made == count {
                return bytes;
            }
            let path = Path::new(&format!("copy{copy}")).join(file);
            let path = path.to_str().unwrap();
            let contents = fs::read(source.join(file)).unwrap();
            tree.create(path);
            for (part, piece) in contents.chunks(32 << 10).enumerate() {
                tree.write(path, part as u64 * (32 << 10), piece);
            }
            tree.touch(path, 1_700_000_000 + made as i64, 123_456_789);
            (made, bytes) = (made + 1, bytes + contents.len() as u64);
        }
    }
    bytes
}

fn sync(path: &Path) {
    rustix::fs::syncfs(fs::File::open(path).unwrap()).unwrap();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds, and what it said.
fn restore(volumes: &Path, target: &Path, more: &[&str]) -> (f64, serde_json::Value) {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_reel"));
    let output = command.args(["restore", "--quiet", "--json", "--to"]).arg(target).args(more).arg(volumes).output();
    let seconds = begun.elapsed().as_secs_f64();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (seconds, serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
#[ignore = "figures"]
fn restore_next_to_tar() {
    let source = PathBuf::from(std::env::var_os("REELFS_BENCH_SOURCE").expect("REELFS_BENCH_SOURCE=DIRECTORY"));
    let ground = tempfile::tempdir().unwrap();
    let at = |name: &str| ground.path().join(name);
    for name in ["lower", "volumes"] {
        fs::create_dir(at(name)).unwrap();
    }
    let mut tree = Tree::new(&at("lower"));
    let count = number("REELFS_BENCH_FILES", 100_000);
    let bytes = fill(&mut tree, &source, count);
    write_volumes(&at("volumes"), &tree.log.bytes, None);
    let log = tree.log.bytes.len();
    let records = tree.log.lsn;
    drop(tree);
    let tar = |args: &[&str]| assert!(Command::new("tar").args(args).status().unwrap().success());
    let archive = at("archive.tar");
    tar(&["-cf", archive.to_str().unwrap(), "-C", at("lower").to_str().unwrap(), "."]);
    println!("{count} files, {:.0} MB; log {:.0} MB ({records} bytes of LSN)", bytes as f64 / 1e6, log as f64 / 1e6);
    let (mut tars, mut reels, mut memory) = (Vec::new(), Vec::new(), 0);
    for round in 0..=ROUNDS {
        let (untarred, target) = (at("untarred"), at("target"));
        fs::create_dir(&untarred).unwrap();
        sync(&untarred);
        let begun = Instant::now();
        tar(&["-xf", archive.to_str().unwrap(), "-C", untarred.to_str().unwrap()]);
        sync(&untarred);
        let tar_seconds = begun.elapsed().as_secs_f64();
        fs::remove_dir_all(&untarred).unwrap();
        sync(ground.path());
        let (seconds, said) = restore(&at("volumes"), &target, &[]);
        if round == 0 {
            // What comes out is the tree, or the figures are of nothing. The round warms the caches.
            assert_same(&at("lower"), &target);
            fs::remove_dir_all(at("lower")).unwrap();
        } else {
            println!(
                "tar -x {tar_seconds:.2} s, reel restore {seconds:.2} s (log and contents {}, names {})",
                said["replay_seconds"], said["place_seconds"]
            );
            tars.push(tar_seconds);
            reels.push(seconds);
        }
        memory = memory.max(said["peak_memory"].as_u64().unwrap());
        fs::remove_dir_all(&target).unwrap();
        sync(ground.path());
    }
    let (tars, reels) = (median(tars), median(reels));
    println!("| {count} | {tars:.2} s | {reels:.2} s | {:.2} | {:.0} MB |", reels / tars, memory as f64 / 1e6);
}

#[test]
#[ignore = "figures"]
fn memory_of_a_restore() {
    for count in [100_000, 400_000] {
        let ground = tempfile::tempdir().unwrap();
        let at = |name: &str| ground.path().join(name);
        for name in ["lower", "volumes"] {
            fs::create_dir(at(name)).unwrap();
        }
        let mut tree = Tree::new(&at("lower"));
        for n in 0..count {
            if n % 1000 == 0 {
                tree.mkdir(&format!("d{}", n / 1000));
            }
            let path = format!("d{}/file number {n}", n / 1000);
            tree.create(&path);
            tree.write(&path, 0, b"something");
        }
        write_volumes(&at("volumes"), &tree.log.bytes, None);
        drop(tree);
        fs::remove_dir_all(at("lower")).unwrap();
        for memory in ["32M", "256M"] {
            let (seconds, said) = restore(&at("volumes"), &at("target"), &["--memory", memory]);
            let peak = said["peak_memory"].as_u64().unwrap() as f64 / 1e6;
            println!("| {count} | {memory} | {peak:.0} MB | {} | {seconds:.1} s |", said["checkpoints"]);
            fs::remove_dir_all(at("target")).unwrap();
        }
    }
}
