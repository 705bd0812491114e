//! The running server, seen from a client: its HTTP interface with bounds on time and size.

use super::connect::{self, Connector};
use super::terminal;
use crate::fault::{Class, Fault};
use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a local server may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long an answer may take, beyond what the request itself asks to wait.
pub const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Largest answer that is read: a sale with 10,000 SKUs is about 1 MiB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Which server to talk to.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// The running server.
    #[arg(
        long,
        value_name = "URL",
        env = "RUSHLINE_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:36789",
        help_heading = "Server"
    )]
    server: String,
    /// What the server knows you by; `rushline token new` makes one. A variable is not seen in the list of processes.
    #[arg(long, value_name = "TOKEN", env = "RUSHLINE_TOKEN", hide_env_values = true, help_heading = "Server")]
    token: Option<String>,
    /// Who signed the certificate of an https:// server, a PEM file, where that is nobody whom browsers trust.
    #[arg(long, value_name = "PATH", env = "RUSHLINE_CA", help_heading = "Server")]
    ca: Option<PathBuf>,
    /// Print JSON: every field of the answer.
    #[arg(long, help_heading = "Server")]
    pub json: bool,
}

impl ServerArgs {
    pub fn connect(&self) -> anyhow::Result<Server> {
        let token = self.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        Server::new(&self.server, token, self.ca.as_deref())
    }
}

/// Runs one command's I/O on a runtime of its own: a client needs no more than this thread.
pub fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

/// A server's HTTP interface.
pub struct Server {
    /// Without a slash at its end.
    base: String,
    client: Client<Connector, Full<Bytes>>,
    /// `Bearer TOKEN`
    authorization: Option<HeaderValue>,
}

/// An answer that is no error.
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Server {
    /// At this address, with a token, and with a root of the caller's own.
    pub fn new(url: &str, token: Option<&str>, ca: Option<&Path>) -> anyhow::Result<Self> {
        let bad = |what: &str| {
            Fault::new(Class::Usage, format!("--server {what}")).hint("for example --server http://127.0.0.1:36789")
        };
        let parsed = url::Url::parse(url).map_err(|error| bad("is no URL").because(error))?;
        if !["http", "https"].contains(&parsed.scheme()) {
            return Err(bad("must start with http:// or https://").into());
        }
        if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
            return Err(bad("must be an address only, without user, password or query").into());
        }
        let connector = Connector::new(connect::trusting(ca)?, CONNECT_MAX);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let mut authorization =
            authorization.map_err(|_| Fault::new(Class::Usage, "--token has characters that no token has"))?;
        if let Some(authorization) = &mut authorization {
            authorization.set_sensitive(true);
        }
        Ok(Self { base: parsed.as_str().trim_end_matches('/').to_owned(), client, authorization })
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.send(Method::GET, path, None, Duration::ZERO).await?.body)
    }

    /// Sends a request that may itself ask the server to wait for `wait`. Problem documents become a [`Fault`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> anyhow::Result<Answer> {
        self.send_with(method, path, &[], body, wait).await
    }

    /// The same with more headers.
    pub async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
        wait: Duration,
    ) -> anyhow::Result<Answer> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::ACCEPT, "application/json");
        for (name, value) in headers {
            // By its bytes: a person's name need not be ASCII.
            request = request.header(*name, value.as_bytes());
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(bytes.into())).with_context(|| format!("{path} is no address"))?;
        let within = wait + ANSWER_MAX;
        match tokio::time::timeout(within, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let what = format!("the server at {} did not answer within {} s", self.base, within.as_secs());
                Err(Fault::unreachable(what).hint("rushline doctor   checks the server's own connections").into())
            }
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let response = self.client.request(request).await.map_err(|error| {
            let what =
                if error.is_connect() { "cannot reach the server at" } else { "lost the connection to the server at" };
            Fault::unreachable(format!("{what} {}", self.base))
                .because(error)
                .hint("rushline serve   starts one here; --server URL or RUSHLINE_SERVER names another")
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            let too_large = error.is::<LengthLimitError>();
            let what = if too_large { "the answer is too large" } else { "the server's answer broke off" };
            Fault::unreachable(what).because(error)
        })?;
        let bytes = body.to_bytes();
        let json = serde_json::from_slice::<Value>(&bytes);
        if !status.is_success() {
            return Err(problem(status, json.ok().as_ref()).into());
        }
        let body = json.map_err(|error| {
            Fault::failed(format!("{} answered something that is not JSON", self.base))
                .because(error)
                .hint("is it a rushline server?")
        })?;
        Ok(Answer { status, body })
    }
}

