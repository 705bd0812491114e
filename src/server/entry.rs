//! Who comes in: asked once for every request that hyper reads, before anything else of it is looked at.
//!
//! The rule is in `access/rules.rs`; here a caller's token is found, a page of another site is kept from using an
//! operator's cookie, and a refusal is worded as the door has it. Orders on HTTP/1.1 ask in `hot.rs`.

use super::deed::Deed;
use super::grpc;
use super::problem::Problem;
use super::{App, Port, is_dtms};
use crate::access::rules::{self, Need, Rule};
use crate::access::{Caller, Denied, bearer, decide};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use metrics::counter;
use std::net::SocketAddr;
use std::sync::Arc;

/// The cookie that the dashboard's login leaves.
pub const COOKIE_NAME: &str = "rushline_token";
pub const OPERATOR: HeaderName = HeaderName::from_static("rushline-operator");

/// Lets a request in, or answers it. Whoever is known is the request's extension, and what only operators do its [`Deed`].
pub fn admit<B>(
    app: &App,
    port: Port,
    peer: SocketAddr,
    request: &mut Request<B>,
) -> Result<Option<Deed>, Box<Response>> {
    let (method, path) = (request.method().as_str(), request.uri().path());
    // dtm's router takes a slash too many, and sends whoever wrote it to the address without.
    let path = if is_dtms(path) { path.trim_end_matches('/') } else { path };
    let rule = rules::find(method, path).unwrap_or(&rules::UNLISTED);
    let place = rules::part(rule.path, path).unwrap_or_default().to_owned();
    let mut deed = rule.is_operators().then(|| Deed::new(rule, method, path, &place, peer));
    let decided = match app.guard.is_on() {
        true => check(app, rule, &place, request).map(Some),
        false if may_ask(app, port, request) => Ok(None),
        false => Err(No::other_host()),
    };
    match decided {
        Ok(caller) => {
            if let Some(caller) = caller.flatten() {
                if let Ok(name) = HeaderValue::from_bytes(caller.name.as_bytes()) {
                    // A token's name is known to be true; what a header says is not.
                    request.headers_mut().insert(OPERATOR, name);
                }
                request.extensions_mut().insert(caller);
            }
            if std::ptr::eq(rule, &rules::UNLISTED) {
                return Ok(None); // there is nothing at this address: nothing is done by asking for it
            }
            if let Some(deed) = &mut deed {
                deed.by(request.headers());
                request.extensions_mut().insert(deed.clone());
            }
            Ok(deed)
        }
        Err(no) => {
            counter!("rushline_denied_total", "reason" => no.code).increment(1);
            if let (Some(mut deed), Some(who)) = (deed, &no.who) {
                deed.by_name(who);
                deed.log(no.status.as_str());
            }
            Err(Box::new(no.response(port, request)))
        }
    }
}

/// Is this server asked for by a name that may?
fn may_ask<B>(app: &App, port: Port, request: &Request<B>) -> bool {
    let can_be_a_browser = port == Port::Http && request.version() < Version::HTTP_2;
    let mut hosts = request.headers().get_all(HOST).iter();
    !can_be_a_browser || hosts.all(|host| app.hosts.allow(Some(host.as_bytes())))
}

/// The caller, if one is known; `None` where anybody may.
fn check<B>(app: &App, rule: &Rule, place: &str, request: &Request<B>) -> Result<Option<Arc<Caller>>, No> {
    if rule.need == Need::Nothing {
        return Ok(None);
    }
    let (caller, by_cookie) = caller_of(app, request.headers())?;
    if by_cookie && changes(rule, request.method()) && !is_same_origin(request) {
        return Err(No::cross_site(&caller.name));
    }
    decide(rule.need, &caller, (!rule.place_is_inside()).then_some(place)).map_err(No::from)?;
    Ok(Some(caller))
}

/// Who bears this token, and whether it came by cookie.
fn caller_of(app: &App, headers: &HeaderMap) -> Result<(Arc<Caller>, bool), No> {
    if let Some(given) = headers.get(AUTHORIZATION) {
        let secret = bearer(given.as_bytes()).ok_or(Denied::NoToken)?;
        return Ok((app.guard.caller(secret).map_err(Denied::Unknown)?, false));
    }
    let secret = cookie(headers).ok_or(Denied::NoToken)?;
    Ok((app.guard.caller(secret.as_bytes()).map_err(Denied::Unknown)?, true))
}

