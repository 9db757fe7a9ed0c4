// SPDX-License-Identifier: GPL-2.0-or-later
//! What runs on the host: the image of the checkout, the machines, and the results that last from one run to the next.

pub mod checkout;
pub mod machines;
pub mod results;
