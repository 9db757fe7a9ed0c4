// SPDX-License-Identifier: GPL-2.0-or-later
//! `vtape`: a virtual tape drive. See vtape(1).

use std::process::ExitCode;

fn main() -> ExitCode {
    vtape::cli::main()
}
