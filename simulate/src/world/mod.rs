//! One world: a plan, everything in it set going, mended, left to come to rest, and looked at.

pub mod checks;
mod line;
pub mod node;
pub mod plan;
pub mod records;
pub mod requests;
pub mod shared;
pub mod shop;
mod town;
mod trace;
mod weather;

use crate::zoo::Animal;
use checks::ledger::SALE;
use node::Instance;
use plan::{Plan, TROUBLED};
use rushline::domain::change::Note;
use rushline::domain::ids::{SaleName, Sku};
use rushline::domain::sale::{CallMode, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::domain::terms::{Reserve, Terms};
use shared::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use town::Town;

/// Once all is mended everything must have come to its end within this.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What became of a world.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub seed: u64,
    /// Nothing, if all is well.
    pub wrong: Vec<String>,
    /// The same for two runs of one seed.
    pub digest: u64,
    pub events: u64,
    pub simulated: Duration,
    pub counts: BTreeMap<&'static str, u64>,
    pub story: Vec<String>,
}

/// Runs the world of a seed, with an error planted or none.
pub fn run(seed: u64, planted: Option<&Animal>, verbose: bool) -> Verdict {
    run_plan(Plan::of(seed), planted, verbose)
}

pub fn run_plan(plan: Plan, planted: Option<&Animal>, verbose: bool) -> Verdict {
    // Jitter of the product comes from here.
    fastrand::seed(plan.seed);
    let planted_now = planted.map(Animal::plant);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    let verdict = runtime.block_on(live(plan, planted, verbose));
    drop(runtime);
    drop(planted_now);
    verdict
}

async fn live(plan: Plan, planted: Option<&Animal>, verbose: bool) -> Verdict {
    let seed = plan.seed;
    let shared = Arc::new(Shared::new(plan, verbose));
    if let Some((digest, source)) = planted.and_then(Animal::changed_script) {
        shared.lock().server.scripts.replace(digest, source.as_bytes());
    }
    let town = Town::new(shared.clone());
    for place in 0..shared.plan.nodes {
        town.start(place);
    }
    let background = tokio::spawn(weather::keep_up(shared.clone()));
    open_sale(&town).await;
    let mut going: Vec<JoinHandle<()>> = vec![tokio::spawn(weather::faults(town.clone()))];
    for (number, request) in shared.plan.requests.clone().into_iter().enumerate() {
        going.push(tokio::spawn(requests::wish(town.clone(), number, request)));
    }
    going.push(tokio::spawn(operate(town.clone())));
    until_done(&shared, &going, TROUBLED * 2).await;
    if !shared.is_over() {
        weather::heal(&town);
        until_done(&shared, &going, SETTLES_WITHIN).await;
        settle(&shared).await;
    }
    if !shared.is_over() {
        checks::settled::look(&shared);
    }
    background.abort();
    town.all().iter().for_each(|instance| instance.kill());
    let simulated = shared.elapsed();
    let mut state = shared.lock();
    Verdict {
        seed,
        wrong: state.wrong.clone(),
        digest: state.trace.digest(),
        events: state.trace.events(),
        simulated,
        counts: state.counts.clone(),
        story: state.trace.story(),
    }
}

/// Until all of these have ended, or something is wrong, or for so long.
async fn until_done(shared: &Shared, tasks: &[JoinHandle<()>], within: Duration) {
    let deadline = shared.elapsed() + within;
    while !shared.is_over() && shared.elapsed() < deadline && !tasks.iter().all(JoinHandle::is_finished) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn settle(shared: &Shared) {
    let deadline = shared.elapsed() + SETTLES_WITHIN;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut state = shared.lock();
        if !state.wrong.is_empty() || state.ledger.left(&state.server.db).is_empty() {
            return;
        }
        if shared.elapsed() > deadline {
            let left = state.ledger.left(&state.server.db);
            let within = SETTLES_WITHIN.as_secs();
            return state
                .wrong(format!("{within} s after all was mended there is still something on its way: {left:?}"));
        }
    }
}

fn new_sale(plan: &plan::SalePlan) -> NewSale {
    let mut endpoint = Endpoint::at("http://shop.simulated/orders");
    endpoint.timeout_ms = 700;
    endpoint.max_concurrency = 4;
    endpoint.mode = if plan.bulk { CallMode::Bulk } else { CallMode::Single };
    let reserve = plan.reserve.map(|reserve| reserve.as_millis() as u64);
    NewSale {
        sale: SaleName::parse(SALE).expect("a valid name"),
        items: plan.items.iter().map(|(sku, units)| (Sku::parse(*sku).expect("a valid SKU"), *units)).collect(),
        settings: Settings {
            status: SaleStatus::Open,
            window: Window::default(),
            limit_per_buyer: plan.limit,
            endpoint,
            durability: plan.durability,
            webhook: None,
            terms: Terms { reserve: reserve.map(|for_ms| Reserve { for_ms, max_ms: for_ms }), ..Terms::default() },
        },
    }
}

/// Asked of some node until one has done it: each of these may be repeated.
async fn insist<F, R>(town: &Town, ask: impl Fn(Arc<rushline::sale::node::Node>) -> F)
where
    F: Future<Output = Option<R>> + Send + 'static,
    R: Send + 'static,
{
    for turn in 0..1_000 {
        let instance: Option<Arc<Instance>> = town.instance(turn % town.shared.plan.nodes);
        if let Some(instance) = instance
            && let Some(node) = instance.node()
        {
            let (answer, hear) = oneshot::channel();
            let asking = ask(node);
            instance.run(async move {
                let _ = answer.send(asking.await); // nobody may be waiting any more
            });
            if let Ok(Ok(Some(_))) = tokio::time::timeout(Duration::from_secs(4), hear).await {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn open_sale(town: &Town) {
    let plan = town.shared.plan.sale.clone();
    let sale = Arc::new(new_sale(&plan));
    insist(town, |node| {
        let (sale, plan) = (sale.clone(), plan.clone());
        async move {
            node.create(&sale, "{}", plan.partitions).await.ok()?;
            Some(())
        }
    })
    .await;
}

/// What an operator does while the sale sells.
async fn operate(town: Arc<Town>) {
    let shared = town.shared.clone();
    let plan = shared.plan.sale.clone();
    if shared.plan.seed.is_multiple_of(3) {
        // A creation that was sent once more arrives late.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let sale = Arc::new(new_sale(&plan));
        insist(&town, |node| {
            let sale = sale.clone();
            async move { node.create(&sale, "{}", 1).await.ok() }
        })
        .await;
    }
    let mut restocks = plan.restocks.clone();
    restocks.sort();
    for (number, (at, sku, units)) in restocks.into_iter().enumerate() {
        tokio::time::sleep(at.saturating_sub(shared.elapsed())).await;
        shared.note(|| format!("operator {units} {sku}"));
        insist(&town, |node| async move {
            let (name, sku) = (SaleName::parse(SALE).ok()?, Sku::parse(sku).ok()?);
            let open = node.open(&name).await.ok()??;
            let note = Note::new("operator", "because").ok()?;
            node.redis.add_stock(&open.head(), &sku, units, &format!("change{number}"), &note).await.ok()
        })
        .await;
    }
    if let Some(at) = plan.grows {
        tokio::time::sleep(at.saturating_sub(shared.elapsed())).await;
        shared.note(|| "operator spreads the sale over one more partition".to_owned());
        insist(&town, |node| async move {
            let open = node.open(&SaleName::parse(SALE).ok()?).await.ok()??;
            node.grow(&open, 2, false).await.ok()
        })
        .await;
    }
}
