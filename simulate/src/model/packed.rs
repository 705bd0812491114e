//! `struct` of Redis's Lua, as far as scripts here use it: numbers of 1 to 8 bytes, either end first.

use mlua::{Error, Lua, LuaString, MultiValue, Result, Table, Value, Variadic};

struct Number {
    big: bool,
    signed: bool,
    bytes: usize,
}

fn read_format(format: &[u8]) -> Result<Vec<Number>> {
    let mut big = false;
    let mut numbers = Vec::new();
    let mut rest = format;
    while let Some((letter, after)) = rest.split_first() {
        rest = after;
        let bytes = match letter {
            b'>' | b'<' => {
                big = *letter == b'>';
                continue;
            }
            b' ' => continue,
            b'B' | b'b' => 1,
            b'H' | b'h' => 2,
            b'I' | b'i' => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let text = std::str::from_utf8(&rest[..digits]).expect("digits are ASCII");
                rest = &rest[digits..];
                if text.is_empty() { 4 } else { text.parse().map_err(Error::external)? }
            }
            other => return Err(Error::runtime(format!("invalid format option '{}'", char::from(*other)))),
        };
        numbers.push(Number { big, signed: letter.is_ascii_lowercase(), bytes });
    }
    Ok(numbers)
}

fn pack(lua: &Lua, (format, values): (LuaString, Variadic<f64>)) -> Result<LuaString> {
    let mut packed = Vec::new();
    for (at, number) in read_format(&format.as_bytes())?.into_iter().enumerate() {
        let value =
            *values.get(at).ok_or_else(|| Error::runtime("bad argument to 'pack' (number expected, got no value)"))?;
        let bytes = (value as i64).to_be_bytes();
        let mut bytes = bytes[8 - number.bytes.min(8)..].to_vec();
        if !number.big {
            bytes.reverse();
        }
        packed.extend(bytes);
    }
    lua.create_string(packed)
}

fn unpack(_: &Lua, (format, data, from): (LuaString, LuaString, Option<usize>)) -> Result<MultiValue> {
    let data = data.as_bytes();
    let mut at = from.unwrap_or(1).max(1) - 1;
    let mut values = Vec::new();
    for number in read_format(&format.as_bytes())? {
        let bytes = data.get(at..at + number.bytes);
        let bytes = bytes.ok_or_else(|| Error::runtime("bad argument #2 to 'unpack' (data string too short)"))?;
        at += number.bytes;
        let mut bytes = bytes.to_vec();
        if !number.big {
            bytes.reverse();
        }
        let mut value = bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)) as i64;
        if number.signed && number.bytes < 8 && value >> (8 * number.bytes - 1) == 1 {
            value -= 1 << (8 * number.bytes);
        }
        values.push(Value::Number(value as f64));
    }
    values.push(Value::Number((at + 1) as f64));
    Ok(MultiValue::from_vec(values))
}

pub fn table(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.set("pack", lua.create_function(pack)?)?;
    table.set("unpack", lua.create_function(unpack)?)?;
    Ok(table)
}
