pub mod domain;
pub mod reconciler;
