// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel dump`: records and blocks, readably.

pub mod describe;
pub mod segments;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use reelfs_format::view::RecordView;
use reelfs_format::volume::{BlockKind, Codec, SegmentEnd, Trailer, VolumeStart};
use reelfs_media::label;
use reelfs_media::reader::{Begin, Item, LogReader, Note, OnGap, RecordReader, VolumeReader};
use serde_json::json;

use crate::args::{Dump, Moment};
use crate::outcome::Failure;
use crate::show;
use crate::volumes::{find, locations};

/// Runs the command.
pub fn run(args: &Dump) -> Result<(), Failure> {
    let mut out = Output { args, to: BufWriter::new(io::stdout().lock()), faults: 0, done: false };
    let result = out.everything().and_then(|()| out.to.flush().map_err(Stop::Output));
    match result {
        Ok(()) if out.faults > 0 => Err(Failure::Media(format!("{} faults on the way", out.faults))),
        Ok(()) => Ok(()),
        // Whoever read the output has seen enough.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stop::Output(error)) => Err(Failure::io("standard output", error)),
        Err(Stop::Failure(failure)) => Err(failure),
    }
}

/// Why no more is printed.
enum Stop {
    Output(io::Error),
    Failure(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Output(error)
    }
}

impl<E: Into<Failure>> From<E> for Stop
where
    Failure: From<E>,
{
    fn from(error: E) -> Self {
        Stop::Failure(error.into())
    }
}

struct Output<'a> {
    args: &'a Dump,
    to: BufWriter<io::StdoutLock<'a>>,
    faults: u64,
    /// The moment that was asked for has been passed.
    done: bool,
}

