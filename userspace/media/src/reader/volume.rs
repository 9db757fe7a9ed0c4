// SPDX-License-Identifier: GPL-2.0-or-later

//! One volume, block by block: each is checked, numbered and said to belong there, or is damage with a place and a
//! reason. What the blocks amount to is the business of [`super::log`].

use std::sync::Arc;

use reelfs_format::volume::{BlockKind, BlockView, Label, VolumeError, VolumeStart};
use uuid::Uuid;

use super::error::{Damage, Place, ReadError};
use crate::label::{self, LabelState};
use crate::medium::{Medium, MediumError, Position, Read};

/// Consecutive blocks that cannot be read before a volume is given up.
const UNREADABLE_MAX: u32 = 64;

/// One volume being read.
pub struct VolumeReader {
    medium: Box<dyn Medium>,
    pub(super) label: Label,
    pub(super) name: Arc<str>,
    pub(super) start: Option<VolumeStart>,
    pub(super) stream: [u8; 16],
    pub(super) timeline: u32,
    pub(super) block: Vec<u8>,
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
        Ok(reader)
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
            Ok(view) => Ok(view.header.number.get()),
        };
        self.number = found.as_ref().unwrap_or(&expected).saturating_add(1);
        let place = |block| Place { volume: self.name.clone(), block };
        match found {
            Ok(number) => Item::Block(place(number)),
            Err(why) => Item::Damaged(Damage { place: place(expected), why }),
        }
    }

    /// The block that [`VolumeReader::step`] found.
    pub fn view(&self) -> Result<BlockView<'_>, VolumeError> {
        BlockView::parse(&self.block)
    }
}
