//! Hashes.

use super::commands::{Call, Outcome, an_integer, integer_or, wrong_number, yes};
use super::reply::{count, maybe, text};
use redis::Value;

pub fn hget(call: &mut Call<'_>) -> Outcome {
    Ok(maybe(call.db.hash(call.key())?.and_then(|hash| hash.get(&call.args[2]))))
}

pub fn hset(call: &mut Call<'_>) -> Outcome {
    if !call.args.len().is_multiple_of(2) {
        return Err(wrong_number("hset"));
    }
    let (key, pairs) = (call.key().to_vec(), &call.args[2..]);
    let hash = call.db.hash_mut(&key)?;
    let new = pairs.chunks(2).filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
    Ok(count(new.count()))
}

pub fn hmget(call: &mut Call<'_>) -> Outcome {
    let hash = call.db.hash(call.key())?;
    Ok(Value::Array(call.args[2..].iter().map(|field| maybe(hash.and_then(|hash| hash.get(field)))).collect()))
}

pub fn hdel(call: &mut Call<'_>) -> Outcome {
    let (key, fields) = (call.key().to_vec(), &call.args[2..]);
    if call.db.hash(&key)?.is_none() {
        return Ok(Value::Int(0));
    }
    let hash = call.db.hash_mut(&key)?;
    let gone = fields.iter().filter(|field| hash.remove(*field).is_some()).count();
    call.db.tidy(&key);
    Ok(count(gone))
}

pub fn hlen(call: &mut Call<'_>) -> Outcome {
    Ok(count(call.db.hash(call.key())?.map_or(0, |hash| hash.len())))
}

pub fn hexists(call: &mut Call<'_>) -> Outcome {
    Ok(yes(call.db.hash(call.key())?.is_some_and(|hash| hash.contains_key(&call.args[2]))))
}

pub fn hgetall(call: &mut Call<'_>) -> Outcome {
    let hash = call.db.hash(call.key())?;
    Ok(Value::Array(hash.into_iter().flatten().flat_map(|(field, value)| [text(field), text(value)]).collect()))
}

pub fn hincrby(call: &mut Call<'_>) -> Outcome {
    let (key, field, more) = (call.key().to_vec(), &call.args[2], an_integer(&call.args[3])?);
    let now = call.db.hash(&key)?.and_then(|hash| hash.get(field));
    let now = now.map_or(Ok(0), |value| integer_or(value, "ERR hash value is not an integer"))?;
    let sum = now.checked_add(more).ok_or("ERR increment or decrement would overflow")?;
    call.db.hash_mut(&key)?.insert(field.clone(), sum.to_string().into_bytes());
    Ok(Value::Int(sum))
}
