//! JWTs (RFC 7519) as tokens: signed by a key of `jwt.keys`, made by `jwt.issuer` for `jwt.audience`, and not over yet.
//!
//! Their claim `roles` says what the bearer may do, a list or words with spaces between; `sales` may narrow the role buyer,
//! and `sub` is the name in logs. Written on ring, which is here for TLS anyway: three algorithms are a page, and a crate for
//! them would bring a second set of cryptography along. Whatever a token says of its own algorithm, the key's kind decides.

use super::keys::{self, Key};
use super::role::{Role, Roles};
use super::tokens::Digest;
use super::{Caller, Unknown};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How far clocks may be apart.
const LEEWAY_S: u64 = 30;
/// Tokens whose signature was looked at and that are remembered; then all are looked at again.
const REMEMBERED_MAX: usize = 10_000;
/// How often keys are fetched from a URL.
const FETCH_EVERY: Duration = Duration::from_secs(300);
/// A token with a key that is not known has them fetched sooner, but not more often than so.
const FETCH_AGAIN_AFTER: Duration = Duration::from_secs(30);
const NAME_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Whoever writes it wants it understood, and nothing of the kind is.
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    iss: String,
    #[serde(default)]
    aud: Value,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    roles: Value,
    #[serde(default)]
    sales: Value,
}

/// Three parts with dots between; a token of this server's own has none.
pub fn looks_like_one(secret: &[u8]) -> bool {
    secret.iter().filter(|byte| **byte == b'.').count() == 2
}

pub struct Jwt {
    /// A path or a URL.
    place: String,
    issuer: String,
    audience: String,
    keys: ArcSwap<Vec<Key>>,
    remembered: RwLock<HashMap<Digest, Arc<Caller>>>,
    /// Somebody came with a key that is not here.
    missed: Notify,
}

impl Jwt {
    /// Keys in a file must be there. Those of a URL may come later: a server that starts first is no reason to be down.
    pub async fn new(place: String, issuer: String, audience: String) -> anyhow::Result<Self> {
        let keys = match keys::load(&place).await {
            Ok(keys) => keys,
            Err(error) if keys::is_url(&place) => {
                tracing::warn!("{error}; JWTs are refused until they can be had");
                Vec::new()
            }
            Err(error) => return Err(crate::fault::Fault::new(crate::fault::Class::Config, error).into()),
        };
        Ok(Self::with(place, issuer, audience, keys))
    }

    fn with(place: String, issuer: String, audience: String, keys: Vec<Key>) -> Self {
        let keys = ArcSwap::from_pointee(keys);
        Self { place, issuer, audience, keys, remembered: RwLock::default(), missed: Notify::new() }
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// Reads the keys again, and with them all tokens. With an error all stays as it was.
    pub async fn reload(&self) {
        match keys::load(&self.place).await {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                if let Ok(mut remembered) = self.remembered.write() {
                    remembered.clear();
                }
            }
            Err(error) => tracing::warn!("{error}; those known before stay"),
        }
    }

    /// Keeps keys from a URL what they are there.
    pub async fn fetch_again(&self, mut stopping: watch::Receiver<bool>) {
        while keys::is_url(&self.place) {
            tokio::select! {
                () = tokio::time::sleep(FETCH_EVERY) => {}
                () = async { self.missed.notified().await; tokio::time::sleep(FETCH_AGAIN_AFTER).await } => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
            self.reload().await;
        }
    }

    /// Whom this one makes of its bearer. A signature is looked at once.
    pub fn caller(&self, token: &[u8], digest: Digest, now_s: u64) -> Result<Arc<Caller>, Unknown> {
        let known = self.remembered.read().ok().and_then(|remembered| remembered.get(&digest).cloned());
        if let Some(known) = known {
            return match known.ends_s {
                Some(ends_s) if ends_s.saturating_add(LEEWAY_S) <= now_s => Err(Unknown::Jwt("it is over (exp)")),
                _ => Ok(known),
            };
        }
        let caller = Arc::new(self.read(token, now_s).map_err(Unknown::Jwt)?);
        if let Ok(mut remembered) = self.remembered.write() {
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(digest, caller.clone());
        }
        Ok(caller)
    }

    fn read(&self, token: &[u8], now_s: u64) -> Result<Caller, &'static str> {
        const FORM: &str = "it has another form";
        let text = std::str::from_utf8(token).map_err(|_| FORM)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(FORM)?;
        let (header, claims) = signed.split_once('.').ok_or(FORM)?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| FORM);
        let header: Header = serde_json::from_slice(&part(header)?).map_err(|_| FORM)?;
        if header.crit.is_some() {
            return Err("it asks for something that is not understood (crit)");
        }
        self.check_signature(&header, signed.as_bytes(), &part(signature)?)?;
        // Only now is anything of it believed.
        let claims: Claims =
            serde_json::from_slice(&part(claims)?).map_err(|_| "its claims have another form, or no exp")?;
        self.caller_of(claims, now_s)
    }

    fn check_signature(&self, header: &Header, signed: &[u8], signature: &[u8]) -> Result<(), &'static str> {
        let keys = self.keys.load();
        let mut fitting = keys
            .iter()
            .filter(|key| header.kid.is_none() || key.id.is_none() || key.id == header.kid)
            .filter(|key| key.algorithm() == header.alg)
            .peekable();
        if fitting.peek().is_none() {
            self.missed.notify_one();
            return Err("none of the keys here is of its kind and name (alg, kid)");
        }
        fitting
            .any(|key| key.has_signed(signed, signature))
            .then_some(())
            .ok_or("its signature is not by a key of jwt.keys")
    }

    fn caller_of(&self, claims: Claims, now_s: u64) -> Result<Caller, &'static str> {
        let (now, leeway) = (now_s as f64, LEEWAY_S as f64);
        if claims.exp + leeway <= now {
            return Err("it is over (exp)");
        }
        if claims.nbf.is_some_and(|from| from - leeway > now) {
            return Err("it does not hold yet (nbf)");
        }
        if claims.iss != self.issuer {
            return Err("it is by another issuer (iss, setting jwt.issuer)");
        }
        if !words(&claims.aud, false).iter().any(|audience| *audience == self.audience) {
            return Err("it is for another audience (aud, setting jwt.audience)");
        }
        // Other systems have roles of their own in there.
        let roles =
            words(&claims.roles, true).iter().filter_map(|word| Role::parse(word)).fold(Roles::NONE, Roles::with);
        let name: String = claims.sub.chars().filter(|c| !c.is_control()).collect();
        let name = name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
        let sales: Vec<String> = words(&claims.sales, true).into_iter().map(str::to_owned).collect();
        // None would be all of them.
        if sales.is_empty() && !claims.sales.is_null() {
            return Err("its claim sales has another form");
        }
        Ok(Caller { name, roles, sales, ends_s: Some(claims.exp.min(u64::MAX as f64) as u64) })
    }
}

/// A list of words, or one text: of several words, where `split`.
fn words(value: &Value, split: bool) -> Vec<&str> {
    match value {
        Value::String(text) if split => text.split_whitespace().collect(),
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
