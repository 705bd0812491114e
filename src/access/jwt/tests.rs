//! With keys made here; RS256, whose keys ring does not make, is in `tests/it/access/jwt.rs`.

use super::*;
use crate::access::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use ring::{hmac, signature};
use serde_json::json;

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
    let signature = encoded(&sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn by_secret(header: &Value, claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    signed(header, claims, |bytes| hmac::sign(&key, bytes).as_ref().to_vec())
}

fn claims(change: &Value) -> Value {
    let mut claims = json!({"sub": "anna", "iss": "shop", "aud": "rushline", "exp": NOW_S + 60, "roles": ["reader"]});
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn jwt(keys: &Value) -> Jwt {
    let keys = keys::parse(keys.to_string().as_bytes()).unwrap();
    Jwt::with("test".into(), "shop".into(), "rushline".into(), keys)
}

fn asked(jwt: &Jwt, token: &str) -> Result<Arc<Caller>, Unknown> {
    assert!(looks_like_one(token.as_bytes()));
    jwt.caller(token.as_bytes(), digest(token.as_bytes()), NOW_S)
}

fn secret_key() -> Value {
    json!({"keys": [{"kty": "oct", "k": encoded(SECRET), "kid": "s1"}]})
}

#[test]
fn its_claims_say_who_comes_and_as_what() {
    let jwt = jwt(&secret_key());
    let header = json!({"alg": "HS256", "kid": "s1"});
    let caller = asked(&jwt, &by_secret(&header, &claims(&json!({"roles": "operator boss", "sales": ["a"]})))).unwrap();
    assert_eq!((caller.name.as_str(), caller.roles), ("anna", Roles::of(&[Role::Operator])));
    assert_eq!((caller.sales.as_slice(), caller.ends_s), (&["a".to_owned()][..], Some(NOW_S + 60)));
    let nobody = asked(&jwt, &by_secret(&header, &claims(&json!({"roles": ["boss"]})))).unwrap();
    assert!(nobody.roles.is_empty());
}

#[test]
fn what_is_wrong_with_one_is_said() {
    let jwt = jwt(&secret_key());
    let header = json!({"alg": "HS256"});
    for (change, said) in [
        (json!({"exp": NOW_S - LEEWAY_S}), "exp"),
        (json!({"exp": null}), "exp"),
        (json!({"exp": "never"}), "exp"),
        (json!({"nbf": NOW_S + LEEWAY_S + 1}), "nbf"),
        (json!({"iss": "other"}), "iss"),
        (json!({"iss": null}), "claims"),
        (json!({"aud": ["x", "y"]}), "aud"),
        (json!({"aud": "not rushline"}), "aud"),
        (json!({"aud": null}), "aud"),
        (json!({"sales": {"a": 1}}), "sales"),
        (json!({"sales": []}), "sales"),
    ] {
        let Err(Unknown::Jwt(what)) = asked(&jwt, &by_secret(&header, &claims(&change))) else { panic!("{change}") };
        assert!(what.contains(said), "{change}: {what}");
    }
    assert!(asked(&jwt, &by_secret(&header, &claims(&json!({"aud": ["x", "rushline"], "nbf": NOW_S + 5})))).is_ok());
}

#[test]
fn the_key_decides_how_it_is_verified() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
    let by_curve = |header: &Value| {
        signed(header, &claims(&json!({})), |bytes| {
            let signature: signature::Signature = pair.sign(&random, bytes).unwrap();
            signature.as_ref().to_vec()
        })
    };
    let jwt = jwt(&json!({"keys": [
        {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "e1", "alg": "ES256", "use": "sig"},
        {"kty": "EC", "crv": "P-521", "x": x, "y": y},
    ]}));
    assert!(asked(&jwt, &by_curve(&json!({"alg": "ES256", "kid": "e1"}))).is_ok());
    assert!(asked(&jwt, &by_curve(&json!({"alg": "ES256"}))).is_ok());

    // The public key as a secret, no algorithm at all, another key's name, a claim changed afterwards.
    let confused = hmac::Key::new(hmac::HMAC_SHA256, point);
    let confused = signed(&json!({"alg": "HS256", "kid": "e1"}), &claims(&json!({})), |bytes| {
        hmac::sign(&confused, bytes).as_ref().to_vec()
    });
    let good = by_curve(&json!({"alg": "ES256"}));
    let [header, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let claims_changed = encoded(claims(&json!({"roles": ["operator"]})).to_string().as_bytes());
    let changed = format!("{header}.{claims_changed}.{signature}");
    let none = signed(&json!({"alg": "none"}), &claims(&json!({})), |_| Vec::new());
    for token in [
        confused,
        changed,
        none,
        by_curve(&json!({"alg": "ES256", "kid": "e2"})),
        by_curve(&json!({"alg": "ES256", "crit": ["exp"]})),
        by_curve(&json!({"alg": "RS256"})),
        "a.b.c".to_owned(),
        "..".to_owned(),
    ] {
        assert!(asked(&jwt, &token).is_err(), "{token}");
    }
}

#[test]
fn one_that_is_remembered_ends_all_the_same() {
    let jwt = jwt(&secret_key());
    let token = by_secret(&json!({"alg": "HS256"}), &claims(&json!({})));
    let at = |now_s| jwt.caller(token.as_bytes(), digest(token.as_bytes()), now_s);
    assert!(at(NOW_S).is_ok() && at(NOW_S + 60).is_ok());
    assert_eq!(at(NOW_S + 60 + LEEWAY_S), Err(Unknown::Jwt("it is over (exp)")));
}

#[test]
fn a_set_without_a_key_that_can_be_used_is_refused() {
    for set in [
        json!({"keys": []}),
        json!({"keys": [{"kty": "oct", "k": encoded(b"short")}]}),
        json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc"}]}),
        json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}]}),
        json!({}),
    ] {
        assert!(keys::parse(set.to_string().as_bytes()).is_err(), "{set}");
    }
}
