//! A request as bytes, written in one go.

use super::Address;
use std::io::Write;

pub struct Request(Vec<u8>);

impl Request {
    /// The first line and the `host` field. `path` is [`Address::path`] or made of it: what was taken out of a URL has no
    /// line's end in it.
    pub fn new(method: &str, address: &Address, path: &str) -> Self {
        let mut bytes = Vec::with_capacity(512 + path.len());
        [method, " ", path, " HTTP/1.1\r\n"].into_iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        Self(bytes).field("host", address.authority.as_bytes())
    }

    /// `value` is a header value: without a line's end.
    pub fn field(mut self, name: &str, value: &[u8]) -> Self {
        debug_assert!(!value.contains(&b'\n'), "{name} would smuggle a line in");
        [name.as_bytes(), b": ", value, b"\r\n"].into_iter().for_each(|part| self.0.extend_from_slice(part));
        self
    }

    /// All of it, with a body and its length.
    pub fn with_body(mut self, body: &[u8]) -> Vec<u8> {
        let _ = write!(self.0, "content-length: {}\r\n\r\n", body.len()); // a Vec takes all
        self.0.extend_from_slice(body);
        self.0
    }

    pub fn without_body(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let address = Address::parse("http://h:81/a?b").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let posted = Request::new("POST", &address, &address.path).field("x", b"y").with_body(b"{}");
        assert_eq!(text(posted), "POST /a?b HTTP/1.1\r\nhost: h:81\r\nx: y\r\ncontent-length: 2\r\n\r\n{}");
        let asked = Request::new("GET", &address, "/").without_body();
        assert_eq!(text(asked), "GET / HTTP/1.1\r\nhost: h:81\r\n\r\n");
    }
}
