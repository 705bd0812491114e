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

/// The part of `google.rpc` that errors are made of.
#[cfg(feature = "server")]
pub mod google {
    #[allow(clippy::all)]
    pub mod rpc {
        include!("google.rpc.rs");
    }
}

/// rushline's own services.
#[cfg(feature = "server")]
pub mod rushline {
    #[allow(clippy::all)]
    pub mod v1 {
        include!("rushline.v1.rs");
    }
}

/// What `proto/dtm` describes, encoded: for server reflection.
pub const DTM_DESCRIPTORS: &[u8] = include_bytes!("dtm.fds");

/// What `proto/rushline` describes, encoded: likewise.
#[cfg(feature = "server")]
pub const RUSHLINE_DESCRIPTORS: &[u8] = include_bytes!("rushline.fds");
