//! Where Redis is, read from the setting `redis.url`: one server, whoever Sentinel says is the primary, or a Cluster.

use super::Error;
use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use std::path::PathBuf;

/// Port of a Redis that names none, and of a Sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Certificates for `rediss`, PEM files.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Who signed the servers' certificates; without it, whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key, for servers that ask for one.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// `host:port` of one server.
pub type HostPort = (String, u16);

pub(super) enum Where {
    One(Client),
    Sentinel { sentinels: Vec<HostPort>, primary: String, sentinel_account: Account },
    Cluster { seeds: Vec<HostPort> },
}

/// How to make clients for the servers of one URL.
pub(super) struct Place {
    pub at: Where,
    account: Account,
    secure: bool,
    certificates: Option<TlsCertificates>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

impl Place {
    pub fn read(url: &str, tls: &Tls) -> Result<Self, Error> {
        // The driver takes the process's provider of cryptography; setting it again is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = read_certificates(tls)?;
        let (scheme, _) = url.split_once(':').ok_or_else(|| bad("has no scheme"))?;
        let (secure, many) = match scheme.split_once('+') {
            Some(("redis", kind @ ("sentinel" | "cluster"))) => (false, kind),
            Some(("rediss", kind @ ("sentinel" | "cluster"))) => (true, kind),
            _ => {
                let info = url.into_connection_info()?;
                let secure = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
                if certificates.is_some() && !secure {
                    return Err(bad(
                        "has no TLS, but certificates are set: use rediss://, or unset redis.ca_file and redis.cert_file",
                    ));
                }
                let at = Where::One(client(info, certificates.as_ref())?);
                return Ok(Self { at, account: Account::default(), secure, certificates });
            }
        };
        if certificates.is_some() && !secure {
            return Err(bad("has no TLS, but certificates are set: write rediss+ for redis+"));
        }
        let many_hosts = ManyHosts::read(url, if many == "sentinel" { SENTINEL_PORT } else { PORT })?;
        let at = match many {
            "sentinel" => {
                let primary = many_hosts.path.first().filter(|name| !name.is_empty());
                Where::Sentinel {
                    primary: primary
                        .ok_or_else(|| bad("names no primary: redis+sentinel://HOST:PORT,HOST:PORT/NAME"))?
                        .clone(),
                    sentinel_account: Account {
                        user: many_hosts.parameter("sentinel_user"),
                        password: many_hosts.parameter("sentinel_password"),
                        database: 0,
                    },
                    sentinels: many_hosts.hosts,
                }
            }
            _ if many_hosts.account.database != 0 => {
                return Err(bad("names a database; a Cluster has only database 0"));
            }
            _ => Where::Cluster { seeds: many_hosts.hosts },
        };
        Ok(Self { at, account: many_hosts.account, secure, certificates })
    }

    /// A client for one server of the Cluster, or for the primary that Sentinel named.
    pub fn client_of(&self, server: &HostPort) -> Result<Client, Error> {
        self.client_as(server, &self.account)
    }

    /// A client for a Sentinel.
    pub fn sentinel_client(&self, server: &HostPort, account: &Account) -> Result<Client, Error> {
        self.client_as(server, account)
    }

    fn client_as(&self, (host, port): &HostPort, account: &Account) -> Result<Client, Error> {
        let scheme = if self.secure { "rediss" } else { "redis" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let info = format!("{scheme}://{host}:{port}").as_str().into_connection_info()?;
        let mut settings = info.redis_settings().clone().set_db(account.database);
        if let Some(user) = &account.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &account.password {
            settings = settings.set_password(password);
        }
        client(info.set_redis_settings(settings), self.certificates.as_ref())
    }
}

fn client(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> Result<Client, Error> {
    let info = match info.addr() {
        ConnectionAddr::Unix(_) => info,
        // Small requests must not wait on Nagle's algorithm; the driver's default leaves it on.
        _ => info.set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true)),
    };
    Ok(match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
        None => Client::open(info)?,
    })
}

fn bad(problem: &str) -> Error {
    Error::Url(problem.to_owned())
}

