//! The bug zoo: errors planted on purpose, one at a time. A simulation that does not find them is worth nothing.
//!
//! Those in the scripts are changes of their text, and the text must be there; those in the product are points of
//! `src/zoo.rs`. How many seeds each takes is in docs/simulation.md.

use rushline::store::scripts;

pub struct Animal {
    pub name: &'static str,
    pub kind: Kind,
}

pub enum Kind {
    /// In a script: what stands there, and what stands there instead.
    Script { script: &'static str, from: &'static str, to: &'static str },
    /// In the product.
    Product,
}

/// Unplants what was planted when it goes.
pub struct Planted;

impl Drop for Planted {
    fn drop(&mut self) {
        #[cfg(feature = "zoo")]
        rushline::zoo::plant(None);
    }
}

impl Animal {
    pub fn named(name: &str) -> Option<&'static Animal> {
        ANIMALS.iter().find(|animal| animal.name == name)
    }

    /// Plants an error of the product in this thread.
    pub fn plant(&self) -> Planted {
        #[cfg(feature = "zoo")]
        if let Kind::Product = self.kind {
            rushline::zoo::plant(Some(self.name));
        }
        Planted
    }

    /// The script as Redis is to understand it: what is loaded is the one, what runs is the other.
    pub fn changed_script(&self) -> Option<(String, String)> {
        let Kind::Script { script, from, to } = self.kind else { return None };
        let script = scripts::all().into_iter().find(|known| known.name == script).expect("a script of lua/");
        assert_eq!(script.source.matches(from).count(), 1, "`{}`: this must stand once in {}", self.name, script.name);
        Some((script.digest.clone(), script.source.replace(from, to)))
    }
}

const fn product(name: &'static str) -> Animal {
    Animal { name, kind: Kind::Product }
}

const fn script(name: &'static str, script: &'static str, from: &'static str, to: &'static str) -> Animal {
    Animal { name, kind: Kind::Script { script, from, to } }
}

/// Those that the worlds do not show yet, or only in many thousands: what a script or another check makes good, or what
/// takes three things at once. They are in the list to be tried on.
pub const SHY: &[&str] = &[
    "an old route decides",
    "a late carrier forgets another's units",
    "a lease is taken back",
    "a sale that exists is created anew",
    "a sale is told of before it is durable",
    "orders are called on an old lease",
    "what had no answer is sent again",
    "a message is acknowledged before it is deleted",
    "a repeat does not wait for its turn",
    "one look is proof of a sold-out sale",
];

pub const ANIMALS: &[Animal] = &[
    script(
        "a repeat is decided anew",
        "order_admit",
        "local twin, before = fresh[key], earlier[i]",
        "local twin, before = fresh[key], nil",
    ),
    script(
        "stock is checked before the repeat",
        "order_admit",
        "if twin or before then",
        "if (twin or before) and (available[1] or 0) > 0 then",
    ),
    script(
        "open orders have a time to live",
        "order_admit",
        "redis.call('HSET', KEYS[6], id, string.rep('.', winners))",
        "redis.call('HSET', KEYS[6], id, string.rep('.', winners))\n  redis.call('PEXPIRE', KEYS[6], 60000)",
    ),
    script(
        "a batch counts a buyer once",
        "order_admit",
        "(units_of[buyer] or tonumber(held[i] or 0) or 0) + units",
        "(tonumber(held[i] or 0) or 0) + units",
    ),
    script(
        "a batch sells a unit twice",
        "order_admit",
        "available[sku] = available[sku] - quantity",
        "available[sku] = available[sku]",
    ),
    script(
        "nobody holds a new entry",
        "order_admit",
        "redis.call('XCLAIM', KEYS[5], 'delivery', node, 0, id, 'FORCE', 'JUSTID')",
        "",
    ),
    script(
        "an old route decides",
        "order_admit",
        "if (partitions or '1') ~= (sale[6] or '1') then return",
        "if false then return",
    ),
    script("a stale finish is accepted", "order_finish", "if #stale > 1 then return stale end", ""),
    script("refused units are lost", "order_finish", "fields[i + 2], available + back", "fields[i + 2], available + 0"),
    script("a refusal forgets all that a buyer has", "order_finish", "  if held_new[i] > 0 then", "  if false then"),
    script(
        "an end leaves no notice",
        "order_finish",
        "notice = redis.call('XADD', KEYS[5], '*', 'ids', table.concat(complete, ' '))",
        "notice = '0-1'",
    ),
    script(
        "moves do not compare",
        "order_move",
        "elseif string.sub(written, from + 1, from + #expected) ~= expected or #new ~= #expected then",
        "elseif false then",
    ),
    script("payment has no deadline", "order_move", "if now_ms >= deadline then word = 'L' end", ""),
    script(
        "ends are not to be told",
        "order_move",
        "for _, message in ipairs(tell) do redis.call('XADD', KEYS[8], '*', 'v1', message) end",
        "",
    ),
    script(
        "made orders stay claimed by nobody",
        "order_move",
        "'[.:pqt]') and not string.find(now, '[.:pqt]') then made",
        "'[.:pqt]') then made",
    ),
    script(
        "a restock is carried out twice",
        "stock_add",
        "local earlier = redis.call('HGET', KEYS[3], request)",
        "local earlier = false",
    ),
    script("a withdrawal takes more than there is", "stock_add", "math.max(units, -available) + 0", "units"),
    script(
        "units arrive twice",
        "stock_credit",
        "if tonumber(redis.call('HGET', KEYS[2], from) or '0') >= transfer then return 0 end",
        "",
    ),
    script(
        "two transfers at a time",
        "stock_debit",
        "if redis.call('HEXISTS', KEYS[2], to) == 1 then return { 'BUSY' } end",
        "",
    ),
    script(
        "a late carrier forgets another's units",
        "stock_arrived",
        "if not record or string.match(record, '^%d+') ~= ARGV[2] then return 0 end",
        "if not record then return 0 end",
    ),
    script(
        "a repeated drain counts again",
        "entry_drained",
        "if outcome and not string.find(outcome, '.', 1, true) and not is_gone[ids[i]] then",
        "if not is_gone[ids[i]] then",
    ),
    script(
        "a lease is taken back",
        "entry_renew",
        "if pending[1] and pending[1][2] == ARGV[1] then",
        "if pending[1] then",
    ),
    script(
        "a sale that exists is created anew",
        "sale_create",
        "if body then return body == ARGV[1] and 'SAME' or 'EXISTS' end",
        "",
    ),
    product("nobody waits for the disk"),
    product("a sale is told of before it is durable"),
    product("what others wrote is taken for durable"),
    product("a verdict is told before it is durable"),
    product("file not rewritten after a load"),
    product("records trust memory after a restart"),
    product("orders are called on an old lease"),
    product("leases are not renewed"),
    product("entries of a dead node are not taken over"),
    product("notices of a dead node are not drained"),
    product("units of a dead carrier are not carried on"),
    product("425 is taken for created"),
    product("no answer is taken for a refusal"),
    product("units are released while a call is under way"),
    product("an order is given up after two calls"),
    product("what had no answer is sent again"),
    product("a failed write is taken for written"),
    product("ends are popped, not claimed"),
    product("a message is acknowledged before it is deleted"),
    product("a repeat does not wait for its turn"),
    product("memory refuses without a look at the key"),
    product("what memory knows never gets old"),
    product("one look is proof of a sold-out sale"),
    product("a dry partition is a sold-out sale"),
];
