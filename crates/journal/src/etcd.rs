//! The journal of many machines: keys in etcd, through its JSON gateway. See `docs/decisions/0012`.
//!
//! ```text
//! PREFIX/id           the journal's name
//! PREFIX/head         {"position": 7, "digest": …, "recent": [names of the last commits]}; each commit writes it
//! PREFIX/floor        {"position": 2, "digest": …}
//! PREFIX/record/N     a record at position N, 16 digits of hex: the digest up to it, then its text
//! PREFIX/cell/NAME    a cell; its version is the revision of etcd that wrote it
//! ```
//!
//! - A commit is one transaction: *if* the head is as I knew it, and the cells have these revisions, *then* write head, record and
//!   cells. So positions have no gap, and the order of record keys is that of commits: a page is a range of keys, as cheap as it is
//!   long, of current keys, which etcd's compaction leaves alone.
//! - Who loses gets the head in the same answer, and tries again from there. Commits that have gathered go in one transaction.
//! - A transaction whose answer got lost is sent again: while the head is as it was, it has not been done, and afterwards it
//!   can't be any more. Whether it was itself what moved the head, the names in it tell.
//! - Reading is linearizable: a member that lags, or is cut off, asks the others or does not answer. Who follows takes what the watch
//!   has brought, without asking, and asks from time to time whether that is all.
//! - A page is checked: no position is missing, and each digest follows from the one before.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gateway;
mod recent;
mod tail;
mod wire;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::{
    COMMIT_BYTES_MAX, Cell, Chance, Commit, Digest, Error, Journal, Mark, PAGE_BYTES_MAX, PAGE_RECORDS_MAX,
    Page, Record, Work,
};
use gateway::{Answered, CALL_TIME, Failed, Gateway};
use recent::Recent;
use wire::{Head, KeyValue, RECENT_MAX, Range, Transaction};

/// Commits that wait for the one under way; who comes later waits for a place.
const QUEUE_MAX: usize = 1_024;
/// Operations in each branch of a transaction, of the 128 that etcd takes: a head, an id, and so many others.
const OPERATIONS_MAX: usize = 120;
/// Records or cells asked for at once; their answer is asked for in parts when it is too long.
const FETCH_MAX: usize = 128;
/// Records that one transaction takes away: commits wait meanwhile.
const TRIM_MAX: u64 = 5_000;
/// Bytes of the prefix of keys.
const PREFIX_BYTES_MAX: usize = 256;

/// Where etcd is.
#[derive(Clone)]
pub struct Settings {
    /// Client URLs of its members, e.g. `https://etcd-1:2379`; port 2379 when it says none.
    pub endpoints: Vec<String>,
    /// What all keys begin with, so that several clusters can share an etcd: e.g. `perigee`. None may lie below another one.
    pub prefix: String,
    /// Certificates (PEM) that etcd's must come from; the system's when it is `None`.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key (PEM), for an etcd with `--client-cert-auth`. It proves that we may connect; who we are to etcd's
    /// roles says `user`. Beside roles, the gateway wants a certificate without a CommonName, as it would take no name from it.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Name and password, for an etcd with authentication.
    pub user: Option<(String, String)>,
}

/// A journal in etcd.
pub struct Etcd {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Waiting>,
    head: watch::Receiver<Found>,
    tail: AbortHandle,
}

struct Shared {
    gateway: Gateway,
    keys: Keys,
    id: String,
    /// What the watch has brought.
    recent: Mutex<Recent>,
}

/// What one transaction writes.
struct Written {
    request: Vec<u8>,
    /// Of each commit.
    positions: Vec<u64>,
    records: Vec<(Record, Digest)>,
    /// Afterwards.
    head: Head,
}

/// A commit and who waits for it.
struct Waiting {
    commit: Commit,
    answer: oneshot::Sender<Result<u64, Error>>,
}

impl Etcd {
    /// Finds the journal under the prefix, or begins one, with a name by chance. From within a tokio runtime, in which it lives.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no member answers in ten seconds; [`Error::Broken`] when settings, rights or keys are wrong.
    pub async fn open(settings: &Settings, chance: &Chance) -> Result<Self, Error> {
        let keys = Keys::new(&settings.prefix)?;
        let gateway = Gateway::new(settings, Arc::clone(chance))?;
        let id = begin(&gateway, &keys, format!("{:032x}", chance())).await?;
        let shared = Arc::new(Shared { gateway, keys, id, recent: Mutex::default() });
        let found = shared.head().await?;
        let (tell_head, head) = watch::channel(found.clone());
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let tail = tokio::spawn(tail::follow(Arc::clone(&shared), tell_head.clone())).abort_handle();
        let committer =
            Committer { shared: Arc::clone(&shared), found, tell_head, chance: Arc::clone(chance) };
        // It ends with the last sender, after it has done what it had.
        tokio::spawn(committer.run(queue));
        Ok(Etcd { shared, orders, head, tail })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.tail.abort();
    }
}

