// SPDX-License-Identifier: GPL-2.0-or-later

//! How payloads of blocks are coded: compressed, encrypted, both or neither.
//!
//! Each block is coded on its own, so that a block that is lost takes nothing with it that it did not hold, and reading
//! can begin with any. Encryption is XChaCha20-Poly1305 with a random nonce for each block that is written: a block of the
//! same number may be written twice, with other contents, after an error.

use std::ops::Range;
use std::sync::Arc;

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use reelfs_format::volume::{
    plain_length_max, seal_block, BlockHeader, BlockView, Codec, Seal, VolumeError, BLOCK_HEADER_LEN, SEAL_LEN,
};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective};

use crate::key::{fill_random, VolumeKey};

/// A ratio, in thousandths, from which on compression is worth the trouble.
const WORTH: u64 = 1050;
/// Bytes that are compressed at once while a block fills up; halved where they might not fit.
const STEP: usize = 64 << 10;
/// Where less than this may still fit, the block is full.
const STEP_MIN: usize = 1 << 10;
/// What ending a frame may take beyond what is said of its contents.
const FRAME_END: usize = 32;
/// Blocks that are not tried after one that was tried in vain, at most.
const REST_MAX: u32 = 8;

/// What one thread needs for coding. Reused, because making it costs more than a block does.
#[derive(Default)]
pub struct Workshop {
    compressor: Option<(i32, CCtx<'static>)>,
    scratch: Vec<u8>,
}

/// A block whose payload is in its place, and whose header is still missing.
pub struct Piece {
    /// The whole block.
    pub block: Vec<u8>,
    /// The part of the log that it holds, in the bytes that it was cut from.
    pub plain: Range<usize>,
    /// Length of the payload as it is stored, without a seal.
    pub stored: usize,
    /// Whether it is compressed.
    pub compressed: bool,
}

/// Bytes of the log, cut into blocks.
pub struct Pieces {
    /// The bytes.
    pub bytes: Arc<Vec<u8>>,
    /// The blocks, in order; together they hold all of the bytes.
    pub pieces: Vec<Piece>,
    /// How much of the log a full block of them holds, about.
    pub fill: usize,
}

/// The shape of the blocks of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Length of a block in bytes.
    pub block_size: usize,
    /// Whether payloads are sealed.
    pub sealed: bool,
    /// The level of compression, if there is any.
    pub level: Option<i32>,
}

impl Shape {
    /// Bytes that a payload can have, without a seal.
    pub fn room(&self) -> usize {
        let seal = if self.sealed { SEAL_LEN } else { 0 };
        self.block_size.saturating_sub(BLOCK_HEADER_LEN + seal)
    }

