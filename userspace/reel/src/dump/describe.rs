// SPDX-License-Identifier: GPL-2.0-or-later

//! One record in words: a list of fields, printed as text or as a JSON object.

use reelfs_format::record::{
    Attributes, DirectoryEntry, Identity, RECORD_DIRECTORY, RECORD_PARTIAL, RECORD_SKIPPABLE, STATE_FIRST, STATE_HOLE,
    STATE_LAST,
};
use reelfs_format::view::{Event, RecordError, RecordView, Xattrs};
use serde_json::{json, Map, Value};

use crate::show;

/// Fields in the order in which they are printed.
pub type Fields = Vec<(&'static str, Value)>;

/// Whether the record is about this object, in whatever role.
pub fn concerns(record: &RecordView<'_>, wanted: &str) -> bool {
    let is = |identity: &Identity| show::identity(identity) == wanted;
    if is(&record.header().object) {
        return true;
    }
    match record.event() {
        Ok(Event::Create { body, .. }) => is(&body.parent),
        Ok(Event::Link { body, .. }) => is(&body.parent),
        Ok(Event::Unlink { body, .. }) => is(&body.parent),
        Ok(Event::Rename { body, .. }) => {
            is(&body.old_parent) || is(&body.new_parent) || is(&body.other) || is(&body.whiteout)
        }
        Ok(Event::Reidentified { body }) => is(&body.old),
        Ok(Event::DirectoryState { mut entries, .. }) => entries.any(|(entry, _)| is(&entry.object)),
        _ => false,
    }
}

/// The fields of a record. `data`: contents of files too.
pub fn record(record: &RecordView<'_>, data: bool) -> Result<Fields, RecordError> {
    let header = record.header();
    let kind = record.kind().map_or_else(|| format!("type-{}", header.kind), |kind| kind.name().to_owned());
    let mut fields: Fields = vec![
        ("lsn", json!(record.lsn())),
        ("length", json!(record.bytes().len())),
        ("type", json!(kind)),
        ("time", json!(show::time(header.time.get()))),
        ("epoch", json!(header.epoch.get())),
        ("uid", json!(header.uid.get())),
    ];
    let flags = header.flags.get();
    for (bit, name) in [(RECORD_SKIPPABLE, "skippable"), (RECORD_DIRECTORY, "directory"), (RECORD_PARTIAL, "partial")] {
        if flags & bit != 0 {
            fields.push((name, json!(true)));
        }
    }
    if !header.object.is_none() {
        fields.push(("object", identity(&header.object)));
    }
    match record.event()? {
        Event::Noop | Event::Unmount | Event::ObjectGone | Event::Skipped => {}
        Event::Mount { body, xattrs: list } => {
            fields.push(("stream", json!(uuid::Uuid::from_bytes(body.stream).to_string())));
            fields.push(("lower_uuid", json!(uuid::Uuid::from_bytes(body.lower_uuid).to_string())));
            fields.push(("lower_magic", json!(body.lower_magic.get())));
            fields.push(("mount_flags", json!(body.flags.get())));
            fields.push(("attr", attributes(&body.root)));
            fields.push(("xattrs", xattrs(list)));
        }
        Event::Gap { body } => {
            fields.push(("reason", json!(body.reason.get())));
            fields.push(("bytes", json!(body.bytes.get())));
            fields.push(("changes", json!(body.changes.get())));
        }
        Event::GapEnd { body } => {
            fields.push(("begin", json!(body.begin.get())));
            fields.push(("since", json!(show::time(body.since.get()))));
            fields.push(("changes", json!(body.changes.get())));
            fields.push(("bytes", json!(body.bytes.get())));
            fields.push(("reason", json!(body.reason.get())));
        }
        Event::Create { body, name, target, xattrs: list } => {
            if !body.parent.is_none() {
                fields.push(("parent", identity(&body.parent)));
                fields.push(("name", text_of(name)));
            }
            if !target.is_empty() {
                fields.push(("target", text_of(target)));
            }
            fields.push(("attr", attributes(&body.attr)));
            if !list.is_empty() {
                fields.push(("xattrs", xattrs(list)));
            }
            if !body.parent.is_none() {
                fields.push(("parent_attr", attributes(&body.parent_attr)));
            }
        }
        Event::Link { body, name } => {
            fields.push(("parent", identity(&body.parent)));
            fields.push(("name", text_of(name)));
            fields.push(("attr", attributes(&body.attr)));
            fields.push(("parent_attr", attributes(&body.parent_attr)));
        }
        Event::Unlink { body, name } => {
            fields.push(("parent", identity(&body.parent)));
            fields.push(("name", text_of(name)));
            fields.push(("attr", attributes(&body.attr)));
            fields.push(("parent_attr", attributes(&body.parent_attr)));
        }
        Event::Rename { body, old_name, new_name, whiteout } => {
            fields.push(("old_parent", identity(&body.old_parent)));
            fields.push(("old_name", text_of(old_name)));
            fields.push(("new_parent", identity(&body.new_parent)));
            fields.push(("new_name", text_of(new_name)));
            fields.push(("rename_flags", json!(body.flags.get())));
            fields.push(("attr", attributes(&body.attr)));
            if !body.other.is_none() {
                fields.push(("other", identity(&body.other)));
                fields.push(("other_attr", attributes(&body.other_attr)));
            }
            if let Some(whiteout) = whiteout {
                fields.push(("whiteout", identity(&body.whiteout)));
                fields.push(("whiteout_attr", attributes(whiteout.attr)));
            }
            fields.push(("old_parent_attr", attributes(&body.old_parent_attr)));
            fields.push(("new_parent_attr", attributes(&body.new_parent_attr)));
        }
        Event::Reidentified { body } => fields.push(("old", identity(&body.old))),
        Event::Write { body, data: bytes } => {
            fields.push(("offset", json!(body.offset.get())));
            fields.push(("bytes", json!(bytes.len())));
            fields.push(("attr", attributes(&body.attr)));
            if data {
                fields.push(("data", json!(hex::encode(bytes))));
            }
        }
        Event::Truncate { body } | Event::Setattr { body } | Event::SetFileattr { body } => {
            fields.push(("asked", json!(body.asked.get())));
            fields.push(("attr", attributes(&body.attr)));
        }
        Event::Fallocate { body } => {
            fields.push(("mode", json!(body.mode.get())));
            fields.push(("offset", json!(body.offset.get())));
            fields.push(("bytes", json!(body.length.get())));
            fields.push(("attr", attributes(&body.attr)));
        }
        Event::SetXattr { body, name, value } => {
            fields.push(("name", text_of(name)));
            fields.push(("value", json!(hex::encode(value))));
            fields.push(("attr", attributes(&body.attr)));
        }
        Event::RemoveXattr { body, name } => {
            fields.push(("name", text_of(name)));
            fields.push(("attr", attributes(&body.attr)));
        }
        Event::ObjectState { body, target, xattrs: list } => {
            fields.push(("checkpoint", json!(body.checkpoint.get())));
            if !target.is_empty() {
                fields.push(("target", text_of(target)));
            }
            fields.push(("attr", attributes(&body.attr)));
            if !list.is_empty() {
                fields.push(("xattrs", xattrs(list)));
            }
        }
        Event::ObjectData { body, data: bytes } => {
            fields.push(("checkpoint", json!(body.checkpoint.get())));
            part(&mut fields, body.flags.get());
            fields.push(("offset", json!(body.offset.get())));
            fields.push(("bytes", json!(body.length.get())));
            fields.push(("attr", attributes(&body.attr)));
            if data && !bytes.is_empty() {
                fields.push(("data", json!(hex::encode(bytes))));
            }
        }
        Event::DirectoryState { body, entries } => {
            fields.push(("checkpoint", json!(body.checkpoint.get())));
            part(&mut fields, body.flags.get());
            let entry = |(entry, name): (&DirectoryEntry, &[u8])| json!({ "name": text_of(name), "object": identity(&entry.object), "mode": format!("{:o}", entry.mode) });
            fields.push(("entries", entries.map(entry).collect()));
            fields.push(("attr", attributes(&body.attr)));
        }
        Event::CheckpointBegin { .. } => {}
        Event::CheckpointEnd { body } => {
            fields.push(("checkpoint", json!(body.checkpoint.get())));
            fields.push(("objects", json!(body.objects.get())));
            fields.push(("bytes", json!(body.bytes.get())));
        }
    }
    Ok(fields)
}

/// Which part of an object's state it is.
fn part(fields: &mut Fields, flags: u32) {
    for (bit, name) in [(STATE_FIRST, "first"), (STATE_LAST, "last"), (STATE_HOLE, "hole")] {
        if flags & bit != 0 {
            fields.push((name, json!(true)));
        }
    }
}

/// A JSON object on one line.
pub fn json(fields: &Fields) -> String {
    let map: Map<String, Value> = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Value::Object(map).to_string()
}

/// A line of text.
pub fn text(fields: &Fields) -> String {
    let words: Vec<_> = fields.iter().map(|(key, value)| word(key, value)).collect();
    words.join(" ")
}

/// One field in a line of text.
pub fn word(key: &str, value: &Value) -> String {
    match (key, value) {
        ("lsn" | "end" | "checkpoint", Value::Number(number)) => {
            let shown = number.as_u64().map_or_else(|| number.to_string(), |lsn| format!("{lsn:#014x}"));
            if key == "lsn" {
                shown
            } else {
                format!("{key}={shown}")
            }
        }
        ("type" | "time" | "kind", Value::String(text)) => text.clone(),
        (_, Value::Bool(true)) => key.to_owned(),
        (_, Value::String(text)) => format!("{key}={text}"),
        (_, Value::Object(map)) => {
            let inner: Vec<_> = map.iter().map(|(key, value)| word(key, value)).collect();
            format!("{key}={{{}}}", inner.join(" "))
        }
        (_, other) => format!("{key}={other}"),
    }
}

fn identity(identity: &Identity) -> Value {
    json!(show::identity(identity))
}

/// A name, quoted and escaped so that it is text whatever its bytes.
fn text_of(bytes: &[u8]) -> Value {
    json!(show::name(bytes))
}

fn xattrs(list: Xattrs<'_>) -> Value {
    let map: Map<String, Value> = list.map(|(name, value)| (show::name(name), json!(hex::encode(value)))).collect();
    Value::Object(map)
}

fn attributes(attr: &Attributes) -> Value {
    let mut map = Map::new();
    map.insert("mode".into(), json!(format!("{:o}", attr.mode)));
    map.insert("nlink".into(), json!(attr.nlink.get()));
    map.insert("uid".into(), json!(attr.uid.get()));
    map.insert("gid".into(), json!(attr.gid.get()));
    map.insert("size".into(), json!(attr.size.get()));
    if attr.rdev_major.get() != 0 || attr.rdev_minor.get() != 0 {
        map.insert("rdev".into(), json!(format!("{}:{}", attr.rdev_major, attr.rdev_minor)));
    }
    map.insert("mtime".into(), json!(format!("{}.{:09}", attr.mtime_sec, attr.mtime_nsec)));
    map.insert("ctime".into(), json!(format!("{}.{:09}", attr.ctime_sec, attr.ctime_nsec)));
    if attr.valid.get() & Attributes::FILEATTR_VALID != 0 {
        map.insert("fileattr".into(), json!(format!("{:#x}", attr.fileattr)));
        map.insert("projid".into(), json!(attr.projid.get()));
    }
    map.insert("generation".into(), json!(attr.generation.get()));
    Value::Object(map)
}
