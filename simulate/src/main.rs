fn main() {
    let first: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(1);
    let started = std::time::Instant::now();
    let mut bad = 0;
    for seed in first..first + count {
        let verdict = rushline_simulate::world::run(seed, None, count == 1);
        if count == 1 {
            for line in &verdict.story {
                println!("{line}");
            }
            println!("{:x} {} events, {:?}, {:?}", verdict.digest, verdict.events, verdict.simulated, verdict.counts);
        }
        if !verdict.wrong.is_empty() {
            bad += 1;
            println!("seed {seed}: {:#?}", &verdict.wrong[..verdict.wrong.len().min(3)]);
        }
    }
    println!("{count} seeds, {bad} bad, {:?}", started.elapsed());
}
