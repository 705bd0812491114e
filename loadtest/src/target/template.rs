//! Any HTTP shop, described in TOML: how each question is worded, and what its answers mean.
//!
//! In paths, headers and bodies stand `{buyer}`, `{sale}`, `{sku}`, `{quantity}`, `{key}`, `{gid}`. Answers are tried in the
//! order of the file; the first that fits counts, and an answer that fits none settles nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Reply;
use crate::engine::crowd::Verdict;
use crate::engine::line::Wire;
use crate::engine::queue::Step;
use crate::http::Answer;
use crate::ledger::{Basket, Kind, key_of};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// `http://host:port`.
    url: String,
    order: Question,
    #[serde(default)]
    confirm: Option<Question>,
    #[serde(default)]
    cancel: Option<Question>,
    #[serde(default)]
    poll: Option<Question>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default = "post")]
    method: String,
    path: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    answers: Vec<Rule>,
}

fn post() -> String {
    "POST".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Any of these; all if empty.
    #[serde(default)]
    status: Vec<u16>,
    /// The body has this text in it.
    #[serde(default)]
    contains: Option<String>,
    means: Means,
    /// Where the body has the order's id, as a JSON pointer (`/order/id`).
    #[serde(default)]
    gid: Option<String>,
    /// Why, if it means `refused`: a word, or a JSON pointer into the body.
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Means {
    Admitted,
    Created,
    Done,
    Refused,
    Unknown,
}

/// A text with places to fill in.
#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Buyer,
    Sale,
    Sku,
    Quantity,
    Key,
    Gid,
}

struct Form {
    method: &'static str,
    path: Vec<Piece>,
    headers: Vec<Piece>,
    body: Vec<Piece>,
    answers: Vec<Rule>,
}

pub struct Template {
    pub address: SocketAddr,
    sale: String,
    baskets: Vec<Basket>,
    order: Form,
    confirm: Option<Form>,
    cancel: Option<Form>,
    poll: Option<Form>,
}