impl Journal for Etcd {
    fn id(&self) -> &str {
        &self.shared.id
    }

    fn commit(&self, commit: Commit) -> Work<'_, u64> {
        Box::pin(async move {
            commit.check()?;
            let ended =
                || Error::Unknown("the journal's writer has ended; see the log, and start again".into());
            let (answer, answered) = oneshot::channel();
            self.orders.send(Waiting { commit, answer }).await.map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        })
    }

    fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
        let limit = limit.clamp(1, PAGE_RECORDS_MAX);
        Box::pin(self.shared.read(after, limit))
    }

    fn heard(&self, after: Mark, limit: usize) -> Vec<Record> {
        self.shared.recent.lock().after(after, limit.clamp(1, PAGE_RECORDS_MAX))
    }

    fn changed(&self, after: u64) -> Work<'_, ()> {
        let mut head = self.head.clone();
        Box::pin(async move {
            let ended = |_| Error::Unavailable("the journal has been closed".into());
            head.wait_for(|found| found.head.mark.position > after).await.map(drop).map_err(ended)
        })
    }

    fn cell(&self, name: &str) -> Work<'_, Option<Cell>> {
        let name = name.to_owned();
        Box::pin(async move {
            let mut ranges = self.shared.ask(vec![wire::get(&self.shared.keys.cell(&name))]).await?;
            let found = ranges.pop().and_then(|mut range| range.kvs.pop());
            Ok(found.map(|kv| Cell { name, value: kv.value, version: kv.mod_revision }))
        })
    }

    fn cells(&self, prefix: &str) -> Work<'_, Vec<Cell>> {
        Box::pin(self.shared.cells(prefix.to_owned()))
    }

    fn trim(&self, through: u64) -> Work<'_, ()> {
        Box::pin(self.shared.trim(through))
    }
}

// --- Keys ---

struct Keys {
    prefix: String,
}

impl Keys {
    fn new(prefix: &str) -> Result<Keys, Error> {
        let trimmed = prefix.trim_end_matches('/');
        if trimmed.is_empty() || trimmed.len() > PREFIX_BYTES_MAX {
            return Err(Error::Broken(format!(
                "prefix {prefix:?} of keys in etcd; wanted are 1 to {PREFIX_BYTES_MAX} bytes, e.g. \"perigee\""
            )));
        }
        Ok(Keys { prefix: trimmed.to_owned() })
    }

    fn id(&self) -> Vec<u8> {
        format!("{}/id", self.prefix).into_bytes()
    }

    fn head(&self) -> Vec<u8> {
        format!("{}/head", self.prefix).into_bytes()
    }

    fn floor(&self) -> Vec<u8> {
        format!("{}/floor", self.prefix).into_bytes()
    }

    fn record(&self, position: u64) -> Vec<u8> {
        format!("{}/record/{position:016x}", self.prefix).into_bytes()
    }

    /// Above every record.
    fn records_end(&self) -> Vec<u8> {
        format!("{}/record0", self.prefix).into_bytes()
    }

    /// The position of a record's key.
    fn position(&self, key: &[u8]) -> Option<u64> {
        let hex = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b"/record/")?;
        u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
    }

    fn cell(&self, name: &str) -> Vec<u8> {
        format!("{}/cell/{name}", self.prefix).into_bytes()
    }
}

/// The first key above all that begin so. Ours end in UTF-8, whose bytes are below 0xff.
fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

// --- Opening and reading ---

/// The head as it was found.
#[derive(Clone)]
struct Found {
    head: Head,
    /// The same as it is written: no other commit has written it so.
    value: Vec<u8>,
    /// Of etcd, which wrote it.
    revision: u64,
    /// How often it was written.
    version: u64,
}

impl Found {
    fn clone_newer(&mut self, other: &Found) {
        if other.revision > self.revision {
            self.clone_from(other);
        }
    }

