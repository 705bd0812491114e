//! The dashboard's login: a token, once typed, stays in a cookie that no script can read and that no other site can use.
//!
//! There are no sessions: the cookie is the token, so every node knows it, and a token that is taken back is over.

use super::App;
use super::entry::{COOKIE_NAME, is_same_origin};
use super::json;
use super::problem::Problem;
use crate::access::{Caller, Roles};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::header::{ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How long the browser keeps it: a working day.
const KEPT_S: u64 = 12 * 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// Who is there, and what they may be.
#[derive(Serialize)]
pub struct Whoami {
    /// Are there tokens at all? Without, everybody may do everything.
    tokens: bool,
    name: String,
    roles: Vec<&'static str>,
}

fn view(caller: Option<&Caller>) -> Whoami {
    match caller {
        Some(caller) => Whoami { tokens: true, name: caller.name.clone(), roles: caller.roles.words() },
        None => Whoami { tokens: false, name: String::new(), roles: Roles::ALL.words() },
    }
}

/// `GET /v1/whoami`
pub async fn whoami(caller: Option<Extension<Arc<Caller>>>) -> Json<Whoami> {
    Json(view(caller.as_deref().map(|caller| &**caller)))
}

/// `POST /v1/login`
pub async fn login(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    same_origin(&headers)?;
    let login: Login = json::parse(&body, "invalid_login")?;
    if !app.guard.is_on() {
        return Ok(Json(view(None)).into_response());
    }
    let caller = app.guard.caller(login.token.trim().as_bytes()).map_err(|unknown| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "token_unknown",
            format!("{unknown}. `rushline token new` makes one; ask whoever runs this server"),
        )
    })?;
    let cookie = cookie(login.token.trim(), KEPT_S, is_over_tls(&app, &headers))?;
    tracing::info!(target: "rushline::operator", who = caller.name, what = "POST /v1/login", outcome = "200", "by hand");
    Ok(([(SET_COOKIE, cookie)], Json(view(Some(&caller)))).into_response())
}

/// `POST /v1/logout`
pub async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    same_origin(&headers)?;
    let cookie = cookie("", 0, is_over_tls(&app, &headers))?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// No other site logs anybody in or out. A program has no `Origin`.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(ORIGIN) && !headers.contains_key("sec-fetch-site") {
        return Ok(());
    }
    let mut request = Request::new(());
    *request.headers_mut() = headers.clone();
    if is_same_origin(&request) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", "a page of another site asked for this; nothing was changed"))
}

/// Here, or in front of a proxy: the browser says how it speaks.
fn is_over_tls(app: &App, headers: &HeaderMap) -> bool {
    let by_page = headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    app.settings.tls || by_page
}

fn cookie(token: &str, kept_s: u64, over_tls: bool) -> Result<HeaderValue, Problem> {
    let secure = if over_tls { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={token}; Path=/; Max-Age={kept_s}; HttpOnly; SameSite=Strict{secure}");
    // What is known as a token has no such character; what a JWT's issuer writes is base64 too.
    let clean = token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\";,\\".contains(&byte));
    let cookie = HeaderValue::from_str(&cookie).ok().filter(|_| clean);
    cookie.ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_login", "token: fits into no cookie"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_this_server_only() {
        let text = |over_tls| cookie("rl_x", 60, over_tls).unwrap().to_str().unwrap().to_owned();
        assert_eq!(text(false), "rushline_token=rl_x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict");
        assert!(text(true).ends_with("SameSite=Strict; Secure"));
        assert!(cookie("a;b", 60, false).is_err() && cookie("a b", 60, false).is_err());
    }
}
