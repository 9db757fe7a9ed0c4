// SPDX-License-Identifier: GPL-2.0-or-later
//! The drive against a model that knows no index: a list of objects and a finger that moves
//! over it one object at a time.

mod common;

use common::{bench, six, Bench};
use proptest::prelude::*;
use vtape::image::{Access, Blank, Image};
use vtape::medium::{block_cost, Medium, Memory, FILEMARK_COST, FILEMARK_RESERVE};
use vtape::scsi::{opcode, Asc, Key, Sense};

const CAPACITY: u64 = 96 << 10;
const EARLY_WARNING: u64 = 24 << 10;
const BLOCK_LENGTH: u32 = 512;

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u32),
    WriteFixed(u8, u32),
    Filemarks(u32),
    Read(u32),
    ReadFixed(u32),
    Space(u8, i32),
    Locate(u32),
    Rewind,
    Erase,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), prop_oneof![1u32..2000, Just(BLOCK_LENGTH), 8000u32..20_000])
            .prop_map(|(fill, length)| Step::Write(fill, length)),
        3 => (any::<u8>(), 1u32..8).prop_map(|(fill, count)| Step::WriteFixed(fill, count)),
        3 => (0u32..4).prop_map(Step::Filemarks),
        4 => prop_oneof![0u32..2500, Just(BLOCK_LENGTH)].prop_map(Step::Read),
        3 => (0u32..8).prop_map(Step::ReadFixed),
        6 => (0u8..4, -12i32..12).prop_map(|(code, count)| Step::Space(code, count)),
        3 => (0u32..40).prop_map(Step::Locate),
        1 => Just(Step::Rewind),
        1 => Just(Step::Erase),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum Thing {
    Block(Vec<u8>),
    Filemark,
}

/// What a tape is when nobody hurries.
#[derive(Default)]
struct Model {
    tape: Vec<Thing>,
    at: usize,
}

type Answer = (Option<Sense>, Vec<u8>);

fn no(sense: Sense) -> Answer {
    (Some(sense), Vec::new())
}

impl Model {
    fn used(&self, upto: usize) -> u64 {
        let cost = |thing: &Thing| match thing {
            Thing::Block(data) => block_cost(data.len()),
            Thing::Filemark => FILEMARK_COST,
        };
        self.tape[..upto].iter().map(cost).sum()
    }

    fn put(&mut self, thing: Thing) -> bool {
        let (cost, limit) = match &thing {
            Thing::Block(data) => (block_cost(data.len()), CAPACITY),
            Thing::Filemark => (FILEMARK_COST, CAPACITY + FILEMARK_RESERVE),
        };
        if self.used(self.at) + cost > limit {
            return false;
        }
        self.tape.truncate(self.at);
        self.tape.push(thing);
        self.at += 1;
        true
    }

    fn write(&mut self, things: Vec<Thing>, total: i64, by_thing: bool) -> Answer {
        for (done, thing) in things.into_iter().enumerate() {
            if !self.put(thing) {
                let left = if by_thing { total - done as i64 } else { total };
                return no(Sense::new(Key::VOLUME_OVERFLOW, Asc::END_OF_MEDIUM_DETECTED).residue(left).with_eom());
            }
        }
        if total > 0 && self.used(self.at) >= CAPACITY - EARLY_WARNING {
            return no(Sense::new(Key::NO_SENSE, Asc::END_OF_MEDIUM_DETECTED).residue(0).with_eom());
        }
        (None, Vec::new())
    }

