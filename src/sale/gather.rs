//! When a partition runs dry: units come from others, or the sale is proved to be sold out.
//!
//! **Proof.** All partitions are looked at twice. Each counts how often a SKU's units came back or came in (`grown`). If
//! no counter changed between the looks, then from the first look on no partition's units, together with those on their
//! way from it, have become more; so at the moment between the looks there were at most as many as the first look saw.
//! If that is too few for an order, there was a moment, after the order was asked for, at which it could not be served,
//! and it is refused. Nobody is refused on less.
//!
//! **Units.** Of the richest partition half comes, or as much as the order needs if that is more. So many move while
//! there are many, few when there are few, and the last one is found. All who wait are served by one round, and the next
//! begins when they have had their turn: units that came for somebody are not carried off before.

use super::node::Node;
use super::open::Open;
use super::{Part, Refusal};
use crate::domain::ids::Sku;
use crate::domain::order::Item;
use crate::store::Error;
use crate::store::transfer::Look;
use crate::zoo;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Orders that wait for a round; further ones hear 429.
const QUEUE_MAX: usize = 16_384;
/// Most SKUs of one round: bounds what a look reads.
const SKUS_MAX: usize = 64;
/// Longest wait for those whose units came: a batch or two.
const TURN_MAX: Duration = Duration::from_millis(200);
/// Of a donor's units the half.
const HALF: u64 = 2;

/// Where orders wait whose partition has too few units.
pub struct Gather(mpsc::Sender<Want>);

struct Want {
    part: u16,
    items: Vec<Item>,
    answer: oneshot::Sender<Result<Verdict, Error>>,
}

/// What came of it.
#[derive(Debug)]
pub enum Verdict {
    Refused(Refusal),
    /// Something has changed: ask the partition again, and let go of the turn then.
    Again(Turn),
}

/// Held while an order is decided about for which units came.
#[derive(Debug, Clone)]
pub struct Turn {
    _held: mpsc::Sender<Infallible>,
}

impl Gather {
    pub(super) fn new() -> (Self, Inbox) {
        let (wants, inbox) = mpsc::channel(QUEUE_MAX);
        (Self(wants), Inbox(inbox))
    }

