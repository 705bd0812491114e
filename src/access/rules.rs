//! Who may ask for what: one table for every door.
//!
//! HTTP by method and path, gRPC by its path, JSON-RPC by its one address: all its methods are a coordinator client's. A
//! route that has no line here is an operator's, and `tests/it/access` fails until it has one. To add a route, add a line.

use super::role::{Role, Roles};
use std::collections::HashMap;
use std::sync::LazyLock;

/// What is asked of a caller, where there are tokens at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// Any token that is known.
    Token,
    /// One of these roles.
    Role(Roles),
}

const OPEN: Need = Need::Nothing;
const KNOWN: Need = Need::Token;
const BUY: Need = Need::Role(Roles::of(&[Role::Buyer, Role::Operator]));
const FOLLOW: Need = Need::Role(Roles::of(&[Role::Buyer, Role::Reader, Role::Operator]));
const READ: Need = Need::Role(Roles::of(&[Role::Reader, Role::Operator]));
const COORDINATE: Need = Need::Role(Roles::of(&[Role::Client, Role::Operator]));
const LOOK_UP: Need = Need::Role(Roles::of(&[Role::Client, Role::Reader, Role::Operator]));
const OPERATE: Need = Need::Role(Roles::of(&[Role::Operator]));

/// One line of the table.
#[derive(Debug)]
pub struct Rule {
    pub method: &'static str,
    /// With `{…}` for a part that may be anything.
    pub path: &'static str,
    pub need: Need,
}

impl Rule {
    /// What only operators do is written into their log.
    pub fn is_operators(&self) -> bool {
        self.need == OPERATE
    }
}

const fn rule(method: &'static str, path: &'static str, need: Need) -> Rule {
    Rule { method, path, need }
}

/// What is not in the table.
pub static UNLISTED: Rule = rule("any", "not listed", OPERATE);

pub static RULES: &[Rule] = &[
    // The dashboard's files say nothing of what is going on; what they ask for does.
    rule("GET", "/", OPEN),
    rule("GET", "/ui/{name}", OPEN),
    rule("GET", "/docs", OPEN),
    rule("GET", "/admin", OPEN),
    rule("GET", "/admin/", OPEN),
    rule("GET", "/v1/openapi.json", OPEN),
    rule("GET", "/healthz", OPEN),
    rule("GET", "/readyz", OPEN),
    rule("POST", "/v1/login", OPEN),
    rule("POST", "/v1/logout", OPEN),
    rule("GET", "/v1/whoami", KNOWN),
    // Buyers, in front of whom the shop stands.
    rule("POST", "/v1/sales/{sale}/orders", BUY),
    rule("GET", "/v1/orders/{gid}", FOLLOW),
    rule("GET", "/v1/orders/{gid}/events", FOLLOW),
    rule("POST", "/v1/orders/{gid}/confirm", BUY),
    rule("POST", "/v1/orders/{gid}/cancel", BUY),
    rule("POST", "/v1/orders/{gid}/extend", BUY),
    // Whoever watches.
    rule("GET", "/metrics", READ),
    rule("GET", "/api/metrics", READ),
    rule("GET", "/v1/overview", READ),
    rule("GET", "/v1/live", READ),
    rule("GET", "/v1/sales", READ),
    rule("GET", "/v1/sales/{sale}", READ),
    rule("GET", "/v1/sales/{sale}/changes", READ),
    rule("GET", "/v1/sales/{sale}/audit", READ),
    rule("GET", "/v1/sales/{sale}/lost", READ),
    rule("GET", "/v1/sales/{sale}/records", READ),
    rule("GET", "/v1/sales/{sale}/orders", READ),
    rule("GET", "/v1/sales/{sale}/buyers/{buyer}", READ),
    rule("GET", "/v1/orders/{gid}/why", READ),
    rule("GET", "/v1/transactions", READ),
    rule("GET", "/v1/transactions/{gid}", READ),
    // Whoever steers.
    rule("POST", "/v1/sales", OPERATE),
    rule("PATCH", "/v1/sales/{sale}", OPERATE),
    rule("POST", "/v1/sales/{sale}/stock", OPERATE),
    rule("POST", "/v1/sales/{sale}/repair", OPERATE),
    rule("POST", "/v1/orders/{gid}/return", OPERATE),
    rule("POST", "/v1/orders/{gid}/retry", OPERATE),
    rule("POST", "/v1/transactions/{gid}/retry", OPERATE),
    rule("POST", "/v1/transactions/{gid}/stop", OPERATE),
    // dtm's interface over HTTP and JSON-RPC.
    rule("GET", "/api/ping", OPEN),
    rule("GET", "/api/dtmsvr/version", KNOWN),
    rule("POST", "/api/json-rpc", COORDINATE),
    rule("GET", "/api/dtmsvr/newGid", COORDINATE),
    rule("POST", "/api/dtmsvr/prepare", COORDINATE),
    rule("POST", "/api/dtmsvr/submit", COORDINATE),
    rule("POST", "/api/dtmsvr/abort", COORDINATE),
    rule("POST", "/api/dtmsvr/registerBranch", COORDINATE),
    rule("POST", "/api/dtmsvr/registerXaBranch", COORDINATE),
    rule("POST", "/api/dtmsvr/registerTccBranch", COORDINATE),
    rule("POST", "/api/dtmsvr/prepareWorkflow", COORDINATE),
    rule("GET", "/api/dtmsvr/query", LOOK_UP),
    rule("GET", "/api/dtmsvr/all", READ),
    rule("GET", "/api/dtmsvr/scanKV", READ),
    rule("GET", "/api/dtmsvr/queryKV", READ),
    rule("POST", "/api/dtmsvr/forceStop", OPERATE),
    rule("POST", "/api/dtmsvr/resetNextCronTime", OPERATE),
    rule("GET", "/api/dtmsvr/resetCronTime", OPERATE),
    rule("POST", "/api/dtmsvr/resetCronTime", OPERATE),
    rule("GET", "/api/dtmsvr/subscribe", OPERATE),
    rule("POST", "/api/dtmsvr/subscribe", OPERATE),
    rule("GET", "/api/dtmsvr/unsubscribe", OPERATE),
    rule("POST", "/api/dtmsvr/unsubscribe", OPERATE),
    rule("DELETE", "/api/dtmsvr/topic/{topic}", OPERATE),
    // gRPC.
    rule("POST", "/dtmgimp.Dtm/NewGid", COORDINATE),
    rule("POST", "/dtmgimp.Dtm/Prepare", COORDINATE),
    rule("POST", "/dtmgimp.Dtm/Submit", COORDINATE),
    rule("POST", "/dtmgimp.Dtm/Abort", COORDINATE),
    rule("POST", "/dtmgimp.Dtm/RegisterBranch", COORDINATE),
    rule("POST", "/dtmgimp.Dtm/PrepareWorkflow", COORDINATE),
    rule("POST", "/dtmgimp.Dtm/Subscribe", OPERATE),
    rule("POST", "/dtmgimp.Dtm/Unsubscribe", OPERATE),
    rule("POST", "/dtmgimp.Dtm/DeleteTopic", OPERATE),
    rule("POST", "/grpc.health.v1.Health/Check", OPEN),
    rule("POST", "/grpc.health.v1.Health/Watch", OPEN),
    rule("POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", KNOWN),
    rule("POST", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", KNOWN),
];

/// The rule for placing orders, which is asked for before anything is looked up.
pub static PLACE: Rule = rule("POST", "/v1/sales/{sale}/orders", BUY);

/// Those without a part that may be anything: most requests by far.
static PLAIN: LazyLock<HashMap<(&'static str, &'static str), &'static Rule>> = LazyLock::new(|| {
    RULES.iter().filter(|rule| !rule.path.contains('{')).map(|rule| ((rule.method, rule.path), rule)).collect()
});

