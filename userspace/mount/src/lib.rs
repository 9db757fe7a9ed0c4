// SPDX-License-Identifier: GPL-2.0-or-later

//! What `mount.reelfs` is made of: the mounts there are ([`mounts`]), who could change a tree behind our back
//! ([`survey`]), options ([`options`]), and mounting itself ([`attach`]).

pub mod attach;
pub mod mounts;
pub mod options;
pub mod survey;
