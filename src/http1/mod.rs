//! Calling services of the shop by HTTP/1.1: order endpoints, branches, webhooks.
//!
//! hyper's client drives each connection by a task of its own and answers through channels, which costs two changes of
//! task a call; that is more than the call itself. Here whoever calls writes and reads. Pools, bounds and time limits are
//! the callers' own: a delivery worker holds one connection, a host of branches many.

mod address;
mod connection;
mod request;

pub use address::Address;
pub use connection::{ANSWER_BYTES_MAX, Answer, Connection, Error};
pub use request::Request;

use crate::dial;

/// Why a call brought no answer: nobody knows if it was carried out, unless there was no connection.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The answer began.
    #[error("the answer is too long, or broke off: {0}")]
    Body(String),
}

/// One call on a connection that `kept` gives, or on a new one; and the connection, for whoever keeps it. A kept one that the
/// other side has closed is passed over: that is known before anything is sent, or as it is.
pub async fn call(
    address: &Address,
    request: &[u8],
    mut kept: impl FnMut() -> Option<Connection>,
) -> Result<(Answer, Connection), Failed> {
    loop {
        let reused = std::iter::from_fn(&mut kept).find_map(|mut kept| kept.is_open().then_some(kept));
        let fresh = reused.is_none();
        let mut connection = match reused {
            Some(connection) => connection,
            None => connect(address).await.map_err(Failed::Connect)?,
        };
        match connection.call(request).await {
            Ok(answer) => return Ok((answer, connection)),
            Err(Error::Unsent(_)) if !fresh => {}
            Err(Error::Body(error)) => return Err(Failed::Body(error.to_string())),
            Err(error) => return Err(Failed::Broken(error.to_string())),
        }
    }
}

/// Connects. The error says in words what went wrong; nothing was sent.
pub async fn connect(address: &Address) -> Result<Connection, String> {
    let stream = dial::tcp(address.place()).await?;
    match address.tls {
        false => Ok(Connection::new(stream)),
        true => Ok(Connection::new(dial::encrypt(stream, &address.host).await?)),
    }
}
