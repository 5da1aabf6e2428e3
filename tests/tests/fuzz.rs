//! The fuzz targets, with every input that is kept and a bounded number of others: see `cove_tests::fuzz`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cove_tests::fuzz::mutate::Mutator;
use cove_tests::fuzz::{TARGETS, Target};

/// From where the inputs are that are made: the same ones in every run.
const SEED: u64 = 0x434f_5645;

/// Where the programs for `cargo fuzz` are, and the inputs that are kept.
fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus(target: &Target) -> PathBuf {
    place().join("corpus").join(target.name)
}

/// Plays the kept inputs of a target in the order of their names, and then those that are made of them. A fault ends
/// the process and prints its input.
fn survive(name: &str) -> Result<()> {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.with_context(|| format!("there is no target {name}"))?;
    let corpus = corpus(target);
    let files = fs::read_dir(&corpus).with_context(|| format!("cannot list {}", corpus.display()))?;
    let mut files = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{} is empty", corpus.display());
    let kept = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    for input in &kept {
        (target.fuzz)(input);
    }
    (target.fuzz)(&[]);
    let mut mutator = Mutator::new(SEED, kept);
    for _ in 0..target.inputs {
        (target.fuzz)(&mutator.make());
    }
    Ok(())
}

macro_rules! survives {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                survive(stringify!($name))
            }
        )*

        #[test]
        fn every_target_is_played_here() {
            let here: BTreeSet<&str> = [$(stringify!($name)),*].into();
            let there: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(here, there);
        }
    };
}

survives! { archive balloon block fs net ports registers requests rng vsock wire }

#[test]
fn every_target_has_a_program() -> Result<()> {
    let manifest = fs::read_to_string(place().join("Cargo.toml"))?;
    for target in &TARGETS {
        let program = fs::read_to_string(place().join(format!("fuzz_targets/{}.rs", target.name)))
            .with_context(|| format!("{} has no program", target.name))?;
        ensure!(
            program.contains(&format!("fuzz::{}::fuzz", target.name)),
            "the program {} runs another target",
            target.name
        );
        ensure!(
            manifest.contains(&format!("name = \"{}\"", target.name)),
            "cargo does not know the program {}",
            target.name
        );
    }
    Ok(())
}

#[test]
fn the_seeds_in_the_corpus_are_current() -> Result<()> {
    for target in &TARGETS {
        for (name, wanted) in (target.seeds)() {
            let file = corpus(target).join(name);
            if std::env::var_os("COVE_UPDATE_SEEDS").is_some() {
                fs::create_dir_all(corpus(target))?;
                fs::write(&file, &wanted)?;
            }
            let found = fs::read(&file).unwrap_or_default();
            ensure!(
                found == wanted,
                "{} is stale; make it again: COVE_UPDATE_SEEDS=1 cargo test -p cove-tests --test fuzz current",
                file.display()
            );
        }
    }
    Ok(())
}
