//! Reading JSON bodies: a refusal names the field.

use super::problem::Problem;
use http::StatusCode;
use serde::Deserialize;
use serde_json::error::Category;

/// Parses a body. Not JSON at all: 400 `invalid_json`. JSON of another shape: 422 with `code`, naming the field.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], code: &'static str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => {
            // Only a refused body is read twice: the path to the field costs time that good ones need not pay.
            let mut reader = serde_json::Deserializer::from_slice(body);
            let located: Result<T, _> = serde_path_to_error::deserialize(&mut reader);
            let field = located.err().map_or_else(String::new, |error| error.path().to_string());
            let field = if field == "." { String::new() } else { field };
            let place = if field.is_empty() { String::new() } else { format!("{field}: ") };
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, format!("{place}{error}")).field(field)
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not JSON: {error}")),
    })
}