    /// Cuts bytes of the log into blocks. Where compression does not pay, it is tried less and less often.
    pub fn cut(&self, workshop: &mut Workshop, bytes: Arc<Vec<u8>>) -> Pieces {
        let mut pieces = Vec::new();
        let mut at = 0;
        // How many blocks the next failure keeps from being tried, and how many are left of the last one's.
        let (mut penalty, mut resting) = (0, 0_u32);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let squeezed = match self.level {
                // What fits a block as it is gains nothing: blocks are all of one length.
                Some(level) if rest.len() > self.room() && resting == 0 => {
                    let squeezed = self.squeeze(workshop, rest, level);
                    (penalty, resting) = match squeezed {
                        Some(_) => (0, 0),
                        None => ((penalty * 2).clamp(1, REST_MAX), penalty),
                    };
                    squeezed
                }
                _ => {
                    resting = resting.saturating_sub(1);
                    None
                }
            };
            let (taken, stored) = match squeezed {
                Some((taken, stored)) => (taken, &workshop.scratch[..stored]),
                None => {
                    let taken = rest.len().min(self.room());
                    (taken, &rest[..taken])
                }
            };
            let mut block = Vec::with_capacity(self.block_size);
            block.resize(BLOCK_HEADER_LEN, 0);
            block.extend_from_slice(stored);
            block.resize(self.block_size, 0);
            let compressed = squeezed.is_some();
            pieces.push(Piece { block, plain: at..at + taken, stored: stored.len(), compressed });
            at += taken;
        }
        let fill = self.fill(&pieces);
        Pieces { bytes, pieces, fill }
    }

    /// How much of the log a full block holds; the last one is what was left.
    fn fill(&self, pieces: &[Piece]) -> usize {
        let Some((last, full)) = pieces.split_last() else { return self.room() };
        let most = plain_length_max(self.block_size);
        match full.len() {
            0 => (last.plain.len() * self.room() / last.stored.max(1)).clamp(self.room(), most),
            count => (last.plain.start / count).clamp(self.room(), most),
        }
    }

    /// Compresses as much from the front of `bytes` as fills a block, into the scratch room: how much that is, and how
    /// long it became. `None` if too little is gained, which shows when the block is half full.
    ///
    /// The compressor is flushed after each step, so that it is known how much room is left; steps become smaller
    /// towards the end. So it is done in one pass whatever the contents are.
    fn squeeze(&self, workshop: &mut Workshop, bytes: &[u8], level: i32) -> Option<(usize, usize)> {
        let room = self.room();
        let limit = bytes.len().min(plain_length_max(self.block_size));
        if workshop.scratch.len() < room {
            workshop.scratch.resize(room, 0);
        }
        let Workshop { compressor, scratch } = workshop;
        let compressor = fresh(compressor, level)?;
        let mut out = OutBuffer::around(&mut scratch[..room]);
        let mut at = 0;
        loop {
            let left = room - out.pos();
            let mut step = STEP.min(limit - at);
            while step > 0 && zstd_safe::compress_bound(step) + FRAME_END > left {
                step = if step > STEP_MIN { step / 2 } else { 0 };
            }
            if step == 0 {
                break;
            }
            let mut input = InBuffer::around(&bytes[at..at + step]);
            let unflushed = compressor.compress_stream2(&mut out, &mut input, ZSTD_EndDirective::ZSTD_e_flush).ok()?;
            if unflushed != 0 || input.pos() != step {
                return None;
            }
            at += step;
            if out.pos() >= room / 2 && worthless(at, out.pos()) {
                return None;
            }
        }
        let mut input = InBuffer::around(&[]);
        let unflushed = compressor.compress_stream2(&mut out, &mut input, ZSTD_EndDirective::ZSTD_e_end).ok()?;
        (unflushed == 0 && at > room).then_some((at, out.pos()))
    }
}

fn worthless(plain: usize, stored: usize) -> bool {
    (plain as u64) * 1000 < (stored as u64) * WORTH
}

/// A compressor of this level, at the beginning of a frame.
fn fresh<'a>(kept: &'a mut Option<(i32, CCtx<'static>)>, level: i32) -> Option<&'a mut CCtx<'static>> {
    if kept.as_ref().is_none_or(|(made, _)| *made != level) {
        let mut compressor = CCtx::try_create()?;
        compressor.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        *kept = Some((level, compressor));
    }
    let (_, compressor) = kept.as_mut()?;
    compressor.reset(ResetDirective::SessionOnly).ok()?;
    Some(compressor)
}

/// Completes a block whose payload of `stored` bytes is in its place: encrypts or authenticates it where there is a key,
/// and seals it. `header` says what the block is; coding and lengths are filled in.
///
/// Returns the header as it is on the block; `None` if the payload does not fit, or there are no random numbers.
pub fn finish(
    block: &mut [u8],
    header: BlockHeader,
    stored: usize,
    codec: Codec,
    key: Option<&VolumeKey>,
) -> Option<BlockHeader> {
    let mut nonce = [0; 24];
    if key.is_some() {
        fill_random(&mut nonce).ok()?;
    }
    finish_with(block, header, stored, codec, key, nonce)
}

