//! The life of an order as one table: how far it is, what may happen to it, and where its units go then.
//!
//! An order of a sale with reservations is made as "to be paid", and holds its units until it is paid (confirm), given
//! up (cancel) or out of time (expire). Making it at the order service takes time, so an end may come before the
//! service has answered; the service is told of the end after that, and what it says to it changes nothing.
//! An order of any other sale knows two moves: made, which sells its units, and refused.
//!
//! The state of an order is one character of its entry's outcome in Redis ([`State::code`]); `lua/order_move.lua` compares
//! and replaces such characters, and this table says which by which.

use super::ids::Invalid;
use super::order::{Item, Status};

/// How a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Paid: its units, or a part of them, are sold.
    Confirmed,
    /// Given up by the shop or the buyer.
    Cancelled,
    /// Not paid in time.
    Expired,
}

impl End {
    pub const ALL: [End; 3] = [End::Confirmed, End::Cancelled, End::Expired];

    /// What the order service is told: an order that is out of time is cancelled.
    pub fn op(self) -> &'static str {
        match self {
            End::Confirmed => "confirm",
            End::Cancelled | End::Expired => "cancel",
        }
    }
}

/// What the order service knows of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Telling {
    /// It has not answered yet if it made the order: first that, then the end.
    AfterCreation,
    Due,
    Done,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Open {
        /// The order service has made it.
        made: bool,
        /// It has a deadline of its own, later than the sale's.
        extended: bool,
    },
    Ended(End, Telling),
    /// The order service refused to make it.
    Failed,
}

/// What can happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Move {
    /// The order service made it.
    Made,
    /// The order service will not make it.
    Refused,
    Confirm,
    Cancel,
    Extend,
    Expire,
    /// The order service has heard of the end.
    Told,
}

impl Move {
    pub const ALL: [Move; 7] =
        [Move::Made, Move::Refused, Move::Confirm, Move::Cancel, Move::Extend, Move::Expire, Move::Told];
}

/// Where the units of an order go when it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    Nowhere,
    /// Reserved to sold; of a part that is paid, the rest to available.
    Sell,
    /// Reserved to available.
    Release,
    /// Sold to available: paid, and then the order service would not make it.
    Unsell,
}

/// A deadline that a move must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    Any,
    BeforeDeadline,
    FromDeadline,
}

impl State {
    pub const SUBMITTED: State = State::Open { made: false, extended: false };

    /// All there are.
    pub fn all() -> impl Iterator<Item = State> {
        let open = [(false, false), (false, true), (true, false), (true, true)];
        let ended = End::ALL.into_iter().flat_map(|end| {
            [Telling::AfterCreation, Telling::Due, Telling::Done].map(|telling| State::Ended(end, telling))
        });
        open.into_iter().map(|(made, extended)| State::Open { made, extended }).chain(ended).chain([State::Failed])
    }

    /// Its character in an outcome.
    pub fn code(self) -> u8 {
        match self {
            State::Open { made: false, extended: false } => b'.',
            State::Open { made: false, extended: true } => b':',
            State::Open { made: true, extended: false } => b'r',
            State::Open { made: true, extended: true } => b'+',
            State::Ended(End::Confirmed, Telling::AfterCreation) => b'p',
            State::Ended(End::Cancelled, Telling::AfterCreation) => b'q',
            State::Ended(End::Expired, Telling::AfterCreation) => b't',
            State::Ended(End::Confirmed, Telling::Due) => b'c',
            State::Ended(End::Cancelled, Telling::Due) => b'x',
            State::Ended(End::Expired, Telling::Due) => b'e',
            State::Ended(End::Confirmed, Telling::Done) => b's',
            State::Ended(End::Cancelled, Telling::Done) => b'X',
            State::Ended(End::Expired, Telling::Done) => b'E',
            State::Failed => b'f',
        }
    }

    pub fn of_code(code: u8) -> Option<Self> {
        Some(match code {
            b'.' => State::SUBMITTED,
            b's' => State::Ended(End::Confirmed, Telling::Done),
            _ => return Self::all().find(|state| state.code() == code),
        })
    }

    /// Has the order service still to say if it makes the order? Of a character, for the hot path.
    pub fn code_is_unanswered(code: u8) -> bool {
        matches!(code, b'.' | b':' | b'p' | b'q' | b't')
    }

    /// Has the order service still to say if it makes the order?
    pub fn is_unanswered(self) -> bool {
        matches!(self, State::Open { made: false, .. } | State::Ended(_, Telling::AfterCreation))
    }

