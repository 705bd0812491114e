//! The list of tokens as a setting: one text, or in the file also a list of lines or of maps.

use super::file::Node;
use super::kind::{Kind, Wrong};
use super::table::Unwritten;
use crate::access::tokens::Token;
use serde_json::Value;

/// The setting that may be written as a list.
pub const NAME: &str = "security.tokens";
const EXAMPLE: &str = "shop:buyer:0000000000000000000000000000000000000000000000000000000000000000";

pub struct Tokens;

impl Kind<Vec<Token>> for Tokens {
    fn default(&self) -> Vec<Token> {
        Vec::new()
    }

    fn read(&self, text: &str) -> Result<Vec<Token>, Wrong> {
        Token::parse_all(text).map_err(|error| Wrong {
            what: format!("is not usable: {error}"),
            hint: Some("rushline token new NAME --role ROLE   prints a line for it".into()),
        })
    }

    fn show(&self, value: &Vec<Token>) -> Value {
        let shown: Vec<String> = value.iter().map(ToString::to_string).collect();
        if shown.is_empty() { Value::Null } else { shown.join(" ").into() }
    }

    fn allowed(&self) -> String {
        "NAME:ROLE+ROLE:SHA256 with commas or spaces between, roles buyer, reader, client, operator".into()
    }

    fn unwritten(&self) -> Option<Unwritten> {
        Some(Unwritten { meaning: "none: no token is asked for", example: EXAMPLE })
    }
}

/// A list in the file as the one text that [`Tokens`] reads: items are lines, or maps of `name`, `roles`, `sha256`, `sales`.
pub fn text_of(items: Vec<Node>) -> Result<String, String> {
    let lines = items.into_iter().map(|item| match item {
        Node::Scalar(line) => Ok(line),
        Node::Map(map) => {
            let mut parts = [const { String::new() }; 4];
            for (key, value) in map {
                let at = match key.value.as_str() {
                    "name" => 0,
                    "role" | "roles" => 1,
                    "sha256" => 2,
                    "sales" => 3,
                    other => {
                        return Err(format!(
                            "has no `{}`: name, roles, sha256, sales",
                            other.chars().take(80).collect::<String>()
                        ));
                    }
                };
                parts[at] = joined(value.value);
            }
            let [name, roles, hash, sales] = parts;
            Ok(if sales.is_empty() {
                format!("{name}:{roles}:{hash}")
            } else {
                format!("{name}:{roles}:{hash}:{sales}")
            })
        }
        Node::Null | Node::List(_) => Err("must be a list of lines, or of maps of name, roles, sha256, sales".into()),
    });
    Ok(lines.collect::<Result<Vec<_>, String>>()?.join("\n"))
}

/// One word, or several.
fn joined(value: Node) -> String {
    match value {
        Node::Scalar(text) => text,
        Node::List(items) => items.into_iter().map(joined).collect::<Vec<_>>().join("+"),
        Node::Null | Node::Map(_) => String::new(),
    }
}
