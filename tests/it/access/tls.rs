//! TLS on both ports, with real certificates: of the server, of clients, and new ones while it runs.

use super::{SOON, Tokens};
use crate::support::app::{App, eventually};
use crate::support::certificates::make_certificates_in;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rushline::access::Role;
use rushline::proto::dtmgimp::dtm_client::DtmClient;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_certificates_in(directory.path());
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

/// How a client comes: whom it trusts, and what it shows of itself.
struct Client<'a> {
    trusts: &'a Certificates,
    shows: Option<&'a Certificates>,
}

impl Client<'_> {
    async fn connect(
        &self,
        address: &str,
        protocol: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.trusts.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_file(own.path("client.pem")).unwrap()];
                let key = PrivateKeyDer::from_pem_file(own.path("client.key")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        Ok(stream)
    }

    /// Asks over one protocol: `h2`, or `http/1.1`.
    async fn ask(
        &self,
        address: &str,
        protocol: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(u16, Bytes), String> {
        let stream = TokioIo::new(self.connect(address, protocol).await?);
        let answer = match protocol {
            "h2" => {
                let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                    .await
                    .map_err(|e| e.to_string())?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
            _ => {
                // The path alone, as all clients send it; the whole address would be read by hyper only.
                *request.uri_mut() = request.uri().path().parse().unwrap();
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(stream).await.map_err(|e| e.to_string())?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        };
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes()))
    }

    async fn health(&self, address: &str) -> Result<u16, String> {
        self.ask(address, "http/1.1", request(address, "GET", "/healthz", None)).await.map(|(status, _)| status)
    }
}

fn request(address: &str, method: &str, path: &str, token: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(format!("https://{address}{path}")).header("host", address);
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let body = r#"{"buyer":"u1","items":[{"sku":"a","quantity":1}]}"#;
    request.body(Full::from(if method == "POST" { body } else { "" })).unwrap()
}

async fn start(certificates: &Certificates, tokens: &Tokens, more: &[(&str, String)]) -> (App, String) {
    let mut options = tokens
        .options()
        .setting("tls.cert", certificates.path("server.pem").display())
        .setting("tls.key", certificates.path("server.key").display());
    for (name, value) in more {
        options = options.setting(name, value);
    }
    let app = App::start(options).await;
    let address = app.base().trim_start_matches("https://").to_owned();
    assert_ne!(address, app.base(), "the banner says https");
    (app, address)
}

