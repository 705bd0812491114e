//! The real server as a child process: [`App::start`], HTTP to it, and the ways to end it, good and bad.
//!
//! Dropping an [`App`] kills the server and the private Redis that it left behind, by their process ids. When the test
//! panics, the end of the server's log is printed first.

use super::hazard::Clock;
pub use super::http::{Http, Reply};
use super::process::send_signal;
use http::Method;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server starts in a fraction of a second; on a busy machine with a Redis to load it takes longer.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// A sale settles within a few leases; this is what a busy machine gets.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(10);
const LOG_BYTES_SHOWN: usize = 6_000;

/// How a server is started. Without anything: private Redis, SQLite, settings by default.
#[derive(Debug, Clone, Default)]
pub struct AppOptions {
    /// `(setting, value)`, such as `("delivery.lease_ms", "600")`; given as flags.
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    /// A command that becomes the server, such as `setpriv --no-new-privs`.
    launcher: Vec<String>,
    data_dir: Option<PathBuf>,
}

impl AppOptions {
    pub fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.retain(|(earlier, _)| earlier != name);
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn redis(self, url: &str) -> Self {
        self.setting("redis.url", url)
    }

    pub fn records(self, url: &str) -> Self {
        self.setting("records.url", url)
    }

    /// Another node of the same shop: on the Redis and the records of `app`, which has SQLite.
    pub fn beside(self, app: &App) -> Self {
        self.redis(&app.redis_url()).records(&format!("sqlite:{}", app.data_dir().join("orders.db").display()))
    }

    /// Short leases and short pauses between tries, so that a test sees a takeover within a second or two.
    pub fn quick(self) -> Self {
        self.setting("delivery.lease_ms", 600)
            .setting("delivery.retry_base_ms", 50)
            .setting("delivery.retry_max_ms", 300)
    }

    /// The same for global transactions.
    pub fn quick_trans(self) -> Self {
        self.setting("trans.lease_ms", 600)
            .setting("trans.retry_interval_ms", 100)
            .setting("trans.retry_max_ms", 300)
            .setting("trans.timeout_to_fail_ms", 500)
            .setting("trans.request_timeout_ms", 1_000)
    }

    /// A port that stays the same over restarts, so that buyers need not be told of a new one.
    pub fn on_port(self, port: u16) -> Self {
        self.setting("http.listen", format!("127.0.0.1:{port}")).setting("grpc.listen", "127.0.0.1:0")
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(earlier, _)| earlier != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it by way of `launcher`, whose process becomes the server's.
    pub fn launched_by(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(ToString::to_string).collect();
        self
    }

    /// With that as the time.
    pub fn by_clock(self, clock: &Clock) -> Self {
        clock.environment().iter().fold(self, |options, (name, value)| options.environment(name, value))
    }

    /// Where to die: a name out of `rushline::crash::POINTS`, or `NAME:N` for the N-th pass.
    pub fn crash_at(self, point: &str) -> Self {
        self.environment("RUSHLINE_TEST_CRASH_AT", point)
    }

    /// Where a bug is to show: as [`Self::crash_at`], and the server goes on.
    pub fn panic_at(self, point: &str) -> Self {
        self.environment("RUSHLINE_TEST_PANIC_AT", point)
    }

    pub fn without_crash(mut self) -> Self {
        self.environment.retain(|(name, _)| name != "RUSHLINE_TEST_CRASH_AT");
        self
    }

    /// A directory of the test's own, in place of a temporary one of the server's.
    pub fn data_dir(mut self, directory: &Path) -> Self {
        self.data_dir = Some(directory.to_owned());
        self
    }
}

pub struct App {
    options: AppOptions,
    directory: TempDir,
    child: Option<Child>,
    http: Http,
    /// The private Redis, if there is one: it outlives a killed server.
    private_redis: Option<u32>,
}

impl App {
    pub async fn start(options: AppOptions) -> Self {
        // A short name: a unix socket below it has about a hundred bytes.
        let directory = tempfile::Builder::new().prefix("rl-").tempdir().unwrap();
        let mut app = Self { options, directory, child: None, http: Http::new(String::new()), private_redis: None };
        app.begin().await;
        app
    }

    /// Starts it again where it was stopped or killed, on the same data directory, as `change` wants it.
    pub async fn restart(&mut self, change: impl FnOnce(AppOptions) -> AppOptions) {
        self.kill9();
        self.options = change(std::mem::take(&mut self.options));
        self.begin().await;
    }

