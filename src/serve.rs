//! `rushline serve`: from a configuration to a running server, and down again in good order.

use crate::access::bind::{self, Openness};
use crate::access::hosts::Hosts;
use crate::access::{self, Guard};
use crate::alerts;
use crate::config::{AttentionThen, Config, Repair, RewriteAfterLoad};
use crate::demo;
use crate::dial::reach;
use crate::domain::trans;
use crate::driver::{self, Driver};
use crate::fault::Fault;
use crate::outside;
use crate::reconciler::repair;
use crate::reconciler::transactions::Drain;
use crate::reconciler::{Reconciler, Records};
use crate::registry::Registry;
use crate::sale::Limits;
use crate::sale::node::Node;
use crate::server::tls::Tls as PortTls;
use crate::server::{self, App, Doors, Port};
use crate::service_manager::{self, News};
use crate::store::embedded::{self, Embedded};
use crate::store::meet;
use crate::store::place::Tls;
use crate::store::redis::{Redis, Settings};
use crate::telemetry;
use crate::webhook;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// How often changes that other nodes made are looked for.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How often Redis is asked how it is.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How often this node says that it is there.
const SAY_EVERY: Duration = Duration::from_secs(2);
/// How often refusals are added up in Redis.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long a server that was registered goes on as before once its entry is gone: whoever found it there a moment ago
/// may still be on the way, and those who watch need a moment to hear of it.
const FOUND_LINGER: Duration = Duration::from_millis(300);

/// Runs the server until SIGTERM or Ctrl-C. `dev`: with a demo sale and the demo's order service.
pub fn run(config: Config, dev: bool) -> anyhow::Result<()> {
    telemetry::install_log(config.log.level, config.log.format);
    let metrics = telemetry::install_metrics()?;
    telemetry::install_panics();
    server::describe_metrics();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(config.runtime.threads).enable_all().build()?;
    runtime.block_on(serve(config, dev, metrics))
}