    fn read(kv: &KeyValue) -> Result<Found, String> {
        let head = Head::read(&kv.value)?;
        Ok(Found { head, value: kv.value.clone(), revision: kv.mod_revision, version: kv.version })
    }
}

/// The name of the journal that is there; else of a new one.
async fn begin(gateway: &Gateway, keys: &Keys, fresh: String) -> Result<String, Error> {
    let foreign =
        || Error::Broken(format!("key {}/id in etcd is not ours; choose another prefix", keys.prefix));
    let name = |range: &Range| match range.kvs.first().map(|kv| String::from_utf8(kv.value.clone())) {
        Some(Ok(id)) if !id.is_empty() => Ok(Some(id)),
        Some(_) => Err(foreign()),
        None => Ok(None),
    };
    let ask = serde_json::json!({ "key": wire::text(&keys.id()) }).to_string().into_bytes();
    let Answered { answer, .. } =
        gateway.call::<Range>("kv/range", ask.clone()).await.map_err(Failed::into_error)?;
    if let Some(id) = name(&answer)? {
        return Ok(id);
    }
    // A member that was wiped and started as a new etcd of its own knows no journal either.
    gateway.is_one("kv/range", &ask).await?;
    let mark = serde_json::json!(Mark::default()).to_string();
    let write = vec![
        wire::put(&keys.id(), fresh.as_bytes()),
        wire::put(&keys.head(), &Head::default().to_bytes()),
        wire::put(&keys.floor(), mark.as_bytes()),
    ];
    let request = wire::transaction(vec![wire::is_at(&keys.id(), 0)], write, vec![wire::get(&keys.id())]);
    let Answered { answer, .. } =
        gateway.call::<Transaction>("kv/txn", request).await.map_err(Failed::into_error)?;
    if answer.succeeded {
        return Ok(fresh);
    }
    // Somebody else has begun it just now, or it was us and the answer got lost.
    answer.into_ranges().first().map_or(Ok(None), name)?.ok_or_else(foreign)
}

impl Shared {
    /// What to do about keys that are not as we write them.
    fn damaged(&self, found: &str) -> Error {
        Error::Broken(format!(
            "the journal under {}/ in etcd is damaged: {found}; compare the members (`etcdctl endpoint hashkv --cluster`) and restore \
             a snapshot, or delete its keys to begin a new one, with which each node holds all that it has stored before for stale",
            self.keys.prefix
        ))
    }

    /// Makes sure that this is still the journal that was opened.
    fn same(&self, found: Option<&Range>) -> Result<(), Error> {
        let found = found.and_then(|range| range.kvs.first()).map(|kv| String::from_utf8_lossy(&kv.value));
        match found {
            Some(id) if id == self.id => Ok(()),
            Some(id) => Err(Error::Broken(format!(
                "journal {} was replaced by journal {id} under {}/ in etcd; start again to follow that one",
                self.id, self.keys.prefix
            ))),
            None => Err(self.damaged("its name is gone")),
        }
    }

    /// The ranges that some reading operations give, all at one revision of this journal.
    async fn try_ask(&self, operations: Vec<serde_json::Value>) -> Result<Vec<Range>, AskFailed> {
        let all = [vec![wire::get(&self.keys.id())], operations].concat();
        let wanted = all.len();
        let request = wire::transaction(vec![], all, vec![]);
        let Answered { answer, .. } = self.gateway.call::<Transaction>("kv/txn", request).await?;
        let mut ranges = answer.into_ranges();
        if ranges.len() != wanted {
            let found = ranges.len();
            return Err(AskFailed::Wrong(self.damaged(&format!("etcd gave {found} of {wanted} answers"))));
        }
        self.same(ranges.first()).map_err(AskFailed::Wrong)?;
        ranges.remove(0);
        Ok(ranges)
    }

    async fn ask(&self, operations: Vec<serde_json::Value>) -> Result<Vec<Range>, Error> {
        self.try_ask(operations).await.map_err(AskFailed::into_error)
    }

    async fn head(&self) -> Result<Found, Error> {
        let ranges = self.ask(vec![wire::get(&self.keys.head())]).await?;
        self.read_head(ranges.first())
    }

    fn read_head(&self, found: Option<&Range>) -> Result<Found, Error> {
        let kv = found.and_then(|range| range.kvs.first()).ok_or_else(|| self.damaged("its head is gone"))?;
        Found::read(kv).map_err(|found| self.damaged(&found))
    }

