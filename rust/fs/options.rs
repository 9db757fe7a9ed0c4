// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! `ring=SIZE` (bytes, or with suffix k, m or g), `onstall=block|fail|degrade`, `stall=SECONDS`, `uidlimit=SIZE`,
//! `flush=SECONDS`, `force`.

use super::ReelFs;
use crate::capture::{Onstall, Policy, RING_DEFAULT, RING_MAX, RING_MIN, STALL_DEFAULT};
use crate::vfs::MountContext;
use kernel::prelude::*;

/// Seconds without `flush=`.
pub(super) const FLUSH_DEFAULT: u32 = 5;
/// Largest `flush=`, in seconds.
const FLUSH_MAX: u64 = 3600;
/// Largest `stall=`, in seconds.
const STALL_MAX: u64 = 3600;
/// Smallest `uidlimit=`, in bytes: a few short records.
const UID_LIMIT_MIN: u64 = 4096;

/// Returns the value of `onstall=` that means this.
pub(super) fn on_stall_name(onstall: Onstall) -> &'static str {
    match onstall {
        Onstall::Block => "block",
        Onstall::Fail => "fail",
        Onstall::Degrade => "degrade",
    }
}

/// The options as given.
#[derive(Default)]
pub(crate) struct Options {
    ring: Option<usize>,
    on_stall: Option<Onstall>,
    stall: Option<u32>,
    /// Zero where it is to have none.
    uid_limit: Option<u64>,
    flush: Option<u32>,
    force: bool,
}

impl Options {
    /// Returns the size of the ring in bytes, a power of two.
    pub(crate) fn ring(&self) -> usize {
        self.ring.unwrap_or(RING_DEFAULT)
    }

    /// Returns what was said about the log; `other` where nothing was.
    pub(crate) fn policy(&self, other: Policy) -> Policy {
        Policy {
            onstall: self.on_stall.unwrap_or(other.onstall),
            stall: self.stall.unwrap_or(other.stall),
            uid_limit: self.uid_limit.map_or(other.uid_limit, |limit| Some(limit).filter(|limit| *limit > 0)),
        }
    }

    /// Returns after how many seconds stores through mappings are captured; `other` where nothing was said.
    pub(crate) fn flush(&self, other: u32) -> u32 {
        self.flush.unwrap_or(other)
    }

    /// Returns whether any filesystem may be below.
    pub(crate) fn force(&self) -> bool {
        self.force
    }

    /// Returns whether a ring of this size, in bytes, is what was asked for.
    pub(crate) fn agrees_with_ring(&self, size: usize) -> bool {
        self.ring.is_none_or(|ring| ring == size)
    }
}

/// What holds where nothing is said.
pub(super) const POLICY_DEFAULT: Policy = Policy { onstall: Onstall::Block, stall: STALL_DEFAULT, uid_limit: None };

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
                b"degrade" => Onstall::Degrade,
                _ => return Err(ctx.refuse(EINVAL, fmt!("onstall= must be block, fail or degrade"))),
            };
            ctx.options_mut().on_stall = Some(on_stall);
        }
        b"stall" => {
            let text = text.ok_or_else(|| wants_value("stall="))?;
            let stall = decimal(text).filter(|n| (1..=STALL_MAX).contains(n));
            let Some(stall) = stall else {
                return Err(ctx.refuse(EINVAL, fmt!("stall= must be from 1 to {} seconds", STALL_MAX)));
            };
            ctx.options_mut().stall = Some(u32::try_from(stall)?);
        }
        b"uidlimit" => {
            let text = text.ok_or_else(|| wants_value("uidlimit="))?;
            let limit = size(text).filter(|n| *n == 0 || *n >= UID_LIMIT_MIN);
            let Some(limit) = limit else {
                return Err(ctx.refuse(EINVAL, fmt!("uidlimit= must be 0 or at least {} bytes", UID_LIMIT_MIN)));
            };
            ctx.options_mut().uid_limit = Some(limit);
        }
        // What /proc/mounts shows besides, and mount(8) repeats when it remounts: it asks for nothing.
        b"gaps" | b"unrecorded" | b"unrecorded_bytes" | b"degraded_since" if ctx.is_remount() => {}
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
