//! The two lists put together: what buyers were told, by request; and what both lists say, by order.
//!
//! Built once, then only read. Answers stay in the ledger and are pointed at, since there may be millions of them.

use std::collections::{HashMap, HashSet};

use super::{Aftermath, End, Tolerance};
use crate::ledger::{
    BasketId, Called, Item, Kind, Ledger, Micros, Outcome, Place, SalePlan, ServiceAnswer, Told, buyer_name,
    buyer_number,
};

/// All that the checks go by.
pub struct Facts<'a> {
    pub ledger: &'a Ledger,
    pub after: &'a Aftermath,
    pub tolerance: Tolerance,
    pub answers: u64,
    /// One per sale and key; a request without a key is one of its own.
    pub requests: Vec<Request>,
    /// One per gid that any list names.
    pub orders: HashMap<&'a str, Order<'a>>,
    /// Requests of buyers that have an order which nobody was told of.
    pub of_buyer: HashMap<(u16, u32), Vec<usize>>,
    places: Vec<Place>,
}

/// All answers to one key, in the order of sending.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub sale: u16,
    pub key: u64,
    pub first_sent_us: Micros,
    from: usize,
    to: usize,
}

/// One gid, and everything said of it.
#[derive(Debug, Default)]
pub struct Order<'a> {
    /// Index into [`super::Ledger`]'s sales, if it is one of ours.
    pub sale: Option<u16>,
    /// Requests that heard this gid; more than one is a fault.
    pub told_to: Vec<usize>,
    /// The first yes, and when it was said.
    pub told: Option<(Micros, u32, BasketId)>,
    /// Some buyer heard that it exists, or that it does not any more.
    pub told_created_us: Option<Micros>,
    pub told_failed_us: Option<Micros>,
    pub confirm_done_us: Option<Micros>,
    pub cancel_done_us: Option<Micros>,
    /// A confirm or cancel got no answer: it may have happened.
    pub end_unknown: bool,
    pub service: Option<Service<'a>>,
}

/// What the order service knows of one order.
#[derive(Debug)]
pub struct Service<'a> {
    /// The first call, whose words count.
    pub call: &'a Called,
    pub made_us: Option<Micros>,
    pub refused_us: Option<Micros>,
    /// When the call that was refused came: nobody knew of the refusal before.
    pub refused_from_us: Option<Micros>,
    pub confirmed_us: Option<Micros>,
    /// The confirm, if it names items: it may take a part of them, and the rest goes back.
    pub confirmed: Option<&'a Called>,
    pub cancelled_us: Option<Micros>,
    /// When it last said that the order is refused or cancelled: it is called again if nobody took its word down.
    pub ended_last_us: Option<Micros>,
    /// A later call that says something else.
    pub other: Option<&'a Called>,
}

/// What an answer to an order says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    Yes(&'a str),
    No(&'a str),
    /// Nothing that can be relied on: no answer, 429 or 5xx.
    Nothing,
}

/// What `told`, an answer to [`Kind::Order`], says.
pub fn said<'a>(told: &Told<'a>) -> Said<'a> {
    match told.outcome {
        Outcome::Admitted { gid } | Outcome::Created { gid } | Outcome::Done { gid } => Said::Yes(gid),
        Outcome::Refused { .. } if told.status == 429 || told.status >= 500 => Said::Nothing,
        Outcome::Refused { reason } => Said::No(reason),
        Outcome::Unknown { .. } => Said::Nothing,
    }
}

impl Service<'_> {
    /// The order exists there now.
    pub fn stands(&self) -> bool {
        self.made_us.is_some() && self.cancelled_us.is_none()
    }

    /// The order service ended it: its units are to come back.
    pub fn ended_us(&self) -> Option<Micros> {
        let ended = self.cancelled_us.is_some() || self.refused_us.is_some() && self.made_us.is_none();
        self.ended_last_us.filter(|_| ended)
    }
}

impl<'a> Order<'a> {
    pub fn stands(&self) -> bool {
        self.service.as_ref().is_some_and(Service::stands)
    }

    /// The first moment at which somebody else than the shop knew of it.
    pub fn known_us(&self) -> Micros {
        let at_service = self.service.as_ref().map(|service| service.call.at_us);
        let told = self.told.map(|(at, ..)| at);
        at_service.into_iter().chain(told).min().unwrap_or_default()
    }

