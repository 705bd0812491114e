//! `rushline-loadtest chaos`: round after round of real servers that are killed, put to sleep, cut off, filled up and lied
//! to while buyers buy, until enough processes have died; after each round the oracle judges.
//!
//! | file | what it is |
//! | --- | --- |
//! | `plan` | what goes wrong in a round and when, out of a seed |
//! | `world`, `part`, `database` | the servers, and the links between them |
//! | `faults` | makes things go wrong, and mends them |
//! | `poison` | an order endpoint that answers in every wrong way |
//! | `sagas` | global transactions beside the orders, with a book of their own |
//! | `round` | one round: buyers, faults, verdict |
//! | `stuck` | what is still open in a round that does not settle |
//! | `summary` | what a run was like, for people and as JSON |
//!
//! docs/reliability.md says what each fault stands for, and keeps the results of long runs.

mod database;
mod faults;
mod part;
mod plan;
mod poison;
mod round;
mod sagas;
mod stuck;
mod summary;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::processes::{fresh_directory, sibling};
use database::Database;
use plan::{Means, Round};
use summary::{Ended, Summary};
use world::Programs;

#[derive(Debug, Args)]
pub struct Settings {
    /// Ends after the round in which so many processes have been killed.
    #[arg(long, env = "KILLS", default_value_t = 300)]
    kills: u64,
    /// Everything that goes wrong follows from this number; chance by default.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// Ends after the round in which so many minutes have passed, however many were killed.
    #[arg(long, env = "MINUTES")]
    minutes: Option<u64>,
    /// Seconds that buyers come, in each round.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=600))]
    round_s: u64,
    /// Buyers a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    rate: u32,
    /// Only this round of the run, as its summary names it.
    #[arg(long)]
    only: Option<u32>,
    /// The server's program; beside this one by default.
    #[arg(long)]
    rushline: Option<PathBuf>,
    /// Redis's program.
    #[arg(long, env = "REDIS_SERVER", default_value = "redis-server")]
    redis_server: PathBuf,
    /// One of Redis 7.2 or later, which has WAITAOF; without it that part is left out.
    #[arg(long, env = "REDIS_SERVER_8")]
    redis_server_8: Option<PathBuf>,
    /// Records in SQLite, also where there is a MariaDB that could be killed.
    #[arg(long)]
    no_database: bool,
    /// Directory of data and logs; its old content goes. What a failed round left stays.
    #[arg(long, default_value = "target/chaos")]
    directory: PathBuf,
    /// Print the summary as JSON and nothing else.
    #[arg(long)]
    json: bool,
}

/// Runs rounds. 0: all clean; 3: a charge; 2: something could not be judged; 1: a round could not be run.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    fresh_directory(&settings.directory)?;
    let seed = settings.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut summary = Summary::new(seed);
    let ran = tokio::select! {
        ran = rounds(&settings, seed, &mut summary) => ran,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print!("{summary}");
    }
    ran?;
    Ok(summary.exit_code())
}

async fn rounds(settings: &Settings, seed: u64, summary: &mut Summary) -> anyhow::Result<()> {
    let say = |text: String| {
        if !settings.json {
            println!("{text}")
        }
    };
    let (programs, means) = programs(settings)?;
    summary.means = means;
    summary.versions = summary::versions(&programs);
    let mut database = match database::program().filter(|_| means.database) {
        Some(program) => Some(Database::start(&program, &settings.directory).await?),
        None => None,
    };
    for (there, what) in [
        (means.waitaof, "no Redis with WAITAOF (--redis-server-8)"),
        (means.clocks, "no libfaketime, or no second Redis to use it with: clocks do not jump"),
        (means.mounts, "not root, no disk of Redis is full"),
        (means.database, "no MariaDB, the records are in SQLite and nobody kills them"),
    ] {
        if !there {
            say(format!("left out: {what}"));
        }
    }
    say(format!("seed {seed}"));
    let lasts = Duration::from_secs(settings.round_s);
    let began = Instant::now();
    for number in 0.. {
        if settings.only.is_some_and(|only| only != number) {
            continue;
        }
        let round = Round::new(seed, number, lasts, means);
        let directory = settings.directory.join(format!("round-{number}"));
        let ended;
        (ended, database) = round::run(&round, settings, &programs, &directory, database).await?;
        say(ended.to_string());
        if ended.is_clean() {
            std::fs::remove_dir_all(&directory)?;
        } else {
            say(format!("  its logs are kept in {}; again: --seed {seed} --only {number}", directory.display()));
        }
        let failed = !ended.is_clean();
        summary.add(ended);
        let time_is_up = settings.minutes.is_some_and(|minutes| began.elapsed().as_secs() >= minutes * 60);
        if summary.kills >= settings.kills || time_is_up || failed || settings.only.is_some() {
            break;
        }
    }
    if let Some(mut database) = database {
        database.part.kill().await?;
    }
    Ok(())
}

/// What there is on this machine.
fn programs(settings: &Settings) -> anyhow::Result<(Programs, Means)> {
    let rushline = settings.rushline.clone().map_or_else(|| sibling("rushline"), Ok)?;
    if let Some(program) = &settings.redis_server_8 {
        ensure!(program.exists(), "--redis-server-8 {}: there is no such program", program.display());
    }
    let programs = Programs {
        rushline,
        redis: settings.redis_server.clone(),
        redis_waitaof: settings.redis_server_8.clone(),
        faketime: world::faketime(),
        mounts: world::can_mount(&settings.directory),
    };
    let means = Means {
        waitaof: programs.redis_waitaof.is_some(),
        clocks: programs.faketime.is_some() && programs.redis_waitaof.is_some(),
        mounts: programs.mounts,
        database: !settings.no_database && database::program().is_some(),
    };
    Ok((programs, means))
}

/// How many orders a round must have had to say anything.
const ORDERS_MIN: u64 = 50;

impl Ended {
    /// Nothing is wrong, and there was enough to say so.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty() && self.verdict.word() == crate::oracle::Word::Clean
    }
}
