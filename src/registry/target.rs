//! Reading the addresses by which go-zero's services name each other.
//!
//! go-zero's client makes them of its configuration, and programs append the method: `BuildTarget() + "/pkg.Svc/Method"`.
//! Up to v1.10.1 that is `etcd://HOSTS/NAME/pkg.Svc/Method`; from v1.10.2 on `etcd:///HOSTS?key=NAME/pkg.Svc/Method`,
//! where the path comes after the query and no URL parser finds it. dtm takes neither that nor a NAME with a slash;
//! here a method is the last two segments, and so both are clear.

use std::fmt;

/// Hosts of one etcd, or fixed instances, in one address; they come from clients, so there must be a bound.
const HOSTS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 1024;

/// Where the instances of a service are named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Fixed addresses: `host:port`, or `direct:///host:port,host:port`.
    Direct(Vec<String>),
    /// What is registered under a name in an etcd.
    Etcd(Name),
}

/// A name in an etcd.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// `host:port` of the etcd's members.
    pub hosts: Vec<String>,
    /// Without slashes at its ends. Instances are the keys below `NAME/`.
    pub name: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(addresses) => f.write_str(&addresses.join(",")),
            Self::Etcd(Name { hosts, name }) => write!(f, "`{name}` in etcd at {}", hosts.join(",")),
        }
    }
}

/// What an etcd asks of those who come.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, ***)", self.user)
    }
}

/// An address that cannot be used; no retry helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` ends without a gRPC method: HOST:PORT/package.Service/Method is the form")]
    NoMethod(String),
    #[error("`{0}` is no address: {1}")]
    Address(String, &'static str),
    #[error(
        "`{0}`: services in Consul cannot be looked up here; register them in etcd, or name them as direct:///HOST:PORT,HOST:PORT"
    )]
    Consul(String),
    #[error(
        "`{0}`: services in Nacos cannot be looked up here; register them in etcd, or name them as direct:///HOST:PORT,HOST:PORT"
    )]
    Nacos(String),
    #[error(
        "`{0}`: the Kubernetes API is not asked here; a Service has a DNS name, so SERVICE.NAMESPACE.svc:PORT/package.Service/Method reaches it"
    )]
    Kubernetes(String),
    #[error("`{0}`: no address of the kind `{1}` can be called; known are HOST:PORT, direct, etcd and discov")]
    Scheme(String, String),
}

impl Error {
    /// Well-formed, of a kind that this server does not know.
    pub fn is_unknown_kind(&self) -> bool {
        matches!(self, Self::Consul(_) | Self::Nacos(_) | Self::Kubernetes(_) | Self::Scheme(..))
    }
}

