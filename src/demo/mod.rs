//! What `rushline dev` and `make demo` need besides the coordinator: a shop's side that is small, but real.
//!
//! Nothing here is used by `rushline serve`.

pub mod dev;
mod order_book;
pub mod order_service;
