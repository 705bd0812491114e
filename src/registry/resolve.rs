//! Which instances of a service there are now, and which to call next.
//!
//! The first question about a name lists its instances and begins to watch them; from then on answers come from memory,
//! and an instance that registers, or whose key goes, is noticed within a round trip. Who calls is given all addresses in the
//! order to try them: in turn, so that the load spreads, with those that refused a connection a moment ago at the end.
//! While an etcd is away, what was known last stays in use: its instances may well be there.

use super::etcd::{Change, Client, Error as EtcdError, Keys, Tls};
use super::target::{Account, Name, Target, is_address};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Names that are watched at a time. They come from clients, so there must be a bound; the one not asked about for
/// longest makes room.
const WATCHED_MAX: usize = 1_024;
/// After so long without a question a name is forgotten when another comes.
const UNUSED_MAX: Duration = Duration::from_secs(600);
/// Calls wait this long for a first instance, within their own time limit: a service that is just starting is found.
const INSTANCE_WAIT_MAX: Duration = Duration::from_secs(3);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long an instance that refused a connection is tried only after the others.
const DOWN_FOR: Duration = Duration::from_secs(2);
const DOWN_MAX: usize = 4_096;

/// No address to call: nothing was sent, and a retry may find one.
#[derive(Debug, thiserror::Error)]
#[error("no instance of {target}{why}")]
pub struct Error {
    target: Target,
    why: String,
}

/// For the one etcd that is configured: its account and TLS never go to another, whatever a branch's address says.
pub struct Trusted {
    pub hosts: Vec<String>,
    pub account: Option<Account>,
    pub tls: Option<Tls>,
}

/// Finds instances. One for the whole server.
#[derive(Default)]
pub struct Resolver {
    trusted: Option<Trusted>,
    clients: Mutex<HashMap<Vec<String>, Weak<Client>>>,
    watched: Mutex<HashMap<Name, Arc<Watched>>>,
    down: Down,
    /// For the turns of fixed addresses.
    turn: AtomicUsize,
}

impl Resolver {
    pub fn new(trusted: Option<Trusted>) -> Arc<Self> {
        Arc::new(Self { trusted, ..Self::default() })
    }

    /// The addresses to try, one after the other; never none.
    pub async fn instances(&self, target: &Target, within: Duration) -> Result<Vec<String>, Error> {
        match target {
            Target::Direct(addresses) => Ok(self.in_order(addresses, self.turn.fetch_add(1, Ordering::Relaxed))),
            Target::Etcd(name) => {
                let watched = self.watched(name);
                let known = watched.some(within.min(INSTANCE_WAIT_MAX)).await;
                let known = known.map_err(|why| Error { target: target.clone(), why })?;
                Ok(self.in_order(&known, watched.turn.fetch_add(1, Ordering::Relaxed)))
            }
        }
    }

    /// A connection to this address was refused, or it answers no longer.
    pub fn unreachable(&self, address: &str) {
        self.down.add(address);
    }

    /// It answers.
    pub fn reachable(&self, address: &str) {
        self.down.remove(address);
    }

    fn in_order(&self, addresses: &[String], turn: usize) -> Vec<String> {
        let first = turn % addresses.len().max(1);
        let turned = addresses[first..].iter().chain(&addresses[..first]).cloned();
        if addresses.len() < 2 {
            return turned.collect();
        }
        let (down, mut up): (Vec<_>, Vec<_>) = turned.partition(|address| self.down.has(address));
        up.extend(down);
        up
    }

    fn watched(&self, name: &Name) -> Arc<Watched> {
        let mut watched = locked(&self.watched);
        if let Some(there) = watched.get(name) {
            there.used();
            return there.clone();
        }
        watched.retain(|_, other| other.unused() < UNUSED_MAX);
        if watched.len() >= WATCHED_MAX {
            let longest = watched.iter().max_by_key(|(_, other)| other.unused()).map(|(name, _)| name.clone());
            longest.and_then(|name| watched.remove(&name));
        }
        let new = Arc::new(Watched::begin(self.client(&name.hosts), name.clone()));
        watched.insert(name.clone(), new.clone());
        new
    }

    /// Names in one etcd share a connection.
    fn client(&self, hosts: &[String]) -> Arc<Client> {
        let mut clients = locked(&self.clients);
        if let Some(there) = clients.get(hosts).and_then(Weak::upgrade) {
            return there;
        }
        clients.retain(|_, client| client.strong_count() > 0);
        let trusted = self.trusted.as_ref().filter(|trusted| hosts.iter().all(|host| trusted.hosts.contains(host)));
        let new = Arc::new(match trusted {
            Some(trusted) => Client::new(hosts.to_vec(), trusted.account.clone(), trusted.tls.clone()),
            None => Client::foreign(hosts.to_vec()),
        });
        clients.insert(hosts.to_vec(), Arc::downgrade(&new));
        new
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a name.
#[derive(Debug, Clone)]
enum Known {
    /// Nothing yet, and why, for whoever waits in vain.
    Nothing(String),
    Instances(Arc<[String]>),
}

/// A name that is being watched, as long as this lives.
struct Watched {
    known: watch::Receiver<Known>,
    turn: AtomicUsize,
    begun: Instant,
    /// Milliseconds after `begun`.
    used_ms: AtomicU64,
    task: AbortHandle,
}

impl Watched {
    fn begin(client: Arc<Client>, name: Name) -> Self {
        let (telling, known) = watch::channel(Known::Nothing(": etcd has not answered yet".into()));
        let task = tokio::spawn(follow(client, name, telling)).abort_handle();
        Self { known, turn: AtomicUsize::default(), begun: Instant::now(), used_ms: AtomicU64::default(), task }
    }

    fn used(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(now, Ordering::Relaxed);
    }

    fn unused(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.used_ms.load(Ordering::Relaxed)))
    }

