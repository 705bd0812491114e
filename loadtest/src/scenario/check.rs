//! What a scenario must be, beyond its form. Errors name the field, as `buyers[2].tries`.

use anyhow::{bail, ensure};

use super::{Arrivals, Event, Manner, OrderService, Sale, Scenario};

/// Bounds that keep a slip of the keyboard from filling the memory or running till tomorrow.
const RATE_MAX: f64 = 10_000_000.0;
const SECONDS_MAX: f64 = 86_400.0;
const SKUS_MAX: u64 = 10_000;
const UNITS_MAX: u64 = 1_000_000_000;
const ACCOUNTS_MAX: u32 = 10_000;
const FEW_MAX: u16 = 100;
/// Buyers have numbers of 32 bits, and each of a bot's accounts takes one.
const BUYERS_MAX: u64 = 200_000_000;

pub fn check(scenario: &Scenario) -> anyhow::Result<()> {
    within("patience_s", scenario.patience_s, 0.0, SECONDS_MAX)?;
    sale(&scenario.sale)?;
    order_service(&scenario.order_service)?;
    ensure!(!scenario.arrivals.is_empty(), "arrivals: nobody comes\nhint: add an [[arrivals]] section");
    let closed = scenario.arrivals.iter().any(|phase| matches!(phase, Arrivals::Closed { .. }));
    ensure!(!closed || scenario.arrivals.len() == 1, "arrivals: a closed loop has no schedule and stands alone");
    for (at, phase) in scenario.arrivals.iter().enumerate() {
        arrivals(&format!("arrivals[{at}]"), phase)?;
    }
    ensure!(!scenario.buyers.is_empty(), "buyers: nobody is described\nhint: add a [[buyers]] section");
    for (at, manner) in scenario.buyers.iter().enumerate() {
        buyer(&format!("buyers[{at}]"), manner, &scenario.sale)?;
    }
    let weight: u64 = scenario.buyers.iter().map(|manner| u64::from(manner.weight)).sum();
    ensure!(weight > 0, "buyers[].weight: all are 0, so nobody would come");
    for (at, event) in scenario.events.iter().enumerate() {
        check_event(&format!("events[{at}]"), event, &scenario.sale)?;
    }
    Ok(())
}

fn sale(sale: &Sale) -> anyhow::Result<()> {
    ensure!(sale.units <= UNITS_MAX, "sale.units: {} is more than {UNITS_MAX}", sale.units);
    ensure!((1..=SKUS_MAX).contains(&sale.skus), "sale.skus: must be 1 to {SKUS_MAX}, got {}", sale.skus);
    ensure!(sale.limit_per_buyer != Some(0), "sale.limit_per_buyer: 0 would sell nothing; leave it out for no limit");
    if let Some(class) = &sale.durability {
        let known = matches!(&**class, "memory" | "fsync") || class.starts_with("replica:");
        ensure!(known, "sale.durability: must be memory, fsync or replica:N, got `{class}`");
    }
    for (name, time) in [("opens_s", sale.opens_s), ("closes_s", sale.closes_s), ("reserve_for_s", sale.reserve_for_s)]
    {
        within(&format!("sale.{name}"), time.unwrap_or_default(), -SECONDS_MAX, SECONDS_MAX)?;
    }
    if let (Some(opens), Some(closes)) = (sale.opens_s, sale.closes_s) {
        ensure!(opens < closes, "sale.closes_s: {closes} is not after opens_s = {opens}");
    }
    Ok(())
}

fn order_service(service: &OrderService) -> anyhow::Result<()> {
    within("order_service.delay_ms", service.delay_ms as f64, 0.0, 60_000.0)?;
    for (name, percent) in
        [("refuse_percent", service.refuse_percent), ("lose_replies_percent", service.lose_replies_percent)]
    {
        within(&format!("order_service.{name}"), percent, 0.0, 100.0)?;
    }
    let mode = &service.mode;
    ensure!(mode == "single" || mode == "bulk", "order_service.mode: must be `single` or `bulk`, got `{mode}`");
    ensure!(service.max_concurrency > 0, "order_service.max_concurrency: 0 would deliver nothing");
    Ok(())
}