async fn serve(
    config: Config,
    dev: bool,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    reach::restrict(config.calls.allow.clone());
    let openness = bind::check(&config)?;
    let guard = Arc::new(Guard::new(&config).await?);
    let tls = PortTls::open(&config.tls)?.map(Arc::new);
    // The port first: a second server in the same directory must fail before it touches anything.
    let listener = server::listen(config.http.listen).map_err(|error| {
        Fault::failed(format!("cannot listen on {}", config.http.listen))
            .because(error)
            .hint("another rushline may run there; choose another address with --http-listen HOST:PORT")
    })?;
    let address = listener.local_addr()?;
    let grpc_listener = listen_for_grpc(&config)?;
    let grpc_address = grpc_listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let registry = Registry::open(&config.registry, grpc_address.unwrap_or(address))?;
    let embedded = match &config.redis.url {
        Some(_) => None,
        None => Some(start_embedded(&config).await?),
    };
    let redis = connect(&config, embedded.as_ref()).await?;
    redis.share_memory(config.redis.memory_share as u8); // at most 100
    let node = Node::new(redis.clone(), &config.node.name, limits(&config));
    let records = Records::new(config.records_url().expose());
    let driver = Driver::new(redis.clone(), records.clone(), transactions(&config), registry.resolver.clone());
    let kind = describe_records(&config, &records).await;
    let (leave, leaving) = watch::channel(false);
    if let Some(endpoint) = &config.telemetry.otlp_endpoint {
        telemetry::export::start(telemetry::export::Settings {
            endpoint: endpoint.expose().to_owned(),
            protocol: config.telemetry.otlp_protocol,
            headers: config.telemetry.otlp_headers.clone(),
            share: config.telemetry.sample_share,
            queue_max: config.telemetry.queue_max,
            instance: config.node.name.clone(),
        })?;
    }
    alerts::start(
        redis.clone(),
        alerts::Settings {
            url: config.alerts.url.as_ref().map(|url| url.expose().to_owned()),
            secret: config.alerts.secret.as_ref().map(|secret| secret.expose().to_owned()),
            repeat_after: config.alerts.repeat_after,
            node: config.node.name.clone(),
        },
    );
    let down = config.alerts.records_down;
    outside::chore((node.clone(), records.clone()), move |(node, records)| alerts::watch(node, records, down));
    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(App {
        node: node.clone(),
        driver: driver.clone(),
        records: records.clone(),
        settings: door(&config),
        guard: guard.clone(),
        hosts: Hosts::new(openness, tls.is_some(), config.security.hosts.as_deref()),
        metrics: metrics.clone(),
        event_streams: Arc::new(Semaphore::new(config.http.event_streams_max)),
        live: server::Live::default(),
        leaving,
        stopping: stopping.clone(),
    });

    start_chores(
        &node,
        &records,
        config.redis.repair == Repair::Automatic,
        config.ledger.keep,
        config.records.batch_max,
        config.records.backlog_alarm,
    );
    outside::chore(driver.clone(), Driver::claim_due);
    outside::chore(driver.clone(), Driver::keep_leases);
    outside::chore(driver.clone(), Driver::hurry_after_outages);
    tokio::spawn(webhook::run(
        node.clone(),
        webhook::Settings {
            retry_base: config.webhook.retry_base,
            retry_max: config.webhook.retry_max,
            give_up_after: config.webhook.give_up_after,
        },
    ));
    let drain = Drain {
        driver: driver.clone(),
        records: records.clone(),
        node: node.name.clone(),
        batch_max: config.records.batch_max,
        remember: config.trans.remember_finished,
        backlog_alarm: config.records.backlog_alarm,
    };
    outside::chore(drain, Drain::run);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            metrics.run_upkeep(); // without it histograms only grow
        }
    });

    let saying = tokio::spawn(server::say_node(app.clone(), address.to_string(), SAY_EVERY));
    start_following(&guard, tls.as_ref(), &stopping);
    let doors = Doors::new(app);
    tokio::spawn(doors.clone().follow_health(stopping.clone()));
    let grace = config.shutdown.grace;
    let serving_grpc = grpc_listener.map(|listener| {
        tokio::spawn(server::run(listener, Port::Grpc, doors.clone(), tls.clone(), stopping.clone(), grace))
    });
    let serving = tokio::spawn(server::run(listener, Port::Http, doors, tls, stopping, grace));
    let entry = registry.register();
    let access = describe_access(&config, &guard, openness);
    banner(&config, (address, grpc_address), &access, embedded.as_ref(), &redis, &kind, started.elapsed());
    service_manager::tell(News::Ready);
    if !dev {
        println!("Next: rushline sale create NAME --item SKU=UNITS --order-endpoint http://…");
    }
    let shop = if dev { Some(demo::dev::open_shop(&config, address, &guard).await?) } else { None };

    signalled().await?;
    tracing::info!(
        in_flight = node.in_flight(),
        pause_ms = config.shutdown.pause.as_millis() as u64,
        "stopping: no new requests after the pause; what is in flight is finished or handed over"
    );
    service_manager::tell(News::Stopping);
    leave.send_replace(true);
    let ended = async {
        // Whoever finds this server in etcd, or is sent here by a balancer that has not noticed yet, must be served.
        let unlisted = async {
            if let Some(entry) = entry {
                entry.remove().await;
                tokio::time::sleep(FOUND_LINGER).await;
            }
        };
        tokio::join!(unlisted, tokio::time::sleep(config.shutdown.pause));
        stop.send_replace(true);
        let deadline = tokio::time::Instant::now() + grace;
        serving.await?;
        if let Some(serving) = serving_grpc {
            serving.await?;
        }
        anyhow::Ok(deadline)
    };
    let deadline = tokio::select! {
        deadline = ended => deadline?,
        () = second_signal() => {
            tracing::warn!("stopping at once; other nodes go on with what is left");
            stop.send_replace(true);
            tokio::time::Instant::now()
        }
    };
    while node.in_flight() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await; // orders end in many places; there is no one event
    }
    driver.stop(deadline).await;
    saying.abort();
    if let Err(error) = redis.forget_node(&config.node.name).await {
        tracing::debug!(%error, "this node could not say that it leaves");
    }
    node.hand_over(Duration::from_secs(2)).await;
    telemetry::export::flush(Duration::from_secs(2)).await;
    if let Some(shop) = shop {
        shop.close().await;
    }
    if let Some(embedded) = embedded {
        embedded.stop(Duration::from_secs(10)).await;
    }
    Ok(())
}

