//! Which partition decides about an order, also while the sale grows.
//!
//! A buyer's home is the hash of the buyer over the number of partitions, and the buyer's ledger (what was bought, which
//! requests were answered) is nowhere else, so limits and replays hold. When the number grows, most homes change and
//! ledgers stay where they are:
//!
//! 1. `sale_grow` writes the new number into partition 0, `sale_spread` copies it to all others. From the moment that a
//!    partition has it, it decides for nobody who was routed by the old number (answer `M`).
//! 2. Whose home changed is first asked for at the homes of old. If one of these has the ledger, or the answer to this
//!    very request, it goes on deciding about this buyer, now a *visitor* there. A visitor without a ledger hears `M`: an
//!    earlier home begins no ledger any more.
//! 3. So "nothing" from a home of old that has the new number stays true, and the new home may begin a ledger. At every
//!    moment at most one partition has a buyer's ledger.
//!
//! Losers leave nothing anywhere, in the earlier homes neither.

use super::admission::{Asked, Heard};
use super::gather::Verdict;
use super::node::Node;
use super::open::{Open, OpenPart};
use super::turns::Turn;
use super::{Part, Refusal};
use crate::domain::order::Order;
use crate::store::Error;
use crate::store::keys;
use crate::store::orders::{Decision, Prepared};
use crate::store::spread::Known;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause before a request is routed anew: whoever spreads the new number needs a moment.
const AGAIN: Duration = Duration::from_millis(2);

/// What placing an order came to.
pub enum Placed {
    /// Refused from memory: Redis was asked for its key only.
    Refused(Refusal),
    /// Decided by a partition, or on the way found to be without a chance.
    Asked(Arc<Part>, Asked),
}

impl Node {
    /// Has an order decided whose turn it is: from memory where that is enough to refuse it, else by its partition. All
    /// doors go through here.
    pub async fn place(&self, open: &Open, order: Order, turn: Turn, follow: bool) -> Result<Placed, Error> {
        if let Some(refusal) = open.known_refusal(&order).await {
            return Ok(Placed::Refused(refusal));
        }
        let (part, asked) = self.ask(open, order, follow).await?;
        drop(turn); // before its order is waited for
        Ok(Placed::Asked(part, asked))
    }

    /// Has the order decided by the partition that its buyer belongs to. Answers that partition too.
    pub async fn ask(&self, open: &Open, order: Order, follow: bool) -> Result<(Arc<Part>, Asked), Error> {
        let mut request = Prepared::new(order);
        if open.sale.by_moves {
            request = request.counted_by(&open.sale.stored.load().settings.terms);
        }
        let mut turn = None;
        let mut deadline = None;
        loop {
            let place = self.home(open, &mut request).await?;
            let heard = place.admission.ask(request, follow).await;
            drop(turn.take()); // what came for this order may go elsewhere now
            let (back, decision) = match heard? {
                Heard::Asked(asked) => return Ok((place.part.clone(), asked)),
                Heard::Back(back, decision) => (*back, decision),
            };
            if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + self.limits.patience) {
                return Err(moving());
            }
            if decision == Decision::Moved {
                Box::pin(self.refresh(open)).await?; // rare and large, like the gathering below
                tokio::time::sleep(AGAIN).await;
            } else {
                match Box::pin(open.gather.want(place.part.number, &back.order.items)).await? {
                    Verdict::Refused(refusal) => return Ok((place.part.clone(), refused(open, refusal))),
                    Verdict::Again(ours) => turn = Some(ours),
                }
            }
            request = back;
        }
    }

    async fn home(&self, open: &Open, request: &mut Prepared) -> Result<Arc<OpenPart>, Error> {
        let deadline = Instant::now() + self.limits.patience;
        loop {
            let stored = open.sale.stored.load_full();
            let spread = &stored.spread;
            (request.partitions, request.visitor) = (spread.partitions, false);
            let missing = || Error::Unexpected { what: "a sale", reply: "fewer partitions than it has".into() };
            if spread.partitions == 1 {
                return open.place(0).ok_or_else(missing);
            }
            let buyer = &request.order.buyer;
            let home = keys::home(buyer.as_str(), spread.partitions);
            let (mut found, mut behind) = (None, false);
            for partitions in &spread.homes {
                let old = keys::home(buyer.as_str(), *partitions);
                if old == home {
                    continue;
                }
                let place = open.place(old).ok_or_else(missing)?;
                let key = request.order.key.as_ref();
                match self.redis.known_at(&place.part.keys, spread.partitions, buyer, key).await? {
                    Known::Here => {
                        found = Some(place);
                        break;
                    }
                    Known::Nothing => {}
                    Known::Behind => behind = true,
                }
            }
            if let Some(place) = found {
                request.visitor = true;
                return Ok(place);
            }
            if !behind {
                return open.place(home).ok_or_else(missing);
            }
            if Instant::now() >= deadline {
                return Err(moving());
            }
            self.refresh(open).await?;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Nothing was taken: whoever asks again later finds the units, or where they went.
fn moving() -> Error {
    let message = "units or buyers of this sale are on their way between its partitions".into();
    Error::Refused { code: "MOVING".into(), message }
}

fn refused(open: &Open, refusal: Refusal) -> Asked {
    open.sale.refused.count(refusal);
    Asked::refused(refusal)
}