fn arrivals(field: &str, phase: &Arrivals) -> anyhow::Result<()> {
    let rate = |name: &str, rate: f64| within(&format!("{field}.{name}"), rate, f64::MIN_POSITIVE, RATE_MAX);
    let time = |name: &str, s: f64| within(&format!("{field}.{name}"), s, f64::MIN_POSITIVE, SECONDS_MAX);
    let count = match phase {
        Arrivals::Burst { buyers, within_s } => {
            within(&format!("{field}.within_s"), *within_s, 0.0, SECONDS_MAX)?;
            *buyers as f64
        }
        Arrivals::Closed { buyers } => *buyers as f64,
        Arrivals::Constant { rate: r, lasts_s } | Arrivals::Poisson { rate: r, lasts_s } => {
            rate("rate", *r)?;
            time("lasts_s", *lasts_s)?;
            r * lasts_s
        }
        Arrivals::Steps { rates, each_s } => {
            ensure!(!rates.is_empty(), "{field}.rates: is empty");
            rates.iter().try_for_each(|one| rate("rates", *one))?;
            time("each_s", *each_s)?;
            rates.iter().sum::<f64>() * each_s
        }
        Arrivals::Ramp { from, to, lasts_s } => {
            within(&format!("{field}.from"), *from, 0.0, RATE_MAX)?;
            within(&format!("{field}.to"), *to, 0.0, RATE_MAX)?;
            time("lasts_s", *lasts_s)?;
            (from + to) / 2.0 * lasts_s
        }
        Arrivals::Pause { lasts_s } => {
            time("lasts_s", *lasts_s)?;
            0.0
        }
        Arrivals::Trace { speed, .. } => {
            within(&format!("{field}.speed"), *speed, 0.001, 1_000_000.0)?;
            0.0
        }
    };
    ensure!(count <= BUYERS_MAX as f64, "{field}: {count:.0} buyers are more than {BUYERS_MAX}");
    Ok(())
}

fn buyer(field: &str, manner: &Manner, sale: &Sale) -> anyhow::Result<()> {
    ensure!((1..=1000).contains(&manner.quantity), "{field}.quantity: must be 1 to 1000, got {}", manner.quantity);
    let known = manner.sku == "*" || sku_number(&manner.sku).is_some_and(|number| (1..=sale.skus).contains(&number));
    ensure!(known, "{field}.sku: `{}` is neither `*` nor one of sku-1 to sku-{}", manner.sku, sale.skus);
    for (name, number) in [("clicks", manner.clicks), ("devices", manner.devices), ("tries", manner.tries)] {
        ensure!((1..=FEW_MAX).contains(&number), "{field}.{name}: must be 1 to {FEW_MAX}, got {number}");
    }
    ensure!((1..=1000).contains(&manner.orders), "{field}.orders: must be 1 to 1000, got {}", manner.orders);
    ensure!(manner.come_back <= 1000 && manner.polls <= 1000, "{field}.come_back, polls: at most 1000");
    let accounts = manner.accounts;
    ensure!((1..=ACCOUNTS_MAX).contains(&accounts), "{field}.accounts: must be 1 to {ACCOUNTS_MAX}, got {accounts}");
    ensure!(manner.patience_ms > 0, "{field}.patience_ms: 0 would wait for no answer at all");
    ensure!(manner.polls == 0 || manner.poll_ms > 0, "{field}.poll_ms: 0 would ask without end");
    for (name, times) in [
        ("backoff_ms", manner.backoff_ms),
        ("think_ms", manner.think_ms),
        ("order_gap_ms", manner.order_gap_ms),
        ("come_back_after_ms", manner.come_back_after_ms),
        ("pay_after_ms", manner.pay_after_ms),
        ("cancel_after_ms", manner.cancel_after_ms),
    ] {
        range(&format!("{field}.{name}"), times)?;
    }
    for (name, percent) in [
        ("lose_percent", manner.lose_percent),
        ("repeat_percent", manner.repeat_percent),
        ("pay_percent", manner.pay_percent),
        ("cancel_percent", manner.cancel_percent),
    ] {
        within(&format!("{field}.{name}"), percent, 0.0, 100.0)?;
    }
    let both = manner.pay_percent + manner.cancel_percent;
    ensure!(both <= 100.0, "{field}.cancel_percent: with pay_percent it is {both}, more than 100");
    Ok(())
}

fn check_event(field: &str, event: &Event, sale: &Sale) -> anyhow::Result<()> {
    within(&format!("{field}.at_s"), event.at_s, 0.0, SECONDS_MAX)?;
    if let Some(sku) = &event.sku {
        let known = sku_number(sku).is_some_and(|number| (1..=sale.skus).contains(&number));
        ensure!(known, "{field}.sku: `{sku}` is none of sku-1 to sku-{}", sale.skus);
    }
    match (&event.status, event.restock) {
        (None, None) => bail!("{field}: says nothing to do\nhint: set restock or status"),
        (Some(status), _) if !["open", "paused", "closed"].contains(&&**status) => {
            bail!("{field}.status: must be open, paused or closed, got `{status}`")
        }
        _ => Ok(()),
    }
}

/// The number of `sku-7`.
pub fn sku_number(sku: &str) -> Option<u64> {
    sku.strip_prefix("sku-")?.parse().ok()
}

fn range(field: &str, [from, to]: [u64; 2]) -> anyhow::Result<()> {
    ensure!(from <= to, "{field}: goes from {from} to {to}; the first must not be greater");
    ensure!(to as f64 <= SECONDS_MAX * 1000.0, "{field}: {to} ms is more than a day");
    Ok(())
}

fn within(field: &str, value: f64, min: f64, max: f64) -> anyhow::Result<()> {
    if value < min || !value.is_finite() || value > max {
        let min = if min == f64::MIN_POSITIVE { "more than 0".into() } else { format!("at least {min}") };
        bail!("{field}: must be {min} and at most {max}, got {value}");
    }
    Ok(())
}
