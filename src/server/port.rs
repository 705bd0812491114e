//! A port: accepts connections, bounds them, and lets them end in good order.

use super::entrance::{Entrance, told_to_stop};
use super::hot::{self, Rewound};
use super::tls::{Stream, Tls};
use super::{Doors, Port, answer};
use http::Version;
use http::header::{CONNECTION, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};

/// Connections that the kernel holds until they are accepted. All buyers come in the same moment, and one for whom there is no
/// place hears nothing, and tries again after a second. The kernel's own bound (net.core.somaxconn) holds besides.
const WAITING_MAX: u32 = 4096;

/// A listener with room for the moment when a sale opens.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that is started again gets its port, though old connections of it linger.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_MAX)
}

/// How long connections without a request are kept once no new ones are taken: a request may be on its way to the door that
/// just closed, and whoever sent it could not know if it was taken. Longer than it takes from one machine to the next.
pub const LINGER: Duration = Duration::from_millis(200);

/// Accepts connections until `stopping` says so; then lets requests under way end, for at most `grace`.
///
/// From the moment that the server is about to leave, each answer of HTTP/1 closes its connection, so that clients go
/// elsewhere by themselves. Over HTTP/2 they are told to when the door closes.
pub async fn run(
    listener: TcpListener,
    port: Port,
    doors: Arc<Doors>,
    tls: Option<Arc<Tls>>,
    stopping: watch::Receiver<bool>,
    grace: Duration,
) {
    let settings = &doors.app.settings;
    let connections = Arc::new(Semaphore::new(settings.connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(64 * 1024)
        // A client that closes its half still hears its answer, and hyper need not look for the end of each request's
        // connection while it is worked on: a system call and a buffer less for every order.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(Duration::from_secs(30));
    let builder = Arc::new(builder);
    let mut told = stopping.clone();
    let mut entrance = Entrance::new(listener, stopping.clone());
    loop {
        let permit = tokio::select! {
            biased; // told to stop, it still takes those for whom there is room
            permit = connections.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            () = told_to_stop(&mut told) => break,
        };
        let (stream, peer) = match entrance.next().await {
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                // Out of file descriptors, mostly: give connections a moment to end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => break,
        };
        let _ = stream.set_nodelay(true);
        let (doors, builder, watcher, stopping) =
            (doors.clone(), builder.clone(), graceful.watcher(), stopping.clone());
        let service_doors = doors.clone();
        let service = hyper::service::service_fn(move |request| {
            let doors = service_doors.clone();
            async move {
                let closes = request.version() < Version::HTTP_2;
                let mut response = answer(&doors, port, peer, request).await;
                if closes && *doors.app.leaving.borrow() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let (tls, patience) = (tls.clone(), settings.header_timeout);
        tokio::spawn(async move {
            let stream = match tls {
                None => Stream::Plain(stream),
                Some(tls) => match Box::pin(tls.accept(stream, patience)).await {
                    Ok(stream) => stream,
                    Err(error) => return tracing::debug!(%error, "a connection did not get to TLS"),
                },
            };
            let rest = match port {
                Port::Http => hot::serve(stream, &doors, stopping).await,
                Port::Grpc => Some(Rewound::untouched(stream)),
            };
            if let Some(stream) = rest {
                let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                // In a box: most connections never come here, and it is large.
                if let Err(error) = Box::pin(watcher.watch(connection)).await {
                    tracing::debug!(%error, "a connection ended badly");
                }
            }
            drop(permit);
        });
    }
    drop(entrance);
    let ended = async {
        if connections.available_permits() < settings.connections_max {
            tokio::time::sleep(LINGER).await;
        }
        graceful.shutdown().await;
    };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!("some requests did not end within the grace period");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    /// What the kernel grants without being asked: 128 on the systems we know.
    const USUAL: usize = 128;

    #[tokio::test]
    async fn everybody_who_comes_in_the_same_moment_is_let_in() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        for nth in 0..2 * USUAL {
            // Nobody accepts. One too many is told nothing, and would try again after a second.
            let coming = tokio::time::timeout(Duration::from_millis(900), TcpStream::connect(address)).await;
            waiting.push(coming.unwrap_or_else(|_| panic!("no place for connection {nth}")).unwrap());
        }
    }
}
