//! An address behind which the server can be exchanged, as behind a virtual IP: connections are passed on to whoever is in
//! charge, and cut when that changes.

use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Switch {
    port: u16,
    target: Arc<watch::Sender<u16>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Switch {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", super::process::free_port())).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let target = Arc::new(watch::Sender::new(port));
        let told = target.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, told.subscribe()));
            }
        });
        Self { port: own, target, serving }
    }

    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// From now on another server is there; all connections to the old one break.
    pub fn turn_to(&self, port: u16) {
        self.target.send_replace(port);
    }
}

async fn pass(mut client: TcpStream, mut target: watch::Receiver<u16>) {
    let port = *target.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = target.changed() => {}
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
