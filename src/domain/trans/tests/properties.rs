//! Random answers, crashes, repeated calls of the API and times: however a transaction went, its end and what its
//! branches did agree.

use super::story::{registration, request, topics};
use crate::domain::trans::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// More turns than any of these transactions needs once everybody answers.
const TURNS_MAX: usize = 2_000;

/// (branch id, op)
type Call = (String, String);

/// A server, its store, and the branch services. Every decision is taken off `dice`; when they are used up, everybody
/// answers yes and nothing crashes any more.
struct World {
    stored: String,
    memory: Global,
    pass: Pass,
    waiting: Vec<CallSpec>,
    /// The driver goes on without writing each result, and says so in the record.
    goes_ahead: bool,
    now_ms: u64,
    limits: Limits,
    dice: std::vec::IntoIter<u8>,
    /// Calls made, whatever came of them.
    called: BTreeSet<Call>,
    /// Calls that took effect at their branch.
    done: BTreeSet<Call>,
}

impl World {
    fn new(global: Global, goes_ahead: bool, dice: Vec<u8>) -> Self {
        let (now_ms, stored, dice) = (global.create_ms, String::new(), dice.into_iter());
        let (pass, waiting, limits) = (Pass::default(), Vec::new(), Limits::default());
        let (called, done) = (BTreeSet::new(), BTreeSet::new());
        let mut world = Self { stored, memory: global, pass, waiting, goes_ahead, now_ms, limits, dice, called, done };
        world.begin();
        world
    }

    fn die(&mut self, sides: u8) -> u8 {
        self.dice.next().map_or(0, |roll| roll % sides)
    }

    fn save(&mut self, ahead: bool) {
        if let Some(before) = (!self.stored.is_empty()).then(|| self.load()) {
            assert!(!before.status.is_final() || before.status == self.memory.status, "what was over has changed");
        }
        let global = Global { ahead: self.memory.ahead || ahead, ..self.memory.clone() };
        self.stored = serde_json::to_string(&global).unwrap();
        assert_eq!(self.load(), global, "the stored form lost something");
    }

    fn load(&self) -> Global {
        serde_json::from_str(&self.stored).unwrap()
    }

    fn begin(&mut self) {
        self.pass = Pass::default();
        self.save(self.goes_ahead);
    }

    /// What is in flight arrives or does not; memory is gone.
    fn crash(&mut self) {
        for call in std::mem::take(&mut self.waiting) {
            if self.die(2) == 0 {
                self.done.insert((call.branch_id, call.op));
            }
        }
        self.memory = self.load();
        self.begin();
    }

    fn api(&mut self, change: Result<Change, Refusal>) {
        match change {
            Err(_) | Ok(Change::Nothing) => {}
            Ok(Change::Create(_)) => panic!("created twice"),
            Ok(Change::Replace(global)) => {
                self.stored = serde_json::to_string(&*global).unwrap();
                self.crash(); // the driver's own write fails, and it loads the record again
            }
            Ok(Change::Append(rows)) => {
                let mut global = self.load();
                global.branches.extend(rows);
                self.stored = serde_json::to_string(&global).unwrap();
                self.crash();
            }
        }
    }

    /// One thing happens. `false`: it is over.
    fn turn(&mut self) -> bool {
        let (stored, now) = (self.load(), self.now_ms);
        let mode = stored.trans_type.as_str();
        match self.die(16) {
            1 => self.crash(),
            2 => self.api(moves::submit(Some(&stored), request(&["submit", mode]), now, &self.limits, &topics)),
            3 => self.api(moves::abort(Some(&stored), &request(&["abort", mode]), now)),
            4 => self.api(moves::prepare(Some(&stored), request(&["prepare", mode]), now, &self.limits, &topics)),
            5 => self.api(moves::register_branch(Some(&stored), &registration(&[mode, "01"]), now)),
            6 => self.api(moves::register_branch(Some(&stored), &registration(&[mode, "02"]), now)),
            7 => self.now_ms += 1000 * u64::from(self.die(60)),
            _ => {}
        }
        match next_step(&self.memory, &mut self.pass, self.now_ms, &self.limits) {
            Step::Call(specs) => specs.into_iter().for_each(|call| self.start(call)),
            Step::Await => self.answer(),
            Step::Move { to, reason } => {
                assert!(self.waiting.is_empty());
                apply_move(&mut self.memory, to, reason.as_deref(), self.now_ms);
                self.save(false);
            }
            Step::Wait { until_ms } => {
                assert!(self.waiting.is_empty());
                assert!(until_ms > self.now_ms, "a wait that is none");
                self.save(false);
                self.now_ms = until_ms;
                self.begin();
            }
            Step::Done => return false,
        }
        true
    }

