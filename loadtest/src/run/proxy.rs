//! A TCP proxy that can delay what passes and cut what is connected, in both directions.
//!
//! It stands on a link only if a fault names the link: a hop more costs processor time that is not the shop's.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What passes in one piece.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces under way in one direction of one connection; after that the sender waits, as on a full link.
const PIECES_MAX: usize = 256;

/// How the link is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weather {
    delay: Duration,
    /// Connections of an earlier number are cut.
    cuts: u64,
    /// New connections are cut at once.
    down: bool,
}

/// One link. Dropping it leaves what is connected alone.
pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Proxy {
    /// Listens on a free port and connects each caller with `to`.
    pub async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, seen) = watch::channel(Weather::default());
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let (seen, now) = (seen.clone(), *seen.borrow());
                if now.down {
                    reset(&caller);
                    continue;
                }
                tokio::spawn(async move {
                    // Whoever cannot be reached is reached no better by a person reading about it here.
                    if let Ok(called) = TcpStream::connect(to).await {
                        connect(caller, called, seen, now.cuts).await;
                    }
                });
            }
        });
        Ok(Self { address, weather })
    }

    /// Everything that passes takes this much longer.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Cuts all that is connected; `down` also what comes, until [`Proxy::up`].
    pub fn cut(&self, down: bool) {
        self.weather.send_modify(|weather| {
            weather.cuts += 1;
            weather.down = down;
        });
    }

    pub fn up(&self) {
        self.weather.send_modify(|weather| weather.down = false);
    }
}

/// A reset rather than an orderly end: what a cut wire looks like in the end.
fn reset(stream: &TcpStream) {
    // A socket that refuses is closed in order instead.
    let _ = stream.set_zero_linger();
}

async fn connect(caller: TcpStream, called: TcpStream, mut weather: watch::Receiver<Weather>, cuts: u64) {
    for stream in [&caller, &called] {
        let _ = stream.set_nodelay(true);
    }
    let (from_caller, to_caller) = caller.into_split();
    let (from_called, to_called) = called.into_split();
    let passing = async {
        tokio::join!(pass(from_caller, &to_called, weather.clone()), pass(from_called, &to_caller, weather.clone()))
    };
    let mut cut = weather.clone();
    tokio::select! {
        _ = passing => {}
        // The sender is gone when the run is over; then nothing is cut any more.
        changed = cut.wait_for(|now| now.cuts > cuts) => if changed.is_ok() {
            reset(to_caller.as_ref());
            reset(to_called.as_ref());
        },
    }
    weather.mark_unchanged();
}

/// Passes bytes on, each piece after the delay that held when it came.
async fn pass(mut from: OwnedReadHalf, to: &OwnedWriteHalf, weather: watch::Receiver<Weather>) {
    let (pieces, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let read = async move {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let at = Instant::now() + weather.borrow().delay;
            if pieces.send((at, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at).await;
            if write_all(to.as_ref(), &piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

/// `AsyncWrite` wants the half for itself; this writes through a shared one, so that the cut can reach the socket.
async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::{json_bytes, serve};
    use crate::http::Api;

    async fn shop() -> (Proxy, Api) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, |_| async { json_bytes(200, "{}".into()) }));
        let proxy = Proxy::start(to).await.unwrap();
        let api = Api { address: proxy.address };
        (proxy, api)
    }

    #[tokio::test]
    async fn what_passes_is_delayed_both_ways_while_it_is_said() {
        let (proxy, api) = shop().await;
        proxy.delay(Duration::from_millis(30));
        let began = Instant::now();
        api.expect("GET", "/", None).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(60), "there and back");
        proxy.delay(Duration::ZERO);
        api.expect("GET", "/", None).await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_connected_and_a_link_that_is_down_lets_nobody_in() {
        let (proxy, api) = shop().await;
        let mut connection = crate::http::Connection::open(proxy.address).await.unwrap();
        let mut request = Vec::new();
        crate::http::write_request(&mut request, "GET", "/", "", b"");
        assert_eq!(connection.call(&request).await.unwrap().status, 200);
        proxy.cut(false);
        assert!(connection.call(&request).await.is_err(), "cut");
        assert_eq!(api.call("GET", "/", None).await.unwrap().0, 200, "a new connection is let through");
        proxy.cut(true);
        assert!(api.call("GET", "/", None).await.is_err(), "down");
        proxy.up();
        assert_eq!(api.call("GET", "/", None).await.unwrap().0, 200);
    }
}
