//! Real servers for the stories: [`Mongod`], [`Postgres`], [`MariaDb`] and [`Redis`]. `etcd.rs` has etcd.
//!
//! Each has `start()`, `url()`, `kill9()` and `restart()`, which keeps port and data. None touches a server that the
//! tests did not start. Where there is a password it is [`PASSWORD`], so that a story can look for it in messages.

use super::process::{Process, account, free_port, is_root};
use mongodb::bson::{Document, doc};
use sqlx::Connection;
use std::path::{Path, PathBuf};

pub const PASSWORD: &str = "pass-word-1";

/// Where `tests/servers/install.sh` put the programs that come out of wheels.
fn fetched(program: &str) -> PathBuf {
    let directory = std::env::var_os("RUSHLINE_TEST_SERVERS").map(PathBuf::from).unwrap_or_else(|| {
        // The examples include this file too, and lie one level deeper.
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().take(2);
        let mut places = above.map(|directory| directory.join("target/test-servers"));
        places.find(|place| place.is_dir()).unwrap_or_else(|| PathBuf::from("target/test-servers"))
    });
    directory.join("bin").join(program)
}

/// A program of the system: on the PATH, or in a directory that is often not on it.
pub fn program(name: &str, beside_path: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = beside_path.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    let found = directories.map(|directory| directory.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} here\nhint: tests/servers/install.sh gets what the tests need"))
}

/// MongoDB as a replica set of one, since transactions and `w: majority` want a replica set.
pub struct Mongod {
    process: Process,
    port: u16,
    /// What its URL says of TLS.
    tls: String,
}

impl Mongod {
    pub async fn start() -> Self {
        let mut process = Process::new("mongod", fetched("mongod"), None);
        let port = free_port();
        process.arguments(["--dbpath".into(), process.directory().as_os_str().to_owned()]);
        process.arguments([
            "--port",
            &port.to_string(),
            "--bind_ip",
            "127.0.0.1",
            "--nounixsocket",
            "--replSet",
            "rs0",
        ]);
        process.arguments([
            "--wiredTigerCacheSizeGB",
            "0.25",
            "--setParameter",
            "diagnosticDataCollectionEnabled=false",
        ]);
        let mut server = Self { process, port, tls: String::new() };
        server.restart().await;
        server
    }

    /// Encrypted from the next start on, with the certificates of [`super::certificates::make_certificates`] in its directory.
    pub fn with_tls(&mut self) {
        let path = |name: &str| self.process.directory().join(name);
        let both = [path("server.pem"), path("server.key")].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(path("both.pem"), both.concat()).unwrap();
        let (both, ca) = (path("both.pem").display().to_string(), path("ca.pem").display().to_string());
        self.process.arguments(["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", &both, "--tlsCAFile", &ca]);
        self.process.arguments(["--tlsAllowConnectionsWithoutCertificates"]);
        self.tls = format!("&tls=true&tlsCAFile={ca}");
    }

    /// Without what [`Self::with_tls`] adds.
    pub fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}/rushline?replicaSet=rs0", self.port)
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// For `STOP` and `CONT`.
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub async fn restart(&mut self) {
        let (port, tls) = (self.port, self.tls.clone());
        self.process.start(|| Self::primary(port, tls.clone())).await;
    }

    /// Makes it a replica set if it is none yet, and asks whether it takes writes.
    async fn primary(port: u16, tls: String) -> mongodb::error::Result<()> {
        let url = format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=1000{tls}");
        let admin = mongodb::Client::with_uri_str(url).await?.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await?;
        if hello.get_bool("isWritablePrimary").unwrap_or(false) {
            return Ok(());
        }
        if !hello.contains_key("setName") {
            let member = doc! { "_id": 0, "host": format!("127.0.0.1:{port}") };
            // Alone, it need not wait the usual 10 s for others before it elects itself.
            let set: Document =
                doc! { "_id": "rs0", "members": [member], "settings": { "electionTimeoutMillis": 500 } };
            admin.run_command(doc! { "replSetInitiate": set }).await?;
        }
        Err(mongodb::error::Error::custom("no primary yet"))
    }
}

/// PostgreSQL with a password and, where it can, a database whose own order of texts is not that of their bytes.
pub struct Postgres {
    process: Process,
    port: u16,
}

