//! Where the service of a gRPC branch is: from the branch's URL to an address to connect to.
//!
//! [`split`] needs no network; it is asked when a URL comes in, so that what can never be called is refused there.
//! [`Resolver::resolve`] is asked before every call and answers from memory. Another kind of address is one more
//! [`Service`]: read in `split`, looked up in `resolve`. Addresses in registries are [`crate::registry`]'s.

use super::Uncallable;
use crate::dial::reach::{Place, Reach, Refused, Scheme};
use crate::registry;
use http::uri::{Authority, PathAndQuery};
use std::sync::Arc;
use std::time::Duration;

/// A gRPC branch's URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub service: Service,
    /// `/package.Service/Method`.
    pub method: PathAndQuery,
}

/// What a URL says of where its service is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Service {
    /// The address itself.
    Direct(Endpoint),
    /// One of several instances: `etcd://…`, `discov://…`, `direct:///…`.
    Instances(registry::target::Target),
}

/// Somewhere to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub tls: bool,
    /// `host:port`.
    pub authority: Authority,
}

/// Reads `host:port/package.Service/Method`, also with `grpc://` or, for TLS, `grpcs://` before it, and the addresses
/// that go-zero makes.
pub fn split(url: &str) -> Result<Target, Uncallable> {
    let bad = || Uncallable::NoGrpc(url.to_owned());
    let (tls, rest) = match url.split_once("://") {
        None => (false, url),
        Some(("grpc", rest)) => (false, rest),
        Some(("grpcs", rest)) => (true, rest),
        Some(_) => {
            let (target, method) = registry::target::split(url)?;
            let method = method.parse().map_err(|_| bad())?;
            return Ok(Target { service: Service::Instances(target), method });
        }
    };
    let (address, method) = rest.split_once('/').ok_or_else(bad)?;
    let service = Service::Direct(endpoint(tls, address).ok_or_else(bad)?);
    Ok(Target { service, method: self::method(method).ok_or_else(bad)? })
}

/// Refuses what must not be called, as far as an address tells it.
pub fn check(service: &Service, reach: &Reach) -> Result<(), Refused> {
    let addresses = |scheme: Scheme, addresses: &[String]| {
        addresses.iter().try_for_each(|address| {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            reach.check(Place { scheme, host, port: port.parse().unwrap_or_default() })
        })
    };
    match service {
        Service::Direct(Endpoint { tls, authority }) => {
            let port = authority.port_u16().unwrap_or_default();
            reach.check(Place { scheme: Scheme::grpc(*tls), host: authority.host(), port })
        }
        Service::Instances(registry::target::Target::Direct(list)) => addresses(Scheme::Grpc, list),
        // One that is the configured registry is known to be right: its instances are looked at when they are called.
        Service::Instances(registry::target::Target::Etcd(_)) => Ok(()),
    }
}

/// An address as `host:port`, with nothing before or after.
pub fn endpoint(tls: bool, address: &str) -> Option<Endpoint> {
    let authority: Authority = address.parse().ok()?;
    let fits = !authority.host().is_empty() && authority.port_u16().is_some() && !address.contains('@');
    fits.then_some(Endpoint { tls, authority })
}

/// `package.Service/Method`, as the path of a request.
pub fn method(text: &str) -> Option<PathAndQuery> {
    let (service, method) = text.split_once('/')?;
    if service.is_empty() || method.is_empty() {
        return None;
    }
    format!("/{text}").parse().ok()
}

/// Knows where services are. One for the whole server.
pub struct Resolver {
    registry: Arc<registry::resolve::Resolver>,
}

impl Resolver {
    pub fn new(registry: Arc<registry::resolve::Resolver>) -> Self {
        Self { registry }
    }

    /// Where to connect to for the next call, in the order to try; never nowhere. Waits at most `within` for a first
    /// instance. The error says in words why there is none; the call is tried again.
    pub async fn resolve(&self, service: &Service, within: Duration) -> Result<Vec<Endpoint>, String> {
        match service {
            Service::Direct(endpoint) => Ok(vec![endpoint.clone()]),
            Service::Instances(target) => {
                let addresses = self.registry.instances(target, within).await.map_err(|error| error.to_string())?;
                Ok(addresses.iter().filter_map(|address| endpoint(false, address)).collect())
            }
        }
    }

    /// Whether an endpoint answered; one that does not is tried after others for a while.
    pub fn note(&self, service: &Service, endpoint: &Endpoint, answered: bool) {
        match service {
            Service::Direct(_) => {}
            Service::Instances(_) if answered => self.registry.reachable(endpoint.authority.as_str()),
            Service::Instances(_) => self.registry.unreachable(endpoint.authority.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_method() {
        for (url, tls, address, method) in [
            ("h:1/p.S/M", false, "h:1", "/p.S/M"),
            ("localhost:58080/busi.Busi/TransIn", false, "localhost:58080", "/busi.Busi/TransIn"),
            ("[::1]:1/p.S/M", false, "[::1]:1", "/p.S/M"),
            ("grpc://h:1/p.S/M", false, "h:1", "/p.S/M"),
            ("grpcs://h:443/p.S/M", true, "h:443", "/p.S/M"),
        ] {
            let Target { service: Service::Direct(endpoint), method: found } = split(url).unwrap() else {
                panic!("{url}")
            };
            assert_eq!((endpoint.tls, endpoint.authority.as_str(), found.as_str()), (tls, address, method), "{url}");
        }
        for url in
            ["h", "h:1", "h/p.S/M", "h:1/", "h:1/p.S", "h:1/p.S/", "h:x/p.S/M", ":1/p.S/M", "u@h:1/p.S/M", "/p.S/M"]
        {
            assert_eq!(split(url), Err(Uncallable::NoGrpc(url.into())), "{url}");
        }
        let in_etcd = split("etcd://h:2379/s/p.S/M").unwrap();
        assert!(matches!(in_etcd.service, Service::Instances(_)) && in_etcd.method == "/p.S/M", "{in_etcd:?}");
        assert!(matches!(split("consul://h:8500/s/p.S/M"), Err(Uncallable::Registry(_))));
    }
}
