//! Where connections come in, until the server stops, and what becomes of those that were about to.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A listening socket that is closed when `stopping` says so.
pub struct Entrance {
    open: Option<TcpListener>,
    stopping: watch::Receiver<bool>,
    closing: Option<std::net::TcpListener>,
}

impl Entrance {
    pub fn new(listener: TcpListener, stopping: watch::Receiver<bool>) -> Self {
        Self { open: Some(listener), stopping, closing: None }
    }

    /// The next connection; `None` once the server stops and the last one was taken.
    ///
    /// Clients whom the system has told that they are connected may have sent their request already. Closing the door on
    /// those in the queue would reset them, and they could not know if they were heard: so the queue is emptied first.
    pub async fn next(&mut self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        if let Some(listener) = &self.open {
            tokio::select! {
                accepted = listener.accept() => return Some(accepted),
                () = told_to_stop(&mut self.stopping) => {}
            }
            self.closing = self.open.take().and_then(|listener| listener.into_std().ok());
        }
        loop {
            match self.closing.as_ref()?.accept() {
                Ok((stream, from)) => {
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    return Some(stream.map(|stream| (stream, from)));
                }
                // Whoever hung up while waiting in the queue.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                // The queue is empty, or there is no room for another connection.
                Err(_) => {
                    self.closing = None;
                    return None;
                }
            }
        }
    }
}

pub async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // The error says that nobody is left to say it: stop as well.
    let _ = stopping.wait_for(|stop| *stop).await.map(|_| ());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_in_the_queue_when_the_door_closes_is_let_in() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let mut entrance = Entrance::new(listener, stopping);
        let mut waiting = Vec::new();
        for _ in 0..5 {
            waiting.push(TcpStream::connect(address).await.unwrap());
        }
        stop.send_replace(true);
        for client in &waiting {
            let (_, from) = entrance.next().await.unwrap().unwrap();
            assert!(waiting.iter().any(|one| one.local_addr().unwrap() == from), "{client:?}");
        }
        assert!(entrance.next().await.is_none());
        TcpStream::connect(address).await.expect_err("the door is closed");
        assert!(entrance.next().await.is_none(), "and stays so");
    }
}
