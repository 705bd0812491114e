//! The coordinator's calls over HTTP, and what its answers mean.

use super::Client;
use super::error::{Error, Outcome};
use super::http::{self, Answer};
use super::wire::{Branch, Progresses, Query, Trans, Transaction};
use ::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use url::Url;

/// Which way to the coordinator.
pub(crate) enum Door {
    /// `http://HOST:PORT/api/dtmsvr`
    Http(Url),
    /// `HOST:PORT`
    Grpc(String),
}

/// The calls that carry a whole transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Prepare,
    Submit,
    Abort,
}

impl Verb {
    fn route(self) -> &'static str {
        match self {
            Verb::Prepare => "prepare",
            Verb::Submit => "submit",
            Verb::Abort => "abort",
        }
    }
}

/// The parts of any answer of dtm's interface that matter here.
#[derive(Deserialize, Default)]
struct Said {
    #[serde(default)]
    message: String,
    #[serde(default)]
    gid: String,
}

impl Client {
    /// A new gid, unique for ever.
    pub async fn new_gid(&self) -> Result<String, Error> {
        match self.door() {
            Door::Http(base) => {
                let said: Said =
                    read(self.ask(Method::GET, &join(base, "newGid"), Bytes::new(), self.timeout()).await?)?;
                Ok(said.gid)
            }
            Door::Grpc(server) => self.grpc_new_gid(server).await,
        }
    }

    /// What became of a global transaction; `None` if there is none with this gid. Over HTTP only.
    pub async fn query(&self, gid: &str) -> Result<Option<Transaction>, Error> {
        let mut url = join(self.http_base()?, "query");
        url.query_pairs_mut().append_pair("gid", gid);
        let found: Query = read(self.ask(Method::GET, &url, Bytes::new(), self.timeout()).await?)?;
        Ok(found.into_transaction())
    }

    /// Has `url` called for every message to `topic`.
    pub async fn subscribe(&self, topic: &str, url: &str, remark: &str) -> Result<(), Error> {
        match self.door() {
            Door::Http(base) => {
                let pairs = [("topic", topic), ("url", url), ("remark", remark)];
                self.topic(Method::GET, &join(base, "subscribe"), &pairs).await
            }
            Door::Grpc(server) => self.grpc_topic(server, "Subscribe", topic, url, remark).await,
        }
    }

