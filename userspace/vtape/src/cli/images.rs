// SPDX-License-Identifier: GPL-2.0-or-later
//! Commands that work on image files: create, info, dump, flip, protect.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use crate::image::{Access, Blank, Image};
use crate::medium::{Medium, Object};

use super::{parse_size, Verdict};

#[derive(Args)]
pub(super) struct Create {
    /// Bytes that fit (K, M, G, T: powers of 1024); each block takes 40 more than its data.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "2G")]
    capacity: u64,
    /// Bytes before the end from which writes are warned; 1/32 of the capacity, at most 64M,
    /// without it.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    early_warning: Option<u64>,
    /// Write once: what is recorded can never be written over.
    #[arg(long)]
    worm: bool,
    /// What the sticker says.
    #[arg(long, value_name = "TEXT", default_value = "")]
    barcode: String,
    /// Image file to be made. It is never made over an existing file.
    image: PathBuf,
}

#[derive(Args)]
pub(super) struct Info {
    /// Image file.
    image: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Dump {
    /// Image file.
    image: PathBuf,
    /// One JSON object per object on the tape.
    #[arg(long)]
    json: bool,
    /// A line for each object, instead of one for a run of equal blocks.
    #[arg(long)]
    each: bool,
    /// Read every block and compare its checksum.
    #[arg(long)]
    check: bool,
    /// Write the data of the block with this object number to standard output.
    #[arg(long, value_name = "N", conflicts_with_all = ["json", "each", "check"])]
    block: Option<u64>,
}

#[derive(Args)]
pub(super) struct Flip {
    /// Image file of a cartridge that is in no drive.
    image: PathBuf,
    /// Object number of the block, as 'vtape dump' and READ POSITION count.
    #[arg(long, value_name = "N")]
    block: u64,
    /// Which of its bytes, from zero.
    #[arg(long, value_name = "M")]
    byte: u32,
    /// Let the drive notice: reading the block becomes a medium error. Without it the changed
    /// byte is delivered as if it had been recorded.
    #[arg(long)]
    medium_error: bool,
}

fn open(path: &Path, access: Access) -> Result<Image> {
    Image::open(path, access).with_context(|| path.display().to_string())
}

impl Create {
    pub(super) fn run(self) -> Result<()> {
        let blank = Blank {
            capacity: self.capacity,
            early_warning: self.early_warning.unwrap_or((self.capacity / 32).min(64 << 20)),
            worm: self.worm,
            barcode: self.barcode,
        };
        blank.create(&self.image).with_context(|| self.image.display().to_string())
    }
}

/// Sets or clears the tab of a cartridge that is in no drive.
pub(super) fn protect(path: &Path, on: bool) -> Result<()> {
    open(path, Access::Write)?.set_protected(on).with_context(|| format!("{}: the tab cannot be moved", path.display()))
}

impl Info {
    pub(super) fn run(self) -> Result<Verdict> {
        let image = open(&self.image, Access::Read)?;
        let cartridge = image.cartridge();
        let end = image.objects();
        let filemarks = image.filemarks_before(end);
        if self.json {
            let info = json!({
                "serial": cartridge.serial,
                "barcode": cartridge.barcode,
                "capacity": cartridge.capacity,
                "early-warning": cartridge.early_warning,
                "worm": cartridge.worm,
                "protected": cartridge.protected,
                "loads": cartridge.loads,
                "created": image.created(),
                "objects": end,
                "filemarks": filemarks,
                "used": image.used(end),
                "damaged": image.lost(),
                "unfinished-bytes": image.tail(),
            });
            println!("{info}");
        } else {
            println!("cartridge   {} {}", cartridge.serial, cartridge.barcode);
            println!(
                "kind        {}{}",
                if cartridge.worm { "write-once" } else { "rewritable" },
                if cartridge.protected { ", write-protected" } else { "" }
            );
            println!(
                "capacity    {} bytes, early warning {} before the end",
                cartridge.capacity, cartridge.early_warning
            );
            println!("used        {} bytes", image.used(end));
            println!("recorded    {} blocks, {filemarks} filemarks", end - filemarks);
            println!("loads       {}", cartridge.loads);
            if image.tail() > 0 {
                println!("unfinished  {} bytes of an interrupted write", image.tail());
            }
            if image.lost() > 0 {
                println!("damaged     {} objects cannot be told any more", image.lost());
            }
        }
        Ok(if image.lost() > 0 { Verdict::Damaged } else { Verdict::Fine })
    }
}

/// What a line of a listing says about an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Block { length: u32, sound: bool },
    Filemark,
    Damaged,
}

