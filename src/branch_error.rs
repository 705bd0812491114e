//! How a branch says no: refused for good, not yet, or something broke.
//!
//! The difference decides over a global transaction. [`BranchError::Failure`] turns it back, the other two have it tried
//! again. It is what handlers of branches, local parts of messages and steps of workflows return.

use std::error::Error as StdError;
use std::fmt;

/// Why a branch did not succeed.
///
/// Any error becomes [`BranchError::Other`] by `?`, so nothing is rolled back because a database was away for a moment;
/// what is to be rolled back is said in words: [`BranchError::failure`].
#[derive(Debug)]
#[non_exhaustive]
pub enum BranchError {
    /// Refused for good: the global transaction is rolled back. Asking again would not help.
    Failure(String),
    /// Under way: to be asked again after the retry interval.
    Ongoing(String),
    /// This has happened already, or was ruled out by a check-back: the local part of a message must not run.
    Duplicated,
    /// Not known if it happened: to be asked again, in growing intervals.
    Other(Box<dyn StdError + Send + Sync>),
}

impl BranchError {
    pub fn failure(reason: impl Into<String>) -> Self {
        BranchError::Failure(reason.into())
    }

    pub fn ongoing(reason: impl Into<String>) -> Self {
        BranchError::Ongoing(reason.into())
    }

    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        BranchError::Other(error.into())
    }

    pub fn is_failure(&self) -> bool {
        matches!(self, BranchError::Failure(_))
    }
}

/// It is no [`std::error::Error`] itself, as that would rule out the conversion of every other error by `?`.
impl fmt::Display for BranchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BranchError::Failure(reason) => with_word(f, reason, "FAILURE"),
            BranchError::Ongoing(reason) => with_word(f, reason, "ONGOING"),
            BranchError::Duplicated => f.write_str("DUPLICATED"),
            BranchError::Other(error) => error.fmt(f),
        }
    }
}

/// `reason WORD`, the word once: texts pass through several hands, and each adds it.
fn with_word(f: &mut fmt::Formatter<'_>, reason: &str, word: &str) -> fmt::Result {
    match reason {
        "" => f.write_str(word),
        _ if reason.ends_with(word) => f.write_str(reason),
        _ => write!(f, "{reason} {word}"),
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for BranchError {
    fn from(error: E) -> Self {
        let error: Box<dyn StdError + Send + Sync> = Box::new(error);
        // What a gRPC branch said is judged already.
        #[cfg(feature = "client")]
        let error = match error.downcast::<tonic::Status>() {
            Ok(status) => return BranchError::from_status(*status),
            Err(error) => error,
        };
        BranchError::Other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_nobody_judged_rolls_nothing_back() {
        fn broken() -> Result<(), BranchError> {
            Err(std::io::Error::other("the line is down"))?;
            Ok(())
        }
        let error = broken().unwrap_err();
        assert!(!error.is_failure());
        assert_eq!(error.to_string(), "the line is down");
    }

    #[test]
    fn the_word_is_said_once() {
        assert_eq!(BranchError::failure("no stock").to_string(), "no stock FAILURE");
        assert_eq!(BranchError::failure("no stock FAILURE").to_string(), "no stock FAILURE");
        assert_eq!(BranchError::ongoing("").to_string(), "ONGOING");
    }
}
