// SPDX-License-Identifier: GPL-2.0-or-later

//! From media: which checkpoint a restore begins with, and that it needs nothing from before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use reelfs_format::record::Lsn;
use reelfs_media::library::volume_files;

use super::common::write_volumes;
use super::model::{Model, Number, Op, ROOT};
use super::walk::Walk;
use super::{checkpoint, op, step};

/// Volumes with the log of a model, and places to restore to.
struct Media {
    directory: tempfile::TempDir,
    restores: u32,
}

impl Media {
    fn new(model: &Model, capacity: Option<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let volumes = directory.path().join("volumes");
        fs::create_dir(&volumes).unwrap();
        write_volumes(&volumes, &model.log.bytes, capacity);
        Media { directory, restores: 0 }
    }

    fn volumes(&self) -> PathBuf {
        self.directory.path().join("volumes")
    }

    fn reel(&self, status: i32, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_reel")).args(args).arg(self.volumes()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(status), "reel {args:?}: {said}");
        said
    }

    /// Restores, says what was said and where it is.
    fn restore(&mut self, status: i32, more: &[&str]) -> (String, PathBuf) {
        self.restores += 1;
        let target = self.directory.path().join(format!("restored-{}", self.restores));
        let args = [&["restore", "--no-identity-map", "--to", target.to_str().unwrap()][..], more].concat();
        (self.reel(status, &args), target)
    }

    fn restored(&mut self, model: &Model, more: &[&str]) -> String {
        let (said, target) = self.restore(0, more);
        same_tree(model, &target);
        said
    }
}

fn at(lsn: Lsn) -> [String; 2] {
    ["--at".into(), lsn.to_string()]
}

/// Compares what was restored with the model, by the system's own calls.
fn same_tree(model: &Model, target: &Path) {
    let mut pending = vec![(target.to_path_buf(), ROOT)];
    let mut inodes: BTreeMap<Number, u64> = BTreeMap::new();
    while let Some((path, number)) = pending.pop() {
        let (wanted, found) = (&model.objects[&number], fs::symlink_metadata(&path).unwrap());
        let shown = path.display();
        let attr = wanted.attr();
        assert_eq!(found.mode(), if found.is_symlink() { found.mode() } else { attr.mode.get() }, "{shown}");
        assert_eq!(found.mtime(), attr.mtime_sec.get(), "{shown}");
        assert_eq!(*inodes.entry(number).or_insert(found.ino()), found.ino(), "{shown}");
        if wanted.is_directory() {
            let names = fs::read_dir(&path).unwrap().count();
            assert_eq!(names, wanted.entries.len(), "names in {shown}");
            for (name, child) in &wanted.entries {
                pending.push((path.join(std::str::from_utf8(name).unwrap()), *child));
            }
            continue;
        }
        assert_eq!(found.nlink(), u64::from(attr.nlink.get()), "{shown}");
        if wanted.is_file() {
            assert!(fs::read(&path).unwrap() == wanted.data, "contents of {shown}");
        }
        if !wanted.target.is_empty() {
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(std::str::from_utf8(&wanted.target).unwrap()));
        }
    }
}

/// Directories and files, and no devices, which not every user may make.
fn plain(op: &Op) -> bool {
    !matches!(op.0 % 32, 6 | 17)
}

fn told(model: &mut Model) -> (Lsn, Lsn) {
    checkpoint(model, &[], &[(7, 9000), (3, 2)])
}

