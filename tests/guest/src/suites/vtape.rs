// SPDX-License-Identifier: GPL-2.0-or-later
//! The virtual tape drive through the kernel's own st driver: what `mt`, `dd` and a backup
//! program see.

mod blocks;
mod ends;
mod faults;
mod media;
mod positions;

use crate::machine::run;
use crate::{Context, Suite, Test, TestResult};

pub const SUITE: Suite = Suite {
    name: "vtape",
    timeout: 900,
    disks: &[],
    set_up: load_modules,
    tear_down: nothing_is_left,
    tests: &[
        Test::new("describes-itself", blocks::describes_itself),
        Test::new("variable-blocks", blocks::variable_blocks),
        Test::new("short-buffer", blocks::short_buffer),
        Test::new("fixed-blocks", blocks::fixed_blocks),
        Test::new("large-blocks", blocks::large_blocks).limit(400),
        Test::new("dd-and-tar", blocks::dd_and_tar),
        Test::new("end-of-data", positions::end_of_data),
        Test::new("spacing", positions::spacing),
        Test::new("tell-and-seek", positions::tell_and_seek),
        Test::new("locate-and-long-position", positions::locate_and_long_position),
        Test::new("writing-in-the-middle", positions::writing_in_the_middle),
        Test::new("erasing", positions::erasing),
        Test::new("early-warning", ends::early_warning),
        Test::new("hard-end", ends::hard_end),
        Test::new("hard-end-fixed", ends::hard_end_fixed),
        Test::new("write-once", media::write_once),
        Test::new("write-protection", media::write_protection),
        Test::new("survives-a-restart", media::survives_a_restart),
        Test::new("survives-a-kill", media::survives_a_kill),
        Test::new("killed-under-load", media::killed_under_load),
        Test::new("eject-and-load", media::eject_and_load),
        Test::new("several-drives", media::several_drives),
        Test::new("refusals", media::refusals),
        Test::new("injected-errors", faults::injected_errors),
        Test::new("reset", faults::reset),
        Test::new("power-loss", faults::power_loss),
        Test::new("damage", faults::damage),
    ],
    ..Suite::DEFAULT
};

fn load_modules(_: &Context) -> TestResult {
    // The server loads what it needs; loading here keeps that time out of the first test.
    for module in ["target_core_user", "tcm_loop", "st", "sg"] {
        run("modprobe", &[module])?;
    }
    Ok(())
}

fn nothing_is_left(_: &Context) -> TestResult {
    for directory in ["core", "loopback"] {
        let path = format!("/sys/kernel/config/target/{directory}");
        for entry in std::fs::read_dir(&path)?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("user_") || name.starts_with("naa.") {
                return Err(format!("{path}/{name} is left").into());
            }
        }
    }
    let sockets: Vec<_> = std::fs::read_dir("/run/vtape")?.flatten().collect();
    if !sockets.is_empty() {
        return Err(format!("sockets are left: {sockets:?}").into());
    }
    Ok(())
}
