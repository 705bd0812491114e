//! Topics: a name, and who hears what is sent to it. The rules of subscribing; where they are kept is the store's.

use super::check;
use super::refusal::Refusal;
use crate::domain::ids::Invalid;
use serde::{Deserialize, Serialize};

/// Most subscribers of one topic: each is a branch of every message.
pub const SUBSCRIBERS_MAX: usize = 256;
/// Longest name, in bytes: dtm's column.
pub const TOPIC_BYTES_MAX: usize = 128;

/// One subscriber, as dtm's KV value has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriber {
    pub url: String,
    #[serde(default)]
    pub remark: String,
}

/// The list with one more subscriber. `existing`: the topic's list; `None`, no such topic yet.
pub fn subscribe(
    existing: Option<&[Subscriber]>,
    topic: &str,
    url: &str,
    remark: &str,
) -> Result<Vec<Subscriber>, Refusal> {
    check_names(topic, url)?;
    check::bytes("remark", remark.len(), check::URL_BYTES_MAX)?;
    let mut list = existing.unwrap_or_default().to_vec();
    if list.iter().any(|subscriber| subscriber.url == url) {
        return Err(Refusal::Topic("this url exists"));
    }
    if list.len() >= SUBSCRIBERS_MAX {
        return Err(Invalid::new("topic", format!("has {SUBSCRIBERS_MAX} subscribers, the most there can be")).into());
    }
    list.push(Subscriber { url: url.to_owned(), remark: remark.to_owned() });
    Ok(list)
}

/// The list without that subscriber. The last one leaves an empty list, kept until the topic is deleted.
pub fn unsubscribe(existing: Option<&[Subscriber]>, topic: &str, url: &str) -> Result<Vec<Subscriber>, Refusal> {
    check_names(topic, url)?;
    let list = existing.ok_or(Refusal::Topic("no such a topic"))?;
    if list.is_empty() {
        return Err(Refusal::Topic("this topic is empty"));
    }
    let rest: Vec<Subscriber> = list.iter().filter(|subscriber| subscriber.url != url).cloned().collect();
    match rest.len() == list.len() {
        true => Err(Refusal::Topic("no such an url ")),
        false => Ok(rest),
    }
}

/// Deleting a topic needs it to be there.
pub fn delete(existing: Option<&[Subscriber]>) -> Result<(), Refusal> {
    existing.map(drop).ok_or(Refusal::StorageNotFound)
}

fn check_names(topic: &str, url: &str) -> Result<(), Refusal> {
    if topic.is_empty() {
        return Err(Refusal::Topic("empty topic"));
    }
    if url.is_empty() {
        return Err(Refusal::Topic("empty url"));
    }
    check::bytes("topic", topic.len(), TOPIC_BYTES_MAX)?;
    check::url("topic", topic)?;
    check::url("url", url)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribing_and_leaving_with_dtms_words() {
        let refused = |refusal: Refusal| refusal.to_string();
        let one = subscribe(None, "orders", "http://h/a", "first").unwrap();
        let two = subscribe(Some(&one), "orders", "http://h/b", "").unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(refused(subscribe(Some(&two), "orders", "http://h/b", "").unwrap_err()), "this url exists");
        assert_eq!(refused(subscribe(None, "", "http://h/b", "").unwrap_err()), "empty topic");
        assert_eq!(refused(subscribe(None, "orders", "", "").unwrap_err()), "empty url");
        assert_eq!(refused(unsubscribe(None, "orders", "http://h/b").unwrap_err()), "no such a topic");
        assert_eq!(refused(unsubscribe(Some(&two), "orders", "http://h/c").unwrap_err()), "no such an url ");
        let one = unsubscribe(Some(&two), "orders", "http://h/a").unwrap();
        let none = unsubscribe(Some(&one), "orders", "http://h/b").unwrap();
        assert_eq!(refused(unsubscribe(Some(&none), "orders", "http://h/b").unwrap_err()), "this topic is empty");
        assert_eq!(refused(delete(None).unwrap_err()), "storage: NotFound");
        assert_eq!(delete(Some(&none)), Ok(()));
    }
}