/// [`finish`] with a nonce that is not random: for files that have to come out the same each time, and for nothing else.
#[doc(hidden)]
pub fn finish_with(
    block: &mut [u8],
    mut header: BlockHeader,
    stored: usize,
    codec: Codec,
    key: Option<&VolumeKey>,
    nonce: [u8; 24],
) -> Option<BlockHeader> {
    let length = if codec.is_sealed() { stored.checked_add(SEAL_LEN)? } else { stored };
    header.codec = U32::new(codec as u32);
    header.payload_length = U32::new(u32::try_from(length).ok()?);
    if codec.is_sealed() {
        let key = key?;
        let (payload, rest) = block.get_mut(BLOCK_HEADER_LEN..)?.split_at_mut_checked(stored)?;
        let cipher = XChaCha20Poly1305::new(key.bytes().into());
        let head = header.authenticated();
        let sealed = match codec {
            Codec::Authenticated => {
                let data = [head.as_bytes(), &*payload].concat();
                cipher.encrypt_in_place_detached(&nonce.into(), &data, &mut [])
            }
            _ => cipher.encrypt_in_place_detached(&nonce.into(), head.as_bytes(), payload),
        };
        let seal = Seal { nonce, tag: sealed.ok()?.into() };
        rest.get_mut(..SEAL_LEN)?.copy_from_slice(seal.as_bytes());
    }
    seal_block(block, header)?;
    BlockHeader::read_from_prefix(block).ok().map(|(header, _)| header)
}

/// Undoes the coding of blocks.
#[derive(Default)]
pub struct Decoder {
    decompressor: Option<DCtx<'static>>,
    stored: Vec<u8>,
    plain: Vec<u8>,
}

impl Decoder {
    /// Decodes a data block: authenticates, decrypts, decompresses. The bytes of the log are then in
    /// [`Decoder::plain`]. Takes no more memory than the header announces, which has been checked.
    pub fn decode(&mut self, view: &BlockView<'_>, key: Option<&VolumeKey>) -> Result<(), VolumeError> {
        self.plain.clear();
        let codec = view.codec.ok_or(VolumeError::Codec(view.header.codec.get()))?;
        let length = view.header.plain_length.get();
        let stored = match view.seal {
            None => view.payload,
            Some(seal) => {
                let cipher = XChaCha20Poly1305::new(key.ok_or(VolumeError::Seal)?.bytes().into());
                let to = if codec.is_compressed() { &mut self.stored } else { &mut self.plain };
                to.clear();
                to.extend_from_slice(view.payload);
                let head = view.header.authenticated();
                let genuine =
                    cipher.decrypt_in_place_detached(&seal.nonce.into(), head.as_bytes(), to, &seal.tag.into());
                if genuine.is_err() {
                    to.clear();
                    return Err(VolumeError::Seal);
                }
                if !codec.is_compressed() {
                    return Ok(());
                }
                &self.stored
            }
        };
        if !codec.is_compressed() {
            self.plain.extend_from_slice(stored);
            return Ok(());
        }
        self.plain.resize(length as usize, 0);
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(DCtx::try_create().ok_or(VolumeError::Compression)?),
        };
        let found = decompressor.decompress(&mut self.plain[..], stored);
        match found {
            Ok(found) if found == self.plain.len() => Ok(()),
            Ok(found) => {
                self.plain.clear();
                Err(VolumeError::PlainLength(u32::try_from(found).unwrap_or(u32::MAX)))
            }
            Err(_) => {
                self.plain.clear();
                Err(VolumeError::Compression)
            }
        }
    }

    /// What was decoded last.
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }
}

/// Whether a block of another kind than data is what was written on an encrypted volume with this key.
pub fn authenticate(view: &BlockView<'_>, key: &VolumeKey) -> Result<(), VolumeError> {
    let seal = view.seal.ok_or(VolumeError::Unsealed)?;
    let cipher = XChaCha20Poly1305::new(key.bytes().into());
    let data = [view.header.authenticated().as_bytes(), view.payload].concat();
    cipher
        .decrypt_in_place_detached(&seal.nonce.into(), &data, &mut [], &seal.tag.into())
        .map_err(|_| VolumeError::Seal)
}
