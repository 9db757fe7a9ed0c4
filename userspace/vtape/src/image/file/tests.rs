// SPDX-License-Identifier: GPL-2.0-or-later
//! Images that were cut, overwritten and damaged.

use super::*;
use proptest::prelude::*;

fn blank(capacity: u64) -> Blank {
    Blank { capacity, early_warning: 1 << 10, worm: false, barcode: "A00001L8".into() }
}

/// Objects 0 to 6: two blocks, a filemark, two blocks, two filemarks.
fn recorded(path: &Path) -> Vec<Vec<u8>> {
    blank(1 << 20).create(path).expect("a new image");
    let mut image = Image::open(path, Access::Write).expect("an image");
    let blocks: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 1000 + usize::from(n) * 7]).collect();
    for (n, block) in blocks.iter().enumerate() {
        image.append_block(block).expect("room");
        if n % 2 == 1 {
            image.append_filemark().expect("room");
        }
    }
    image.append_filemark().expect("room");
    image.synchronize().expect("a disk");
    blocks
}

fn contents(path: &Path) -> Vec<Option<Vec<u8>>> {
    let mut image = Image::open(path, Access::Read).expect("an image");
    (0..image.objects())
        .map(|n| {
            let mut data = Vec::new();
            match image.object(n) {
                Some(Object::Filemark) => Some(data),
                _ => image.read(n, &mut data).ok().map(|()| data),
            }
        })
        .collect()
}

#[test]
fn what_was_recorded_is_there_after_closing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    let blocks = recorded(&path);
    let found = contents(&path);
    assert_eq!(found.len(), 7);
    assert_eq!(found[0].as_ref(), Some(&blocks[0]));
    assert_eq!(found[4].as_ref(), Some(&blocks[3]));
    let image = Image::open(&path, Access::Read).expect("an image");
    assert_eq!(image.cartridge().barcode, "A00001L8");
    assert_eq!(image.filemark(1), Some(5));
    assert_eq!(image.synchronized(), 7);
    assert_eq!((image.lost(), image.tail()), (0, 0));
}

#[test]
fn an_image_is_used_by_one_writer_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    blank(1 << 20).create(&path).expect("a new image");
    let _held = Image::open(&path, Access::Write).expect("an image");
    assert!(matches!(Image::open(&path, Access::Write), Err(ImageError::InUse)));
    assert!(matches!(Image::open(&path, Access::Read), Err(ImageError::InUse)));
    assert!(blank(1 << 20).create(&path).is_err(), "an image is never made over another");
}

#[test]
fn a_damaged_record_costs_only_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    for victim in 0..7 {
        let _ = std::fs::remove_file(&path);
        recorded(&path);
        let offset = Image::open(&path, Access::Read).expect("an image").offset(victim);
        let file = File::options().write(true).open(&path).expect("a file");
        file.write_all_at(&[0xee], offset + 9).expect("in range");
        let image = Image::open(&path, Access::Read).expect("an image");
        assert_eq!(image.objects(), 7, "victim {victim}");
        assert_eq!(image.lost(), 1);
        drop(image);
        let expected = if [2, 5, 6].contains(&victim) { 7 } else { 6 };
        let readable = contents(&path).iter().filter(|data| data.is_some()).count();
        assert_eq!(readable, expected, "victim {victim}: a filemark is known by its size");
    }
}

#[test]
fn a_flipped_byte_is_noticed_unless_it_is_to_be_silent() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    let blocks = recorded(&path);
    let flip = |silent| Image::open(&path, Access::Write).expect("an image").flip(1, 5, silent);
    flip(false).expect("in range");
    assert_eq!(contents(&path)[1], None);
    flip(true).expect("in range");
    assert_eq!(contents(&path)[1].as_ref(), Some(&blocks[1]), "flipped back");
    flip(true).expect("in range");
    let found = contents(&path)[1].clone().expect("readable");
    assert_eq!(found[5], blocks[1][5] ^ 0xff);
    let mut image = Image::open(&path, Access::Write).expect("an image");
    assert!(image.flip(2, 0, true).is_err(), "a filemark has no bytes");
    assert!(image.flip(0, 1000, true).is_err(), "beyond the block");
}

