//! Crash points: places where a test can make this process die, as if power were cut.
//!
//! Only in builds with debug assertions, and only when `RUSHLINE_TEST_CRASH_AT` says so: `NAME` dies at the first
//! pass, `NAME:N` at the N-th. `RUSHLINE_TEST_PANIC_AT` panics there instead, as a bug would. In a release build a crash
//! point is nothing at all.

/// Every point, in the order an order passes them. The crash tests kill the server at each of them.
/// Those of global transactions are [`TRANS_POINTS`] and [`TRANS_DRAIN_POINTS`].
pub const POINTS: [&str; 10] = [
    "admit.gathered",
    "admit.before_script",
    "admit.after_script",
    "delivery.before_call",
    "delivery.after_call",
    "finish.before_script",
    "finish.after_script",
    "drain.before_write",
    "drain.after_write",
    "drain.after_forget",
];

/// The points of a reservation's end, after those that it shares with every order.
pub const RESERVATION_POINTS: [&str; 10] = [
    "made.before_script",
    "made.after_script",
    "expire.before_script",
    "expire.after_script",
    "tell.before_call",
    "tell.after_call",
    "tell.before_note",
    "tell.after_note",
    "return.after_script",
    "return.after_write",
];

/// The points of a global transaction: those of the calls on it, then those of whoever drives it. A `note` is what a
/// pass writes without a change of status: how far it is, when to try again. A `save` is a change of status.
pub const TRANS_POINTS: [&str; 14] = [
    "trans.before_create",
    "trans.after_create",
    "trans.before_append",
    "trans.after_append",
    "trans.before_replace",
    "trans.after_replace",
    "trans.after_claim",
    "trans.before_call",
    "trans.after_call",
    "trans.before_note",
    "trans.after_note",
    "trans.before_save",
    "trans.after_save",
    "trans.after_reset",
];

/// The points of units that move from one partition to another.
pub const TRANSFER_POINTS: [&str; 3] = ["transfer.after_debit", "transfer.after_credit", "transfer.after_arrived"];

/// The points of the drain of finished transactions.
pub const TRANS_DRAIN_POINTS: [&str; 3] =
    ["trans_drain.before_write", "trans_drain.after_write", "trans_drain.after_forget"];

/// The point of a webhook: told, and still to be told in Redis.
pub const WEBHOOK_POINTS: [&str; 1] = ["webhook.after_call"];

/// Dies here if a test asked for it.
#[inline(always)]
pub fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    const CRASH_AT: &str = "RUSHLINE_TEST_CRASH_AT";
    const PANIC_AT: &str = "RUSHLINE_TEST_PANIC_AT";

    /// Where, at which pass, and whether to die of it.
    static AT: LazyLock<Option<(String, u64, bool)>> = LazyLock::new(|| {
        let (variable, text) =
            [CRASH_AT, PANIC_AT].into_iter().find_map(|name| Some((name, std::env::var(name).ok()?)))?;
        let (name, pass) = text.split_once(':').unwrap_or((&text, "1"));
        assert!(is_point(name), "{variable}: there is no crash point `{name}`");
        let pass = pass.parse().unwrap_or_else(|_| panic!("{variable}: NAME or NAME:N"));
        Some((name.to_owned(), pass, variable == CRASH_AT))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    fn is_point(name: &str) -> bool {
        let lists = [
            &super::POINTS[..],
            &super::RESERVATION_POINTS,
            &super::TRANS_POINTS,
            &super::TRANS_DRAIN_POINTS,
            &super::TRANSFER_POINTS,
            &super::WEBHOOK_POINTS,
        ];
        lists.iter().any(|all| all.contains(&name))
    }

    pub(super) fn pass(name: &'static str) {
        debug_assert!(is_point(name), "`{name}` is in none of the lists of points");
        if let Some((at, pass, die)) = &*AT
            && at == name
            && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *pass
        {
            if *die {
                std::process::abort();
            }
            panic!("{PANIC_AT}={name}:{pass}");
        }
    }
}
