//! One round: a new sale on new servers, a crowd, the plan's faults, and the verdict.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::process::Command;
use tokio::time::Instant;

use super::database::Database;
use super::faults::{self, Done};
use super::plan::{Round, Sale, Store};
use super::sagas::{self, Sagas};
use super::summary::{Ended, Slow};
use super::world::{Programs, World, sale_body};
use super::{ORDERS_MIN, Settings, stuck};
use crate::engine::crowd::{Crowd, phases};
use crate::engine::{self, Drive};
use crate::ledger::{Plan, Recorder, SalePlan, Stock};
use crate::oracle::{self, Tolerance, Verdict};
use crate::scenario::Scenario;
use crate::target::{Rushline, Target};

const LEAD: Duration = Duration::from_millis(500);
const CONNECTIONS: usize = 48;
const ROWS_MAX: usize = 2_000_000;
/// After the last fault is mended: leases of a second, retries of half a second, and a busy machine.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(90);
/// Units of an order that was in the hands of the dead come back within this.
const RETURNS_US: u64 = 20_000_000;
const RESERVED_FOR_S: f64 = 5.0;

/// Most buyers try until somebody says something definite; some click twice, lose the answer, or come back.
fn scenario(round: &Round, settings: &Settings) -> anyhow::Result<Scenario> {
    let (seconds, rate) = (settings.round_s, settings.rate);
    // Sells out towards the end, so that losers and limits are tried too.
    let units = u64::from(rate) * seconds * 6 / 10;
    let ends = match round.sale {
        Sale::Reserved => {
            "pay_percent = 60\npay_after_ms = [200, 4000]\ncancel_percent = 20\ncancel_after_ms = [100, 2000]\n"
        }
        _ => "",
    };
    let reserve = match round.sale {
        Sale::Reserved => format!("reserve_for_s = {RESERVED_FOR_S}\n"),
        _ => String::new(),
    };
    let tries = "tries = 100\npatience_ms = 1000\nbackoff_ms = [40, 600]\n";
    let text = format!(
        "patience_s = 40\nseed = {seed}\n\
         [sale]\nunits = {units}\nlimit_per_buyer = 2\n{reserve}\
         [[arrivals]]\nkind = \"poisson\"\nrate = {rate}\nlasts_s = {seconds}\n\
         [[buyers]]\nname = \"stubborn\"\nweight = 60\n{tries}{ends}\
         [[buyers]]\nname = \"double click\"\nweight = 15\nclicks = 2\n{tries}{ends}\
         [[buyers]]\nname = \"loses the answer\"\nweight = 15\nlose_percent = 100\n{tries}{ends}\
         [[buyers]]\nname = \"wants more\"\nweight = 10\norders = 3\npolls = 2\n{tries}",
        seed = round.seed >> 1 & 0xffff_ffff,
    );
    Scenario::parse("chaos", &text, Path::new("."))
}

/// Runs it. The error is that of a round that could not be run; what went wrong in it is in [`Ended`].
pub async fn run(
    round: &Round,
    settings: &Settings,
    programs: &Programs,
    directory: &Path,
    database: Option<Database>,
) -> anyhow::Result<(Ended, Option<Database>)> {
    let took = Instant::now();
    let mut world = World::start(round, programs, directory, database).await?;
    let mut done = Done::default();
    let played = play(round, settings, &mut world, &mut done).await;
    let mut ended = Ended::new(round, done);
    match played {
        Ok((verdict, sagas, slow)) => {
            let orders = verdict.looked_at.get("orders").copied().unwrap_or(0);
            if orders < ORDERS_MIN {
                ended.wrong.push(format!("there were only {orders} orders, and that proves nothing"));
            }
            ended.wrong.extend(sagas.wrong);
            (ended.transactions, ended.succeeded) = (sagas.ended, sagas.succeeded);
            (ended.verdict, ended.slow) = (verdict, slow);
        }
        Err(error) => ended.wrong.push(format!("{error:#}")),
    }
    if !ended.is_clean() {
        match stuck::dump(&world).await {
            Ok(path) => ended.wrong.push(format!("what is still open is in {}", path.display())),
            Err(error) => ended.wrong.push(format!("what is still open could not be found out: {error:#}")),
        }
        std::fs::write(directory.join("round.json"), serde_json::to_string_pretty(round)?)?;
    }
    let (database, stopped) = world.stop().await;
    if let Err(error) = stopped {
        ended.wrong.push(format!("{error:#}"));
    }
    ended.took_s = took.elapsed().as_secs();
    Ok((ended, database))
}

