//! URLs that may hold a password, and how they are shown.

use std::fmt;

/// A URL whose password is never printed: `Debug`, `Display` and JSON show `redis://user:***@host`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL as it was given, for the driver that connects. Never for a log, an error or an answer.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact(&self.0))
    }
}

impl serde::Serialize for SecretUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redact(&self.0))
    }
}

/// Parts of a query parameter's name that mark its value as secret.
const SECRET_WORDS: [&str; 4] = ["pass", "pwd", "secret", "token"];

/// `text` with the password of a URL in it, and secret query parameters, replaced by `***`.
///
/// Works on text that is no valid URL: a wrong one is shown in an error, and a stray `/`, `?` or `#` in the password
/// is the usual reason that it is wrong. When in doubt it masks too much.
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        // Without slashes it may still be meant as a URL with a password; a file's name may well have an `@`.
        return match text.rfind('@') {
            Some(at) if !text.starts_with("sqlite:") => format!("***@{}", redact_query(&text[at + 1..])),
            _ => redact_query(text),
        };
    };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest.rfind('@') {
        None => format!("{scheme}://{}", redact_query(rest)),
        Some(at) => {
            let tail = redact_query(&rest[at + 1..]);
            match rest[..at].split_once(':') {
                Some((user, _)) if at < authority_end => format!("{scheme}://{user}:***@{tail}"),
                None if at < authority_end => format!("{scheme}://{}@{tail}", &rest[..at]),
                _ => format!("{scheme}://***@{tail}"),
            }
        }
    }
}

fn redact_query(text: &str) -> String {
    let Some((head, query)) = text.split_once('?') else { return text.to_owned() };
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if SECRET_WORDS.iter().any(|word| name.to_lowercase().contains(word)) => {
                format!("{name}=***")
            }
            _ => pair.to_owned(),
        })
        .collect();
    format!("{head}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("redis://user:hunter2@host:6379/0", "redis://user:***@host:6379/0"),
            ("redis://:hunter2@host", "redis://:***@host"),
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("mongodb://u:hunter2@a:1,b:2/db?authSource=admin", "mongodb://u:***@a:1,b:2/db?authSource=admin"),
            ("unix:///run/redis.sock?db=1&pass=hunter2", "unix:///run/redis.sock?db=1&pass=***"),
            ("redis://u:hun/ter2@host", "redis://***@host"),
            ("redis://u:hun?ter2@host", "redis://***@host"),
            ("redis://u:hun#ter2@host", "redis://***@host"),
            ("redis://u:hun@ter2@host", "redis://u:***@host"),
            ("redis://u:hunter2@x/@host", "redis://***@host"),
            ("redis:u:hunter2@host", "***@host"),
            ("sqlite:orders.db?mode=rwc", "sqlite:orders.db?mode=rwc"),
            ("sqlite:a@b.db", "sqlite:a@b.db"),
        ] {
            assert_eq!(redact(url), shown);
            assert_eq!(format!("{}", SecretUrl::new(url)), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(url)), format!("{shown:?}"));
        }
    }
}
