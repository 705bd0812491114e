//! `rushline.v1.Orders`: placing, following, paying, giving up, returning.

use super::deadline::Deadline;
use super::{Answer, Asking, answer, deed_of, status, words};
use crate::domain::ids::{Gid, SaleName};
use crate::domain::order::Status as OrderIs;
use crate::domain::trace::TraceContext;
use crate::proto::rushline::v1::orders_server::Orders;
use crate::proto::rushline::v1::place_order_reply::Outcome as Said;
use crate::proto::rushline::v1::place_orders_reply::{self, result};
use crate::proto::rushline::v1::{
    CancelOrderRequest, ConfirmOrderRequest, ExtendOrderRequest, GetOrderRequest, Item, ListOrdersReply,
    ListOrdersRequest, Order, PlaceOrderReply, PlaceOrderRequest, PlaceOrdersReply, PlaceOrdersRequest, Placed,
    RefusalReason, Refused, Reservation, ReturnUnitsReply, ReturnUnitsRequest, WatchOrderRequest,
};
use crate::sale::Refusal;
use crate::sale::open::Open;
use crate::server::events::{Following, News};
use crate::server::orders::{self, Outcome, Wait};
use crate::server::problem::Problem;
use crate::server::search;
use crate::server::wire::{Confirm, Extend, NamedItem, OrderItem, PlaceOrder, ReturnUnits};
use crate::server::{App, reservations, returns, sales};
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::StatusCode;
use prost::Message;
use serde_json::value::RawValue;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Most orders of one call: as many as a batch of a busy sale has, and few enough to be answered in a moment.
const ORDERS_MAX: usize = 100;

pub struct Door {
    app: Arc<App>,
}

