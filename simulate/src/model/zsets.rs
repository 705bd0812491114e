//! Sorted sets.

use super::commands::{Call, Outcome, a_float, an_integer, float, is};
use super::object::score_text;
use super::reply::{Refused, SYNTAX, count, maybe, text};
use redis::Value;

pub fn zadd(call: &mut Call<'_>) -> Outcome {
    let (mut only_new, mut only_old, mut greater, mut less, mut changed_too) = (false, false, false, false, false);
    let mut at = 2;
    while at < call.args.len() {
        match &call.args[at] {
            word if is(word, "nx") => only_new = true,
            word if is(word, "xx") => only_old = true,
            word if is(word, "gt") => greater = true,
            word if is(word, "lt") => less = true,
            word if is(word, "ch") => changed_too = true,
            _ => break,
        }
        at += 1;
    }
    let pairs = &call.args[at..];
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(SYNTAX.into());
    }
    if only_new && only_old {
        return Err("ERR XX and NX options at the same time are not compatible".into());
    }
    if (greater && less) || (only_new && (greater || less)) {
        return Err("ERR GT, LT, and/or NX options at the same time are not compatible".into());
    }
    let scored: Vec<(f64, &Vec<u8>)> =
        pairs.chunks(2).map(|pair| Ok((a_float(&pair[0])?, &pair[1]))).collect::<Result<_, Refused>>()?;
    let key = call.key().to_vec();
    if call.db.zset(&key)?.is_none() && only_old {
        return Ok(Value::Int(0));
    }
    let zset = call.db.zset_mut(&key)?;
    let (mut added, mut changed) = (0, 0);
    for (score, member) in scored {
        match zset.members.get(member) {
            None if !only_old => added += 1,
            Some(now) if !(only_new || *now == score || greater && score < *now || less && score > *now) => {
                changed += 1;
            }
            _ => continue,
        }
        zset.members.insert(member.clone(), score);
    }
    call.db.tidy(&key);
    Ok(count(if changed_too { added + changed } else { added }))
}

pub fn zrem(call: &mut Call<'_>) -> Outcome {
    let (key, members) = (call.key().to_vec(), &call.args[2..]);
    if call.db.zset(&key)?.is_none() {
        return Ok(Value::Int(0));
    }
    let zset = call.db.zset_mut(&key)?;
    let gone = members.iter().filter(|member| zset.members.remove(*member).is_some()).count();
    call.db.tidy(&key);
    Ok(count(gone))
}

pub fn zcard(call: &mut Call<'_>) -> Outcome {
    Ok(count(call.db.zset(call.key())?.map_or(0, |zset| zset.members.len())))
}

pub fn zscore(call: &mut Call<'_>) -> Outcome {
    let zset = call.db.zset(call.key())?;
    Ok(maybe(zset.and_then(|zset| zset.members.get(&call.args[2])).map(|score| score_text(*score))))
}

pub fn zmscore(call: &mut Call<'_>) -> Outcome {
    let zset = call.db.zset(call.key())?;
    let score = |member| maybe(zset.and_then(|zset| zset.members.get(member)).map(|score| score_text(*score)));
    Ok(Value::Array(call.args[2..].iter().map(score).collect()))
}

/// By place: ZRANGE without BYSCORE, BYLEX or REV.
pub fn zrange(call: &mut Call<'_>) -> Outcome {
    let with_scores = match &call.args[4..] {
        [] => false,
        [word] if is(word, "withscores") => true,
        _ => return Err(SYNTAX.into()),
    };
    let (from, to) = (an_integer(&call.args[2])?, an_integer(&call.args[3])?);
    let Some(zset) = call.db.zset(call.key())? else { return Ok(Value::Array(Vec::new())) };
    let members = zset.in_order();
    let length = members.len() as i64;
    let from = if from < 0 { (length + from).max(0) } else { from };
    let to = if to < 0 { length + to } else { to.min(length - 1) };
    if from > to || from >= length {
        return Ok(Value::Array(Vec::new()));
    }
    Ok(show(&members[from as usize..=to as usize], with_scores))
}

fn show(members: &[(&Vec<u8>, f64)], with_scores: bool) -> Value {
    let mut reply = Vec::new();
    for (member, score) in members {
        reply.push(text(member));
        if with_scores {
            reply.push(text(score_text(*score)));
        }
    }
    Value::Array(reply)
}

/// A limit of a range of scores, and whether it is left out itself.
fn bound(word: &[u8]) -> Result<(f64, bool), Refused> {
    let (number, open) = match word.strip_prefix(b"(") {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    // As strtod: blanks in front are passed over, and nothing is zero.
    let number = number.trim_ascii_start();
    let number = if number.is_empty() { Some(0.0) } else { float(number) };
    Ok((number.ok_or("ERR min or max is not a float")?, open))
}

fn by_score(call: &mut Call<'_>, low: usize, high: usize, reverse: bool) -> Outcome {
    let args = call.args;
    let (mut with_scores, mut skip, mut most) = (false, 0, -1);
    let mut at = 4;
    while at < args.len() {
        if is(&args[at], "withscores") {
            with_scores = true;
        } else if is(&args[at], "limit") && at + 2 < args.len() {
            (skip, most) = (an_integer(&args[at + 1])?, an_integer(&args[at + 2])?);
            at += 2;
        } else {
            return Err(SYNTAX.into());
        }
        at += 1;
    }
    let (low, high) = match reverse {
        false => (bound(&args[low])?, bound(&args[high])?),
        true => {
            let high = bound(&args[high])?;
            (bound(&args[low])?, high)
        }
    };
    let Some(zset) = call.db.zset(call.key())? else { return Ok(Value::Array(Vec::new())) };
    let above = |score: f64| if low.1 { score > low.0 } else { score >= low.0 };
    let below = |score: f64| if high.1 { score < high.0 } else { score <= high.0 };
    let mut members = zset.in_order();
    members.retain(|(_, score)| above(*score) && below(*score));
    if reverse {
        members.reverse();
    }
    if skip < 0 {
        return Ok(Value::Array(Vec::new()));
    }
    let most = if most < 0 { usize::MAX } else { most as usize };
    let members: Vec<_> = members.into_iter().skip(skip as usize).take(most).collect();
    Ok(show(&members, with_scores))
}

pub fn zrangebyscore(call: &mut Call<'_>) -> Outcome {
    by_score(call, 2, 3, false)
}

pub fn zrevrangebyscore(call: &mut Call<'_>) -> Outcome {
    by_score(call, 3, 2, true)
}
