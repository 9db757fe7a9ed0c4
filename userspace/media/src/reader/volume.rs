// SPDX-License-Identifier: GPL-2.0-or-later

//! One volume, block by block: each is checked, numbered and said to belong there, or is damage with a place and a
//! reason. What the blocks amount to is the business of [`super::log`].

use std::sync::Arc;

use reelfs_format::volume::{BlockKind, BlockView, Label, VolumeError, VolumeKeyView, VolumeStart};
use uuid::Uuid;

use super::error::{Damage, Place, ReadError};
use crate::codec::{authenticate, Decoder};
use crate::key::{self, VolumeKey, WrappedKey};
use crate::label::{self, LabelState};
use crate::medium::{Medium, MediumError, Position, Read};

/// Consecutive blocks that cannot be read before a volume is given up.
const UNREADABLE_MAX: u32 = 64;
/// How far before the end of the data the second copy of the key is looked for: before the trailer and the filemarks
/// around it.
const KEY_FROM_END: u64 = 16;

/// One volume being read.
pub struct VolumeReader {
    medium: Box<dyn Medium>,
    pub(super) label: Label,
    pub(super) name: Arc<str>,
    pub(super) start: Option<VolumeStart>,
    pub(super) stream: [u8; 16],
    pub(super) timeline: u32,
    block: Vec<u8>,
    decoder: Decoder,
    /// The first block of an encrypted volume, until it can be authenticated.
    first: Vec<u8>,
    /// The key of an encrypted volume, as it stands on it.
    wrapped: Option<WrappedKey>,
    key: Option<VolumeKey>,
    /// Number that the next block should have.
    number: u64,
    position: Position,
    unreadable: u32,
}

/// What a [`VolumeReader`] found.
#[derive(Debug)]
pub enum Item {
    /// A block: see [`VolumeReader::view`].
    Block(Place),
    /// A block that cannot be used.
    Damaged(Damage),
    /// Nothing more is to be read.
    End,
}

impl VolumeReader {
    /// Reads label and volume start. The volume may be unused.
    pub fn open(mut medium: Box<dyn Medium>) -> Result<Self, ReadError> {
        let not_ours = |why: String, medium: &dyn Medium| ReadError::NotOurs { medium: medium.describe(), why };
        let label = match medium.read_label()? {
            LabelState::Labelled(label) => *label,
            LabelState::Blank => return Err(not_ours("blank".into(), &*medium)),
            LabelState::Foreign(error) => return Err(not_ours(error.to_string(), &*medium)),
        };
        let position = medium.position()?;
        let mut reader = VolumeReader {
            medium,
            name: label::name(&label).into(),
            label,
            start: None,
            stream: [0; 16],
            timeline: 0,
            block: Vec::new(),
            decoder: Decoder::default(),
            first: Vec::new(),
            wrapped: None,
            key: None,
            number: 0,
            position,
            unreadable: 0,
        };
        match reader.step()? {
            Item::End => {}
            Item::Damaged(damage) => return Err(ReadError::Start(damage)),
            Item::Block(place) => {
                let start = reader.view().and_then(|view| match view.kind {
                    Some(BlockKind::VolumeStart) => {
                        Ok((*view.body::<VolumeStart>()?, view.header.stream, view.header.timeline.get()))
                    }
                    _ => Err(VolumeError::Kind(view.header.kind.get())),
                });
                match start {
                    Ok((start, stream, timeline)) => {
                        (reader.start, reader.stream, reader.timeline) = (Some(start), stream, timeline);
                    }
                    Err(error) => {
                        let why = format!("no volume start: {error}");
                        return Err(ReadError::Start(Damage { place, why }));
                    }
                }
            }
        }
        if reader.is_encrypted() {
            reader.first.clone_from(&reader.block);
        }
        Ok(reader)
    }