    /// Units for these items to that partition, or the proof that there are not enough.
    pub(super) async fn want(&self, part: u16, items: &[Item]) -> Result<Verdict, Error> {
        let (answer, hear) = oneshot::channel();
        let want = Want { part, items: items.to_vec(), answer };
        match self.0.try_send(want) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Ok(Verdict::Refused(Refusal::QueueFull)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        hear.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Error {
    Error::NoAnswer("this node is stopping".into())
}

/// The other end of a [`Gather`].
pub(super) struct Inbox(mpsc::Receiver<Want>);

impl Inbox {
    /// Round after round, until the process ends.
    pub async fn run(mut self, node: Arc<Node>, open: Arc<Open>) {
        let mut waiting = Vec::new();
        loop {
            if waiting.is_empty() && self.0.recv_many(&mut waiting, QUEUE_MAX).await == 0 {
                return;
            }
            // Only the first so many SKUs; those that ask for others have the next round.
            let mut skus: Vec<Sku> = Vec::new();
            let mut later = Vec::new();
            let mut wants = Vec::new();
            for want in waiting.drain(..) {
                let new = want.items.iter().filter(|item| !skus.contains(&item.sku)).count();
                if skus.len() + new > SKUS_MAX && !skus.is_empty() {
                    later.push(want);
                    continue;
                }
                for item in &want.items {
                    if !skus.contains(&item.sku) {
                        skus.push(item.sku.clone());
                    }
                }
                wants.push(want);
            }
            waiting = later;
            let (held, mut turns) = mpsc::channel(1);
            let turn = Turn { _held: held };
            let round = Round { node: &node, open: &open, parts: open.parts(), skus };
            round.serve(wants, &turn).await;
            drop(turn);
            let _ = tokio::time::timeout(TURN_MAX, turns.recv()).await; // none comes: it ends with the last turn
        }
    }
}

struct Round<'a> {
    node: &'a Node,
    open: &'a Open,
    parts: Vec<Arc<Part>>,
    skus: Vec<Sku>,
}

impl Round<'_> {
    async fn serve(&self, wants: Vec<Want>, turn: &Turn) {
        let verdicts = self.decide(&wants).await;
        match verdicts {
            Ok(refusals) => {
                for (want, refusal) in wants.into_iter().zip(refusals) {
                    let verdict = refusal.map_or_else(|| Verdict::Again(turn.clone()), Verdict::Refused);
                    let _ = want.answer.send(Ok(verdict)); // the buyer may have hung up
                }
            }
            Err(error) => {
                tracing::debug!(sale = %self.open.sale.name, %error, "units could not be gathered");
                wants.into_iter().for_each(|want| drop(want.answer.send(Err(error.clone()))));
            }
        }
    }

    /// A refusal for those who cannot be served; for the others units have come, if they were needed.
    async fn decide(&self, wants: &[Want]) -> Result<Vec<Option<Refusal>>, Error> {
        let first = self.look().await?;
        let short: Vec<Option<Refusal>> = wants.iter().map(|want| self.short(want, &first)).collect();
        let mut refusals = vec![None; wants.len()];
        if short.iter().any(Option::is_some) {
            let second = self.look().await?;
            for ((want, short), refusal) in wants.iter().zip(short.iter().copied()).zip(&mut refusals) {
                let proved = want.items.iter().all(|item| self.has_not_grown(&item.sku, &first, &second));
                if proved || zoo::planted("one look is proof of a sold-out sale") {
                    *refusal = short;
                }
            }
        }
        for (part, look) in self.parts.iter().zip(&first) {
            for transit in &look.transits {
                self.node.carry(self.open, part, transit).await?;
            }
        }
        // Partition and SKU → units that the largest order there needs.
        let mut needs: BTreeMap<(u16, usize), u64> = BTreeMap::new();
        for (want, _) in wants.iter().zip(&short).filter(|(_, short)| short.is_none()) {
            for item in &want.items {
                let need = needs.entry((want.part, self.place(&item.sku))).or_default();
                *need = (*need).max(item.quantity.into());
            }
        }
        let moves = needs.into_iter().map(|((to, sku), units)| self.fetch(to, sku, units, &first));
        join_all(moves).await.into_iter().collect::<Result<(), Error>>()?;
        Ok(refusals)
    }

    async fn look(&self) -> Result<Vec<Look>, Error> {
        let keys: Vec<_> = self.parts.iter().map(|part| &part.keys).collect();
        self.node.redis.look(&keys, &self.skus).await
    }

    fn place(&self, sku: &Sku) -> usize {
        self.skus.iter().position(|known| known == sku).expect("a round looks at the SKUs of its wants")
    }

    /// Why this order could not be served with all that the look saw, were it in one place.
    fn short(&self, want: &Want, looks: &[Look]) -> Option<Refusal> {
        let of = |item: &Item| {
            let place = self.place(&item.sku);
            let known = looks.iter().filter_map(|look| look.skus[place]).map(|(available, _)| available);
            let moving = looks.iter().flat_map(|look| &look.transits).filter(|transit| transit.sku == item.sku);
            let moving: Vec<u64> = moving.map(|transit| transit.units).collect();
            let unknown = known.clone().next().is_none() && moving.is_empty();
            (unknown, known.sum::<u64>() + moving.iter().sum::<u64>() < u64::from(item.quantity))
        };
        let found: Vec<(bool, bool)> = want.items.iter().map(of).collect();
        if found.iter().any(|(unknown, _)| *unknown) {
            return Some(Refusal::UnknownSku);
        }
        found.iter().any(|(_, short)| *short).then_some(Refusal::SoldOut)
    }

    fn has_not_grown(&self, sku: &Sku, first: &[Look], second: &[Look]) -> bool {
        let place = self.place(sku);
        let grown = |look: &Look| look.skus[place].map(|(_, grown)| grown);
        first.iter().zip(second).all(|(first, second)| grown(first) == grown(second))
    }

    /// Brings units of a SKU to a partition until it has `units`, from the richest first.
    async fn fetch(&self, to: u16, sku: usize, units: u64, looks: &[Look]) -> Result<(), Error> {
        let available = |at: usize| looks[at].skus[sku].map_or(0, |(available, _)| available);
        let mut here = available(usize::from(to));
        let mut donors: Vec<usize> =
            (0..self.parts.len()).filter(|at| *at != usize::from(to) && available(*at) > 0).collect();
        donors.sort_by_key(|at| std::cmp::Reverse(available(*at)));
        for donor in donors {
            if here >= units {
                break;
            }
            here += self.node.transfer(self.open, &self.parts[donor], to, &self.skus[sku], units - here, HALF).await?;
        }
        Ok(())
    }
}
