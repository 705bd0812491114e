//! Nodes of rushline, a Redis and a shop in one process, under one seeded clock.
//!
//! The nodes are the product itself; what is around them is not: [`model`] is Redis (running the very files of `lua/`),
//! [`world`] the network, the order service, the records, the buyers, and the faults. docs/simulation.md tells what is
//! covered and how to replay a seed.

pub mod model;
pub mod world;
pub mod zoo;
