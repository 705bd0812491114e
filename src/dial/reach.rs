//! Whom this server calls for others: the walls around what URLs from outside can reach.
//!
//! A branch, a check-back, an order endpoint, a webhook: all are called from inside the shop's network, with an address that
//! somebody sent. [`Reach`] is the list of who may be called (setting `calls.allow`). It is asked twice: where a URL comes in
//! ([`Reach::check`]), so that its sender hears no, and for the very address that is connected to ([`Reach::check_address`]),
//! because only that counts: a name may mean something else by then, and a text may be read otherwise by whoever resolves it.
//!
//! Addresses that are for other purposes than services, above all those where clouds keep credentials, are called only where
//! the list names just them: neither `0.0.0.0/0` nor a name that leads there opens them.

use super::special::{Kind, Net, kind, plain};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// Rules of one list, and bytes of it: it is read by people.
const RULES_MAX: usize = 256;
const BYTES_MAX: usize = 16 * 1024;
/// What is called when nothing is said: everything that is a service's address.
pub const DEFAULT: &str = "loopback private public";
/// Names by which clouds call their metadata; their addresses are refused anyway, but only at the call.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata.goog"];

/// What is spoken to whoever is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    Grpc,
    /// gRPC by TLS.
    Grpcs,
    /// A registry that a branch's address names.
    Etcd,
}

const SCHEMES: [(&str, Scheme); 5] = [
    ("http", Scheme::Http),
    ("https", Scheme::Https),
    ("grpc", Scheme::Grpc),
    ("grpcs", Scheme::Grpcs),
    ("etcd", Scheme::Etcd),
];

impl Scheme {
    /// Of an HTTP call.
    pub fn http(tls: bool) -> Self {
        if tls { Self::Https } else { Self::Http }
    }

    /// Of a gRPC call.
    pub fn grpc(tls: bool) -> Self {
        if tls { Self::Grpcs } else { Self::Grpc }
    }
}

/// Where somebody wants to be called, as a URL says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    pub scheme: Scheme,
    /// A name or an address; an IPv6 address with its brackets or without.
    pub host: &'a str,
    pub port: u16,
}

impl Place<'_> {
    /// As names are compared: without brackets, and without the dot that ends a full name.
    fn bare_host(&self) -> &str {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host.strip_suffix('.').unwrap_or(host)
    }

    /// The address that the host is, however it is spelled: `0x7f.1` and `2130706433` are 127.0.0.1 to resolvers.
    fn literal(&self) -> Option<IpAddr> {
        let host = self.bare_host();
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(plain(address));
        }
        let last = host.rsplit('.').next().unwrap_or(host);
        if !last.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        match url::Host::parse(host) {
            Ok(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            _ => None,
        }
    }
}

/// Who may not be called, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{host} may not be called: {what}, and the setting calls.allow does not name it")]
    Special { host: String, what: String },
    #[error("{host} may not be called: the setting calls.allow does not name it")]
    NotListed { host: String },
}

/// One word of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    scheme: Option<Scheme>,
    whom: Whom,
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Loopback,
    Private,
    Public,
    Net(Net),
    /// This name.
    Name(String),
    /// Every name that ends so, dot included.
    Below(String),
}

/// The list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    text: String,
    rules: Vec<Rule>,
    /// Some rule holds for any name, port and scheme: then a name's address alone decides.
    any_name: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self::parse(DEFAULT).expect("the default list is one; a test reads it")
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Reach {
    /// Reads a list: words with spaces or commas between them. The error names the word.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("has more than {BYTES_MAX} bytes"));
        }
        let words = text.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty());
        let rules = words.map(Rule::parse).collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(format!("must have 1 to {RULES_MAX} words, has {}", rules.len()));
        }
        let any_name = rules.iter().any(|rule| rule.scheme.is_none() && rule.ports.is_none() && rule.is_of_addresses());
        Ok(Self { text: text.trim().to_owned(), rules, any_name })
    }

    /// Refuses what no look-up of its name could make right. An address is judged here and now.
    pub fn check(&self, place: Place<'_>) -> Result<(), Refused> {
        if let Some(address) = place.literal() {
            return self.check_address(place, address);
        }
        let host = place.bare_host();
        if METADATA_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name)) && !self.names(place) {
            let what = "it is where clouds keep metadata and credentials of their machines".into();
            return Err(Refused::Special { host: place.host.to_owned(), what });
        }
        let may_be = |rule: &Rule| rule.is_for(place) && (rule.is_of_addresses() || rule.names(host));
        match self.any_name || self.rules.iter().any(may_be) {
            true => Ok(()),
            false => Err(Refused::NotListed { host: place.host.to_owned() }),
        }
    }

    /// Refuses to connect to this address, which is what the place's host means now.
    pub fn check_address(&self, place: Place<'_>, address: IpAddr) -> Result<(), Refused> {
        let address = plain(address);
        let host = || match place.literal() {
            Some(_) => place.host.to_owned(),
            None => format!("{} ({address})", place.host),
        };
        let kind = kind(address);
        let fits = |rule: &Rule| match (&rule.whom, kind) {
            (Whom::Net(net), Kind::Special(special, _)) => net.is_within(&special) && net.contains(address),
            (_, Kind::Special(..)) => false,
            (Whom::Net(net), _) => net.contains(address),
            (Whom::Loopback, kind) => kind == Kind::Loopback,
            (Whom::Private, kind) => kind == Kind::Private,
            (Whom::Public, kind) => kind == Kind::Public,
            (Whom::Name(_) | Whom::Below(_), _) => rule.names(place.bare_host()),
        };
        match kind {
            _ if self.rules.iter().any(|rule| rule.is_for(place) && fits(rule)) => Ok(()),
            Kind::Special(_, purpose) => {
                Err(Refused::Special { host: host(), what: format!("its address is {purpose}") })
            }
            _ => Err(Refused::NotListed { host: host() }),
        }
    }

    /// Some rule has just this name.
    fn names(&self, place: Place<'_>) -> bool {
        self.rules.iter().any(|rule| rule.is_for(place) && rule.names(place.bare_host()))
    }
}