/// Takes a branch's address apart: where its instances are, and the method, `/package.Service/Method`.
pub fn split(url: &str) -> Result<(Target, String), Error> {
    let shown = || crate::config::redact(url);
    let bad = |why| Error::Address(shown(), why);
    let Some((scheme, rest)) = url.split_once("://") else {
        let (address, method) = url.split_at(url.find('/').ok_or_else(|| Error::NoMethod(shown()))?);
        return Ok((Target::Direct(addresses(address).map_err(bad)?), checked_method(method, &shown)?));
    };
    match scheme {
        "direct" => {
            let path = rest.split_once('/').map(|(_, path)| path).ok_or_else(|| Error::NoMethod(shown()))?;
            let (list, method) = path.split_at(path.find('/').ok_or_else(|| Error::NoMethod(shown()))?);
            Ok((Target::Direct(addresses(list).map_err(bad)?), checked_method(method, &shown)?))
        }
        "etcd" | "discov" => {
            // The query, if there is one, ends at the next slash, whatever the standard says of queries.
            let (head, query, tail) = match rest.split_once('?') {
                None => (rest, "", ""),
                Some((head, rest)) => {
                    let (query, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                    (head, query, tail)
                }
            };
            let (place, method) = match tail {
                "" if query.is_empty() => two_segments_off(head).ok_or_else(|| Error::NoMethod(shown()))?,
                _ => (head, tail),
            };
            Ok((Target::Etcd(name(place, query).map_err(bad)?), checked_method(method, &shown)?))
        }
        "consul" => Err(Error::Consul(shown())),
        "nacos" => Err(Error::Nacos(shown())),
        "k8s" | "kubernetes" => Err(Error::Kubernetes(shown())),
        other => Err(Error::Scheme(shown(), other.to_owned())),
    }
}

/// Where this server is to register, and with which account: `etcd://HOSTS/NAME?user=U&password=P`. An empty name
/// registers nothing; the account still counts for what is looked up in that etcd.
pub fn registration(target: &str) -> Result<(Name, Option<Account>), Error> {
    let bad = |why| Error::Address(crate::config::redact(target), why);
    let (scheme, rest) = target.split_once("://").ok_or_else(|| bad("it begins with etcd://"))?;
    match scheme {
        "etcd" | "discov" => {}
        "consul" => return Err(Error::Consul(crate::config::redact(target))),
        "nacos" => return Err(Error::Nacos(crate::config::redact(target))),
        other => return Err(Error::Scheme(crate::config::redact(target), other.to_owned())),
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let name = named(place, query).map_err(bad)?;
    let parameter = |wanted: &str| parameter(query, wanted).filter(|value| !value.is_empty());
    let account = parameter("user").map(|user| Account { user, password: parameter("password").unwrap_or_default() });
    Ok((name, account))
}

/// A name that must not be empty.
fn name(place: &str, query: &str) -> Result<Name, &'static str> {
    let name = named(place, query)?;
    if name.name.is_empty() {
        Err("it names no service: etcd://HOST:PORT/NAME/package.Service/Method")
    } else {
        Ok(name)
    }
}

/// `HOSTS/NAME`, or `/HOSTS` with the name in the query.
fn named(place: &str, query: &str) -> Result<Name, &'static str> {
    let (hosts, name) = match place.strip_prefix('/') {
        Some(hosts) => (hosts, parameter(query, "key").unwrap_or_default()),
        None => {
            let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
            (hosts, unescaped(path))
        }
    };
    let name = name.trim_matches('/').to_owned();
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err("the name is too long, or not text");
    }
    Ok(Name { hosts: addresses(hosts)?, name })
}

/// The last two segments, which are the method of gRPC; the name before them may have slashes itself.
fn two_segments_off(text: &str) -> Option<(&str, &str)> {
    let service = text.rfind('/').and_then(|at| text[..at].rfind('/'))?;
    Some(text.split_at(service))
}

fn checked_method(method: &str, shown: &dyn Fn() -> String) -> Result<String, Error> {
    let mut segments = method.split('/');
    let well_formed = segments.next() == Some("")
        && segments.next().is_some_and(|service| !service.is_empty())
        && segments.next().is_some_and(|name| !name.is_empty())
        && segments.next().is_none()
        && method.bytes().all(|byte| byte.is_ascii_graphic());
    if well_formed { Ok(method.to_owned()) } else { Err(Error::NoMethod(shown())) }
}

fn addresses(list: &str) -> Result<Vec<String>, &'static str> {
    let addresses: Vec<String> =
        list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(Into::into).collect();
    if addresses.is_empty() || !addresses.iter().all(|address| is_address(address)) {
        return Err("each host is HOST:PORT, several with a comma between them");
    }
    if addresses.len() > HOSTS_MAX { Err("it names too many hosts") } else { Ok(addresses) }
}

