// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! `ring=SIZE` (bytes, or with suffix k, m or g), `onstall=block|fail`, `flush=SECONDS`, `force`.

use super::ReelFs;
use crate::capture::{Onstall, RING_DEFAULT, RING_MAX, RING_MIN};
use crate::vfs::MountContext;
use kernel::prelude::*;

/// Seconds without `flush=`.
const FLUSH_DEFAULT: u32 = 5;
/// Largest `flush=`, in seconds.
const FLUSH_MAX: u64 = 3600;

/// Returns the value of `onstall=` that means this.
pub(super) fn on_stall_name(onstall: Onstall) -> &'static str {
    match onstall {
        Onstall::Block => "block",
        Onstall::Fail => "fail",
    }
}

/// The options as given.
#[derive(Default)]
pub(crate) struct Options {
    ring: Option<usize>,
    on_stall: Option<Onstall>,
    flush: Option<u32>,
    force: bool,
}

impl Options {
    /// Returns the size of the ring in bytes, a power of two.
    pub(crate) fn ring(&self) -> usize {
        self.ring.unwrap_or(RING_DEFAULT)
    }

    /// Returns what is done when the log cannot take a record.
    pub(crate) fn on_stall(&self) -> Onstall {
        self.on_stall.unwrap_or_default()
    }

    /// Returns after how many seconds stores through mappings are captured.
    pub(crate) fn flush(&self) -> u32 {
        self.flush.unwrap_or(FLUSH_DEFAULT)
    }

    /// Returns whether any filesystem may be below.
    pub(crate) fn force(&self) -> bool {
        self.force
    }

    /// Returns whether what was given is what `other` has; what was not given stays.
    pub(crate) fn agrees_with(&self, other: &Options) -> bool {
        self.ring.is_none_or(|ring| ring == other.ring())
            && self.on_stall.is_none_or(|on_stall| on_stall == other.on_stall())
            && self.flush.is_none_or(|flush| flush == other.flush())
    }

    /// Returns a copy in which everything is given.
    pub(crate) fn settled(&self) -> Options {
        Options {
            ring: Some(self.ring()),
            on_stall: Some(self.on_stall()),
            flush: Some(self.flush()),
            force: self.force,
        }
    }
}

/// Takes an option; [`ENOPARAM`] for one that is not ours.
pub(super) fn parse(ctx: &mut MountContext<'_, ReelFs>, key: &CStr, value: Option<&CStr>) -> Result {
    let key = key.to_bytes();
    let text = value.map(CStr::to_bytes);
    let wants_value = |name: &str| -> Error { ctx.refuse(EINVAL, fmt!("{} wants a value", name)) };
    match key {
        b"ring" => {
            let text = text.ok_or_else(|| wants_value("ring="))?;
            let ring = size(text)
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| (RING_MIN..=RING_MAX).contains(n) && n.is_power_of_two());
            let Some(ring) = ring else {
                return Err(ctx.refuse(
                    EINVAL,
                    fmt!("ring= must be a power of two from {} MiB to {} MiB", RING_MIN >> 20, RING_MAX >> 20),
                ));
            };
            ctx.options_mut().ring = Some(ring);
        }
        b"onstall" => {
            let on_stall = match text.ok_or_else(|| wants_value("onstall="))? {
                b"block" => Onstall::Block,
                b"fail" => Onstall::Fail,
                b"degrade" => return Err(ctx.refuse(EINVAL, fmt!("onstall=degrade is not offered yet"))),
                _ => return Err(ctx.refuse(EINVAL, fmt!("onstall= must be block or fail"))),
            };
            ctx.options_mut().on_stall = Some(on_stall);
        }
        b"flush" => {
            let text = text.ok_or_else(|| wants_value("flush="))?;
            let flush = decimal(text).filter(|n| (1..=FLUSH_MAX).contains(n));
            let Some(flush) = flush else {
                return Err(ctx.refuse(EINVAL, fmt!("flush= must be from 1 to {} seconds", FLUSH_MAX)));
            };
            ctx.options_mut().flush = Some(u32::try_from(flush)?);
        }
        b"force" => {
            if text.is_some() {
                return Err(ctx.refuse(EINVAL, fmt!("force takes no value")));
            }
            ctx.options_mut().force = true;
        }
        _ => return Err(ENOPARAM),
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |n, c| {
        let digit = char::from(*c).to_digit(10)?;
        n.checked_mul(10)?.checked_add(digit.into())
    })
}

fn size(text: &[u8]) -> Option<u64> {
    let (digits, shift) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 10),
        (b'm' | b'M', digits) => (digits, 20),
        (b'g' | b'G', digits) => (digits, 30),
        _ => (text, 0),
    };
    decimal(digits)?.checked_mul(1 << shift)
}
