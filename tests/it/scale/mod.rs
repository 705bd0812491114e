//! More than one Redis, more than one partition, more than one node.

mod cluster;
mod hundred;
mod partitions;
mod secure;
mod sentinel;
mod transfers;
