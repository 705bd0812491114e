//! What is to be asked when, on one thread: arrivals as the schedule has them, buyers' next steps as they plan them, and
//! the connections that are free to ask.
//!
//! A buyer who thinks, waits or comes back is one [`Step`] in a heap and holds no connection, so a million of them are
//! cheap. Steps that are due go to connections that are free, the one that has been free longest first; when none is,
//! steps wait here, and their latency goes on counting from the moment they were due.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::clock::{Alarm, Clock};
use crate::ledger::{BasketId, Kind, Micros};

/// Steps that are due and wait for a connection, before arrivals stay in their schedule: a flash crowd of millions is not
/// laid out in memory at once.
const READY_MAX: usize = 4096;
/// Steps made due at once, before connections get their turn.
const DUE_AT_ONCE_MAX: usize = 256;
/// At high rates the alarm need not ring for each arrival: free connections look at the clock too.
const ALARM_GAP_US: Micros = 100;

/// One thing that one buyer wants to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When; latency counts from here.
    pub due: Micros,
    pub kind: Kind,
    /// It decides what the buyer does next; a double click's second click does not.
    pub leads: bool,
    /// Index of the buyer's manner.
    pub manner: u16,
    pub buyer: u32,
    /// The buyer's key, from 1.
    pub nth: u32,
    pub basket: BasketId,
    /// Requests with this key (or this poll), from 1.
    pub attempt: u16,
    /// Times that the buyer came back.
    pub returns: u16,
    /// Orders that the buyer has got.
    pub bought: u16,
    /// What a confirm, cancel or poll is about.
    pub gid: Option<Rc<str>>,
}

/// A step that a connection got.
pub struct Given {
    pub step: Step,
    /// No connection was free when it was due: what it is late by is not the harness's doing.
    pub waited: bool,
}

/// Where arrivals come from: the moment of the next one, and its steps.
pub trait Arrivals {
    fn next_due(&mut self) -> Option<Micros>;
    /// The steps of the arrival that [`Arrivals::next_due`] spoke of.
    fn arrive(&mut self, steps: &mut Vec<Step>);
}

/// The queue of one thread.
pub struct Queue<A> {
    clock: Clock,
    state: RefCell<State<A>>,
}

struct State<A> {
    arrivals: A,
    later: BinaryHeap<Reverse<Later>>,
    /// Breaks ties in `later`, in the order of planning.
    planned: u64,
    ready: VecDeque<Given>,
    idle: VecDeque<usize>,
    slots: Vec<Slot>,
    /// Steps that connections have and have not finished.
    busy: usize,
    /// The alarm rings then, unless it is told of something earlier.
    alarm_at: Micros,
    alarm: Option<Waker>,
    closed: bool,
    scratch: Vec<Step>,
}

#[derive(Default)]
struct Slot {
    given: Option<Given>,
    waker: Option<Waker>,
    idle: bool,
}

