pub mod domain;
pub mod sale;
pub mod store;