    /// Its buyer, as told; else as the order service was told.
    pub fn buyer(&self) -> Option<u32> {
        self.told.map(|(_, buyer, _)| buyer).or_else(|| buyer_number(&self.service.as_ref()?.call.buyer))
    }

    pub fn buyer_text(&self) -> String {
        match (self.told, &self.service) {
            (Some((_, buyer, _)), _) => buyer_name(buyer),
            (None, Some(service)) => service.call.buyer.clone(),
            (None, None) => "?".into(),
        }
    }

    /// What the order service has of it, or what the buyer was told.
    pub fn items<'b>(&'b self, ledger: &'b Ledger) -> &'b [Item] {
        match (&self.service, self.told) {
            (Some(service), _) => &service.confirmed.unwrap_or(service.call).items,
            (None, Some((_, _, basket))) => {
                ledger.plan.baskets.get(basket as usize).map_or(&[], |basket| &basket.items)
            }
            (None, None) => &[],
        }
    }
}

impl<'a> Facts<'a> {
    pub fn gather(ledger: &'a Ledger, after: &'a Aftermath, tolerance: Tolerance) -> Self {
        let mut facts = Self {
            ledger,
            after,
            tolerance,
            answers: 0,
            requests: Vec::new(),
            orders: HashMap::new(),
            of_buyer: HashMap::new(),
            places: Vec::new(),
        };
        facts.gather_requests();
        facts.gather_told();
        facts.gather_called();
        facts.gather_buyers();
        facts
    }

    fn gather_requests(&mut self) {
        let mut rows = Vec::new();
        for (place, told) in self.ledger.places() {
            self.answers += 1;
            if told.kind == Kind::Order {
                rows.push((told.sale, told.key, told.sent_us, place));
            }
        }
        rows.sort_unstable();
        for (at, &(sale, key, sent_us, place)) in rows.iter().enumerate() {
            self.places.push(place);
            match self.requests.last_mut() {
                Some(last) if key != 0 && (last.sale, last.key) == (sale, key) => last.to = at + 1,
                _ => self.requests.push(Request { sale, key, first_sent_us: sent_us, from: at, to: at + 1 }),
            }
        }
    }

    /// Orders as buyers know them.
    fn gather_told(&mut self) {
        let ledger = self.ledger;
        for at in 0..self.requests.len() {
            let request = self.requests[at];
            for place in &self.places[request.from..request.to] {
                let told = ledger.at(*place);
                let Said::Yes(gid) = said(&told) else { continue };
                let order = self.orders.entry(gid).or_default();
                if order.told_to.last() != Some(&at) {
                    order.told_to.push(at);
                }
                order.sale.get_or_insert(told.sale);
                if order.told.is_none_or(|(first, ..)| told.answered_us < first) {
                    order.told = Some((told.answered_us, told.buyer, told.basket));
                }
                if matches!(told.outcome, Outcome::Created { .. }) {
                    earliest(&mut order.told_created_us, told.answered_us);
                }
            }
        }
        for told in ledger.told().filter(|told| told.kind != Kind::Order) {
            let Some(gid) = told.gid().or(told.about) else { continue };
            let order = self.orders.entry(gid).or_default();
            order.sale.get_or_insert(told.sale);
            let at_us = told.answered_us;
            match (told.kind, told.outcome) {
                (Kind::Confirm, Outcome::Done { .. }) => earliest(&mut order.confirm_done_us, at_us),
                (Kind::Cancel, Outcome::Done { .. }) => earliest(&mut order.cancel_done_us, at_us),
                (Kind::Confirm | Kind::Cancel, _) if told.status == 0 || told.status >= 500 => order.end_unknown = true,
                (Kind::Poll, Outcome::Created { .. }) => earliest(&mut order.told_created_us, at_us),
                (Kind::Poll, Outcome::Refused { reason: "order_refused" }) => {
                    earliest(&mut order.told_failed_us, at_us);
                }
                _ => {}
            }
        }
    }

