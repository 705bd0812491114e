//! The scenarios that come with the harness.

/// Name and text, in the order of `rushline-loadtest scenarios`.
pub const READY: [(&str, &str); 10] = [
    ("flash", include_str!("../../scenarios/flash.toml")),
    ("steady", include_str!("../../scenarios/steady.toml")),
    ("drip", include_str!("../../scenarios/drip.toml")),
    ("restock", include_str!("../../scenarios/restock.toml")),
    ("slow-orders", include_str!("../../scenarios/slow-orders.toml")),
    ("refusing-orders", include_str!("../../scenarios/refusing-orders.toml")),
    ("rough", include_str!("../../scenarios/rough.toml")),
    ("reservations", include_str!("../../scenarios/reservations.toml")),
    ("sagas", include_str!("../../scenarios/sagas.toml")),
    ("empty-sagas", include_str!("../../scenarios/empty-sagas.toml")),
];