/// A tree with some files, and more log with each call than a segment holds.
fn grow(model: &mut Model, rounds: u32) {
    for round in 0..rounds {
        for file in 0..6 {
            model.work((0, round, file, 0));
            model.big_write(file, round);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_restore_gives_the_tree(
        before in prop::collection::vec(op().prop_filter("plain", plain), 0..60),
        steps in prop::collection::vec(step().prop_filter("plain", |step| !matches!(step, super::Step::Work(op) if !plain(op))), 20..120),
        rest in prop::collection::vec((any::<u32>(), any::<u32>()), 1..20),
        after in prop::collection::vec(op().prop_filter("plain", plain), 0..30),
    ) {
        let mut model = Model::populated();
        before.into_iter().for_each(|op| model.work(op));
        let (_, end) = checkpoint(&mut model, &steps, &rest);
        let at_end = model.clone();
        after.into_iter().for_each(|op| model.work(op));
        let mut media = Media::new(&model, None);
        media.restored(&model, &[]);
        // With no more memory than it has to have, and going to disk after every few records.
        media.restored(&model, &["--memory", "1K", "--checkpoint", "1"]);
        let moment = at(end);
        media.restored(&at_end, &[&moment[0], &moment[1]]);
        let moment = at(end - 8);
        let (said, _) = media.restore(3, &[&moment[0], &moment[1]]);
        prop_assert!(said.contains("reel checkpoint"), "{}", said);
        media.reel(0, &["verify"]);
    }
}

#[test]
fn volumes_before_the_checkpoint_are_not_needed() {
    let mut model = Model::populated();
    grow(&mut model, 4);
    let (first, _) = told(&mut model);
    grow(&mut model, 3);
    let (second, second_end) = told(&mut model);
    let at_second = model.clone();
    grow(&mut model, 3);
    let (third, third_end) = told(&mut model);
    grow(&mut model, 3);
    // And one that was never completed.
    let mut unfinished = Walk::begin(&mut model);
    (0..5).for_each(|number| _ = unfinished.step(&mut model, number, 100));
    model.work((0, 1, 1, 1));

    let mut media = Media::new(&model, Some(12 << 20));
    let begins = |said: &str, begin: Lsn| {
        assert!(said.contains(&format!("begins with the checkpoint of LSN {begin:#x}")), "{begin:#x}: {said}");
    };
    begins(&media.restored(&model, &[]), third);
    let moment = at(second_end);
    begins(&media.restored(&at_second, &[&moment[0], &moment[1]]), second);
    let moment = at(third_end - 8);
    let (said, _) = media.restore(0, &[&moment[0], &moment[1]]);
    begins(&said, second);
    let moment = at(second_end - 8);
    let (said, _) = media.restore(0, &[&moment[0], &moment[1]]);
    begins(&said, first);
    let some_path = media.restore(0, &["--path", "n1", "--quiet"]).1;
    assert_eq!(fs::read_dir(some_path).unwrap().count(), 1);

    // A volume is needed when the checkpoint, or what comes after it, is on it.
    let files = volume_files(&media.volumes()).unwrap();
    let first_lsns = |said: &str| said.lines().filter(|line| line.contains("; not needed")).count();
    let said = media.reel(0, &["restore", "--plan", "--to", "/nowhere"]);
    let spare = first_lsns(&said);
    assert!(spare > 1 && spare < files.len() - 1, "{spare} of {}: {said}", files.len());
    files[..spare].iter().for_each(|file| fs::remove_file(file).unwrap());
    media.restored(&model, &[]);
    assert!(media.reel(0, &["verify"]).contains("every record fits"));
    fs::remove_file(&files[spare]).unwrap();
    let (said, _) = media.restore(3, &[]);
    assert!(said.contains("missing"), "{said}");
}

/// A gap makes what comes after it doubtful; a checkpoint begun after it does not depend on what was before.
#[test]
fn a_checkpoint_behind_a_gap_is_whole() {
    use reelfs_format::build::Payload;
    use reelfs_format::record::{GapBody, Identity, RecordType, GAP_DEGRADED};
    use zerocopy::FromZeros;

    let mut model = Model::populated();
    grow(&mut model, 1);
    told(&mut model);
    let body = GapBody { reason: GAP_DEGRADED.into(), ..GapBody::new_zeroed() };
    model.log.push(RecordType::Gap, 0, Identity::NONE, &body, &Payload::new()).unwrap();
    // What is done in the gap is in no log.
    let log = model.log.clone();
    model.work((1, 0, 3, 0));
    model.big_write(0, 3);
    model.log = log;
    let behind_gap = model.log.lsn;
    told(&mut model);
    model.work((0, 0, 5, 0));
    let mut media = Media::new(&model, None);
    media.restored(&model, &[]);
    let moment = at(behind_gap);
    assert!(media.restore(5, &[&moment[0], &moment[1]]).0.contains("GAP"));
}

/// A restore that is killed while it learns the tree goes on from its own checkpoint, onto files that are ahead of it.
#[test]
fn a_killed_restore_goes_on() {
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    let mut some = |count: usize| -> Vec<Op> {
        let op = |_| ((random() % 32) as u8, random(), random(), random());
        (0..count).map(op).filter(plain).collect()
    };
    let mut model = Model::populated();
    some(150).into_iter().for_each(|op| model.work(op));
    let steps: Vec<_> = some(500)
        .into_iter()
        .map(|op| if op.0 % 2 == 0 { super::Step::Work(op) } else { super::Step::Tell(op.1, op.2) })
        .collect();
    checkpoint(&mut model, &steps, &[(5, 4000), (2, 1)]);
    some(100).into_iter().for_each(|op| model.work(op));
    let mut media = Media::new(&model, None);
    let small = ["--checkpoint", "4K", "--memory", "64K", "--quiet", "--resume"];
    let begun = std::time::Instant::now();
    media.restored(&model, &small);
    let whole = begun.elapsed();
    let mut went_on = 0;
    for round in 1..16_u32 {
        let target = media.directory.path().join(format!("restored-{}", media.restores + 1));
        for part in [round, round + 3, round + 6] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_reel"));
            command.args(["restore", "--no-identity-map", "--to"]).arg(&target).args(small).arg(media.volumes());
            let mut child =
                command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * part / 20);
            let _ = child.kill();
            child.wait().unwrap();
            went_on += u32::from(target.join(".reelfs-restore/state").exists());
        }
        let begun = fs::read_dir(&target).is_ok_and(|mut names| names.next().is_some());
        if begun && !target.join(".reelfs-restore").exists() {
            // It was quicker than that.
            same_tree(&model, &target);
            media.restores += 1;
        } else {
            media.restored(&model, &small);
        }
    }
    assert!(went_on > 5, "only {went_on} had something to go on with");
}
