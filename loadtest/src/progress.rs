//! What a sale looks like while it runs: a bar on a terminal, a plain line every two seconds anywhere else.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use crate::buyers::Book;

/// Often enough to look alive; each time costs two quantiles.
const TERMINAL_TICK: Duration = Duration::from_millis(200);
const PLAIN_TICK: Duration = Duration::from_secs(2);

/// Shows `book` for ever; drop it to end the show.
pub async fn show(book: Rc<RefCell<Book>>, buyers: u32, quiet: bool) {
    if quiet {
        return std::future::pending().await;
    }
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new(buyers.into()) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("  {bar:32} {pos}/{len} buyers  {msg}").expect("this template is valid");
    bar.set_style(style.progress_chars("█▉ "));
    let mut tick = interval(if terminal { TERMINAL_TICK } else { PLAIN_TICK });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let (mut told_before, mut before) = (0, Instant::now());
    loop {
        tick.tick().await;
        let book = book.borrow();
        let told = book.told.len();
        let rate = (told - told_before) as f64 / before.elapsed().as_secs_f64();
        (told_before, before) = (told, Instant::now());
        let text = line(&book, rate);
        if terminal {
            bar.set_position(book.buyers_done.into());
            bar.set_message(text);
        } else {
            println!("  {}/{buyers} buyers  {text}", book.buyers_done);
        }
    }
}

fn line(book: &Book, orders_per_s: f64) -> String {
    let refused: String = book.refused.iter().map(|(code, n)| format!("  {} {n}", code.replace('_', " "))).collect();
    format!(
        "sold {}{refused}  {orders_per_s:.0} orders/s  p50 {:.1} ms  p99 {:.1} ms",
        book.units_told,
        millis(book, 0.5),
        millis(book, 0.99)
    )
}

/// A quantile of the latency, in milliseconds.
pub fn millis(book: &Book, quantile: f64) -> f64 {
    book.latency.value_at_quantile(quantile) as f64 / 1000.0
}