/// The token in the cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == COOKIE_NAME && !value.is_empty()).map(|(_, value)| value)
}

/// dtm changes things by GET too.
fn changes(rule: &Rule, method: &Method) -> bool {
    rule.is_operators() || ![Method::GET, Method::HEAD].contains(method)
}

/// Was it asked for by a page of this server's own? The browser sends the cookie to nobody else's by itself
/// (`SameSite=Strict`); this holds where one does.
pub fn is_same_origin<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()?.split_once("://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
    origin.is_some_and(|(_, origin)| Some(origin) == host)
}

/// A refusal, before it is worded.
struct No {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Who was refused, where that is known.
    who: Option<String>,
}

impl No {
    fn cross_site(who: &str) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            code: "cross_site",
            detail: "a page of another site asked the browser for this; nothing was changed. Programs send their token in an Authorization header".into(),
            who: Some(who.to_owned()),
        }
    }

    fn other_host() -> Self {
        Self {
            status: StatusCode::MISDIRECTED_REQUEST,
            code: "other_host",
            detail: "this server has no tokens, and is asked for by a name that a page in a browser could have made up; nothing was changed. Ask by address or as localhost, add the name to security.hosts, or use tokens".into(),
            who: None,
        }
    }

    fn response<B>(self, port: Port, request: &Request<B>) -> Response {
        let path = request.uri().path();
        if grpc::is_grpc(request) || port == Port::Grpc {
            return grpc::refused(self.status, self.detail);
        }
        match is_dtms(path) {
            true => super::dtm::denied(self.status, path, &self.detail),
            false => Problem::from(self).into_response(),
        }
    }
}

impl From<Denied> for No {
    fn from(denied: Denied) -> Self {
        let (status, code) = match &denied {
            Denied::NoToken => (StatusCode::UNAUTHORIZED, "token_missing"),
            Denied::Unknown(_) => (StatusCode::UNAUTHORIZED, "token_unknown"),
            Denied::Role { .. } => (StatusCode::FORBIDDEN, "role_missing"),
            Denied::OtherSale { .. } => (StatusCode::FORBIDDEN, "other_sale"),
        };
        let (detail, who) = match denied {
            Denied::NoToken => (
                "this needs a token, and none came; nothing was changed. Send it as `Authorization: Bearer TOKEN`; the command line takes --token or RUSHLINE_TOKEN".into(),
                None,
            ),
            Denied::Unknown(unknown) => {
                (format!("{unknown}; nothing was changed. Ask whoever runs this server for one that is current"), None)
            }
            Denied::Role { name, has, needs } => {
                let has = if has.is_empty() { "no role here".into() } else { format!("the role {}", has.words().join(" and ")) };
                (
                    format!("the token `{name}` has {has}, and this needs {needs}; nothing was changed. Use another token, or have the role added to this one"),
                    Some(name),
                )
            }
            Denied::OtherSale { name, sale } => (
                format!("the token `{name}` is for other sales than `{sale}`; nothing was changed. Use another token, or have the sale added to this one"),
                Some(name),
            ),
        };
        Self { status, code, detail, who }
    }
}

impl From<No> for Problem {
    fn from(no: No) -> Self {
        Self::new(no.status, no.code, no.detail)
    }
}

/// For the hot path.
impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let no = No::from(denied);
        counter!("rushline_denied_total", "reason" => no.code).increment(1);
        no.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/v1/sales");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_cookie_among_others_is_found() {
        let of = |cookies: &str| cookie(request(&[("cookie", cookies)]).headers()).map(str::to_owned);
        assert_eq!(of("a=b; rushline_token=rl_x; c=d").as_deref(), Some("rl_x"));
        for none in ["", "a=b", "rushline_token=", "xrushline_token=y"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn a_page_is_of_this_server_or_it_is_not() {
        for (headers, same) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "http://h"), ("host", "h")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://h:1"), ("host", "h:1")], true),
            (&[("origin", "http://h:2"), ("host", "h:1")], false),
            (&[("origin", "null"), ("host", "h:1")], false),
            (&[("host", "h:1")], false),
        ] {
            assert_eq!(is_same_origin(&request(headers)), same, "{headers:?}");
        }
    }
}
