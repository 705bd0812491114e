//! Who may do what: tokens, their roles, and the one table that says which role a route asks for.
//!
//! [`rules`] is the table, [`Guard`] knows whom a token makes of its bearer, [`decide`] holds the two against each other.
//! `server/entry.rs` asks for every request of every door before it looks at anything else of it, and `server/hot.rs` for
//! the orders that it reads by hand. Without a token configured everybody may do everything, and `bind.rs` sees to it that
//! only this machine can ask.

pub mod bind;
mod files;
pub mod hosts;
pub mod jwt;
pub mod keys;
mod role;
pub mod rules;
pub mod tokens;

pub use files::follow;
pub use role::{Role, Roles};

use crate::config::Config;
use crate::fault::{Class, Fault};
use arc_swap::ArcSwap;
use jwt::Jwt;
use rules::Need;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;
use tokens::{Digest, Token};

/// Longest token that is looked at; a JWT with a few claims has about a thousand bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a token makes of whoever bears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As logs know them.
    pub name: String,
    pub roles: Roles,
    /// The sales for which `buyer` holds; none is all.
    pub sales: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub ends_s: Option<u64>,
}

/// Why a token makes nothing of its bearer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("this server does not know the token")]
    Token,
    /// In words: a JWT says enough of itself that its bearer may hear what is wrong with it.
    #[error("the token is a JWT that is not taken: {0}")]
    Jwt(&'static str),
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    NoToken,
    Unknown(Unknown),
    /// The caller's name, what they are, and what is asked.
    Role {
        name: String,
        has: Roles,
        needs: Roles,
    },
    /// The caller's name and the sale that is none of theirs.
    OtherSale {
        name: String,
        sale: String,
    },
}

/// May this caller do what has this need? `place` is the sale or the gid that it is about; `None`: nobody has read it yet,
/// and whoever does must ask again.
pub fn decide(need: Need, caller: &Caller, place: Option<&str>) -> Result<(), Denied> {
    let Need::Role(needs) = need else { return Ok(()) };
    let by_other_role = caller.roles.without(Role::Buyer).meets(needs);
    if !caller.roles.meets(needs) {
        return Err(Denied::Role { name: caller.name.clone(), has: caller.roles, needs });
    }
    if by_other_role || caller.sales.is_empty() {
        return Ok(());
    }
    let Some(place) = place else { return Ok(()) };
    // A gid begins with its sale, and a sale's name has no dot.
    let sale = place.split('.').next().unwrap_or_default();
    let theirs = caller.sales.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => sale.starts_with(start),
        None => sale == pattern,
    });
    if theirs { Ok(()) } else { Err(Denied::OtherSale { name: caller.name.clone(), sale: sale.to_owned() }) }
}

fn digest(secret: &[u8]) -> Digest {
    Sha256::digest(secret).into()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

type Known = HashMap<Digest, Arc<Caller>>;

/// Knows callers by their tokens.
#[derive(Default)]
pub struct Guard {
    /// Are there tokens at all? Fixed while the server runs: an emptied file locks out, it does not open.
    on: bool,
    configured: Vec<Token>,
    file: Option<PathBuf>,
    known: ArcSwap<Known>,
    jwt: Option<Jwt>,
}

impl Guard {
    /// As the configuration has it. A file that cannot be read stops the start.
    pub async fn new(config: &Config) -> anyhow::Result<Self> {
        let (security, jwt) = (&config.security, &config.jwt);
        let jwt = match (&jwt.keys, &jwt.issuer, &jwt.audience) {
            (Some(keys), Some(issuer), Some(audience)) => {
                Some(Jwt::new(keys.clone(), issuer.clone(), audience.clone()).await?)
            }
            _ => None,
        };
        let guard = Self {
            on: !security.tokens.is_empty() || security.tokens_file.is_some() || jwt.is_some(),
            configured: security.tokens.clone(),
            file: security.tokens_file.clone(),
            known: ArcSwap::default(),
            jwt,
        };
        guard.reload().map_err(|error| Fault::new(Class::Config, error))?;
        Ok(guard)
    }

    /// Is a token asked for?
    pub fn is_on(&self) -> bool {
        self.on
    }

    pub fn tokens(&self) -> usize {
        self.known.load().len()
    }

    pub fn jwt(&self) -> Option<&Jwt> {
        self.jwt.as_ref()
    }

    /// The file that tokens are read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file of tokens again. With an error all stays as it was.
    pub fn reload(&self) -> Result<(), String> {
        let mut tokens = self.configured.clone();
        if let Some(path) = &self.file {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("the tokens in {shown} (security.tokens_file) cannot be read: {error}"))?;
            tokens.extend(Token::parse_all(&text).map_err(|error| format!("{shown}: {error}"))?);
        }
        tokens::check(&tokens)?;
        self.known.store(Arc::new(tokens.iter().map(|token| (token.digest, Arc::new(token.caller()))).collect()));
        Ok(())
    }

    /// A token that this process made for itself.
    pub fn lend(&self, name: &str) -> Result<String, String> {
        let (secret, token) = Token::new(name, Roles::ALL, Vec::new())?;
        let mut known = Known::clone(&self.known.load());
        known.insert(token.digest, Arc::new(token.caller()));
        self.known.store(Arc::new(known));
        Ok(secret)
    }

    /// Whom this token makes of its bearer. One digest and one look-up: what a comparison could tell of the time that it
    /// takes is of the digest, from which nobody gets to a token.
    pub fn caller(&self, secret: &[u8]) -> Result<Arc<Caller>, Unknown> {
        if secret.len() > TOKEN_BYTES_MAX {
            return Err(Unknown::Token);
        }
        let digest = digest(secret);
        if let Some((known, caller)) = self.known.load().get_key_value(&digest)
            && bool::from(known.ct_eq(&digest))
        {
            return Ok(caller.clone());
        }
        match &self.jwt {
            Some(jwt) if jwt::looks_like_one(secret) => jwt.caller(secret, digest, now_s()),
            _ => Err(Unknown::Token),
        }
    }

    /// May an order of this sale be placed with what `authorization` says? For the hot path: no table is looked at.
    pub fn may_place(&self, sale: &str, authorization: Option<&[u8]>) -> Result<(), Denied> {
        if !self.on {
            return Ok(());
        }
        let secret = authorization.and_then(bearer).ok_or(Denied::NoToken)?;
        let caller = self.caller(secret).map_err(Denied::Unknown)?;
        decide(rules::PLACE.need, &caller, Some(sale))
    }
}