/// Reads tokens, keys and certificates again when they change.
fn start_following(guard: &Arc<Guard>, tls: Option<&Arc<PortTls>>, stopping: &watch::Receiver<bool>) {
    // A supervisor may tell every server to read its files again, also one that has none; a closed terminal ends it.
    if !std::io::stderr().is_terminal() {
        tokio::spawn(access::follow(Vec::new(), stopping.clone(), || {}));
    }
    if let Some(tls) = tls.cloned() {
        tokio::spawn(access::follow(tls.files(), stopping.clone(), move || tls.reload()));
    }
    if let Some(file) = guard.file().map(std::path::Path::to_owned) {
        let guard = guard.clone();
        let reload = move || match guard.reload() {
            Ok(()) => tracing::info!(tokens = guard.tokens(), "the tokens were read again"),
            Err(error) => tracing::error!("{error}; the tokens read before stay in use"),
        };
        tokio::spawn(access::follow(vec![file], stopping.clone(), reload));
    }
    if let Some(jwt) = guard.jwt() {
        let keys = if access::keys::is_url(jwt.place()) { Vec::new() } else { vec![jwt.place().into()] };
        let reload = {
            let guard = guard.clone();
            move || {
                let guard = guard.clone();
                tokio::spawn(async move {
                    if let Some(jwt) = guard.jwt() {
                        jwt.reload().await;
                    }
                });
            }
        };
        tokio::spawn(access::follow(keys, stopping.clone(), reload));
        let (guard, stopping) = (guard.clone(), stopping.clone());
        tokio::spawn(async move {
            if let Some(jwt) = guard.jwt() {
                jwt.fetch_again(stopping).await;
            }
        });
    }
}

/// All that a node does for its sales without being asked. A simulated node does the same.
pub fn start_chores(
    node: &Arc<Node>,
    records: &Arc<Records>,
    automatic: bool,
    keep: Duration,
    batch_max: usize,
    alarm: u64,
) {
    let both = (node.clone(), records.clone());
    outside::chore(node.redis.clone(), |redis| redis.watch(WATCH_EVERY));
    outside::chore(node.redis.clone(), |redis| redis.look_for_losses_every(meet::LOOK_EVERY));
    outside::chore(both.clone(), move |(node, records)| {
        repair::watch::Watch { node, records, automatic, compared: Default::default() }.run()
    });
    outside::chore(node.clone(), |node| node.follow_settings(FOLLOW_EVERY));
    outside::chore(node.clone(), |node| node.tell_refused_every(TELL_EVERY));
    outside::chore(node.clone(), move |node| node.sweep(keep));
    outside::chore(both, move |(node, records)| Reconciler::new(node, records, batch_max, alarm).run());
}

/// The port that dtm's clients call over gRPC. Where none is named, one that is taken is no reason not to start: gRPC
/// is answered on the HTTP port as well.
fn listen_for_grpc(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let (named, address) = (config.grpc.listen, config.grpc_listen());
    match (server::listen(address), named) {
        (Ok(listener), _) => Ok(Some(listener)),
        (Err(error), Some(_)) => Err(Fault::failed(format!("cannot listen for gRPC on {address}"))
            .because(error)
            .hint("another rushline may run there; choose another address with --grpc-listen HOST:PORT")
            .into()),
        (Err(error), None) => {
            tracing::warn!(%address, %error, "cannot listen for gRPC there; it is answered on the HTTP port only");
            Ok(None)
        }
    }
}

async fn start_embedded(config: &Config) -> anyhow::Result<Embedded> {
    let directory = config.data_dir.join("redis");
    Embedded::start(&config.redis.program, &directory).await.map_err(|error| {
        let fault = Fault::unreachable("no Redis to use: no redis.url is set, and the private one did not start");
        match error {
            embedded::Error::NoProgram { .. } => fault
                .because(error)
                .hint("sudo apt install redis-server   (or: brew install redis)")
                .hint("rushline serve --redis-url redis://HOST:6379   uses one that runs already"),
            error => fault.because(error),
        }
        .into()
    })
}

/// Connects as the configuration says; also what `doctor` uses.
pub async fn connect(config: &Config, embedded: Option<&Embedded>) -> anyhow::Result<Arc<Redis>> {
    let url = match (&config.redis.url, embedded) {
        (Some(url), _) => url.expose().to_owned(),
        (None, Some(embedded)) => embedded.url.clone(),
        (None, None) => anyhow::bail!("no Redis"),
    };
    let shown = config.redis.url.as_ref().map_or_else(|| url.clone(), ToString::to_string);
    Redis::connect(redis_settings(config, url)).await.map_err(|error| {
        Fault::unreachable(format!("cannot use Redis at {shown}"))
            .because(error)
            .hint("rushline doctor   says more")
            .into()
    })
}

/// What the configuration says about a Redis at `url`.
pub fn redis_settings(config: &Config, url: String) -> Settings {
    Settings {
        url,
        tls: Tls {
            ca_file: config.redis.ca_file.clone(),
            cert_file: config.redis.cert_file.clone(),
            key_file: config.redis.key_file.clone(),
        },
        prefix: config.redis.prefix.clone(),
        connections: config.redis.connections,
        timeout: config.redis.timeout,
        rewrite_after_load: config.redis.rewrite_after_load == RewriteAfterLoad::Auto,
    }
}

