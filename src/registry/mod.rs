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
use std::net::{IpAddr, SocketAddr, UdpSocket};
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
    /// Reads the files that the settings name. `door` is where this server takes gRPC.
    pub fn open(settings: &config::Registry, door: SocketAddr) -> Result<Self, Fault> {
        let Some(target) = &settings.target else { return Ok(Self { resolver: Resolver::new(None), own: None }) };
        let (target::Name { hosts, name }, account) = target::registration(target.expose())
            .map_err(|error| Fault::new(Class::Config, "registry.target is not usable").because(error))?;
        let tls = tls(settings)?;
        let own = match settings.driver {
            RegistryDriver::GoZero if !name.is_empty() => {
                let endpoint = settings.endpoint.clone().map_or_else(|| reachable(door, &hosts), Ok)?;
                let client = Arc::new(etcd::Client::new(hosts.clone(), account.clone(), tls.clone()));
                Some(Own { client, name, endpoint })
            }
            RegistryDriver::GoZero | RegistryDriver::None => None,
        };
        Ok(Self { resolver: Resolver::new(Some(Trusted { hosts, account, tls })), own })
    }

    /// Asks the configured etcd who is registered under this server's name; in words, for a person. `None` if there
    /// is nothing to register.
    pub async fn look(&self) -> Option<Result<String, etcd::Error>> {
        let Own { client, name, endpoint } = self.own.as_ref()?;
        let looking = async {
            let session = client.session().await?;
            let (entries, _) = session.list(&etcd::Keys::Below(format!("{name}/"))).await?;
            let (host, count) = (session.host(), entries.len());
            Ok(format!("etcd at {host} has {count} of `{name}`; this server would be there as {endpoint}"))
        };
        Some(looking.await)
    }

    /// Begins to register this server, if it is to be registered. Its doors should be open by now.
    pub fn register(self) -> Option<register::Entry> {
        self.own.map(|own| register::Entry::keep(own.client, own.name, own.endpoint))
    }
}

/// The address under which others reach `door`: one that stands for all of this machine's is replaced as go-zero does,
/// by POD_IP, or by the one of its addresses that is used towards etcd.
fn reachable(door: SocketAddr, hosts: &[String]) -> Result<String, Fault> {
    if !door.ip().is_unspecified() {
        return Ok(door.to_string());
    }
    let pod: Option<IpAddr> = std::env::var("POD_IP").ok().and_then(|text| text.parse().ok());
    // Sends nothing: it only asks the system which way it would go.
    let towards = |host: &String| {
        let socket = UdpSocket::bind((door.ip(), 0)).ok()?;
        socket.connect(host).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let address = pod.or_else(|| hosts.iter().find_map(towards));
    address.map(|address| SocketAddr::new(address, door.port()).to_string()).ok_or_else(|| {
        Fault::new(Class::Config, format!("registry.endpoint is not set, and {door} is no address to register"))
            .hint("set registry.endpoint to the HOST:PORT under which services reach this server's gRPC")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_to_all_addresses_is_registered_under_one() {
        let reach = |door: &str| reachable(door.parse().unwrap(), &["127.0.0.1:2379".into()]).unwrap();
        assert_eq!(reach("10.1.2.3:36790"), "10.1.2.3:36790");
        if std::env::var_os("POD_IP").is_none() {
            assert_eq!(reach("0.0.0.0:36790"), "127.0.0.1:36790");
        }
    }
}
