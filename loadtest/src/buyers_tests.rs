//! The crowd against a coordinator of thirty lines: honest, or with one fault that the book must find.

use super::*;
use crate::floor::{json_bytes, serve};
use crate::http::Api;
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// What the coordinator does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It does not know keys: every request is a new order.
    ForgetsKeys,
    /// It gives the same gid to everybody.
    OneGid,
    /// One of three requests hears 503.
    Busy,
}

#[derive(Default)]
struct Books {
    gids: HashMap<String, String>,
    bought: HashMap<String, u64>,
    units: u64,
    requests: u64,
}

async fn coordinator(units: u64, fault: Fault) -> (SocketAddr, &'static Mutex<Books>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let books: &'static Mutex<Books> = Box::leak(Box::new(Mutex::new(Books { units, ..Books::default() })));
    tokio::spawn(serve(listener, move |request| async move {
        let (head, body) = request.into_parts();
        let key = head.headers["idempotency-key"].to_str().unwrap().to_owned();
        let body: serde_json::Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let (status, answer, replayed) = decide(&mut books.lock().unwrap(), fault, key, &body);
        let mut answer = json_bytes(status, answer.to_string().into());
        if replayed {
            answer.headers_mut().insert("idempotency-replayed", "true".parse().unwrap());
        }
        if status == 503 {
            answer.headers_mut().insert("retry-after", "0".parse().unwrap());
        }
        answer
    }));
    (address, books)
}

fn decide(books: &mut Books, fault: Fault, key: String, body: &serde_json::Value) -> (u16, serde_json::Value, bool) {
    books.requests += 1;
    if fault == Fault::Busy && books.requests.is_multiple_of(3) {
        return (503, json!({"code": "busy"}), false);
    }
    if let Some(gid) = books.gids.get(&key).filter(|_| fault != Fault::ForgetsKeys) {
        return (201, json!({"gid": gid}), true);
    }
    let (buyer, quantity) = (body["buyer"].as_str().unwrap(), body["items"][0]["quantity"].as_u64().unwrap());
    let bought = books.bought.entry(buyer.into()).or_default();
    if *bought + quantity > 2 {
        return (409, json!({"code": "limit_reached"}), false);
    }
    if books.units < quantity {
        return (409, json!({"code": "sold_out"}), false);
    }
    *bought += quantity;
    books.units -= quantity;
    let n = if fault == Fault::OneGid { 0 } else { books.requests };
    books.gids.insert(key, format!("s.0.1-0.{n}"));
    (201, json!({"gid": format!("s.0.1-0.{n}")}), false)
}

/// Sends 1500 buyers after 500 units and gives what they were told.
async fn sale(fault: Fault) -> (Book, u64, &'static Mutex<Books>) {
    let (address, books) = coordinator(500, fault).await;
    let crowd = Rc::new(Crowd { address, sale: "s".into(), sku: "a".into(), buyers: 1500, at_once: 16, seed: 1 });
    let book = Rc::new(RefCell::new(Book::new()));
    let local = LocalSet::new();
    local.run_until(crowd.clone().run(book.clone())).await;
    let again = crowd.ask_again(&book, 100).await;
    drop(local);
    (book.replace(Book::new()), again, books)
}

#[tokio::test]
async fn an_honest_coordinator_leaves_no_fault_in_the_book() {
    for fault in [Fault::None, Fault::Busy] {
        let (book, again, books) = sale(fault).await;
        let books = books.lock().unwrap();
        assert_eq!(book.faults_named, Vec::<String>::new());
        assert_eq!(book.buyers_done, 1500);
        assert_eq!(books.units, 0, "demand exceeds supply");
        assert_eq!(again, 100);
        assert!(book.refused["sold_out"] > 0 && book.refused["limit_reached"] > 0, "{:?}", book.refused);
        assert!(book.replays > 0 && book.double_clicks > 0 && book.lost_replies > 0);
        assert_eq!(book.told_to_wait > 0, fault == Fault::Busy);
        let untold = books.gids.values().filter(|gid| !book.told.contains_key(*gid)).count();
        assert!(untold <= book.lost_for_good.len(), "{untold} orders that nobody was told of");
    }
}

#[tokio::test]
async fn a_coordinator_that_forgets_keys_is_found_out() {
    let (book, _, _) = sale(Fault::ForgetsKeys).await;
    assert!(book.faults > 0);
}

#[tokio::test]
async fn a_gid_given_to_two_buyers_is_found_out() {
    let (book, _, _) = sale(Fault::OneGid).await;
    assert!(book.faults_named[0].contains("was told for key"), "{:?}", book.faults_named);
}

#[tokio::test]
async fn an_answer_that_no_buyer_understands_is_a_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = Api { address: listener.local_addr().unwrap() };
    tokio::spawn(serve(listener, |_| async { json_bytes(422, r#"{"code":"invalid_order"}"#.into()) }));
    let crowd = Crowd { address: api.address, sale: "s".into(), sku: "a".into(), buyers: 1, at_once: 1, seed: 1 };
    let book = Rc::new(RefCell::new(Book::new()));
    LocalSet::new().run_until(Rc::new(crowd).run(book.clone())).await;
    assert!(book.borrow().faults_named[0].contains("422"));
}
