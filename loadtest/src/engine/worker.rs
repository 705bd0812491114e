//! The loop of one connection: take a step, ask, write down what was heard, plan what follows.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::Effort;
use super::clock::Clock;
use super::crowd::{Crowd, Door, Verdict};
use super::line::Line;
use super::queue::{Given, Queue, Step};
use crate::ledger::{Asked, Heard, Outcome, Shard, key_of};
use crate::target::{Caller, Reply, Target};

/// What all connections of a thread share.
pub struct Worker {
    queue: Rc<Queue<Door>>,
    crowd: Rc<Crowd>,
    target: Rc<Target>,
    clock: Clock,
    shard: RefCell<Shard>,
    effort: RefCell<Effort>,
}

impl Worker {
    pub fn new(queue: Rc<Queue<Door>>, crowd: Rc<Crowd>, target: Rc<Target>, clock: Clock, shard: Shard) -> Self {
        Self { queue, crowd, target, clock, shard: RefCell::new(shard), effort: RefCell::new(Effort::new()) }
    }

    pub fn effort(&self) -> Effort {
        self.effort.borrow().clone()
    }

    /// Serves the queue with `line` until all is done.
    pub async fn run(self: Rc<Self>, slot: usize, line: Line) {
        let mut caller = Caller::new(line);
        let mut then = Vec::new();
        while let Some(Given { mut step, waited }) = self.queue.next(slot).await {
            let sent_us = self.clock.now();
            if self.crowd.closed_loop {
                step.due = sent_us;
            }
            {
                let mut effort = self.effort.borrow_mut();
                effort.requests += 1;
                if self.crowd.closed_loop {
                    // There is no moment that was intended.
                } else if waited {
                    effort.waited += 1;
                } else {
                    effort.schedule_error.saturating_record(sent_us.saturating_sub(step.due));
                }
            }
            let reply = self.ask(&mut caller, &step).await;
            let answered_us = self.clock.now();
            self.tell(&step, sent_us, answered_us, reply, &caller.text);
            self.crowd.after(step, reply.verdict, &caller.text, reply.retry_after, answered_us, &mut then);
            self.queue.finish(&mut then);
        }
    }

    async fn ask(&self, caller: &mut Caller, step: &Step) -> Reply {
        let patience = Duration::from_millis(self.crowd.manner(step).patience_ms);
        let asked = async {
            match self.crowd.loses(step) {
                None => self.target.ask(caller, step).await,
                Some(wait_for_answer) => self.target.ask_and_leave(caller, step, wait_for_answer).await,
            }
        };
        match timeout(patience, asked).await {
            Ok(reply) => reply,
            Err(_) => {
                caller.line.give_up();
                // Its reply is still to come, and must not be taken for the next one's.
                caller.own.redis = None;
                caller.text.clear();
                caller.text.push_str("timeout");
                Reply::silence()
            }
        }
    }

    fn tell(&self, step: &Step, sent_us: u64, answered_us: u64, reply: Reply, text: &str) {
        let outcome = match reply.verdict {
            Verdict::Admitted => Outcome::Admitted { gid: text },
            Verdict::Created => Outcome::Created { gid: text },
            Verdict::Done => Outcome::Done { gid: text },
            Verdict::Refused => Outcome::Refused { reason: text },
            Verdict::Unknown => Outcome::Unknown { error: text },
        };
        let asked = Asked {
            kind: step.kind,
            intended_us: step.due,
            sent_us,
            buyer: step.buyer,
            sale: 0,
            key: key_of(step.buyer, step.nth),
            basket: step.basket,
            attempt: step.attempt,
            about: step.gid.as_deref(),
        };
        let heard = Heard { answered_us, status: reply.status, replayed: reply.replayed, outcome };
        self.shard.borrow_mut().tell(asked, heard);
    }
}
