//! What a shop asks of a reservation: paid, given up, longer. On any node, at any time, with one verdict.
//!
//! A verdict is what stands in Redis after the script ran, and nothing else: whoever loses a race reads the character
//! that won it. An order that has left Redis has its verdict in the records; asking there is the caller's part.

use super::Part;
use super::node::Node;
use crate::domain::ids::Invalid;
use crate::domain::order::{Item, Order};
use crate::domain::reservation::{Move, Shift, State, Timing, Units, check_part, confirmed_of};
use crate::domain::terms::{BY_BUYER, Reserve, Terms};
use crate::store;
use crate::store::orders::Address;
use crate::store::reservations::{Moved, Notes, Row, When};
use crate::zoo;
use metrics::counter;

/// How often a move is tried while others move the same order; each try follows a move that somebody else made.
const TRIES_MAX: usize = 32;

/// What is asked of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Paid; `None` is in full, otherwise the rest goes back.
    Confirm(Option<Vec<Item>>),
    Cancel,
    /// To so many ms from its admission on; never shorter than it is.
    Extend(u64),
}

impl Ask {
    pub fn what(&self) -> Move {
        match self {
            Ask::Confirm(_) => Move::Confirm,
            Ask::Cancel => Move::Cancel,
            Ask::Extend(_) => Move::Extend,
        }
    }
}

/// How an order stands.
#[derive(Debug)]
pub struct Standing {
    pub state: State,
    pub order: Order,
    /// What is paid, of an order that is not paid in full.
    pub part: Option<Vec<Item>>,
    /// Until when it waits for its payment, while it is open.
    pub deadline_ms: u64,
    /// This very call moved it there.
    pub moved: bool,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The sale's orders are no reservations.
    #[error("the sale has no reservations")]
    NoReservations,
}

impl Node {
    /// Does what is asked of a reservation, if that is still open to it, and tells how it stands. `None`: it is not in
    /// Redis (any more).
    pub async fn ask_reservation(&self, sale: &Part, address: Address, ask: &Ask) -> Result<Option<Standing>, Fault> {
        let terms = sale.stored.load().settings.terms.clone();
        let Some(reserve) = terms.reserve else { return Err(Fault::NoReservations) };
        let Some(mut standing) = self.standing(sale, reserve, address).await? else { return Ok(None) };
        if let Ask::Confirm(Some(part)) = ask {
            check_part(part, &standing.order.items)?;
        }
        let mut lane = self.redis.lane();
        let mut what = ask.what();
        for _ in 0..TRIES_MAX {
            let Some((next, shift)) = standing.state.after(what) else {
                return self.settled(sale, standing).await.map(Some);
            };
            let deadline_ms = match ask {
                Ask::Extend(for_ms) if what == Move::Extend => {
                    let deadline_ms = address.entry.ms.saturating_add(*for_ms);
                    if deadline_ms <= standing.deadline_ms {
                        return Ok(Some(standing)); // it is as long already
                    }
                    Some(deadline_ms)
                }
                _ => None,
            };
            let part = match ask {
                Ask::Confirm(Some(part)) if what == Move::Confirm && !is_whole(part, &standing.order.items) => {
                    Some(part.clone())
                }
                _ => None,
            };
            let when = timing(what, standing.deadline_ms);
            let (expected, new) = (text(standing.state), text(next));
            let mut row = Row::new(address.entry, address.index, expected, new, when);
            add(&mut row, &terms, &standing.order, shift, part.as_deref());
            row.deadline_ms = deadline_ms;
            row.part = part.clone();
            let moved = self.redis.move_orders(&mut lane, &sale.keys, &[row], Notes::default()).await?;
            match moved.into_iter().next() {
                Some(Moved::Done) => {
                    if let Some(end) = next.end() {
                        counter!("rushline_reservations_ended_total", "how" => end_name(end)).increment(1);
                        sale.ends.notify_one();
                    }
                    standing.state = next;
                    standing.part = part;
                    standing.deadline_ms = deadline_ms.unwrap_or(standing.deadline_ms);
                    standing.moved = what == ask.what();
                    return self.settled(sale, standing).await.map(Some);
                }
                // Out of time. It is written down before anybody hears so: else another clock might see it otherwise.
                Some(Moved::TooLate) => what = Move::Expire,
                Some(Moved::TooEarly) => what = ask.what(),
                Some(Moved::Gone) | None => return Ok(None),
                Some(Moved::Stale(_)) => {
                    let Some(now) = self.standing(sale, reserve, address).await? else { return Ok(None) };
                    standing = now;
                    what = ask.what();
                }
            }
        }
        Err(Fault::Store(store::Error::Refused {
            code: "BUSY".into(),
            message: "others keep moving the same order".into(),
        }))
    }

