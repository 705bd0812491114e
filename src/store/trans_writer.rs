//! Writes of global transactions, gathered: while one batch is in Redis the next one fills, and one script call per
//! partition and kind writes it.
//!
//! Each write is still decided by itself: one that finds another's record, or another version, hears so, and the others
//! of its batch do not. Only what goes wrong with the call as a whole (no answer, no memory) is heard by all.

use super::redis::Redis;
use super::trans::{Created, Due, Saved};
use super::trans_form::record_of;
use super::{Error, keys, scripts};
use crate::domain::trans::{Global, GlobalStatus, TransType};
use crate::outside;
use futures_util::future::join_all;
use redis::{Cmd, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Writes that wait for their batch; whoever comes beyond that waits for a place.
const QUEUE_MAX: usize = 4_096;
/// Writes in one round of script calls.
const BATCH_MAX: usize = 512;
/// Writes in one script call: a millisecond of Redis at most, and far from the 8,000 values that Lua's stack takes.
const SCRIPT_MAX: usize = 128;
/// And bytes: a record may have megabytes. One alone may have more.
const SCRIPT_BYTES_MAX: usize = 256 * 1024;
/// Rounds under way at a time: while one is in Redis, the answers of another are on their way.
const ROUNDS_IN_FLIGHT: usize = 2;
/// A batch of so many is not made to wait for more.
const GATHER_ENOUGH: usize = 128;
/// How often a batch waits for more of what is ready: bounds what the first of it waits.
const GATHER_ROUNDS_MAX: usize = 4;

/// Index zsets by what they hold.
type Index = (GlobalStatus, TransType);

enum Kind {
    Create,
    Save { was: Index, version: u64, drop_rows: bool },
}

/// One write on its way to a batch.
struct Write {
    kind: Kind,
    gid: String,
    partition: u16,
    index: Index,
    create_ms: u64,
    due: String,
    /// As it is to be stored.
    record: String,
    answer: oneshot::Sender<Result<i64, Error>>,
}

/// Takes writes and answers them. One for the whole server.
pub struct Writer {
    queue: mpsc::Sender<Write>,
}

impl Writer {
    /// Starts the task that writes. It ends when the `Writer` is dropped and its queue is empty.
    pub fn start(redis: Arc<Redis>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(redis, waiting));
        Self { queue }
    }

    pub async fn create(&self, global: &Global, due: Due) -> Result<Created, Error> {
        match self.ask(Kind::Create, global, due).await? {
            1 => Ok(Created::New),
            0 => Ok(Created::Exists),
            other => Err(unexpected("trans_create", other)),
        }
    }

    /// Writes `global` in place of what was loaded with `version` and the status `was`.
    pub async fn save(
        &self,
        global: &Global,
        was: GlobalStatus,
        version: u64,
        has_rows: bool,
        due: Due,
    ) -> Result<Saved, Error> {
        // While it is prepared the rows are what tells a repeated registration from a new one.
        let drop_rows = has_rows && global.status != GlobalStatus::Prepared;
        let kind = Kind::Save { was: (was, global.trans_type), version, drop_rows };
        match self.ask(kind, global, due).await? {
            0 => Ok(Saved::Gone),
            version @ 1.. => Ok(Saved::Saved(version.unsigned_abs())),
            _ => Ok(Saved::Stale),
        }
    }

    async fn ask(&self, kind: Kind, global: &Global, due: Due) -> Result<i64, Error> {
        let (answer, hear) = oneshot::channel();
        let gid = global.gid.as_str();
        let version = match kind {
            Kind::Create => 1,
            Kind::Save { version, .. } => version + 1,
        };
        let write = Write {
            kind,
            gid: gid.to_owned(),
            partition: keys::trans_partition(gid),
            index: (global.status, global.trans_type),
            create_ms: global.create_ms,
            due: due.score(),
            record: record_of(global, version),
            answer,
        };
        let stopped = || Error::NoAnswer("this node is stopping".into());
        self.queue.send(write).await.map_err(|_| stopped())?;
        hear.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn unexpected(script: &'static str, reply: impl std::fmt::Debug) -> Error {
    Error::Unexpected { what: script, reply: format!("{reply:?}") }
}

/// Until nobody has the other end of the queue. A panic is a bug, and the end of the writes that were gathered just then.
async fn run(redis: Arc<Redis>, mut queue: mpsc::Receiver<Write>) {
    let in_flight = Arc::new(Semaphore::new(ROUNDS_IN_FLIGHT));
    while outside::panicked(gather(&redis, &in_flight, &mut queue)).await {}
}

async fn gather(redis: &Arc<Redis>, in_flight: &Arc<Semaphore>, queue: &mut mpsc::Receiver<Write>) {
    let mut gathered = Vec::with_capacity(BATCH_MAX);
    loop {
        // First a turn, then the writes: what comes while all turns are taken makes the next batch larger.
        let turn = in_flight.clone().acquire_owned().await.expect("this semaphore is never closed");
        if queue.recv_many(&mut gathered, BATCH_MAX).await == 0 {
            return;
        }
        gather_more(queue, &mut gathered).await;
        let mut batches: BTreeMap<(u16, bool), Vec<Write>> = BTreeMap::new();
        for write in gathered.drain(..) {
            batches.entry((write.partition, matches!(write.kind, Kind::Create))).or_default().push(write);
        }
        let redis = redis.clone();
        tokio::spawn(async move {
            let scripts = batches.into_values().flat_map(in_scripts);
            join_all(scripts.map(|writes| write(&redis, writes))).await;
            drop(turn);
        });
    }
}

/// Lets tasks that are ready come in with theirs before the batch leaves, as long as that brings more.
async fn gather_more(queue: &mut mpsc::Receiver<Write>, gathered: &mut Vec<Write>) {
    for _ in 0..GATHER_ROUNDS_MAX {
        let before = gathered.len();
        if before >= GATHER_ENOUGH {
            return;
        }
        tokio::task::yield_now().await;
        while gathered.len() < GATHER_ENOUGH
            && let Ok(write) = queue.try_recv()
        {
            gathered.push(write);
        }
        if gathered.len() == before {
            return;
        }
    }
}

/// Cuts what goes to one partition into script calls. Two writes of one transaction are never under way at once: a writer
/// waits for its answer before it writes again, and of two writers one is refused.
fn in_scripts(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut scripts: Vec<Vec<Write>> = Vec::with_capacity(1);
    let mut bytes = 0;
    for write in writes {
        bytes += write.record.len();
        match scripts.last_mut() {
            Some(script) if script.len() < SCRIPT_MAX && bytes <= SCRIPT_BYTES_MAX => script.push(write),
            _ => {
                bytes = write.record.len();
                scripts.push(vec![write]);
            }
        }
    }
    scripts
}

/// Sends writes of one partition and kind, and tells each what became of it.
async fn write(redis: &Redis, writes: Vec<Write>) {
    let command = command(redis.prefix(), &writes);
    let answers = redis.run(&mut redis.lane(), &command).await.and_then(|reply| match read(&reply) {
        Some(answers) if answers.len() == writes.len() => Ok(answers),
        _ => Err(unexpected("trans_create or trans_save", reply)),
    });
    match answers {
        // Whoever waits may have gone; what is written stays.
        Ok(answers) => writes.into_iter().zip(answers).for_each(|(write, answer)| drop(write.answer.send(Ok(answer)))),
        Err(error) => writes.into_iter().for_each(|write| drop(write.answer.send(Err(error.clone())))),
    }
}

fn read(reply: &Value) -> Option<Vec<i64>> {
    let Value::Array(parts) = reply else { return None };
    parts.iter().map(|part| if let Value::Int(answer) = part { Some(*answer) } else { None }).collect()
}

/// The call of `trans_create` or `trans_save` for writes of one partition and kind.
fn command(prefix: &str, writes: &[Write]) -> Cmd {
    let partition = writes.first().map_or(0, |write| write.partition);
    let creates = writes.first().is_some_and(|write| matches!(write.kind, Kind::Create));
    let mut indexes: Vec<Index> = Vec::new();
    let mut place = |index: Index| match indexes.iter().position(|known| *known == index) {
        Some(place) => place,
        None => {
            indexes.push(index);
            indexes.len() - 1
        }
    };
    let places: Vec<(usize, usize)> = writes
        .iter()
        .map(|write| match write.kind {
            Kind::Create => (0, place(write.index)),
            Kind::Save { was, .. } => (place(was), place(write.index)),
        })
        .collect();
    let drops = |write: &&Write| matches!(write.kind, Kind::Save { drop_rows: true, .. });
    let mut names = Vec::with_capacity(1 + indexes.len() + writes.len());
    names.push(keys::trans_due(prefix, partition));
    let index_key = |(status, kind): &Index| keys::trans_index(prefix, partition, status.as_str(), kind.as_str());
    names.extend(indexes.iter().map(index_key));
    names.extend(writes.iter().map(|write| keys::trans(prefix, &write.gid)));
    // From here on the rows; Lua counts from 1.
    let mut rows = names.len();
    names.extend(writes.iter().filter(drops).map(|write| keys::trans_rows(prefix, &write.gid)));
    let script = if creates { &scripts::trans_create } else { &scripts::trans_save };
    let mut command = script.call(&names.iter().map(String::as_str).collect::<Vec<_>>());
    command.arg(indexes.len());
    if !creates {
        command.arg(writes.len());
    }
    // The due zset is key 1, so the index at place 0 is key 2.
    for (write, (was, now)) in writes.iter().zip(places) {
        command.arg(&write.gid);
        match write.kind {
            Kind::Create => command.arg(now + 2).arg(write.create_ms).arg(&write.due).arg(&write.record),
            Kind::Save { version, drop_rows, .. } => {
                rows += usize::from(drop_rows);
                command
                    .arg(format!("{version:010}"))
                    .arg(was + 2)
                    .arg(now + 2)
                    .arg(write.create_ms)
                    .arg(&write.due)
                    .arg(&write.record);
                command.arg(if drop_rows { rows } else { 0 })
            }
        };
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: usize) -> Write {
        Write {
            kind: Kind::Create,
            gid: "g".into(),
            partition: 0,
            index: (GlobalStatus::Submitted, TransType::Saga),
            create_ms: 0,
            due: String::new(),
            record: "x".repeat(bytes),
            answer: oneshot::channel().0,
        }
    }

    #[test]
    fn a_script_is_bounded_in_number_and_bytes() {
        let lengths = |writes: Vec<Write>| in_scripts(writes).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths((0..SCRIPT_MAX + 1).map(|_| write(10)).collect()), [SCRIPT_MAX, 1]);
        let half = SCRIPT_BYTES_MAX / 2;
        assert_eq!(lengths(vec![write(half), write(half), write(1), write(4 * half), write(1)]), [2, 1, 1, 1]);
    }
}
