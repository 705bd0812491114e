use super::*;
use crate::ledger::Item;

const SHOP: &str = r#"
url = "http://127.0.0.1:8080"
[order]
path = "/api/{sale}/buy"
headers = { x-key = "{key}" }
body = '{"user":"{buyer}","cart":{"{sku}":{quantity}}}'
answers = [
    { status = [200], contains = "SOLD", means = "refused", reason = "sold_out" },
    { status = [200, 201], means = "admitted", gid = "/order/id" },
    { status = [400], means = "refused", reason = "/why" },
]
"#;

fn shop() -> Template {
    let basket = Basket { items: vec![Item { sku: "sku-1".into(), quantity: 2 }] };
    Template::parse(SHOP, "s", &[basket]).unwrap()
}

fn step(buyer: u32) -> Step {
    let (kind, leads, gid) = (Kind::Order, true, None);
    Step { due: 0, kind, leads, manner: 0, buyer, nth: 1, basket: 0, attempt: 1, returns: 0, bought: 0, gid }
}

#[test]
fn a_question_is_filled_in_and_other_braces_stay() {
    let mut wire = Wire::default();
    wire.clear();
    shop().write(&mut wire, &step(7));
    assert_eq!((wire.method, &*wire.target), ("POST", "/api/s/buy"));
    assert_eq!(wire.headers, format!("x-key: k{}\r\n", key_of(7, 1)));
    assert_eq!(wire.body, br#"{"user":"buyer-7","cart":{"sku-1":2}}"#);
}

#[test]
fn the_first_rule_that_fits_says_what_an_answer_means() {
    let heard = |status, body: &str| {
        let mut text = String::new();
        let answer = Answer { status, replayed: false, retry_after_s: None, body: body.as_bytes() };
        (shop().read(&answer, Kind::Order, &mut text).verdict, text)
    };
    assert_eq!(heard(200, r#"{"order":{"id":71}}"#), (Verdict::Admitted, "71".into()));
    assert_eq!(heard(200, r#"{"state":"SOLD OUT"}"#), (Verdict::Refused, "sold_out".into()));
    assert_eq!(heard(400, r#"{"why":"limit"}"#), (Verdict::Refused, "limit".into()));
    assert_eq!(heard(200, "{}"), (Verdict::Unknown, "status 200 without the order's id".into()));
    assert_eq!(heard(500, "oops"), (Verdict::Unknown, "status 500 that no rule fits".into()));
    assert!(!shop().can(Kind::Poll));
}

#[test]
fn a_wrong_description_is_refused_with_the_name_of_the_field() {
    let error =
        |from: &str, to: &str| format!("{:#}", Template::parse(&SHOP.replace(from, to), "s", &[]).err().unwrap());
    assert!(error("{buyer}", "{name}").starts_with("order.body: `{name}` is unknown"));
    assert!(error("/api/", "api/").starts_with("order.path: must begin with `/`"));
    assert!(error("http://127.0.0.1:8080", "127.0.0.1").starts_with("url: "));
    assert!(error("means = \"admitted\"", "means = \"yes\"").contains("yes"));
}