    /// The instances, as soon as there are any.
    async fn some(&self, within: Duration) -> Result<Arc<[String]>, String> {
        let mut known = self.known.clone();
        let some = known.wait_for(|known| matches!(known, Known::Instances(list) if !list.is_empty()));
        if let Ok(Ok(known)) = tokio::time::timeout(within, some).await
            && let Known::Instances(list) = &*known
        {
            return Ok(list.clone());
        }
        match &*self.known.borrow() {
            Known::Nothing(why) => Err(why.clone()),
            Known::Instances(_) => Err(" is registered there".into()),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Arc<Client>, name: Name, telling: watch::Sender<Known>) {
    let mut failing = false;
    loop {
        let error = match follow_once(&client, &name, &telling, &mut failing).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if !std::mem::replace(&mut failing, true) {
            tracing::warn!(name = name.name, %error, "etcd is away: instances stay as they were known last; trying again");
        }
        telling.send_if_modified(|known| match known {
            Known::Nothing(why) => {
                *why = format!(" is known: {error}");
                false // nobody waits for this
            }
            Known::Instances(_) => false,
        });
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

async fn follow_once(
    client: &Client,
    name: &Name,
    telling: &watch::Sender<Known>,
    failing: &mut bool,
) -> Result<std::convert::Infallible, EtcdError> {
    let session = client.session().await?;
    let following = async {
        let keys = Keys::Below(format!("{}/", name.name));
        let (pairs, revision) = session.list(&keys).await?;
        let mut there: BTreeMap<Bytes, String> = BTreeMap::new();
        for (key, value) in pairs {
            note(&mut there, key, &value);
        }
        tell(name, &there, telling);
        *failing = false;
        let mut watch = session.watch(&keys, revision + 1).await?;
        loop {
            for change in watch.changes().await? {
                match change {
                    Change::Put(key, value) => note(&mut there, key, &value),
                    Change::Gone(key) => drop(there.remove(&key)),
                }
            }
            tell(name, &there, telling);
        }
    };
    let result = following.await;
    client.leave(&session).await;
    result
}

fn note(there: &mut BTreeMap<Bytes, String>, key: Bytes, value: &[u8]) {
    match std::str::from_utf8(value).ok().map(str::trim).filter(|text| is_address(text)) {
        Some(address) => drop(there.insert(key, address.to_owned())),
        None => {
            tracing::warn!(key = %String::from_utf8_lossy(&key), "in etcd, but its value is no HOST:PORT; left out");
            there.remove(&key);
        }
    }
}

fn tell(name: &Name, there: &BTreeMap<Bytes, String>, telling: &watch::Sender<Known>) {
    let instances: BTreeSet<&String> = there.values().collect();
    let instances: Arc<[String]> = instances.into_iter().cloned().collect();
    tracing::debug!(name = name.name, instances = instances.join(","), "instances");
    telling.send_replace(Known::Instances(instances));
}

/// Addresses that refused a connection a moment ago.
#[derive(Default)]
struct Down {
    since: Mutex<HashMap<String, Instant>>,
    /// How many there are: mostly none, and then nobody needs the lock.
    count: AtomicUsize,
}

impl Down {
    fn add(&self, address: &str) {
        let mut since = locked(&self.since);
        if since.len() >= DOWN_MAX {
            since.retain(|_, since| since.elapsed() < DOWN_FOR);
        }
        if since.len() < DOWN_MAX {
            since.insert(address.to_owned(), Instant::now());
        }
        self.count.store(since.len(), Ordering::Relaxed);
    }

    fn remove(&self, address: &str) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut since = locked(&self.since);
            since.remove(address);
            self.count.store(since.len(), Ordering::Relaxed);
        }
    }

    fn has(&self, address: &str) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && locked(&self.since).get(address).is_some_and(|since| since.elapsed() < DOWN_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(addresses: &[&str]) -> Target {
        Target::Direct(addresses.iter().map(ToString::to_string).collect())
    }

    #[tokio::test]
    async fn fixed_addresses_take_turns_and_a_dead_one_comes_last() {
        let resolver = Resolver::new(None);
        let target = direct(&["a:1", "b:2", "c:3"]);
        let order = async || resolver.instances(&target, Duration::ZERO).await.unwrap().join(" ");
        assert_eq!(order().await, "a:1 b:2 c:3");
        assert_eq!(order().await, "b:2 c:3 a:1");
        resolver.unreachable("c:3");
        assert_eq!(order().await, "a:1 b:2 c:3");
        assert_eq!(order().await, "a:1 b:2 c:3");
        resolver.reachable("c:3");
        assert_eq!(order().await, "b:2 c:3 a:1");
    }

    #[tokio::test]
    async fn an_account_goes_only_to_the_etcd_it_is_for() {
        let account = Account { user: "u".into(), password: "p".into() };
        let trusted = Trusted { hosts: vec!["a:1".into(), "b:2".into()], account: Some(account), tls: None };
        let resolver = Resolver::new(Some(trusted));
        let has_account = |hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            resolver.client(&hosts).has_account()
        };
        assert!(has_account(&["a:1"]) && has_account(&["b:2", "a:1"]));
        assert!(!has_account(&["c:3"]) && !has_account(&["a:1", "c:3"]));
    }
}
