// SPDX-License-Identifier: GPL-2.0-or-later

//! Reading ahead: a thread reads volumes and checks blocks, hashes and records, while another applies them.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;

use reelfs_format::record::Lsn;
use reelfs_format::view::RecordView;
use reelfs_media::reader::{LogEnd, Note, ReadError, RecordReader};

use crate::volumes::Set;

/// Bytes of records that travel together, at least.
const BATCH: usize = 1 << 20;
/// Batches that may wait to be applied.
const AHEAD: usize = 8;

/// Whole records, checked, one behind the other.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    volume: Option<Arc<str>>,
    /// Place in the set of the volume on which the first of them begins.
    sequence: u64,
    notes: Vec<Note>,
}

enum Message {
    Batch(Batch),
    /// There is no more: how the log ended, or why it cannot be read any further.
    End(Vec<Note>, Result<Option<LogEnd>, ReadError>),
}

/// Records, read ahead.
pub struct Feed {
    receiver: Receiver<Message>,
    batch: Batch,
    at: usize,
    notes: Vec<Note>,
    end: Option<LogEnd>,
    ended: bool,
}

impl Feed {
    /// Reads from `from` on, which has to be the beginning of a record; what comes before is passed over.
    pub fn start(reader: RecordReader<Set>, from: Lsn) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::Builder::new().name("reader".into()).spawn(move || read(reader, from, &sender))?;
        Ok(Feed { receiver, batch: Batch::default(), at: 0, notes: Vec::new(), end: None, ended: false })
    }

    /// The next record, or `None` at the end of the log.
    #[allow(clippy::should_implement_trait)] // A record borrows the batch, which an iterator cannot say.
    pub fn next(&mut self) -> Result<Option<RecordView<'_>>, ReadError> {
        while self.at >= self.batch.bytes.len() {
            if self.ended {
                return Ok(None);
            }
            match self.receiver.recv() {
                Ok(Message::Batch(mut batch)) => {
                    self.notes.append(&mut batch.notes);
                    (self.batch, self.at) = (batch, 0);
                }
                Ok(Message::End(mut notes, result)) => {
                    self.notes.append(&mut notes);
                    self.ended = true;
                    self.end = result?;
                }
                // The thread is gone without a word: it panicked, and that has been printed.
                Err(_) => self.ended = true,
            }
        }
        let rest = self.batch.bytes.get(self.at..).unwrap_or_default();
        let Ok(record) = RecordView::again(rest) else { return Ok(None) };
        self.at += record.bytes().len();
        Ok(Some(record))
    }

    /// How the log ended, once [`Feed::next`] has returned `None`.
    pub fn end(&self) -> Option<&LogEnd> {
        self.end.as_ref()
    }

    /// Name of the volume that the last record came from, about.
    pub fn volume(&self) -> Option<&Arc<str>> {
        self.batch.volume.as_ref()
    }

    /// Place in the set of a volume with which the record after the last one can be found again.
    pub fn sequence(&self) -> u64 {
        self.batch.sequence
    }

    /// What was found on the way, since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

/// What the thread does. Ends early when nobody takes its batches any more.
fn read(mut reader: RecordReader<Set>, from: Lsn, to: &SyncSender<Message>) {
    let mut batch = Batch::default();
    // Volumes read lately, with their places in the set: a record may begin on the one before.
    let mut volumes: VecDeque<(Arc<str>, u64)> = VecDeque::new();
    loop {
        match reader.next() {
            Ok(Some(record)) if record.next_lsn() <= from => continue,
            Ok(Some(record)) => {
                let lsn = record.lsn();
                batch.bytes.extend_from_slice(record.bytes());
                if batch.volume.is_none() {
                    let log = reader.log();
                    let (name, sequence) = (log.volume_name().cloned(), log.sequence());
                    if let Some(name) = &name {
                        if volumes.back().is_none_or(|(known, _)| known != name) {
                            volumes.push_back((name.clone(), sequence));
                        }
                    }
                    let begun = reader.place(lsn).volume;
                    let known = volumes.iter().rev().find(|(known, _)| *known == begun);
                    batch.sequence = known.map_or(sequence.saturating_sub(1).max(1), |(_, sequence)| *sequence);
                    batch.volume = name.or(Some(begun));
                    while volumes.len() > 4 {
                        volumes.pop_front();
                    }
                }
                if batch.bytes.len() >= BATCH {
                    batch.notes = reader.log().take_notes();
                    if to.send(Message::Batch(std::mem::take(&mut batch))).is_err() {
                        return;
                    }
                }
            }
            Ok(None) => {
                let end = reader.end();
                return finish(&mut reader, batch, Ok(end), to);
            }
            Err(error) => return finish(&mut reader, batch, Err(error), to),
        }
    }
}

fn finish(
    reader: &mut RecordReader<Set>,
    batch: Batch,
    result: Result<Option<LogEnd>, ReadError>,
    to: &SyncSender<Message>,
) {
    // If nobody takes it, nobody wants to know.
    let _ = to.send(Message::Batch(batch));
    let _ = to.send(Message::End(reader.log().take_notes(), result));
}
