//! Streams and consumer groups.

use super::commands::{Call, Outcome, an_integer, integer_or, is, show, wrong_number};
use super::reply::{Refused, SYNTAX, count, text};
use super::stream::{Fields, Group, Id, Pending, Stream};
use redis::Value;
use std::collections::BTreeMap;

const BAD_ID: &str = "ERR Invalid stream ID specified as stream command argument";

fn id(word: &[u8]) -> Result<Id, Refused> {
    Id::parse(word, 0).ok_or_else(|| BAD_ID.into())
}

fn id_text(id: Id) -> Value {
    text(id.to_string())
}

fn entry(id: Id, fields: &Fields) -> Value {
    let fields = fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect();
    Value::Array(vec![id_text(id), Value::Array(fields)])
}

fn no_group(call: &Call<'_>, group: &[u8]) -> Refused {
    format!("NOGROUP No such key '{}' or consumer group '{}'", show(call.key()), show(group))
}

pub fn xadd(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    let mut most = None;
    let mut at = 2;
    if is(&args[at], "maxlen") && args.len() > at + 2 {
        at += 1;
        if is(&args[at], "=") {
            at += 1;
        }
        let number = an_integer(&args[at])?;
        if number < 0 {
            return Err("ERR The MAXLEN argument must be >= 0.".into());
        }
        most = Some(number as usize);
        at += 1;
    }
    let asked = if args[at] == b"*" { None } else { Some(id(&args[at])?) };
    let fields = &args[at + 1..];
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(wrong_number("xadd"));
    }
    if asked == Some(Id::default()) {
        return Err("ERR The ID specified in XADD must be greater than 0-0".into());
    }
    let (key, now_ms) = (call.key().to_vec(), call.now_ms());
    let stream = call.db.stream_mut(&key)?;
    let next = match asked {
        None if now_ms > stream.last.ms => Id { ms: now_ms, seq: 0 },
        None => {
            stream.last.next().ok_or("ERR The stream has exhausted the last possible ID, unable to add more items")?
        }
        Some(asked) if asked > stream.last => asked,
        Some(_) => {
            return Err("ERR The ID specified in XADD is equal or smaller than the target stream top item".into());
        }
    };
    stream.last = next;
    stream.entries.insert(next, fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect());
    if let Some(most) = most {
        while stream.entries.len() > most {
            stream.entries.pop_first();
        }
    }
    Ok(id_text(next))
}

pub fn xlen(call: &mut Call<'_>) -> Outcome {
    Ok(count(call.db.stream(call.key())?.map_or(0, |stream| stream.entries.len())))
}

pub fn xdel(call: &mut Call<'_>) -> Outcome {
    let key = call.key().to_vec();
    if call.db.stream(&key)?.is_none() {
        return Ok(Value::Int(0));
    }
    let ids: Vec<Id> = call.args[2..].iter().map(|word| id(word)).collect::<Result<_, _>>()?;
    let stream = call.db.stream_mut(&key)?;
    Ok(count(ids.iter().filter(|id| stream.entries.remove(id).is_some()).count()))
}

pub fn xack(call: &mut Call<'_>) -> Outcome {
    let key = call.key().to_vec();
    let there = call.db.stream(&key)?.is_some_and(|stream| stream.groups.contains_key(&call.args[2]));
    if !there {
        return Ok(Value::Int(0));
    }
    let ids: Vec<Id> = call.args[3..].iter().map(|word| id(word)).collect::<Result<_, _>>()?;
    let group = call.db.stream_mut(&key)?.groups.get_mut(&call.args[2]).expect("looked at above");
    Ok(count(ids.iter().filter(|id| group.pending.remove(id).is_some()).count()))
}