    pub fn is_open(self) -> bool {
        matches!(self, State::Open { .. })
    }

    pub fn is_extended(self) -> bool {
        matches!(self, State::Open { extended: true, .. })
    }

    /// Nothing will happen to it any more.
    pub fn is_final(self) -> bool {
        matches!(self, State::Ended(_, Telling::Done) | State::Failed)
    }

    pub fn end(self) -> Option<End> {
        match self {
            State::Ended(end, _) => Some(end),
            _ => None,
        }
    }

    /// As buyers and shops read it. `Succeed` is said as soon as the payment is in: it is not taken back, but by an
    /// order service that refuses to make an order for which somebody paid.
    pub fn status(self) -> Status {
        match self {
            State::Open { made: false, .. } => Status::Submitted,
            State::Open { made: true, .. } => Status::Reserved,
            State::Ended(End::Confirmed, _) => Status::Succeed,
            State::Ended(End::Cancelled, _) => Status::Cancelled,
            State::Ended(End::Expired, _) => Status::Expired,
            State::Failed => Status::Failed,
        }
    }

    /// What becomes of an order with a reservation. `None`: this move is not open to it, and it stays as it is.
    pub fn after(self, what: Move) -> Option<(State, Shift)> {
        let ended = |made: bool, end: End| {
            let telling = if made { Telling::Due } else { Telling::AfterCreation };
            State::Ended(end, telling)
        };
        Some(match (self, what) {
            (State::Open { made: false, extended }, Move::Made) => {
                (State::Open { made: true, extended }, Shift::Nowhere)
            }
            (State::Open { made: false, .. }, Move::Refused) => (State::Failed, Shift::Release),
            (State::Open { made, .. }, Move::Confirm) => (ended(made, End::Confirmed), Shift::Sell),
            (State::Open { made, .. }, Move::Cancel) => (ended(made, End::Cancelled), Shift::Release),
            (State::Open { made, .. }, Move::Expire) => (ended(made, End::Expired), Shift::Release),
            (State::Open { made, .. }, Move::Extend) => (State::Open { made, extended: true }, Shift::Nowhere),
            (State::Ended(end, Telling::AfterCreation), Move::Made) => {
                (State::Ended(end, Telling::Due), Shift::Nowhere)
            }
            (State::Ended(End::Confirmed, Telling::AfterCreation), Move::Refused) => (State::Failed, Shift::Unsell),
            // What was given up and is not made needs no telling.
            (State::Ended(end, Telling::AfterCreation), Move::Refused) => {
                (State::Ended(end, Telling::Done), Shift::Nowhere)
            }
            (State::Ended(end, Telling::Due), Move::Told) => (State::Ended(end, Telling::Done), Shift::Nowhere),
            _ => return None,
        })
    }

    /// What becomes of an order of a sale without reservations.
    pub fn after_plain(self, what: Move) -> Option<(State, Shift)> {
        match (self, what) {
            (State::SUBMITTED, Move::Made) => Some((State::Ended(End::Confirmed, Telling::Done), Shift::Sell)),
            (State::SUBMITTED, Move::Refused) => Some((State::Failed, Shift::Release)),
            _ => None,
        }
    }
}

impl Move {
    /// When it may happen. Payment and expiry exclude each other by the clock of Redis alone.
    pub fn timing(self) -> Timing {
        match self {
            Move::Confirm | Move::Extend => Timing::BeforeDeadline,
            Move::Expire => Timing::FromDeadline,
            Move::Made | Move::Refused | Move::Cancel | Move::Told => Timing::Any,
        }
    }
}

/// Units on the move. Their sum is zero: nothing comes from nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

impl Shift {
    /// What happens to the counters of a SKU of which `ordered` units were ordered and `confirmed` of them are, or
    /// were, paid.
    pub fn units(self, ordered: u32, confirmed: u32) -> Units {
        let (ordered, confirmed) = (i64::from(ordered), i64::from(confirmed));
        match self {
            Shift::Nowhere => Units::default(),
            Shift::Sell => Units { available: ordered - confirmed, reserved: -ordered, sold: confirmed },
            Shift::Release => Units { available: ordered, reserved: -ordered, sold: 0 },
            Shift::Unsell => Units { available: confirmed, reserved: 0, sold: -confirmed },
        }
    }
}