#[test]
fn an_interrupted_write_ends_the_tape_before_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    recorded(&path);
    let mut image = Image::open(&path, Access::Write).expect("an image");
    image.append_block(&[7; 5000]).expect("room");
    image.append_block(&[8; 5000]).expect("room");
    let (seventh, eighth) = (image.offset(7), image.offset(8));
    // A crash: the descriptor goes without the last words of `drop`.
    let copy = dir.path().join("b.tape");
    std::fs::copy(&path, &copy).expect("a copy");
    for cut in [seventh + 3, seventh + 40 + 4999, eighth + 39, eighth + 2000] {
        let damaged = dir.path().join("c.tape");
        std::fs::copy(&copy, &damaged).expect("a copy");
        File::options().write(true).open(&damaged).and_then(|f| f.set_len(cut)).expect("cut");
        let mut image = Image::open(&damaged, Access::Write).expect("an image");
        let objects = if cut < eighth { 7 } else { 8 };
        assert_eq!(image.objects(), objects, "cut at {cut}");
        assert!(image.tail() > 0);
        image.append_block(b"after").expect("room");
        drop(image);
        assert_eq!(contents(&damaged).last().cloned().flatten().as_deref(), Some(&b"after"[..]));
    }
}

#[test]
fn a_cut_file_keeps_count_of_what_it_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    recorded(&path);
    let third = Image::open(&path, Access::Read).expect("an image").offset(3);
    File::options().write(true).open(&path).and_then(|f| f.set_len(third + 10)).expect("cut");
    let mut image = Image::open(&path, Access::Write).expect("an image");
    assert_eq!((image.objects(), image.lost()), (7, 4));
    image.append_block(b"on").expect("room");
    drop(image);
    let found = contents(&path);
    assert_eq!(found.len(), 8);
    assert_eq!(found[7].as_deref(), Some(&b"on"[..]));
    assert_eq!(found[3], None);
}

#[test]
fn writing_in_the_middle_leaves_nothing_behind_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    recorded(&path);
    let mut image = Image::open(&path, Access::Write).expect("an image");
    image.truncate(1).expect("a disk");
    image.append_block(&[9; 3]).expect("room");
    drop(image);
    let found = contents(&path);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].as_deref(), Some(&[9; 3][..]));
}

#[test]
fn either_header_is_enough_and_none_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.tape");
    recorded(&path);
    let file = File::options().write(true).open(&path).expect("a file");
    let mut image = Image::open(&path, Access::Write).expect("an image");
    image.set_protected(true).expect("a disk");
    let newest = HEADERS[(image.header.generation.get() % 2) as usize];
    drop(image);
    file.write_all_at(&[1], newest + 200).expect("in range");
    let image = Image::open(&path, Access::Read).expect("the older header");
    assert_eq!(image.objects(), 7);
    assert!(!image.cartridge().protected);
    drop(image);
    file.write_all_at(&[1], 200).expect("in range");
    file.write_all_at(&[1], 4096 + 200).expect("in range");
    assert!(matches!(Image::open(&path, Access::Read), Err(ImageError::HeaderDamaged)));
    file.set_len(100).expect("cut");
    assert!(matches!(Image::open(&path, Access::Read), Err(ImageError::NotAnImage)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to the bytes, opening and reading answer without a panic, and what is
    /// delivered was recorded.
    #[test]
    fn damage_is_never_delivered(
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1usize..64), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.tape");
        let blocks = recorded(&path);
        let mut bytes = std::fs::read(&path).expect("a file");
        for (at, value, length) in spots {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes[at..end].fill(value);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).expect("a file");
        if let Ok(mut image) = Image::open(&path, Access::Write) {
            for n in 0..image.objects() {
                let mut data = Vec::new();
                if image.read(n, &mut data).is_ok() {
                    prop_assert!(blocks.contains(&data));
                }
            }
            prop_assert!(image.append_block(b"more").is_ok());
        }
    }
}
