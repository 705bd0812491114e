//! The parts of a run: the order service, what `--start` starts, and the proxies between them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::process::Command;
use tokio::time::sleep_until;

use super::fault::{Fault, Link, What, Who};
use super::proxy::Proxy;
use super::{Settings, address_of};
use crate::http::Api;
use crate::processes::{Process, free_port, sibling};
use crate::redis_server::{self, Setup};
use crate::resp::Place;
use crate::scenario::{OrderService, Scenario};

/// See the module. Must be stopped: dropping it kills the processes, and what those started stays.
#[derive(Default)]
pub struct Parts {
    orders: Option<Process>,
    redis: Option<Started>,
    rushline: Option<Started>,
    /// The order service itself.
    pub service: Option<Api>,
    /// The shop, past the proxy: for questions that no buyer asks.
    pub shop: Option<Api>,
    /// As buyers and coordinators reach them.
    pub for_buyers: Option<SocketAddr>,
    pub for_orders: Option<SocketAddr>,
    pub stock: Option<Place>,
    buyers_link: Option<Proxy>,
    orders_link: Option<Proxy>,
    redis_link: Option<Proxy>,
    socket_directory: Option<PathBuf>,
    /// What went wrong and was not mended yet.
    broken: Vec<What>,
    sale: String,
    dtm: bool,
}

/// A process that can be started again as it was.
struct Started {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    log: PathBuf,
    process: Option<Process>,
}

impl Started {
    fn start(&mut self) -> anyhow::Result<()> {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.process = Some(Process::start(self.name, &self.program, &args, &self.envs, &self.log)?);
        Ok(())
    }
}

impl Parts {
    pub async fn start(&mut self, settings: &Settings, scenario: &Scenario, faults: &[Fault]) -> anyhow::Result<()> {
        self.check(settings, faults)?;
        let has = |link| faults.iter().any(|fault| fault.link() == Some(link));
        self.dtm = settings.target().starts_with("dtm");
        let stamp = jiff::Timestamp::now().as_millisecond();
        self.sale = settings.sale.clone().unwrap_or_else(|| format!("{}-{stamp}", scenario.name));
        self.stock = settings.stock.as_deref().map(Place::parse).transpose().context("--stock")?;

        let orders = match &settings.order_service {
            Some(url) => address_of(url).context("--order-service")?,
            None => self.start_orders(settings, &scenario.order_service).await?,
        };
        self.service = Some(Api { address: orders });
        self.for_orders = Some(through(&mut self.orders_link, orders, has(Link::Orders)).await?);

        let shop = if settings.start {
            self.start_shop(settings, has(Link::Redis)).await?
        } else {
            let url = settings.target().strip_prefix("dtm:").unwrap_or(settings.target());
            match url.strip_prefix("template:") {
                Some(file) => crate::target::Template::address_in(Path::new(file))?,
                None => address_of(url).context("--target")?,
            }
        };
        self.shop = (!settings.target().starts_with("template:")).then_some(Api { address: shop });
        self.for_buyers = Some(through(&mut self.buyers_link, shop, has(Link::Buyers)).await?);
        Ok(())
    }

    fn check(&self, settings: &Settings, faults: &[Fault]) -> anyhow::Result<()> {
        let ours = settings.order_service.is_none();
        for fault in faults {
            let who = match fault.what {
                What::Stop(who) | What::Continue(who) | What::Kill(who) => Some(who),
                _ => None,
            };
            let needs_start =
                matches!(who, Some(Who::Rushline | Who::Redis)) || matches!(fault.link(), Some(Link::Redis));
            ensure!(
                !needs_start || settings.start,
                "a fault is about what this run starts\nhint: add --start, or name it as pid:N"
            );
            ensure!(
                who != Some(Who::Orders) || ours,
                "the order service was not started by this run\nhint: name it as pid:N"
            );
            let forgets = fault.what == What::Kill(Who::Orders);
            ensure!(
                !forgets,
                "a killed order service forgets its list, and nothing could be judged\nhint: stop it instead"
            );
        }
        Ok(())
    }