fn copy(from: &Certificates, to: &Certificates) {
    for name in ["server.key", "server.pem"] {
        std::fs::copy(from.path(name), to.path(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_speak_tls_and_take_new_certificates_while_they_run() {
    let (mine, other, tokens) = (Certificates::new(), Certificates::new(), Tokens::new());
    let (app, address) = start(&mine, &tokens, &[]).await;
    let buyer = tokens.bearer(Role::Buyer);
    let client = Client { trusts: &mine, shows: None };
    // An order by the hand-written way and by hyper: TLS is below both, and the token is asked for in both.
    for protocol in ["http/1.1", "h2"] {
        for (token, status) in [(Some(buyer.as_str()), 404), (None, 401)] {
            let order = request(&address, "POST", "/v1/sales/none/orders", token);
            let (found, body) = client.ask(&address, protocol, order).await.unwrap();
            assert_eq!(found, status, "{protocol}: {}", String::from_utf8_lossy(&body));
        }
    }
    // Larger than a record of TLS, so that it comes in pieces.
    let (status, body) =
        client.ask(&address, "http/1.1", request(&address, "GET", "/v1/openapi.json", None)).await.unwrap();
    assert!(status == 200 && body.len() > 32 * 1024, "{status}, {} bytes", body.len());
    // Nobody is answered in plain, and nobody who trusts others.
    assert!(
        crate::support::app::Http::new(format!("http://{address}"))
            .ask(http::Method::GET, "/healthz", &[], None)
            .await
            .is_err()
    );
    assert!(Client { trusts: &other, shows: None }.health(&address).await.is_err());

    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(mine.text("ca.pem"))).domain_name("127.0.0.1");
    let channel = Endpoint::from_shared(format!("https://{}", app.grpc())).unwrap().tls_config(tls).unwrap();
    let mut dtm = DtmClient::new(channel.connect().await.unwrap());
    let mut gid = tonic::Request::new(());
    gid.metadata_mut().insert("authorization", tokens.bearer(Role::Client).parse().unwrap());
    assert_eq!(dtm.new_gid(gid).await.unwrap().into_inner().gid.len(), 22);

    let list = async |ca: Option<&Path>| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"));
        command
            .args(["sale", "list"])
            .env("RUSHLINE_SERVER", app.base())
            .env("RUSHLINE_TOKEN", tokens.of(Role::Reader));
        if let Some(ca) = ca {
            command.arg("--ca").arg(ca);
        }
        tokio::time::timeout(SOON, command.kill_on_drop(true).output()).await.expect("it ends").unwrap().status.code()
    };
    assert_eq!(list(Some(&mine.path("ca.pem"))).await, Some(0));
    assert_eq!(list(None).await, Some(4), "browsers trust nobody who signed for it");

    // New ones, by another root: seen without a word. Broken ones are not taken, and a signal looks at once.
    copy(&other, &mine);
    let new = Client { trusts: &other, shows: None };
    eventually("the new certificate is shown", SOON, async || new.health(&address).await.is_ok()).await;
    std::fs::write(mine.path("server.pem"), "no certificate").unwrap();
    app.signal("HUP");
    eventually("the log says so", SOON, async || app.log().contains("those read before stay in use")).await;
    assert_eq!(new.health(&address).await, Ok(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_a_certificate_where_one_is_asked_for() {
    let (mine, other, tokens) = (Certificates::new(), Certificates::new(), Tokens::new());
    let ca = mine.path("ca.pem").display().to_string();
    let client = |shows| Client { trusts: &mine, shows };
    let must = [("tls.client_ca", ca.clone()), ("tls.require_client", "true".into())];
    let (app, address) = start(&mine, &tokens, &must).await;
    assert_eq!(client(Some(&mine)).health(&address).await, Ok(200));
    assert!(client(None).health(&address).await.is_err(), "without one");
    assert!(client(Some(&other)).health(&address).await.is_err(), "with one that somebody else signed");
    // A certificate lets it connect; what it may do its token says.
    let sales = client(Some(&mine)).ask(&address, "h2", request(&address, "GET", "/v1/sales", None)).await;
    assert_eq!(sales.unwrap().0, 401);
    let tls = |identity: Option<Identity>| {
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(mine.text("ca.pem"))).domain_name("127.0.0.1");
        let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
        Endpoint::from_shared(format!("https://{}", app.grpc())).unwrap().tls_config(tls).unwrap()
    };
    let ask = async |identity| {
        let mut request = tonic::Request::new(());
        request.metadata_mut().insert("authorization", tokens.bearer(Role::Client).parse().unwrap());
        DtmClient::new(tls(identity).connect_lazy()).new_gid(request).await.map(|_| ())
    };
    assert!(ask(Some(Identity::from_pem(mine.text("client.pem"), mine.text("client.key")))).await.is_ok());
    assert!(ask(None).await.is_err());

    let (_app, address) = start(&mine, &tokens, &[("tls.client_ca", ca)]).await;
    assert_eq!(client(None).health(&address).await, Ok(200), "asked for, and not required");
    assert!(client(Some(&other)).health(&address).await.is_err(), "what is shown must be good");
}

/// One that trickles a handshake in, or nothing at all, holds its connection only so long.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mine, tokens) = (Certificates::new(), Tokens::new());
    let (_app, address) = start(&mine, &tokens, &[("http.header_timeout_ms", "300".into())]).await;
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(&[22, 3, 1]).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, slow.read_to_end(&mut rest)).await.expect("it is closed").ok();
    assert_eq!(Client { trusts: &mine, shows: None }.health(&address).await, Ok(200));
}
