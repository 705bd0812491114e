//! What the stories stand on.
#![allow(dead_code)] // each story uses what it needs of it

pub mod app;
pub mod certificates;
pub mod cluster;
pub mod collector;
pub mod crowd;
pub mod etcd;
pub mod hazard;
pub mod http;
pub mod link;
pub mod process;
pub mod raw;
pub mod servers;
pub mod services;
pub mod shared;
pub mod shop;
pub mod switch;
pub mod twin;