/// A problem document (RFC 9457) as an error.
fn problem(status: StatusCode, document: Option<&Value>) -> Fault {
    let field = |name: &str| {
        document.and_then(|document| document.get(name)).and_then(Value::as_str).filter(|text| !text.is_empty())
    };
    let words =
        field("detail").or(field("title")).unwrap_or_else(|| status.canonical_reason().unwrap_or("the server refused"));
    let what = match field("code") {
        Some(code) => format!("{words} ({code})"),
        None => format!("{words} (HTTP {})", status.as_u16()),
    };
    let away =
        matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
    let fault = Fault::new(if away { Class::Unreachable } else { Class::Failed }, what);
    let hint = field("hint").or_else(|| hint_for(field("code").unwrap_or_default(), status));
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

fn hint_for(code: &str, status: StatusCode) -> Option<&'static str> {
    match code {
        "unknown_sale" => Some("rushline sale list   shows the sales there are"),
        "unknown_sku" => Some("rushline sale show SALE   lists its SKUs"),
        "sale_exists" => Some("rushline sale show SALE   shows it as it is; a new sale needs a new name"),
        "token_missing" => Some("export RUSHLINE_TOKEN=…   is what the server knows you by"),
        "unknown_order" => Some("a gid is the whole of <sale>.<partition>.<milliseconds>-<sequence>.<index>"),
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Some("rushline doctor   checks the server's own connections"),
        _ if status == StatusCode::NOT_FOUND && code.is_empty() => Some("is it a rushline server? see --server"),
        _ => None,
    }
}

/// Prints the answer as JSON, or as `human` renders it.
pub fn show(args: &ServerArgs, body: &Value, human: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
    if args.json { terminal::print_json(body) } else { terminal::print(&human(body)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_document_is_shown_with_its_code_and_a_hint() {
        let document =
            json!({"title": "Unknown sale", "detail": "there is no sale nov22", "code": "unknown_sale", "status": 404});
        let fault = problem(StatusCode::NOT_FOUND, Some(&document));
        assert_eq!(fault.to_string(), "there is no sale nov22 (unknown_sale)");
        assert_eq!(fault.class, Class::Failed);
        assert_eq!(fault.hints, ["rushline sale list   shows the sales there are"]);

        let fault = problem(StatusCode::SERVICE_UNAVAILABLE, None);
        assert_eq!(fault.to_string(), "Service Unavailable (HTTP 503)");
        assert_eq!(fault.class, Class::Unreachable);
    }

    #[test]
    fn a_server_out_of_reach_is_exit_code_4_and_says_what_to_do() {
        // Port 1 of this machine: nobody listens there.
        let error =
            block_on(async { Server::new("http://127.0.0.1:1", None, None)?.get("/v1/sales").await.map(|_| ()) })
                .unwrap_err();
        assert_eq!(terminal::exit_code(&error), 4);
        let shown = terminal::rendered(&error, false);
        assert!(shown.starts_with("error: cannot reach the server at http://127.0.0.1:1\n  because: "), "{shown}");
        assert!(shown.contains("\nhint: rushline serve"), "{shown}");
    }

    #[test]
    fn a_server_that_is_no_plain_address_is_a_usage_error() {
        for url in ["127.0.0.1:36789", "ftp://host", "http://u:hunter2@host", "http://host/?a=b"] {
            let error = Server::new(url, None, None).err().unwrap();
            assert_eq!(terminal::exit_code(&error), 2, "{url}");
            assert!(!terminal::rendered(&error, false).contains("hunter2"));
        }
    }
}
