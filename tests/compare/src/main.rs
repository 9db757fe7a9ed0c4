// SPDX-License-Identifier: GPL-2.0-or-later

//! `treecmp`: lists a tree, or says what differs between two trees.
//!
//! Exit status: 0 no difference; 1 differences, each printed; 2 something could not be read, or was asked wrongly.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use treecmp::{compare, walk, Listing, Options};

const USAGE: &str = "\
treecmp - compares directory trees in everything that reelfs promises to give back

usage: treecmp list [OPTION]... DIRECTORY          write the tree's listing to standard output
       treecmp diff [OPTION]... FIRST SECOND       compare; each is a directory or a listing in a file

options:
  --block BYTES      unit of the data maps (4096); at least the block size of both filesystems
  --ignore KEY       leave an attribute out, for example mtime or xattr:trusted.reelfs; KEY* for all that begin so
  --limit N          print at most N differences (100); all are counted

exit status: 0 no difference, 1 differences, 2 something could not be read
";

struct Asked {
    verb: String,
    options: Options,
    limit: usize,
    operands: Vec<OsString>,
}

fn arguments(mut from: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let verb = from.next().and_then(|verb| verb.into_string().ok()).ok_or("a verb is missing")?;
    let mut asked = Asked { verb, options: Options::default(), limit: 100, operands: Vec::new() };
    while let Some(word) = from.next() {
        let mut value = |name: &str| from.next().ok_or(format!("{name} needs a value"));
        let positive = |text: OsString, name: &str| {
            let number = text.to_str().and_then(|text| text.parse::<u64>().ok()).filter(|&number| number > 0);
            number.ok_or(format!("{name} needs a positive number"))
        };
        match word.to_str() {
            Some(name @ "--block") => asked.options.block = positive(value(name)?, name)?,
            Some(name @ "--limit") => {
                asked.limit = usize::try_from(positive(value(name)?, name)?).map_err(|error| error.to_string())?;
            }
            Some(name @ "--ignore") => asked.options.ignore.push(value(name)?.as_bytes().to_vec()),
            Some(name) if name.starts_with("--") => return Err(format!("{name} is not an option")),
            _ => asked.operands.push(word),
        }
    }
    Ok(asked)
}

/// The listing of a directory, or the one in a file. Prints what could not be read; `None` if there was any.
fn load(operand: &OsStr, options: &Options) -> Option<Listing> {
    let path = Path::new(operand);
    let shown = path.display();
    if path.is_dir() {
        match walk(path, options) {
            Err(error) => eprintln!("treecmp: {shown}: {error}"),
            Ok((listing, errors)) => {
                for error in &errors {
                    eprintln!("treecmp: {shown}: {error}");
                }
                if errors.is_empty() {
                    return Some(listing);
                }
            }
        }
        return None;
    }
    let read = std::fs::File::open(path).and_then(|file| Listing::read(BufReader::new(file)));
    let mut listing = match read {
        Ok(listing) if listing.block == options.block => listing,
        Ok(listing) => {
            eprintln!("treecmp: {shown}: was made with --block {}; this is {}", listing.block, options.block);
            return None;
        }
        Err(error) => {
            eprintln!("treecmp: {shown}: {error}");
            return None;
        }
    };
    for fields in listing.entries.values_mut() {
        fields.retain(|key, _| !options.ignores(key));
    }
    Some(listing)
}

fn run() -> Result<ExitCode, String> {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_none_or(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return Ok(ExitCode::from(if words.peek().is_none() { 2 } else { 0 }));
    }
    let asked = arguments(words)?;
    match (asked.verb.as_str(), asked.operands.as_slice()) {
        ("list", [tree]) => {
            let Some(listing) = load(tree, &asked.options) else { return Ok(ExitCode::from(2)) };
            let mut out = BufWriter::new(io::stdout().lock());
            let written = listing.write(&mut out).and_then(|()| out.flush());
            written.map_err(|error| format!("standard output: {error}"))?;
            Ok(ExitCode::SUCCESS)
        }
        ("diff", [first, second]) => {
            let (Some(a), Some(b)) = (load(first, &asked.options), load(second, &asked.options)) else {
                return Ok(ExitCode::from(2));
            };
            let found = compare(&a, &b);
            for difference in found.iter().take(asked.limit) {
                println!("{difference}");
            }
            if found.len() > asked.limit {
                println!("... and {} more", found.len() - asked.limit);
            }
            if found.is_empty() {
                println!("identical: {} objects", a.entries.len());
                return Ok(ExitCode::SUCCESS);
            }
            println!(
                "{} differences; {} objects in the first, {} in the second",
                found.len(),
                a.entries.len(),
                b.entries.len()
            );
            Ok(ExitCode::from(1))
        }
        ("list" | "diff", _) => Err("wrong number of operands".to_owned()),
        (other, _) => Err(format!("{other} is not a verb")),
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|message| {
        eprintln!("treecmp: {message}; try treecmp --help");
        ExitCode::from(2)
    })
}
