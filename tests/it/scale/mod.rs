//! More than one Redis, more than one partition, more than one node.

mod cluster;
mod secure;
mod sentinel;