    fn read(&mut self, count: u32, fixed: bool) -> Answer {
        let mut out = Vec::new();
        let rounds = if fixed { count } else { count.min(1) };
        for done in 0..rounds {
            let left = i64::from(if fixed { count - done } else { count });
            let thing = self.tape.get(self.at).cloned();
            if thing.is_some() {
                self.at += 1;
            }
            let wrong = |left: i64| Sense::new(Key::NO_SENSE, Asc::NONE).residue(left).with_ili();
            match thing {
                None => {
                    let sense = Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED);
                    return (Some(sense.residue(left)), out);
                }
                Some(Thing::Filemark) => {
                    let sense = Sense::new(Key::NO_SENSE, Asc::FILEMARK_DETECTED);
                    return (Some(sense.residue(left).with_filemark()), out);
                }
                Some(Thing::Block(data)) if fixed => {
                    if data.len() != BLOCK_LENGTH as usize {
                        return (Some(wrong(left)), out);
                    }
                    out.extend(data);
                }
                Some(Thing::Block(data)) => {
                    let asked = count as usize;
                    out.extend(&data[..data.len().min(asked)]);
                    if data.len() != asked {
                        return (Some(wrong(asked as i64 - data.len() as i64)), out);
                    }
                }
            }
        }
        (None, out)
    }

    fn space(&mut self, code: u8, count: i32) -> Answer {
        if code == 3 {
            self.at = self.tape.len();
            return (None, Vec::new());
        }
        let forward = count > 0;
        let mut left = i64::from(count.unsigned_abs());
        let whole = left;
        let mut run = 0;
        while left > 0 {
            let thing = if forward {
                let thing = self.tape.get(self.at).cloned();
                if thing.is_some() {
                    self.at += 1;
                }
                thing
            } else if self.at == 0 {
                None
            } else {
                self.at -= 1;
                self.tape.get(self.at).cloned()
            };
            match (code, thing) {
                (_, None) => {
                    let left = if code == 2 { whole } else { left };
                    return no(if forward {
                        Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED).residue(left)
                    } else {
                        Sense::new(Key::NO_SENSE, Asc::BEGINNING_OF_MEDIUM_DETECTED).residue(left).with_eom()
                    });
                }
                (0, Some(Thing::Block(_))) => left -= 1,
                (0, Some(Thing::Filemark)) => {
                    return no(Sense::new(Key::NO_SENSE, Asc::FILEMARK_DETECTED).residue(left).with_filemark());
                }
                (1, Some(Thing::Filemark)) => left -= 1,
                (2, Some(Thing::Filemark)) => {
                    run += 1;
                    if run == whole {
                        left = 0;
                    }
                }
                (_, Some(_)) => run = 0,
            }
        }
        (None, Vec::new())
    }

    fn take(&mut self, step: &Step) -> Answer {
        match *step {
            Step::Write(fill, length) => {
                let block = Thing::Block(vec![fill; length as usize]);
                self.write(vec![block], i64::from(length), false)
            }
            Step::WriteFixed(fill, count) => {
                let block = Thing::Block(vec![fill; BLOCK_LENGTH as usize]);
                self.write(vec![block; count as usize], i64::from(count), true)
            }
            Step::Filemarks(count) => self.write(vec![Thing::Filemark; count as usize], i64::from(count), true),
            Step::Read(count) => self.read(count, false),
            Step::ReadFixed(count) => self.read(count, true),
            Step::Space(code, count) => self.space(code, count),
            Step::Locate(target) if target as usize <= self.tape.len() => {
                self.at = target as usize;
                (None, Vec::new())
            }
            Step::Locate(_) => {
                self.at = self.tape.len();
                no(Sense::new(Key::BLANK_CHECK, Asc::END_OF_DATA_DETECTED))
            }
            Step::Rewind => {
                self.at = 0;
                (None, Vec::new())
            }
            Step::Erase => {
                self.tape.truncate(self.at);
                (None, Vec::new())
            }
        }
    }
}

fn carry_out<M: Medium>(bench: &mut Bench<M>, step: &Step) -> Answer {
    match *step {
        Step::Write(fill, length) => bench.run(&six(opcode::WRITE_6, 0, length), &vec![fill; length as usize]),
        Step::WriteFixed(fill, count) => {
            let data = vec![fill; (count * BLOCK_LENGTH) as usize];
            bench.run(&six(opcode::WRITE_6, 1, count), &data)
        }
        Step::Filemarks(count) => bench.run(&six(opcode::WRITE_FILEMARKS_6, 0, count), &[]),
        Step::Read(count) => bench.run(&six(opcode::READ_6, 0, count), &[]),
        Step::ReadFixed(count) => bench.run(&six(opcode::READ_6, 1, count), &[]),
        Step::Space(code, count) => bench.run(&six(opcode::SPACE_6, code, (count as u32) & 0xff_ffff), &[]),
        Step::Locate(target) => {
            let mut cdb = [opcode::LOCATE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            cdb[3..7].copy_from_slice(&target.to_be_bytes());
            bench.run(&cdb, &[])
        }
        Step::Rewind => bench.run(&six(opcode::REWIND, 0, 0), &[]),
        Step::Erase => bench.run(&six(opcode::ERASE_6, 1, 0), &[]),
    }
}

/// Where the model is, as the long form of READ POSITION says it.
fn place(model: &Model) -> (u64, u64) {
    let marks = model.tape[..model.at].iter().filter(|thing| **thing == Thing::Filemark).count();
    (model.at as u64, marks as u64)
}

fn agree<M: Medium>(bench: &mut Bench<M>, model: &mut Model, steps: &[Step]) -> Result<(), TestCaseError> {
    for (n, step) in steps.iter().enumerate() {
        prop_assert_eq!(carry_out(bench, step), model.take(step), "step {}: {:?}", n, step);
        prop_assert_eq!(bench.position(), place(model), "after step {}: {:?}", n, step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_drive_is_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut bench = bench(Memory::with_capacity(CAPACITY, EARLY_WARNING));
        bench.block_length(BLOCK_LENGTH);
        agree(&mut bench, &mut Model::default(), &steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The same with a cartridge in a file that is taken out and put in again half-way.
    #[test]
    fn a_file_is_a_cartridge(
        before in prop::collection::vec(step(), 1..40),
        after in prop::collection::vec(step(), 1..40),
    ) {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("tape");
        let blank = Blank {
            capacity: CAPACITY,
            early_warning: EARLY_WARNING,
            worm: false,
            barcode: String::new(),
        };
        prop_assert!(blank.create(&path).is_ok());
        let mut model = Model::default();
        for steps in [before, after] {
            let image = Image::open(&path, Access::Write);
            prop_assert!(image.is_ok());
            let Ok(image) = image else { continue };
            let mut bench = bench(image);
            bench.block_length(BLOCK_LENGTH);
            model.at = 0;
            agree(&mut bench, &mut model, &steps)?;
        }
    }
}
