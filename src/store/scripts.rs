//! The Lua scripts, by name. They are sent by digest; [`super::redis::Redis::verify`] loads them.

use std::sync::LazyLock;

/// One file of `lua/`.
pub struct Script {
    pub name: &'static str,
    pub source: &'static str,
    /// SHA-1 of the source, in hex: what EVALSHA names it by.
    pub digest: String,
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(pub static $name: LazyLock<Script> = LazyLock::new(|| {
            const SOURCE: &str = include_str!(concat!("../../lua/", stringify!($name), ".lua"));
            Script { name: stringify!($name), source: SOURCE, digest: redis::Script::new(SOURCE).get_hash().to_owned() }
        });)*

        /// Every script, for loading and for the tests that read their headers.
        pub fn all() -> Vec<&'static Script> {
            vec![$(&*$name),*]
        }
    };
}

#[allow(non_upper_case_globals)] // a script is named as its file is
mod registry {
    use super::*;
    scripts!(
        entry_drained,
        entry_renew,
        expiry_claim,
        kv_save,
        ledger_forget,
        order_admit,
        order_finish,
        order_move,
        order_restore,
        order_return,
        order_retry,
        sale_create,
        sale_grow,
        sale_lost,
        sale_meet,
        sale_rebuild,
        sale_recount,
        sale_spread,
        sale_touch,
        sale_unfence,
        sale_update,
        stock_add,
        stock_arrived,
        stock_credit,
        stock_debit,
        trans_append,
        trans_claim,
        trans_create,
        trans_drain_lease,
        trans_drained,
        trans_hurry,
        trans_reset,
        trans_save,
    );
}
pub use registry::*;

impl Script {
    /// `EVALSHA digest keys…`, ready for its arguments.
    pub fn call(&self, keys: &[&str]) -> redis::Cmd {
        self.call_with_room(keys, 0, 0)
    }

    /// The same, with room for so many arguments of so many bytes in all.
    pub fn call_with_room(&self, keys: &[&str], arguments: usize, bytes: usize) -> redis::Cmd {
        let key_bytes: usize = keys.iter().map(|key| key.len()).sum();
        let own_bytes = "EVALSHA".len() + self.digest.len() + 2;
        let mut command = redis::Cmd::with_capacity(3 + keys.len() + arguments, own_bytes + key_bytes + bytes);
        command.arg("EVALSHA").arg(&self.digest).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        command
    }
}
