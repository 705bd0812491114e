//! A real etcd of one member, or a member of several; as it comes, with an account, or with certificates.

use super::app::Http;
use super::certificates::make_certificates;
use super::process::{Process, free_port};
use super::servers::{PASSWORD, program};
use rushline::registry::etcd::{Client, Keys, Tls};
use std::path::PathBuf;
use std::sync::Arc;

pub struct Etcd {
    process: Process,
    port: u16,
    peer_port: u16,
    tls: bool,
    /// All members, as etcd wants it: `NAME=URL,…`.
    members: String,
    /// How often its data was thrown away.
    forgotten: u32,
}

impl Etcd {
    pub async fn start() -> Self {
        let mut server = Self::at_rest();
        server.restart().await;
        server
    }

    /// With certificates that openssl makes, and asking clients for theirs: [`Etcd::file`] has `ca.pem`, `client.pem`
    /// and `client.key`.
    pub async fn start_with_tls() -> Self {
        let mut server = Self { tls: true, ..Self::at_rest() };
        make_certificates(&server.process);
        server.restart().await;
        server
    }

    /// Not running yet, so that a story can begin without it.
    pub fn at_rest() -> Self {
        let process = Process::new("etcd", program("etcd", &["/usr/local/bin"]), None);
        let mut server = Self {
            process,
            port: free_port(),
            peer_port: free_port(),
            tls: false,
            members: String::new(),
            forgotten: 0,
        };
        server.members = server.member();
        server
    }

    /// Three members that have found each other.
    pub async fn start_three() -> [Self; 3] {
        let mut three = [Self::at_rest(), Self::at_rest(), Self::at_rest()];
        let members = three.each_ref().map(Self::member).join(",");
        three.iter_mut().for_each(|server| server.members.clone_from(&members));
        // Together: none answers before most are there.
        futures_util::future::join_all(three.iter_mut().map(Self::restart)).await;
        three
    }

    fn member(&self) -> String {
        format!("m{}=http://127.0.0.1:{}", self.peer_port, self.peer_port)
    }

    /// `host:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.process.directory().join(name)
    }

    /// Without an account.
    pub fn client(&self) -> Arc<Client> {
        let read = |name| std::fs::read(self.file(name)).unwrap();
        let tls =
            self.tls.then(|| Tls { ca: read("ca.pem"), identity: Some((read("client.pem"), read("client.key"))) });
        Arc::new(Client::new(vec![self.address()], None, tls))
    }

    /// Wants an account from now on: `root` with [`PASSWORD`].
    pub async fn want_account(&self) {
        let http = Http::new(format!("http://{}", self.address()));
        for (path, body) in [
            ("user/add", serde_json::json!({ "name": "root", "password": PASSWORD })),
            ("role/add", serde_json::json!({ "name": "root" })),
            ("user/grant", serde_json::json!({ "user": "root", "role": "root" })),
            ("enable", serde_json::json!({})),
        ] {
            let reply = http.ask(http::Method::POST, &format!("/v3/auth/{path}"), &[], Some(&body)).await.unwrap();
            assert_eq!(reply.status, 200, "{path}: {}", reply.json);
        }
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// The next start knows nothing of what was there.
    pub fn forget(&mut self) {
        self.kill9();
        self.forgotten += 1;
    }

    pub async fn restart(&mut self) {
        let scheme = if self.tls { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://{}", self.address()), format!("http://127.0.0.1:{}", self.peer_port));
        self.process.replace_arguments([
            format!("--name=m{}", self.peer_port),
            format!("--data-dir=data-{}", self.forgotten),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", self.members),
        ]);
        if self.tls {
            self.process.arguments(["--cert-file=server.pem", "--key-file=server.key"]);
            self.process.arguments(["--client-cert-auth", "--trusted-ca-file=ca.pem"]);
        }
        let client = self.client();
        let ready = || async {
            let session = client.session().await.map_err(|error| error.to_string())?;
            let listed = session.list(&Keys::One("ready".into())).await;
            client.leave(&session).await;
            match listed {
                Ok(_) => Ok(()),
                // That it wants an account is an answer as well.
                Err(error) if error.to_string().contains("user name is empty") => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        self.process.start(ready).await;
    }
}
