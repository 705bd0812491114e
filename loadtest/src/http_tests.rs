//! Stories of the answer reader: a server that says given bytes, in given pieces.

use super::*;
use tokio::net::TcpListener;

/// A server that answers the first request on each connection with `pieces`, one packet each, and hangs up.
async fn says(pieces: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            for piece in &pieces {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    address
}

async fn hear(pieces: Vec<Vec<u8>>) -> std::io::Result<(u16, String)> {
    let mut connection = Connection::open(says(pieces).await).await.unwrap();
    let answer = connection.call(b"GET / HTTP/1.1\r\n\r\n").await?;
    Ok((answer.status, String::from_utf8(answer.body.to_vec()).unwrap()))
}

fn cut(text: &str, bytes: usize) -> Vec<Vec<u8>> {
    text.as_bytes().chunks(bytes).map(<[u8]>::to_vec).collect()
}

#[tokio::test]
async fn an_answer_cut_anywhere_is_the_same_answer() {
    let plain = "HTTP/1.1 201 Created\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
    let chunked = "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=1\r\nllo\r\n0\r\n\r\n";
    for text in [plain, chunked] {
        for bytes in 1..text.len() + 1 {
            assert_eq!(hear(cut(text, bytes)).await.unwrap(), (201, "hello".into()), "in pieces of {bytes}");
        }
    }
}

#[tokio::test]
async fn an_answer_larger_than_the_buffer_is_read_whole() {
    let body = "x".repeat(3 * BUFFER_BYTES);
    let plain = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    assert_eq!(hear(cut(&plain, 1000)).await.unwrap().1.len(), body.len());
    assert_eq!(hear(cut(&chunked, 1000)).await.unwrap().1.len(), body.len());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_no_short_answer() {
    for text in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        assert!(hear(cut(text, 100)).await.is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn nonsense_is_an_error() {
    for text in [
        "hello world\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        assert_eq!(hear(cut(text, 100)).await.unwrap_err().kind(), ErrorKind::InvalidData, "{text:?}");
    }
}

#[tokio::test]
async fn what_the_headers_say_is_kept() {
    let text = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nIdempotency-Replayed: true\r\nConnection: close\r\ncontent-length: 0\r\n\r\n";
    let mut connection = Connection::open(says(cut(text, 1000)).await).await.unwrap();
    let answer = connection.call(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!((answer.status, answer.replayed, answer.retry_after_s, answer.body), (503, true, Some(7), &b""[..]));
    assert!(connection.closing);
}
