//! The list. To add a setting, add a line here: flag, variable, key, help, sample and `config show` follow.
//!
//! A line is: what it is for and what more or less of it costs; field and type; name with the unit last; kind with
//! default and range.

use super::calls::{CallList, Credentials};
use super::kind::{
    Address, Count, Kind, LogFormat, LogLevel, Millis, NodeName, OptionalAddress, OptionalUrl, Path, Repair,
    RewriteAfterLoad, Seconds, Text, Threads, Words,
};
use super::registry::{HostPort, Optional, RegistryDriver, RegistryTarget};
use super::secret::{Secret, SigningSecret};
use super::secret_url::SecretUrl;
use super::table::{Setting, settings};
use super::telemetry::{AttentionThen, OtlpHeaders, OtlpProtocol, Share};
use super::tokens::Tokens;
use crate::access::tokens::Token;
use crate::dial::reach::Reach;
use http::HeaderMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const YES_NO: &[(&str, bool)] = &[("true", true), ("false", false)];

settings! {
    top {
        /// Directory for what a server without other stores keeps: the private Redis and the SQLite records.
        data_dir: PathBuf, "data_dir", Path("./rushline-data");
    }

    /// The door for buyers and operators.
    http: Http {
        /// Address and port to listen on. Port 0 takes a free one and the banner names it.
        listen: SocketAddr, "http.listen", Address("127.0.0.1:36789");
        /// Longest request body. Larger ones hear 413; each connection may hold one in memory.
        body_bytes_max: usize, "http.body_bytes_max", Count { default: 65_536, min: 1_024, max: 16 << 20, unit: "bytes" };
        /// Most connections at once; further ones wait in the listen queue. Each needs a file descriptor.
        connections_max: usize, "http.connections_max", Count { default: 20_000, min: 1, max: 1_000_000, unit: "connections" };
        /// Most connections of one address; further ones are closed at once. Behind a proxy all come from its address, so
        /// the default is as many as `connections_max` allows by default.
        connections_per_ip_max: usize, "http.connections_per_ip_max",
            Count { default: 20_000, min: 1, max: 1_000_000, unit: "connections" };
        /// Time for a client to send its request head, and again for its body. Shorter sheds slow clients sooner.
        header_timeout: Duration, "http.header_timeout_ms", Millis { default: 10_000, min: 100, max: 600_000 };
        /// How long a connection is kept on which nothing is asked: on HTTP/2, and on HTTP/1.1 after an order. Longer than
        /// proxies in front keep theirs.
        idle_timeout: Duration, "http.idle_timeout_ms", Millis { default: 75_000, min: 100, max: 3_600_000 };
        /// Longest `?wait_ms=` that is granted; longer wishes are cut to it. Each waiting request holds a connection.
        wait_max: Duration, "http.wait_ms_max", Millis { default: 30_000, min: 0, max: 600_000 };
        /// Most event streams at once; further ones hear 503. Each holds a connection and some kilobytes.
        event_streams_max: usize, "http.event_streams_max", Count { default: 10_000, min: 0, max: 1_000_000, unit: "streams" };
        /// How often an event stream without news says that it is there. Shorter than the patience of proxies on the way.
        heartbeat: Duration, "http.heartbeat_ms", Millis { default: 15_000, min: 10, max: 600_000 };
    }

    /// The door for services that speak dtm's gRPC. It is also answered at `http.listen`; the bounds there hold here.
    grpc: Grpc {
        /// Address and port to listen on.
        listen: Option<SocketAddr>, "grpc.listen", OptionalAddress {
            example: "127.0.0.1:36790",
            unset: "the port after that of http.listen",
        };
    }

    /// Who may do what. Without tokens and JWTs everybody may do everything, and only this machine is listened to.
    security: Security {
        /// Who may do what by an `Authorization: Bearer` header: a list of NAME:ROLE+ROLE:SHA256. `rushline token new` makes
        /// a token and its line; of the token itself only the hash is kept.
        tokens: Vec<Token>, "security.tokens", Tokens;
        /// A file of such lines, for a secret that is mounted. Read again when it changes, and on SIGHUP.
        tokens_file: Option<PathBuf>, "security.tokens_file", Optional {
            kind: Path(""), unset: "none", example: "/etc/rushline/tokens",
        };
        /// Whether to listen beyond this machine without tokens: then whoever reaches the port may do everything.
        allow_open: bool, "security.allow_open", Words { default: false, words: YES_NO };
        /// Names by which a server without tokens may be asked for over HTTP/1, with spaces between; `*` is any. Addresses and
        /// localhost always do. On this machine any other name is refused: a page of a browser here could have made it.
        hosts: Option<String>, "security.hosts", Optional {
            kind: Text { default: "", bytes_max: 4_096 }, unset: "none", example: "shop.internal till.internal",
        };
        /// Whether a GET changes state outside loopback too, as dtm has it (subscribe, unsubscribe, resetCronTime). Without,
        /// the same is asked for with POST there: any page and any link makes a browser send a GET.
        dtm_get_changes: bool, "security.dtm_get_changes", Words { default: false, words: YES_NO };
    }

    /// Tokens that somebody else issues: JWTs with a claim `roles`, signed by RS256, ES256 or HS256.
    jwt: Jwt {
        /// The issuer's keys: a JWK set, as a path or a URL. A URL is asked anew every five minutes.
        keys: Option<String>, "jwt.keys", Optional {
            kind: Text { default: "", bytes_max: 4_096 },
            unset: "no JWT is taken",
            example: "https://login.example.com/.well-known/jwks.json",
        };
        /// What their claim `iss` must say.
        issuer: Option<String>, "jwt.issuer", Optional {
            kind: Text { default: "", bytes_max: 1_024 }, unset: "none", example: "https://login.example.com",
        };
        /// What their claim `aud` must name.
        audience: Option<String>, "jwt.audience", Optional {
            kind: Text { default: "", bytes_max: 1_024 }, unset: "none", example: "rushline",
        };
    }

    /// TLS on both ports. The files are read again when they change, and on SIGHUP.
    tls: ListenerTls {
        /// This server's certificate and those between it and its root, a PEM file. With it, plain connections are not
        /// answered any more.
        cert: Option<PathBuf>, "tls.cert", Optional {
            kind: Path(""), unset: "no TLS", example: "/etc/rushline/server.pem",
        };
        /// The key of that certificate, a PEM file.
        key: Option<PathBuf>, "tls.key", Optional {
            kind: Path(""), unset: "none", example: "/etc/rushline/server.key",
        };
        /// Who signs the certificates of clients, a PEM file: one that is shown must be theirs.
        client_ca: Option<PathBuf>, "tls.client_ca", Optional {
            kind: Path(""), unset: "clients are not asked for certificates", example: "/etc/rushline/clients-ca.pem",
        };
        /// Whether a client must show one. Probes and metrics must then too.
        require_client: bool, "tls.require_client", Words { default: false, words: YES_NO };
    }

    /// The Redis that holds stock and orders in flight.
    redis: Redis {
        /// Which Redis: redis://, rediss:// (TLS) or unix://; redis+sentinel://HOST,HOST/NAME or redis+cluster://HOST,HOST,
        /// with rediss+ for TLS. Without it a private redis-server child is started.
        url: Option<SecretUrl>, "redis.url", OptionalUrl {
            schemes: &[
                "redis", "rediss", "unix", "redis+unix", "redis+sentinel", "rediss+sentinel", "redis+cluster",
                "rediss+cluster",
            ],
            example: "redis://user:password@127.0.0.1:6379/0",
            unset: "a private redis-server child",
        };
        /// Who signed the certificates of a Redis with TLS, a PEM file.
        ca_file: Option<PathBuf>, "redis.ca_file", Optional {
            kind: Path(""), unset: "whom the system trusts", example: "/etc/rushline/redis-ca.pem",
        };
        /// This server's own certificate for a Redis that asks for one, a PEM file.
        cert_file: Option<PathBuf>, "redis.cert_file", Optional {
            kind: Path(""), unset: "none", example: "/etc/rushline/redis-client.pem",
        };
        /// The key of that certificate, a PEM file.
        key_file: Option<PathBuf>, "redis.key_file", Optional {
            kind: Path(""), unset: "none", example: "/etc/rushline/redis-client.key",
        };
        /// The program to start when there is no URL: a name looked up in PATH, or a path.
        program: String, "redis.program", Text { default: "redis-server", bytes_max: 4_096 };
        /// What every key starts with. Servers that share a sale share the prefix; others must not.
        prefix: String, "redis.prefix", Text { default: "rl:", bytes_max: 64 };
        /// Multiplexed connections. More of them help only when one core cannot fill Redis.
        connections: usize, "redis.connections", Count { default: 2, min: 1, max: 64, unit: "connections" };
        /// How long an answer may take before the outcome counts as unknown and the caller hears 503.
        timeout: Duration, "redis.timeout_ms", Millis { default: 3_000, min: 50, max: 600_000 };
        /// Whether to rewrite the AOF after Redis loaded one, before admission opens: a cut tail would be loaded again.
        rewrite_after_load: RewriteAfterLoad, "redis.rewrite_after_load",
            Words { default: RewriteAfterLoad::Auto, words: RewriteAfterLoad::WORDS };
        /// Percent of Redis's maxmemory that new orders, sales and transactions may fill; above it callers hear 503. What
        /// is under way needs the rest to end and to leave for the records.
        memory_share: u64, "redis.memory_share_percent", Count { default: 85, min: 1, max: 100, unit: "percent" };
        /// Who mends a sale that is fenced because Redis came back with less than it had acknowledged: `manual` waits for
        /// `rushline repair`, `automatic` does the same at once.
        repair: Repair, "redis.repair", Words { default: Repair::Manual, words: Repair::WORDS };
    }

    /// Where finished orders and global transactions are kept.
    records: Records {
        /// Which database: sqlite:PATH, mongodb://, postgres:// or mysql://. Without it, SQLite in the data directory.
        url: Option<SecretUrl>, "records.url", OptionalUrl {
            schemes: &["sqlite", "mongodb", "mongodb+srv", "postgres", "postgresql", "mysql", "mariadb"],
            example: "postgres://user:password@127.0.0.1:5432/rushline",
            unset: "sqlite, orders.db in data_dir",
        };
        /// Most records in one write. More write faster and hold more memory.
        batch_max: usize, "records.batch_max", Count { default: 4_000, min: 1, max: 100_000, unit: "records" };
        /// Finished orders, or finished transactions, not yet in the records, above which the log warns.
        backlog_alarm: u64, "records.backlog_alarm", Count { default: 1_000_000, min: 1, max: 1 << 40, unit: "orders" };
    }

    /// How order requests get into Redis.
    admission: Admission {
        /// Most orders in one script call. More raise throughput and the time that one call blocks Redis.
        batch_max: usize, "admission.batch_max", Count { default: 256, min: 1, max: 1_024, unit: "orders" };
        /// Order requests of one sale that wait for Redis; above it callers hear 429. More mean longer waits.
        queue_max: usize, "admission.queue_max", Count { default: 20_000, min: 1, max: 10_000_000, unit: "requests" };
    }

    /// How order endpoints are called.
    delivery: Delivery {
        /// Orders of one sale admitted and not yet answered by the order endpoint; above it callers hear 429.
        backlog_max: usize, "delivery.backlog_max", Count { default: 200_000, min: 1, max: 100_000_000, unit: "orders" };
        /// How long an order lies untouched before another node takes it over. Shorter recovers sooner and calls twice
        /// more often.
        lease: Duration, "delivery.lease_ms", Millis { default: 5_000, min: 100, max: 3_600_000 };
        /// Delay before the first repeat of a failed call; it doubles from there.
        retry_base: Duration, "delivery.retry_base_ms", Millis { default: 200, min: 1, max: 600_000 };
        /// Longest delay between two calls for one order.
        retry_max: Duration, "delivery.retry_max_ms", Millis { default: 60_000, min: 1, max: 3_600_000 };
        /// Delay before asking again when the order endpoint answered 425 or ONGOING.
        ongoing: Duration, "delivery.ongoing_ms", Millis { default: 1_000, min: 10, max: 600_000 };
        /// Calls without a verdict for one order, from which on it is shown as waiting for attention and there is an alert.
        /// It is called on, at the longest delay: its units are held, and only an answer says if it exists.
        attention_after: usize, "delivery.attention_after", Count { default: 10, min: 1, max: 1_000_000, unit: "calls" };
    }

    /// How shops are told of their orders' ends, where a sale has a webhook.
    webhook: WebhookCalls {
        /// Delay before the first repeat of a call that was not answered with 2xx; it doubles from there.
        retry_base: Duration, "webhook.retry_base_ms", Millis { default: 1_000, min: 1, max: 600_000 };
        /// Longest delay between two calls.
        retry_max: Duration, "webhook.retry_max_ms", Millis { default: 300_000, min: 1, max: 86_400_000 };
        /// How long after an order's end its webhook is still called. Until then a call that fails is kept in Redis.
        give_up_after: Duration, "webhook.give_up_after_s", Seconds { default: 86_400, min: 1, max: 2_678_400 };
    }

    /// Global transactions: the part that is compatible with dtm.
    trans: Trans {
        /// Pause before the next try after an unclear result, unless the transaction sets one. It doubles from there.
        retry_interval: Duration, "trans.retry_interval_ms", Millis { default: 10_000, min: 10, max: 3_600_000 };
        /// Where the doubling stops. Longer spares a service that is down; shorter finds it sooner.
        retry_max: Duration, "trans.retry_max_ms", Millis { default: 300_000, min: 10, max: 86_400_000 };
        /// How long a transaction may stay undecided before it is asked about or rolled back, unless it sets a time.
        timeout_to_fail: Duration, "trans.timeout_to_fail_ms", Millis { default: 35_000, min: 10, max: 86_400_000 };
        /// How long one call of a branch may take, unless the transaction sets a time; also how long it may wait for its
        /// turn at a busy host before it is put off.
        request_timeout: Duration, "trans.request_timeout_ms", Millis { default: 3_000, min: 10, max: 600_000 };
        /// How long a transaction lies untouched before another node takes it on. Shorter recovers sooner and writes
        /// more often.
        lease: Duration, "trans.lease_ms", Millis { default: 10_000, min: 300, max: 3_600_000 };
        /// How long a repeated call on a finished transaction that has left Redis still hears what it did before. More
        /// costs some 200 bytes of Redis for each; after it, or with 0, its gid is free and begins a new transaction.
        remember_finished: Duration, "trans.remember_finished_ms", Millis { default: 600_000, min: 0, max: 2_678_400_000 };
        /// Most transactions that this node works on at once; further ones wait in Redis, oldest first.
        running_max: usize, "trans.running_max", Count { default: 4_096, min: 1, max: 1_000_000, unit: "transactions" };
        /// Most branches of one transaction called at once.
        calls_max: usize, "trans.calls_max", Count { default: 64, min: 1, max: 1_024, unit: "calls" };
        /// Most calls to one host at once. It paces recovery after that host was down.
        calls_per_host_max: usize, "trans.calls_per_host_max", Count { default: 256, min: 1, max: 65_536, unit: "calls" };
        /// Where to post an alert when a transaction does not get on.
        alert_url: Option<SecretUrl>, "trans.alert_url", OptionalUrl {
            schemes: &["http", "https"],
            example: "http://127.0.0.1:8080/alert",
            unset: "alerts are only logged",
        };
        /// Passes in a row without a clear result, from which on a transaction is shown as waiting for attention and there
        /// are alerts.
        alert_after: usize, "trans.alert_after", Count { default: 3, min: 1, max: 1_000, unit: "passes" };
        /// What happens from then on: `go_on` calls again, at the longest delay; `stop` calls again when somebody says so,
        /// once each time.
        attention_then: AttentionThen, "trans.attention_then",
            Words { default: AttentionThen::GoOn, words: AttentionThen::WORDS };
    }

    /// Whom this server calls for others (branches, check-backs, order endpoints, webhooks, registries that branches name),
    /// and what it tells them.
    calls: Calls {
        /// Who may be called. A name is as good as the address it has when it is called. Link-local, multicast and reserved
        /// addresses, and those of cloud metadata, are called only if just they are listed.
        allow: Reach, "calls.allow", CallList;
        /// Redirects of one call that are followed, each only to whom may be called. dtm follows 10.
        redirects_max: usize, "calls.redirects_max", Count { default: 0, min: 0, max: 10, unit: "redirects" };
        /// Whether transactions may bring `Authorization` and `Cookie` in `branch_headers`, as dtm's may. `auto`: as long as
        /// this server listens on loopback addresses only.
        credentials: Credentials, "calls.credentials", Words { default: Credentials::Auto, words: Credentials::WORDS };
    }

    /// Where services find this server and it finds theirs: etcd, in the form of go-zero. dtm's block `MicroService`
    /// may be written in place of this one.
    registry: Registry {
        /// The form of entries. `default` is dtm's word for none: then nothing is registered.
        driver: RegistryDriver, "registry.driver",
            Words { default: RegistryDriver::GoZero, words: RegistryDriver::WORDS };
        /// Which etcd, and under which name to register there; several hosts with commas. Its account also counts for
        /// services in that etcd. Without a name (`etcd://HOST:PORT/?user=…`) nothing is registered.
        target: Option<SecretUrl>, "registry.target", RegistryTarget;
        /// The `HOST:PORT` of this server's gRPC door, as others reach it. Needed where they reach it by another address
        /// than the one it listens on.
        endpoint: Option<String>, "registry.endpoint", Optional {
            kind: HostPort,
            unset: "grpc.listen; in place of 0.0.0.0, POD_IP or this machine's address towards etcd",
            example: "10.1.2.3:36790",
        };
        /// Who signed the etcd's certificates, a PEM file. With it, TLS is spoken to the etcd in `registry.target`.
        ca_file: Option<PathBuf>, "registry.ca_file", Optional {
            kind: Path(""), unset: "no TLS", example: "/etc/rushline/etcd-ca.pem",
        };
        /// This server's own certificate for an etcd that asks for one, a PEM file.
        cert_file: Option<PathBuf>, "registry.cert_file", Optional {
            kind: Path(""), unset: "none", example: "/etc/rushline/etcd-client.pem",
        };
        /// The key of that certificate, a PEM file.
        key_file: Option<PathBuf>, "registry.key_file", Optional {
            kind: Path(""), unset: "none", example: "/etc/rushline/etcd-client.key",
        };
    }

    /// What Redis remembers of buyers after a sale.
    ledger: Ledger {
        /// How long a closed sale's ledger stays; until then a repeated request still hears its first answer.
        keep: Duration, "ledger.keep_s", Seconds { default: 86_400, min: 0, max: 31_536_000 };
    }

    /// How the server stops.
    shutdown: Shutdown {
        /// How long the server goes on serving after SIGTERM or Ctrl-C while `/readyz` answers 503 and every answer closes its
        /// connection. Longer than a balancer needs to notice; 0 where nobody asks `/readyz`. `shutdown.grace_ms` begins after it.
        pause: Duration, "shutdown.pause_ms", Millis { default: 0, min: 0, max: 600_000 };
        /// Time to finish what is in flight once nothing new is taken; what is left is taken over by the next node.
        grace: Duration, "shutdown.grace_ms", Millis { default: 10_000, min: 0, max: 600_000 };
    }

    /// The process.
    runtime: Runtime {
        /// Worker threads.
        threads: usize, "runtime.threads", Threads;
    }

    /// What is logged, to standard error.
    log: Log {
        /// The least serious lines that are logged.
        level: LogLevel, "log.level", Words { default: LogLevel::Info, words: LogLevel::WORDS };
        /// `auto` is pretty on a terminal and JSON otherwise.
        format: LogFormat, "log.format", Words { default: LogFormat::Auto, words: LogFormat::WORDS };
    }

    /// Traces: where the way of orders and transactions is sent to, span by span. See docs/observability.md.
    telemetry: Telemetry {
        /// The collector that takes spans by OTLP. For gRPC host and port; for HTTP a path may follow, else it is /v1/traces.
        otlp_endpoint: Option<SecretUrl>, "telemetry.otlp_endpoint", OptionalUrl {
            schemes: &["http", "https"],
            example: "http://127.0.0.1:4317",
            unset: "no traces are recorded",
        };
        /// What is spoken to it: `grpc`, usually on port 4317, or `http` (protobuf), usually on 4318.
        otlp_protocol: OtlpProtocol, "telemetry.otlp_protocol",
            Words { default: OtlpProtocol::Grpc, words: OtlpProtocol::WORDS };
        /// Headers that each call of the collector has besides, such as the token that it asks for.
        otlp_headers: HeaderMap, "telemetry.otlp_headers", OtlpHeaders;
        /// Of the requests that come without a trace, the share that begins one. Those that come with one are recorded if
        /// their caller records them. More cost more work here and more room in Redis, 56 bytes an order.
        sample_share: f64, "telemetry.sample_share", Share(0.01);
        /// Most spans that wait for the collector; further ones are counted and dropped. Each takes about half a kilobyte.
        queue_max: usize, "telemetry.queue_max", Count { default: 16_384, min: 1, max: 1_000_000, unit: "spans" };
    }

    /// Where somebody hears that something needs a person, once for each thing, and again when it is over.
    alerts: Alerts {
        /// Where alerts are posted.
        url: Option<SecretUrl>, "alerts.url", OptionalUrl {
            schemes: &["http", "https"],
            example: "https://ops.example/rushline",
            unset: "alerts are only logged and counted",
        };
        /// What signs them, as Standard Webhooks have it: whsec_ and 24 to 64 bytes as base64. Without it they are unsigned.
        secret: Option<Secret>, "alerts.secret", SigningSecret;
        /// How long the records may be away, or refuse, before there is an alert.
        records_down: Duration, "alerts.records_down_s", Seconds { default: 60, min: 1, max: 86_400 };
        /// How long an alert that nobody ended counts as known; after it the same thing is told again.
        repeat_after: Duration, "alerts.repeat_after_s", Seconds { default: 86_400, min: 10, max: 2_678_400 };
    }

    /// This server among others.
    node: Node {
        /// Its name in Redis consumer groups and in logs. No two running servers may share one.
        name: String, "node.name", NodeName;
    }
}
