//! One node: the sales it has open, and the chores that belong to no single request.

use super::admission::Admission;
use super::delivery::Delivery;
use super::expiry::Expirer;
use super::finished::Finished;
use super::gather::Gather;
use super::keeper::{Keeper, Message};
use super::open::{Open, OpenPart};
use super::refusals::Refusals;
use super::telling::Teller;
use super::waiters::Waiters;
use super::watch::Watch;
use super::{Limits, Part, Refused, Sale};
use crate::domain::ids::SaleName;
use crate::domain::sale::NewSale;
use crate::outside;
use crate::store;
use crate::store::keys::Keys;
use crate::store::lane::Lane;
use crate::store::redis::Redis;
use crate::store::sales::{Created, Stored};
use crate::store::spread::Grown;
use crate::zoo;
use arc_swap::ArcSwap;
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, OnceCell, mpsc, oneshot};

pub struct Node {
    pub redis: Arc<Redis>,
    /// Unique per process: it is the consumer that holds leases.
    pub name: Arc<str>,
    pub limits: Limits,
    /// Entries whose orders have all ended, for the reconciler.
    pub finished: Arc<Finished>,
    /// Who was refused last here, for whoever asks why.
    pub refusals: Refusals,
    sales: ArcSwap<HashMap<String, Arc<Open>>>,
    opening: Mutex<()>,
    outdated: Arc<Notify>,
    /// The connection that waits for durability outside admission.
    pub(super) fence: OnceCell<Lane>,
    /// One at a time on it: what another sends could find it broken and make it anew, and a new one has nothing to wait for.
    pub(super) confirming: tokio::sync::Mutex<()>,
    me: Weak<Node>,
}

