//! What comes in, and where this server calls: docs/security.md has the list of threats, with the story of each.

mod abuse;
mod decoders;
mod headers;
mod limits;
mod metadata;
mod reach;
mod slow;
mod targets;
mod tls;

use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
