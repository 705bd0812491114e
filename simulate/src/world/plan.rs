//! What a seed means: who is there, what is sold, and what goes wrong when. Everything is drawn before anything runs, so
//! that the same seed is the same world whatever happens in it.

use fastrand::Rng;
use rushline::domain::sale::Durability;
use std::time::Duration;

/// How long things go wrong, at most.
pub const TROUBLED: Duration = Duration::from_secs(12);

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub sale: SalePlan,
    pub requests: Vec<Request>,
    pub faults: Vec<(Duration, Fault)>,
    pub redis: RedisPlan,
    pub shop: ShopPlan,
    pub network: NetworkPlan,
    pub lease: Duration,
}

#[derive(Debug, Clone)]
pub struct SalePlan {
    pub items: Vec<(&'static str, u64)>,
    pub partitions: u16,
    pub limit: Option<u32>,
    pub durability: Durability,
    pub reserve: Option<Duration>,
    pub bulk: bool,
    /// When an operator changes the stock: SKU, units.
    pub restocks: Vec<(Duration, &'static str, i64)>,
    /// When the sale gets another partition while it sells.
    pub grows: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct RedisPlan {
    pub version: &'static str,
    pub always: bool,
    pub replicas: usize,
    pub rewrite_after_load: bool,
}

/// One buyer's wish, with however many tries it takes.
#[derive(Debug, Clone)]
pub struct Request {
    pub at: Duration,
    pub buyer: String,
    pub key: Option<String>,
    pub items: Vec<(&'static str, u32)>,
    pub patience: Duration,
    pub tries: u32,
    /// A second try is sent before the first has its answer.
    pub hasty: bool,
    pub then: Then,
}

/// What the buyer of a reservation does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Pays(Duration),
    GivesUp(Duration),
    Forgets,
}

/// How the order service behaves, in hundredths of its calls or orders.
#[derive(Debug, Clone)]
pub struct ShopPlan {
    pub refuses: u32,
    pub ongoing: u32,
    pub breaks: u32,
    pub answer_lost: u32,
    pub slow: u32,
    pub repeated: u32,
}

#[derive(Debug, Clone)]
pub struct NetworkPlan {
    /// In ten thousandths of the commands.
    pub redis_line_breaks: u32,
    pub slow: u32,
    /// In hundredths of the buyers' requests.
    pub request_lost: u32,
    pub answer_lost: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A node dies, and another comes up in its place.
    Kill {
        node: usize,
        back_after: Duration,
    },
    /// A node stands still: SIGSTOP.
    Pause {
        node: usize,
        lasts: Duration,
    },
    /// Nothing passes between a node and Redis.
    Cut {
        node: usize,
        lasts: Duration,
    },
    /// Redis dies and comes back; of what was not on disk so much is there, in hundredths.
    Crash {
        kept: u64,
        cut: bool,
        back_after: Duration,
    },
    /// A replica goes on in place of the server.
    Promote {
        replica: usize,
        back_after: Duration,
    },
    /// A replica falls behind.
    Lag {
        replica: usize,
        lasts: Duration,
    },
    ForgetScripts,
    MemoryFull {
        lasts: Duration,
    },
    DiskFull {
        lasts: Duration,
    },
    /// The clock of Redis jumps ahead.
    ClockAhead(Duration),
    ShopDown {
        lasts: Duration,
    },
    RecordsDown {
        lasts: Duration,
    },
}

fn ms(rng: &mut Rng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

fn chance(rng: &mut Rng, hundredths: u32) -> bool {
    rng.u32(0..100) < hundredths
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5157);
        let nodes = rng.usize(1..=3);
        let redis = redis_plan(rng);
        let sale = sale_plan(rng, &redis);
        let requests = requests(rng, &sale);
        // Some worlds have nothing wrong with them, so that a mistake there is not put down to a fault.
        let quiet = chance(rng, 8);
        let faults = if quiet { Vec::new() } else { faults(rng, nodes, &redis) };
        let often = |rng: &mut Rng, most: u32| if quiet { 0 } else { rng.u32(0..=most) };
        let shop = ShopPlan {
            refuses: if chance(rng, 60) { rng.u32(0..=40) } else { 0 },
            ongoing: often(rng, 20),
            breaks: often(rng, 20),
            answer_lost: often(rng, 20),
            slow: often(rng, 20),
            repeated: often(rng, 15),
        };
        let network = NetworkPlan {
            redis_line_breaks: if chance(rng, 50) { often(rng, 60) } else { 0 },
            slow: often(rng, 6),
            request_lost: often(rng, 10),
            answer_lost: often(rng, 15),
        };
        let lease = ms(rng, 900..=2_000);
        Self { seed, nodes, sale, requests, faults, redis, shop, network, lease }
    }
}

impl Plan {
    /// Does the clock of Redis jump? Then what is measured by it says nothing about that moment.
    pub fn sets_clock(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::ClockAhead(_)))
    }
}

fn redis_plan(rng: &mut Rng) -> RedisPlan {
    let always = chance(rng, 60);
    RedisPlan {
        version: if always && chance(rng, 50) { "7.0.15" } else { "8.2.3" },
        always,
        replicas: if chance(rng, 25) { rng.usize(1..=2) } else { 0 },
        rewrite_after_load: true,
    }
}

