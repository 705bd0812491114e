//! Messages and services of gRPC, made from the files in `proto/`. `proto/README.md` says how; nobody edits them.

#[rustfmt::skip]
#[allow(clippy::all)]
pub mod dtmgimp;
#[cfg(feature = "server")]
#[rustfmt::skip]
#[allow(clippy::all)]
pub mod etcdserverpb;
#[rustfmt::skip]
#[allow(clippy::all)]
pub mod workflow;

/// What `proto/dtm` describes, encoded: for server reflection.
pub const DTM_DESCRIPTORS: &[u8] = include_bytes!("dtm.fds");