    pub async fn unsubscribe(&self, topic: &str, url: &str) -> Result<(), Error> {
        match self.door() {
            Door::Http(base) => {
                self.topic(Method::GET, &join(base, "unsubscribe"), &[("topic", topic), ("url", url)]).await
            }
            Door::Grpc(server) => self.grpc_topic(server, "Unsubscribe", topic, url, "").await,
        }
    }

    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        match self.door() {
            Door::Http(base) => {
                let mut url = join(base, "topic");
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.push(topic);
                }
                self.topic(Method::DELETE, &url, &[]).await
            }
            Door::Grpc(server) => self.grpc_topic(server, "DeleteTopic", topic, "", "").await,
        }
    }

    async fn topic(&self, method: Method, url: &Url, pairs: &[(&str, &str)]) -> Result<(), Error> {
        let mut url = url.clone();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        read::<Said>(self.ask(method, &url, Bytes::new(), self.timeout()).await?).map(|_| ())
    }

    pub(crate) async fn tell(&self, verb: Verb, trans: &Trans) -> Result<(), Error> {
        if trans.gid.is_empty() {
            return Err(Error::invalid("a global transaction needs a gid"));
        }
        // One that is waited for takes as long as its branches do.
        let timeout = if trans.options.wait_result && verb != Verb::Prepare { self.wait_max() } else { self.timeout() };
        match self.door() {
            Door::Http(base) => self.post(base, verb.route(), trans.json()?, timeout).await.map(|_: Said| ()),
            Door::Grpc(server) => self.grpc_tell(server, verb, trans, timeout).await,
        }
    }

    /// Submits, and finds out what a refusal of a waiting submit means: unfinished, or rolled back.
    pub(crate) async fn submit(&self, trans: &Trans) -> Result<Outcome, Error> {
        let waits = trans.options.wait_result;
        match self.tell(Verb::Submit, trans).await {
            Ok(()) if waits => Ok(Outcome::Succeed),
            Ok(()) => Ok(Outcome::Submitted),
            Err(error) if waits && !is_conflict(&error) => self.truth(&trans.gid, error).await,
            Err(error) => Err(error),
        }
    }

    async fn truth(&self, gid: &str, heard: Error) -> Result<Outcome, Error> {
        if matches!(self.door(), Door::Grpc(_)) {
            return by_text(gid, heard);
        }
        let Ok(Some(found)) = self.query(gid).await else { return Err(heard) };
        match found.status.as_str() {
            "succeed" => Ok(Outcome::Succeed),
            "failed" | "aborting" => Err(Error::Failure { reason: reason(&found.rollback_reason, &heard) }),
            "submitted" => Err(Error::NotFinished { gid: found.gid, status: found.status }),
            _ => Err(heard),
        }
    }

    pub(crate) async fn register(&self, branch: &Branch) -> Result<(), Error> {
        match self.door() {
            Door::Http(base) => {
                self.post(base, "registerBranch", branch.json()?, self.timeout()).await.map(|_: Said| ())
            }
            Door::Grpc(server) => self.grpc_register(server, branch).await,
        }
    }

    pub(crate) async fn prepare_workflow(&self, trans: &Trans) -> Result<Progresses, Error> {
        match self.door() {
            Door::Http(base) => self.post(base, "prepareWorkflow", trans.json()?, self.timeout()).await,
            Door::Grpc(server) => self.grpc_prepare_workflow(server, trans).await,
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        base: &Url,
        route: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<T, Error> {
        read(self.ask(Method::POST, &join(base, route), body, timeout).await?)
    }

    pub(crate) async fn ask(&self, method: Method, url: &Url, body: Bytes, timeout: Duration) -> Result<Answer, Error> {
        self.http_pool().send(method, url, self.authorized(HeaderMap::new()), body, timeout).await
    }

    pub(crate) fn http_base(&self) -> Result<&Url, Error> {
        match self.door() {
            Door::Http(base) => Ok(base),
            Door::Grpc(_) => Err(Error::invalid("this goes over HTTP only; use a client made by Client::http")),
        }
    }
}

/// The address of a route below the base.
fn join(base: &Url, route: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{route}", base.path().trim_end_matches('/')));
    url
}

/// The base of dtm's interface, from a host alone or from the whole.
pub(crate) fn base(url: &str) -> Result<Url, Error> {
    let url = http::parse(url.trim_end_matches('/'))?;
    Ok(if matches!(url.path(), "" | "/") { join(&url, "api/dtmsvr") } else { url })
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, Error> {
    let message = || {
        let said: Said = serde_json::from_slice(&answer.body).unwrap_or_default();
        match said.message.as_str() {
            "" => String::from_utf8_lossy(&answer.body).into_owned(),
            message => message.to_owned(),
        }
    };
    let unexpected = |message| Error::Unexpected { code: answer.status.to_string(), message };
    match answer.status {
        StatusCode::OK => serde_json::from_slice(&answer.body).map_err(|error| unexpected(error.to_string())),
        StatusCode::CONFLICT => Err(Error::Refused(message())),
        StatusCode::BAD_REQUEST => Err(Error::Invalid(message())),
        _ => Err(unexpected(message())),
    }
}

/// A refusal that has nothing to do with how the transaction goes: the gid means another one.
fn is_conflict(error: &Error) -> bool {
    let is = |text: &str| text.contains("has other steps already") || text.contains("' already, not a '");
    matches!(error, Error::Invalid(_)) || matches!(error, Error::Refused(text) if is(text))
}

/// Where there is nobody to ask, the words must do.
fn by_text(gid: &str, heard: Error) -> Result<Outcome, Error> {
    let Error::Refused(text) = &heard else { return Err(heard) };
    if text.contains("current status 'succeed'") {
        return Ok(Outcome::Succeed); // it was over before this submit came
    }
    let unfinished = ["wait result not return success", "will be retried", "current status 'submitted'"];
    if unfinished.iter().any(|words| text.contains(words)) {
        return Err(Error::NotFinished { gid: gid.to_owned(), status: "submitted".into() });
    }
    Err(Error::Failure { reason: text.clone() })
}

fn reason(stored: &str, heard: &Error) -> String {
    match (stored, heard) {
        ("", Error::Refused(text)) => text.clone(),
        ("", other) => other.to_string(),
        (stored, _) => stored.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_host_or_the_whole() {
        for url in ["http://h:36789", "http://h:36789/", "http://h:36789/api/dtmsvr", "http://h:36789/api/dtmsvr/"] {
            assert_eq!(base(url).unwrap().as_str(), "http://h:36789/api/dtmsvr", "{url}");
        }
        assert!(base("h:36789").is_err());
        assert_eq!(join(&base("http://h/x/api").unwrap(), "submit").as_str(), "http://h/x/api/submit");
    }

    #[test]
    fn words_tell_unfinished_from_rolled_back() {
        let meant = |text: &str| by_text("g", Error::Refused(text.into()));
        assert_eq!(meant("current status 'succeed', cannot sumbmit. FAILURE").unwrap(), Outcome::Succeed);
        for text in ["wait result not return success: FAILURE", "unkown result will be retried: away FAILURE"] {
            assert!(matches!(meant(text), Err(Error::NotFinished { .. })), "{text}");
        }
        for text in ["no room FAILURE", "current status 'failed', cannot sumbmit. FAILURE"] {
            assert!(matches!(meant(text), Err(Error::Failure { .. })), "{text}");
        }
    }
}
