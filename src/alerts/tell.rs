//! The task that tells: one alert after the other, so that an end never overtakes its beginning.

use super::{Alerts, Kind, Known, Settings};
use crate::domain::webhook::Webhook;
use crate::driver::now_ms;
use crate::store::redis::Redis;
use crate::webhook::call;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often what is still wrong is held against Redis: another node may have ended it, or its key may have run out.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// What nobody has said for so long may be another node's by now, which will say when it is over.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Calls for one message, the first included; after that it is in the log alone.
const TRIES_MAX: u32 = 5;
/// Pause after the first call that failed; it doubles from there.
const PAUSE: Duration = Duration::from_secs(1);

enum Work {
    Begun(String),
    Over,
}

pub(super) async fn run(alerts: &'static Alerts, redis: Arc<Redis>, settings: Settings) {
    loop {
        let Some((kind, subject, work)) = next(alerts) else {
            let _ = tokio::time::timeout(ASK_EVERY, alerts.changed.notified()).await;
            continue;
        };
        match work {
            Work::Begun(text) => begun(&redis, &settings, kind, &subject, &text).await,
            Work::Over => over(&redis, &settings, kind, &subject).await,
        }
    }
}

/// The next thing to tell, which counts as told from here on.
fn next(alerts: &Alerts) -> Option<(Kind, String, Work)> {
    let mut open = alerts.open();
    let now = Instant::now();
    open.by_subject.retain(|_, known| match known.over {
        true => known.asked.is_some(), // what began and ended before anybody was told is told by nobody
        false => now.duration_since(known.raised) < FORGET_AFTER,
    });
    if let Some((kind, subject)) = open.foreign.pop() {
        return Some((kind, subject, Work::Over));
    }
    let over = open.by_subject.iter().find(|(_, known)| known.over).map(|(key, _)| key.clone());
    if let Some(key) = over {
        open.by_subject.remove(&key);
        return Some((key.0, key.1, Work::Over));
    }
    let is_due = |known: &Known| match known.asked {
        None => true,
        Some(asked) => known.raised > asked && now.duration_since(asked) >= ASK_EVERY,
    };
    let (key, known) = open.by_subject.iter_mut().find(|(_, known)| is_due(known))?;
    known.asked = Some(now);
    Some((key.0, key.1.clone(), Work::Begun(known.text.clone())))
}

async fn begun(redis: &Redis, settings: &Settings, kind: Kind, subject: &str, text: &str) {
    let id = format!("{}.{}.{:08x}", kind.as_str(), now_ms(), fastrand::u32(..));
    match redis.open_alert(kind.as_str(), subject, &id, settings.repeat_after).await {
        Ok(true) => {}
        Ok(false) => return, // told, by this node or another
        // What Redis cannot keep is told by every node; better than by none.
        Err(error) => tracing::debug!(%error, "Redis cannot say if an alert was told"),
    }
    tracing::warn!(alert = kind.as_str(), subject, text, "this needs a person");
    count(kind, "raised");
    let told = tell(settings, &id, "alert.raised", kind, subject, text).await;
    if !told && let Err(error) = redis.close_alert(kind.as_str(), subject).await {
        tracing::debug!(%error, "an alert that nobody heard counts as told until its key runs out");
    }
}

async fn over(redis: &Redis, settings: &Settings, kind: Kind, subject: &str) {
    let id = match redis.close_alert(kind.as_str(), subject).await {
        Ok(Some(id)) => id,
        Ok(None) => return, // nobody was told that it began, or somebody has told that it is over
        Err(error) => {
            tracing::debug!(%error, "Redis cannot say if an alert was told");
            return;
        }
    };
    tracing::info!(alert = kind.as_str(), subject, "what needed a person is over");
    count(kind, "resolved");
    tell(settings, &format!("{id}.resolved"), "alert.resolved", kind, subject, "it is over").await;
}

fn count(kind: Kind, result: &'static str) {
    metrics::counter!("rushline_alerts_total", "kind" => kind.as_str(), "result" => result).increment(1);
}

/// Calls the webhook until it says 2xx, a few times. Was there nobody to call, or did somebody hear?
async fn tell(settings: &Settings, id: &str, what: &str, kind: Kind, subject: &str, text: &str) -> bool {
    let Some(url) = &settings.url else { return true };
    let at = jiff::Timestamp::now().to_string();
    let body = json!({
        "id": id, "type": what, "kind": kind.as_str(), "subject": subject, "text": text, "node": settings.node, "at": at,
    });
    let (body, key) = (body.to_string(), settings.secret.as_deref().and_then(Webhook::key_of));
    let mut error = String::new();
    for tried in 0..TRIES_MAX {
        if tried > 0 {
            tokio::time::sleep(PAUSE * 2_u32.pow(tried - 1)).await;
        }
        match call::send(url, key.as_deref(), id, &body).await {
            Ok(()) => return true,
            Err(why) => error = why,
        }
    }
    tracing::warn!(alert = kind.as_str(), subject, error, "nobody heard of an alert: alerts.url does not answer 2xx");
    count(kind, "not_heard");
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Open;
    use std::sync::Mutex;
    use tokio::sync::Notify;

    #[test]
    fn each_thing_is_told_once_and_held_against_redis_while_it_goes_on() {
        let key = |subject: &str| (Kind::SaleFenced, subject.to_owned());
        let known = |over| Known { text: "t".into(), over, raised: Instant::now(), asked: None };
        let by_subject = [(key("a"), known(false)), (key("b"), known(true))].into();
        let open = Open { by_subject, foreign: vec![key("c")] };
        let alerts = Alerts { open: Mutex::new(open), changed: Notify::new() };
        let next = || next(&alerts).map(|(_, subject, work)| (subject, matches!(work, Work::Over)));
        assert_eq!(next(), Some(("c".into(), true)));
        assert_eq!(next(), Some(("a".into(), false)));
        assert_eq!(next(), None, "b was over before anybody was told");
        let change = |change: fn(&mut Known)| change(alerts.open().by_subject.get_mut(&key("a")).unwrap());
        change(|known| known.raised = Instant::now());
        assert_eq!(next(), None, "Redis was asked a moment ago");
        let Some(asked) = Instant::now().checked_sub(ASK_EVERY) else { return }; // a machine that has just started has no such moment
        alerts.open().by_subject.get_mut(&key("a")).unwrap().asked = Some(asked);
        assert_eq!(next(), Some(("a".into(), false)), "its key may have run out");
        change(|known| known.over = true);
        assert_eq!((next(), next()), (Some(("a".into(), true)), None));
    }
}
