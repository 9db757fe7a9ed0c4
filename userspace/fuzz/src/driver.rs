// SPDX-License-Identifier: GPL-2.0-or-later

//! Drives the targets with a stable compiler. The inputs are the files of a corpus, whole and changed at random; the
//! same rounds give the same inputs. cargo-fuzz, which looks at coverage, finds more; this finds what it finds on every
//! machine and in every run.

use std::fs;
use std::path::Path;

use crate::Target;

/// A small generator of numbers (xorshift64*); good enough to spread changes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Values at which arithmetic goes wrong.
const CORNERS: [u64; 10] = [0, 1, 7, 8, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

fn change(random: &mut Random, input: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len());
        match random.below(8) {
            0 | 1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
            2 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            3 | 4 => {
                let value = CORNERS[random.below(CORNERS.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                let at = at / width * width;
                input.iter_mut().skip(at).zip(&value[..width]).for_each(|(byte, new)| *byte = *new);
            }
            5 => input.truncate(at),
            6 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len());
                let length = random.below(256).min(other.len() - from);
                input.iter_mut().skip(at).zip(&other[from..from + length]).for_each(|(byte, new)| *byte = *new);
            }
            _ => {
                let other = &others[random.below(others.len())];
                input.extend_from_slice(&other[..random.below(other.len())]);
            }
        }
    }
    input.truncate(1 << 16);
}

/// Runs a target on each input in `corpus/NAME` and on `rounds` changed ones. An input that makes it panic is saved in
/// the working directory.
pub fn drive(target: &Target, corpus: &Path, rounds: u64) -> Result<(), String> {
    let directory = corpus.join(target.name);
    let shown = directory.display();
    let mut files: Vec<_> = fs::read_dir(&directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|error| format!("{shown}: {error}"))?;
    files.sort();
    let inputs: Result<Vec<_>, _> = files.iter().map(fs::read).collect();
    let inputs = inputs.map_err(|error| format!("{shown}: {error}"))?;
    if inputs.is_empty() {
        return Err(format!("{shown}: no inputs"));
    }
    for input in &inputs {
        (target.run)(input);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds {
        let mut input = inputs[random.below(inputs.len())].clone();
        change(&mut random, &mut input, &inputs);
        if round % 4 != 0 {
            (target.repair)(&mut input);
        }
        let caught = std::panic::catch_unwind(|| (target.run)(&input));
        if caught.is_err() {
            let saved = format!("crash-{}-{round}", target.name);
            fs::write(&saved, &input).map_err(|error| format!("{saved}: {error}"))?;
            return Err(format!("target {}: round {round} panics; the input is in {saved}", target.name));
        }
    }
    println!("{}: {} inputs, {rounds} rounds", target.name, inputs.len());
    Ok(())
}