/// `host:port`, `1.2.3.4:port` or `[::1]:port`.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let named = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let numeric =
        host.starts_with('[') && host.ends_with(']') && host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_ok();
    !host.is_empty() && (named || numeric) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn parameter(query: &str, wanted: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// A path without its percent signs; unlike in a query, `+` is a plus.
fn unescaped(path: &str) -> String {
    let escaped = path.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(escaped.as_bytes()).next().map_or_else(String::new, |(text, _)| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(hosts: &[&str], name: &str) -> Target {
        Target::Etcd(Name { hosts: hosts.iter().map(ToString::to_string).collect(), name: name.into() })
    }

    #[test]
    fn every_form_that_go_zero_writes_is_read() {
        let direct = |list: &[&str]| Target::Direct(list.iter().map(ToString::to_string).collect());
        for (url, target) in [
            ("localhost:50081/p.S/M", direct(&["localhost:50081"])),
            ("[::1]:50081/p.S/M", direct(&["[::1]:50081"])),
            ("direct:///127.0.0.1:1,127.0.0.1:2/p.S/M", direct(&["127.0.0.1:1", "127.0.0.1:2"])),
            ("etcd://127.0.0.1:2379/trans/p.S/M", etcd(&["127.0.0.1:2379"], "trans")),
            ("discov://127.0.0.1:2379/trans.rpc/p.S/M", etcd(&["127.0.0.1:2379"], "trans.rpc")),
            ("etcd://h1:2379,h2:2379/trans/p.S/M", etcd(&["h1:2379", "h2:2379"], "trans")),
            // A name with slashes, which dtm splits in the wrong place.
            ("etcd://h:2379/shop/trans/p.S/M", etcd(&["h:2379"], "shop/trans")),
            // From go-zero v1.10.2 on.
            ("etcd:///127.0.0.1:2379?key=trans/p.S/M", etcd(&["127.0.0.1:2379"], "trans")),
            ("etcd:///h1:1,h2:2?key=shop%2Ftrans.rpc/p.S/M", etcd(&["h1:1", "h2:2"], "shop/trans.rpc")),
            ("etcd://h:2379/trans?x=y/p.S/M", etcd(&["h:2379"], "trans")),
        ] {
            assert_eq!(split(url), Ok((target, "/p.S/M".to_owned())), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_called_says_why() {
        for (url, words) in [
            ("localhost:50081", "without a gRPC method"),
            ("localhost:50081/p.S", "without a gRPC method"),
            ("localhost:50081/p.S/M/x", "without a gRPC method"),
            ("localhost/p.S/M", "each host is HOST:PORT"),
            ("etcd://h:2379", "without a gRPC method"),
            ("etcd://h:2379/p.S/M", "names no service"),
            ("etcd://h/trans/p.S/M", "each host is HOST:PORT"),
            ("etcd:///h:2379?key=/p.S/M", "names no service"),
            ("etcd:///h:2379?key=trans", "without a gRPC method"),
            ("direct:///h:1", "without a gRPC method"),
            ("consul://h:8500/trans?wait=14s/p.S/M", "Consul"),
            ("nacos://h:8848/trans/p.S/M", "Nacos"),
            ("k8s://shop/trans:8080/p.S/M", "SERVICE.NAMESPACE.svc"),
            ("ftp://h/p.S/M", "no address of the kind `ftp`"),
            ("etcd://u:hunter2@h:2379/trans/p.S/M", "HOST:PORT"),
        ] {
            let error = split(url).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn a_registration_may_have_an_account() {
        let of = |text: &str| registration(text).unwrap();
        assert_eq!(Target::Etcd(of("etcd://h:2379/dtmservice").0), etcd(&["h:2379"], "dtmservice"));
        let (name, account) = of("etcd://h1:1,h2:2/dtmservice?user=root&password=p%26w%2Fd");
        assert_eq!(Target::Etcd(name), etcd(&["h1:1", "h2:2"], "dtmservice"));
        assert_eq!(account, Some(Account { user: "root".into(), password: "p&w/d".into() }));
        assert_eq!(Target::Etcd(of("etcd:///h:1?key=a%2Fb").0), etcd(&["h:1"], "a/b"));
        assert_eq!(of("discov://h:1/?user=u").0.name, "");
        for bad in ["dtmservice", "etcd://", "etcd:///?key=a", "consul://h:8500/x", "redis://h:1/x"] {
            assert!(registration(bad).is_err(), "{bad}");
        }
    }
}
