//! The time that a caller has: `grpc-timeout`.

use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// What a wait leaves of the caller's time for the answer's way back: a tenth of it, within these.
const MARGIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(500));
/// A longer one bounds nothing that is not bounded otherwise.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The form of gRPC has so many digits.
const DIGITS_MAX: usize = 8;

/// When the caller hangs up. Without one, what bounds the work itself bounds the call.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    pub fn of(metadata: &MetadataMap) -> Self {
        let timeout = metadata.get("grpc-timeout").and_then(|value| read(value.to_str().ok()?));
        let timeout = timeout.filter(|timeout| *timeout <= TIMEOUT_MAX);
        Self(timeout.map(|timeout| (Instant::now() + timeout, timeout)))
    }

    /// The wait that is asked for, cut to what the server grants and to what lets the answer arrive.
    pub fn wait(&self, asked_ms: u64, most: Duration) -> Duration {
        let wait = Duration::from_millis(asked_ms).min(most);
        self.latest().map_or(wait, |latest| wait.min(latest.saturating_duration_since(Instant::now())))
    }

    /// When an answer must set out to arrive in time.
    pub fn latest(&self) -> Option<Instant> {
        self.0.and_then(|(at, timeout)| at.checked_sub((timeout / 10).clamp(MARGIN.0, MARGIN.1)))
    }

    /// Does the work, or gives it up when nobody waits for it any more.
    pub async fn keep<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let Some((at, timeout)) = self.0 else { return work.await };
        tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!(
                "not done within the {} ms of this call; it may happen all the same. Ask again: with the same \
                 idempotency_key or request_id it happens once",
                timeout.as_millis()
            )))
        })
    }
}

/// Digits and a unit, such as `250m`.
fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_in_every_unit() {
        for (text, timeout) in [
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text), Some(timeout), "{text}");
        }
        for text in ["", "S", "5", "5s", "-1S", "123456789S", "1.5S", "5é"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_wait_ends_before_its_caller_hangs_up() {
        let within = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            Deadline::of(&metadata)
        };
        let (second, most) = (Duration::from_secs(1), Duration::from_secs(30));
        assert!(within("1S").wait(5_000, most) <= Duration::from_millis(900));
        assert_eq!(within("1M").wait(5_000, most), second * 5, "there is time enough");
        assert_eq!(within("1M").wait(50_000, most), most, "the server grants no more");
        assert_eq!(Deadline::of(&MetadataMap::new()).wait(2_000, most), second * 2);
        assert_eq!(within("0n").wait(5_000, most), Duration::ZERO);
        let given_up = within("10m").keep(std::future::pending::<Result<(), Status>>()).await;
        assert_eq!(given_up.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    }
}