impl Door {
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl Orders for Door {
    async fn place_order(&self, request: Request<PlaceOrderRequest>) -> Answer<PlaceOrderReply> {
        let (deadline, trace) = (Deadline::of(request.metadata()), trace(&request));
        let asking = Asking::new(&request, "/rushline.v1.Orders/PlaceOrder");
        answer(deadline, Box::pin(place(&self.app, &asking, request.into_inner(), trace, deadline))).await
    }

    async fn place_orders(&self, request: Request<PlaceOrdersRequest>) -> Answer<PlaceOrdersReply> {
        let (deadline, trace) = (Deadline::of(request.metadata()), trace(&request));
        let asking = Asking::new(&request, "/rushline.v1.Orders/PlaceOrders");
        let orders = request.into_inner().orders;
        let work = Box::pin(async {
            if orders.is_empty() || orders.len() > ORDERS_MAX {
                let rule = format!("must be 1 to {ORDERS_MAX}, got {}; nothing was taken", orders.len());
                return Err(invalid("orders", &rule));
            }
            // Asked in this order, which is that of the turns of one key; decided together.
            let placed = orders.into_iter().map(|order| place(&self.app, &asking, order, trace.clone(), deadline));
            let said = |placed: Result<PlaceOrderReply, Problem>| place_orders_reply::Result {
                result: Some(match placed {
                    Ok(reply) => result::Result::Reply(reply),
                    Err(problem) => result::Result::Error(status::said(&problem)),
                }),
            };
            Ok(PlaceOrdersReply { results: join_all(placed).await.into_iter().map(said).collect() })
        });
        answer(deadline, work).await
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Answer<Order> {
        let deadline = Deadline::of(request.metadata());
        let asking = Asking::new(&request, "/rushline.v1.Orders/GetOrder");
        let GetOrderRequest { gid, wait_ms } = request.into_inner();
        let wait = deadline.wait(wait_ms, self.app.settings.wait_max);
        answer(
            deadline,
            Box::pin(async {
                asking.may(&gid)?;
                orders::show_after(&self.app, &gid, wait).await.map(words::order)
            }),
        )
        .await
    }

    type WatchOrderStream = BoxStream<'static, Result<Order, Status>>;

    async fn watch_order(&self, request: Request<WatchOrderRequest>) -> Answer<Self::WatchOrderStream> {
        let deadline = Deadline::of(request.metadata());
        let asking = Asking::new(&request, "/rushline.v1.Orders/WatchOrder");
        let request = request.into_inner();
        let heard = words::status_named(request.heard());
        let begin = Box::pin(async {
            asking.may(&request.gid)?;
            let gid: Gid = request.gid.parse().map_err(|_| Problem::unknown_order(&request.gid))?;
            Following::begin(&self.app, gid, heard).await
        });
        let following = answer(deadline, begin).await?.into_inner();
        let news = stream::unfold(following, move |following| told(following, deadline));
        Ok(Response::new(news.boxed()))
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Answer<ListOrdersReply> {
        let deadline = Deadline::of(request.metadata());
        let request = request.into_inner();
        let work = Box::pin(async {
            let sale = SaleName::parse(&request.sale).map_err(|_| Problem::unknown_sale(&request.sale))?;
            let (wanted, limit) = search::orders::read(asked_for(&request)?)?;
            let page = search::orders::page(&self.app, &sale, &wanted, limit).await?;
            let orders = page.orders.into_iter().map(words::order).collect();
            Ok(ListOrdersReply { orders, next: page.next.unwrap_or_default() })
        });
        answer(deadline, work).await
    }

    async fn confirm_order(&self, request: Request<ConfirmOrderRequest>) -> Answer<Reservation> {
        let deadline = Deadline::of(request.metadata());
        let asking = Asking::new(&request, "/rushline.v1.Orders/ConfirmOrder");
        let ConfirmOrderRequest { gid, items } = request.into_inner();
        let items = Some(named(items)).filter(|items| !items.is_empty());
        let work = Box::pin(async {
            asking.may(&gid)?;
            reservations::confirmed(&self.app, &gid, Confirm { items }).await.map(words::reservation)
        });
        answer(deadline, work).await
    }

    async fn cancel_order(&self, request: Request<CancelOrderRequest>) -> Answer<Reservation> {
        let deadline = Deadline::of(request.metadata());
        let asking = Asking::new(&request, "/rushline.v1.Orders/CancelOrder");
        let gid = request.into_inner().gid;
        let work = Box::pin(async {
            asking.may(&gid)?;
            reservations::cancelled(&self.app, &gid).await.map(words::reservation)
        });
        answer(deadline, work).await
    }

    async fn extend_order(&self, request: Request<ExtendOrderRequest>) -> Answer<Reservation> {
        let deadline = Deadline::of(request.metadata());
        let asking = Asking::new(&request, "/rushline.v1.Orders/ExtendOrder");
        let ExtendOrderRequest { gid, reserve_for_ms } = request.into_inner();
        let work = Box::pin(async {
            asking.may(&gid)?;
            let wanted = Extend { reserve_for_ms: Some(reserve_for_ms) };
            reservations::extended(&self.app, &gid, &wanted).await.map(words::reservation)
        });
        answer(deadline, work).await
    }

    async fn return_units(&self, request: Request<ReturnUnitsRequest>) -> Answer<ReturnUnitsReply> {
        let (metadata, extensions, message) = request.into_parts();
        let ReturnUnitsRequest { gid, items, request_id } = message;
        let deed = deed_of(&extensions, &gid);
        let wanted = ReturnUnits { items: named(items), request_id };
        let work = Box::pin(async { returns::returned(&self.app, &gid, wanted, &deed).await.map(words::returned) });
        answer(Deadline::of(&metadata), work).await
    }
}

fn trace<T>(request: &Request<T>) -> Option<TraceContext> {
    let said = |name| request.metadata().get(name).map(|value| value.as_bytes());
    TraceContext::read(said("traceparent")?, said("tracestate"))
}

fn named(items: Vec<Item>) -> Vec<NamedItem> {
    items.into_iter().map(|Item { sku, quantity }| NamedItem { sku, quantity }).collect()
}

fn invalid(field: &str, rule: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_order", format!("{field}: {rule}")).field(field)
}

async fn place(
    app: &Arc<App>,
    asking: &Asking,
    request: PlaceOrderRequest,
    trace: Option<TraceContext>,
    deadline: Deadline,
) -> Result<PlaceOrderReply, Problem> {
    asking.may(&request.sale)?;
    let bytes_max = app.settings.body_bytes_max;
    if request.encoded_len() > bytes_max {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("an order has at most {bytes_max} bytes (setting http.body_bytes_max); nothing was taken"),
        ));
    }
    let open = sales::open(app, &request.sale).await?;
    let wait = Wait { most: deadline.wait(request.wait_ms, app.settings.wait_max), latest: deadline.latest() };
    let payload = match request.payload.as_str() {
        "" | "null" => None,
        json => Some(
            RawValue::from_string(json.to_owned())
                .map_err(|error| invalid("payload", &format!("must be JSON, or empty: {error}; nothing was taken")))?,
        ),
    };
    let items = request.items.iter().map(|item| OrderItem { sku: (&item.sku).into(), quantity: item.quantity });
    let limits_by = Some(request.limits_by.into_iter().collect());
    let asked = PlaceOrder { buyer: request.buyer.into(), items: items.collect(), payload, limits_by };
    let key = Some(request.idempotency_key.as_bytes()).filter(|key| !key.is_empty());
    let order = orders::order_of(&open, asked, key, trace)?;
    let turn = orders::turn(&open, &order).await?;
    // As over HTTP: once it is on its way to Redis nothing may forget that it is, or a repeat would be decided first.
    let (app, of_sale) = (app.clone(), open.clone());
    let decided = tokio::spawn(async move { orders::outcome(&app, &of_sale, order, wait, turn).await });
    let outcome = decided.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    let said = match outcome {
        Outcome::Refused(refusal) => Said::Refused(refused(&open, refusal)?),
        Outcome::Placed { gid, ended: Some(ended), .. } if ended.status == OrderIs::Failed => {
            let problem = orders::order_refused(&gid, ended.message);
            let reason = RefusalReason::OrderRefused;
            Said::Refused(Refused { gid: gid.to_string(), ..refusal_of(reason, problem) })
        }
        Outcome::Placed { gid, replayed, ended } => {
            let status = words::status(ended.map_or(OrderIs::Submitted, |ended| ended.status)).into();
            Said::Placed(Placed { gid: gid.to_string(), status, items: request.items, replayed })
        }
    };
    Ok(PlaceOrderReply { outcome: Some(said) })
}

/// What the sale decided is a value. That it could not decide, or was asked about something else, is none.
fn refused(open: &Open, refusal: Refusal) -> Result<Refused, Problem> {
    let problem = Problem::from(refusal);
    let reason = match refusal {
        Refusal::SoldOut => RefusalReason::SoldOut,
        Refusal::LimitReached => RefusalReason::LimitReached,
        Refusal::NotOpen => {
            return Ok(refusal_of(RefusalReason::NotOpen, problem.retry_after(orders::opens_in_s(open))));
        }
        Refusal::Closed => RefusalReason::Closed,
        Refusal::Paused => RefusalReason::Paused,
        Refusal::UnknownSku | Refusal::KeyReused | Refusal::QueueFull | Refusal::BacklogFull => return Err(problem),
    };
    Ok(refusal_of(reason, problem))
}

fn refusal_of(reason: RefusalReason, problem: Problem) -> Refused {
    Refused {
        reason: reason.into(),
        code: problem.code.to_owned(),
        detail: problem.detail,
        retry_after_s: problem.retry_after_s.unwrap_or_default(),
        gid: String::new(),
    }
}

/// What a page is to hold, by the names that HTTP has for it.
fn asked_for(request: &ListOrdersRequest) -> Result<Vec<(String, String)>, Problem> {
    let mut asked = Vec::new();
    let mut ask = |name: &str, value: String| {
        if !value.is_empty() {
            asked.push((name.to_owned(), value));
        }
    };
    ask("buyer", request.buyer.clone());
    ask("status", words::status_named(request.status()).map(OrderIs::as_str).unwrap_or_default().to_owned());
    for (name, at) in [("from", &request.from), ("to", &request.to)] {
        if let Some(at) = at {
            let at = words::time_named(at).ok_or_else(|| {
                let text = format!("{name}: is no time");
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", text).field(name)
            })?;
            ask(name, at.to_string());
        }
    }
    ask("q", request.text.clone());
    ask("after", request.after.clone());
    ask("limit", Some(request.limit).filter(|limit| *limit > 0).map(|limit| limit.to_string()).unwrap_or_default());
    Ok(asked)
}

type Followed = Option<Following>;

/// The next message of a stream, and what follows it. Silence is not told: HTTP/2 has pings.
async fn told(following: Followed, deadline: Deadline) -> Option<(Result<Order, Status>, Followed)> {
    let mut following = following?;
    loop {
        match deadline.keep(async { Ok(following.next().await) }).await {
            Ok(News::Status(view)) => return Some((Ok(words::order(*view)), Some(following))),
            Ok(News::None | News::Away) => {}
            Ok(News::Over) => return None,
            Ok(News::Stopping) => {
                let text = "this server stops; watch again, on another node, and name the last status that was heard";
                return Some((Err(Status::unavailable(text)), None));
            }
            Err(late) => return Some((Err(late), None)),
        }
    }
}
