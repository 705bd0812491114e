//! `rushline token new`: a token and the line that a server knows it by.

use super::terminal;
use crate::access::tokens::Token;
use crate::access::{Role, Roles};
use crate::fault::{Class, Fault};
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token: printed once, and kept nowhere.
    #[command(after_help = "\
Examples:
  rushline token new shop --role buyer
  rushline token new prometheus --role reader
  rushline token new orders --role client --role reader

The line goes into security.tokens, or into the file of security.tokens_file; the token to who is to use it.")]
    New {
        /// What logs call whoever uses it.
        name: String,
        /// What it is for: buyer, reader, client or operator; may be repeated.
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<String>,
        /// A sale that the role buyer is for (`spring-*`: all that begin so); may be repeated. Without, all sales.
        #[arg(long = "sale", value_name = "SALE")]
        sales: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: Command) -> anyhow::Result<()> {
    let Command::New { name, roles, sales, json } = command;
    let roles = roles.iter().try_fold(Roles::NONE, |set, word| match Role::parse(word) {
        Some(role) => Ok(set.with(role)),
        None => Err(Fault::new(Class::Usage, format!("there is no role `{word}`"))
            .hint(format!("roles are {}", Roles::ALL.words().join(", ")))),
    })?;
    let (secret, token) = Token::new(&name, roles, sales).map_err(|error| Fault::new(Class::Usage, error))?;
    let line = token.line();
    if json {
        return terminal::print_json(&json!({ "name": token.name, "token": secret, "line": line }));
    }
    terminal::print(&format!(
        "Token, for whoever is to use it; it is kept nowhere and shown once:\n  {secret}\n\n\
         Line for the server (security.tokens, or the file of security.tokens_file):\n  {line}\n"
    ))
}