impl Template {
    pub fn read_file(path: &Path, sale: &str, baskets: &[Basket]) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("template {}", path.display()))?;
        Self::parse(&text, sale, baskets).with_context(|| format!("template {}", path.display()))
    }

    /// Where the shop is that the file describes.
    pub fn address_in(path: &Path) -> anyhow::Result<SocketAddr> {
        Ok(Self::read_file(path, "", &[])?.address)
    }

    pub fn parse(text: &str, sale: &str, baskets: &[Basket]) -> anyhow::Result<Self> {
        let described: Description = toml::from_str(text)?;
        let form = |name: &str, question: Option<Question>| question.map(|q| Form::new(name, q)).transpose();
        Ok(Self {
            address: crate::run::address_of(&described.url).context("url")?,
            sale: sale.into(),
            baskets: baskets.to_vec(),
            order: Form::new("order", described.order)?,
            confirm: form("confirm", described.confirm)?,
            cancel: form("cancel", described.cancel)?,
            poll: form("poll", described.poll)?,
        })
    }

    pub fn can(&self, kind: Kind) -> bool {
        self.form(kind).is_some()
    }

    fn form(&self, kind: Kind) -> Option<&Form> {
        match kind {
            Kind::Order => Some(&self.order),
            Kind::Confirm => self.confirm.as_ref(),
            Kind::Cancel => self.cancel.as_ref(),
            Kind::Poll => self.poll.as_ref(),
        }
    }

    pub fn write(&self, wire: &mut Wire, step: &Step) {
        let Some(form) = self.form(step.kind) else { return };
        wire.method = form.method;
        self.fill(&form.path, step, &mut wire.target);
        self.fill(&form.headers, step, &mut wire.headers);
        let mut body = String::from_utf8(std::mem::take(&mut wire.body)).unwrap_or_default();
        self.fill(&form.body, step, &mut body);
        wire.body = body.into_bytes();
    }

    fn fill(&self, pieces: &[Piece], step: &Step, out: &mut String) {
        use std::fmt::Write;
        let item = &self.baskets[step.basket as usize].items[0];
        for piece in pieces {
            // Writing to a String cannot fail.
            let _ = match piece {
                Piece::Text(text) => out.write_str(text),
                Piece::Buyer => write!(out, "buyer-{}", step.buyer),
                Piece::Sale => out.write_str(&self.sale),
                Piece::Sku => out.write_str(&item.sku),
                Piece::Quantity => write!(out, "{}", item.quantity),
                Piece::Key => write!(out, "k{}", key_of(step.buyer, step.nth)),
                Piece::Gid => out.write_str(step.gid.as_deref().unwrap_or_default()),
            };
        }
    }

    pub fn read(&self, answer: &Answer<'_>, kind: Kind, text: &mut String) -> Reply {
        text.clear();
        let retry_after = answer.retry_after_s.map(Duration::from_secs);
        let reply = |verdict| Reply { verdict, status: answer.status, replayed: answer.replayed, retry_after };
        let body = std::str::from_utf8(answer.body).unwrap_or_default();
        let fits = |rule: &&Rule| {
            (rule.status.is_empty() || rule.status.contains(&answer.status))
                && rule.contains.as_ref().is_none_or(|part| body.contains(part))
        };
        let Some(rule) = self.form(kind).and_then(|form| form.answers.iter().find(fits)) else {
            *text = format!("status {} that no rule fits", answer.status);
            return reply(Verdict::Unknown);
        };
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let at = |pointer: &str| match json.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let verdict = match rule.means {
            Means::Admitted => Verdict::Admitted,
            Means::Created => Verdict::Created,
            Means::Done => Verdict::Done,
            Means::Unknown => Verdict::Unknown,
            Means::Refused => {
                let reason = rule.reason.as_deref().unwrap_or("refused");
                *text = if reason.starts_with('/') { at(reason) } else { None }.unwrap_or_else(|| reason.into());
                return reply(Verdict::Refused);
            }
        };
        if verdict == Verdict::Unknown {
            *text = format!("status {}", answer.status);
            return reply(verdict);
        }
        match rule.gid.as_deref().map(at) {
            Some(Some(gid)) => *text = gid,
            Some(None) => {
                *text = format!("status {} without the order's id", answer.status);
                return reply(Verdict::Unknown);
            }
            None => {}
        }
        reply(verdict)
    }
}

impl Form {
    fn new(name: &str, question: Question) -> anyhow::Result<Self> {
        let method = match &*question.method {
            "POST" => "POST",
            "GET" => "GET",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            other => anyhow::bail!("{name}.method: `{other}` is none of POST, GET, PUT, PATCH, DELETE"),
        };
        ensure!(question.path.starts_with('/'), "{name}.path: must begin with `/`, got `{}`", question.path);
        ensure!(!question.answers.is_empty(), "{name}.answers: is empty, so that nothing would be understood");
        let headers: String = question.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Ok(Self {
            method,
            path: pieces(&question.path).with_context(|| format!("{name}.path"))?,
            headers: pieces(&headers).with_context(|| format!("{name}.headers"))?,
            body: pieces(&question.body).with_context(|| format!("{name}.body"))?,
            answers: question.answers,
        })
    }
}

/// A brace that is followed by no name of ours is a brace: bodies are JSON.
fn pieces(text: &str) -> anyhow::Result<Vec<Piece>> {
    let mut pieces = vec![Piece::Text(String::new())];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(name, _)| name);
        let piece = match name {
            Some("buyer") => Piece::Buyer,
            Some("sale") => Piece::Sale,
            Some("sku") => Piece::Sku,
            Some("quantity") => Piece::Quantity,
            Some("key") => Piece::Key,
            Some("gid") => Piece::Gid,
            Some(word) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                anyhow::bail!("`{{{word}}}` is unknown; there are buyer, sale, sku, quantity, key and gid")
            }
            _ => {
                if let Some(Piece::Text(text)) = pieces.last_mut() {
                    text.push(first);
                }
                rest = &rest[first.len_utf8()..];
                continue;
            }
        };
        rest = &rest[name.unwrap_or_default().len() + 2..];
        pieces.extend([piece, Piece::Text(String::new())]);
    }
    Ok(pieces)
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