/// The token of `Bearer TOKEN`.
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(roles: &[Role], sales: &[&str]) -> Caller {
        let sales = sales.iter().map(|sale| (*sale).to_owned()).collect();
        Caller { name: "c".into(), roles: Roles::of(roles), sales, ends_s: None }
    }

    #[test]
    fn a_role_is_asked_for_and_a_sale_narrows_buyers_only() {
        let place = rules::PLACE.need;
        let follow = rules::find("GET", "/v1/orders/x").unwrap().need;
        assert_eq!(decide(place, &caller(&[Role::Buyer], &[]), Some("any")), Ok(()));
        assert!(matches!(decide(place, &caller(&[Role::Reader], &[]), Some("any")), Err(Denied::Role { .. })));
        let narrow = caller(&[Role::Buyer], &["nov22", "spring-*"]);
        for (at, may) in
            [("nov22", true), ("nov22.0.1-0.0", true), ("nov2", false), ("spring-1", true), ("%6eov22", false)]
        {
            assert_eq!(decide(place, &narrow, Some(at)).is_ok(), may, "{at}");
        }
        assert!(
            matches!(decide(follow, &narrow, Some("dec.0.1-0.0")), Err(Denied::OtherSale { sale, .. }) if sale == "dec")
        );
        let reads_too = caller(&[Role::Buyer, Role::Reader], &["nov22"]);
        assert_eq!(decide(follow, &reads_too, Some("dec.0.1-0.0")), Ok(()));
        assert!(decide(place, &reads_too, Some("dec")).is_err());
        assert_eq!(decide(Need::Token, &caller(&[], &[]), None), Ok(()));
    }

    #[tokio::test]
    async fn a_token_is_known_by_its_hash() {
        let (secret, token) = Token::new("shop", Roles::of(&[Role::Buyer]), Vec::new()).unwrap();
        let mut config = Config::default();
        config.security.tokens = vec![token];
        let guard = Guard::new(&config).await.unwrap();
        assert_eq!(guard.caller(secret.as_bytes()).unwrap().name, "shop");
        assert_eq!(guard.caller(b"rl_other"), Err(Unknown::Token));
        assert_eq!(guard.caller(&vec![b'a'; TOKEN_BYTES_MAX + 1]), Err(Unknown::Token));
        let header = format!("bearer  {secret} ");
        assert_eq!(guard.may_place("s", Some(header.as_bytes())), Ok(()));
        assert_eq!(guard.may_place("s", None), Err(Denied::NoToken));
        assert_eq!(guard.may_place("s", Some(b"Basic abc")), Err(Denied::NoToken));
        assert_eq!(guard.may_place("s", Some(b"Bearer ")), Err(Denied::Unknown(Unknown::Token)));
        assert_eq!(Guard::default().may_place("s", None), Ok(()), "without tokens everybody may");
    }
}
