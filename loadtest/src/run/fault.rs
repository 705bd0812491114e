//! What goes wrong on purpose, and when: `stop orders at=3s for=2s`.
//!
//! | words | what happens |
//! | --- | --- |
//! | `stop WHO at=T [for=T]` | SIGSTOP; after `for`, SIGCONT |
//! | `continue WHO at=T` | SIGCONT |
//! | `kill WHO at=T [for=T]` | SIGKILL; a part that this run started is started again after `for` |
//! | `delay LINK at=T by=T [for=T]` | everything on the link takes longer, in both directions |
//! | `cut LINK at=T [for=T]` | connections are cut; during `for` nobody gets through |
//!
//! WHO is `rushline`, `redis`, `orders`, or `pid:N`. LINK is `buyers` (to the shop), `orders` (to the order service) or
//! `redis` (from a rushline that this run started).

use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// A fault that lasts a day is a run that ends tomorrow.
const TIME_MAX: Duration = Duration::from_secs(86_400);

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub at: Duration,
    pub lasts: Option<Duration>,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Stop(Who),
    Continue(Who),
    Kill(Who),
    Delay(Link, Duration),
    Cut(Link),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Rushline,
    Redis,
    Orders,
    Pid(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Buyers,
    Orders,
    Redis,
}

impl Fault {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Self::read(text).with_context(|| {
            format!("fault `{text}`\nhint: for example `stop orders at=3s for=2s`, `cut buyers at=5s`, `delay buyers at=1s by=50ms`")
        })
    }

    fn read(text: &str) -> anyhow::Result<Self> {
        let mut words = text.split_whitespace();
        let verb = words.next().context("is empty")?;
        let subject = words.next().with_context(|| format!("`{verb}` whom?"))?;
        let (mut at, mut lasts, mut by) = (None, None, None);
        for word in words {
            let (name, value) = word.split_once('=').with_context(|| format!("`{word}` is not name=value"))?;
            let time = Some(time(value).with_context(|| name.to_owned())?);
            match name {
                "at" => at = time,
                "for" => lasts = time,
                "by" => by = time,
                _ => bail!("`{name}` is none of at, for, by"),
            }
        }
        let at = at.context("at=: when?")?;
        ensure!(by.is_none() || verb == "delay", "by= is for `delay` only");
        ensure!(lasts.is_none() || verb != "continue", "`continue` takes no for=");
        let what = match verb {
            "stop" => What::Stop(who(subject)?),
            "continue" => What::Continue(who(subject)?),
            "kill" => What::Kill(who(subject)?),
            "delay" => What::Delay(link(subject)?, by.context("by=: how long?")?),
            "cut" => What::Cut(link(subject)?),
            _ => bail!("`{verb}` is none of stop, continue, kill, delay, cut"),
        };
        Ok(Self { at, lasts, what })
    }

    pub fn link(&self) -> Option<Link> {
        match self.what {
            What::Delay(link, _) | What::Cut(link) => Some(link),
            _ => None,
        }
    }
}

fn who(text: &str) -> anyhow::Result<Who> {
    Ok(match text {
        "rushline" => Who::Rushline,
        "redis" => Who::Redis,
        "orders" => Who::Orders,
        _ => {
            let pid = text.strip_prefix("pid:").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 1);
            Who::Pid(pid.with_context(|| format!("`{text}` is none of rushline, redis, orders, pid:N"))?)
        }
    })
}

fn link(text: &str) -> anyhow::Result<Link> {
    Ok(match text {
        "buyers" => Link::Buyers,
        "orders" => Link::Orders,
        "redis" => Link::Redis,
        _ => bail!("`{text}` is none of buyers, orders, redis"),
    })
}

/// `250ms`, `3s`, `1.5s`, `2m`.
pub fn time(text: &str) -> anyhow::Result<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => bail!("`{text}` is no time; write 250ms, 3s or 2m"),
    };
    let number: f64 = number.parse().with_context(|| format!("`{text}` is no time; write 250ms, 3s or 2m"))?;
    let time = Duration::try_from_secs_f64(number * unit).with_context(|| format!("`{text}`"))?;
    ensure!(time <= TIME_MAX, "`{text}` is more than a day");
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_happens_to_whom_and_when() {
        let fault = |text| Fault::parse(text).unwrap();
        let seconds = Duration::from_secs;
        let stop = Fault { at: seconds(3), lasts: Some(seconds(2)), what: What::Stop(Who::Orders) };
        assert_eq!(fault("stop orders at=3s for=2s"), stop);
        assert_eq!(fault("kill pid:77 at=1.5s").what, What::Kill(Who::Pid(77)));
        assert_eq!(fault("delay buyers by=50ms at=0s").what, What::Delay(Link::Buyers, Duration::from_millis(50)));
        assert_eq!((fault("cut redis at=2m").at, fault("cut redis at=2m").link()), (seconds(120), Some(Link::Redis)));
    }

    #[test]
    fn a_fault_that_is_none_is_refused_with_the_word_that_is_wrong() {
        let error = |text: &str| {
            let error = Fault::parse(text).unwrap_err();
            error.chain().nth(1).unwrap().to_string()
        };
        assert_eq!(error("burn orders at=3s"), "`burn` is none of stop, continue, kill, delay, cut");
        assert_eq!(error("stop shop at=3s"), "`shop` is none of rushline, redis, orders, pid:N");
        assert_eq!(error("kill pid:1 at=3s"), "`pid:1` is none of rushline, redis, orders, pid:N");
        assert_eq!(error("stop orders"), "at=: when?");
        assert_eq!(error("cut buyers at=3"), "at");
        assert_eq!(error("delay buyers at=3s"), "by=: how long?");
        assert_eq!(error("stop orders at=1s by=2s"), "by= is for `delay` only");
    }
}
