//! All integration tests in one binary, against real servers only: nothing of Redis or of a database is imitated.
//! `tests/servers/install.sh` gets the servers; each test starts its own on a free port in a temporary directory.

mod access;
mod api;
#[cfg(all(feature = "barrier-sql", feature = "barrier-mongo", feature = "barrier-redis"))]
mod barrier;
mod book;
#[cfg(feature = "client")]
mod client;
mod crash;
mod dashboard;
mod deploy;
mod dtm_doors;
mod dtm_http;
mod dtm_import;
mod durability;
mod faults;
mod full_and_down;
mod honesty;
mod http;
mod ledger;
mod packaging;
mod properties;
mod proto;
mod queries;
mod readme;
mod records;
mod redis_faults;
mod registry;
mod reservations;
mod rolling;
mod rushline_v1;
mod scale;
mod schema;
mod sdk;
mod secrets;
mod stock;
mod support;
mod tidy;
mod traces;
mod trans_decoders;
mod trans_faults;
mod trans_store;
mod two_nodes;
mod walls;
