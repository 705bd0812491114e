//! Buyers: each has a wish, asks some node, gives up waiting, asks again, perhaps another node, perhaps twice at a time.

use super::checks::ledger::SALE;
use super::node::Instance;
use super::plan::{Request, Then};
use super::shared::Shared;
use super::town::Town;
use rushline::domain::ids::{Buyer, Gid, IdempotencyKey, SaleName, Sku};
use rushline::domain::order::{Item, Order, Status};
use rushline::sale::Refusal;
use rushline::sale::admission::Answer;
use rushline::sale::node::Node;
use rushline::sale::open::Open;
use rushline::sale::reservations::Ask;
use rushline::sale::route::Placed;
use rushline::sale::turns::Turn;
use rushline::store;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What one try came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Admitted(String),
    Refused(Refusal),
    /// A definite no for now: nothing was done.
    NotNow(String),
    /// An error after which nobody knows.
    Unknown(String),
    /// No answer.
    Nothing,
}

/// One try, as the buyer remembers it.
#[derive(Debug, Clone)]
pub struct Told {
    pub request: usize,
    pub node: String,
    /// Time of day.
    pub began: Duration,
    pub ended: Duration,
    pub heard: Heard,
}

pub async fn wish(town: Arc<Town>, number: usize, request: Request) {
    let shared = town.shared.clone();
    tokio::time::sleep(request.at).await;
    let mut hasty = Vec::new();
    for attempt in 0..request.tries {
        let pick = shared.lock().network.usize(0..shared.plan.nodes);
        let pause = Duration::from_millis(shared.lock().network.u64(1..=400));
        let heard = if request.hasty && attempt == 0 {
            // The first try goes on by itself while the second is sent after a moment.
            let (town, request) = (town.clone(), request.clone());
            hasty.push(tokio::spawn(async move { ask(&town, number, &request, pick).await }));
            tokio::time::sleep(Duration::from_millis(shared.plan.seed % 40)).await;
            continue;
        } else {
            ask(&town, number, &request, pick).await
        };
        match heard {
            Heard::Admitted(gid) => {
                for earlier in hasty {
                    let _ = earlier.await;
                }
                return then(&town, &request, &gid).await;
            }
            Heard::Refused(_) => break,
            Heard::NotNow(_) | Heard::Unknown(_) | Heard::Nothing => tokio::time::sleep(pause).await,
        }
    }
    for earlier in hasty {
        if let Ok(Heard::Admitted(gid)) = earlier.await {
            return then(&town, &request, &gid).await;
        }
    }
}

fn order_of(number: usize, request: &Request) -> Order {
    let items = request
        .items
        .iter()
        .map(|(sku, quantity)| Item { sku: Sku::parse(*sku).expect("a valid SKU"), quantity: *quantity });
    Order {
        key: request.key.as_ref().map(|key| IdempotencyKey::parse(key.clone()).expect("a valid key")),
        buyer: Buyer::parse(request.buyer.clone()).expect("a valid buyer"),
        items: items.collect(),
        payload: RawValue::from_string(format!("\"r{number}\"")).ok(),
        trace: None,
        limits_by: None,
    }
}

/// One try: over the network there and back, with all that can happen to it.
async fn ask(town: &Town, number: usize, request: &Request, pick: usize) -> Heard {
    let shared = &town.shared;
    let instance = town.instance(pick);
    let began = shared.now();
    let (lost, answer_lost) = {
        let mut state = shared.lock();
        (state.happens(shared.plan.network.request_lost), state.happens(shared.plan.network.answer_lost))
    };
    let asking = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match instance.as_ref() {
            Some(instance) if !lost => {
                let heard = placed(instance, order_of(number, request)).await;
                // It was sent, whether it is heard or not.
                if let Heard::Admitted(gid) = &heard {
                    look_at_answer(shared, number, gid);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                if answer_lost { Heard::Nothing } else { heard }
            }
            _ => Heard::Nothing,
        }
    };
    let heard = tokio::time::timeout(request.patience, asking).await.unwrap_or(Heard::Nothing);
    let node = instance.map_or_else(String::new, |instance| instance.name.clone());
    shared.note(|| format!("buyer    {} r{number} at {node}: {heard:?}", request.buyer));
    let told = Told { request: number, node, began, ended: shared.now(), heard: heard.clone() };
    let mut state = shared.lock();
    state.count("requests");
    state.told.push(told);
    heard
}

