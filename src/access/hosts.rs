//! By which names a server without tokens may be asked for.
//!
//! A browser lets a page talk to the server that the page came from, and knows that server by its name only. So whoever owns
//! a name can serve a page, then have the name mean 127.0.0.1 (DNS rebinding), and the page talks to whatever listens
//! there as if it were its own. What it cannot change is the name: the browser sends it in `Host`. An address cannot be
//! made to mean another, and `localhost` is nobody's to give away; any other name must have been named.

use super::bind::Openness;
use std::net::Ipv4Addr;

/// What is written for "by any name".
const ANY: &str = "*";

/// The names by which requests on HTTP/1 may ask for this server. HTTP/2 and gRPC are not looked at: no browser speaks them
/// without TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// `None`: any name.
    named: Option<Vec<String>>,
}

impl Hosts {
    /// As `security.hosts` has them: names with spaces or commas between. With tokens a name opens nothing, with TLS the
    /// browser holds it against the certificate, and where everybody may ask, names are looked at only if there are any.
    pub fn new(openness: Openness, tls: bool, text: Option<&str>) -> Self {
        let named: Vec<String> = text
            .unwrap_or_default()
            .split([' ', ','])
            .filter(|name| !name.is_empty())
            .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
            .collect();
        let any = named.iter().any(|name| name == ANY);
        let looked_at = match openness {
            _ if tls => false,
            Openness::Tokens => false,
            Openness::ThisMachine => !any,
            Openness::Everybody => !any && !named.is_empty(),
        };
        Self { named: looked_at.then_some(named) }
    }

    /// May a request with this `Host` be answered? Without one no browser asks.
    pub fn allow(&self, host: Option<&[u8]>) -> bool {
        let (Some(named), Some(host)) = (&self.named, host) else { return true };
        let Ok(host) = std::str::from_utf8(host) else { return false };
        if host.starts_with('[') {
            return true; // an IPv6 address
        }
        let name = host.split(':').next().unwrap_or_default();
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.parse::<Ipv4Addr>().is_ok() {
            return true;
        }
        let name = name.to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || named.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_localhost_are_nobodys_to_give_away() {
        let hosts = Hosts::new(Openness::ThisMachine, false, None);
        for host in
            ["127.0.0.1", "127.0.0.1:36789", "10.0.0.1:1", "[::1]:36789", "localhost", "LocalHost.:1", "a.localhost"]
        {
            assert!(hosts.allow(Some(host.as_bytes())), "{host}");
        }
        for host in
            ["evil.example", "evil.example:36789", "localhost.evil.example", "127.0.0.1.evil.example", "", "\u{e4}"]
        {
            assert!(!hosts.allow(Some(host.as_bytes())), "{host}");
        }
        assert!(!hosts.allow(Some(b"\xff")) && hosts.allow(None));
    }

    #[test]
    fn names_are_added_and_any_is_any() {
        let allow = |openness, text, host: &str| Hosts::new(openness, false, text).allow(Some(host.as_bytes()));
        let named = Some("Shop.example, till.example.");
        for host in ["shop.example", "SHOP.example.:80", "till.example:1"] {
            assert!(allow(Openness::ThisMachine, named, host), "{host}");
        }
        assert!(!allow(Openness::ThisMachine, named, "other.example"));
        assert!(allow(Openness::ThisMachine, Some("*"), "other.example"));
        assert!(allow(Openness::Everybody, None, "other.example"), "the names of a network are not known here");
        assert!(!allow(Openness::Everybody, named, "other.example"));
        assert!(allow(Openness::Tokens, named, "other.example"), "a name opens nothing where a token is asked for");
        assert!(
            Hosts::new(Openness::ThisMachine, true, named).allow(Some(b"other.example")),
            "its certificate is another's"
        );
    }
}
