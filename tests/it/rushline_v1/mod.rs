//! The flash sale over gRPC, `rushline.v1`, by a real client: the same sale as over HTTP, with the same answers.

mod operators;
mod orders;

use crate::support::app::{App, AppOptions};
use crate::support::shop::Shop;
use prost::Message;
use rushline::proto::google::rpc;
use rushline::proto::rushline::v1::orders_client::OrdersClient;
use rushline::proto::rushline::v1::place_order_reply::Outcome;
use rushline::proto::rushline::v1::sales_client::SalesClient;
use rushline::proto::rushline::v1::{
    CreateSaleRequest, GetSaleRequest, Item, OrderEndpoint, PlaceOrderReply, PlaceOrderRequest, Placed, Refused, Stock,
    create_sale_request::Load,
};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const SALE: &str = "s";
const SOON: Duration = Duration::from_secs(30);
const LONG_MS: u64 = 3_600_000;

/// A shop, a server, and somebody who speaks gRPC with it.
struct Stage {
    app: App,
    shop: Shop,
    orders: OrdersClient<Channel>,
    sales: SalesClient<Channel>,
}

impl Stage {
    async fn new() -> Self {
        let app = App::start(AppOptions::default().quick()).await;
        let channel = Endpoint::from_shared(format!("http://{}", app.grpc())).unwrap().connect().await.unwrap();
        let (orders, sales) = (OrdersClient::new(channel.clone()), SalesClient::new(channel));
        Self { app, shop: Shop::start().await, orders, sales }
    }

    /// A sale of ten `a` and five `b`, unless it is changed.
    fn sale(&self, change: impl FnOnce(&mut CreateSaleRequest)) -> CreateSaleRequest {
        let load = |sku: &str, units| Load { sku: sku.into(), units };
        let at = |name: &str| self.shop.endpoint()[name].as_str().unwrap_or_default().to_owned();
        let order_endpoint = OrderEndpoint {
            url: at("url"),
            count_url: at("count_url"),
            list_url: at("list_url"),
            ..Default::default()
        };
        let mut request = CreateSaleRequest {
            sale: SALE.into(),
            items: vec![load("a", 10), load("b", 5)],
            order_endpoint: Some(order_endpoint),
            ..Default::default()
        };
        change(&mut request);
        request
    }

    async fn create(&self, change: impl FnOnce(&mut CreateSaleRequest)) {
        self.sales.clone().create_sale(self.sale(change)).await.unwrap();
    }

    async fn place(&self, request: PlaceOrderRequest) -> Result<PlaceOrderReply, Status> {
        self.orders.clone().place_order(request).await.map(tonic::Response::into_inner)
    }

    async fn stock(&self, sku: &str) -> Stock {
        let sale = self.sales.clone().get_sale(GetSaleRequest { sale: SALE.into() }).await.unwrap().into_inner();
        let line = sale.items.into_iter().find(|line| line.sku == sku).unwrap();
        assert_eq!(line.loaded, line.available + line.reserved + line.sold, "{line:?}");
        line
    }

    /// When everything has come to its end: the books of all agree.
    async fn settled(&self) {
        let report = self.app.wait_until_settled(SALE).await;
        assert_eq!(report["drift"], 0, "{report}");
    }
}

fn item(sku: &str, quantity: u32) -> Item {
    Item { sku: sku.into(), quantity }
}

fn buy(buyer: &str, items: &[Item]) -> PlaceOrderRequest {
    PlaceOrderRequest { sale: SALE.into(), buyer: buyer.into(), items: items.to_vec(), ..Default::default() }
}

fn placed(reply: PlaceOrderReply) -> Placed {
    match reply.outcome {
        Some(Outcome::Placed(placed)) => placed,
        other => panic!("not placed: {other:?}"),
    }
}

fn refused(reply: PlaceOrderReply) -> Refused {
    match reply.outcome {
        Some(Outcome::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

/// The code of a status and the reason in its details.
fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    let said = rpc::Status::decode(status.details()).unwrap_or_else(|error| panic!("{status:?}: {error}"));
    assert_eq!((said.code, said.message.as_str()), (status.code() as i32, status.message()));
    let info = rpc::ErrorInfo::decode(&*said.details[0].value).unwrap();
    assert_eq!(info.domain, "rushline");
    (status.code(), info.reason)
}
