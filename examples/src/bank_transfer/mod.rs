//! Transfers between two banks, one with MySQL, one with PostgreSQL: as a saga, by TCC, and by XA.
//!
//! Four customers, who have an account at both banks, move their money to and fro at the same time, each in all three
//! modes; every other transfer is refused: too much, or to an account that is closed. Whatever dies meanwhile, in the
//! end there is as much money as there was, and each transfer is in both journals or in neither.

mod bank;
mod books;

use crate::lab::{Lab, Need, Service, say};
use crate::verdict::Verdict;
use anyhow::{Context, bail};
use bank::Order;
use books::{Books, Found};
use rushline::client::{Client, Error};
use sqlx::{MySql, Postgres};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub use bank::serve;

pub const ABOUT: &str = "two banks, MySQL and PostgreSQL; transfers by saga, TCC and XA, half of them refused";

const NAME: &str = "bank-transfer";
const CUSTOMERS: i32 = 4;
/// For a transfer to end, crashes included.
const END_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long TCC and XA may stay undecided: for the case that their client's decision gets lost.
const UNDECIDED_MAX: Duration = Duration::from_secs(3);

const POLL_EVERY: Duration = Duration::from_millis(50);
/// A quarter of the transfers.
const COORDINATOR_DIES_AFTER: usize = 12;