    /// Orders as the order service knows them.
    fn gather_called(&mut self) {
        let mut calls: Vec<&Called> = self.ledger.called.iter().collect();
        calls.sort_by_key(|call| call.at_us);
        let sales: HashMap<&str, u16> = self.ledger.plan.sales.iter().map(|sale| &*sale.name).zip(0..).collect();
        for call in calls {
            let order = self.orders.entry(&call.gid).or_default();
            if order.sale.is_none() {
                order.sale = sales.get(&*call.sale).copied();
            }
            let service = order.service.get_or_insert(Service {
                call,
                made_us: None,
                refused_us: None,
                refused_from_us: None,
                confirmed_us: None,
                confirmed: None,
                cancelled_us: None,
                ended_last_us: None,
                other: None,
            });
            let (first, same_op) = (service.call, service.call.op == call.op);
            if same_op && (&first.buyer, &first.items, &first.sale) != (&call.buyer, &call.items, &call.sale) {
                service.other.get_or_insert(call);
            }
            let made = matches!(call.answer, ServiceAnswer::Made | ServiceAnswer::Again | ServiceAnswer::Lost);
            let ended = call.op == "cancel" && made || call.answer == ServiceAnswer::Refused;
            if ended {
                service.ended_last_us = service.ended_last_us.max(Some(call.answered_us));
            }
            match &*call.op {
                "confirm" if made => {
                    earliest(&mut service.confirmed_us, call.answered_us);
                    if !call.items.is_empty() {
                        service.confirmed.get_or_insert(call);
                    }
                }
                "cancel" if made => earliest(&mut service.cancelled_us, call.answered_us),
                "action" | "try" if made => earliest(&mut service.made_us, call.answered_us),
                "action" | "try" if call.answer == ServiceAnswer::Refused => {
                    earliest(&mut service.refused_us, call.answered_us);
                    earliest(&mut service.refused_from_us, call.at_us);
                }
                _ => {}
            }
        }
    }

    /// The requests of those buyers that have an order which nobody was told of.
    fn gather_buyers(&mut self) {
        let untold = self.orders.values().filter(|order| order.told.is_none());
        let wanted: HashSet<(u16, u32)> = untold.filter_map(|order| Some((order.sale?, order.buyer()?))).collect();
        for (at, request) in self.requests.iter().enumerate() {
            let buyer = (request.sale, self.ledger.at(self.places[request.from]).buyer);
            if wanted.contains(&buyer) {
                self.of_buyer.entry(buyer).or_default().push(at);
            }
        }
    }

    /// The answers to one request, in the order of sending.
    pub fn answers_to(&self, request: &Request) -> impl Iterator<Item = Told<'a>> + Clone {
        let ledger = self.ledger;
        self.places[request.from..request.to].iter().map(move |place| ledger.at(*place))
    }

    pub fn sale(&self, sale: u16) -> Option<&'a SalePlan> {
        self.ledger.plan.sales.get(usize::from(sale))
    }

    pub fn basket(&self, basket: BasketId) -> &'a [Item] {
        self.ledger.plan.baskets.get(basket as usize).map_or(&[], |basket| &basket.items)
    }

    /// The shop's word on an order, where it was asked.
    pub fn shop_says(&self, gid: &str) -> Option<End> {
        self.after.orders.get(gid).map(|told| told.end)
    }

    /// When the order may have been admitted at the earliest: its buyer must have asked for it.
    pub fn since_us(&self, order: &Order<'_>) -> Micros {
        let mut asked: Vec<usize> = order.told_to.clone();
        if asked.is_empty()
            && let (Some(sale), Some(buyer)) = (order.sale, order.buyer())
        {
            asked.clone_from(self.of_buyer.get(&(sale, buyer)).unwrap_or(&Vec::new()));
        }
        asked.iter().map(|&at| self.requests[at].first_sent_us).min().unwrap_or_default()
    }

    /// When the units of the order are certainly on sale again; `None` if they may be gone for good.
    pub fn back_us(&self, order: &Order<'_>) -> Option<Micros> {
        let ended = order.service.as_ref().and_then(Service::ended_us)?;
        Some(ended + self.tolerance.returns_us)
    }
}

fn earliest(slot: &mut Option<Micros>, at_us: Micros) {
    *slot = Some(slot.map_or(at_us, |known| known.min(at_us)));
}
