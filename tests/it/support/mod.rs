//! What the stories stand on.

pub mod process;
pub mod servers;
pub mod shared;
pub mod twin;
