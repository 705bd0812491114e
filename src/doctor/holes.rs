//! Holes that versions of Redis are known to have, as far as they concern whoever may send it scripts or block on it.
//!
//! rushline sends fixed scripts and passes no text of users on, so a hole is nothing that its callers can reach; whoever has
//! the account can. Numbers alone do not tell: distributions mend a version and keep its number. So this warns.

/// First version of each line in which CVE-2025-49844, -46817, -46818 and -46819 (Lua) are mended.
const LUA_MENDED: [(u32, u32, u32); 4] = [(7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)];
/// CVE-2026-23479: a client that is evicted while it is unblocked. From 7.2 on; mended here.
const EVICTION_MENDED: (u32, u32, u32) = (8, 6, 3);

/// What is known of this version of Redis (not of Valkey, which counts in its own way).
pub fn of(version: &str) -> Vec<&'static str> {
    let Some(version) = numbers(version) else { return Vec::new() };
    let (major, minor, _) = version;
    let line = LUA_MENDED.iter().find(|mended| (mended.0, mended.1) == (major, minor));
    let lua = match line {
        Some(mended) => version < *mended,
        None => (major, minor) < (8, 2),
    };
    let mut holes = Vec::new();
    if lua {
        holes.push("CVE-2025-49844 (scripts may break out of Lua)");
    }
    if version >= (7, 2, 0) && version < EVICTION_MENDED {
        holes.push("CVE-2026-23479 (with maxmemory-clients set)");
    }
    holes
}

fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_holes_that_were_mended_later() {
        for (version, count) in [
            ("6.2.19", 1),
            ("7.0.15", 1),
            ("7.2.10", 2),
            ("7.2.11", 1),
            ("7.4.5", 2),
            ("7.4.6", 1),
            ("8.0.3", 2),
            ("8.0.4", 1),
            ("8.2.1", 2),
            ("8.2.3", 1),
            ("8.6.2", 1),
            ("8.6.3", 0),
            ("9.0.0", 0),
            ("255.255.255", 0),
            ("odd", 0),
            ("", 0),
        ] {
            assert_eq!(of(version).len(), count, "{version}");
        }
    }
}