impl Postgres {
    pub async fn start() -> Self {
        let beside_path = installed_postgres();
        let beside_path: Vec<&str> = beside_path.iter().map(String::as_str).collect();
        let whom = if is_root() { account("postgres") } else { None };
        let mut process = Process::new("postgres", program("postgres", &beside_path), whom);
        let directory = process.directory().to_str().unwrap().to_owned();
        let data = format!("{directory}/data");
        let password_file = format!("{directory}/password");
        std::fs::write(&password_file, PASSWORD).unwrap();
        let password = format!("--pwfile={password_file}");
        let initdb = program("initdb", &beside_path);
        process.run(
            &initdb,
            &["-D", &data, "-U", "rushline", "-E", "UTF8", "--locale=C", "-A", "scram-sha-256", "-N", &password],
        );
        let port = free_port();
        process.arguments(["-D", &data, "-p", &port.to_string(), "-k", &directory, "-c", "listen_addresses=127.0.0.1"]);
        // For XA branches; PostgreSQL's own default is none.
        process.arguments(["-c", "max_prepared_transactions=100"]);
        let mut server = Self { process, port };
        server.restart().await;
        let mut connection = sqlx::PgConnection::connect(&server.url_of("postgres")).await.unwrap();
        let create = "CREATE DATABASE rushline TEMPLATE template0";
        let with_icu = "CREATE DATABASE rushline TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'";
        if sqlx::query(with_icu).execute(&mut connection).await.is_err() {
            sqlx::query(create).execute(&mut connection).await.unwrap();
        }
        server
    }

    pub fn url(&self) -> String {
        self.url_of("rushline")
    }

    /// For its directory.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Encrypted from the next start on, with this certificate and key, of which it asks that nobody else can read it.
    pub fn with_tls(&mut self, certificate: &str, key: &str) {
        let owner = self.process.directory().join("data");
        let own = |what: &[&str]| {
            let status = std::process::Command::new(what[0]).args(&what[1..]).status().unwrap();
            assert!(status.success(), "{what:?}: {status}");
        };
        own(&["chmod", "600", key]);
        own(&["chown", &format!("--reference={}", owner.display()), key, certificate]);
        let settings =
            ["-c", "ssl=on", "-c", &format!("ssl_cert_file={certificate}"), "-c", &format!("ssl_key_file={key}")];
        self.process.arguments(settings);
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://rushline:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    pub async fn restart(&mut self) {
        let url = self.url_of("postgres");
        let ready = || async { sqlx::PgConnection::connect(&url).await?.close().await };
        self.process.start(ready).await;
    }
}

/// Debian keeps PostgreSQL's programs off the PATH, one directory for each version.
fn installed_postgres() -> Vec<String> {
    let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let directories = versions.filter_map(|version| Some(version.ok()?.path().join("bin").to_str()?.to_owned()));
    let mut directories: Vec<String> = directories.collect();
    directories.sort();
    directories.reverse();
    directories
}

/// MariaDB with a password, and set up as badly as one meets it: no strict mode, latin1, another time zone.
pub struct MariaDb {
    process: Process,
    port: u16,
}

impl MariaDb {
    pub async fn start() -> Self {
        let beside_path = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];
        let mut process = Process::new("mariadb", program("mariadbd", &beside_path), None);
        let directory = process.directory().to_str().unwrap().to_owned();
        let data = format!("--datadir={directory}/data");
        let user = if is_root() { "--user=root" } else { "--skip-name-resolve" };
        let install = program("mariadb-install-db", &beside_path);
        process.run(
            &install,
            &["--no-defaults", &data, user, "--auth-root-authentication-method=normal", "--skip-test-db"],
        );
        let port = free_port();
        process.arguments(["--no-defaults", &data, user, "--bind-address=127.0.0.1", &format!("--port={port}")]);
        process.arguments([format!("--socket={directory}/s"), format!("--pid-file={directory}/pid")]);
        process.arguments(["--sql-mode=", "--character-set-server=latin1", "--default-time-zone=+05:00"]);
        let mut server = Self { process, port };
        server.restart().await;
        let mut connection = sqlx::MySqlConnection::connect(&server.socket_url()).await.unwrap();
        for statement in [
            "CREATE DATABASE rushline",
            "CREATE USER rushline IDENTIFIED BY 'pass-word-1'",
            "GRANT ALL ON rushline.* TO rushline",
            // Where dtm's barriers are.
            "GRANT ALL ON dtm_barrier.* TO rushline",
            // An anonymous user of this host would be preferred to the one just made.
            "DELETE FROM mysql.global_priv WHERE User = ''",
            "FLUSH PRIVILEGES",
        ] {
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        server
    }