    fn start(&mut self, call: CallSpec) {
        // I9: the decision is stored before anything follows from it.
        let stored = self.load().status;
        match call.op.as_str() {
            "compensate" | "cancel" | "rollback" => assert_eq!(stored, GlobalStatus::Aborting),
            "action" | "confirm" | "commit" => assert_eq!(stored, GlobalStatus::Submitted),
            _ => assert_eq!(stored, GlobalStatus::Prepared),
        }
        assert!(!self.waiting.iter().any(|other| other.called == call.called), "called twice at once");
        self.called.insert((call.branch_id.clone(), call.op.clone()));
        self.waiting.push(call);
    }

    fn answer(&mut self) {
        let sides = u8::try_from(self.waiting.len()).unwrap();
        let at = usize::from(self.die(sides));
        let call = self.waiting.remove(at);
        let name = (call.branch_id, call.op);
        let result = match self.die(8) {
            // Who did it once answers yes ever after: that is what barriers are for.
            1 | 2 if !self.done.contains(&name) => BranchResult::Failure("no".to_owned()),
            unclear @ 3..=6 => {
                if unclear % 2 == 0 {
                    self.done.insert(name);
                }
                if unclear < 5 { BranchResult::Ongoing } else { BranchResult::Unknown("lost".to_owned()) }
            }
            _ => {
                self.done.insert(name);
                BranchResult::Success
            }
        };
        if call.called == Called::Workflow {
            self.run_workflow(); // and the driver loads the record again
        }
        apply(&mut self.memory, &mut self.pass, call.called, result, self.now_ms, &self.limits);
        if !self.goes_ahead {
            self.save(false);
        }
    }

    /// The client of a workflow, called back: it does what it has not done, and may come to its end.
    fn run_workflow(&mut self) {
        let stored = self.load();
        let words: &[&[&str]] = &[&["workflow", "01"], &["workflow", "02"], &["workflow", "02", "op=commit"]];
        let steps = usize::from(self.die(4)).min(words.len());
        let steps = if self.dice.len() == 0 { words.len() } else { steps };
        let mut global = stored;
        for words in &words[..steps] {
            if let Ok(Change::Append(rows)) = moves::register_branch(Some(&global), &registration(words), self.now_ms) {
                global.branches.extend(rows);
            }
        }
        if steps == words.len() {
            let mut end = request(&["submit", "workflow"]);
            end.req_extra.insert("status".to_owned(), "succeed".to_owned());
            if let Ok(Change::Replace(ended)) = moves::submit(Some(&global), end, self.now_ms, &self.limits, &topics) {
                global = *ended;
            }
        }
        self.memory = global;
        self.save(false);
    }

    fn was_called(&self, row: &Branch, op: Op) -> bool {
        self.called.contains(&(row.branch_id.clone(), op.as_str().to_owned()))
    }

    fn has_done(&self, row: &Branch, op: Op) -> bool {
        self.done.contains(&(row.branch_id.clone(), op.as_str().to_owned()))
    }

    /// Runs to the end and returns the final record.
    fn run(&mut self) -> Global {
        let mut turns = 0;
        while self.turn() {
            turns += 1;
            assert!(turns < TURNS_MAX, "no end in sight: {:?}", self.memory);
        }
        assert!(self.load().status.is_final());
        self.load()
    }
}

/// A new transaction, `words` as in a story.
fn begun(words: &str) -> Global {
    let words: Vec<&str> = words.split_whitespace().collect();
    let create = match words[0] {
        "prepare" => moves::prepare,
        _ => moves::submit,
    };
    match create(None, request(&words), 1_000_000, &Limits::default(), &topics) {
        Ok(Change::Create(global)) => *global,
        other => panic!("{other:?}"),
    }
}

fn dice() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

