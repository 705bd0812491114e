//! The keys that JWTs are signed with: a JWK set (RFC 7517), from a file or from a URL.

use crate::http1::{self, Address, Request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hmac, signature};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;

/// Most keys of a set. An issuer has two or three.
const KEYS_MAX: usize = 32;
/// Longest file; what comes from a URL is bounded by who reads it.
const BYTES_MAX: u64 = 1 << 20;
/// How long a URL may take to answer.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// Shortest secret of HS256, as RFC 7518 has it.
const SECRET_BYTES_MIN: usize = 32;

pub struct Key {
    pub id: Option<String>,
    kind: Kind,
}

/// The kind fixes the algorithm: what a token says of it is only compared.
enum Kind {
    Rsa(signature::RsaPublicKeyComponents<Vec<u8>>),
    /// P-256, as an uncompressed point.
    Ec(Vec<u8>),
    Secret(Box<hmac::Key>),
}

impl Key {
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Rsa(_) => "RS256",
            Kind::Ec(_) => "ES256",
            Kind::Secret(_) => "HS256",
        }
    }

    /// Is this the key's signature of `signed`?
    pub fn has_signed(&self, signed: &[u8], given: &[u8]) -> bool {
        match &self.kind {
            Kind::Rsa(key) => key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, given).is_ok(),
            Kind::Ec(point) => {
                let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(signed, given).is_ok()
            }
            Kind::Secret(key) => hmac::verify(key, signed, given).is_ok(),
        }
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    #[serde(default)]
    k: String,
}

/// Reads a set; keys of kinds that are not used here are passed over, and one without any other is an error.
pub fn parse(text: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_slice(text).map_err(|error| format!("is no JWK set: {error}"))?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("has {} keys, and at most {KEYS_MAX} are read", set.keys.len()));
    }
    let keys: Vec<Key> = set.keys.into_iter().filter_map(key).collect();
    match keys.is_empty() {
        true => Err("has no key for RS256, ES256 (P-256) or HS256 (32 bytes at least)".into()),
        false => Ok(keys),
    }
}

fn key(jwk: Jwk) -> Option<Key> {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty());
    let kind = match (jwk.kty.as_str(), jwk.crv.as_str()) {
        ("RSA", _) => Kind::Rsa(signature::RsaPublicKeyComponents { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? }),
        ("EC", "P-256") => {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            (x.len() == 32 && y.len() == 32).then_some(())?;
            Kind::Ec([&[4][..], &x, &y].concat())
        }
        ("oct", _) => {
            let secret = bytes(&jwk.k).filter(|secret| secret.len() >= SECRET_BYTES_MIN)?;
            Kind::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
        }
        _ => return None,
    };
    let key = Key { id: jwk.kid, kind };
    let meant = jwk.alg.is_none_or(|algorithm| algorithm == key.algorithm());
    (meant && jwk.purpose.is_none_or(|purpose| purpose == "sig")).then_some(key)
}

/// Is it fetched, rather than read from a file?
pub fn is_url(place: &str) -> bool {
    place.starts_with("https://") || place.starts_with("http://")
}

/// Reads the set at `place`, a path or a URL.
pub async fn load(place: &str) -> Result<Vec<Key>, String> {
    let text = if is_url(place) { fetch(place).await } else { read(place).await };
    text.and_then(|text| parse(&text))
        .map_err(|error| format!("the keys at {place} (jwt.keys) cannot be used: {error}"))
}

async fn read(path: &str) -> Result<Vec<u8>, String> {
    let metadata = tokio::fs::metadata(Path::new(path)).await.map_err(|error| error.to_string())?;
    if metadata.len() > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    tokio::fs::read(path).await.map_err(|error| error.to_string())
}

async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let address = Address::parse(url).ok_or("it is no URL")?;
    let request = Request::new("GET", &address, &address.path).field("accept", b"application/json").without_body();
    let asking = async {
        let mut connection = http1::connect(&address).await?;
        connection.call(&request).await.map_err(|error| error.to_string())
    };
    let answer = tokio::time::timeout(FETCH_MAX, asking).await;
    let answer = answer.map_err(|_| format!("no answer within {} s", FETCH_MAX.as_secs()))??;
    match answer.status.is_success() {
        true => Ok(answer.body.to_vec()),
        false => Err(format!("status {}", answer.status)),
    }
}
