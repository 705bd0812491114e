//! What is sent to a branch.

use super::error::Error;
use bytes::Bytes;
use serde::Serialize;

/// The body of a call of a branch: JSON for HTTP, a protobuf message for gRPC, or any bytes.
///
/// One that cannot be written is told when it is to be sent, as [`Error::Invalid`], so builders need no `?` per step.
#[derive(Debug, Clone)]
pub struct Payload(Result<Bytes, String>);

impl Payload {
    pub fn json(value: &(impl Serialize + ?Sized)) -> Self {
        Self(serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string()))
    }

    pub fn message(message: &impl prost::Message) -> Self {
        Self(Ok(message.encode_to_vec().into()))
    }

    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Ok(bytes.into()))
    }

    pub fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    pub(crate) fn into_bytes(self) -> Result<Bytes, Error> {
        self.0.map_err(|error| Error::invalid(format!("a payload cannot be written: {error}")))
    }
}

/// Serialisable values are sent as JSON.
impl<T: Serialize + ?Sized> From<&T> for Payload {
    fn from(value: &T) -> Self {
        Payload::json(value)
    }
}