/// A run of like objects.
struct Run {
    first: u64,
    count: u64,
    what: What,
}

impl Dump {
    pub(super) fn run(self) -> Result<Verdict> {
        let mut image = open(&self.image, Access::Read)?;
        let out = io::stdout();
        let mut out = io::BufWriter::new(out.lock());
        if let Some(number) = self.block {
            let mut data = Vec::new();
            let named = || format!("{}: object {number}", self.image.display());
            match image.read(number, &mut data) {
                Ok(()) => out.write_all(&data).and_then(|()| out.flush()).with_context(named)?,
                Err(crate::medium::ReadError::Io(error)) => {
                    return Err(error).with_context(named);
                }
                Err(crate::medium::ReadError::Corrupt) => {
                    anyhow::bail!("{} is not a block that can be read", named());
                }
            }
            return Ok(Verdict::Fine);
        }

        let mut damaged = false;
        let mut run: Option<Run> = None;
        let mut data = Vec::new();
        for number in 0..image.objects() {
            let what = match image.object(number) {
                Some(Object::Block(length)) => {
                    data.clear();
                    let sound = !self.check || image.read(number, &mut data).is_ok();
                    What::Block { length, sound }
                }
                Some(Object::Filemark) => What::Filemark,
                _ => What::Damaged,
            };
            damaged |= matches!(what, What::Damaged | What::Block { sound: false, .. });
            match &mut run {
                Some(run) if run.what == what && !self.each && !self.json => run.count += 1,
                _ => {
                    if let Some(run) = run.replace(Run { first: number, count: 1, what }) {
                        self.print(&mut out, &image, &run)?;
                    }
                }
            }
        }
        if let Some(run) = run {
            self.print(&mut out, &image, &run)?;
        }
        if !self.json {
            writeln!(out, "{:>10} {:>14}  end of data", image.objects(), image.offset(image.objects()))?;
        }
        out.flush()?;
        Ok(if damaged { Verdict::Damaged } else { Verdict::Fine })
    }

    fn print(&self, out: &mut impl Write, image: &Image, run: &Run) -> io::Result<()> {
        let offset = image.offset(run.first);
        if self.json {
            let (kind, length, sound) = match run.what {
                What::Block { length, sound } => ("block", Some(length), sound),
                What::Filemark => ("filemark", None, true),
                What::Damaged => ("damaged", None, false),
            };
            let file = image.filemarks_before(run.first);
            let line = json!({
                "object": run.first, "offset": offset, "file": file,
                "kind": kind, "length": length, "sound": sound,
            });
            return writeln!(out, "{line}");
        }
        write!(out, "{:>10} {:>14}  ", run.first, offset)?;
        match run.what {
            What::Block { length, sound } => {
                let spoilt = if sound { "" } else { ", DAMAGED" };
                writeln!(out, "{} of {length} bytes{spoilt}", plural(run.count, "block"))
            }
            What::Filemark => writeln!(out, "{}", plural(run.count, "filemark")),
            What::Damaged => writeln!(out, "{} DAMAGED", plural(run.count, "object")),
        }
    }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 {
        noun.to_owned()
    } else {
        format!("{count} {noun}s")
    }
}

impl Flip {
    pub(super) fn run(self) -> Result<()> {
        open(&self.image, Access::Write)?
            .flip(self.block, self.byte, !self.medium_error)
            .with_context(|| format!("{}: object {}, byte {}", self.image.display(), self.block, self.byte))
    }
}
