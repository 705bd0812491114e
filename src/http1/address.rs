//! A URL, taken apart once: where to connect, and what to ask for there.

use crate::dial::reach::{Place, Scheme};
use url::{Position, Url};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub tls: bool,
    /// To connect to: an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    /// For the `host` field: with the port, unless it is the scheme's own.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Address {
    /// `None` if it is no http or https URL.
    pub fn parse(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Some(Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port_or_known_default()?,
            authority,
            path: url[Position::BeforePath..Position::AfterQuery].to_owned(),
        })
    }

    /// For whoever says if it may be called.
    pub fn place(&self) -> Place<'_> {
        Place { scheme: Scheme::http(self.tls), host: &self.host, port: self.port }
    }

    /// The path with more parameters: they follow the query that is there.
    pub fn with_query(&self, query: &str) -> String {
        if query.is_empty() {
            return self.path.clone();
        }
        let mut path = String::with_capacity(self.path.len() + 1 + query.len());
        path.push_str(&self.path);
        path.push(if self.path.contains('?') { '&' } else { '?' });
        path.push_str(query);
        path
    }

    /// What `location`, an answer's word for where to look instead, means to a call of `path` here.
    pub fn redirected(&self, path: &str, location: &str) -> Option<Self> {
        let scheme = if self.tls { "https" } else { "http" };
        let here = Url::parse(&format!("{scheme}://{}{path}", self.authority)).ok()?;
        Self::parse(here.join(location).ok()?.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_follow_the_query_that_is_there() {
        let path = |url: &str| Address::parse(url).unwrap().with_query("gid=g");
        assert_eq!(path("http://h/a"), "/a?gid=g");
        assert_eq!(path("http://h/a?b=c#d"), "/a?b=c&gid=g");
        assert_eq!(path("http://h"), "/?gid=g");
        let address = Address::parse("https://[::1]/x").unwrap();
        assert_eq!((address.tls, &*address.host, address.port, &*address.authority), (true, "::1", 443, "[::1]"));
        assert_eq!(Address::parse("http://h:81/").unwrap().authority, "h:81");
        for bad in ["", "h:1/a", "ftp://h/a", "http://", "topic://t"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_redirect_is_read_from_where_it_was_given() {
        let from = Address::parse("http://h:81/a/b?c=d").unwrap();
        let to = |location: &str| from.redirected("/a/b?c=d", location).map(|to| (to.authority, to.path));
        assert_eq!(to("/x"), Some(("h:81".into(), "/x".into())));
        assert_eq!(to("x"), Some(("h:81".into(), "/a/x".into())));
        assert_eq!(to("https://other/y?z"), Some(("other".into(), "/y?z".into())));
        assert_eq!(to("ftp://other/"), None);
    }
}
