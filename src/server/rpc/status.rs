//! A problem as gRPC says it: a code, and google.rpc's details with the words that HTTP has for the same.

use crate::proto::google::rpc::{self, BadRequest, ErrorInfo, RetryInfo, bad_request::FieldViolation};
use crate::server::problem::Problem;
use prost::Message;
use prost_types::{Any, Duration};
use tonic::{Code, Status};

/// Who gave the reason.
const DOMAIN: &str = "rushline";
/// Longest text of a status. It travels in headers, percent-encoded and once more in the details, and clients take 8 KiB.
const TEXT_BYTES_MAX: usize = 1_024;

/// As the end of a call.
pub fn of(problem: &Problem) -> Status {
    let said = said(problem);
    let details = said.encode_to_vec();
    Status::with_details(Code::from_i32(said.code), said.message, details.into())
}

/// As a value, for one order among many.
pub fn said(problem: &Problem) -> rpc::Status {
    let text = problem.detail[..problem.detail.floor_char_boundary(TEXT_BYTES_MAX)].to_owned();
    let info = ErrorInfo { reason: problem.code.to_owned(), domain: DOMAIN.to_owned(), metadata: Default::default() };
    let mut details = vec![packed("ErrorInfo", &info)];
    if let Some(field) = problem.field.clone().filter(|field| !field.is_empty()) {
        // What the rule is, the message says.
        let field_violations = vec![FieldViolation { field, description: String::new() }];
        details.push(packed("BadRequest", &BadRequest { field_violations }));
    }
    if let Some(seconds) = problem.retry_after_s {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        details.push(packed("RetryInfo", &RetryInfo { retry_delay: Some(Duration { seconds, nanos: 0 }) }));
    }
    rpc::Status { code: code(problem) as i32, message: text, details }
}

fn packed(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/google.rpc.{name}"), value: message.encode_to_vec() }
}

/// Mostly by what HTTP says. UNAVAILABLE is for what may be asked again as it is: some clients do so by themselves.
fn code(problem: &Problem) -> Code {
    match (problem.code, problem.status.as_u16()) {
        ("sale_exists" | "idempotency_key_reused" | "request_id_reused", _) => Code::AlreadyExists,
        ("changed_meanwhile", _) => Code::Aborted,
        ("fenced", _) => Code::Unavailable,
        (_, 400 | 422) => Code::InvalidArgument,
        (_, 401) => Code::Unauthenticated,
        (_, 403) => Code::PermissionDenied,
        (_, 404) => Code::NotFound,
        (_, 408) => Code::DeadlineExceeded,
        (_, 409 | 410 | 423 | 425) => Code::FailedPrecondition,
        (_, 413 | 429) => Code::ResourceExhausted,
        (_, 503) => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sale::Refusal;
    use http::StatusCode;

    #[test]
    fn a_refusal_keeps_its_word_and_its_field() {
        let problem =
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_order", "quantity: must be 1").field("quantity");
        let status = of(&problem.retry_after(3));
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "quantity: must be 1"));
        let details = rpc::Status::decode(status.details()).unwrap().details;
        let names: Vec<&str> = details.iter().map(|any| any.type_url.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"]);
        let info = ErrorInfo::decode(&*details[0].value).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("invalid_order", "rushline"));
        let wrong = BadRequest::decode(&*details[1].value).unwrap();
        assert_eq!(wrong.field_violations[0].field, "quantity");
        assert_eq!(RetryInfo::decode(&*details[2].value).unwrap().retry_delay.unwrap().seconds, 3);
    }

    #[test]
    fn what_cannot_be_decided_has_a_code_that_says_what_to_do() {
        let code_of = |refusal: Refusal| of(&refusal.into()).code();
        assert_eq!(code_of(Refusal::UnknownSku), Code::NotFound);
        assert_eq!(code_of(Refusal::KeyReused), Code::AlreadyExists);
        assert_eq!(code_of(Refusal::QueueFull), Code::ResourceExhausted);
        assert_eq!(code_of(Refusal::BacklogFull), Code::ResourceExhausted);
        let long = of(&Problem::new(StatusCode::CONFLICT, "expired", "é".repeat(10_000)));
        assert!(long.message().len() <= TEXT_BYTES_MAX && long.code() == Code::FailedPrecondition);
    }
}
