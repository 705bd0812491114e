//! A model of Redis: in memory, one command at a time, with just the commands that the product uses.
//!
//! What it answers is checked against real servers by the same random operations (`tests/certify.rs`). What a server is
//! beside its data (when that is on disk, what a crash takes away, what it tells of itself) is [`server`].

pub mod commands;
pub mod db;
mod hashes;
pub mod object;
mod packed;
pub mod reply;
pub mod script;
pub mod server;
pub mod stream;
mod streams;
mod strings;
mod zsets;
