// SPDX-License-Identifier: GPL-2.0-or-later

//! The rule, a sentence each; and what a checkpoint that is not as it has to be is refused for.

use reel::replay::Problem;
use reelfs_format::build::Payload;
use reelfs_format::record::*;
use zerocopy::FromZeros;

use super::model::{identity, Model, Number, BLOCK, ROOT};
use super::Replay;

/// A tree with one directory (2), two files (3, 4) in it, a checkpoint begun, and the root told.
fn ground() -> (Model, Lsn) {
    let mut model = Model::populated();
    model.work((4, 0, 0, 0));
    model.work((0, 1, 1, 0));
    model.work((0, 1, 2, 0));
    model.work((18, 0, 0, 8999));
    let begin = model.begin();
    model.tell_object(begin, ROOT);
    model.tell_entries(begin, ROOT, 0, 10);
    (model, begin)
}

/// Replays from the begin record to the end of the log.
fn replay(model: &Model, begin: Lsn) -> Result<Replay, Problem> {
    let mut replay = Replay::new(begin);
    replay.follow(&model.log.bytes, model.log.lsn).map_err(|error| error.problem)?;
    Ok(replay)
}

fn refusal(model: &Model, begin: Lsn) -> Problem {
    replay(model, begin).map(|_| ()).expect_err("it was accepted")
}

fn tell_file(model: &mut Model, begin: Lsn, file: Number) {
    model.tell_object(begin, file);
    assert_eq!(model.tell_data(begin, file, 0, &mut 0, u64::MAX >> 1), Ok(None));
}

fn contents(replay: &mut Replay, file: Number) -> Vec<u8> {
    let id = replay.tree.find(&identity(file)).unwrap().unwrap();
    replay.contents.get(&id).cloned().unwrap_or_default()
}

fn write(model: &mut Model, file: Number, offset: u64, bytes: &[u8]) {
    super::store(&mut model.objects.get_mut(&file).unwrap().data, offset, bytes);
    let body = WriteBody { offset: offset.into(), attr: model.attr(file) };
    model.log.push(RecordType::Write, 0, identity(file), &body, &Payload::of(bytes)).unwrap();
}

#[test]
fn everything_has_to_be_told_by_the_end() {
    let untold = |what| move |object: Number| Problem::Untold { object: identity(object), what };
    let (mut model, begin) = ground();
    model.end(begin);
    assert_eq!(refusal(&model, begin), untold("the state")(2));

    let (mut model, begin) = ground();
    model.tell_object(begin, 2);
    model.end(begin);
    assert_eq!(refusal(&model, begin), untold("the last of the entries")(2));

    let (mut model, begin) = ground();
    model.tell_object(begin, 2);
    let next = model.tell_entries(begin, 2, 0, 1).unwrap();
    model.tell_entries(begin, 2, next, 10);
    tell_file(&mut model, begin, 4);
    model.tell_object(begin, 3);
    let mut shifts = 0;
    let next = model.tell_data(begin, 3, 0, &mut shifts, 4096).unwrap().unwrap();
    let mut unfinished = model.clone();
    unfinished.end(begin);
    assert_eq!(refusal(&unfinished, begin), untold("the end of the contents")(3));

    assert_eq!(model.tell_data(begin, 3, next, &mut shifts, 1 << 20), Ok(None));
    assert_eq!(replay(&model, begin).unwrap().tree.telling(), Some(begin));
    model.end(begin);
    let mut replay = replay(&model, begin).unwrap();
    assert_eq!(replay.tree.telling(), None);
    replay.compare(&model);
}

#[test]
fn every_link_has_its_name_at_the_end() {
    let (mut model, begin) = ground();
    model.tell_object(begin, 2);
    let whole = model.objects[&2].entries.clone();
    // A directory that does not give all of its names.
    model.objects.get_mut(&2).unwrap().entries.retain(|_, child| *child == 3);
    model.tell_entries(begin, 2, 0, 10);
    model.objects.get_mut(&2).unwrap().entries = whole;
    tell_file(&mut model, begin, 3);
    tell_file(&mut model, begin, 4);
    model.end(begin);
    assert_eq!(refusal(&model, begin), Problem::Unlinked { object: identity(4), recorded: 1, known: 0 });
}

