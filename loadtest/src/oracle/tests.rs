//! Every fault of the bad shop is found, and nothing is found where there is none.

mod crowd;
mod real;
mod stories;

use super::*;
use crate::bad_shop::{self, Fault};
use crate::http::Api;
use crate::sink_service::{self, Habits};
use clap::ValueEnum;
use crowd::{Crowd, Story, TOLERANCE};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// The story in which a fault shows, and what it is charged with. More may follow from it.
fn expected(fault: Fault) -> (Story, Option<Charge>) {
    use Charge::*;
    use Story::*;
    let (story, charge) = match fault {
        Fault::None => return (Flash, None),
        Fault::Oversell => (Flash, Oversold),
        Fault::Withhold | Fault::LeakUnits | Fault::ForgetRestock => (Flash, Undersold),
        Fault::LoseOrder | Fault::TellTooEarly => (Flash, Lost),
        Fault::SayNoAndSell | Fault::ForgetOrders => (Flash, Ghost),
        Fault::ForgetKeys | Fault::MakeTwice => (Flash, Double),
        Fault::ShareGid => (Flash, SharedGid),
        Fault::IgnoreLimit => (Flash, LimitBroken),
        Fault::LimitLeaks => (Flash, LimitMisjudged),
        Fault::StockBeforeKey | Fault::ForgetToMark | Fault::GoBack => (Flash, ReplayDiffers),
        Fault::ReuseKey => (Flash, KeyReused),
        Fault::OpenEarly => (Early, WindowBroken),
        Fault::CloseLate => (Late, WindowBroken),
        Fault::CloseEarly | Fault::StayShut => (InTime, WindowBroken),
        Fault::WrongQuantity | Fault::WrongSku | Fault::WrongBuyer => (Flash, WrongOrder),
        Fault::KeepCancelled => (Reservations, CancelledKept),
        Fault::ReleaseConfirmed => (Reservations, ConfirmedReleased),
        Fault::NeverExpire => (Reservations, ExpiredKept),
        Fault::CookBooks => (Flash, BooksDiffer),
    };
    (story, Some(charge))
}

async fn service() -> Api {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let habits = Habits { refuse_permille: 150, lose_permille: 100, record: true, ..Habits::default() };
    tokio::spawn(sink_service::serve_on(listener, habits));
    Api { address }
}

/// A whole run against the bad shop.
async fn run(fault: Fault, story: Story) -> (Ledger, Aftermath) {
    let service = service().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shop = Api { address: listener.local_addr().unwrap() };
    tokio::spawn(bad_shop::serve_on(listener, fault));
    let crowd = Crowd::open(shop, service, "s", story, json!({})).await;
    crowd.run(service).await
}

fn judged(fault: Fault, story: Story) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ledger, after) = runtime.block_on(LocalSet::new().run_until(run(fault, story)));
    judge(&ledger, &after, TOLERANCE)
}

#[test]
fn a_good_shop_is_not_guilty_of_anything() {
    use Story::*;
    for story in [Flash, Window, Early, InTime, Late, Reservations] {
        let verdict = judged(Fault::None, story);
        assert_eq!(verdict.word(), Word::Clean, "{story:?}: {verdict}");
        let sells = matches!(story, Flash | InTime | Reservations);
        for what in ["orders that stand", "promises", "buyers with a limit"].iter().filter(|_| sells) {
            assert!(verdict.looked_at.get(*what).is_some_and(|n| *n > 0), "{story:?}: no {what}: {verdict}");
        }
    }
}

/// Without an occasion to go wrong, right is no proof: a good flash sale has all that the checks look at.
#[test]
fn a_good_flash_sale_gives_every_check_something_to_look_at() {
    let verdict = judged(Fault::None, Story::Flash);
    let occasions = [
        "sold-out answers",
        "limit answers",
        "answers to a request that heard yes",
        "keys used for another order",
        "orders of buyers who got no answer",
        "polls",
    ];
    for what in occasions {
        assert!(verdict.looked_at.get(what).is_some_and(|n| *n > 0), "no {what}: {verdict}");
    }
}

#[test]
fn every_fault_is_found() {
    let threads: Vec<_> = (Fault::value_variants().iter().copied())
        .filter_map(|fault| {
            let (story, charge) = expected(fault);
            let charge = charge?;
            Some((fault, charge, std::thread::spawn(move || judged(fault, story))))
        })
        .collect();
    assert!(threads.len() >= 14, "{} faults", threads.len());
    let mut charges = BTreeSet::new();
    let mut missed = Vec::new();
    for (fault, charge, thread) in threads {
        let verdict = thread.join().unwrap();
        println!("{fault:?}\n{verdict}");
        charges.insert(charge);
        let found = verdict.charges.get(&charge);
        if verdict.word() != Word::Violated || found.is_none_or(|count| count.evidence.is_empty()) {
            missed.push(fault);
        }
    }
    assert_eq!(missed, [], "these went unnoticed");
    assert_eq!(charges, Charge::ALL.into(), "each charge has a fault that it is proved on");
}