impl Rule {
    /// `[SCHEME://]WHOM[:PORT[-PORT]]`
    fn parse(word: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("has `{word}`: {why}");
        let (scheme, rest) = match word.split_once("://") {
            None => (None, word),
            Some((name, rest)) => {
                let known = SCHEMES.iter().find(|(known, _)| *known == name);
                let scheme = known.ok_or_else(|| bad("a scheme is http, https, grpc, grpcs or etcd"))?.1;
                (Some(scheme), rest)
            }
        };
        // An IPv6 address has colons of its own: with a port it stands in brackets, its bits behind them.
        let (whom, ports) = match rest.rsplit_once(':') {
            Some((whom, ports)) if !whom.contains(':') || whom.contains(']') => (whom, Some(ports)),
            _ => (rest, None),
        };
        let ports = ports.map(|ports| Self::ports(ports).ok_or_else(|| bad("a port is 1 to 65535, or FROM-TO")));
        let whom = match whom {
            "loopback" => Whom::Loopback,
            "private" => Whom::Private,
            "public" => Whom::Public,
            _ => match (Net::parse(&whom.replace(['[', ']'], "")), whom.strip_prefix("*.")) {
                (Some(net), _) => Whom::Net(net),
                (None, Some(suffix)) if is_name(suffix) => Whom::Below(format!(".{}", suffix.to_ascii_lowercase())),
                (None, None) if is_name(whom) => Whom::Name(whom.to_ascii_lowercase()),
                _ => {
                    return Err(bad(
                        "it is neither loopback, private, public, an address, ADDRESS/BITS, a name nor *.NAME",
                    ));
                }
            },
        };
        Ok(Self { scheme, whom, ports: ports.transpose()? })
    }

    fn ports(text: &str) -> Option<RangeInclusive<u16>> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (0 < first && first <= last).then_some(first..=last)
    }

    fn is_of_addresses(&self) -> bool {
        !matches!(self.whom, Whom::Name(_) | Whom::Below(_))
    }

    fn is_for(&self, place: Place<'_>) -> bool {
        self.scheme.is_none_or(|scheme| scheme == place.scheme)
            && self.ports.as_ref().is_none_or(|ports| ports.contains(&place.port))
    }

    fn names(&self, host: &str) -> bool {
        match &self.whom {
            Whom::Name(name) => host.eq_ignore_ascii_case(name),
            Whom::Below(end) => {
                let start = host.len().checked_sub(end.len()).filter(|start| *start > 0);
                start.and_then(|start| host.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
            }
            _ => false,
        }
    }
}

/// A host name, and none that is read as an address.
fn is_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
        && !last.starts_with(|first: char| first.is_ascii_digit())
}

static CURRENT: OnceLock<Reach> = OnceLock::new();

/// Sets the list of this process, once, before anybody is called; without it the default holds.
pub fn restrict(reach: Reach) {
    let _ = CURRENT.set(reach);
}