/// Checks the units of a partial confirmation, or of a return, against those of the order: each SKU of the order, once,
/// 1 to as many as there are. `field` is where the list stands in the request.
pub fn check_part(part: &[Item], of: &[Item]) -> Result<(), Invalid> {
    if part.is_empty() {
        return Err(Invalid::new("items", "must name at least one SKU and quantity"));
    }
    for (position, item) in part.iter().enumerate() {
        if part[..position].iter().any(|earlier| earlier.sku == item.sku) {
            return Err(Invalid::new("items", format!("names {} twice; add the quantities up", item.sku)));
        }
        let Some(ordered) = of.iter().find(|ordered| ordered.sku == item.sku) else {
            return Err(Invalid::new("sku", format!("the order has no units of {}", item.sku)));
        };
        if item.quantity == 0 || item.quantity > ordered.quantity {
            return Err(Invalid::new(
                "quantity",
                format!("must be 1 to {} for {}, got {}", ordered.quantity, item.sku, item.quantity),
            ));
        }
    }
    Ok(())
}

/// How many units of this item are paid, if `part` is; `None` is all of them.
pub fn confirmed_of(item: &Item, part: Option<&[Item]>) -> u32 {
    match part {
        None => item.quantity,
        Some(part) => part.iter().find(|paid| paid.sku == item.sku).map_or(0, |paid| paid.quantity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Sku;
    use std::collections::BTreeSet;

    fn items(list: &[(&str, u32)]) -> Vec<Item> {
        list.iter().map(|(sku, quantity)| Item { sku: Sku::parse(*sku).unwrap(), quantity: *quantity }).collect()
    }

    /// The whole table, as a page to read: state, then what each move makes of it.
    #[test]
    fn every_state_and_every_move() {
        let table = "
            .   made=r refused=f confirm=p cancel=q extend=: expire=t
            :   made=+ refused=f confirm=p cancel=q extend=: expire=t
            r   confirm=c cancel=x extend=+ expire=e
            +   confirm=c cancel=x extend=+ expire=e
            p   made=c refused=f
            q   made=x refused=X
            t   made=e refused=E
            c   told=s
            x   told=X
            e   told=E
            s
            X
            E
            f
        ";
        let name = |what: Move| format!("{what:?}").to_lowercase();
        let told: BTreeSet<String> = table
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let real: BTreeSet<String> = State::all()
            .map(|state| {
                let mut line = char::from(state.code()).to_string();
                for what in Move::ALL {
                    if let Some((next, _)) = state.after(what) {
                        line += &format!(" {}={}", name(what), char::from(next.code()));
                    }
                }
                line
            })
            .collect();
        assert_eq!(real, told);
    }

    #[test]
    fn a_character_stands_for_one_state() {
        let codes: BTreeSet<u8> = State::all().map(State::code).collect();
        assert_eq!(codes.len(), State::all().count());
        for state in State::all() {
            assert_eq!(State::of_code(state.code()), Some(state));
            assert_eq!(State::code_is_unanswered(state.code()), state.is_unanswered(), "{state:?}");
        }
        assert_eq!(State::of_code(b'?'), None);
    }

    #[test]
    fn an_end_is_decided_once_and_nothing_final_moves() {
        for state in State::all() {
            for what in Move::ALL {
                let Some((next, _)) = state.after(what) else { continue };
                assert!(!state.is_final(), "{state:?} {what:?}");
                if let Some(end) = state.end() {
                    assert!(
                        next.end() == Some(end) || (next, what) == (State::Failed, Move::Refused),
                        "{state:?} {what:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn units_on_the_move_come_from_somewhere() {
        for shift in [Shift::Nowhere, Shift::Sell, Shift::Release, Shift::Unsell] {
            for (ordered, confirmed) in [(3, 3), (3, 1), (3, 0), (u32::MAX, u32::MAX)] {
                let Units { available, reserved, sold } = shift.units(ordered, confirmed);
                assert_eq!(available + reserved + sold, 0, "{shift:?}");
            }
        }
        assert_eq!(Shift::Sell.units(3, 1), Units { available: 2, reserved: -3, sold: 1 });
    }

    #[test]
    fn a_part_is_a_part_of_the_order() {
        let order = items(&[("a", 2), ("b", 1)]);
        assert!(check_part(&items(&[("b", 1), ("a", 1)]), &order).is_ok());
        for (part, field) in [
            (&[][..], "items"),
            (&[("a", 1), ("a", 1)], "items"),
            (&[("c", 1)], "sku"),
            (&[("a", 3)], "quantity"),
            (&[("a", 0)], "quantity"),
        ] {
            assert_eq!(check_part(&items(part), &order).unwrap_err().field, field, "{part:?}");
        }
        assert_eq!(confirmed_of(&order[0], Some(&items(&[("b", 1)]))), 0);
        assert_eq!(confirmed_of(&order[0], None), 2);
    }
}