struct Later {
    due: Micros,
    number: u64,
    step: Step,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<A: Arrivals> Queue<A> {
    pub fn new(clock: Clock, arrivals: A, connections: usize) -> Self {
        let state = State {
            arrivals,
            later: BinaryHeap::new(),
            planned: 0,
            ready: VecDeque::new(),
            idle: VecDeque::with_capacity(connections),
            slots: (0..connections).map(|_| Slot::default()).collect(),
            busy: 0,
            alarm_at: Micros::MAX,
            alarm: None,
            closed: false,
            scratch: Vec::new(),
        };
        Self { clock, state: RefCell::new(state) }
    }

    /// The next step for connection `slot`, when there is one; `None` when all is done.
    pub async fn next(&self, slot: usize) -> Option<Given> {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if let Some(given) = state.slots[slot].given.take() {
                return Poll::Ready(Some(given));
            }
            if !state.slots[slot].idle {
                state.make_due(self.clock.now(), true);
                if let Some(given) = state.ready.pop_front() {
                    state.busy += 1;
                    state.hand_out();
                    return Poll::Ready(Some(given));
                }
            }
            if state.over() {
                return Poll::Ready(None);
            }
            let waker = &mut state.slots[slot].waker;
            match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            if !state.slots[slot].idle {
                state.slots[slot].idle = true;
                state.idle.push_back(slot);
                let now = self.clock.now();
                if let Some(due) = state.next_due() {
                    state.ring_by(due, now);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A step was asked and answered; `then` is what follows from it.
    pub fn finish(&self, then: &mut Vec<Step>) {
        let mut state = self.state.borrow_mut();
        state.busy -= 1;
        for step in then.drain(..) {
            if !state.closed {
                state.plan(step);
            }
        }
        state.wake_if_over();
    }

    /// Nothing more is begun; what is under way ends.
    pub fn close(&self) {
        let mut state = self.state.borrow_mut();
        state.closed = true;
        state.later.clear();
        state.ready.clear();
        state.wake_if_over();
    }

    /// Rings when something is due and no connection looks. Ends when all is done.
    pub async fn keep_time(&self) -> std::io::Result<()> {
        let alarm = Alarm::new()?;
        loop {
            let at = {
                let mut state = self.state.borrow_mut();
                let now = self.clock.now();
                state.make_due(now, false);
                state.hand_out();
                if state.over() {
                    state.wake_if_over();
                    return Ok(());
                }
                // With steps waiting for a connection there is nothing that an earlier look could do.
                let next = if state.ready.is_empty() { state.next_due() } else { None };
                state.alarm_at = next.map_or(Micros::MAX, |due| due.max(now + ALARM_GAP_US));
                state.alarm_at
            };
            let told = poll_fn(|context| {
                let mut state = self.state.borrow_mut();
                if state.alarm_at < at || state.over() {
                    return Poll::Ready(());
                }
                state.alarm = Some(context.waker().clone());
                Poll::Pending
            });
            if at == Micros::MAX {
                told.await;
            } else {
                tokio::select! {
                    rung = alarm.sleep_until(self.clock.instant(at)) => rung?,
                    () = told => {}
                }
            }
        }
    }
}

impl<A: Arrivals> State<A> {
    fn next_due(&mut self) -> Option<Micros> {
        let arrival = if self.closed { None } else { self.arrivals.next_due() };
        let later = self.later.peek().map(|Reverse(later)| later.due);
        arrival.into_iter().chain(later).min()
    }

    fn over(&mut self) -> bool {
        self.busy == 0
            && self.ready.is_empty()
            && self.later.is_empty()
            && (self.closed || self.arrivals.next_due().is_none())
    }

    fn wake_if_over(&mut self) {
        if self.over() {
            self.slots.iter_mut().filter_map(|slot| slot.waker.take()).for_each(Waker::wake);
            self.alarm.take().into_iter().for_each(Waker::wake);
        }
    }

    fn plan(&mut self, step: Step) {
        let (due, number) = (step.due, self.planned);
        self.planned += 1;
        self.later.push(Reverse(Later { due, number, step }));
        // With nobody free the alarm would ring in vain; whoever becomes free sees to it.
        if !self.idle.is_empty() {
            self.ring_by(due, 0);
        }
    }

    /// Makes sure that the alarm rings not much later than `due`.
    fn ring_by(&mut self, due: Micros, now: Micros) {
        let at = due.max(now + ALARM_GAP_US);
        if at < self.alarm_at {
            self.alarm_at = at;
            self.alarm.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Moves what is due by now to `ready`. `asks` is whether a connection stands there to take the first.
    fn make_due(&mut self, now: Micros, asks: bool) {
        let mut steps = std::mem::take(&mut self.scratch);
        for _ in 0..DUE_AT_ONCE_MAX {
            let later = self.later.peek().map_or(Micros::MAX, |Reverse(later)| later.due);
            let arrival = if self.closed || self.ready.len() >= READY_MAX { None } else { self.arrivals.next_due() };
            if later <= now && arrival.is_none_or(|arrival| later <= arrival) {
                steps.extend(self.later.pop().map(|Reverse(later)| later.step));
            } else if arrival.is_some_and(|arrival| arrival <= now) {
                self.arrivals.arrive(&mut steps);
            } else {
                break;
            }
            for step in steps.drain(..) {
                if step.due > now {
                    self.plan(step);
                    continue;
                }
                let waited = self.ready.len() >= self.idle.len() + usize::from(asks);
                self.ready.push_back(Given { step, waited });
            }
        }
        self.scratch = steps;
    }

    /// Gives steps that are ready to connections that are idle.
    fn hand_out(&mut self) {
        while !self.ready.is_empty()
            && let Some(slot) = self.idle.pop_front()
        {
            let given = self.ready.pop_front();
            let slot = &mut self.slots[slot];
            (slot.given, slot.idle) = (given, false);
            self.busy += 1;
            slot.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}