/// Each place is one where a bank has committed, and nobody has heard so.
const DEATHS: [(&str, [&str; 3]); 2] = [
    ("bank-a", ["saga compensate", "tcc confirm", "xa action"]),
    ("bank-b", ["saga action", "tcc cancel", "xa commit"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Saga,
    Tcc,
    Xa,
}

/// A transfer that a customer wants.
#[derive(Debug, Clone)]
struct Transfer {
    gid: String,
    mode: Mode,
    to_b: bool,
    from: i32,
    to: i32,
    amount: i64,
}

/// The two banks' addresses, and the coordinator's client.
struct Way {
    client: Client,
    bank_a: String,
    bank_b: String,
}

pub async fn run(crash: bool) -> anyhow::Result<Verdict> {
    let mut lab = Lab::start(&[Need::MySql, Need::Postgres]).await?;
    let (store_a, store_b) = (lab.url(Need::MySql)?, lab.url(Need::Postgres)?);
    let (books_a, books_b) = (books::found::<MySql>(&store_a).await?, books::found::<Postgres>(&store_b).await?);
    let (mut bank_a, mut bank_b) =
        tokio::try_join!(start_bank("bank-a", &lab, &store_a, crash), start_bank("bank-b", &lab, &store_b, crash))?;
    let money = MySql::read(&books_a).await?.money + Postgres::read(&books_b).await?.money;

    let client = Client::http(lab.coordinator.url())?;
    let way = Arc::new(Way { client, bank_a: bank_a.url(), bank_b: bank_b.url() });
    let transfers: Vec<Vec<Transfer>> = (1..=CUSTOMERS).map(wishes).collect();
    let count: usize = transfers.iter().map(Vec::len).sum();
    println!("\n  {CUSTOMERS} customers order {count} transfers …");
    let outcomes = tokio::select! {
        outcomes = carry_out(&mut lab, way, transfers, crash) => outcomes?,
        never = bank_a.supervise() => match never {},
        never = bank_b.supervise() => match never {},
    };
    Ok(judge(crash, money, &outcomes, &MySql::read(&books_a).await?, &Postgres::read(&books_b).await?))
}

async fn start_bank(role: &str, lab: &Lab, store: &str, crash: bool) -> anyhow::Result<Service> {
    let coordinator = lab.coordinator.url();
    let mut arguments = vec!["--coordinator", &coordinator, "--store", store];
    if crash {
        let places = DEATHS.iter().filter(|(bank, _)| *bank == role).flat_map(|(_, places)| places);
        arguments.extend(places.flat_map(|place| ["--die-at", place]));
    }
    Service::start(NAME, role, &arguments).await
}

/// What one customer wants: in every mode two transfers that can be, and two that cannot.
fn wishes(customer: i32) -> Vec<Transfer> {
    let mut modes = [Mode::Saga, Mode::Tcc, Mode::Xa];
    modes.rotate_left(customer as usize % 3);
    let wish = |mode, number, to_b, to, amount| Transfer {
        gid: format!("{mode:?}-{customer}-{number}").to_lowercase(),
        mode,
        to_b,
        from: customer,
        to,
        amount,
    };
    let of_mode = |mode| {
        [
            wish(mode, 1, true, customer, 100),
            wish(mode, 2, customer % 2 == 0, customer, 50 * books::OPENED_WITH),
            wish(mode, 3, false, customer, 40),
            wish(mode, 4, customer % 2 == 0, books::CLOSED, 30),
        ]
    };
    modes.into_iter().flat_map(of_mode).collect()
}

/// Each customer's transfers one after the other, all customers at once; with the crash, the coordinator is killed in
/// the midst of it. Which transfers were done?
async fn carry_out(
    lab: &mut Lab,
    way: Arc<Way>,
    transfers: Vec<Vec<Transfer>>,
    crash: bool,
) -> anyhow::Result<BTreeMap<String, Outcome>> {
    let (tell, mut ended) = mpsc::channel(CUSTOMERS as usize);
    for transfers in transfers {
        let (tell, way) = (tell.clone(), way.clone());
        tokio::spawn(async move {
            for transfer in transfers {
                let done = transfer.carry_out(&way).await;
                if tell.send((transfer, done)).await.is_err() {
                    return; // the story is over
                }
            }
        });
    }
    drop(tell);
    let mut outcomes = BTreeMap::new();
    while let Some((transfer, done)) = ended.recv().await {
        let Transfer { gid, mode, amount, .. } = transfer;
        let amount = if transfer.to_b { amount } else { -amount };
        outcomes.insert(gid, Outcome { mode, to_b: amount, done: done? });
        if crash && outcomes.len() == COORDINATOR_DIES_AFTER {
            lab.coordinator.kill9();
            say("rushline", "killed with transfers under way; started again");
            lab.coordinator.restart().await;
        }
    }
    Ok(outcomes)
}

impl Transfer {
    /// Sees to it until it has ended. Was it done?
    async fn carry_out(&self, way: &Way) -> anyhow::Result<bool> {
        let deadline = Instant::now() + END_WAIT_MAX;
        while let Err(error) = self.attempt(way).await {
            match error {
                // With the same gid it is the same transfer, however often it is asked for.
                error if error.is_retryable() && Instant::now() < deadline => {}
                Error::Failure { .. } | Error::NotFinished { .. } | Error::Unconfirmed { .. } | Error::Refused(_) => {
                    break;
                }
                error => return Err(error).context(format!("the transfer {} broke off", self.gid)),
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        loop {
            match way.client.query(&self.gid).await {
                Ok(Some(transaction)) if transaction.is_final() => return Ok(transaction.status == "succeed"),
                _ if Instant::now() < deadline => tokio::time::sleep(POLL_EVERY).await,
                other => bail!("{} has not ended within {} s: {other:?}", self.gid, END_WAIT_MAX.as_secs()),
            }
        }
    }

    async fn attempt(&self, way: &Way) -> Result<(), Error> {
        let (source, target) = if self.to_b { (&way.bank_a, &way.bank_b) } else { (&way.bank_b, &way.bank_a) };
        let (out, into) = (format!("{source}/out"), format!("{target}/in"));
        let (pay, credit) = (Order::new(self.from, self.amount), Order::new(self.to, self.amount));
        let client = &way.client;
        // The op in each call says what is asked, so one URL serves for all.
        match self.mode {
            Mode::Saga => {
                let saga = client.saga(&self.gid).step(&out, &out, &pay).step(&into, &into, &credit);
                saga.wait_result().submit().await.map(drop)
            }
            Mode::Tcc => {
                let tcc = client.tcc(&self.gid).timeout_to_fail(UNDECIDED_MAX).wait_result();
                let tries = async |tcc: rushline::client::Tcc| {
                    tcc.call_branch(&out, &out, &out, &pay).await?;
                    tcc.call_branch(&into, &into, &into, &credit).await.map(drop)
                };
                tcc.run(tries).await.map(drop)
            }
            Mode::Xa => {
                let xa = client.xa(&self.gid).timeout_to_fail(UNDECIDED_MAX).wait_result();
                let work = async |xa: rushline::client::Xa| {
                    xa.call_branch(&out, &pay).await?;
                    xa.call_branch(&into, &credit).await.map(drop)
                };
                xa.run(work).await.map(drop)
            }
        }
    }
}

struct Outcome {
    mode: Mode,
    /// What bank B is to have more, and bank A less, if it was done.
    to_b: i64,
    done: bool,
}

fn judge(crash: bool, money: i64, outcomes: &BTreeMap<String, Outcome>, a: &Found, b: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    for mode in [Mode::Saga, Mode::Tcc, Mode::Xa] {
        let of_mode = outcomes.values().filter(|outcome| outcome.mode == mode);
        let (done, refused): (Vec<_>, Vec<_>) = of_mode.partition(|outcome| outcome.done);
        // A crash may turn any of them back.
        let both = crash || (!done.is_empty() && !refused.is_empty());
        verdict.holds(format!("{mode:?}: {} transfers done, {} refused", done.len(), refused.len()), both);
    }
    verdict.same("money in both banks, before = after", money, a.money + b.money);
    let expected = |sign: i64| {
        let done = outcomes.iter().filter(|(_, outcome)| outcome.done);
        done.map(|(gid, outcome)| (gid.clone(), sign * outcome.to_b)).collect::<BTreeMap<_, _>>()
    };
    verdict.holds("what was done is in both journals, what was refused in neither", {
        a.journal == expected(-1) && b.journal == expected(1)
    });
    verdict.same("money held, or announced and not there", a.pending + b.pending, 0);
    verdict.same("XA transactions that nobody ended", a.prepared + b.prepared, 0);
    verdict
}
