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

/// Connects. The error says in words what went wrong; nothing was sent.
pub async fn connect(address: &Address) -> Result<Connection, String> {
    let stream = dial::tcp(&address.host, address.port).await?;
    match address.tls {
        false => Ok(Connection::new(stream)),
        true => Ok(Connection::new(dial::encrypt(stream, &address.host).await?)),
    }
}
