//! A port: accepts connections, bounds them, and lets them end in good order.

use super::entrance::{Entrance, told_to_stop};
use super::hot::{self, Rewound};
use super::idle::{Activity, PerAddress, answered};
use super::tls::{Stream, Tls};
use super::{Doors, Port, answer};
use http::Version;
use http::header::{CONNECTION, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
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
    let per_address = PerAddress::new(settings.connections_per_ip_max);
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
        // Streams that are opened only to be reset cost the client nothing and us a request each (CVE-2023-44487): whoever
        // has so many of them is shut out.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
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
        let Some(place) = per_address.enter(peer.ip()) else {
            metrics::counter!("rushline_connections_refused_total").increment(1);
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (doors, builder, stopping) = (doors.clone(), builder.clone(), stopping.clone());
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
                Port::Http => hot::serve(stream, &doors, stopping.clone()).await,
                Port::Grpc => Some(Rewound::untouched(stream)),
            };
            if let Some(stream) = rest {
                // In a box: most connections never come here, and it is large.
                Box::pin(serve(stream, port, peer, &doors, &builder, stopping)).await;
            }
            drop((permit, place));
        });
    }
    drop(entrance);
    // Whoever has all permits has no connection left.
    let all = connections.acquire_many(u32::try_from(settings.connections_max).unwrap_or(u32::MAX));
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!("some requests did not end within the grace period");
    }
}

/// A connection in hyper's hands, until it ends, is idle for too long, or the server stops.
async fn serve(
    stream: Rewound,
    port: Port,
    peer: SocketAddr,
    doors: &Arc<Doors>,
    builder: &auto::Builder<TokioExecutor>,
    mut stopping: watch::Receiver<bool>,
) {
    let settings = &doors.app.settings;
    let stream = tokio::select! {
        begun = stream.begun(settings.header_timeout) => begun,
        () = told_to_leave(&mut stopping) => None,
    };
    let Some(stream) = stream else { return };
    let activity = Activity::begin();
    let service = hyper::service::service_fn(|request| {
        let (doors, under_way) = (doors.clone(), activity.request());
        async move {
            let closes = request.version() < Version::HTTP_2;
            let mut response = answer(&doors, port, peer, request).await;
            if closes && *doors.app.leaving.borrow() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answered(response, under_way))
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async {
            tokio::select! {
                () = activity.idle(settings.idle_timeout) => {}
                () = told_to_leave(&mut stopping) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            // In good order HTTP/2 waits for the client to have heard of it, which may be never.
            let unheard = async {
                tokio::time::sleep(settings.header_timeout).await;
                activity.idle(settings.idle_timeout).await;
            };
            tokio::select! {
                ended = connection => ended,
                () = unheard => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// The server stops, and what was on its way when the door closed has come.
async fn told_to_leave(stopping: &mut watch::Receiver<bool>) {
    told_to_stop(stopping).await;
    tokio::time::sleep(LINGER).await;
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
