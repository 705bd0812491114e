//! The floor: a bare server under the same generator, which says what the machine can do at present.

use std::net::SocketAddr;

use super::load::{self, Load, Template};
use crate::processes::Clock;

/// Where it listens, and what it has spent. Cheap to clone.
#[derive(Clone)]
pub struct Floor {
    pub address: SocketAddr,
    /// The processor time of its process.
    pub clock: Clock,
    pub connections: usize,
    /// How many requests make one measurement.
    pub requests: u64,
}

/// What one measurement gave.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub per_second: f64,
    /// Processor time of the bare server for a request.
    pub micros: f64,
}

impl Floor {
    pub async fn measure(&self) -> anyhow::Result<Measured> {
        let load = Load {
            address: self.address,
            template: Template::order("floor"),
            connections: self.connections,
            first: 0,
            orders: self.requests,
            rate: None,
        };
        let before = self.clock.spent()?;
        let measured = load::run(load).await?;
        measured.expect(&[200], self.requests)?;
        let spent = self.clock.spent()?.saturating_sub(before);
        let micros = spent.as_secs_f64() * 1e6 / self.requests as f64;
        Ok(Measured { per_second: measured.per_second(), micros })
    }
}