/// The rule for a request. HEAD is GET without the body.
pub fn find(method: &str, path: &str) -> Option<&'static Rule> {
    let method = if method == "HEAD" { "GET" } else { method };
    if let Some(rule) = PLAIN.get(&(method, path)) {
        return Some(rule);
    }
    RULES.iter().find(|rule| rule.method == method && rule.path.contains('{') && part(rule.path, path).is_some())
}

/// What stands in `path` where the first `{…}` of `template` is; `None` if the path is another.
pub fn part<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let mut found = None;
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found.unwrap_or_default()),
            (Some(want), Some(part)) if want.starts_with('{') && !part.is_empty() => _ = found.get_or_insert(part),
            (Some(want), Some(part)) if want == part => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_finds_its_line() {
        let line = |method, path| find(method, path).map(|rule| rule.path);
        assert_eq!(line("GET", "/v1/sales"), Some("/v1/sales"));
        assert_eq!(line("HEAD", "/v1/sales/a"), Some("/v1/sales/{sale}"));
        assert_eq!(line("POST", "/v1/orders/s.0.1-0.0/confirm"), Some("/v1/orders/{gid}/confirm"));
        assert_eq!(line("POST", "/v1/sales/a/orders"), Some(PLACE.path));
        for (method, path) in [("PUT", "/v1/sales"), ("GET", "/v1/sales/"), ("GET", "/v1/sales/a/"), ("GET", "//")] {
            assert_eq!(line(method, path), None, "{method} {path}");
        }
        assert_eq!(part("/v1/orders/{gid}/why", "/v1/orders/g1/why"), Some("g1"));
        assert!(find("POST", "/v1/sales").is_some_and(Rule::is_operators));
    }

    #[test]
    fn no_line_stands_twice() {
        for (at, rule) in RULES.iter().enumerate() {
            let again = RULES[at + 1..].iter().any(|other| (other.method, other.path) == (rule.method, rule.path));
            assert!(!again, "{} {}", rule.method, rule.path);
        }
        let placing = RULES.iter().find(|rule| (rule.method, rule.path) == (PLACE.method, PLACE.path)).unwrap();
        assert_eq!(placing.need, PLACE.need);
    }
}
