//! The rules told as stories, one file per mode, and random sequences that the stories did not think of.

mod api;
mod msg;
mod properties;
mod requests;
mod saga;
mod story;
mod tcc_xa;
mod uncalled;
mod workflow;

use story::tell;
