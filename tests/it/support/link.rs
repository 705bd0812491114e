//! A TCP link to a server of this machine, whose connections can be lost without anybody being told.

use super::process::free_port;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Link {
    port: u16,
    lost: Arc<watch::Sender<u64>>,
}

impl Link {
    /// To 127.0.0.1:`to`.
    pub async fn to(to: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let lost = Arc::new(watch::Sender::new(0));
        let losing = lost.clone();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let mut losing = losing.subscribe();
                tokio::spawn(async move {
                    let Ok(mut called) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    let _ = (caller.set_nodelay(true), called.set_nodelay(true));
                    tokio::select! {
                        _ = copy_bidirectional(&mut caller, &mut called) => {}
                        // Both stay open, and neither hears of the other again.
                        true = async { losing.changed().await.is_ok() } => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, lost }
    }

    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Loses everything that is connected now. Who connects afterwards gets through.
    pub fn lose(&self) {
        self.lost.send_modify(|times| *times += 1);
    }
}
