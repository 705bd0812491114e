//! Registries: where services of the shop find this server, and where this server finds theirs.
//!
//! As go-zero does it in etcd: an instance is a key `NAME/<lease id>` whose value is its `host:port`, under a lease of
//! ten seconds that the instance keeps alive. [`register`] writes such a key for this server; [`resolve`] lists and
//! watches those of others and says which instance to call; [`target`] reads the addresses that go-zero's services use
//! (`etcd://HOSTS/NAME`, `discov://…`, `etcd:///HOSTS?key=NAME`, `direct:///…`). [`etcd`] is the client.
//!
//! A registry that is away stops nothing that runs: what was known of it stays in use, and it is asked again.

pub mod etcd;
pub mod register;
pub mod resolve;
pub mod target;

use crate::config::{self, RegistryDriver};
use crate::fault::{Class, Fault};
use resolve::{Resolver, Trusted};
use std::path::Path;
use std::sync::Arc;

/// What the configuration says of registries, made ready. Nothing is asked of an etcd yet.
pub struct Registry {
    pub resolver: Arc<Resolver>,
    /// The entry to keep, if there is to be one.
    own: Option<Own>,
}

struct Own {
    client: Arc<etcd::Client>,
    name: String,
    endpoint: String,
}

impl Registry {
    /// Reads the files that the settings name.
    pub fn open(settings: &config::Registry) -> Result<Self, Fault> {
        let Some(target) = &settings.target else { return Ok(Self { resolver: Resolver::new(None), own: None }) };
        let (target::Name { hosts, name }, account) = target::registration(target.expose())
            .map_err(|error| Fault::new(Class::Config, "registry.target is not usable").because(error))?;
        let tls = tls(settings)?;
        let own = settings.endpoint.clone().filter(|_| !name.is_empty() && settings.driver == RegistryDriver::GoZero);
        let own = own.map(|endpoint| Own {
            client: Arc::new(etcd::Client::new(hosts.clone(), account.clone(), tls.clone())),
            name,
            endpoint,
        });
        Ok(Self { resolver: Resolver::new(Some(Trusted { hosts, account, tls })), own })
    }

    /// Begins to register this server, if it is to be registered. Its doors should be open by now.
    pub fn register(self) -> Option<register::Entry> {
        self.own.map(|own| register::Entry::keep(own.client, own.name, own.endpoint))
    }
}

fn tls(settings: &config::Registry) -> Result<Option<etcd::Tls>, Fault> {
    let read = |setting: &str, path: &Path| {
        std::fs::read(path).map_err(|error| {
            let what = format!("{setting}: {} cannot be read", path.display());
            Fault::new(Class::Config, what).because(error).hint("it is a PEM file that this server's account may read")
        })
    };
    let Some(ca) = &settings.ca_file else { return Ok(None) };
    let identity = match (&settings.cert_file, &settings.key_file) {
        (Some(certificate), Some(key)) => {
            Some((read("registry.cert_file", certificate)?, read("registry.key_file", key)?))
        }
        _ => None,
    };
    Ok(Some(etcd::Tls { ca: read("registry.ca_file", ca)?, identity }))
}
