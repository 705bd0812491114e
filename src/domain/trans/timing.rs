//! When a transaction is tried again: intervals, backoff, timeouts.

use super::global::{Global, Options};

/// The server's settings that the rules go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// First wait after an unclear result, unless the transaction sets its own.
    pub retry_interval_ms: u64,
    /// Doubling stops here. A transaction whose own interval is longer keeps that.
    pub interval_ms_max: u64,
    /// How long msg, tcc and xa may stay undecided, unless the transaction sets its own.
    pub timeout_to_fail_ms: u64,
    /// How long one branch call may take, unless the transaction sets its own.
    pub request_timeout_ms: u64,
    /// Alert after so many passes in a row without a clear result.
    pub alert_after: u32,
    /// What needs attention is not tried again until somebody says so.
    pub stop_at_attention: bool,
    /// Most calls of one transaction at a time.
    pub calls_max: usize,
}

/// The time of a next try that somebody has to ask for: the last millisecond of the year 9999.
pub const PAUSED_MS: u64 = 253_402_300_799_999;

impl Default for Limits {
    /// dtm's defaults where it has one; the ceiling and `calls_max` are ours.
    fn default() -> Self {
        Self {
            retry_interval_ms: 10_000,
            interval_ms_max: 300_000,
            timeout_to_fail_ms: 35_000,
            request_timeout_ms: 3_000,
            alert_after: 3,
            stop_at_attention: false,
            calls_max: 64,
        }
    }
}

/// The interval to begin with, and to return to after a success.
pub fn base_interval_ms(options: &Options, limits: &Limits) -> u64 {
    let timeout_ms = options.timeout_to_fail_s.saturating_mul(1000);
    match options.retry_interval_s {
        0 if timeout_ms > 0 && timeout_ms < limits.retry_interval_ms => timeout_ms,
        0 => limits.retry_interval_ms,
        seconds => seconds.saturating_mul(1000),
    }
}

/// The interval after one more pass without a clear result: twice as long, up to the ceiling.
pub fn backed_off_ms(global: &Global, limits: &Limits) -> u64 {
    let ceiling = limits.interval_ms_max.max(base_interval_ms(&global.options, limits));
    global.interval_ms.saturating_mul(2).clamp(1, ceiling)
}

/// How long one branch call of this transaction may take.
pub fn request_timeout_ms(options: &Options, limits: &Limits) -> u64 {
    match options.request_timeout_s {
        0 => limits.request_timeout_ms,
        seconds => seconds.saturating_mul(1000),
    }
}

/// When an undecided msg, tcc, xa or saga is given up.
pub fn prepared_until_ms(global: &Global, limits: &Limits) -> u64 {
    global.create_ms.saturating_add(timeout_ms(&global.options, limits))
}

/// The timeout that applies while undecided: the transaction's own, or the server's.
pub fn timeout_ms(options: &Options, limits: &Limits) -> u64 {
    match options.timeout_to_fail_s {
        0 => limits.timeout_to_fail_ms,
        seconds => seconds.saturating_mul(1000),
    }
}