    fn read_floor(&self, found: &Range) -> Result<(Mark, u64), Error> {
        let kv = found.kvs.first().ok_or_else(|| self.damaged("its floor is gone"))?;
        let floor = serde_json::from_slice(&kv.value).map_err(|_| self.damaged("its floor is not ours"))?;
        Ok((floor, kv.mod_revision))
    }

    async fn read(&self, after: u64, limit: usize) -> Result<Page, Error> {
        let mut count = limit.min(FETCH_MAX);
        loop {
            // With the record at that position, for its digest, where it is still there.
            let range = wire::get_range(&self.keys.record(after), &self.keys.records_end(), count + 1, 0);
            match self.try_ask(vec![wire::get(&self.keys.floor()), range]).await {
                Ok(ranges) => return self.page(after, count, &ranges),
                Err(AskFailed::Failed(Failed::TooLong)) if count > 1 => count /= 4,
                Err(failed) => return Err(failed.into_error()),
            }
            count = count.max(1);
        }
    }

    fn page(&self, after: u64, limit: usize, ranges: &[Range]) -> Result<Page, Error> {
        let [floor, records] = ranges else { return Err(self.damaged("etcd left an answer out")) };
        let (floor, _) = self.read_floor(floor)?;
        if after < floor.position {
            return Err(Error::Trimmed(floor));
        }
        let mut kvs = records.kvs.iter();
        let mut mark = floor;
        if after > floor.position {
            // Nothing there: whoever asks is ahead of the journal.
            let Some(first) = kvs.next() else {
                return Ok(Page { records: vec![], has_more: false, floor });
            };
            mark = Mark { position: after, digest: self.record(first, after)?.0 };
        }
        let (mut page, mut bytes) = (Vec::new(), 0);
        for kv in kvs {
            if page.len() == limit || bytes >= PAGE_BYTES_MAX {
                return Ok(Page { records: page, has_more: true, floor });
            }
            let (digest, text) = self.record(kv, mark.position.saturating_add(1))?;
            let record = Record { position: mark.position.saturating_add(1), text: text.into() };
            mark = mark.then(&record);
            if mark.digest != digest {
                return Err(self
                    .damaged(&format!("the record at position {} is not what was written", mark.position)));
            }
            bytes += record.text.len();
            page.push(record);
        }
        Ok(Page { records: page, has_more: records.more, floor })
    }

    /// A record that must be the one at a position.
    fn record<'a>(&self, kv: &'a KeyValue, position: u64) -> Result<(crate::Digest, &'a str), Error> {
        if kv.key != self.keys.record(position) {
            let found = String::from_utf8_lossy(&kv.key);
            return Err(
                self.damaged(&format!("the record at position {position} is missing, next is {found}"))
            );
        }
        wire::read_record(&kv.value)
            .ok_or_else(|| self.damaged(&format!("the record at position {position} is not ours")))
    }

    async fn cells(&self, prefix: String) -> Result<Vec<Cell>, Error> {
        let before = self.keys.cell("").len();
        let end = end_of(self.keys.cell(&prefix));
        'anew: loop {
            let (mut cells, mut from, mut count, mut revision) =
                (Vec::new(), self.keys.cell(&prefix), FETCH_MAX, 0);
            loop {
                // All parts as of the revision of the first.
                let range = match self.try_ask(vec![wire::get_range(&from, &end, count, revision)]).await {
                    Ok(mut ranges) => ranges.remove(0),
                    Err(AskFailed::Failed(Failed::TooLong)) if count > 1 => {
                        count = (count / 4).max(1);
                        continue;
                    }
                    Err(AskFailed::Failed(Failed::Compacted)) => continue 'anew,
                    Err(failed) => return Err(failed.into_error()),
                };
                if revision == 0 {
                    revision = range.header.revision;
                }
                let Some(last) = range.kvs.last() else { return Ok(cells) };
                from = [&last.key[..], &[0]].concat();
                for kv in range.kvs {
                    let name = kv.key.get(before..).and_then(|name| std::str::from_utf8(name).ok());
                    let name = name.ok_or_else(|| self.damaged("a cell's name is no text"))?.to_owned();
                    cells.push(Cell { name, value: kv.value, version: kv.mod_revision });
                }
                if !range.more {
                    return Ok(cells);
                }
            }
        }
    }

    async fn trim(&self, through: u64) -> Result<(), Error> {
        let deadline = Instant::now() + CALL_TIME;
        loop {
            let ranges = self.ask(vec![wire::get(&self.keys.head()), wire::get(&self.keys.floor())]).await?;
            let [head, floor] = &ranges[..] else { return Err(self.damaged("etcd left an answer out")) };
            let (head, (floor, known)) = (self.read_head(Some(head))?.head, self.read_floor(floor)?);
            let target = through.min(head.mark.position).min(floor.position.saturating_add(TRIM_MAX));
            if target <= floor.position {
                return Ok(());
            }
            let ranges = self.ask(vec![wire::get(&self.keys.record(target))]).await?;
            // Another one may have trimmed past it meanwhile.
            if let Some(kv) = ranges.first().and_then(|range| range.kvs.first()) {
                let mark = Mark { position: target, digest: self.record(kv, target)?.0 };
                let floor = serde_json::json!(mark).to_string();
                let success = vec![
                    wire::put(&self.keys.floor(), floor.as_bytes()),
                    wire::delete(&self.keys.record(0), Some(&self.keys.record(target.saturating_add(1)))),
                ];
                let compare = vec![wire::is_at(&self.keys.floor(), known)];
                let request = wire::transaction(compare, success, vec![]);
                self.gateway.call::<Transaction>("kv/txn", request).await.map_err(Failed::into_error)?;
            } else if Instant::now() > deadline {
                return Err(self.damaged(&format!("the record at position {target} is missing")));
            }
        }
    }
}

