//! The rules, pure: no I/O, no clock, no random numbers, nothing that awaits.
//!
//! A decision takes values and the time and gives a value; `sale/`, `store/` and `reconciler/` perform it.
//! On the hot path the deciding is done by `lua/`, because that is what runs atomically; [`stock`] states the same
//! rules in plain Rust, and `tests/it/` holds the two against each other. [`trans`] is the part that speaks dtm.

pub mod change;
pub mod depth;
pub mod ids;
pub mod order;
pub mod reservation;
pub mod retry;
pub mod sale;
pub mod stock;
pub mod terms;
pub mod trace;
pub mod trans;
pub mod webhook;