    pub fn url(&self) -> String {
        format!("mysql://rushline:{PASSWORD}@127.0.0.1:{}/rushline", self.port)
    }

    /// For whoever makes databases of his own: root, who has no password here.
    pub fn root_url(&self) -> String {
        format!("mysql://root:@127.0.0.1:{}/rushline", self.port)
    }

    /// Encrypted from the next start on, and by its port not otherwise.
    pub fn with_tls(&mut self, certificate: &str, key: &str) {
        let settings = [format!("--ssl-cert={certificate}"), format!("--ssl-key={key}")];
        self.process.arguments(settings.into_iter().chain(["--require-secure-transport=ON".into()]));
    }

    fn socket_url(&self) -> String {
        format!("mysql://root@localhost/?ssl-mode=DISABLED&socket={}/s", self.process.directory().display())
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// For `STOP` and `CONT`.
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub async fn restart(&mut self) {
        let url = self.socket_url();
        let ready = || async { sqlx::MySqlConnection::connect(&url).await?.close().await };
        self.process.start(ready).await;
    }
}

/// Which Redis: Debian's 7.0, or 8.2, which has WAITAOF.
#[derive(Debug, Clone, Copy)]
pub enum RedisVersion {
    V7,
    V8,
}

/// Redis, by default with what a sale of class `fsync` needs: `appendonly yes`, `appendfsync always`.
pub struct Redis {
    process: Process,
    host: String,
    port: u16,
}

impl Redis {
    /// `extra_args` come last and win: `&["--appendfsync", "everysec"]`, `&["--cluster-enabled", "yes"]`.
    pub async fn start(version: RedisVersion, extra_args: &[&str]) -> Self {
        Self::launch(&[], version, "127.0.0.1", extra_args).await
    }

    /// By another program, such as `env` or `ip netns exec`, which must become Redis and not stand beside it; at `host`.
    pub async fn launch(launcher: &[&str], version: RedisVersion, host: &str, extra_args: &[&str]) -> Self {
        let server = match version {
            RedisVersion::V7 => program("redis-server", &[]),
            RedisVersion::V8 => fetched("redis-server-8"),
        };
        let server = server.to_str().unwrap().to_owned();
        let mut words = launcher.iter().map(|word| word.to_string()).chain([server]);
        let first = program(&words.next().expect("there is Redis at least"), &["/usr/sbin"]);
        let mut process = Process::new("redis", first, None);
        process.arguments(words);
        let port = free_port();
        let directory = process.directory().to_str().unwrap().to_owned();
        let socket = format!("{directory}/redis.sock");
        process.arguments(["--port", &port.to_string(), "--bind", host, "--unixsocket", &socket]);
        process.arguments(["--dir", &directory, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        process.arguments(extra_args);
        let mut server = Self { process, host: host.to_owned(), port };
        server.restart().await;
        server
    }

    pub fn url(&self) -> String {
        format!("redis://{}:{}/", self.host, self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For `STOP` and `CONT`, and for its directory.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// It has ended by itself, as it does when it cannot write.
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Further arguments from the next start on; the last one wins.
    pub fn arguments(&mut self, arguments: &[&str]) {
        self.process.arguments(arguments);
    }

    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}/redis.sock", self.process.directory().display())
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again on the data it left; the same port, the same socket.
    pub async fn restart(&mut self) {
        let client = redis::Client::open(self.url()).unwrap();
        let ready = || async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<()>(&mut connection).await
        };
        self.process.start(ready).await;
    }
}

/// What Redis acknowledged with `appendfsync always` is there after kill -9, on either version and either address.
#[tokio::test]
async fn a_killed_redis_comes_back_with_what_it_acknowledged() {
    for version in [RedisVersion::V7, RedisVersion::V8] {
        let mut server = Redis::start(version, &[]).await;
        for (key, url) in [("port", server.url()), ("socket", server.socket_url())] {
            let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
            redis::cmd("SET").arg(key).arg("kept").query_async::<()>(&mut connection).await.unwrap();
        }
        server.kill9();
        server.restart().await;
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let kept: Vec<String> =
            redis::cmd("MGET").arg("port").arg("socket").query_async(&mut connection).await.unwrap();
        assert_eq!(kept, ["kept", "kept"], "{version:?}");
    }
}
