//! Where the server may listen: beyond this machine only with tokens, or where somebody has said that it may be open.

use crate::config::Config;
use crate::fault::{Class, Fault};
use std::net::SocketAddr;

/// How open the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// Whoever asks needs a token.
    Tokens,
    /// Everybody on this machine may do everything.
    ThisMachine,
    /// Everybody who reaches it may do everything, and `security.allow_open` says that this is meant.
    Everybody,
}

/// Does the address take connections from this machine only?
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn with_tokens(config: &Config) -> bool {
    !config.security.tokens.is_empty() || config.security.tokens_file.is_some() || config.jwt.keys.is_some()
}

/// The address that is reached from elsewhere, with its setting.
fn open_address(config: &Config) -> Option<(&'static str, SocketAddr)> {
    [("http.listen", config.http.listen), ("grpc.listen", config.grpc_listen())]
        .into_iter()
        .find(|(_, address)| !is_loopback(*address))
}

/// Refuses to listen where anybody could do anything.
pub fn check(config: &Config) -> Result<Openness, Fault> {
    match open_address(config) {
        _ if with_tokens(config) => Ok(Openness::Tokens),
        None => Ok(Openness::ThisMachine),
        Some(_) if config.security.allow_open => Ok(Openness::Everybody),
        Some((setting, address)) => Err(Fault::new(
            Class::Config,
            format!(
                "will not listen on {address} ({setting}): it is reached from other machines, and without tokens whoever reaches it may sell, stop and change everything"
            ),
        )
        .hint("rushline token new ops --role operator   makes a token; its line goes into security.tokens or security.tokens_file")
        .hint("--security-allow-open true   listens all the same, where a network or a proxy keeps others away")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Roles, tokens::Token};

    fn listening(http: &str, grpc: Option<&str>) -> Config {
        let mut config = Config::default();
        config.http.listen = http.parse().unwrap();
        config.grpc.listen = grpc.map(|grpc| grpc.parse().unwrap());
        config
    }

    #[test]
    fn beyond_this_machine_only_with_tokens_or_a_word() {
        for (http, grpc) in [("127.0.0.1:1", None), ("[::1]:1", None), ("[::ffff:127.0.0.1]:1", Some("127.9.9.9:2"))] {
            assert_eq!(check(&listening(http, grpc)).unwrap(), Openness::ThisMachine);
        }
        for (http, grpc, named) in [
            ("0.0.0.0:1", None, "http.listen"),
            ("[::]:1", None, "http.listen"),
            ("10.0.0.1:1", Some("127.0.0.1:2"), "http.listen"),
            ("127.0.0.1:1", Some("0.0.0.0:2"), "grpc.listen"),
        ] {
            let mut config = listening(http, grpc);
            let fault = check(&config).unwrap_err();
            assert_eq!(fault.class, Class::Config);
            assert!(fault.what.contains(named) && fault.hints[1].contains("allow-open"), "{}", fault.what);
            config.security.allow_open = true;
            assert_eq!(check(&config).unwrap(), Openness::Everybody);
            config.security.tokens = vec![Token::new("a", Roles::ALL, Vec::new()).unwrap().1];
            assert_eq!(check(&config).unwrap(), Openness::Tokens);
        }
    }
}
