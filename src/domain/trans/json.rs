//! Reading JSON objects as Go's `encoding/json` reads them into a struct: keys in any case, `null` = not there.

use crate::domain::depth;
use crate::domain::ids::Invalid;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Longest part of a key that is said again in a refusal.
const KEY_BYTES_SHOWN: usize = 64;

/// The fields of one object, by their names in small letters.
pub(super) struct Fields(HashMap<String, Value>);

impl Fields {
    /// Reads a body, which must be one object.
    pub fn read(field: &'static str, body: &[u8]) -> Result<Self, Invalid> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Invalid::new(field, "must be a JSON object, is empty"));
        }
        depth::check(field, body)?;
        let value: Value =
            serde_json::from_slice(body).map_err(|e| Invalid::new(field, format!("is not JSON: {e}")))?;
        Self::of(field, value)
    }

    pub fn of(field: &'static str, value: Value) -> Result<Self, Invalid> {
        let Value::Object(map) = value else {
            return Err(Invalid::new(field, format!("must be a JSON object, not {}", kind(&value))));
        };
        let mut fields = HashMap::with_capacity(map.len());
        for (key, value) in map {
            let lower = key.to_ascii_lowercase();
            // The exact spelling wins over another case of the same key.
            if key == lower || !fields.contains_key(&lower) {
                fields.insert(lower, value);
            }
        }
        Ok(Self(fields))
    }

    /// Takes one field out; `None` when it is missing or null.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, field: &'static str) -> Result<String, Invalid> {
        self.take(field).map_or(Ok(String::new()), |value| text(field, value))
    }

    pub fn flag(&mut self, field: &'static str) -> Result<bool, Invalid> {
        match self.take(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(Invalid::new(field, format!("must be true or false, not {}", kind(&other)))),
        }
    }

    pub fn integer(&mut self, field: &'static str) -> Result<i64, Invalid> {
        match self.take(field) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| Invalid::new(field, "must be a whole number of 64 bits")),
        }
    }

    pub fn list(&mut self, field: &'static str) -> Result<Vec<Value>, Invalid> {
        match self.take(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(Invalid::new(field, format!("must be a list, not {}", kind(&other)))),
        }
    }

    pub fn texts(&mut self, field: &'static str) -> Result<Vec<Bytes>, Invalid> {
        self.list(field)?.into_iter().map(|value| Ok(Bytes::from(text(field, value)?))).collect()
    }

    pub fn map(&mut self, field: &'static str) -> Result<BTreeMap<String, String>, Invalid> {
        self.take(field).map_or(Ok(BTreeMap::new()), |value| text_map(field, value))
    }
}

/// An object whose values are strings or null. Its keys are a Go map's: their case counts.
pub(super) fn text_map(field: &'static str, value: Value) -> Result<BTreeMap<String, String>, Invalid> {
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(map) => {
            let text = |(key, value): (String, Value)| text_at(field, &key, value).map(|text| (key, text));
            map.into_iter().map(text).collect()
        }
        other => Err(Invalid::new(field, format!("must be an object of strings, not {}", kind(&other)))),
    }
}

pub(super) fn text(field: &'static str, value: Value) -> Result<String, Invalid> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        other => Err(Invalid::new(field, format!("must be a string, not {}", kind(&other)))),
    }
}

/// The text at `key` of the object `field`.
fn text_at(field: &'static str, key: &str, value: Value) -> Result<String, Invalid> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        other => {
            let key = super::check::cut(key, KEY_BYTES_SHOWN);
            Err(Invalid::new(field, format!("must have a string at {key:?}, not {}", kind(&other))))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