fn sale_plan(rng: &mut Rng, redis: &RedisPlan) -> SalePlan {
    let skus = &["a", "b"][..rng.usize(1..=2)];
    let items: Vec<_> = skus.iter().map(|sku| (*sku, rng.u64(1..=6))).collect();
    let partitions = if chance(rng, 35) { 2 } else { 1 };
    let durability = match redis.replicas {
        0 => Durability::Fsync,
        n => Durability::Replica(n as u8),
    };
    let restocks = (0..if chance(rng, 40) { rng.usize(1..=3) } else { 0 })
        .map(|_| (ms(rng, 500..=9_000), skus[rng.usize(0..skus.len())], rng.i64(-2..=3)))
        .filter(|(_, _, units)| *units != 0)
        .collect();
    SalePlan {
        partitions,
        limit: chance(rng, 60).then(|| rng.u32(1..=3)),
        durability,
        reserve: chance(rng, 35).then(|| ms(rng, 400..=3_000)),
        bulk: chance(rng, 30),
        restocks,
        grows: (partitions == 1 && chance(rng, 30)).then(|| ms(rng, 500..=6_000)),
        items,
    }
}

fn requests(rng: &mut Rng, sale: &SalePlan) -> Vec<Request> {
    let buyers = rng.usize(2..=7);
    let rush = chance(rng, 50); // all at once, or over the whole time
    (0..rng.usize(4..=24))
        .map(|number| {
            let key = chance(rng, 75).then(|| format!("k{number}"));
            let at = match sale.grows {
                // Around the moment at which buyers get another home.
                Some(grows) if chance(rng, 50) => (grows + ms(rng, 0..=600)).saturating_sub(Duration::from_millis(100)),
                _ if rush => ms(rng, 0..=400),
                _ => ms(rng, 0..=9_000),
            };
            let picked = rng.usize(0..sale.items.len());
            let both = sale.items.len() > 1 && chance(rng, 20);
            let items = sale.items.iter().enumerate().filter(|(at, _)| both || *at == picked);
            let items = items.map(|(_, (sku, _))| (*sku, if chance(rng, 80) { 1 } else { rng.u32(1..=3) })).collect();
            Request {
                at,
                // A wish without a key has a buyer of its own, so that what comes of it can be told from others'.
                buyer: key.as_ref().map_or_else(|| format!("lone{number}"), |_| format!("u{}", rng.usize(0..buyers))),
                tries: if key.is_some() { rng.u32(1..=6) } else { 1 },
                hasty: key.is_some() && chance(rng, 25),
                key,
                items,
                patience: ms(rng, 40..=3_000),
                then: match rng.u32(0..10) {
                    0..=5 => Then::Pays(ms(rng, 0..=3_500)),
                    6 | 7 => Then::GivesUp(ms(rng, 0..=3_500)),
                    _ => Then::Forgets,
                },
            }
        })
        .collect()
}

fn faults(rng: &mut Rng, nodes: usize, redis: &RedisPlan) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for _ in 0..rng.usize(0..=7) {
        let at = ms(rng, 50..=TROUBLED.as_millis() as u64 - 2_000);
        let node = rng.usize(0..nodes);
        let fault = match rng.u32(0..22) {
            0..=4 => Fault::Kill { node, back_after: ms(rng, 50..=4_000) },
            5..=7 => Fault::Pause { node, lasts: ms(rng, 100..=6_000) },
            8 | 9 => Fault::Cut { node, lasts: ms(rng, 100..=5_000) },
            // With replicas what counts is what they have.
            10..=13 if redis.replicas == 0 => {
                let cut = chance(rng, 50);
                faults_after_cut(rng, &mut faults, at, cut);
                Fault::Crash { kept: rng.u64(0..=100), cut, back_after: ms(rng, 5..=800) }
            }
            10..=12 => Fault::Promote { replica: rng.usize(0..redis.replicas), back_after: ms(rng, 5..=800) },
            13 => Fault::Lag { replica: rng.usize(0..redis.replicas), lasts: ms(rng, 100..=3_000) },
            14 => Fault::ForgetScripts,
            15 | 16 => Fault::MemoryFull { lasts: ms(rng, 100..=4_000) },
            17 => Fault::DiskFull { lasts: ms(rng, 100..=2_000) },
            18 => Fault::ClockAhead(ms(rng, 10..=5_000)),
            19 => Fault::ShopDown { lasts: ms(rng, 100..=5_000) },
            _ => Fault::RecordsDown { lasts: ms(rng, 100..=6_000) },
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// A file that was cut shows what it does only when it is loaded once more.
fn faults_after_cut(rng: &mut Rng, faults: &mut Vec<(Duration, Fault)>, at: Duration, cut: bool) {
    if cut && chance(rng, 70) {
        let again = at + ms(rng, 900..=2_500);
        faults.push((again, Fault::Crash { kept: 100, cut: false, back_after: ms(rng, 5..=300) }));
    }
}
