// SPDX-License-Identifier: GPL-2.0-or-later
//! Safe wrappers around what the kernel offers only through raw memory and ioctls.
//!
//! Every `unsafe` of the user-space half lives here, one file per kernel interface. Nothing in
//! this crate knows what its callers use it for.

pub mod device;
pub mod inode;
pub mod memory;
pub mod st;
pub mod tcmu;
pub mod teller;
pub mod trial;
