//! `rushline.v1`: the flash sale over gRPC, as `proto/rushline/v1/` describes it.
//!
//! Translates to the functions that the HTTP handlers call, and decides nothing. `words.rs` turns what they answer into
//! messages, `status.rs` what they refuse into statuses; `deadline.rs` keeps a call within the time that its caller has.

mod deadline;
mod orders;
mod sales;
mod status;
mod words;

use super::App;
use super::deed::Deed;
use super::problem::Problem;
use crate::access::{self, Caller, rules};
use crate::proto::rushline::v1::{orders_server::OrdersServer, sales_server::SalesServer};
use deadline::Deadline;
use std::sync::Arc;
use tonic::{Extensions, Request, Response, Status};

/// Longest message that is read: a sale of 10,000 SKUs is created in one, as over HTTP. An order has a bound of its own.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

type Answer<T> = Result<Response<T>, Status>;

/// What buyers and shops ask.
pub fn orders(app: Arc<App>) -> OrdersServer<orders::Door> {
    OrdersServer::new(orders::Door::new(app)).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// What operators ask.
pub fn sales(app: Arc<App>) -> SalesServer<sales::Door> {
    SalesServer::new(sales::Door::new(app)).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Does it within the caller's time, and says what came of it. The work is in a box: databases' drivers are futures deep
/// inside each other.
async fn answer<T>(deadline: Deadline, work: impl Future<Output = Result<T, Problem>>) -> Answer<T> {
    deadline.keep(async { work.await.map(Response::new).map_err(|problem| status::of(&problem)) }).await
}

/// Who asks, if that is known, and what they ask for.
#[derive(Clone)]
struct Asking {
    caller: Option<Arc<Caller>>,
    method: &'static str,
}

impl Asking {
    fn new<T>(request: &Request<T>, method: &'static str) -> Self {
        Self { caller: request.extensions().get().cloned(), method }
    }

    /// A token may hold for some sales only, and which one this is about stands in the message.
    fn may(&self, sale_or_gid: &str) -> Result<(), Problem> {
        let Some(caller) = &self.caller else { return Ok(()) };
        let rule = rules::find("POST", self.method).unwrap_or(&rules::UNLISTED);
        Ok(access::decide(rule.need, caller, Some(sale_or_gid))?)
    }
}

/// The operators' log of this call.
fn deed_of(extensions: &Extensions, target: &str) -> Deed {
    let deed: Deed = extensions.get().cloned().unwrap_or_default();
    deed.target(target);
    deed
}
