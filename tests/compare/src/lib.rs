// SPDX-License-Identifier: GPL-2.0-or-later

//! Two directory trees, compared in everything that reelfs promises to give back.
//!
//! A tree becomes a [`Listing`]: one line of text for each name, with every attribute as a `key=value`
//! field. Two listings are compared field by field, so an attribute that is listed is an attribute that
//! is compared. Listings can be kept as files, and outlive the disk that they describe.
//!
//! This crate depends on no other part of the project, on purpose.

pub mod diff;
pub mod escape;
mod inode;
pub mod listing;
pub mod walk;

pub use diff::{compare, Difference};
pub use listing::Listing;
pub use walk::{walk, Options};
