//! A branch's answer, in both directions: HTTP status and body, gRPC status.
//!
//! | | HTTP | gRPC |
//! | --- | --- | --- |
//! | success | 200 | OK |
//! | failure: roll back | 409, or a body with `FAILURE` | ABORTED |
//! | ongoing: ask again | 425, or a body with `ONGOING` | FAILED_PRECONDITION |
//! | anything else: ask again, ever later | other | other |

use crate::branch_error::BranchError;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a branch answered when it succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    body: Bytes,
}

impl Reply {
    pub(crate) fn new(body: Bytes) -> Self {
        Self { body }
    }

    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    pub fn into_bytes(self) -> Bytes {
        self.body
    }

    /// The body of an HTTP answer.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, BranchError> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// The message of a gRPC answer.
    pub fn message<M: prost::Message + Default>(&self) -> Result<M, BranchError> {
        Ok(M::decode(&self.body[..])?)
    }
}

/// What the handler of an HTTP branch answers: a status and a JSON body. As a tuple it is an answer for axum too.
///
/// ```
/// use rushline::client::{BranchError, answer};
///
/// let (status, body) = answer::<()>(Err(BranchError::failure("no stock")));
/// assert_eq!((status.as_u16(), body.as_str()), (409, r#"{"error":"no stock FAILURE"}"#));
/// ```
pub fn answer<T: Serialize>(result: Result<T, BranchError>) -> (StatusCode, String) {
    let written = result.and_then(|value| Ok(serde_json::to_string(&value)?));
    match written {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (error.http_status(), serde_json::json!({ "error": error.to_string() }).to_string()),
    }
}

/// Reads a branch's HTTP answer as dtm reads it, old words in the body included.
pub fn read_answer(status: StatusCode, body: Bytes) -> Result<Reply, BranchError> {
    let text = || String::from_utf8_lossy(&body).trim_end().to_owned();
    if status == StatusCode::TOO_EARLY || contains(&body, b"ONGOING") {
        return Err(BranchError::Ongoing(text()));
    }
    if status == StatusCode::CONFLICT || contains(&body, b"FAILURE") {
        return Err(BranchError::Failure(text()));
    }
    read_status(status, body)
}

/// Reads it by the status alone, as dtm's workflows do: their replies may say anything.
pub(crate) fn read_status(status: StatusCode, body: Bytes) -> Result<Reply, BranchError> {
    let text = || String::from_utf8_lossy(&body).trim_end().to_owned();
    match status {
        StatusCode::OK => Ok(Reply::new(body)),
        StatusCode::TOO_EARLY => Err(BranchError::Ongoing(text())),
        StatusCode::CONFLICT => Err(BranchError::Failure(text())),
        _ => Err(BranchError::other(format!("{status}: {}", text()))),
    }
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

impl BranchError {
    /// The HTTP status that says this.
    pub fn http_status(&self) -> StatusCode {
        match self {
            BranchError::Failure(_) => StatusCode::CONFLICT,
            BranchError::Ongoing(_) => StatusCode::TOO_EARLY,
            BranchError::Duplicated | BranchError::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a gRPC answer says.
    pub fn from_status(status: tonic::Status) -> Self {
        match status.code() {
            // The exact word is what SDKs from before 1.10 send.
            tonic::Code::Aborted if status.message() == "ONGOING" => BranchError::ongoing(""),
            tonic::Code::Aborted => BranchError::failure(status.message()),
            tonic::Code::FailedPrecondition => BranchError::ongoing(status.message()),
            _ => BranchError::Other(Box::new(status)),
        }
    }
}

/// What the handler of a gRPC branch answers.
impl From<BranchError> for tonic::Status {
    fn from(error: BranchError) -> Self {
        let text = error.to_string();
        match error {
            BranchError::Failure(_) => tonic::Status::aborted(text),
            BranchError::Ongoing(_) => tonic::Status::failed_precondition(text),
            BranchError::Duplicated => tonic::Status::unknown(text),
            BranchError::Other(error) => match error.downcast::<tonic::Status>() {
                Ok(status) => *status,
                Err(_) => tonic::Status::unknown(text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &'static str) -> Result<Reply, BranchError> {
        read_answer(StatusCode::from_u16(status).unwrap(), Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn what_a_handler_answers_is_read_as_what_it_meant() {
        for error in [BranchError::failure("no"), BranchError::ongoing("wait"), BranchError::other("broken")] {
            let said = std::mem::discriminant(&error);
            let (status, body) = answer::<()>(Err(error));
            let heard = read_answer(status, body.into()).unwrap_err();
            assert_eq!(std::mem::discriminant(&heard), said, "{heard}");
            let back = BranchError::from_status(tonic::Status::from(heard));
            assert_eq!(std::mem::discriminant(&back), said, "{back}");
        }
    }

    #[test]
    fn old_words_in_the_body_decide() {
        assert!(read(200, "{\"dtm_result\":\"FAILURE\"}").unwrap_err().is_failure());
        assert!(matches!(read(200, "ONGOING FAILURE"), Err(BranchError::Ongoing(_))));
        assert!(matches!(read(201, ""), Err(BranchError::Other(_))));
        assert_eq!(read(200, "3").unwrap().json::<u32>().unwrap(), 3);
        assert!(read_status(StatusCode::OK, "a FAILURE in a report".into()).is_ok());
    }

    #[test]
    fn statuses_of_old_services_are_read() {
        let old = BranchError::from_status(tonic::Status::aborted("ONGOING"));
        assert!(matches!(old, BranchError::Ongoing(_)));
        let gone = BranchError::from_status(tonic::Status::unavailable("away"));
        assert!(matches!(gone, BranchError::Other(_)));
        assert_eq!(tonic::Status::from(gone).code(), tonic::Code::Unavailable, "as it came");
    }
}