    async fn begin(&mut self) {
        self.spawn();
        let deadline = Instant::now() + START_WAIT_MAX;
        loop {
            let banner = std::fs::read_to_string(self.banner_path()).unwrap_or_default();
            if banner.contains("Ready in") {
                let address =
                    banner.lines().find_map(|line| line.trim().strip_prefix("HTTP ")).expect("the banner names it");
                self.http = Http::new(address.trim().to_owned());
                break;
            }
            if let Some(status) = self.child.as_mut().expect("just spawned").try_wait().unwrap() {
                panic!("the server ended at its start: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server does not start\n{}", self.log());
            tokio::time::sleep(POLL_EVERY).await;
        }
        self.private_redis = private_redis_pid(self.redis_socket()).or(self.private_redis);
    }

    fn spawn(&mut self) {
        let program = std::env::var_os("RUSHLINE_TEST_PROGRAM") // to try a build of another kind, say release
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_rushline")), PathBuf::from);
        let mut command = match self.options.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("serve").arg("--data-dir").arg(self.data_dir());
        let listens = self.options.settings.iter().any(|(name, _)| name == "http.listen");
        if !listens {
            command.args(["--http-listen", "127.0.0.1:0"]);
        }
        for (name, value) in &self.options.settings {
            command.arg(format!("--{}", name.replace(['.', '_'], "-"))).arg(value);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("RUSHLINE_")) {
                command.env_remove(name); // the developer's own settings are none of the test's
            }
        }
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let banner = File::create(self.banner_path()).unwrap();
        command.current_dir(self.directory.path()).stdin(Stdio::null()).stdout(banner).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.directory.path().join("d"))
    }

    /// `HOST:PORT`, where it listens for gRPC.
    pub fn grpc(&self) -> String {
        let banner = std::fs::read_to_string(self.banner_path()).unwrap();
        let address = banner.lines().find_map(|line| line.trim().strip_prefix("gRPC ")).expect("the banner names it");
        address.trim().to_owned()
    }

    /// The private Redis, for a second server on it or for looking inside; it is there only without `redis.url`.
    pub fn redis_url(&self) -> String {
        match self.options.settings.iter().find(|(name, _)| name == "redis.url") {
            Some((_, url)) => url.clone(),
            None => format!("redis+unix://{}", self.redis_socket().display()),
        }
    }

    fn redis_socket(&self) -> PathBuf {
        self.data_dir().join("redis/redis.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    fn banner_path(&self) -> PathBuf {
        self.directory.path().join("banner")
    }

    /// The server's whole log, over all its starts.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub fn http(&self) -> Http {
        self.http.clone()
    }

    /// `http://HOST:PORT`
    pub fn base(&self) -> String {
        self.http.base().to_owned()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.http.ask(Method::GET, path, &[], None).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let reply = self.http.ask(Method::POST, path, headers, Some(body)).await;
        reply.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        let reply = self.http.ask(Method::PATCH, path, &[], Some(body)).await;
        reply.unwrap_or_else(|error| panic!("PATCH {path}: {error}"))
    }

    /// A metric without labels, as it is now; 0 if nothing has touched it.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.body;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Creates a sale that must be new.
    pub async fn create_sale(&self, body: &Value) -> Value {
        let reply = self.post("/v1/sales", &[], body).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
        reply.json
    }

    /// Places an order that must get an answer, whatever it is.
    pub async fn order(&self, sale: &str, key: &str, order: &Value) -> Reply {
        self.http.try_order(sale, key, order).await.unwrap_or_else(|error| panic!("order {key}: {error}"))
    }

    /// The audit's report, as it stands after at most `wait`.
    pub async fn audit(&self, sale: &str, wait: Duration) -> Value {
        let reply = self.get(&format!("/v1/sales/{sale}/audit?wait_ms={}", wait.as_millis())).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        reply.json
    }

    /// Waits until nothing of the sale is on its way; the audit's report then.
    pub async fn wait_until_settled(&self, sale: &str) -> Value {
        let deadline = Instant::now() + SETTLE_WAIT_MAX;
        loop {
            let report = self.audit(sale, Duration::from_millis(500)).await;
            if report["settled"] == true {
                return report;
            }
            assert!(Instant::now() < deadline, "{sale} does not settle: {report}");
        }
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        send_signal(self.child.as_ref().expect("it runs").id(), name);
    }

    /// As `kill -9`. Nothing happens if it does not run.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_end(Duration::from_secs(30)).await
    }

    /// Waits for the server to end by itself.
    pub async fn wait_for_end(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.as_mut().expect("it runs").try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end within {within:?}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let mut from = log.len().saturating_sub(LOG_BYTES_SHOWN);
            while !log.is_char_boundary(from) {
                from += 1;
            }
            eprintln!("---- end of the server's log ----\n{}\n---------------------------------", &log[from..]);
        }
        self.kill9();
        // Only a Redis on the socket in this server's own directory is this server's.
        if let Some(pid) = private_redis_pid(self.redis_socket()).or(self.private_redis)
            && is_redis(pid)
        {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
        }
    }
}

/// Asks the Redis on this socket who it is.
fn private_redis_pid(socket: PathBuf) -> Option<u32> {
    if !socket.exists() {
        return None;
    }
    let client = redis::Client::open(format!("redis+unix://{}", socket.display())).ok()?;
    let mut connection = client.get_connection().ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection).ok()?;
    info.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
}

/// A process id may be another's by now.
fn is_redis(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("redis-server"))
}

/// Waits until `done` says so; panics with `what` after `within`.
pub async fn eventually<F: Future<Output = bool>>(what: &str, within: Duration, mut done: impl FnMut() -> F) {
    let deadline = Instant::now() + within;
    while !done().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}
