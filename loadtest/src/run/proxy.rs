//! A TCP proxy that can delay what passes, hold it back and cut what is connected, in both directions. With several
//! servers behind it, it takes the next one when one cannot be reached.
//!
//! It stands on a link only if a fault names the link: a hop more costs processor time that is not the shop's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
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
    held: Held,
    /// What is sent on connections of an earlier number is lost, and nobody is told.
    lost: u64,
}

/// What does not get through although everybody is connected: a network partition, whole or in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub requests: bool,
    pub answers: bool,
}

/// Who is behind a link, in which order they are tried.
type Targets = Arc<Mutex<Vec<SocketAddr>>>;

/// One link. Dropping it leaves what is connected alone.
pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    targets: Targets,
}

impl Proxy {
    /// Listens on a free port and connects each caller with `to`.
    pub async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        Self::listen("127.0.0.1:0".parse()?, vec![to]).await
    }

    /// Listens on `address` and spreads callers over `targets`.
    pub async fn listen(address: SocketAddr, targets: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (weather, seen) = watch::channel(Weather::default());
        let targets = Arc::new(Mutex::new(targets));
        let behind = targets.clone();
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((caller, _)) = listener.accept().await {
                let (seen, now) = (seen.clone(), *seen.borrow());
                if now.down {
                    reset(&caller);
                    continue;
                }
                turn += 1;
                let (behind, first) = (behind.clone(), turn);
                tokio::spawn(async move {
                    // Whoever cannot be reached is reached no better by a person reading about it here.
                    if let Some(called) = reach(&behind, first).await {
                        connect(caller, called, seen, now).await;
                    }
                });
            }
        });
        Ok(Self { address, weather, targets })
    }

    /// Whom callers are connected with from now on; what is connected stays so.
    pub fn aim(&self, targets: Vec<SocketAddr>) {
        *self.targets.lock().expect("no panic while locked") = targets;
    }

    /// Holds back what is sent, until it is told otherwise; nothing of it is lost.
    pub fn hold(&self, held: Held) {
        self.weather.send_modify(|weather| weather.held = held);
    }

    /// Everything that passes takes this much longer.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Whoever is connected now hears nothing more, not even of an end: a firewall that forgot, a machine that vanished.
    pub fn lose(&self) {
        self.weather.send_modify(|weather| weather.lost += 1);
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

/// The first of `targets`, from the `first` on, that takes a connection.
async fn reach(targets: &Targets, first: usize) -> Option<TcpStream> {
    let targets = targets.lock().expect("no panic while locked").clone();
    for at in 0..targets.len() {
        if let Ok(called) = TcpStream::connect(targets[(first + at) % targets.len()]).await {
            return Some(called);
        }
    }
    None
}

/// A reset rather than an orderly end: what a cut wire looks like in the end.
fn reset(stream: &TcpStream) {
    // A socket that refuses is closed in order instead.
    let _ = stream.set_zero_linger();
}

async fn connect(caller: TcpStream, called: TcpStream, mut weather: watch::Receiver<Weather>, then: Weather) {
    for stream in [&caller, &called] {
        let _ = stream.set_nodelay(true);
    }
    let (from_caller, to_caller) = caller.into_split();
    let (from_called, to_called) = called.into_split();
    let passing = async {
        // Whoever ends the connection ends it for both: nobody here talks to a half that is closed.
        tokio::select! {
            () = pass(from_caller, &to_called, weather.clone(), |held| held.requests) => {}
            () = pass(from_called, &to_caller, weather.clone(), |held| held.answers) => {}
        }
    };
    let mut cut = weather.clone();
    let (mut silent, lost) = (weather.clone(), then.lost);
    let passing = async {
        tokio::select! {
            () = passing => {}
            // Neither side hears of the other again, until one of them gives up.
            true = async { silent.wait_for(|now| now.lost > lost).await.is_ok() } => std::future::pending().await,
        }
    };
    tokio::select! {
        () = passing => {}
        // The sender is gone when the run is over; then nothing is cut any more.
        changed = cut.wait_for(|now| now.cuts > then.cuts) => if changed.is_ok() {
            reset(to_caller.as_ref());
            reset(to_called.as_ref());
        },
    }
    weather.mark_unchanged();
}

/// Passes bytes on, each piece after the delay that held when it came.
async fn pass(
    mut from: OwnedReadHalf,
    to: &OwnedWriteHalf,
    weather: watch::Receiver<Weather>,
    is_held: fn(&Held) -> bool,
) {
    let mut free = weather.clone();
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
            // The sender is gone when the run is over; then nothing is held any more.
            let _ = free.wait_for(|now| !is_held(&now.held)).await;
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

    #[tokio::test]
    async fn what_is_held_arrives_when_it_is_let_go() {
        let (proxy, api) = shop().await;
        proxy.hold(Held { requests: false, answers: true });
        let asking = tokio::spawn(async move { api.expect("GET", "/", None).await });
        let heard = tokio::time::timeout(Duration::from_millis(50), async {
            while !asking.is_finished() {
                tokio::task::yield_now().await;
            }
        });
        assert!(heard.await.is_err(), "the answer is on its way");
        proxy.hold(Held::default());
        asking.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn callers_are_connected_with_who_is_there() {
        let (inner, _) = shop().await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let proxy = Proxy::listen("127.0.0.1:0".parse().unwrap(), vec![nobody, inner.address, nobody]).await.unwrap();
        let api = Api { address: proxy.address };
        for _ in 0..3 {
            api.expect("GET", "/", None).await.unwrap();
        }
        proxy.aim(vec![nobody]);
        assert!(api.expect("GET", "/", None).await.is_err());
    }
}
