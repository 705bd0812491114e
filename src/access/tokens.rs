//! Tokens as they are configured: a name, roles and the hash of a secret that rushline itself does not keep.
//!
//! One is written `NAME:ROLE+ROLE:SHA256`, and `:SALE+SALE` behind it narrows what its role `buyer` may do to these sales
//! (`spring-*` is all whose names begin so). A secret has 256 random bits, so its hash needs no salt and no work factor.

use super::role::{Role, Roles};
use super::{Caller, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;
use std::fmt;

/// Most tokens of one server.
pub const TOKENS_MAX: usize = 1_000;
/// Longest name.
const NAME_BYTES_MAX: usize = 64;
/// How a token begins, so that one that got into a repository is found by whoever looks for secrets.
const START: &str = "rl_";

pub type Digest = [u8; 32];

/// One token. Its hash is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub roles: Roles,
    pub sales: Vec<String>,
    pub digest: Digest,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Without the hash: `shop:buyer`.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.name, self.roles)
    }
}

impl Token {
    /// Reads one. The error never shows the text: people do put the token itself where its hash belongs.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let (name, roles, hash, sales) = match parts[..] {
            [name, roles, hash] => (name, roles, hash, ""),
            [name, roles, hash, sales] => (name, roles, hash, sales),
            _ => return Err("a token has three or four parts: NAME:ROLE+ROLE:SHA256[:SALE+SALE]".into()),
        };
        // Names are shown everywhere, so this one must be none by mistake.
        if name.starts_with(START) {
            return Err(format!(
                "a token's name does not begin with {START}: the token itself does, and is kept nowhere"
            ));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_name) {
            return Err(format!("a token's name has 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _ - . @"));
        }
        let roles = roles.split('+').try_fold(Roles::NONE, |set, word| Some(set.with(Role::parse(word.trim())?)));
        let roles = roles.ok_or_else(|| {
            format!("token `{name}` has a role that there is not; roles are {}", Roles::ALL.words().join(", "))
        })?;
        let digest = from_hex(hash).ok_or_else(|| {
            format!(
                "token `{name}` has no SHA-256 of 64 hexadecimal digits; `rushline token new {name}` makes one with its hash"
            )
        })?;
        let sales: Vec<String> =
            sales.split('+').map(str::trim).filter(|sale| !sale.is_empty()).map(str::to_owned).collect();
        if !sales.is_empty() && !roles.has(Role::Buyer) {
            return Err(format!(
                "token `{name}` names sales, which narrows the role buyer only, and has not that role"
            ));
        }
        Ok(Self { name: name.to_owned(), roles, sales, digest })
    }

    /// Several, with commas or white space between them; `#` begins a comment up to the end of its line.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let words = lines.flat_map(|line| line.split(|c: char| c == ',' || c.is_whitespace()));
        let tokens = words.filter(|word| !word.is_empty()).map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        check(&tokens)?;
        Ok(tokens)
    }

    /// A new one: the secret, which nobody else keeps, and what is configured.
    pub fn new(name: &str, roles: Roles, sales: Vec<String>) -> Result<(String, Self), String> {
        let mut bytes = [0; 32];
        ring::rand::SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| "this system gives no random numbers".to_owned())?;
        let secret = format!("{START}{}", URL_SAFE_NO_PAD.encode(bytes));
        let token = Self { name: name.to_owned(), roles, sales, digest: digest(secret.as_bytes()) };
        // Whoever reads the line later has the same rules.
        Self::parse(&token.line()).map(|token| (secret, token))
    }

    /// As it is configured.
    pub fn line(&self) -> String {
        let hash: String = self.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let sales = if self.sales.is_empty() { String::new() } else { format!(":{}", self.sales.join("+")) };
        format!("{}:{:?}:{hash}{sales}", self.name, self.roles)
    }

    pub fn caller(&self) -> Caller {
        Caller { name: self.name.clone(), roles: self.roles, sales: self.sales.clone(), ends_s: None }
    }
}

/// Names are what the log knows callers by, and hashes what tells them apart.
pub fn check(tokens: &[Token]) -> Result<(), String> {
    if tokens.len() > TOKENS_MAX {
        return Err(format!("there are {} tokens, and at most {TOKENS_MAX} are read", tokens.len()));
    }
    for (at, token) in tokens.iter().enumerate() {
        for other in &tokens[at + 1..] {
            if other.name == token.name {
                return Err(format!("two tokens are called `{}`", token.name));
            }
            if other.digest == token.digest {
                return Err(format!("`{}` and `{}` have the same hash", token.name, other.name));
            }
        }
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<Digest> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = Digest::default();
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_read_back() {
        let roles = Roles::of(&[Role::Buyer, Role::Reader]);
        let (secret, token) = Token::new("shop", roles, vec!["spring-*".into()]).unwrap();
        assert_eq!(secret.len(), START.len() + 43);
        assert_eq!(Token::parse(&token.line()), Ok(token.clone()));
        assert_eq!(token.digest, digest(secret.as_bytes()));
        let shown = format!("{token} {token:?}");
        assert_eq!(shown, "shop:buyer+reader shop:buyer+reader");
    }

    #[test]
    fn what_is_wrong_is_said_and_no_secret_is_shown() {
        let hash = "0".repeat(64);
        let other = "1".repeat(64);
        for (text, said) in [
            ("hunter2", "three or four parts"),
            ("rl_hunter2:buyer:x", "does not begin with rl_"),
            ("shop:buyer:hunter2", "no SHA-256"),
            ("shop:admin:x", "roles are buyer, reader, client, operator"),
            (":buyer:x", "name"),
            ("a:reader:x:s:t", "three or four parts"),
        ] {
            let error = Token::parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains(said), "{error}");
        }
        assert!(Token::parse(&format!("a:reader:{hash}:s")).unwrap_err().contains("narrows the role buyer"));
        let twice = format!("a:reader:{hash}, a:client:{other}");
        assert_eq!(Token::parse_all(&twice), Err("two tokens are called `a`".into()));
        let same = format!("a:reader:{hash}\nb:client:{hash} # again");
        assert_eq!(Token::parse_all(&same), Err("`a` and `b` have the same hash".into()));
        assert_eq!(Token::parse_all(&format!("# none\n a:reader:{hash}, b:client:{other}")).unwrap().len(), 2);
    }
}
