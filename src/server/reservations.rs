//! Reservations: paying, giving up, extending. Over HTTP here; `rpc/` calls the same three functions.

use super::App;
use super::json;
use super::orders::look_up;
use super::problem::Problem;
use super::wire::{Confirm, Extend, OrderView, ReservationView, time};
use crate::domain::ids::{Gid, Invalid};
use crate::domain::order::{Item, Status};
use crate::domain::reservation::{End, State, check_part, confirmed_of};
use crate::domain::terms::Reserve;
use crate::sale::Part;
use crate::sale::reservations::{Ask, Fault, Standing};
use crate::store::orders::Address;
use crate::store::reservations::items_text;
use axum::Json;
use axum::extract::{Path, State as Shared};
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;

type Answer = Result<ReservationView, Problem>;
type JsonAnswer = Result<Json<ReservationView>, Problem>;

/// `POST /v1/orders/{gid}/confirm`
pub async fn confirm(Shared(app): Shared<Arc<App>>, Path(gid): Path<String>, body: Bytes) -> JsonAnswer {
    confirmed(&app, &gid, parse(&body)?).await.map(Json)
}

/// `POST /v1/orders/{gid}/cancel`
pub async fn cancel(Shared(app): Shared<Arc<App>>, Path(gid): Path<String>, body: Bytes) -> JsonAnswer {
    let _nothing: super::wire::Nothing = parse(&body)?;
    cancelled(&app, &gid).await.map(Json)
}

/// `POST /v1/orders/{gid}/extend`
pub async fn extend(Shared(app): Shared<Arc<App>>, Path(gid): Path<String>, body: Bytes) -> JsonAnswer {
    extended(&app, &gid, &parse(&body)?).await.map(Json)
}

/// Paid, in full or (with `items`) in part.
pub async fn confirmed(app: &App, gid: &str, request: Confirm) -> Answer {
    let part = request.into_part().map_err(invalid)?;
    ask(app, gid, Ask::Confirm(part)).await
}

/// Given up.
pub async fn cancelled(app: &App, gid: &str) -> Answer {
    ask(app, gid, Ask::Cancel).await
}

/// Held for longer, up to `reserve_max_ms` of the sale.
pub async fn extended(app: &App, gid: &str, request: &Extend) -> Answer {
    ask(app, gid, Ask::Extend(request.for_ms().map_err(invalid)?)).await
}

/// A body may be left out where nothing needs to be said.
fn parse<'a, T: serde::Deserialize<'a>>(body: &'a Bytes) -> Result<T, Problem> {
    json::parse(if body.is_empty() { b"{}" } else { body }, "invalid_reservation")
}

fn invalid(invalid: Invalid) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_reservation", invalid.to_string()).field(invalid.field)
}

async fn ask(app: &App, text: &str, ask: Ask) -> Answer {
    let unknown = || Problem::unknown_order(text);
    let gid: Gid = text.parse().map_err(|_| unknown())?;
    let part = part_of(app, &gid).await?.ok_or_else(unknown)?;
    let reserve = part.settings().terms.reserve;
    if let (Some(Reserve { for_ms, max_ms }), Ask::Extend(asked)) = (reserve, &ask)
        && !(for_ms..=max_ms).contains(asked)
    {
        let rule = format!("must be {for_ms} to {max_ms} in this sale, got {asked}");
        return Err(invalid(Invalid::new("reserve_for_ms", rule)));
    }
    let address = Address { entry: gid.entry, index: gid.index };
    let view = match app.node.ask_reservation(&part, address, &ask).await {
        Ok(Some(standing)) => return verdict(&gid, &ask, &standing),
        Err(Fault::Store(error)) => return Err(error.into()),
        Err(Fault::Invalid(error)) => return Err(invalid(error)),
        // Of an order that is not there it is said first that it is not there.
        Ok(None) | Err(Fault::NoReservations) => look_up(app, &gid).await?.ok_or_else(unknown)?,
    };
    if reserve.is_none() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "not_reserved",
            format!(
                "sale `{}` has no reservations: its orders are final once they are made. Nothing was changed",
                gid.sale
            ),
        ));
    }
    verdict_of_record(&gid, &ask, view)
}