    async fn start_orders(&mut self, settings: &Settings, habits: &OrderService) -> anyhow::Result<SocketAddr> {
        let permille = |percent: f64| ((percent * 10.0).round() as u64).to_string();
        let args = [
            "sink-service".to_owned(),
            "--record".into(),
            format!("--refuse-permille={}", permille(habits.refuse_percent)),
            format!("--lose-permille={}", permille(habits.lose_replies_percent)),
            format!("--delay-ms={}", habits.delay_ms),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let log = settings.directory.join("order-service.log");
        let (process, address) =
            Process::start_listening("order service", &sibling("rushline-loadtest")?, &args, &log).await?;
        self.orders = Some(process);
        Ok(address)
    }

    /// Redis and rushline, both new.
    async fn start_shop(&mut self, settings: &Settings, redis_proxied: bool) -> anyhow::Result<SocketAddr> {
        let rushline = settings.rushline.clone().map_or_else(|| sibling("rushline"), Ok)?;
        // A socket's path has 107 bytes at most, and a checkout may lie deep.
        let sockets = std::env::temp_dir().join(format!("rushline-loadtest-{}", std::process::id()));
        crate::processes::fresh_directory(&sockets)?;
        let socket = sockets.join("redis.sock");
        self.socket_directory = Some(sockets);
        let port = free_port()?;
        let setup = Setup {
            program: &settings.redis_server,
            directory: &settings.directory,
            socket: &socket,
            port,
            appendfsync: "always",
        };
        let args = setup.args()?;
        let process = setup.start(&args)?;
        self.redis = Some(Started {
            name: "redis-server",
            program: settings.redis_server.clone(),
            args,
            envs: Vec::new(),
            log: settings.directory.join("redis-again.log"),
            process: Some(process),
        });
        redis_server::connect(&socket).await?;
        let tcp = SocketAddr::from(([127, 0, 0, 1], port));
        let url = if redis_proxied {
            format!("redis://{}", through(&mut self.redis_link, tcp, true).await?)
        } else {
            format!("redis+unix://{}", socket.display())
        };
        self.stock.get_or_insert(Place::Socket(socket));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let envs = vec![
            ("RUSHLINE_HTTP_LISTEN".to_owned(), address.to_string()),
            ("RUSHLINE_GRPC_LISTEN".into(), "127.0.0.1:0".into()),
            ("RUSHLINE_DATA_DIR".into(), settings.directory.join("data").display().to_string()),
            ("RUSHLINE_REDIS_URL".into(), url),
        ];
        let started = self.rushline.insert(Started {
            name: "rushline serve",
            program: rushline,
            args: vec!["serve".into()],
            envs,
            log: settings.directory.join("server.log"),
            process: None,
        });
        started.start()?;
        let process = started.process.as_mut().context("started above")?;
        process.ready(Api { address }, "/readyz").await?;
        started.log = settings.directory.join("server-again.log");
        Ok(address)
    }

    /// The shop, if it has an audit.
    pub fn audited(&self) -> Option<Api> {
        self.shop.filter(|_| !self.dtm)
    }

    pub fn sale(&self) -> &str {
        &self.sale
    }

    pub fn speaks_dtm(&self) -> bool {
        self.dtm
    }

    /// Lets everything go wrong that is to, each at its time.
    pub async fn break_things(&mut self, faults: &[Fault], began: Instant) -> anyhow::Result<()> {
        /// What is to be done, or undone.
        struct Deed<'a>(Duration, &'a Fault, bool);
        let mut deeds: Vec<Deed> = Vec::new();
        for fault in faults {
            deeds.push(Deed(fault.at, fault, true));
            deeds.extend(fault.lasts.map(|lasts| Deed(fault.at + lasts, fault, false)));
        }
        deeds.sort_by_key(|Deed(at, ..)| *at);
        for Deed(at, fault, begins) in deeds {
            sleep_until((began + at).into()).await;
            self.perform(&fault.what, fault.lasts.is_some(), begins).await.with_context(|| format!("{fault:?}"))?;
            if begins {
                self.broken.push(fault.what.clone());
            } else if let Some(at) = self.broken.iter().position(|what| *what == fault.what) {
                self.broken.remove(at);
            }
        }
        Ok(())
    }

