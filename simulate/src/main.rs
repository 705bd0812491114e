//! `rushline-simulate`: many worlds, or the story of one.

use clap::Parser;
use rushline_simulate::world::{self, Verdict};
use rushline_simulate::zoo::{ANIMALS, Animal, Kind};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

/// Runs nodes of rushline, a Redis and a shop in one process under a seeded clock, with faults, and checks what they did.
#[derive(Parser)]
#[command(name = "rushline-simulate", version)]
struct Options {
    /// How many worlds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// One world only: this one.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Tells the story of the world, line by line. With --seed.
    #[arg(long, requires = "seed")]
    verbose: bool,
    /// Plants an error of the bug zoo; `list` lists them. Those in the product need a build with `--features zoo`.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Ends at the first world in which something is wrong.
    #[arg(long)]
    first: bool,
    /// The result as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Worlds at a time; as many as there are processors if not set.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let planted = match options.plant.as_deref() {
        None => None,
        Some("list") => {
            for animal in ANIMALS {
                let place = if let Kind::Script { script, .. } = animal.kind { script } else { "src" };
                println!("{place:14} {}", animal.name);
            }
            return ExitCode::SUCCESS;
        }
        Some(name) => match Animal::named(name) {
            Some(animal) => Some(animal),
            None => {
                eprintln!("error: there is no `{name}` in the zoo\nhint: rushline-simulate --plant list");
                return ExitCode::from(2);
            }
        },
    };
    if !cfg!(feature = "zoo") && planted.is_some_and(|animal| matches!(animal.kind, Kind::Product)) {
        eprintln!(
            "error: this build has no errors of the product in it\nhint: cargo run -p rushline-simulate --features zoo -- …"
        );
        return ExitCode::from(2);
    }
    match options.seed {
        Some(seed) => one(seed, planted, &options),
        None => many(planted, &options),
    }
}

fn one(seed: u64, planted: Option<&Animal>, options: &Options) -> ExitCode {
    let verdict = world::run(seed, planted, options.verbose);
    for line in &verdict.story {
        println!("{line}");
    }
    println!(
        "seed {seed}: {} events in {:.1} s, digest {:016x}",
        verdict.events,
        verdict.simulated.as_secs_f64(),
        verdict.digest
    );
    for wrong in &verdict.wrong {
        println!("wrong: {wrong}");
    }
    if verdict.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(planted: Option<&'static Animal>, options: &Options) -> ExitCode {
    let started = Instant::now();
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let next = AtomicU64::new(options.from);
    let end = options.from + options.seeds;
    let progress = Mutex::new(Instant::now());
    let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut done, mut simulated, mut failed) = (0, 0.0, Vec::new());
    let (tell, told) = mpsc::channel::<Verdict>();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || tell.send(world::run(seed, planted, false)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for verdict in told {
            done += 1;
            simulated += verdict.simulated.as_secs_f64();
            verdict.counts.iter().for_each(|(name, count)| *sums.entry(name).or_default() += count);
            if !verdict.wrong.is_empty() {
                if !options.json {
                    tell_of(&verdict, options);
                }
                failed.push(verdict.seed);
                if options.first {
                    next.store(end, Ordering::Relaxed);
                }
            }
            let mut last = progress.lock().expect("one thread at a time");
            if !options.json && last.elapsed().as_secs() >= 10 {
                *last = Instant::now();
                eprintln!("{done} of {} worlds, {} with something wrong", options.seeds, failed.len());
            }
        }
    });
    failed.sort_unstable();
    let took = started.elapsed().as_secs_f64();
    if options.json {
        let line = serde_json::json!({ "from": options.from, "seeds": done, "failed": failed, "took_s": took,
            "simulated_s": simulated, "counts": sums });
        println!("{line}");
    } else {
        let counts: Vec<String> = sums.iter().map(|(name, count)| format!("{count} {name}")).collect();
        println!("{done} worlds, {simulated:.0} s of theirs in {took:.1} s: {}", counts.join(", "));
        println!(
            "{}",
            if failed.is_empty() { "nothing wrong".into() } else { format!("wrong in {}: {failed:?}", failed.len()) }
        );
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was wrong, and how to see it again.
fn tell_of(verdict: &Verdict, options: &Options) {
    for wrong in verdict.wrong.iter().take(3) {
        println!("seed {}: {wrong}", verdict.seed);
    }
    let plant = options.plant.as_ref().map_or_else(String::new, |name| format!(" --plant '{name}'"));
    println!("  again: rushline-simulate --seed {} --verbose{plant}", verdict.seed);
}