/// The partition of a gid, if there is such a one.
pub async fn part_of(app: &App, gid: &Gid) -> Result<Option<Arc<Part>>, Problem> {
    Ok(app.node.open(&gid.sale).await?.and_then(|open| open.part(gid.partition)))
}

fn verdict(gid: &Gid, ask: &Ask, standing: &Standing) -> Answer {
    let sold = |item: &Item| confirmed_of(item, standing.part.as_deref());
    let status = standing.state.status();
    let items: Vec<Item> = match standing.state.end() {
        Some(End::Confirmed) => {
            let paid = standing.order.items.iter().map(|item| Item { quantity: sold(item), ..item.clone() });
            paid.filter(|item| item.quantity > 0).collect()
        }
        _ => standing.order.items.clone(),
    };
    let ordered = &standing.order.items;
    let reserved_until = standing.state.is_open().then(|| time(Some(standing.deadline_ms))).flatten();
    let view = ReservationView { gid: gid.to_string(), status, items, reserved_until, replayed: !standing.moved };
    judge(gid, ask, standing.state, Some(ordered), view)
}

/// The same verdict, from the records: its items are those that were paid.
fn verdict_of_record(gid: &Gid, ask: &Ask, view: OrderView) -> Answer {
    use crate::domain::reservation::Telling::Done;
    let state = match view.status {
        Status::Succeed => State::Ended(End::Confirmed, Done),
        Status::Cancelled => State::Ended(End::Cancelled, Done),
        Status::Expired => State::Ended(End::Expired, Done),
        _ => State::Failed,
    };
    let view =
        ReservationView { gid: view.gid, status: view.status, items: view.items, reserved_until: None, replayed: true };
    judge(gid, ask, state, None, view)
}

/// What is asked for stands, or else: why not. `ordered`: all units of the order, where they are still known.
fn judge(gid: &Gid, ask: &Ask, state: State, ordered: Option<&[Item]>, view: ReservationView) -> Answer {
    let conflict = |code, detail: String| Err(Problem::new(StatusCode::CONFLICT, code, detail));
    match (ask, state) {
        (Ask::Confirm(part), State::Ended(End::Confirmed, _)) => {
            let asked = part.as_deref().or(ordered);
            if view.replayed && asked.is_some_and(|asked| items_text(asked) != items_text(&view.items)) {
                if let Some(part) = part {
                    check_part(part, ordered.unwrap_or(&view.items)).map_err(invalid)?;
                }
                let paid = items_text(&view.items);
                return conflict(
                    "confirmed_otherwise",
                    format!("order {gid} is confirmed already, with other units: {paid}. It stays so"),
                );
            }
            Ok(view)
        }
        (Ask::Cancel, State::Ended(End::Cancelled, _)) | (Ask::Extend(_), State::Open { .. }) => Ok(view),
        (_, State::Ended(End::Confirmed, _)) => {
            conflict("confirmed", format!("order {gid} is confirmed, for good; units come back by returning them"))
        }
        (_, State::Ended(End::Cancelled, _)) => {
            conflict("cancelled", format!("order {gid} was cancelled, for good; its units went back"))
        }
        (_, State::Ended(End::Expired, _)) => conflict(
            "expired",
            format!("order {gid} was not confirmed in time, and its units went back, for good. Pay the money back"),
        ),
        (_, State::Failed) => {
            conflict("order_refused", format!("the order service refused order {gid}; its units went back"))
        }
        // Others moved it every time; it is open, and may be asked again.
        (_, State::Open { .. }) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            format!("order {gid} is being moved by others; nothing was changed by this request. Ask again"),
        )
        .retry_after(1)),
    }
}