    /// The buyers are gone: what is still broken is mended, since nothing can be judged of a shop that hangs or is dead.
    pub async fn mend(&mut self) -> anyhow::Result<()> {
        for what in std::mem::take(&mut self.broken) {
            // A stopped process goes on by two signals as well as by one.
            self.perform(&what, false, false).await.with_context(|| format!("mending {what:?}"))?;
        }
        if let (Some(rushline), Some(shop)) = (&mut self.rushline, self.shop)
            && let Some(process) = &mut rushline.process
        {
            process.ready(shop, "/readyz").await?;
        }
        Ok(())
    }

    async fn perform(&mut self, what: &What, lasts: bool, begins: bool) -> anyhow::Result<()> {
        match (what, begins) {
            (What::Stop(who), true) => send_signal("-STOP", self.pid(*who)?).await,
            (What::Stop(who), false) | (What::Continue(who), _) => send_signal("-CONT", self.pid(*who)?).await,
            (What::Kill(Who::Pid(pid)), true) => send_signal("-KILL", *pid).await,
            (What::Kill(who), true) => self.started(*who)?.process.take().context("is not running")?.kill().await,
            (What::Kill(Who::Pid(_)), false) => Ok(()),
            (What::Kill(who), false) => {
                let started = self.started(*who)?;
                if started.process.is_none() { started.start() } else { Ok(()) }
            }
            (What::Delay(link, by), true) => self.link(*link).map(|proxy| proxy.delay(*by)),
            (What::Delay(link, _), false) => self.link(*link).map(|proxy| proxy.delay(Duration::ZERO)),
            (What::Cut(link), true) => self.link(*link).map(|proxy| proxy.cut(lasts)),
            (What::Cut(link), false) => self.link(*link).map(Proxy::up),
        }
    }

    fn started(&mut self, who: Who) -> anyhow::Result<&mut Started> {
        let started = match who {
            Who::Rushline => &mut self.rushline,
            Who::Redis => &mut self.redis,
            Who::Orders | Who::Pid(_) => bail!("was not started as a part that can start again"),
        };
        started.as_mut().context("was not started by this run")
    }

    fn pid(&mut self, who: Who) -> anyhow::Result<u32> {
        match who {
            Who::Pid(pid) => Ok(pid),
            Who::Orders => self.orders.as_ref().and_then(Process::pid).context("does not run"),
            _ => self.started(who)?.process.as_ref().and_then(Process::pid).context("does not run"),
        }
    }

    fn link(&self, link: Link) -> anyhow::Result<&Proxy> {
        let proxy = match link {
            Link::Buyers => &self.buyers_link,
            Link::Orders => &self.orders_link,
            Link::Redis => &self.redis_link,
        };
        proxy.as_ref().context("no proxy stands there")
    }

    /// In the order in which they need each other.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let started = [self.rushline.take(), self.redis.take()].into_iter().flatten();
        let processes: Vec<Process> = started.filter_map(|started| started.process).chain(self.orders.take()).collect();
        let mut stopped = Ok(());
        for process in processes {
            // A process that a fault stopped hears nothing until it goes on.
            if let Some(pid) = process.pid() {
                stopped = stopped.and(send_signal("-CONT", pid).await);
            }
            stopped = stopped.and(process.stop().await);
        }
        if let Some(directory) = &self.socket_directory {
            // The system clears its temporary directory, should this fail.
            let _ = std::fs::remove_dir_all(directory);
        }
        stopped
    }
}

/// Where to reach `to`: through a new proxy if there is to be one.
async fn through(place: &mut Option<Proxy>, to: SocketAddr, proxied: bool) -> anyhow::Result<SocketAddr> {
    if !proxied {
        return Ok(to);
    }
    Ok(place.insert(Proxy::start(to).await?).address)
}

/// By command, since sending a signal is `unsafe` in Rust and the standard library knows only SIGKILL.
async fn send_signal(signal: &str, pid: u32) -> anyhow::Result<()> {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().await.context("cannot run `kill`")?;
    ensure!(status.success(), "kill {signal} {pid} ended with {status}");
    Ok(())
}
