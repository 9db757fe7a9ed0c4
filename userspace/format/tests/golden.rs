// SPDX-License-Identifier: GPL-2.0-or-later

//! The golden files: what was once written must be written the same for ever, and be read as what it says.
//!
//! `tests/format/readlog.py`, a reader written from the specification alone, prints the same listing from the same
//! files. A change of the format changes specification, code and golden files together: `REELFS_GOLDEN=write` writes them.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use reelfs_format::record::{Attributes, Identity};
use reelfs_format::view::{Event, RecordView, Xattrs};
use serde_json::{json, Map, Value};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn matches(name: &str, bytes: &[u8]) {
    if std::env::var_os("REELFS_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(path(name), bytes).unwrap();
    }
    assert!(fs::read(path(name)).unwrap() == bytes, "{name} is not what it was");
}

fn hex(bytes: &[u8]) -> Value {
    json!(hex::encode(bytes))
}

fn id(identity: &Identity) -> Value {
    hex(zerocopy::IntoBytes::as_bytes(identity))
}

fn attr(attr: &Attributes) -> Value {
    json!({
        "mode": attr.mode.get(), "nlink": attr.nlink.get(), "uid": attr.uid.get(), "gid": attr.gid.get(),
        "size": attr.size.get(), "rdev_major": attr.rdev_major.get(), "rdev_minor": attr.rdev_minor.get(),
        "mtime_sec": attr.mtime_sec.get(), "ctime_sec": attr.ctime_sec.get(),
        "mtime_nsec": attr.mtime_nsec.get(), "ctime_nsec": attr.ctime_nsec.get(),
        "fileattr": attr.fileattr.get(), "projid": attr.projid.get(), "valid": attr.valid.get(),
        "generation": attr.generation.get(),
    })
}

fn xattrs(list: Xattrs<'_>) -> Value {
    Value::Array(list.map(|(name, value)| json!([hex(name), hex(value)])).collect())
}

fn listing(log: &[u8]) -> String {
    let mut lines = String::new();
    let mut at = 0;
    while at < log.len() {
        let view = RecordView::parse(&log[at..], Some(at as u64)).unwrap();
        let header = view.header();
        let mut fields = json!({
            "lsn": view.lsn(), "length": view.bytes().len(), "type": header.kind.get(), "flags": header.flags.get(),
            "time": header.time.get(), "epoch": header.epoch.get(), "uid": header.uid.get(),
            "object": id(&header.object),
        });
        let body = match view.event().unwrap() {
            Event::Noop | Event::Unmount | Event::ObjectGone => json!({}),
            Event::Skipped => json!({ "skipped": true }),
            Event::Mount { body, xattrs: list } => json!({
                "stream": hex(&body.stream), "lower_uuid": hex(&body.lower_uuid),
                "lower_magic": body.lower_magic.get(), "mount_flags": body.flags.get(), "root": attr(&body.root),
                "xattrs": xattrs(list),
            }),
            Event::Gap { body } => json!({
                "reason": body.reason.get(), "bytes": body.bytes.get(), "changes": body.changes.get(),
            }),
            Event::GapEnd { body } => json!({
                "begin": body.begin.get(), "since": body.since.get(), "changes": body.changes.get(),
                "bytes": body.bytes.get(), "reason": body.reason.get(),
            }),
            Event::Create { body, name, target, xattrs: list } => json!({
                "parent": id(&body.parent), "attr": attr(&body.attr), "parent_attr": attr(&body.parent_attr),
                "name": hex(name), "target": hex(target), "xattrs": xattrs(list),
            }),
            Event::Link { body, name } => json!({
                "parent": id(&body.parent), "attr": attr(&body.attr), "parent_attr": attr(&body.parent_attr),
                "name": hex(name),
            }),
            Event::Unlink { body, name } => json!({
                "parent": id(&body.parent), "attr": attr(&body.attr), "parent_attr": attr(&body.parent_attr),
                "name": hex(name),
            }),
            Event::Rename { body, old_name, new_name, whiteout } => json!({
                "old_parent": id(&body.old_parent), "new_parent": id(&body.new_parent), "other": id(&body.other),
                "whiteout": id(&body.whiteout), "attr": attr(&body.attr), "other_attr": attr(&body.other_attr),
                "old_parent_attr": attr(&body.old_parent_attr), "new_parent_attr": attr(&body.new_parent_attr),
                "rename_flags": body.flags.get(), "old_name": hex(old_name), "new_name": hex(new_name),
                "whiteout_attr": whiteout.map(|whiteout| attr(whiteout.attr)),
                "whiteout_xattrs": whiteout.map(|whiteout| xattrs(whiteout.xattrs)),
            }),
            Event::Reidentified { body } => json!({ "old": id(&body.old) }),
            Event::Write { body, data } => json!({
                "offset": body.offset.get(), "attr": attr(&body.attr), "data": hex(data),
            }),
            Event::Truncate { body } | Event::Setattr { body } | Event::SetFileattr { body } => json!({
                "attr": attr(&body.attr), "asked": body.asked.get(),
            }),
            Event::Fallocate { body } => json!({
                "mode": body.mode.get(), "offset": body.offset.get(), "bytes": body.length.get(),
                "attr": attr(&body.attr),
            }),
            Event::SetXattr { body, name, value } => json!({
                "attr": attr(&body.attr), "name": hex(name), "value": hex(value),
            }),
            Event::RemoveXattr { body, name } => json!({ "attr": attr(&body.attr), "name": hex(name) }),
            Event::ObjectState { body, target, xattrs: list } => json!({
                "checkpoint": body.checkpoint.get(), "attr": attr(&body.attr), "target": hex(target),
                "xattrs": xattrs(list),
            }),
            Event::ObjectData { body, data } => json!({
                "checkpoint": body.checkpoint.get(), "offset": body.offset.get(), "bytes": body.length.get(),
                "attr": attr(&body.attr), "state_flags": body.flags.get(), "data": hex(data),
            }),
            Event::DirectoryState { body, entries } => json!({
                "checkpoint": body.checkpoint.get(), "attr": attr(&body.attr), "state_flags": body.flags.get(),
                "entries": entries.map(|(entry, name)| json!({
                    "object": id(&entry.object), "mode": entry.mode.get(), "name": hex(name),
                })).collect::<Vec<_>>(),
            }),
            Event::CheckpointBegin { body } => json!({ "checkpoint_flags": body.flags.get() }),
            Event::CheckpointEnd { body } => json!({
                "checkpoint": body.checkpoint.get(), "objects": body.objects.get(), "bytes": body.bytes.get(),
            }),
        };
        fields.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        lines.push_str(&sorted(&fields).to_string());
        lines.push('\n');
        at += view.bytes().len();
    }
    lines
}

/// The same with its keys in alphabetical order, whatever order the library keeps them in.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&map[key]))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[test]
fn records() {
    let log = common::log();
    matches("log.bin", &log.bytes);
    matches("log.jsonl", listing(&log.bytes).as_bytes());
}

#[test]
fn volumes() {
    matches("volume.reelvol", &common::volume());
}

#[test]
fn segments() {
    matches("segment.header", &common::segment());
}

/// The reader in another language, where there is an interpreter for it.
#[test]
fn an_independent_reader_agrees() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/format/readlog.py");
    for name in ["log.bin", "volume.reelvol"] {
        let Ok(output) = Command::new("python3").arg(&script).arg(path(name)).output() else {
            println!("no python3: not checked");
            return;
        };
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == fs::read(path("log.jsonl")).unwrap(), "{name} is read differently");
    }
    let output = Command::new("python3").arg(&script).arg(path("segment.header")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
