mod address;
pub mod mongo;
pub mod sink;
pub mod sql;
