//! Sagas: actions in order (or at once), and their compensations when one of them fails.

use super::error::{Error, Outcome};
use super::options::{Options, option_setters};
use super::wire::{Step, Trans};
use super::{Client, Payload};
use std::collections::BTreeMap;

/// A saga being put together.
///
/// ```no_run
/// # async fn run(client: rushline::client::Client) -> Result<(), rushline::client::Error> {
/// use rushline::client::{Error, Outcome};
/// use serde_json::json;
///
/// let transfer = client
///     .saga(client.new_gid().await?)
///     .step("http://bank-a/out", "http://bank-a/out-undo", &json!({ "amount": 30 }))
///     .step("http://bank-b/in", "http://bank-b/in-undo", &json!({ "amount": 30 }))
///     .wait_result();
/// match transfer.submit().await {
///     Ok(_) => println!("transferred"),
///     Err(Error::Failure { reason }) => println!("given back: {reason}"),
///     Err(Error::NotFinished { gid, .. }) => println!("ask for {gid} later"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[must_use = "nothing happens before submit"]
#[derive(Debug, Clone)]
pub struct Saga {
    client: Client,
    gid: String,
    steps: Vec<Step>,
    payloads: Vec<Payload>,
    concurrent: bool,
    orders: BTreeMap<usize, Vec<usize>>,
    options: Options,
}

impl Saga {
    pub(crate) fn new(client: Client, gid: String) -> Self {
        Self {
            client,
            gid,
            steps: Vec::new(),
            payloads: Vec::new(),
            concurrent: false,
            orders: BTreeMap::new(),
            options: Options::default(),
        }
    }

    /// One more step: what is called, what undoes it, and what both are sent.
    ///
    /// A URL is HTTP (`http://…`) or a gRPC method (`HOST:PORT/package.Service/Method`). An empty one means: nothing to
    /// do. The payload is any serialisable value by reference, or [`Payload::message`] for gRPC.
    pub fn step(
        mut self,
        action: impl Into<String>,
        compensate: impl Into<String>,
        payload: impl Into<Payload>,
    ) -> Self {
        self.steps.push(Step { action: action.into(), compensate: Some(compensate.into()) });
        self.payloads.push(payload.into());
        self
    }

    /// All steps at once, save for what [`Saga::order`] says.
    pub fn concurrent(mut self) -> Self {
        self.concurrent = true;
        self
    }

    /// In a concurrent saga: step `step` only after all of `after`; the first step is 0.
    pub fn order(mut self, step: usize, after: impl IntoIterator<Item = usize>) -> Self {
        self.orders.entry(step).or_default().extend(after);
        self
    }

    /// How often actions that answer neither yes nor no are tried at once, in the whole saga; then it is rolled back.
    pub fn retry_limit(mut self, retries: u32) -> Self {
        self.options.retry_limit = i64::from(retries);
        self
    }

    option_setters!();

    /// Hands it over. [`Error::Failure`] is heard only with `wait_result`; without it, `query` tells.
    pub async fn submit(self) -> Result<Outcome, Error> {
        let client = self.client.clone();
        client.submit(&self.into_trans()?).await
    }

    fn into_trans(self) -> Result<Trans, Error> {
        if !self.orders.is_empty() && !self.concurrent {
            return Err(Error::invalid("an order of steps means something in a concurrent saga only"));
        }
        let count = self.steps.len();
        if let Some(wrong) =
            self.orders.iter().flat_map(|(step, after)| after.iter().chain([step])).find(|i| **i >= count)
        {
            return Err(Error::invalid(format!("an order names step {wrong}; there are {count}, the first is 0")));
        }
        let custom_data = match self.concurrent {
            true => serde_json::json!({ "concurrent": true, "orders": self.orders }).to_string(),
            false => String::new(),
        };
        Ok(Trans {
            gid: self.gid,
            trans_type: "saga",
            steps: self.steps,
            payloads: self.payloads.into_iter().map(Payload::into_bytes).collect::<Result<_, _>>()?,
            custom_data,
            concurrent: self.concurrent,
            options: self.options,
            ..Trans::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saga() -> Saga {
        Client::http("http://h").unwrap().saga("g").step("http://a", "", &1).step("http://b", "", &2)
    }

    #[test]
    fn an_order_travels_as_dtm_reads_it() {
        let trans = saga().concurrent().order(1, [0]).into_trans().unwrap();
        assert_eq!(trans.custom_data, r#"{"concurrent":true,"orders":{"1":[0]}}"#);
        assert_eq!(trans.payloads, ["1", "2"]);
    }

    #[test]
    fn an_order_that_means_nothing_is_refused() {
        assert!(matches!(saga().order(1, [0]).into_trans(), Err(Error::Invalid(_))));
        assert!(matches!(saga().concurrent().order(1, [2]).into_trans(), Err(Error::Invalid(_))));
        let unwritable = BTreeMap::from([(vec![1], 1)]);
        let saga = saga().step("http://c", "", &unwritable);
        assert!(matches!(saga.into_trans(), Err(Error::Invalid(_))), "a key that is no text");
    }
}