/// Nobody hears of an order before it is as durable as promised.
fn look_at_answer(shared: &Shared, number: usize, gid: &str) {
    let now = shared.now();
    let mut state = shared.lock();
    state.count("admitted");
    let admitted = state.ledger.order(gid).map(|order| order.admitted_write);
    match admitted {
        None => state.wrong(format!("r{number} is answered with {gid}, of which Redis knows nothing")),
        Some(write) if !state.is_durable(&shared.plan, write, now) => {
            state.wrong(format!("r{number} is answered with {gid} before that is durable"));
        }
        Some(_) => {}
    }
}

/// Runs at the node, as a request that came in by a door.
async fn placed(instance: &Arc<Instance>, order: Order) -> Heard {
    let Some(node) = instance.node() else { return Heard::NotNow("not up yet".into()) };
    let (answer, hear) = oneshot::channel();
    instance.run(async move {
        let name = SaleName::parse(SALE).expect("a valid name");
        let open = node.open(&name).await;
        let turn = match &open {
            Ok(Some(open)) => open.turns.take(order.key.as_ref()).await.ok(),
            _ => None,
        };
        if answer.is_closed() {
            return; // as the doors do: who has left is not served when the turn comes
        }
        let heard = match open {
            Ok(Some(open)) => match place(&node, &open, order, turn).await {
                Ok(Placed::Refused(refusal)) => Heard::Refused(refusal),
                Ok(Placed::Asked(part, asked)) => match asked.answer {
                    Answer::Admitted { address, .. } => Heard::Admitted(part.gid(address).to_string()),
                    Answer::Refused(refusal) => Heard::Refused(refusal),
                },
                Err(error) => told_error(error),
            },
            Ok(None) => Heard::NotNow("no such sale yet".into()),
            Err(error) => Heard::NotNow(error.to_string()),
        };
        let _ = answer.send(heard); // the buyer may have hung up
    });
    tokio::select! {
        biased;
        heard = hear => heard.unwrap_or(Heard::Nothing),
        () = instance.died.notified() => Heard::Nothing,
    }
}

async fn place(node: &Node, open: &Open, order: Order, turn: Option<Turn>) -> Result<Placed, store::Error> {
    match turn {
        Some(turn) => node.place(open, order, turn, false).await,
        None => Ok(Placed::Refused(Refusal::QueueFull)),
    }
}

fn told_error(error: store::Error) -> Heard {
    match error {
        store::Error::Refused { .. } => Heard::NotNow(error.to_string()),
        error => Heard::Unknown(error.to_string()),
    }
}

/// What becomes of a reservation is the buyer's to say, in time.
async fn then(town: &Town, request: &Request, gid: &str) {
    if town.shared.plan.sale.reserve.is_none() {
        return;
    }
    let (after, what) = match request.then {
        Then::Pays(after) => (after, Ask::Confirm(None)),
        Then::GivesUp(after) => (after, Ask::Cancel),
        Then::Forgets => return,
    };
    tokio::time::sleep(after).await;
    for _ in 0..4 {
        let pick = town.shared.lock().network.usize(0..town.shared.plan.nodes);
        if let Some(instance) = town.instance(pick)
            && let Some(status) = ended(&instance, gid, what.clone()).await
        {
            town.shared.note(|| format!("buyer    {} {what:?} {gid}: {status:?}", request.buyer));
            look_at_verdict(&town.shared, gid);
            town.shared.lock().verdicts_push(gid, status);
            return;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Nobody hears how a reservation ended before that is durable.
fn look_at_verdict(shared: &Shared, gid: &str) {
    let now = shared.now();
    let mut state = shared.lock();
    let ended = state.ledger.order(gid).and_then(|order| order.ended_write);
    if ended.is_none_or(|write| !state.is_durable(&shared.plan, write, now)) {
        state.wrong(format!("the buyer of {gid} is told of its end before that is durable"));
    }
}

/// Asks a node to end a reservation; how it stands after that, if it said so.
async fn ended(instance: &Arc<Instance>, gid: &str, what: Ask) -> Option<Status> {
    let node = instance.node()?;
    let gid: Gid = gid.parse().ok()?;
    let (answer, hear) = oneshot::channel();
    instance.run(async move {
        let standing = async {
            let open = node.open(&gid.sale).await.ok()??;
            let part = open.part(gid.partition)?;
            let address = store::orders::Address { entry: gid.entry, index: gid.index };
            let standing = node.ask_reservation(&part, address, &what).await.ok()??;
            Some(standing.state.status())
        };
        let _ = answer.send(standing.await); // the buyer may have hung up
    });
    let died = instance.died.notified();
    tokio::select! {
        biased;
        status = tokio::time::timeout(Duration::from_secs(3), hear) => status.ok()?.ok()?,
        () = died => None,
    }
}