/// The list that holds in this process.
pub fn current() -> &'static Reach {
    CURRENT.get_or_init(Reach::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(host: &str, port: u16) -> Place<'_> {
        Place { scheme: Scheme::Http, host, port }
    }

    fn allows(list: &str, place: Place<'_>) -> bool {
        Reach::parse(list).unwrap().check(place).is_ok()
    }

    fn connects(list: &str, host: &str, address: &str) -> bool {
        Reach::parse(list).unwrap().check_address(http(host, 80), address.parse().unwrap()).is_ok()
    }

    #[test]
    fn services_are_called_and_metadata_is_not() {
        for host in ["localhost", "127.0.0.1", "[::1]", "10.1.2.3", "bank.shop.svc", "api.example.com", "8.8.8.8"] {
            assert!(allows(DEFAULT, http(host, 80)), "{host}");
        }
        // All ways to spell what is refused, as far as they can be read without asking anybody.
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "0xa9.0xfe.0xa9.0xfe",
            "0251.0376.0251.0376",
            "0251.254.169.0xfe",
            "169.254.43518",
            "169.16689662",
            "169.254.169.254.",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "::ffff:a9fe:a9fe",
            "[64:ff9b::169.254.169.254]",
            "[::169.254.169.254]",
            "[2002:a9fe:a9fe::]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "0.0.0.0",
            "0",
            "0x0",
            "[::]",
            "255.255.255.255",
            "224.0.0.1",
            "[ff02::1]",
            "metadata.google.internal",
            "METADATA.google.internal.",
        ] {
            let refused = Reach::default().check(http(host, 80)).unwrap_err();
            assert!(matches!(refused, Refused::Special { .. }), "{host}: {refused}");
        }
    }

    #[test]
    fn a_name_is_as_good_as_its_address() {
        let refused = Reach::default().check_address(http("evil.example", 80), "169.254.169.254".parse().unwrap());
        let said = refused.unwrap_err().to_string();
        assert!(
            said.starts_with("evil.example (169.254.169.254) may not be called: its address is link-local"),
            "{said}"
        );
        assert!(!connects("evil.example", "evil.example", "169.254.169.254"), "naming a host does not open these");
        assert!(!connects("0.0.0.0/0", "h", "169.254.169.254") && !connects("::/0", "h", "fe80::1"));
        assert!(connects("169.254.169.254", "h", "169.254.169.254") && connects("169.254.0.0/16", "h", "169.254.9.9"));
        assert!(!connects("169.254.169.254", "h", "169.254.169.253"));
        assert!(connects("evil.example", "evil.example", "10.0.0.1") && !connects("10.0.0.0/8", "h", "11.0.0.1"));
        assert!(connects("private", "h", "::ffff:10.0.0.1"), "what is reached counts, not how it is written");
    }

    #[test]
    fn a_list_may_be_narrow() {
        let list = "https://*.shop.example:443 grpc://10.0.0.0/8:50000-50100 [fd00::]/8:80 bank, 192.168.7.7:8080";
        let at = |scheme, host, port| Place { scheme, host, port };
        for place in [
            at(Scheme::Https, "a.shop.example", 443),
            at(Scheme::Https, "A.B.Shop.example.", 443),
            at(Scheme::Grpc, "10.9.9.9", 50_050),
            at(Scheme::Grpc, "somewhere", 50_000),
            at(Scheme::Http, "[fd00::1]", 80),
            at(Scheme::Etcd, "bank", 1),
            at(Scheme::Http, "192.168.7.7", 8080),
        ] {
            assert!(allows(list, place), "{place:?}");
        }
        for place in [
            at(Scheme::Http, "a.shop.example", 443),
            at(Scheme::Https, "a.shop.example", 444),
            at(Scheme::Https, "shop.example", 443),
            at(Scheme::Https, "evilshop.example", 443),
            at(Scheme::Https, "a.shop.example.evil", 443),
            at(Scheme::Grpc, "10.9.9.9", 49_999),
            at(Scheme::Grpc, "somewhere", 50_101),
            at(Scheme::Http, "[fd00::1]", 81),
            at(Scheme::Http, "[2606:4700::1]", 80),
            at(Scheme::Http, "192.168.7.8", 8080),
            at(Scheme::Http, "127.0.0.1", 8080),
            at(Scheme::Http, "banks", 81),
        ] {
            assert!(!allows(list, place), "{place:?}");
        }
        // What might be right by its name is judged once more by its address.
        let reach = Reach::parse(list).unwrap();
        let somewhere = at(Scheme::Grpc, "somewhere", 50_000);
        assert!(reach.check_address(somewhere, "10.0.0.9".parse().unwrap()).is_ok());
        let said = reach.check_address(somewhere, "11.0.0.9".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(said, "somewhere (11.0.0.9) may not be called: the setting calls.allow does not name it");
    }

    #[test]
    fn what_is_no_list_says_which_word() {
        for bad in [
            "",
            " , ",
            "ftp://h",
            "h:0",
            "h:1-0",
            "h:70000",
            "h:x",
            "10.0.0.0/33",
            "*",
            "*.",
            "h/8",
            "a b c/d",
            "http://",
            "1.2.3",
            "*.1.2",
            "u@h",
            "a..b",
            "é",
        ] {
            let error = Reach::parse(bad).unwrap_err();
            assert!(error.contains("must have 1 to") || error.contains('`'), "{bad}: {error}");
        }
        assert_eq!(Reach::default().to_string(), DEFAULT);
        assert!(Reach::parse(&"h ".repeat(RULES_MAX + 1)).is_err());
    }
}
