//! The keys. Objects are shared with earlier states of the database until they are changed, so that keeping a state is
//! cheap: that is how a fault takes back what was not on disk.

use super::object::{Object, Text, Zset};
use super::reply::{Refused, WRONG_TYPE};
use super::stream::Stream;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Db {
    pub keys: BTreeMap<Text, Kept>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub object: Arc<Object>,
    pub expires_ms: Option<u64>,
}

macro_rules! views {
    ($($read:ident $write:ident $variant:ident $type:ty);* $(;)?) => {
        $(
            pub fn $read(&self, key: &[u8]) -> Result<Option<&$type>, Refused> {
                match self.keys.get(key).map(|kept| &*kept.object) {
                    None => Ok(None),
                    Some(Object::$variant(found)) => Ok(Some(found)),
                    Some(_) => Err(WRONG_TYPE.into()),
                }
            }

            /// The same to be changed; begun if there is none.
            pub fn $write(&mut self, key: &[u8]) -> Result<&mut $type, Refused> {
                let kept = self.keys.entry(key.to_vec()).or_insert_with(|| Kept {
                    object: Arc::new(Object::$variant(Default::default())),
                    expires_ms: None,
                });
                match Arc::make_mut(&mut kept.object) {
                    Object::$variant(found) => Ok(found),
                    _ => Err(WRONG_TYPE.into()),
                }
            }
        )*
    };
}

impl Db {
    views! {
        text text_mut Text Text;
        hash hash_mut Hash BTreeMap<Text, Text>;
        set set_mut Set BTreeSet<Text>;
        zset zset_mut Zset Zset;
        stream stream_mut Stream Stream;
    }

    /// Removes a key whose last member has just gone.
    pub fn tidy(&mut self, key: &[u8]) {
        if self.keys.get(key).is_some_and(|kept| kept.object.is_spent()) {
            self.keys.remove(key);
        }
    }

    pub fn expire_until(&mut self, now_ms: u64) {
        self.keys.retain(|_, kept| kept.expires_ms.is_none_or(|at| at >= now_ms));
    }
}
