// SPDX-License-Identifier: GPL-2.0

//! Names in memory, and when they are no longer to be believed.

use super::ReelFs;
use crate::vfs::{Dentry, DentryOperations, LowerInode, Walk};
use kernel::prelude::*;

/// The dentry operations.
pub(crate) struct Dentries;

impl DentryOperations<ReelFs> for Dentries {
    /// A name below that is no longer found by its name was removed there, or its filesystem
    /// wants it looked up again. (Names do not change below a mount otherwise: whoever writes
    /// there behind our back is on his own. Comparing more would take operations of ours that are
    /// under way for such changes.)
    fn revalidate(dentry: &Dentry<ReelFs>, _parent: &LowerInode, _walk: Walk) -> Result<bool> {
        Ok(!dentry.lower().is_unhashed())
    }
}
