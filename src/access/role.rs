//! Roles: what a token lets its bearer be.

use std::fmt;

/// One of the four that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Places orders, sees them, pays for them, gives them up. For the shop's own front end.
    Buyer,
    /// Reads everything, changes nothing. For dashboards, metrics, auditors.
    Reader,
    /// Begins and steers global transactions. For services that speak dtm.
    Client,
    /// Everything.
    Operator,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Buyer, Self::Reader, Self::Client, Self::Operator];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buyer => "buyer",
            Self::Reader => "reader",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// A set of roles.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self::of(&Role::ALL);

    pub const fn of(roles: &[Role]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < roles.len() {
            bits |= 1 << roles[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    pub fn with(self, role: Role) -> Self {
        Self(self.0 | Self::of(&[role]).0)
    }

    pub fn without(self, role: Role) -> Self {
        Self(self.0 & !Self::of(&[role]).0)
    }

    pub fn has(self, role: Role) -> bool {
        self.meets(Self::of(&[role]))
    }

    /// Is at least one role in both?
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn words(self) -> Vec<&'static str> {
        Role::ALL.into_iter().filter(|role| self.has(*role)).map(Role::as_str).collect()
    }
}

/// `reader or operator`.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" or "))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let set = Roles::of(&[Role::Reader, Role::Operator]);
        assert_eq!(set.to_string(), "reader or operator");
        assert!(set.has(Role::Reader) && !set.has(Role::Buyer));
        assert!(set.meets(Roles::NONE.with(Role::Operator)) && !set.meets(Roles::of(&[Role::Client])));
        assert!(Roles::NONE.is_empty() && set.without(Role::Reader).without(Role::Operator).is_empty());
        assert!(Role::ALL.into_iter().all(|role| Role::parse(role.as_str()) == Some(role) && Roles::ALL.has(role)));
        assert_eq!(Role::parse("admin"), None);
    }
}
