// SPDX-License-Identifier: GPL-2.0-or-later

//! Looking at a volume before it is written: whose it is, and how far it reaches. No key is needed for that.

use reelfs_format::record::Lsn;
use reelfs_format::volume::{
    BlockHeader, BlockKind, BlockView, Label, SegmentEnd, Trailer, VolumeError, VolumeStart, BLOCK_HEADER_LEN, SEAL_LEN,
};
use uuid::Uuid;

use super::WriteError;
use crate::label::{self, LabelState};
use crate::medium::{Medium, MediumError, Position, Read};

/// What is on a volume: the answer to "where were we".
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The label.
    pub label: Label,
    /// How the volume begins, or `None` for one that was never used.
    pub start: Option<VolumeStart>,
    /// The stream, zero for a volume that was never used.
    pub stream: [u8; 16],
    /// Timeline of the stream.
    pub timeline: u32,
    /// The log can be read from the volume up to here, as far as its last part was looked at.
    pub next_lsn: Lsn,
    /// The last segment that is complete on this volume.
    pub segment_end: Option<SegmentEnd>,
    /// Where the block lies that says so.
    pub segment_end_at: Position,
    /// The trailer, if the volume has one: nothing more is to be written.
    pub trailer: Option<Trailer>,
    /// Number of the next block.
    pub(super) next_number: u64,
    /// Header of the last block that can be read, and where it lies.
    pub(super) last: Option<(Position, BlockHeader)>,
    /// End of the data.
    pub(super) end: Position,
}

impl Inspection {
    /// Where a [`LogState`] that is to resume this volume has to begin: number of a segment, and the chain hash after
    /// the one before it. From there the log has to be fed up to [`Inspection::next_lsn`] at most.
    pub fn resume_segment(&self) -> Option<(u64, [u8; 32])> {
        let start = self.start.as_ref()?;
        match &self.segment_end {
            Some(end) => Some((end.segment.get().checked_add(1)?, end.chain)),
            None => Some((start.first_lsn.get().checked_div(start.segment_size.get())?, start.chain)),
        }
    }
}

/// Reads the label and says what stands on the volume, reading the last part of it. Leaves the position at the end
/// of the data. Writes nothing.
pub fn inspect(medium: &mut dyn Medium) -> Result<Inspection, WriteError> {
    let not_ours = |found: String, medium: &dyn Medium| WriteError::NotOurs { medium: medium.describe(), found };
    let label = match medium.read_label()? {
        LabelState::Labelled(label) => *label,
        LabelState::Blank => return Err(not_ours("blank".into(), medium)),
        LabelState::Foreign(error) => return Err(not_ours(error.to_string(), medium)),
    };
    let mut found = Inspection {
        label,
        start: None,
        stream: [0; 16],
        timeline: 0,
        next_lsn: 0,
        segment_end: None,
        segment_end_at: Position(0),
        trailer: None,
        next_number: 0,
        last: None,
        end: Position(0),
    };
    let mut block = Vec::new();
    let first = medium.position()?;
    if matches!(medium.read_block(&mut block)?, Read::EndOfData | Read::EndOfMedium) {
        found.end = medium.seek_end_of_data()?;
        return Ok(found);
    }
    let volume = label::name(&label);
    let start = match parse_own(&block, &label) {
        Ok(view) if view.kind == Some(BlockKind::VolumeStart) => {
            found.stream = view.header.stream;
            found.timeline = view.header.timeline.get();
            *view.body::<VolumeStart>().map_err(|error| not_resumable(&volume, error))?
        }
        Ok(_) => return Err(not_resumable(&volume, "its first block is no volume start")),
        Err(error) => return Err(not_resumable(&volume, format!("its first block is damaged: {error}"))),
    };
    found.end = medium.seek_end_of_data()?;
    found.start = Some(start);

    // The last segment end lies at most a segment back, unless parts were repeated: then look at everything.
    let payload = (label.block_size.get() as usize).saturating_sub(BLOCK_HEADER_LEN + SEAL_LEN).max(1) as u64;
    let window = start.segment_size.get().div_ceil(payload).saturating_add(64);
    let near = Position(found.end.0.saturating_sub(window).max(first.0));
    scan_tail(medium, &mut found, near, near == first, &mut block)?;
    if found.segment_end.is_none() && near != first {
        scan_tail(medium, &mut found, first, true, &mut block)?;
    }
    Ok(found)
}

/// Reads from `from` to the end of the data and notes what is found.
fn scan_tail(
    medium: &mut dyn Medium,
    found: &mut Inspection,
    from: Position,
    whole: bool,
    block: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let first_lsn = found.start.as_ref().map_or(0, |start| start.first_lsn.get());
    // How far the log reaches without a hole. Blocks before the part that is read are taken on the filemark's word.
    let mut reach = whole.then_some(first_lsn);
    let mut ends: Vec<(Lsn, SegmentEnd, Position)> = Vec::new();
    let mut unreadable_behind_last = 0;
    medium.seek(from)?;
    loop {
        let here = medium.position()?;
        match medium.read_block(block) {
            Ok(Read::Block) => {}
            Ok(Read::Filemark) => continue,
            Ok(Read::EndOfData | Read::EndOfMedium) => break,
            Err(MediumError::Unreadable { .. }) => {
                // What is left of a block behind the end of the data is overwritten by the next.
                unreadable_behind_last += u64::from(here < found.end);
                medium.seek(Position(here.0 + 1))?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let Ok(view) = parse_own(block, &found.label) else {
            unreadable_behind_last += 1;
            continue;
        };
        let (start, end) = (view.header.lsn_start.get(), view.header.lsn_end.get());
        match reach {
            None => reach = Some(end),
            Some(at) if start <= at => reach = Some(at.max(end)),
            Some(_) => {}
        }
        match view.kind {
            Some(BlockKind::SegmentEnd) => {
                let body =
                    view.body::<SegmentEnd>().map_err(|error| not_resumable(&label::name(&found.label), error))?;
                ends.push((start, *body, here));
            }
            Some(BlockKind::Trailer) => found.trailer = view.body::<Trailer>().ok().copied(),
            _ => {}
        }
        found.last = Some((here, *view.header));
        unreadable_behind_last = 0;
    }
    found.next_lsn = reach.unwrap_or(first_lsn);
    found.next_number = match &found.last {
        Some((_, header)) => header.number.get().saturating_add(1 + unreadable_behind_last),
        None => unreadable_behind_last,
    };
    let last = ends.into_iter().filter(|(lsn, ..)| *lsn <= found.next_lsn).max_by_key(|(lsn, ..)| *lsn);
    if let Some((_, end, here)) = last {
        (found.segment_end, found.segment_end_at) = (Some(end), here);
    }
    found.end = medium.seek_end_of_data()?;
    Ok(())
}

/// A block of this very volume, or what is wrong with it.
pub(super) fn parse_own<'a>(block: &'a [u8], label: &Label) -> Result<BlockView<'a>, String> {
    let view = BlockView::parse(block).map_err(|error: VolumeError| error.to_string())?;
    if view.header.volume != label.volume {
        return Err(format!("it belongs to another volume, {}", Uuid::from_bytes(view.header.volume)));
    }
    Ok(view)
}

pub(super) fn not_resumable(volume: &str, why: impl ToString) -> WriteError {
    WriteError::NotResumable { volume: volume.to_owned(), why: why.to_string() }
}
