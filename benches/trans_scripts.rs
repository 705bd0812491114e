//! What does a global transaction cost Redis? Each script of its life at batch sizes 1 to 256, on a real private
//! redis-server: created, claimed, saved, saved finished, drained; and branches registered.
//!
//! Criterion times whole lives. The table before it is what Redis itself counts for each script (`INFO commandstats`, all
//! commands inside included), per transaction: that is steady on a noisy machine.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use futures_util::future::join_all;
use rushline::config::Config;
use rushline::domain::trans::{
    Branch, Global, GlobalStatus, Limits, Op, Remembered, TransGid, TransRequest, apply_move,
};
use rushline::serve;
use rushline::store::embedded::Embedded;
use rushline::store::keys::trans_partition;
use rushline::store::redis::Redis;
use rushline::store::trans::{Appended, Created, Due, Saved};
use rushline::store::trans_drain::Queue;
use rushline::store::trans_writer::Writer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

const BATCHES: [usize; 5] = [1, 4, 16, 64, 256];
/// Of each batch size, counted for the table.
const COUNTED: usize = 1_024;
const NOW_MS: u64 = 1_795_000_000_000;
/// All are of one partition, so that a batch is one script call (two, above 128).
const PARTITION: u16 = 0;

struct Store {
    redis: Arc<Redis>,
    writer: Writer,
    next: AtomicU64,
}

impl Store {
    async fn open(url: &str) -> Self {
        let mut config = Config::default();
        config.redis.prefix = "bench:".into();
        let redis =
            Redis::connect(serve::redis_settings(&config, url.into())).await.expect("a private Redis was just started");
        Self { writer: Writer::start(redis.clone()), redis, next: AtomicU64::new(0) }
    }

    /// New two-step sagas, or TCCs that branches can be registered with.
    fn begun(&self, trans_type: &str, count: usize) -> Vec<Global> {
        let step = serde_json::json!({ "action": "http://localhost:8081/api/TransOut",
            "compensate": "http://localhost:8081/api/TransOutUndo" });
        let steps = if trans_type == "saga" { 2 } else { 0 };
        let gids = std::iter::repeat_with(|| format!("bench-{:010}", self.next.fetch_add(1, Ordering::Relaxed)));
        let one = |gid: String| {
            let body = serde_json::json!({ "gid": gid, "trans_type": trans_type, "steps": vec![&step; steps],
                "payloads": vec!["{\"amount\":30}"; steps] });
            let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
            let mut global = request.into_global(NOW_MS, &Limits::default(), &|_| None).unwrap();
            if steps > 0 {
                apply_move(&mut global, GlobalStatus::Submitted, None, NOW_MS);
            }
            global
        };
        gids.filter(|gid| trans_partition(gid) == PARTITION).take(count).map(one).collect()
    }

    async fn create(&self, globals: &[Global], due: Due) {
        let created = join_all(globals.iter().map(|global| self.writer.create(global, due))).await;
        assert!(created.into_iter().all(|created| created.unwrap() == Created::New));
    }

    async fn save(&self, globals: &[Global], was: GlobalStatus, version: u64, due: Due) {
        let saved = join_all(globals.iter().map(|global| self.writer.save(global, was, version, false, due))).await;
        assert!(saved.into_iter().all(|saved| saved.unwrap() == Saved::Saved(version + 1)));
    }

    async fn drain(&self, globals: &[Global], version: u64) {
        let Some(queue) = globals.first().and_then(Queue::of) else { return };
        let over: Vec<(Remembered, u64)> = globals.iter().map(|one| (Remembered::of(one).unwrap(), version)).collect();
        self.redis.forget_trans(queue, &over, Duration::from_secs(60)).await.unwrap();
    }

    /// As the driver of one node does it, when all goes well.
    async fn live(&self, mut globals: Vec<Global>) {
        self.create(&globals, Due::Leased(NOW_MS)).await;
        end(&mut globals);
        self.save(&globals, GlobalStatus::Submitted, 1, Due::Never).await;
        self.drain(&globals, 2).await;
    }

    async fn script_micros(&self) -> f64 {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut self.redis.lane()).await.unwrap();
        let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
        line.split(',').find_map(|pair| pair.strip_prefix("usec=")).map_or(0.0, |micros| micros.parse().unwrap())
    }
}

fn end(globals: &mut [Global]) {
    globals.iter_mut().for_each(|global| apply_move(global, GlobalStatus::Succeed, None, NOW_MS + 7));
}

const PHASES: [&str; 6] =
    ["trans_create", "trans_claim", "trans_save", "… at the end", "trans_drained", "trans_append"];

/// µs of Redis for each phase, per transaction.
async fn count(store: &Store, batch: usize) -> [f64; PHASES.len()] {
    let mut micros = [0.0; PHASES.len()];
    for _ in 0..COUNTED / batch {
        let mut globals = store.begun("saga", batch);
        let tccs = store.begun("tcc", batch);
        store.create(&tccs, Due::At(NOW_MS * 2)).await;
        let mut last = store.script_micros().await;
        let mut phase = 0;
        let mut note = async || {
            let now = store.script_micros().await;
            micros[phase] += now - last;
            (last, phase) = (now, phase + 1);
        };
        store.create(&globals, Due::At(NOW_MS)).await;
        note().await;
        let claimed = store.redis.claim_trans(PARTITION, NOW_MS, NOW_MS + 1, batch).await.unwrap();
        assert_eq!(claimed.len(), batch);
        note().await;
        store.save(&globals, GlobalStatus::Submitted, 1, Due::Leased(NOW_MS + 1)).await;
        note().await;
        end(&mut globals);
        store.save(&globals, GlobalStatus::Submitted, 2, Due::Never).await;
        note().await;
        store.drain(&globals, 3).await;
        note().await;
        let branch = [Branch::new("01", Op::Confirm, "http://localhost:8081/api/confirm", "{}".into())];
        let append = |one: &TransGid| {
            let (gid, branch, redis) = (one.clone(), branch.clone(), store.redis.clone());
            async move { redis.append_branches(&gid, &branch).await.unwrap() }
        };
        let appended = join_all(tccs.iter().map(|one| append(&one.gid))).await;
        assert!(appended.iter().all(|appended| *appended == Appended::Done));
        note().await;
        clear(store).await;
    }
    micros.map(|micros| micros / (COUNTED / batch * batch) as f64)
}

async fn clear(store: &Store) {
    let _: String = redis::cmd("FLUSHALL").query_async(&mut store.redis.lane()).await.unwrap();
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let private =
        runtime.block_on(Embedded::start("redis-server", directory.path())).expect("redis-server is installed");
    let store = runtime.block_on(async { Store::open(&private.url).await });
    println!("µs of Redis per transaction\n{:>5}  {}", "batch", PHASES.map(|phase| format!("{phase:>15}")).concat());
    for batch in BATCHES {
        let micros = runtime.block_on(count(&store, batch));
        println!("{batch:>5}  {}", micros.map(|micros| format!("{micros:>15.2}")).concat());
    }
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("create_end_and_drain");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_with_input(BenchmarkId::from_parameter(batch), &batch, |bencher, &batch| {
            bencher.to_async(&runtime).iter_batched(
                || store.begun("saga", batch),
                |globals| store.live(globals),
                BatchSize::SmallInput,
            );
        });
        runtime.block_on(clear(&store));
    }
    group.finish();
    criterion.final_summary();
    runtime.block_on(private.stop(Duration::from_secs(10)));
}