impl Node {
    pub fn new(redis: Arc<Redis>, name: &str, limits: Limits) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            redis,
            name: name.into(),
            limits,
            finished: Arc::default(),
            refusals: Refusals::default(),
            sales: ArcSwap::default(),
            opening: Mutex::default(),
            outdated: Arc::default(),
            fence: OnceCell::new(),
            confirming: tokio::sync::Mutex::default(),
            me: me.clone(),
        })
    }

    /// A sale that is open here already; the hot path's look-up.
    pub fn opened(&self, name: &str) -> Option<Arc<Open>> {
        self.sales.load().get(name).cloned()
    }

    pub fn all_opened(&self) -> Vec<Arc<Open>> {
        self.sales.load().values().cloned().collect()
    }

    /// The sale, opened if Redis knows it.
    pub async fn open(&self, name: &SaleName) -> Result<Option<Arc<Open>>, store::Error> {
        if let Some(open) = self.opened(name.as_str()) {
            return Ok(Some(open));
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(open) = self.opened(name.as_str()) {
            return Ok(Some(open));
        }
        let head = Keys::new(self.redis.prefix(), name, 0);
        let Some(stored) = self.redis.load_sale(&head).await? else { return Ok(None) };
        let sale = Arc::new(Sale {
            name: name.clone(),
            stored: ArcSwap::from_pointee(stored.clone()),
            by_moves: stored.settings.terms.reserve.is_some() || !stored.settings.terms.limits.is_empty(),
            reserve_ms: stored.settings.terms.reserve.map(|reserve| reserve.for_ms),
            refused: Refused::default(),
            backlog: AtomicU64::new(0),
            limits: self.limits.clone(),
            outdated: self.outdated.clone(),
        });
        let delivery = Delivery::new(sale.clone());
        let parts = ArcSwap::from_pointee(vec![Arc::new(self.open_part(&sale, 0, &delivery))]);
        let (gather, wants) = Gather::new();
        let open =
            Arc::new(Open { sale, delivery, parts, growing: Default::default(), gather, turns: Default::default() });
        self.follow_spread(&open, &stored).await?;
        if let Some(node) = self.me.upgrade() {
            outside::spawn(wants.run(node, open.clone()));
        }
        let mut sales = HashMap::clone(&self.sales.load());
        sales.insert(name.as_str().to_owned(), open.clone());
        self.sales.store(Arc::new(sales));
        Ok(Some(open))
    }

    /// Creates a sale and opens it. Answers when it is as durable as its orders will be.
    pub async fn create(
        &self,
        new: &NewSale,
        body: &str,
        partitions: u16,
    ) -> Result<(Created, Option<Arc<Open>>), store::Error> {
        let created = self.redis.create_sale(new, body).await?;
        if created == Created::Exists {
            return Ok((created, None));
        }
        let Some(open) = self.open(&new.sale).await? else { return Err(store::Error::NoSale) };
        if partitions > 1 {
            self.grow(&open, partitions, true).await?;
        }
        for part in open.parts().iter().filter(|_| !zoo::planted("a sale is told of before it is durable")) {
            self.confirm_durable(part).await?;
        }
        Ok((created, Some(open)))
    }

    fn open_part(&self, sale: &Arc<Sale>, number: u16, delivery: &Delivery) -> OpenPart {
        let (keeper, inbox) = mpsc::unbounded_channel();
        let keys = Keys::new(self.redis.prefix(), &sale.name, number);
        self.redis.seen(&keys); // looked after from now on
        let part = Arc::new(Part {
            sale: sale.clone(),
            number,
            watch: Watch::new(self.redis.clone(), keys.clone()),
            keys,
            waiters: Waiters::default(),
            hooked: Notify::new(),
            ends: Arc::default(),
            keeper,
        });
        let (redis, node) = (self.redis.clone(), self.name.clone());
        let (with, finished) = (delivery.clone(), self.finished.clone());
        outside::spawn(Keeper::keep(part.clone(), redis.clone(), node.clone(), with, finished, inbox));
        if sale.reserve_ms.is_some() {
            let expirer = Expirer { sale: part.clone(), redis: redis.clone(), node: node.clone() };
            outside::chore(expirer, Expirer::run);
            if let Some(node) = self.me.upgrade() {
                outside::chore((node, part.clone()), |(node, part)| Teller::new(node, part).run());
            }
        }
        let admission = Admission::start(part.clone(), redis, node, delivery.clone());
        OpenPart { part, admission }
    }

    /// Reads a sale's settings anew, now.
    pub async fn refresh(&self, open: &Open) -> Result<(), store::Error> {
        if let Some(stored) = self.redis.load_sale(&open.head()).await? {
            self.follow_spread(open, &stored).await?;
            let endpoint_changed = stored.settings.endpoint != open.sale.stored.load().settings.endpoint;
            open.sale.stored.store(Arc::new(stored));
            if endpoint_changed {
                open.delivery.settings_changed();
            }
        }
        Ok(())
    }

    /// Brings all partitions up to what partition 0 has, and has each of them open here, before anybody is sent there.
    async fn follow_spread(&self, open: &Open, stored: &Stored) -> Result<(), store::Error> {
        if stored.spread.partitions == 1 {
            return Ok(());
        }
        let all: Vec<Keys> = (0..stored.spread.partitions)
            .map(|number| Keys::new(self.redis.prefix(), &open.sale.name, number))
            .collect();
        let versions = self.redis.sale_versions(&all.iter().collect::<Vec<_>>()).await?;
        let behind: Vec<&Keys> = all
            .iter()
            .zip(versions)
            .skip(1)
            .filter(|(_, version)| *version < stored.version)
            .map(|(keys, _)| keys)
            .collect();
        if !behind.is_empty() {
            let fields = self.redis.sale_fields(&all[0]).await?;
            try_join_all(behind.into_iter().map(|keys| self.redis.spread_sale(keys, &fields))).await?;
        }
        let _one_at_a_time = open.growing.lock().expect("nobody panics while holding this lock");
        let mut parts = Vec::clone(&open.parts.load());
        if parts.len() < all.len() {
            for number in parts.len()..all.len() {
                parts.push(Arc::new(self.open_part(&open.sale, number as u16, &open.delivery)));
            }
            open.parts.store(Arc::new(parts));
        }
        Ok(())
    }

    /// Spreads a sale over more partitions. `fresh`: it has just been created, and every partition gets its share.
    pub async fn grow(&self, open: &Open, partitions: u16, fresh: bool) -> Result<Grown, store::Error> {
        let grown = self.redis.grow_sale(&open.head(), partitions).await?;
        self.refresh(open).await?;
        if grown == Grown::Done && fresh {
            self.share_out(open).await?;
        }
        Ok(grown)
    }

    /// Follows changes that other nodes made: at once when a script told of one, else every `every`.
    pub async fn follow_settings(self: Arc<Self>, every: Duration) {
        loop {
            let _ = tokio::time::timeout(every, self.outdated.notified()).await;
            let sales = self.all_opened();
            let keys: Vec<Keys> = sales.iter().map(|open| open.head()).collect();
            let Ok(versions) = self.redis.sale_versions(&keys.iter().collect::<Vec<_>>()).await else { continue };
            for (open, version) in sales.iter().zip(versions) {
                if version != open.sale.stored.load().version
                    && let Err(error) = self.refresh(open).await
                {
                    tracing::debug!(sale = %open.sale.name, %error, "settings could not be read");
                }
            }
        }
    }

    /// Adds this node's refusals to the sums in Redis.
    pub async fn tell_refused(&self) {
        for open in self.all_opened() {
            self.tell_refused_of(&open).await;
        }
    }

    /// Adds this node's refusals in one sale to the sale's sums in Redis.
    pub async fn tell_refused_of(&self, open: &Open) {
        let counts = open.sale.refused.take();
        if counts.is_empty() {
            return;
        }
        for (reason, count) in &counts {
            metrics::counter!("rushline_orders_refused_total", "reason" => *reason).increment(*count);
        }
        if let Err(error) = self.redis.add_refused(&open.head(), &counts).await {
            tracing::debug!(sale = %open.sale.name, %error, "refusals are not counted in Redis");
        }
    }

    pub async fn tell_refused_every(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.tell_refused().await;
        }
    }

    /// Orders that this node has in flight, over all sales.
    pub fn in_flight(&self) -> u64 {
        self.all_opened().iter().map(|open| open.sale.backlog.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }

    /// Writes what has ended and lets others take over the rest, in a bounded time.
    pub async fn hand_over(&self, within: Duration) {
        let handing = async {
            for open in self.all_opened() {
                for part in &open.parts() {
                    let (done, told) = oneshot::channel();
                    part.tell_keeper(Message::HandOver(done));
                    let _ = told.await;
                }
            }
            self.tell_refused().await;
        };
        if tokio::time::timeout(within, handing).await.is_err() {
            tracing::warn!("handing over takes too long; other nodes take over when the leases run out");
        }
    }
}
