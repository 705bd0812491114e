//! Writing what the order service said of orders that are reservations: made and waiting for the payment, or refused; and
//! of orders of sales with limits that `order_finish` does not know.
//!
//! Payment, cancellation and expiry may come at the same time from any node, so an entry may stand otherwise in Redis than
//! this node knows; then it learns, and composes anew.

use super::{EndedOrder, Held, Keeper, retrying};
use crate::crash;
use crate::domain::ids::EntryId;
use crate::domain::order::{Item, Status};
use crate::domain::reservation::{Move, Shift, State};
use crate::sale::reservations::add;
use crate::sale::waiters::Ended;
use crate::store;
use crate::store::orders::{Address, Detail};
use crate::store::reservations::{Moved, Notes, Row, When};
use metrics::counter;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// Rows, and what is to be noted with them.
#[derive(Default)]
struct Composed {
    rows: Vec<Row>,
    retries: Vec<Address>,
    details: Vec<(Address, Detail)>,
}

/// What became of an order by what the order service said.
fn moved(held: &Held, ended: &EndedOrder) -> Option<(State, Shift)> {
    let state = State::of_code(held.written[usize::from(ended.index)])?;
    let what = if ended.created { Move::Made } else { Move::Refused };
    if held.entry.part.reserve_ms.is_some() { state.after(what) } else { state.after_plain(what) }
}

impl Keeper {
    /// As `write`, for a sale with reservations. False: no answer, try later.
    pub(super) async fn write_reservations(&mut self, batch: &[EntryId]) -> bool {
        loop {
            let answers = match self.try_write_reservations(batch).await {
                Ok(answers) if answers.is_empty() => return true,
                Ok(answers) => answers,
                Err(error) => {
                    tracing::warn!(sale = %self.sale.name, entries = batch.len(), %error, "answers of the order service are not written yet");
                    return false;
                }
            };
            for (row, answer) in answers {
                match answer {
                    Moved::Done => self.settle_reservations(row),
                    Moved::Stale(current) => self.learn(row.entry, current),
                    Moved::Gone | Moved::TooLate | Moved::TooEarly => self.let_go(row.entry),
                }
            }
        }
    }

    async fn try_write_reservations(&mut self, batch: &[EntryId]) -> Result<Vec<(Row, Moved)>, store::Error> {
        let parts = self.parts_of_refused(batch).await?;
        let Composed { rows, retries, details } = self.compose_reservations(batch, &parts);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        crash::point("made.before_script");
        let notes = Notes { retries: &retries, details: &details };
        let moved = self.redis.move_orders(&mut self.lane, &self.sale.keys, &rows, notes).await?;
        crash::point("made.after_script");
        Ok(rows.into_iter().zip(moved).collect())
    }

    /// What was paid of orders that were paid in part, and which the order service then would not make. Nearly never any.
    async fn parts_of_refused(&self, batch: &[EntryId]) -> Result<HashMap<Address, Vec<Item>>, store::Error> {
        let mut paid = Vec::new();
        for held in batch.iter().filter_map(|id| self.held.get(id)) {
            let unsold = |ended: &&EndedOrder| moved(held, ended).is_some_and(|(_, shift)| shift == Shift::Unsell);
            let address = |ended: &EndedOrder| Address { entry: held.entry.id, index: ended.index };
            paid.extend(held.ended.iter().filter(unsold).map(address));
        }
        let extras = self.redis.reservation_extras(&self.sale.keys, &paid).await?;
        Ok(paid.into_iter().zip(extras).filter_map(|(address, (_, part))| Some((address, part?))).collect())
    }

    fn compose_reservations(&self, batch: &[EntryId], parts: &HashMap<Address, Vec<Item>>) -> Composed {
        let terms = &self.sale.stored.load().settings.terms;
        let mut composed = Composed::default();
        for held in batch.iter().filter_map(|id| self.held.get(id)).filter(|held| !held.ended.is_empty()) {
            let mut new = held.written.clone();
            let mut row = Row::new(held.entry.id, 0, super::text(&held.written), String::new(), When::Any);
            for ended in &held.ended {
                let Some((next, shift)) = moved(held, ended) else { continue };
                let address = Address { entry: held.entry.id, index: ended.index };
                let order = &held.entry.orders[usize::from(ended.index)];
                new[usize::from(ended.index)] = next.code();
                add(&mut row, terms, order, shift, parts.get(&address).map(Vec::as_slice));
                if shift == Shift::Unsell {
                    tracing::error!(gid = %self.sale.gid(address), "the order service refuses an order that is paid; its units went back");
                }
                if ended.attempts > 1 {
                    composed.retries.push(address);
                }
                if ended.attempts > 1 || !ended.created {
                    let detail = Detail { attempts: ended.attempts, message: ended.message.clone() };
                    composed.details.push((address, detail));
                }
            }
            row.new = super::text(&new);
            composed.rows.push(row);
        }
        composed
    }

    fn settle_reservations(&mut self, row: Row) {
        let Some(held) = self.held.get_mut(&row.entry) else { return };
        held.written = row.new.into_bytes();
        let mut answered = 0;
        for ended in held.ended.drain(..) {
            answered += 1;
            let state = State::of_code(held.written[usize::from(ended.index)]);
            let status = state.map_or(Status::Submitted, State::status);
            counter!("rushline_orders_ended_total", "status" => status.as_str()).increment(1);
            let address = Address { entry: row.entry, index: ended.index };
            retrying::has_ended(&self.sale, address, ended.attempts);
            self.sale.waiters.tell(&address, &Ended { status, message: ended.message });
        }
        let over = super::open_orders(&held.written) == 0;
        self.sale.backlog.fetch_sub(answered, Ordering::Relaxed);
        if over {
            // From here on Redis alone keeps it: until payments, cancellations or the clock move its orders on.
            self.held.remove(&row.entry);
            self.finished.wake();
            self.sale.ends.notify_one();
        }
    }
}
