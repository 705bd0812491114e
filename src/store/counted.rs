//! What the requests of a batch are counted by beyond the limit per buyer, as order_admit reads it.

use crate::domain::terms::Counted;
use std::collections::HashMap;

/// Adds it to the script's arguments, one list a request; nothing, if all of them are empty.
pub(super) fn put<'a>(command: &mut redis::Cmd, requests: impl Iterator<Item = &'a [Counted]> + Clone) {
    if requests.clone().all(<[Counted]>::is_empty) {
        return;
    }
    let mut places: HashMap<&str, u16> = HashMap::new();
    let mut fields: Vec<&str> = Vec::new();
    let mut packed = Vec::new();
    for request in requests {
        packed.push(request.len() as u8); // at most LIMITS_MAX
        for counted in request {
            let place = *places.entry(&counted.field).or_insert_with(|| {
                fields.push(&counted.field);
                fields.len() as u16
            });
            packed.extend_from_slice(&place.to_be_bytes());
            packed.extend_from_slice(&counted.units.to_be_bytes());
            packed.extend_from_slice(&counted.most.to_be_bytes());
        }
    }
    command.arg(packed);
    for field in fields {
        command.arg(field);
    }
}