/// The bounds of a node's part in sales, as they are set.
pub fn limits(config: &Config) -> Limits {
    Limits {
        batch_max: config.admission.batch_max,
        queue_max: config.admission.queue_max,
        backlog_max: config.delivery.backlog_max as u64,
        lease: config.delivery.lease,
        retry_base: config.delivery.retry_base,
        retry_max: config.delivery.retry_max,
        ongoing: config.delivery.ongoing,
        attention_after: config.delivery.attention_after as u32,
        patience: config.redis.timeout,
    }
}

fn transactions(config: &Config) -> driver::Settings {
    let ms = |duration: Duration| duration.as_millis() as u64;
    driver::Settings {
        limits: trans::Limits {
            retry_interval_ms: ms(config.trans.retry_interval),
            interval_ms_max: ms(config.trans.retry_max),
            timeout_to_fail_ms: ms(config.trans.timeout_to_fail),
            request_timeout_ms: ms(config.trans.request_timeout),
            alert_after: config.trans.alert_after as u32,
            stop_at_attention: config.trans.attention_then == AttentionThen::Stop,
            calls_max: config.trans.calls_max,
        },
        lease: config.trans.lease,
        running_max: config.trans.running_max,
        calls_per_host_max: config.trans.calls_per_host_max,
        redirects_max: config.calls.redirects_max,
        credentials: config.passes_credentials(),
        alert_url: config.trans.alert_url.as_ref().map(|url| url.expose().to_owned()),
    }
}

fn door(config: &Config) -> server::Settings {
    server::Settings {
        body_bytes_max: config.http.body_bytes_max,
        connections_max: config.http.connections_max,
        connections_per_ip_max: config.http.connections_per_ip_max,
        header_timeout: config.http.header_timeout,
        idle_timeout: config.http.idle_timeout,
        wait_max: config.http.wait_max,
        wait_when_stopping: config.shutdown.grace / 2,
        heartbeat: config.http.heartbeat,
        tls: config.tls.cert.is_some(),
        dtm_get_changes: config.security.dtm_get_changes || bind::is_loopback(config.http.listen),
    }
}

async fn describe_records(config: &Config, records: &Records) -> String {
    let url = config.records_url();
    match tokio::time::timeout(Duration::from_secs(5), records.sink()).await {
        Ok(Ok(sink)) => format!("{} {url}", sink.kind()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the records cannot be reached; what is finished waits in Redis until they can");
            format!("{url} (not reachable yet)")
        }
        Err(_) => format!("{url} (not reachable yet)"),
    }
}

/// Who may do what, in a line.
fn describe_access(config: &Config, guard: &Guard, openness: Openness) -> String {
    let mut words = match openness {
        Openness::Tokens => format!("by token ({} known)", guard.tokens()),
        Openness::ThisMachine => String::from("open to this machine, and listening to no other"),
        Openness::Everybody => {
            tracing::warn!(
                "whoever reaches this server may do everything (security.allow_open); `rushline token new` makes tokens"
            );
            String::from("open to everybody who reaches it (security.allow_open)")
        }
    };
    if guard.jwt().is_some() {
        words.push_str(", or by JWT");
    }
    match (&config.tls.cert, config.tls.require_client) {
        (Some(_), true) => words.push_str("; TLS, with a certificate of the client"),
        (Some(_), false) => words.push_str("; TLS"),
        (None, _) => {}
    }
    words
}

fn banner(
    config: &Config,
    (address, grpc_address): (std::net::SocketAddr, Option<std::net::SocketAddr>),
    access: &str,
    embedded: Option<&Embedded>,
    redis: &Redis,
    records: &str,
    took: Duration,
) {
    let promise = redis.promise();
    let place = match (&config.redis.url, embedded) {
        (Some(url), _) => url.to_string(),
        (None, Some(embedded)) => format!("private, {}", embedded.socket.display()),
        (None, None) => String::new(),
    };
    println!("rushline {}", env!("CARGO_PKG_VERSION"));
    println!();
    let scheme = if config.tls.cert.is_some() { "https" } else { "http" };
    println!("  HTTP         {scheme}://{address}");
    println!("  gRPC         {}", grpc_address.unwrap_or(address));
    println!("  Metrics      {scheme}://{address}/metrics");
    println!("  Access       {access}");
    println!("  Redis        {} {place}", promise.version);
    println!("  Durability   {}", promise.describe());
    println!("  Records      {records}");
    println!();
    println!("Ready in {} ms. Ctrl-C finishes what is in flight; a second Ctrl-C stops at once.", took.as_millis());
}

async fn signalled() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}

async fn second_signal() {
    if signalled().await.is_err() {
        std::future::pending::<()>().await;
    }
}
