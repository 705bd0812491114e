//! The list of scenarios. Each is a module with `ABOUT`, `run` (the story, ending with a look into the books) and
//! `serve` (its services, one process each).

use crate::serving::Role;
use crate::verdict::Verdict;
use crate::{bank_transfer, cache, flash_sale, order_system, several_stores, travel};
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    OrderSystem,
    BankTransfer,
    Travel,
    Cache,
    FlashSale,
    SeveralStores,
}

impl Scenario {
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// As it is typed.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub fn about(self) -> &'static str {
        match self {
            Self::OrderSystem => order_system::ABOUT,
            Self::BankTransfer => bank_transfer::ABOUT,
            Self::Travel => travel::ABOUT,
            Self::Cache => cache::ABOUT,
            Self::FlashSale => flash_sale::ABOUT,
            Self::SeveralStores => several_stores::ABOUT,
        }
    }

    pub async fn run(self, crash: bool) -> anyhow::Result<Verdict> {
        match self {
            Self::OrderSystem => order_system::run(crash).await,
            Self::BankTransfer => bank_transfer::run(crash).await,
            Self::Travel => travel::run(crash).await,
            Self::Cache => cache::run(crash).await,
            Self::FlashSale => flash_sale::run(crash).await,
            Self::SeveralStores => several_stores::run(crash).await,
        }
    }

    pub async fn serve(self, role: &Role) -> anyhow::Result<()> {
        match self {
            Self::OrderSystem => order_system::serve(role).await,
            Self::BankTransfer => bank_transfer::serve(role).await,
            Self::Travel => travel::serve(role).await,
            Self::Cache => cache::serve(role).await,
            Self::FlashSale => flash_sale::serve(role).await,
            Self::SeveralStores => several_stores::serve(role).await,
        }
    }
}
