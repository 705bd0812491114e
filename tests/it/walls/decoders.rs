//! The decoders of fuzz/, here on their seeds, on the inputs that fuzzing has kept, and on spoilt copies of both: as long as
//! RUSHLINE_TEST_FUZZ_SECONDS says, 30 s each in `make test`. `make fuzz` searches further, led by what it has covered, which takes
//! a build of its own and minutes.

#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::DECODERS;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Spoilt copies of each input that are tried however short the time is: a second or two in all.
const COPIES: u64 = 8;
/// How long each decoder is tried, in seconds; once through if it is not said.
const SECONDS: &str = "RUSHLINE_TEST_FUZZ_SECONDS";
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

/// What is written by hand, and what fuzzing has found to reach all that it has reached (fuzz/kept.py).
fn inputs(name: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(root().join("seeds").join(name)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() >= 3, "{name}: too few seeds to mean anything");
    paths.sort();
    let kept = std::fs::read_to_string(root().join("kept").join(format!("{name}.hex"))).unwrap();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).chain(kept.lines().map(bytes)).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "half a byte: {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
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

/// Tries a decoder of the list.
fn check(name: &str) {
    let (_, decode) = DECODERS.into_iter().find(|(of, _)| *of == name).expect("it is in the list");
    let seconds = std::env::var(SECONDS).map_or(0, |text| text.parse().expect(SECONDS));
    let (begun, inputs) = (Instant::now(), inputs(name));
    let mut random = fastrand::Rng::with_seed(7);
    let mut count = 0_u64;
    let mut one = |bytes: &[u8]| {
        count += 1;
        let panicked = std::panic::catch_unwind(|| decode(bytes)).is_err();
        assert!(!panicked, "{name} is broken by {:?}", bytes.escape_ascii().to_string());
    };
    inputs.iter().for_each(|input| one(input));
    while {
        for input in &inputs {
            (0..COPIES).for_each(|_| one(&spoilt(input, &mut random)));
        }
        begun.elapsed() < Duration::from_secs(seconds)
    } {}
    println!("{name}: {count} inputs in {:?}, none broke it", begun.elapsed());
}

/// A test for each, so that they share the processors with others.
macro_rules! none_breaks {
    ($($name:ident),*) => {
        const TRIED: [&str; DECODERS.len()] = [$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

mod no_decoder_breaks_on_what_looks_almost_good {
    use super::*;

    none_breaks!(
        order_body,
        dtm_request,
        grpc_message,
        stored_form,
        order_frame,
        order_head,
        http_answer,
        address,
        branch_result,
        config_file
    );

    #[test]
    fn all_are_tried() {
        assert_eq!(TRIED, DECODERS.map(|(name, _)| name));
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
    assert_eq!(listed("kept"), named);
    for name in named {
        let target = std::fs::read_to_string(root().join(format!("targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("rushline_fuzz::{name}(bytes)")), "{name}");
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
    }
}