#[test]
fn what_is_not_completed_is_no_checkpoint() {
    let mount = |model: &mut Model| {
        let mut body = MountBody::new_zeroed();
        body.root = model.attr(ROOT);
        model.log.push(RecordType::Mount, 0, identity(ROOT), &body, &Payload::new()).unwrap();
    };
    let (mut model, begin) = ground();
    mount(&mut model);
    assert_eq!(refusal(&model, begin), Problem::Abandoned(begin));
    let (mut model, begin) = ground();
    model.log.push(RecordType::Gap, 0, Identity::NONE, &GapBody::new_zeroed(), &Payload::new()).unwrap();
    assert_eq!(refusal(&model, begin), Problem::Abandoned(begin));
    let (mut model, begin) = ground();
    let second = model.begin();
    model.end(second);
    assert_eq!(refusal(&model, begin), Problem::Abandoned(begin));
}

#[test]
fn a_populated_tree_needs_a_checkpoint() {
    let (model, _) = ground();
    assert_eq!(refusal(&model, 0), Problem::Populated);
    assert!(Problem::Populated.to_string().contains("reel checkpoint"));
}

#[test]
fn behind_what_was_told_nothing_is_applied() {
    let (mut model, begin) = ground();
    model.tell_object(begin, 3);
    let mut shifts = 0;
    let next = model.tell_data(begin, 3, 0, &mut shifts, 4096).unwrap().unwrap();
    assert_eq!(next, 4096);
    // Across the end of what was told, behind it, and before it.
    write(&mut model, 3, 4000, &[1; 200]);
    write(&mut model, 3, 8000, &[2; 100]);
    write(&mut model, 3, 10, &[3; 10]);
    let mut replay = replay(&model, begin).unwrap();
    let found = contents(&mut replay, 3);
    assert_eq!(found.len(), 4096);
    assert!(found == model.objects[&3].data[..4096]);
}

#[test]
fn a_shift_voids_what_was_told() {
    let (mut model, begin) = ground();
    model.tell_object(begin, 3);
    let mut shifts = 0;
    model.tell_data(begin, 3, 0, &mut shifts, 6000).unwrap();
    model.work((26, 0, 0, 0));
    let mut voided = replay(&model, begin).unwrap();
    assert!(contents(&mut voided, 3).is_empty());
    assert_eq!(model.tell_data(begin, 3, 6000, &mut shifts, 6000), Err(()));
    // On one that was told to its end it is a shift.
    let mut position = Some(0);
    while let Some(at) = position {
        position = model.tell_data(begin, 3, at, &mut shifts, 1 << 20).unwrap();
    }
    model.work((25, 0, 0, 0));
    let mut shifted = replay(&model, begin).unwrap();
    assert!(contents(&mut shifted, 3) == model.objects[&3].data);
    assert!(shifts > 0 && model.objects[&3].data.len() as u64 > BLOCK);
}

#[test]
fn parts_do_not_leave_anything_out() {
    let (mut model, begin) = ground();
    model.tell_object(begin, 3);
    model.tell_data(begin, 3, 5000, &mut 0, 1).unwrap();
    assert_eq!(refusal(&model, begin), Problem::PartMissing);
    let (mut model, begin) = ground();
    model.tell_object(begin, 2);
    model.tell_entries(begin, 2, 1, 1);
    assert_eq!(refusal(&model, begin), Problem::PartMissing);
    let (mut model, begin) = ground();
    model.tell_entries(begin, 2, 0, 1);
    assert_eq!(refusal(&model, begin), Problem::Unknown(identity(2)));
}

/// Names that go from a directory that has not been told, or from one that has been told to its end.
#[test]
fn names_that_are_not_known() {
    let unlink = |model: &mut Model| {
        let mut body = UnlinkBody::new_zeroed();
        (body.parent, body.parent_attr, body.attr) = (identity(2), model.attr(2), model.attr(4));
        (body.attr.nlink, body.name_len) = (1.into(), 7.into());
        model.log.push(RecordType::Unlink, 0, identity(4), &body, &Payload::of(b"unknown")).unwrap();
    };
    let (mut model, begin) = ground();
    unlink(&mut model);
    model.tell_object(begin, 2);
    unlink(&mut model);
    assert!(replay(&model, begin).is_ok());
    model.tell_entries(begin, 2, 0, 10);
    unlink(&mut model);
    assert_eq!(refusal(&model, begin), Problem::NoName(b"unknown".to_vec()));
}

/// An entry can come before what it stands for, but not change what that is.
#[test]
fn entries_keep_their_word() {
    let (mut model, begin) = ground();
    model.tell_object(begin, 2);
    model.tell_entries(begin, 2, 0, 10);
    let directory = model.objects[&2].clone();
    model.objects.insert(3, directory);
    model.tell_object(begin, 3);
    assert!(matches!(refusal(&model, begin), Problem::TypeChanged { .. }));
}