impl Output<'_> {
    fn everything(&mut self) -> Result<(), Stop> {
        let paths = &self.args.volumes.volumes;
        let segments: Vec<PathBuf> = segments::among(paths).map_err(|error| Failure::io("reading", error))?;
        if !segments.is_empty() {
            return self.segments(segments);
        }
        if self.args.blocks {
            return self.blocks();
        }
        let mut set = find(paths)?.select(self.args.volumes.stream)?;
        set.take_options(&self.args.volumes)?;
        for line in set.useless() {
            self.fault(line)?;
        }
        let begin = match set.first_sequence() {
            None | Some(1) => Begin::Log,
            Some(first) => Begin::Volume(first),
        };
        let mut reader = RecordReader::new(LogReader::new(set, begin, OnGap::Skip));
        while let Some(record) = reader.next()? {
            self.record(&record)?;
            if self.done {
                return Ok(());
            }
            for note in reader.log().take_notes() {
                match note {
                    Note::Damaged(damage) => self.fault(&damage.to_string())?,
                    Note::Wrong(what) => self.fault(&what)?,
                    Note::Skipped { from, to } => self.fault(&format!("LSN {from:#x} to {to:#x} passed over"))?,
                    Note::Repeated { .. } | Note::NoTrailer(_) => {}
                }
            }
        }
        if let Some(end) = reader.end() {
            if end.cut > 0 {
                self.fault(&format!("{} bytes of an incomplete record at LSN {:#x}", end.cut, end.lsn))?;
            }
        }
        Ok(())
    }

    fn segments(&mut self, files: Vec<PathBuf>) -> Result<(), Stop> {
        let mut reader = segments::Segments::new(files);
        loop {
            match reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(record)) => {
                    self.record(&record)?;
                    if self.done {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.fault(&error)?;
                    if !reader.skip() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn fault(&mut self, what: &str) -> Result<(), Stop> {
        self.faults += 1;
        if self.args.json {
            writeln!(self.to, "{}", json!({ "fault": what }))?;
        } else {
            writeln!(self.to, "FAULT: {what}")?;
        }
        Ok(())
    }

    fn record(&mut self, record: &RecordView<'_>) -> Result<(), Stop> {
        let (lsn, time) = (record.lsn(), record.header().time.get());
        self.done = match self.args.until {
            Some(Moment::Lsn(until)) => lsn >= until,
            Some(Moment::Time(until)) => time > until,
            None => false,
        };
        let early = match self.args.from {
            Some(Moment::Lsn(from)) => lsn < from,
            Some(Moment::Time(from)) => time < from,
            None => false,
        };
        let other = self.args.object.as_ref().is_some_and(|wanted| !describe::concerns(record, wanted));
        if self.done || early || other {
            return Ok(());
        }
        match describe::record(record, self.args.data) {
            Ok(fields) if self.args.json => writeln!(self.to, "{}", describe::json(&fields))?,
            Ok(fields) => writeln!(self.to, "{}", describe::text(&fields))?,
            Err(error) => self.fault(&format!("record at LSN {lsn:#x}: {error}"))?,
        }
        Ok(())
    }

    fn blocks(&mut self) -> Result<(), Stop> {
        for location in locations(&self.args.volumes.volumes)? {
            let opened = location.open().map_err(Failure::from);
            match opened.and_then(|medium| VolumeReader::open(medium).map_err(Failure::from)) {
                Ok(volume) => self.volume_blocks(volume)?,
                Err(failure) => self.fault(&format!("{}: {failure}", location.path().display()))?,
            }
        }
        Ok(())
    }

    fn volume_blocks(&mut self, mut volume: VolumeReader) -> Result<(), Stop> {
        let label = *volume.label();
        let head = json!({
            "volume": volume.name().to_string(), "uuid": uuid::Uuid::from_bytes(label.volume).to_string(),
            "pool": label::pool_name(&label), "block_size": label.block_size.get(),
            "labelled": show::time(label.created.get()),
        });
        self.fields(&head)?;
        if volume.start().is_some() {
            self.block(&volume)?;
        }
        loop {
            match volume.step()? {
                Item::End => return Ok(()),
                Item::Damaged(damage) => self.fault(&damage.to_string())?,
                Item::Block(_) => self.block(&volume)?,
            }
        }
    }

    fn block(&mut self, volume: &VolumeReader) -> Result<(), Stop> {
        let view = match volume.view() {
            Ok(view) => view,
            Err(error) => return self.fault(&error.to_string()),
        };
        let header = view.header;
        let mut fields = json!({
            "block": header.number.get(),
            "kind": view.kind.map_or_else(|| header.kind.get().to_string(), |kind| format!("{kind:?}")),
            "lsn": header.lsn_start.get(), "end": header.lsn_end.get(),
        });
        let body = match view.kind {
            Some(BlockKind::Data) => json!({
                "first_record": header.first_record.get(), "codec": format!("{:?}", view.codec.unwrap_or(Codec::Plain)),
                "stored": header.payload_length.get(),
            }),
            Some(BlockKind::VolumeStart) => view.body::<VolumeStart>().map_or(json!({}), |start| {
                json!({
                    "stream": uuid::Uuid::from_bytes(header.stream).to_string(), "timeline": header.timeline.get(),
                    "sequence": start.sequence.get(), "segment_size": start.segment_size.get(),
                    "started": show::time(start.started.get()), "origin": label::text(&start.origin),
                    "predecessor": label::text(&start.predecessor_name), "chain": hex::encode(start.chain),
                    "key": if start.key == [0; 32] { String::new() } else { hex::encode(start.key) },
                })
            }),
            Some(BlockKind::SegmentEnd) => view.body::<SegmentEnd>().map_or(json!({}), |end| {
                json!({ "segment": end.segment.get(), "hash": hex::encode(end.hash), "chain": hex::encode(end.chain) })
            }),
            Some(BlockKind::Trailer) => view.body::<Trailer>().map_or(json!({}), |trailer| {
                json!({
                    "last_lsn": trailer.last_lsn.get(), "next_sequence": trailer.next_sequence.get(),
                    "reason": trailer.reason.get(), "chain": hex::encode(trailer.chain),
                })
            }),
            Some(BlockKind::VolumeKey) => view.volume_key().map_or(json!({}), |found| {
                json!({
                    "key": hex::encode(found.head.fingerprint),
                    "recipients": found.recipients.lines().collect::<Vec<_>>().join(" "),
                    "wrapped": hex::encode(found.wrapped),
                })
            }),
            None => json!({}),
        };
        if let (Some(fields), Some(body)) = (fields.as_object_mut(), body.as_object()) {
            fields.extend(body.clone());
        }
        self.fields(&fields)
    }

    fn fields(&mut self, fields: &serde_json::Value) -> Result<(), Stop> {
        if self.args.json {
            writeln!(self.to, "{fields}")?;
        } else if let Some(map) = fields.as_object() {
            let words: Vec<_> = map.iter().map(|(key, value)| describe::word(key, value)).collect();
            writeln!(self.to, "{}", words.join(" "))?;
        }
        Ok(())
    }
}
