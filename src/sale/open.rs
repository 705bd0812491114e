//! A sale with everything that works for it on this node.

use super::admission::Admission;
use super::delivery::Delivery;
use super::gather::Gather;
use super::{Part, Refusal, Sale};
use crate::domain::order::Order;
use crate::store::keys::{self, Keys};
use arc_swap::ArcSwap;
use std::sync::{Arc, Mutex};

pub struct Open {
    pub sale: Arc<Sale>,
    pub delivery: Delivery,
    /// By number; at least as many as the settings in `sale` have partitions.
    pub(super) parts: ArcSwap<Vec<Arc<OpenPart>>>,
    /// Held while `parts` grows.
    pub(super) growing: Mutex<()>,
    pub(super) gather: Gather,
    pub turns: Arc<super::turns::Turns>,
}

/// A partition and its batcher.
pub struct OpenPart {
    pub part: Arc<Part>,
    pub admission: Admission,
}

impl Open {
    pub(super) fn place(&self, number: u16) -> Option<Arc<OpenPart>> {
        self.parts.load().get(usize::from(number)).cloned()
    }

    /// The partition of that number, if the sale has it.
    pub fn part(&self, number: u16) -> Option<Arc<Part>> {
        self.parts.load().get(usize::from(number)).map(|open| open.part.clone())
    }

    pub fn parts(&self) -> Vec<Arc<Part>> {
        self.parts.load().iter().map(|open| open.part.clone()).collect()
    }

    /// The partition that holds what the sale has only once: settings, changes of stock, refusals.
    pub fn head(&self) -> Keys {
        self.parts.load()[0].part.keys.clone()
    }

    /// The refusal of this order, if this node knows it without asking.
    pub async fn known_refusal(&self, order: &Order) -> Option<Refusal> {
        let stored = self.sale.stored.load_full();
        let number = match stored.spread.partitions {
            1 => 0,
            // Of a buyer from before the sale grew nobody knows here which partition to ask.
            _ if !stored.spread.homes.is_empty() => return None,
            partitions => keys::home(order.buyer.as_str(), partitions),
        };
        self.place(number)?.admission.known_refusal(order).await
    }
}