/// One end of a range: `-`, `+`, an id, or `(` and an id.
fn range_end(word: &[u8], missing_seq: u64, start: bool) -> Result<Id, Refused> {
    match word {
        b"-" => Ok(Id::default()),
        b"+" => Ok(Id::MAX),
        _ => match word.strip_prefix(b"(") {
            None => Id::parse(word, missing_seq).ok_or_else(|| BAD_ID.into()),
            Some(rest) => {
                let id = Id::parse(rest, missing_seq).ok_or(BAD_ID)?;
                match (start, id) {
                    (true, id) => id.next().ok_or_else(|| "ERR invalid start ID for the interval".into()),
                    (false, Id { ms: 0, seq: 0 }) => Err("ERR invalid end ID for the interval".into()),
                    (false, Id { ms, seq: 0 }) => Ok(Id { ms: ms - 1, seq: u64::MAX }),
                    (false, Id { ms, seq }) => Ok(Id { ms, seq: seq - 1 }),
                }
            }
        },
    }
}

fn range(call: &mut Call<'_>, reverse: bool) -> Outcome {
    let args = call.args;
    let (start, end) = if reverse { (&args[3], &args[2]) } else { (&args[2], &args[3]) };
    let (start, end) = (range_end(start, 0, true)?, range_end(end, u64::MAX, false)?);
    let most = match &args[4..] {
        [] => -1,
        [word, number] if is(word, "count") => an_integer(number)?.max(0),
        _ => return Err(SYNTAX.into()),
    };
    let Some(stream) = call.db.stream(call.key())? else { return Ok(Value::Array(Vec::new())) };
    if most == 0 {
        return Ok(Value::Nil);
    }
    let most = if most < 0 { usize::MAX } else { most as usize };
    if start > end {
        return Ok(Value::Array(Vec::new()));
    }
    let found = stream.entries.range(start..=end).map(|(id, fields)| entry(*id, fields));
    Ok(Value::Array(if reverse { found.rev().take(most).collect() } else { found.take(most).collect() }))
}

pub fn xrange(call: &mut Call<'_>) -> Outcome {
    range(call, false)
}

pub fn xrevrange(call: &mut Call<'_>) -> Outcome {
    range(call, true)
}

/// `XGROUP CREATE key group id [MKSTREAM]`.
pub fn xgroup(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    if !is(&args[1], "create") {
        return Err(format!("ERR unknown subcommand '{}'. Try XGROUP HELP.", show(&args[1])));
    }
    if args.len() < 5 {
        return Err(wrong_number("xgroup|create"));
    }
    let make = match args.get(5) {
        None => false,
        Some(word) if is(word, "mkstream") && args.len() == 6 => true,
        Some(_) => {
            let word = show(&args[1]);
            return Err(format!("ERR unknown subcommand or wrong number of arguments for '{word}'. Try XGROUP HELP."));
        }
    };
    let (key, name) = (args[2].clone(), args[3].clone());
    if call.db.stream(&key)?.is_none() && !make {
        return Err(
            "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the \
                    MKSTREAM option to create an empty stream automatically."
                .into(),
        );
    }
    let asked = if args[4] == b"$" { None } else { Some(id(&args[4])?) };
    let stream = call.db.stream_mut(&key)?;
    if stream.groups.contains_key(&name) {
        return Err("BUSYGROUP Consumer Group name already exists".into());
    }
    let delivered = asked.unwrap_or(stream.last);
    stream.groups.insert(name, Group { delivered, ..Group::default() });
    Ok(Value::Okay)
}

