//! The decoders of fuzz/, here on their seeds and on spoilt copies of them. `make fuzz` searches further, led by what it has
//! covered, which takes a build of its own and minutes.

#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use crate::support::hazard::is_long_run;
use fuzz::{DECODERS, Decoder};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Spoilt copies of each seed: some seconds in all.
const COPIES: u64 = 400;
/// And for so long each decoder, where the long run is asked for.
const LONG: Duration = Duration::from_secs(60);
/// What means something in one of the forms.
const MARKS: [&[u8]; 16] = [
    b"\r\n",
    b"{",
    b"}",
    b"\"",
    b"\\",
    b"\0",
    b"\xff",
    b"[[[[",
    b"9999999999999999999",
    b"-1",
    b"\x80\x80\x80\x80\x80",
    b"://",
    b"::",
    b"0x",
    b"%",
    b": ",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(root().join("seeds").join(name)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn spoilt(seed: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        match random.u8(..5) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => drop(bytes.splice(at..at, random.choice(MARKS).unwrap().iter().copied())),
            3 => bytes.truncate(at),
            _ => {
                let from = random.usize(..=bytes.len());
                let piece = bytes[from..bytes.len().min(from + random.usize(..16))].to_vec();
                drop(bytes.splice(at..at, piece));
            }
        }
    }
    bytes
}

fn check((name, decode): Decoder) {
    let seeds = seeds(name);
    assert!(seeds.len() >= 3, "{name}: too few seeds to mean anything");
    let (begun, mut count) = (Instant::now(), 0_u64);
    let mut random = fastrand::Rng::with_seed(7);
    while count == 0 || is_long_run() && begun.elapsed() < LONG {
        count += round(name, decode, &seeds, &mut random);
    }
    println!("{name}: {count} inputs in {:?}, none broke it", begun.elapsed());
}

/// Every seed and spoilt copies of it; how many.
fn round(name: &str, decode: fn(&[u8]), seeds: &[(PathBuf, Vec<u8>)], random: &mut fastrand::Rng) -> u64 {
    for (path, seed) in seeds {
        decode(seed);
        for n in 0..COPIES {
            let bytes = spoilt(seed, random);
            let panicked = std::panic::catch_unwind(|| decode(&bytes)).is_err();
            assert!(
                !panicked,
                "{name}: copy {n} of {} broke it: {:?}",
                path.display(),
                bytes.escape_ascii().to_string()
            );
        }
    }
    seeds.len() as u64 * (COPIES + 1)
}

#[test]
fn no_decoder_breaks_on_what_looks_almost_good() {
    for decoder in DECODERS {
        check(decoder);
    }
}

/// A decoder that is in the list and has no target would never be searched.
#[test]
fn every_decoder_has_a_target_and_seeds() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let named: BTreeSet<String> = DECODERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let listed = |directory: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed("targets"), named);
    assert_eq!(listed("seeds"), named);
    for name in named {
        let target = std::fs::read_to_string(root().join(format!("targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("rushline_fuzz::{name}(bytes)")), "{name}");
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
    }
}
