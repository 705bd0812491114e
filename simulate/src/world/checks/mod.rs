//! What must hold: [`ledger`] after every script, [`settled`] when the world has come to rest.

pub mod ledger;
pub mod settled;