/// A saga's options: how its steps are ordered, and what may end it early.
fn saga() -> impl Strategy<Value = String> {
    let order = prop_oneof![
        Just(String::new()),
        Just("concurrent".to_owned()),
        // Each step may wait for earlier ones only: no circles.
        proptest::collection::vec(any::<[bool; 5]>(), 5).prop_map(|waits| {
            let before =
                |k: usize| (0..k).filter(|j| waits[k][*j]).map(|j| j.to_string()).collect::<Vec<_>>().join(",");
            let lists: Vec<String> = (1..5).map(|k| format!("\"{k}\":[{}]", before(k))).collect();
            format!("orders={{{}}}", lists.join(","))
        }),
    ];
    let timeout = prop_oneof![Just(""), Just("timeout=20")];
    let limit = prop_oneof![Just(""), Just("limit=2")];
    (order, timeout, limit).prop_map(|(order, timeout, limit)| format!("submit saga 5 {order} {timeout} {limit}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_saga_is_done_or_undone(words in saga(), goes_ahead: bool, calls_max in 1usize..6, dice in dice()) {
        let mut world = World::new(begun(&words), goes_ahead, dice);
        world.limits.calls_max = calls_max;
        let saga = world.run();
        for row in saga.branches.iter().filter(|row| row.op == Op::Action) {
            if saga.status == GlobalStatus::Succeed {
                prop_assert!(world.has_done(row, Op::Action));
                prop_assert!(!world.was_called(row, Op::Compensate));
            } else if world.was_called(row, Op::Action) {
                prop_assert!(world.has_done(row, Op::Compensate), "{} is left done", row.branch_id);
            }
        }
        prop_assert_eq!(saga.status == GlobalStatus::Failed, !saga.rollback_reason.is_empty());
    }

    #[test]
    fn all_of_a_tcc_or_xa_is_confirmed_or_cancelled(xa: bool, dice in dice()) {
        let (mode, yes, no) = if xa { ("xa", Op::Commit, Op::Rollback) } else { ("tcc", Op::Confirm, Op::Cancel) };
        let mut world = World::new(begun(&format!("prepare {mode}")), false, dice);
        let global = world.run();
        let (this, other) = if global.status == GlobalStatus::Succeed { (yes, no) } else { (no, yes) };
        for row in &global.branches {
            prop_assert!(world.has_done(row, this));
            prop_assert!(!world.was_called(row, other), "{} had both", row.branch_id);
        }
    }

    #[test]
    fn a_message_is_delivered_whole_or_not_at_all(
        options in prop_oneof![Just("query"), Just("concurrent query"), Just(""), Just("delay=70 query")],
        topic: bool,
        dice in dice(),
    ) {
        let topic = if topic { "topic=two" } else { "" };
        let mut world = World::new(begun(&format!("prepare msg 2 {topic} {options}")), false, dice);
        let msg = world.run();
        for row in &msg.branches {
            let delivered = msg.status == GlobalStatus::Succeed;
            prop_assert_eq!(delivered, world.has_done(row, Op::Action));
            prop_assert!(delivered || !world.was_called(row, Op::Action));
        }
    }

    #[test]
    fn a_workflow_is_called_back_until_its_client_ends_it(dice in dice()) {
        let mut world = World::new(begun("prepare workflow"), false, dice);
        let workflow = world.run();
        prop_assert_eq!(workflow.status, GlobalStatus::Succeed);
        let ops: BTreeSet<_> = workflow.branches.iter().map(|row| (&row.branch_id, row.op)).collect();
        prop_assert_eq!(ops.len(), workflow.branches.len(), "a step is registered twice");
        prop_assert!(workflow.branches.iter().all(|row| row.status == BranchStatus::Succeed));
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = TransRequest::from_json(&body);
        let _ = RegisterBranch::from_json(&body);
        let _ = serde_json::from_slice::<Global>(&body);
    }

    #[test]
    fn any_stored_statuses_load_or_are_refused(letters in "[psfx]{0,6}", times in proptest::collection::vec(any::<u64>(), 0..6)) {
        let mut record = serde_json::to_value(begun("submit saga 2")).unwrap();
        record["bs"] = letters.into();
        record["bt"] = times.into();
        if let Ok(mut global) = serde_json::from_value::<Global>(record) {
            let _ = next_step(&global, &mut Pass::default(), u64::MAX, &Limits::default());
            apply(&mut global, &mut Pass::default(), Called::Branch(9), BranchResult::Success, 0, &Limits::default());
        }
    }
}