async fn play(
    round: &Round,
    settings: &Settings,
    world: &mut World,
    done: &mut Done,
) -> anyhow::Result<(Verdict, sagas::Outcome, Slow)> {
    let scenario = scenario(round, settings)?;
    let (phases, _) = phases(&scenario)?;
    let crowd = {
        let (scenario, phases) = (scenario.clone(), phases.clone());
        move || Crowd::new(scenario.seed, scenario.buyers.clone(), scenario.sale.skus, &phases, false)
    };
    let began = std::time::Instant::now() + LEAD;
    let began_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + LEAD;
    let sale = SalePlan {
        name: world.sale.clone(),
        stock: vec![Stock { sku: "sku-1".into(), units: scenario.sale.units }],
        limit_per_buyer: scenario.sale.limit_per_buyer,
        reserve_for_us: scenario.sale.reserve_for_s.map(|s| (s * 1e6) as u64),
        ..SalePlan::default()
    };
    let body = sale_body(world, round, &sale);
    world.nodes[0].api.expect("POST", "/v1/sales", Some(&body)).await?;
    let baskets = crowd().1;
    let plan =
        Plan { began_unix_us: u64::try_from(began_unix.as_micros())?, sales: vec![sale], baskets: baskets.clone() };

    let lasts = Duration::from_secs(settings.round_s);
    let recorder = Recorder::new(ROWS_MAX);
    let drive = Drive {
        threads: 1,
        connections: CONNECTIONS,
        streams: 0,
        began,
        until: began + lasts + Duration::from_secs_f64(scenario.patience_s),
    };
    let (front, name) = (world.front.address, world.sale.clone());
    let waits = vec![0; scenario.buyers.len()];
    let supply =
        Arc::new(move |_| Ok((crowd().0, Target::Rushline(Rushline::new(front, &name, &baskets, waits.clone())))));
    let stop = Arc::new(AtomicBool::new(false));
    let _stop = StopOnDrop(stop.clone());
    let sagas = Arc::new(Sagas::open(world.front.address).await?);
    // What a replica has of global transactions nobody waits for: a promotion may lose the last of them.
    let transacts_until = if round.store == Store::Replica { began } else { began + lasts };
    let transacting = tokio::spawn(sagas.clone().run(world.sale.clone(), transacts_until.into()));
    let buying = engine::run(drive, phases, supply, &recorder, stop);
    let breaking = async {
        let played = faults::play(world, &round.deeds, began.into(), round.seed, done).await;
        played.and(faults::mend(world).await)
    };
    let (bought, broken) = tokio::join!(buying, breaking);
    broken?;
    bought?;
    transacting.await.context("the clients of global transactions broke down")?;

    let slow = slow_scripts(world).await;
    let shop = world.nodes[0].api;
    let (ledger, after) = oracle::conclude(shop, world.service, &recorder, plan, SETTLE_TIME_MAX).await?;
    let verdict = oracle::judge(&ledger, &after, Tolerance { returns_us: RETURNS_US, ..Tolerance::default() });
    Ok((verdict, sagas.judge(SETTLE_TIME_MAX).await, slow))
}

/// Threads look at it: a round that is dropped ends them.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The scripts that took longer than a millisecond since Redis started, by the wall clock of a busy machine.
async fn slow_scripts(world: &World) -> Slow {
    let port = world.servers[world.primary].address.port().to_string();
    let asked = Command::new("redis-cli").args(["-p", &port, "--json", "SLOWLOG", "GET", "-1"]).output().await;
    let entries: Vec<serde_json::Value> =
        asked.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
    let mut slow = Slow::default();
    for entry in entries.iter().filter(|entry| entry[3][0] == "EVALSHA") {
        let micros = entry[2].as_u64().unwrap_or(0);
        slow.longest_us = slow.longest_us.max(micros);
        slow.over_5_ms += u64::from(micros > 5_000);
    }
    slow
}
