//! Who may do what, asked of the real server: every route of every door as every role, TLS, the dashboard's login, where it
//! listens, and what is written of what operators do.

mod bind;
mod files;
mod hosts;
mod jwt;
mod log;
mod login;
mod matrix;
mod metrics;
mod routes;
mod scope;
mod tls;

use crate::support::app::{App, AppOptions, Http, Reply};
use http::Method;
use rushline::access::tokens::Token;
use rushline::access::{Role, Roles};
use serde_json::Value;
use std::time::Duration;

/// Everything that is waited for comes well within this.
const SOON: Duration = Duration::from_secs(20);

/// A token of each role, called by it.
struct Tokens {
    secrets: Vec<(Role, String)>,
    setting: String,
}

impl Tokens {
    fn new() -> Self {
        let mut lines = Vec::new();
        let secrets = Role::ALL.map(|role| {
            let (secret, token) = Token::new(role.as_str(), Roles::of(&[role]), Vec::new()).unwrap();
            lines.push(token.line());
            (role, secret)
        });
        Self { secrets: secrets.to_vec(), setting: lines.join(",") }
    }

    fn of(&self, role: Role) -> &str {
        &self.secrets.iter().find(|(of, _)| *of == role).unwrap().1
    }

    fn bearer(&self, role: Role) -> String {
        format!("Bearer {}", self.of(role))
    }

    fn options(&self) -> AppOptions {
        AppOptions::default().setting("security.tokens", &self.setting)
    }
}

/// Asks with these headers. An order goes over a connection of its own: one that has brought anything else is not read by
/// hand any more, and that way has a check of its own.
async fn ask(app: &App, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Reply {
    let http = if path.ends_with("/orders") { Http::new(app.base()) } else { app.http() };
    let method: Method = method.parse().unwrap();
    http.ask(method, path, headers, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Asks with a token.
async fn ask_as(app: &App, authorization: &str, method: &str, path: &str, body: Option<&Value>) -> Reply {
    ask(app, method, path, &[("authorization", authorization)], body).await
}
