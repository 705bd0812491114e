//! What must hold when nothing is on its way any more (I3, I4, I10, I11): the records, the shop's books, the units, and what
//! buyers were told are one story.

use crate::world::requests::{Heard, Told};
use crate::world::shared::{Shared, State};
use rushline::domain::order::Status;
use rushline::sale::Refusal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub fn look(shared: &Shared) {
    let mut state = shared.lock();
    let mut wrong = Vec::new();
    shop_and_records(&state, &mut wrong);
    units(&state, &mut wrong);
    for number in 0..shared.plan.requests.len() {
        buyer(shared, &state, number, &mut wrong);
    }
    for (gid, status) in &state.verdicts {
        let recorded = state.records.get(gid).map(|record| record.status);
        // An order service may refuse to make an order for which somebody has paid: docs/orders.md.
        let stands = recorded == Some(*status) || (*status == Status::Succeed && recorded == Some(Status::Failed));
        if !stands {
            wrong.push(format!("of {gid} the buyer heard {status:?}, and the records have {recorded:?}"));
        }
    }
    wrong.into_iter().for_each(|wrong| state.wrong(wrong));
}

fn shop_and_records(state: &State, wrong: &mut Vec<String>) {
    for (gid, order) in &state.shop.books {
        let record = state.records.get(gid);
        let fits = match (order.made, order.end.as_deref(), record.map(|record| record.status)) {
            (true, None | Some("confirm"), Some(Status::Succeed)) => true,
            (true, Some("cancel"), Some(Status::Cancelled | Status::Expired)) => true,
            // Given up before the shop had answered, and then it refused.
            (false, None, Some(Status::Failed | Status::Cancelled | Status::Expired)) => true,
            _ => false,
        };
        if !fits {
            wrong.push(format!("{gid} is {order:?} at the order service, and in the records {record:?}"));
        }
        if record.is_some_and(|record| record.payload != order.payload || record.items != order.items) {
            wrong.push(format!("{gid} is another order at the order service than in the records"));
        }
    }
    for (gid, record) in &state.records {
        if !state.shop.books.contains_key(gid) {
            wrong.push(format!(
                "{gid} is in the records as {:?}, and the order service never heard of it",
                record.status
            ));
        }
    }
    for (gid, order) in &state.ledger.orders {
        if !order.drained {
            wrong.push(format!("{gid} is still in Redis as {:?}", order.state));
        }
    }
}

fn units(state: &State, wrong: &mut Vec<String>) {
    let mut sold: BTreeMap<&str, i64> = BTreeMap::new();
    let alive = |end: &Option<String>| end.as_deref() != Some("cancel");
    for order in state.shop.books.values().filter(|order| order.made && alive(&order.end)) {
        for (sku, units) in &order.items {
            *sold.entry(sku).or_default() += i64::from(*units);
        }
    }
    for (sku, loaded) in state.ledger.loaded(&state.server.db) {
        let sold = sold.get(sku.as_str()).copied().unwrap_or_default();
        if sold > loaded {
            wrong.push(format!("oversold: of {loaded} {sku} the order service has {sold}"));
        }
    }
}

/// What a buyer was told, in all tries, against what there is.
fn buyer(shared: &Shared, state: &State, number: usize, wrong: &mut Vec<String>) {
    let tries: Vec<&Told> = state.told.iter().filter(|told| told.request == number).collect();
    let payload = format!("\"r{number}\"");
    let orders: Vec<_> = state.records.iter().filter(|(_, record)| record.payload == payload).collect();
    let told: BTreeSet<&str> = tries
        .iter()
        .filter_map(|told| if let Heard::Admitted(gid) = &told.heard { Some(gid.as_str()) } else { None })
        .collect();
    if told.len() > 1 || orders.len() > 1 {
        let there: Vec<&String> = orders.iter().map(|(gid, _)| *gid).collect();
        wrong.push(format!("r{number} asked for one order, was told of {told:?}, and there are {there:?}"));
    }
    for gid in &told {
        if !orders.iter().any(|(there, _)| there == gid) {
            wrong.push(format!("r{number} was told of {gid}, and there is no such order of it"));
        }
    }
    let sure = |told: &&&Told| matches!(told.heard, Heard::Refused(_) | Heard::NotNow(_));
    if let Some((gid, _)) = orders.first()
        && !tries.is_empty()
        && tries.iter().all(|told| sure(&told))
    {
        wrong.push(format!("r{number} was refused each time, and there is order {gid}"));
    }
    overtaken(shared, state, number, &tries, wrong);
    refusals(shared, state, number, &tries, wrong);
}

/// At one node the tries of one request are decided in their order: whoever hears "sold out" on a later try must not get
/// the order by an earlier one after that.
fn overtaken(shared: &Shared, state: &State, number: usize, tries: &[&Told], wrong: &mut Vec<String>) {
    let payload = format!("\"r{number}\"");
    let admitted = state.ledger.orders.iter().find(|(_, order)| order.payload == payload);
    let one_node = tries.windows(2).all(|pair| pair[0].node == pair[1].node);
    let (Some((gid, order)), true) = (admitted, one_node && !shared.plan.sets_clock()) else { return };
    for told in tries.iter().filter(|told| matches!(told.heard, Heard::Refused(_))) {
        let later_try = tries.iter().any(|other| other.began > told.ended);
        let earlier_try = tries.iter().any(|other| other.began < told.began);
        if u128::from(order.entry.ms) > told.ended.as_millis() && earlier_try && !later_try {
            wrong.push(format!("r{number} heard {:?} and got {gid} by an earlier try after that", told.heard));
        }
    }
}

/// What memory may tell of is this old at most (`sale/known`), and a little for the way.
const MEMORY: Duration = Duration::from_millis(20);

/// A refusal tells of a moment of its own try; whoever has the order already hears that instead.
fn refusals(shared: &Shared, state: &State, number: usize, tries: &[&Told], wrong: &mut Vec<String>) {
    let request = &shared.plan.requests[number];
    let payload = format!("\"r{number}\"");
    let admitted = state.ledger.orders.iter().find(|(_, order)| order.payload == payload);
    for told in tries {
        let Heard::Refused(refusal) = told.heard else { continue };
        let short = |sku: &str, units: u32| {
            state.ledger.was_short(sku, i64::from(units), told.began.saturating_sub(MEMORY), told.ended)
        };
        if refusal == Refusal::SoldOut && !request.items.iter().any(|(sku, units)| short(sku, *units)) {
            wrong.push(format!("r{number} heard at {:?} that it is sold out, and it never was meanwhile", told.ended));
        }
        if let Some((gid, order)) = admitted
            && request.key.is_some()
            && refusal != Refusal::QueueFull
            && !shared.plan.sets_clock()
            && u128::from(order.entry.ms) < told.began.as_millis()
        {
            wrong.push(format!("r{number} has order {gid} and hears {refusal:?} when it asks again"));
        }
    }
}