fn read_certificates(tls: &Tls) -> Result<Option<TlsCertificates>, Error> {
    let read = |path: &Option<PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        std::fs::read(path).map(Some).map_err(|error| bad(&format!("needs {}: {error}", path.display())))
    };
    let client_tls = match (read(&tls.cert_file)?, read(&tls.key_file)?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (None, None) => None,
        _ => return Err(bad("needs both redis.cert_file and redis.key_file, or neither")),
    };
    let root_cert = read(&tls.ca_file)?;
    Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

/// A URL with several hosts, which the standard does not know: `scheme://user:password@HOST:PORT,HOST:PORT/path?name=value`.
struct ManyHosts {
    account: Account,
    hosts: Vec<HostPort>,
    path: Vec<String>,
    parameters: Vec<(String, String)>,
}

impl ManyHosts {
    fn read(url: &str, port: u16) -> Result<Self, Error> {
        let (_, rest) = url.split_once("://").ok_or_else(|| bad("has no hosts"))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let hosts: Vec<HostPort> = hosts.split(',').map(|host| host_port(host, port)).collect::<Result<_, _>>()?;
        // Path, parameters and account are as in any URL, with a host that the standard takes.
        let plain = url::Url::parse(&format!("redis://{user}{}h{tail}", if user.is_empty() { "" } else { "@" }))
            .map_err(|error| bad(&format!("is no URL: {error}")))?;
        let decoded = |text: &str| {
            let pairs = format!("v={}", text.replace('+', "%2B"));
            url::form_urlencoded::parse(pairs.as_bytes())
                .next()
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default()
        };
        let path: Vec<String> = plain.path().trim_matches('/').split('/').map(decoded).collect();
        let parameters = plain.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let number = if url.contains("+sentinel:") { path.get(1) } else { path.first() };
        let database = match number.map(String::as_str) {
            None | Some("") => 0,
            Some(number) => number.parse().map_err(|_| bad("has a database that is no number"))?,
        };
        let user = Some(decoded(plain.username())).filter(|user| !user.is_empty());
        let account = Account { user, password: plain.password().map(decoded), database };
        Ok(Self { account, hosts, path, parameters })
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// `HOST`, `HOST:PORT` or `[IPv6]:PORT`.
fn host_port(text: &str, port: u16) -> Result<HostPort, Error> {
    let number = |text: &str| text.parse().map_err(|_| bad("has a port that is no number"));
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, port),
        Some((host, rest)) => (host, number(rest.trim_start_matches(':'))?),
        None => match text.rsplit_once(':') {
            Some((host, text)) => (host, number(text)?),
            None => (text, port),
        },
    };
    if host.is_empty() { Err(bad("has a host without a name")) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Place, Error> {
        Place::read(url, &Tls::default())
    }

    #[test]
    fn a_cluster_is_its_seeds() {
        let place = read("redis+cluster://rl:p%40ss@a:7001,b,[::1]:7003").unwrap();
        let Where::Cluster { seeds } = &place.at else { panic!("no cluster") };
        assert_eq!(*seeds, [("a".into(), 7001), ("b".into(), 6379), ("::1".into(), 7003)]);
        assert_eq!((place.account.user.as_deref(), place.account.password.as_deref()), (Some("rl"), Some("p@ss")));
        assert!(!place.secure && read("rediss+cluster://a").unwrap().secure);
        assert!(read("redis+cluster://a/3").is_err());
    }

    #[test]
    fn sentinel_names_its_primary() {
        let place = read("redis+sentinel://:pw@a,b:5/shop/2?sentinel_password=other").unwrap();
        let Where::Sentinel { sentinels, primary, sentinel_account } = &place.at else { panic!("no sentinel") };
        assert_eq!((sentinels.len(), primary.as_str()), (2, "shop"));
        assert_eq!(sentinels[1], ("b".into(), 5));
        assert_eq!((place.account.password.as_deref(), place.account.database), (Some("pw"), 2));
        assert_eq!(sentinel_account.password.as_deref(), Some("other"));
        assert!(read("redis+sentinel://a,b").is_err());
    }

    #[test]
    fn no_problem_shows_the_password() {
        for url in ["redis+cluster://u:s3cret@", "redis+cluster://u:s3cret@a:x", "redis+sentinel://u:s3cret@a"] {
            assert!(!read(url).err().unwrap().to_string().contains("s3cret"), "{url}");
        }
    }
}
