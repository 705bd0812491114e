//! A thousand worlds, and those in which something was once wrong.

use rushline_simulate::world::{self, Verdict};
use std::sync::atomic::{AtomicU64, Ordering};

/// Worlds of a usual test run; `make simulate` does many more.
const SEEDS: u64 = 1_000;

/// Runs worlds on all processors; tells of those in which something is wrong, and how to see it again.
fn run_all(seeds: &[u64]) -> Vec<String> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let verdict = world::run(*seed, None, false);
            if let Some(first) = verdict.wrong.first() {
                wrong.push(format!("seed {seed}: {first}\n  again: rushline-simulate --seed {seed} --verbose"));
            }
        }
        wrong
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a world does not panic")).collect()
    })
}

#[test]
fn in_a_thousand_worlds_nothing_is_wrong() {
    let seeds: Vec<u64> = (1..=SEEDS).collect();
    let wrong = run_all(&seeds);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `seeds/mended` keeps each seed that found a mistake which has been mended since.
#[test]
fn what_was_mended_stays_so() {
    let seeds: Vec<u64> = include_str!("../seeds/mended")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    assert!(!seeds.is_empty());
    let wrong = run_all(&seeds);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each in a thread of its own: maps of the standard library have another order there.
#[test]
fn a_seed_is_one_world() {
    for seed in 1..=40 {
        let run = move || world::run(seed, None, true);
        let [one, two] = [std::thread::spawn(run), std::thread::spawn(run)].map(|thread| thread.join().unwrap());
        let differs = one.story.iter().zip(&two.story).find(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed} tells two stories");
        assert_eq!((one.digest, one.events), (two.digest, two.events), "seed {seed}");
    }
}

/// A run in which hardly anything happens shows nothing.
#[test]
fn the_worlds_are_lively() {
    let verdicts: Vec<Verdict> = (1..=60).map(|seed| world::run(seed, None, false)).collect();
    let sum =
        |what: &str| verdicts.iter().map(|verdict| verdict.counts.get(what).copied().unwrap_or_default()).sum::<u64>();
    assert!(sum("admitted") > 150 && sum("records") > 100, "{} admitted, {} recorded", sum("admitted"), sum("records"));
    assert!(sum("faults") > 100 && sum("calls") > 200, "{} faults, {} calls", sum("faults"), sum("calls"));
}
