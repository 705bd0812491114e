//! A node: the product, with everything around it given by the world. An instance is one life of it; who dies is replaced
//! by another instance under another name, as a process is.

use super::line::Line;
use super::records::Drawer;
use super::shared::Shared;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use rushline::outside::{Gate, Inside, Outside};
use rushline::reconciler::Records;
use rushline::sale::Limits;
use rushline::sale::node::Node;
use rushline::serve;
use rushline::store::connection::Given;
use rushline::store::place::Tls;
use rushline::store::redis::{Redis, Settings};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest wait of a node for one answer of Redis.
pub const PATIENCE: Duration = Duration::from_millis(800);
/// The ledger of a closed sale is kept longer than a world lasts.
const KEEP: Duration = Duration::from_secs(3_600);

pub struct Instance {
    shared: Arc<Shared>,
    pub name: String,
    gate: Mutex<Gates>,
    cut: AtomicBool,
    node: Mutex<Option<Arc<Node>>>,
    me: std::sync::Weak<Instance>,
    pub died: Notify,
}

struct Gates {
    gate: Gate,
    waiting: Vec<Waker>,
}

impl Instance {
    /// Starts a node; it serves when it has found Redis.
    pub fn start(shared: &Arc<Shared>, name: String) -> Arc<Self> {
        let instance = Arc::new_cyclic(|me| Self {
            shared: shared.clone(),
            name,
            gate: Mutex::new(Gates { gate: Gate::Open, waiting: Vec::new() }),
            cut: AtomicBool::new(false),
            node: Mutex::new(None),
            me: me.clone(),
            died: Notify::new(),
        });
        shared.note(|| format!("start    {}", instance.name));
        instance.run(boot(instance.clone()));
        instance
    }

    /// Runs a task as one of the node's own.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(me) = self.me.upgrade() {
            drop(tokio::spawn(Inside::new(me, task)));
        }
    }

    /// The node, once it is up.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.lock().expect("nobody panics while holding this lock").clone()
    }

    fn gates(&self) -> MutexGuard<'_, Gates> {
        self.gate.lock().expect("nobody panics while holding this lock")
    }

    pub fn is_gone(&self) -> bool {
        self.gates().gate == Gate::Gone
    }

    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
        self.shared.weather.notify_waiters();
    }

    pub fn pause(&self) {
        let mut gates = self.gates();
        if gates.gate == Gate::Open {
            gates.gate = Gate::Shut;
        }
    }

    /// Goes on, with what was ready first in front.
    pub fn resume(&self) {
        let mut gates = self.gates();
        if gates.gate == Gate::Shut {
            gates.gate = Gate::Open;
            gates.waiting.drain(..).for_each(Waker::wake);
        }
    }

    pub fn kill(&self) {
        let mut gates = self.gates();
        gates.gate = Gate::Gone;
        gates.waiting.drain(..).for_each(Waker::wake);
        drop(gates);
        self.node.lock().expect("nobody panics while holding this lock").take();
        self.died.notify_waiters();
    }
}

async fn boot(instance: Arc<Instance>) {
    let plan = &instance.shared.plan;
    let settings = Settings {
        url: "redis://simulated:6379".into(),
        tls: Tls::default(),
        prefix: "rl:".into(),
        connections: 2,
        timeout: PATIENCE,
        rewrite_after_load: plan.redis.rewrite_after_load && !rushline::zoo::planted("file not rewritten after a load"),
    };
    let redis = loop {
        match Redis::connect(settings.clone()).await {
            Ok(redis) => break redis,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let limits = Limits {
        batch_max: 16,
        queue_max: 64,
        backlog_max: 1_000,
        lease: plan.lease,
        retry_base: Duration::from_millis(40),
        retry_max: Duration::from_millis(1_000),
        ongoing: Duration::from_millis(100),
        attention_after: u32::MAX,
        patience: PATIENCE,
    };
    let node = Node::new(redis, &instance.name, limits);
    let records = Records::given(Arc::new(Drawer::new(instance.shared.clone())));
    serve::start_chores(&node, &records, false, KEEP, 64, 1_000);
    instance.shared.note(|| format!("ready    {}", instance.name));
    *instance.node.lock().expect("nobody panics while holding this lock") = Some(node);
}

impl Outside for Instance {
    fn gate(&self, context: &mut Context<'_>) -> Gate {
        let mut gates = self.gates();
        if gates.gate == Gate::Shut && !gates.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            gates.waiting.push(context.waker().clone());
        }
        gates.gate
    }

    fn redis(&self, patience: Duration) -> Arc<dyn Given> {
        let me = self.me.upgrade().expect("its tasks hold it");
        Arc::new(Line::new(self.shared.clone(), me, patience))
    }

    fn post(&self, _url: &str, query: &str, body: Vec<u8>) -> BoxFuture<'static, Result<(StatusCode, Bytes), String>> {
        super::shop::call(self.shared.clone(), self.name.clone(), query.to_owned(), body)
    }
}