enum AskFailed {
    Failed(Failed),
    Wrong(Error),
}

impl From<Failed> for AskFailed {
    fn from(failed: Failed) -> Self {
        AskFailed::Failed(failed)
    }
}

impl AskFailed {
    fn into_error(self) -> Error {
        match self {
            AskFailed::Failed(failed) => failed.into_error(),
            AskFailed::Wrong(error) => error,
        }
    }
}

// --- Writing ---

/// Writes one transaction after the other.
struct Committer {
    shared: Arc<Shared>,
    /// The head that we know; the truth may have moved on.
    found: Found,
    tell_head: watch::Sender<Found>,
    chance: Chance,
}

impl Committer {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(waiting) => waiting,
                None => match queue.recv().await {
                    Some(waiting) => waiting,
                    None => return,
                },
            };
            let mut load = Load::default();
            load.take(&first.commit);
            let mut batch = vec![first];
            while let Ok(waiting) = queue.try_recv() {
                if !load.take(&waiting.commit) {
                    next = Some(waiting);
                    break;
                }
                batch.push(waiting);
            }
            self.write(batch).await;
        }
    }

    /// Until each has its answer.
    async fn write(&mut self, mut batch: Vec<Waiting>) {
        // Who asked and is gone was not told anything: nothing needs to be written.
        batch.retain(|waiting| !waiting.answer.is_closed());
        let name = format!("{:016x}", (self.chance)() & u128::from(u64::MAX));
        let deadline = Instant::now() + CALL_TIME;
        // What another control has written is mostly known by now: else the first try would be in vain.
        self.found.clone_newer(&self.tell_head.borrow());
        while !batch.is_empty() {
            let Written { request, positions, records, head } = self.transaction(&batch, &name);
            let Answered { answer, is_uncertain } =
                match self.shared.gateway.call::<Transaction>("kv/txn", request).await {
                    Ok(answered) => answered,
                    Err(Failed::Error { error, is_uncertain: false }) => return give_up(batch, &error),
                    Err(failed) => return give_up(batch, &failed.into_unknown()),
                };
            if answer.succeeded {
                self.found = Found {
                    value: head.to_bytes(),
                    head,
                    revision: answer.header.revision,
                    version: self.found.version + 1,
                };
                self.shared.recent.lock().wrote(records);
                return self.acknowledge(batch, positions);
            }
            let ranges = answer.into_ranges();
            let found = self.shared.same(ranges.first()).and_then(|()| self.shared.read_head(ranges.get(1)));
            let found = match found {
                Ok(found) => found,
                Err(error) => return give_up(batch, &error),
            };
            let others = found.version.saturating_sub(self.found.version);
            self.found = found;
            self.tell();
            if self.found.head.recent.contains(&name) {
                return self.acknowledge(batch, positions);
            }
            if is_uncertain && others >= RECENT_MAX as u64 {
                let why = format!(
                    "{others} others committed before etcd answered; read whether yours is among them"
                );
                return give_up(batch, &Error::Unknown(why));
            }
            refuse_conflicts(&mut batch, &ranges[2..]);
            if Instant::now() > deadline {
                let why = format!("others committed first for {} s; try again", CALL_TIME.as_secs());
                return give_up(batch, &Error::Unavailable(why));
            }
        }
    }

    fn transaction(&self, batch: &[Waiting], name: &str) -> Written {
        let keys = &self.shared.keys;
        let mut mark = self.found.head.mark;
        let mut compare = vec![
            wire::is_value(&keys.id(), self.shared.id.as_bytes()),
            // Not by its revision, which an etcd that was restored counts once more.
            wire::is_value(&keys.head(), &self.found.value),
        ];
        let mut failure = vec![wire::get(&keys.id()), wire::get(&keys.head())];
        let (mut success, mut positions, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for Waiting { commit, .. } in batch {
            for (cell, version) in &commit.expect {
                compare.push(wire::is_at(&keys.cell(cell), *version));
                failure.push(wire::get_revision(&keys.cell(cell)));
            }
            for (cell, value) in &commit.cells {
                success.push(match value {
                    Some(value) => wire::put(&keys.cell(cell), value),
                    None => wire::delete(&keys.cell(cell), None),
                });
            }
            positions.push(match &commit.record {
                None => 0,
                Some(text) => {
                    let record =
                        Record { position: mark.position.saturating_add(1), text: text.as_str().into() };
                    mark = mark.then(&record);
                    success
                        .push(wire::put(&keys.record(mark.position), &wire::record_value(mark.digest, text)));
                    records.push((record, mark.digest));
                    mark.position
                }
            });
        }
        let head = self.found.head.then(mark, name);
        success.push(wire::put(&keys.head(), &head.to_bytes()));
        Written { request: wire::transaction(compare, success, failure), positions, records, head }
    }

    /// Tells of the head that was written or found, unless the watch is about to, with the records.
    fn tell(&self) {
        if self.shared.recent.lock().reaches(self.found.head.mark.position) {
            tail::tell(&self.tell_head, &self.found);
        }
    }

    fn acknowledge(&self, batch: Vec<Waiting>, positions: Vec<u64>) {
        self.tell();
        batch
            .into_iter()
            .zip(positions)
            .for_each(|(waiting, position)| _ = waiting.answer.send(Ok(position)));
    }
}