pub fn xpending(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    let bounds = match args.len() {
        3 => None,
        6 | 7 => {
            let most = an_integer(&args[5])?.max(0);
            Some((range_end(&args[3], 0, true)?, range_end(&args[4], u64::MAX, false)?, most))
        }
        _ => return Err(SYNTAX.into()),
    };
    let group = call.db.stream(call.key())?.and_then(|stream| stream.groups.get(&args[2]));
    let Some(group) = group else { return Err(no_group(call, &args[2])) };
    let Some((start, end, most)) = bounds else {
        let (Some(first), Some(last)) = (group.pending.keys().next(), group.pending.keys().next_back()) else {
            return Ok(Value::Array(vec![Value::Int(0), Value::Nil, Value::Nil, Value::Nil]));
        };
        let mut held: BTreeMap<&[u8], usize> = BTreeMap::new();
        for pending in group.pending.values() {
            *held.entry(&pending.consumer).or_default() += 1;
        }
        let held = held.into_iter().map(|(name, held)| Value::Array(vec![text(name), text(held.to_string())]));
        return Ok(Value::Array(vec![
            count(group.pending.len()),
            id_text(*first),
            id_text(*last),
            Value::Array(held.collect()),
        ]));
    };
    if start > end {
        return Ok(Value::Array(Vec::new()));
    }
    let of = args.get(6);
    let rows = group.pending.range(start..=end).filter(|(_, pending)| of.is_none_or(|of| pending.consumer == *of));
    let row = |(id, pending): (&Id, &Pending)| {
        let idle = call.now_ms().saturating_sub(pending.since_ms) as i64;
        Value::Array(vec![
            id_text(*id),
            text(&pending.consumer),
            Value::Int(idle),
            Value::Int(pending.deliveries as i64),
        ])
    };
    Ok(Value::Array(rows.take(most as usize).map(row).collect()))
}