    /// Nobody hears a verdict before it is as durable as the sale promises: also one that another node has just
    /// written, and may have died over.
    async fn settled(&self, sale: &Part, standing: Standing) -> Result<Standing, Fault> {
        if !zoo::planted("a verdict is told before it is durable") {
            self.acknowledge(sale).await?;
        }
        Ok(standing)
    }

    /// How an order with a reservation stands in Redis.
    pub async fn standing(
        &self,
        sale: &Part,
        reserve: Reserve,
        address: Address,
    ) -> Result<Option<Standing>, store::Error> {
        let Some(entry) = self.redis.entries(&sale.keys, &[address.entry]).await?.pop() else { return Ok(None) };
        let index = usize::from(address.index);
        let code = entry.outcome.as_bytes().get(index).copied();
        let (Some(state), Some(frame)) = (code.and_then(State::of_code), entry.frames.into_iter().nth(index)) else {
            return Ok(None);
        };
        let (extended_ms, part) =
            self.redis.reservation_extras(&sale.keys, &[address]).await?.pop().unwrap_or_default();
        let deadline_ms = extended_ms.unwrap_or(address.entry.ms + reserve.for_ms);
        Ok(Some(Standing { state, order: Order::from(frame), part, deadline_ms, moved: false }))
    }
}

pub(super) fn text(state: State) -> String {
    char::from(state.code()).to_string()
}

pub(super) fn timing(what: Move, deadline_ms: u64) -> When {
    match what.timing() {
        Timing::Any => When::Any,
        Timing::BeforeDeadline => When::Before(deadline_ms),
        Timing::FromDeadline => When::From(deadline_ms),
    }
}

pub(super) fn end_name(end: crate::domain::reservation::End) -> &'static str {
    use crate::domain::reservation::End;
    match end {
        End::Confirmed => "confirmed",
        End::Cancelled => "cancelled",
        End::Expired => "expired",
    }
}

fn is_whole(part: &[Item], items: &[Item]) -> bool {
    items.iter().all(|item| confirmed_of(item, Some(part)) == item.quantity)
}

/// Adds an order's move to a row: its units, and what its buyer and its keys are counted for no more.
pub fn add(row: &mut Row, terms: &Terms, order: &Order, shift: Shift, part: Option<&[Item]>) {
    for item in &order.items {
        let units = shift.units(item.quantity, confirmed_of(item, part));
        if units == Units::default() {
            continue;
        }
        let sum = match row.units.get_mut(&item.sku) {
            Some(sum) => sum,
            None => row.units.entry(item.sku.clone()).or_default(),
        };
        sum.available += units.available;
        sum.reserved += units.reserved;
        sum.sold += units.sold;
        if units.available == 0 {
            continue;
        }
        *row.buyers.entry(order.buyer.as_str().to_owned()).or_default() -= units.available;
        for limit in terms.counting(item.sku.as_str()) {
            let value = match limit.by.as_str() {
                BY_BUYER => Some(order.buyer.as_str()),
                by => order.limits_by.as_ref().and_then(|keys| keys.get(by)).map(String::as_str),
            };
            if let Some(value) = value {
                *row.limits.entry(format!("{}:{value}", limit.name())).or_default() -= units.available;
            }
        }
    }
}
