//! Trips of three bookings at third parties: flight, hotel and car, all or none.
//!
//! An agency takes twelve orders at once and runs a workflow for each. The hotel is slow: it says "ongoing" until its desk
//! has answered. There are fewer rooms than flights and fewer cars than rooms, so bookings are refused and what was booked
//! before is cancelled. Whatever dies meanwhile, no one is left with a hotel and no flight.

mod agency;
mod supplier;

use crate::lab::{Lab, Service, http, say};
use crate::serving::Role;
use crate::verdict::Verdict;
use anyhow::bail;
use rushline::client::Client;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use supplier::Found;
use tokio::task::JoinSet;

pub const ABOUT: &str = "flight, hotel and car at three third parties, one slow, two refusing; all booked or none";

const NAME: &str = "travel";
const TRIPS: usize = 12;
/// In the order in which they are booked.
const SUPPLIERS: [&str; 3] = ["flight", "hotel", "car"];
const PLACES: [i64; 3] = [12, 9, 6];
/// For a trip to end, crashes included.
const END_WAIT_MAX: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(50);
const COORDINATOR_DIES_AFTER: usize = 3;

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    match role.role.as_str() {
        "agency" => agency::serve(role).await,
        name if SUPPLIERS.contains(&name) => supplier::serve(role).await,
        other => bail!("there is no {other}"),
    }
}

pub async fn run(crash: bool) -> anyhow::Result<Verdict> {
    let mut lab = Lab::start(&[]).await?;
    let files = tempfile::tempdir()?;
    let (mut suppliers, mut books) = (Vec::new(), Vec::new());
    for (name, places) in SUPPLIERS.into_iter().zip(PLACES) {
        let store = format!("sqlite:{}", files.path().join(name).display());
        books.push(supplier::found(&store, places).await?);
        // Its booking, or its cancelling, is done, and nobody has heard so.
        let death = match name {
            "flight" => "cancelled",
            "car" => "booked",
            _ => "",
        };
        let mut arguments = vec!["--store", &store];
        arguments.extend(if crash && !death.is_empty() { vec!["--die-at", death] } else { Vec::new() });
        suppliers.push(Service::start(NAME, name, &arguments).await?);
    }
    let (coordinator, urls) = (lab.coordinator.url(), suppliers.iter().map(Service::url).collect::<Vec<_>>().join(","));
    let mut arguments = vec!["--coordinator", &coordinator, "--store", &urls];
    // In the middle of a trip.
    arguments.extend(if crash { vec!["--die-at", "hotel is booked"] } else { Vec::new() });
    let mut agency = Service::start(NAME, "agency", &arguments).await?;

    println!("\n  {TRIPS} trips are ordered; there are {PLACES:?} places in {SUPPLIERS:?} …");
    let [flight, hotel, car] = &mut suppliers[..] else { bail!("three suppliers were started") };
    let order_url = format!("{}/trip", agency.url());
    let booked = tokio::select! {
        booked = take_orders(&mut lab, &order_url, crash) => booked?,
        never = agency.supervise() => match never {},
        never = flight.supervise() => match never {},
        never = hotel.supervise() => match never {},
        never = car.supervise() => match never {},
    };
    let mut found = Vec::new();
    for pool in &books {
        found.push(supplier::read(pool).await?);
    }
    Ok(judge(&booked, &found))
}

/// All trips at once, until each has ended; with the crash, the coordinator is killed in the midst of it. Which were booked?
async fn take_orders(lab: &mut Lab, order_url: &str, crash: bool) -> anyhow::Result<BTreeSet<String>> {
    let client = Client::http(lab.coordinator.url())?;
    let mut trips: JoinSet<_> =
        (1..=TRIPS).map(|number| take_order(client.clone(), order_url.to_owned(), format!("trip-{number}"))).collect();
    let (mut ended, mut booked) = (0, BTreeSet::new());
    while let Some(trip) = trips.join_next().await {
        ended += 1;
        booked.extend(trip??);
        if crash && ended == COORDINATOR_DIES_AFTER {
            lab.coordinator.kill9();
            say("rushline", "killed with trips under way; started again");
            lab.coordinator.restart().await;
        }
    }
    Ok(booked)
}

/// Sees to one trip until it has ended; its name if it was booked.
async fn take_order(client: Client, order_url: String, trip: String) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + END_WAIT_MAX;
    // Until the agency has it. From then on it goes on by itself, whoever dies.
    while !matches!(http::request("POST", &order_url, &trip).await, Ok((200 | 202 | 409, _))) {
        if Instant::now() > deadline {
            bail!("the agency did not take {trip} within {} s", END_WAIT_MAX.as_secs());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    loop {
        match client.query(&trip).await {
            Ok(Some(workflow)) if workflow.status == "succeed" => return Ok(Some(trip)),
            Ok(Some(workflow)) if workflow.is_final() => return Ok(None),
            _ if Instant::now() < deadline => tokio::time::sleep(POLL_EVERY).await,
            other => bail!("{trip} has not ended within {} s: {other:?}", END_WAIT_MAX.as_secs()),
        }
    }
}

fn judge(booked: &BTreeSet<String>, found: &[Found]) -> Verdict {
    let mut verdict = Verdict::default();
    let refused = TRIPS - booked.len();
    verdict.holds(format!("{} trips booked, {refused} cancelled", booked.len()), !booked.is_empty() && refused > 0);
    for ((name, places), found) in SUPPLIERS.iter().zip(PLACES).zip(found) {
        verdict.holds(format!("{name}: the booked trips have it, the others do not"), found.trips == *booked);
        verdict.same(&format!("{name}: places, had = free + booked"), places, found.free + found.trips.len() as i64);
    }
    verdict
}