pub fn xclaim(call: &mut Call<'_>) -> Outcome {
    let (args, key, now_ms) = (call.args, call.key().to_vec(), call.now_ms());
    let there = call.db.stream(&key)?.is_some_and(|stream| stream.groups.contains_key(&args[2]));
    if !there {
        return Err(no_group(call, &args[2]));
    }
    let idle_least = integer_or(&args[4], "ERR Invalid min-idle-time argument for XCLAIM")?.max(0) as u64;
    let ids: Vec<Id> = args[5..].iter().map_while(|word| Id::parse(word, 0)).collect();
    let (mut force, mut only_ids, mut since_ms, mut deliveries) = (false, false, now_ms, None);
    let mut at = 5 + ids.len();
    while at < args.len() {
        let more = at + 1 < args.len();
        match &args[at] {
            word if is(word, "force") => force = true,
            word if is(word, "justid") => only_ids = true,
            word if is(word, "idle") && more => {
                at += 1;
                let idle = integer_or(&args[at], "ERR Invalid IDLE option argument for XCLAIM")?;
                since_ms = u64::try_from(now_ms as i64 - idle).unwrap_or(now_ms).min(now_ms);
            }
            word if is(word, "retrycount") && more => {
                at += 1;
                let number = integer_or(&args[at], "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                deliveries = u64::try_from(number).ok();
            }
            word => return Err(format!("ERR Unrecognized XCLAIM option '{}'", show(word))),
        }
        at += 1;
    }
    let stream = call.db.stream_mut(&key)?;
    let mut reply = Vec::new();
    for id in ids {
        let group = stream.groups.get_mut(&args[2]).expect("looked at above");
        let Some(fields) = stream.entries.get(&id) else {
            group.pending.remove(&id);
            continue;
        };
        let earlier = match group.pending.get(&id) {
            None if !force => continue,
            None => 1,
            Some(pending) if now_ms.saturating_sub(pending.since_ms) < idle_least => continue,
            Some(pending) => pending.deliveries,
        };
        group.consumers.insert(args[3].clone(), ());
        let deliveries = deliveries.unwrap_or(if only_ids { earlier } else { earlier + 1 });
        group.pending.insert(id, Pending { consumer: args[3].clone(), since_ms, deliveries });
        reply.push(if only_ids { id_text(id) } else { entry(id, fields) });
    }
    Ok(Value::Array(reply))
}

pub fn xautoclaim(call: &mut Call<'_>) -> Outcome {
    let (args, key, now_ms) = (call.args, call.key().to_vec(), call.now_ms());
    let idle_least = integer_or(&args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM")?.max(0) as u64;
    let start = range_end(&args[5], 0, true)?;
    let (mut most, mut only_ids) = (100, false);
    let mut at = 6;
    while at < args.len() {
        if is(&args[at], "count") && at + 1 < args.len() {
            at += 1;
            most = an_integer(&args[at]).ok().filter(|number| *number > 0).ok_or("ERR COUNT must be > 0")? as usize;
        } else if is(&args[at], "justid") {
            only_ids = true;
        } else {
            return Err(SYNTAX.into());
        }
        at += 1;
    }
    let there = call.db.stream(&key)?.is_some_and(|stream| stream.groups.contains_key(&args[2]));
    if !there {
        return Err(no_group(call, &args[2]));
    }
    let stream = call.db.stream_mut(&key)?;
    let Stream { entries, groups, .. } = stream;
    let group = groups.get_mut(&args[2]).expect("looked at above");
    let all: Vec<Id> = group.pending.range(start..).map(|(id, _)| *id).collect();
    let (mut claimed, mut deleted, mut looked) = (Vec::new(), Vec::new(), 0);
    while looked < all.len() && looked < most * 10 && claimed.len() + deleted.len() < most {
        let id = all[looked];
        looked += 1;
        let Some(fields) = entries.get(&id) else {
            group.pending.remove(&id);
            deleted.push(id_text(id));
            continue;
        };
        let pending = group.pending.get_mut(&id).expect("it was in the list");
        if now_ms.saturating_sub(pending.since_ms) < idle_least {
            continue;
        }
        pending.consumer.clone_from(&args[3]);
        pending.since_ms = now_ms;
        pending.deliveries += u64::from(!only_ids);
        claimed.push(if only_ids { id_text(id) } else { entry(id, fields) });
    }
    group.consumers.insert(args[3].clone(), ());
    let next = all.get(looked).copied().unwrap_or_default();
    Ok(Value::Array(vec![id_text(next), Value::Array(claimed), Value::Array(deleted)]))
}

/// `XREADGROUP GROUP group consumer [COUNT n] STREAMS key id`, of one stream.
pub fn xreadgroup(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    if !is(&args[1], "group") {
        return Err(SYNTAX.into());
    }
    let (most, at) = match is(&args[4], "count") {
        true => (an_integer(&args[5])?.max(0) as usize, 6),
        false => (0, 4),
    };
    let most = if most == 0 { usize::MAX } else { most };
    let [word, key, from] = &args[at..] else { return Err(SYNTAX.into()) };
    if !is(word, "streams") {
        return Err(SYNTAX.into());
    }
    let (group_name, consumer, now_ms) = (&args[2], &args[3], call.now_ms());
    let there = call.db.stream(key)?.is_some_and(|stream| stream.groups.contains_key(group_name));
    if !there {
        return Err(format!(
            "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option",
            show(key),
            show(group_name)
        ));
    }
    let after = if from == b">" { None } else { Some(id(from)?) };
    let Stream { entries, groups, .. } = call.db.stream_mut(key)?;
    let group = groups.get_mut(group_name).expect("looked at above");
    group.consumers.insert(consumer.clone(), ());
    let mut rows = Vec::new();
    match after {
        None => {
            let Some(start) = group.delivered.next() else { return Ok(Value::Nil) };
            for (id, fields) in entries.range(start..).take(most) {
                group.delivered = *id;
                let pending = Pending { consumer: consumer.clone(), since_ms: now_ms, deliveries: 1 };
                group.pending.insert(*id, pending);
                rows.push(entry(*id, fields));
            }
            if rows.is_empty() {
                return Ok(Value::Nil);
            }
        }
        Some(after) => {
            let mine = group.pending.iter_mut().filter(|(id, held)| **id > after && held.consumer == *consumer);
            for (id, held) in mine.take(most) {
                rows.push(match entries.get(id) {
                    None => Value::Array(vec![id_text(*id), Value::Nil]),
                    Some(fields) => {
                        held.since_ms = now_ms;
                        held.deliveries += 1;
                        entry(*id, fields)
                    }
                });
            }
        }
    }
    Ok(Value::Array(vec![Value::Array(vec![text(key), Value::Array(rows)])]))
}