    /// Whether the volume is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.start.as_ref().is_some_and(|start| start.key != [0; 32])
    }

    /// The key of an encrypted volume, as it stands on it: right behind the volume start or, where that copy cannot be
    /// used, at the end. Leaves the place as it was.
    pub fn wrapped_key(&mut self) -> Result<&WrappedKey, ReadError> {
        if self.wrapped.is_none() {
            let (block, here, number) = (self.block.clone(), self.position, self.number);
            let found = self.find_key()?;
            self.medium.seek(here)?;
            (self.block, self.position, self.number, self.unreadable) = (block, here, number, 0);
            self.wrapped = found;
        }
        self.wrapped.as_ref().ok_or_else(|| {
            let place = Place { volume: self.name.clone(), block: 1 };
            let why = "no copy of the volume's key can be read".to_owned();
            ReadError::Start(Damage { place, why })
        })
    }

    fn find_key(&mut self) -> Result<Option<WrappedKey>, ReadError> {
        if let Item::Block(_) = self.step()? {
            if let Some(found) = self.key_in_block() {
                return Ok(Some(found));
            }
        }
        let end = self.medium.seek_end_of_data()?;
        self.position = Position(end.0.saturating_sub(KEY_FROM_END).max(self.position.0));
        self.medium.seek(self.position)?;
        loop {
            // Between here and there lie blocks that were not looked at: any number will do.
            self.number = 0;
            match self.step()? {
                Item::End => return Ok(None),
                Item::Damaged(_) => {}
                Item::Block(_) => {
                    if let Some(found) = self.key_in_block() {
                        return Ok(Some(found));
                    }
                }
            }
        }
    }

    /// The key that the block holds, if it is the one of this volume.
    fn key_in_block(&self) -> Option<WrappedKey> {
        let view = self.view().ok().filter(|view| view.kind == Some(BlockKind::VolumeKey))?;
        let found = VolumeKeyView::parse(view.payload)?;
        (found.head.fingerprint == self.start.as_ref()?.key).then(|| WrappedKey::of(&found))
    }

    /// Takes the key of an encrypted volume: from now on blocks are decrypted, and refused where they are not what was
    /// written; the volume start, read before, too.
    pub fn unlock(&mut self, key: VolumeKey) -> Result<(), ReadError> {
        let Some(start) = self.start.as_ref() else { return Ok(()) };
        if key.fingerprint() != start.key {
            return Err(ReadError::Locked {
                volume: self.name.clone(),
                fingerprint: key::shown(&start.key),
                recipients: String::new(),
                why: format!("it is not encrypted with the key {}", key::shown(&key.fingerprint())),
            });
        }
        let genuine = BlockView::parse(&self.first).and_then(|view| authenticate(&view, &key));
        genuine.map_err(|error| {
            let place = Place { volume: self.name.clone(), block: 0 };
            ReadError::Start(Damage { place, why: error.to_string() })
        })?;
        self.first = Vec::new();
        self.key = Some(key);
        Ok(())
    }

    /// The label.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Name of the volume.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How the volume begins, or `None` for one that was never used.
    pub fn start(&self) -> Option<&VolumeStart> {
        self.start.as_ref()
    }

    /// The stream, zero for a volume that was never used.
    pub fn stream(&self) -> [u8; 16] {
        self.stream
    }

    /// Timeline of the stream.
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Goes on with the block at `position`, which is not before the one that was read last.
    pub(super) fn seek(&mut self, position: Position) -> Result<(), ReadError> {
        self.medium.seek(position)?;
        self.position = position;
        Ok(())
    }

    /// Gives the medium back.
    pub fn into_medium(self) -> Box<dyn Medium> {
        self.medium
    }

    /// Reads the next block. Filemarks are passed over.
    pub fn step(&mut self) -> Result<Item, ReadError> {
        loop {
            let here = self.position;
            match self.medium.read_block(&mut self.block) {
                Ok(Read::Block) => {
                    self.position.0 += 1;
                    self.unreadable = 0;
                    return Ok(self.judge());
                }
                Ok(Read::Filemark) => self.position.0 += 1,
                Ok(Read::EndOfData | Read::EndOfMedium) => return Ok(Item::End),
                Err(MediumError::Unreadable { source, .. }) => {
                    self.unreadable += 1;
                    if self.unreadable > UNREADABLE_MAX {
                        return Ok(Item::End);
                    }
                    self.position = Position(here.0 + 1);
                    self.medium.seek(self.position)?;
                    let place = Place { volume: self.name.clone(), block: self.number };
                    self.number = self.number.saturating_add(1);
                    return Ok(Item::Damaged(Damage { place, why: format!("cannot be read: {source}") }));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn judge(&mut self) -> Item {
        let expected = self.number;
        let features = self.label.incompatible.get();
        let encrypted = self.start.as_ref().map(|start| start.key != [0; 32]);
        let found = match BlockView::parse(&self.block) {
            Err(error) => Err(error.to_string()),
            Ok(view) if view.header.volume != self.label.volume => {
                Err(format!("belongs to another volume, {}", Uuid::from_bytes(view.header.volume)))
            }
            Ok(view) if self.start.is_some() && view.header.stream != self.stream => {
                Err(format!("belongs to another stream, {}", Uuid::from_bytes(view.header.stream)))
            }
            Ok(view) if self.start.is_some() && view.header.timeline.get() != self.timeline => {
                Err(format!("belongs to timeline {}", view.header.timeline))
            }
            Ok(view) if view.header.number.get() < expected => {
                Err(format!("out of place: it says that it is block {}", view.header.number))
            }
            Ok(view) => {
                let number = view.header.number.get();
                let encrypted = encrypted.unwrap_or_else(|| starts_encrypted(&view));
                let decoded = view.fits(features, encrypted).and_then(|()| match (&self.key, view.kind) {
                    // Without the key it is still known what is where.
                    (None, _) if encrypted => Ok(()),
                    (key, Some(BlockKind::Data)) => self.decoder.decode(&view, key.as_ref()),
                    (Some(key), Some(_)) => authenticate(&view, key),
                    _ => Ok(()),
                });
                decoded.map(|()| number).map_err(|error| error.to_string())
            }
        };
        self.number = found.as_ref().unwrap_or(&expected).saturating_add(1);
        let place = |block| Place { volume: self.name.clone(), block };
        match found {
            Ok(number) => Item::Block(place(number)),
            Err(why) => Item::Damaged(Damage { place: place(expected), why }),
        }
    }

    /// The bytes of the log in the data block that [`VolumeReader::step`] found; of an encrypted volume once it has been
    /// unlocked.
    pub fn data(&self) -> &[u8] {
        self.decoder.plain()
    }

    /// The block that [`VolumeReader::step`] found.
    pub fn view(&self) -> Result<BlockView<'_>, VolumeError> {
        BlockView::parse(&self.block)
    }
}

/// Whether the block is the start of an encrypted volume.
fn starts_encrypted(view: &BlockView<'_>) -> bool {
    view.kind == Some(BlockKind::VolumeStart) && view.body::<VolumeStart>().is_ok_and(|start| start.key != [0; 32])
}