fn give_up(batch: Vec<Waiting>, error: &Error) {
    batch.into_iter().for_each(|waiting| _ = waiting.answer.send(Err(error.clone())));
}

/// Takes out those that expect what is not so, given the ranges of all that the batch expects.
fn refuse_conflicts(batch: &mut Vec<Waiting>, ranges: &[Range]) {
    let mut ranges = ranges.iter();
    let mut kept = Vec::new();
    for waiting in batch.drain(..) {
        let mut conflict = None;
        for (cell, version) in &waiting.commit.expect {
            let found = ranges.next().and_then(|range| range.kvs.first()).map_or(0, |kv| kv.mod_revision);
            if found != *version && conflict.is_none() {
                conflict = Some(cell.clone());
            }
        }
        match conflict {
            Some(cell) => _ = waiting.answer.send(Err(Error::Conflict(cell))),
            None => kept.push(waiting),
        }
    }
    *batch = kept;
}

/// What a transaction has taken so far.
#[derive(Default)]
struct Load {
    expected: usize,
    written: usize,
    bytes: usize,
    cells: HashSet<String>,
}

impl Load {
    /// Whether one more commit fits; if so, it is in. Of those in one transaction, none may touch a cell that another one writes:
    /// etcd compares before it writes, and takes one value for a key.
    fn take(&mut self, commit: &Commit) -> bool {
        let expected = self.expected + commit.expect.len();
        let written = self.written + commit.cells.len() + 1;
        let names =
            || commit.expect.iter().map(|(name, _)| name).chain(commit.cells.iter().map(|(name, _)| name));
        let values = commit.cells.iter().map(|(_, value)| value.as_ref().map_or(0, Vec::len));
        let text = commit.record.as_ref().map_or(0, String::len);
        let bytes = self.bytes + text + values.sum::<usize>() + names().map(String::len).sum::<usize>();
        let is_first = self.written == 0;
        let fits = expected <= OPERATIONS_MAX && written <= OPERATIONS_MAX && bytes <= COMMIT_BYTES_MAX;
        if !is_first && (!fits || names().any(|name| self.cells.contains(name))) {
            return false;
        }
        self.cells.extend(commit.cells.iter().map(|(name, _)| name.clone()));
        (self.expected, self.written, self.bytes) = (expected, written, bytes);
        true
    }
}
