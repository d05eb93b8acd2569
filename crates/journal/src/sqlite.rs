//! The journal of one machine: an SQLite file, written by one thread, read by several.
//!
//! ```text
//! commit, trim ─► bounded queue ─► writer thread: what has gathered becomes one transaction, synced once ─► answers
//! read, cell, cells ─► a connection of its own each, up to READERS_MAX at a time
//! ```
//!
//! WAL with `synchronous=FULL`: an acknowledged commit has been synced. One counter gives positions and versions, so that
//! neither ever comes twice. Each record carries the digest up to it, and every page that is read is checked against these: SQLite
//! has no sums of its own. The file belongs to one process, by a lock (flock) on `FILE.lock`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::{
    Cell, Chance, Commit, Digest, Error, Journal, Mark, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Page, Record, Work,
};

/// Commits that wait for the writer; who comes later waits for a place.
const QUEUE_MAX: usize = 1_024;
/// Commits in one transaction, at most: what one sync is shared by, and what one full disk takes with it.
const GROUP_MAX: usize = 256;
/// Reads at a time; each is a thread of the runtime's and an open file.
const READERS_MAX: usize = 4;
/// Records that one transaction takes away: commits wait meanwhile.
const TRIM_MAX: u64 = 5_000;
/// Marks the file as ours: "PJnl".
const APPLICATION_ID: i64 = 0x504a_6e6c;
/// The tables' version.
const SCHEMA: i64 = 1;
const TABLES: &str = "
    CREATE TABLE journal (
        only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT NOT NULL, counter INTEGER NOT NULL,
        floor_position INTEGER NOT NULL, floor_digest BLOB NOT NULL);
    CREATE TABLE record (position INTEGER PRIMARY KEY, digest BLOB NOT NULL, text TEXT NOT NULL);
    CREATE TABLE cell (name BLOB PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL);";

/// A journal in a file.
pub struct Sqlite {
    id: String,
    orders: Option<mpsc::Sender<Order>>,
    head: watch::Receiver<u64>,
    readers: Arc<Readers>,
    writer: Option<JoinHandle<()>>,
    /// Given back last, when the writer has ended.
    _lock: File,
}

enum Order {
    Commit(Commit, oneshot::Sender<Result<u64, Error>>),
    Trim(u64, oneshot::Sender<Result<(), Error>>),
}

impl Sqlite {
    /// Opens the journal in `path`, or begins a new one, with a name by chance. Blocks, as it reads the whole file once,
    /// to see that it is sound.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when another process has it open or the file cannot be opened; [`Error::Broken`] when it is damaged or
    /// of a newer version.
    pub fn open(path: &Path, chance: &Chance) -> Result<Self, Error> {
        let lock = lock(path)?;
        let place = Place(path.into());
        // SQLite gives its other files the same mode: what is in them, nobody else is to read.
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(
            |error| {
                Error::Unavailable(format!(
                    "{}: {error}; its directory must exist and be writable",
                    path.display()
                ))
            },
        )?;
        let (connection, id, state) = begin(&place, chance)?;
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let (tell_head, head) = watch::channel(state.head.position);
        let writer = Writer { connection, place: place.clone(), state, head: tell_head };
        let writer = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| Error::Unavailable(format!("no thread for the journal's writer: {error}")))?;
        let readers = Readers { place, idle: Mutex::default(), permits: Semaphore::new(READERS_MAX) };
        Ok(Sqlite {
            id,
            orders: Some(orders),
            head,
            readers: Arc::new(readers),
            writer: Some(writer),
            _lock: lock,
        })
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Order,
    ) -> Result<T, Error> {
        let ended = || Error::Unknown("the journal's writer has ended; see the log, and start again".into());
        let (answer, answered) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or_else(ended)?;
        orders.send(order(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Transaction<'_>, &Place) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let readers = Arc::clone(&self.readers);
        let ended = |_| Error::Unavailable("reading was broken off".into());
        let _permit = self.readers.permits.acquire().await.map_err(|_| Error::Unavailable("ended".into()))?;
        tokio::task::spawn_blocking(move || readers.ask(question)).await.map_err(ended)?
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // The last one to close a file of SQLite's clears its log away, if it may write.
        self.readers.idle.lock().clear();
        // The writer finishes what it has, so that who opens the file next finds it closed.
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Journal for Sqlite {
    fn id(&self) -> &str {
        &self.id
    }

    fn commit(&self, commit: Commit) -> Work<'_, u64> {
        Box::pin(async move {
            commit.check()?;
            self.order(|answer| Order::Commit(commit, answer)).await
        })
    }

    fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
        Box::pin(self.ask(move |tx, place| read_page(tx, place, after, limit.clamp(1, PAGE_RECORDS_MAX))))
    }

    fn changed(&self, after: u64) -> Work<'_, ()> {
        let mut head = self.head.clone();
        Box::pin(async move {
            let ended = |_| Error::Unavailable("the journal's writer has ended".into());
            head.wait_for(|head| *head > after).await.map(drop).map_err(ended)
        })
    }

    fn cell(&self, name: &str) -> Work<'_, Option<Cell>> {
        let name = name.to_owned();
        Box::pin(self.ask(move |tx, place| {
            let sql = "SELECT version, value FROM cell WHERE name = ?1";
            tx.prepare_cached(sql)
                .and_then(|mut rows| {
                    rows.query_row([name.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
                })
                .map(|found| found.map(|(version, value)| Cell { name, value, version }))
                .map_err(|error| place.error(&error))
        }))
    }

    fn cells(&self, prefix: &str) -> Work<'_, Vec<Cell>> {
        let prefix = prefix.as_bytes().to_owned();
        Box::pin(self.ask(move |tx, place| {
            // The names from the prefix on, in order, as long as they have it: no name in UTF-8 needs an upper end.
            let sql = "SELECT name, version, value FROM cell WHERE name >= ?1 ORDER BY name";
            let mut select = tx.prepare_cached(sql).map_err(|error| place.error(&error))?;
            let mut rows = select.query([&prefix]).map_err(|error| place.error(&error))?;
            let mut cells = Vec::new();
            while let Some(row) = rows.next().map_err(|error| place.error(&error))? {
                let cell = || Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?));
                let (name, version, value) = cell().map_err(|error| place.error(&error))?;
                if !name.starts_with(&prefix) {
                    break;
                }
                let name = String::from_utf8(name).map_err(|_| place.damaged("a cell's name is no text"))?;
                cells.push(Cell { name, value, version });
            }
            Ok(cells)
        }))
    }

    fn trim(&self, through: u64) -> Work<'_, ()> {
        Box::pin(self.order(move |answer| Order::Trim(through, answer)))
    }
}

// --- Opening ---

/// Takes the file for this process, and writes down which one that is.
fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let unusable = |error| {
        Error::Unavailable(format!("{}: {error}; its directory must exist and be writable", name.display()))
    };
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
    let mut file = opened.map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&file).take(20).read_to_string(&mut holder);
            let (path, holder) = (path.display(), holder.trim());
            return Err(Error::Unavailable(format!(
                "{path} is open in another process (id {holder:?}), and belongs to one at a time; \
                 stop that one, or keep the journal in etcd"
            )));
        }
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // For people only; on a full disk the journal can still be read.
    let _ = write(&mut file);
    Ok(file)
}

fn begin(place: &Place, chance: &Chance) -> Result<(Connection, String, State), Error> {
    let wrong = |error| place.error(&error);
    let mut connection = Connection::open(&place.0).map_err(wrong)?;
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, schema) =
        (pragma("application_id").map_err(wrong)?, pragma("user_version").map_err(wrong)?);
    match (application, schema) {
        (0, 0) | (APPLICATION_ID, SCHEMA) => {}
        (APPLICATION_ID, newer) => {
            return Err(Error::Broken(format!(
                "{}: its tables have version {newer}, this program knows {SCHEMA}; start the newer program",
                place.0.display()
            )));
        }
        _ => {
            return Err(Error::Broken(format!(
                "{}: an SQLite file of another program; name another",
                place.0.display()
            )));
        }
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(wrong)?;
    if mode != "wal" {
        return Err(Error::Broken(format!(
            "{}: its file system allows SQLite no WAL (it stays in mode {mode:?}); put it on a local disk",
            place.0.display()
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(wrong)?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrong)?;
    if sound != "ok" {
        return Err(place.damaged(&sound));
    }
    if application == 0 {
        let create = || {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(TABLES)?;
            let row = params![format!("{:032x}", chance()), Digest::default().0];
            tx.execute("INSERT INTO journal VALUES (1, ?1, 0, 0, ?2)", row)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", SCHEMA)?;
            tx.commit()
        };
        let mut create = create;
        create().map_err(wrong)?;
    }
    let id = connection.query_row("SELECT id FROM journal", [], |row| row.get(0)).map_err(wrong)?;
    let state = State::load(&connection).map_err(wrong)?;
    Ok((connection, id, state))
}

/// Where the journal is, for messages.
#[derive(Clone)]
struct Place(PathBuf);

impl Place {
    fn damaged(&self, found: &str) -> Error {
        Error::Broken(format!(
            "{} is damaged: {found}; put a copy in its place, or move it away to begin a new journal, with which each node \
             holds all that it has stored before for stale",
            self.0.display()
        ))
    }

    fn error(&self, error: &rusqlite::Error) -> Error {
        let path = self.0.display();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => self.damaged(&error.to_string()),
            Some(ErrorCode::DiskFull) => {
                Error::Unavailable(format!("{path}: its disk is full; make room on it"))
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                Error::Unavailable(format!("{path}: {error}; the file and its directory must be writable"))
            }
            Some(ErrorCode::SystemIoFailure) => {
                Error::Unavailable(format!("{path}: {error}; look at its disk"))
            }
            // A table or column that is not there, a value of another type: nobody but us writes these tables.
            None => self.damaged(&error.to_string()),
            Some(_) => Error::Unavailable(format!("{path}: {error}")),
        }
    }
}

// --- Writing ---

struct Writer {
    connection: Connection,
    place: Place,
    state: State,
    head: watch::Sender<u64>,
}

/// What the writer knows without asking.
#[derive(Clone, Copy)]
struct State {
    /// The last position or version that was given.
    counter: u64,
    /// The last record.
    head: Mark,
}

impl State {
    fn load(connection: &Connection) -> rusqlite::Result<State> {
        let counter = connection.query_row("SELECT counter FROM journal", [], |row| row.get(0))?;
        Ok(State { counter, head: mark_at(connection, u64::MAX >> 1)? })
    }
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        let mut group = Vec::new();
        while let Some(mut order) = queue.blocking_recv() {
            loop {
                match order {
                    Order::Commit(commit, answer) => group.push((commit, answer)),
                    Order::Trim(through, answer) => {
                        self.write(&mut group);
                        let _ = answer.send(self.trim(through).map_err(|error| self.place.error(&error)));
                    }
                }
                match queue.try_recv() {
                    Ok(next) if group.len() < GROUP_MAX => order = next,
                    Ok(next) => {
                        self.write(&mut group);
                        order = next;
                    }
                    Err(_) => break,
                }
            }
            self.write(&mut group);
        }
    }

    /// One transaction for all of them.
    fn write(&mut self, group: &mut Vec<(Commit, oneshot::Sender<Result<u64, Error>>)>) {
        if group.is_empty() {
            return;
        }
        let (state, outcome) = self.transact(group);
        match &outcome {
            Ok(_) => self.state = state,
            // Whatever became of it, the file says what is so.
            Err(_) => {
                if let Ok(state) = State::load(&self.connection) {
                    self.state = state;
                }
            }
        }
        self.head.send_if_modified(|head| {
            std::mem::replace(head, self.state.head.position) != self.state.head.position
        });
        match outcome {
            Ok(results) => {
                group.drain(..).zip(results).for_each(|((_, answer), result)| _ = answer.send(result));
            }
            Err(error) => group.drain(..).for_each(|(_, answer)| _ = answer.send(Err(error.clone()))),
        }
    }

    /// The state afterwards, and the outcome of all or of each.
    fn transact(
        &mut self,
        group: &[(Commit, oneshot::Sender<Result<u64, Error>>)],
    ) -> (State, Result<Vec<Result<u64, Error>>, Error>) {
        let mut state = self.state;
        let mut attempt = || {
            let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let results = group.iter().map(|(commit, _)| apply(&tx, &mut state, commit));
            let results = results.collect::<rusqlite::Result<Vec<_>>>()?;
            tx.execute("UPDATE journal SET counter = ?1", [state.counter])?;
            Ok::<_, rusqlite::Error>((tx.commit(), results))
        };
        let outcome = match attempt() {
            Ok((Ok(()), results)) => Ok(results),
            // The sync may have failed after all was written: then a crash could bring it back.
            Ok((Err(error), _)) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => {
                Err(Error::Unknown(format!("{}: {error}; look at its disk", self.place.0.display())))
            }
            Ok((Err(error), _)) | Err(error) => Err(self.place.error(&error)),
        };
        (state, outcome)
    }

    fn trim(&mut self, through: u64) -> rusqlite::Result<()> {
        loop {
            let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let sql = "SELECT max(position) FROM (SELECT position FROM record WHERE position <= ?1 ORDER BY position LIMIT ?2)";
            let through = i64::try_from(through).unwrap_or(i64::MAX);
            let Some(last) =
                tx.query_row(sql, params![through, TRIM_MAX], |row| row.get::<_, Option<u64>>(0))?
            else {
                return Ok(());
            };
            let Mark { position, digest } = mark_at(&tx, last)?;
            tx.execute(
                "UPDATE journal SET floor_position = ?1, floor_digest = ?2",
                params![position, digest.0],
            )?;
            tx.execute("DELETE FROM record WHERE position <= ?1", [last])?;
            tx.commit()?;
        }
    }
}

fn apply(tx: &Transaction<'_>, state: &mut State, commit: &Commit) -> rusqlite::Result<Result<u64, Error>> {
    for (name, wanted) in &commit.expect {
        let mut select = tx.prepare_cached("SELECT version FROM cell WHERE name = ?1")?;
        let version = select.query_row([name.as_bytes()], |row| row.get::<_, u64>(0)).optional()?;
        if version.unwrap_or(0) != *wanted {
            return Ok(Err(Error::Conflict(name.clone())));
        }
    }
    state.counter += 1;
    for (name, value) in &commit.cells {
        let name = name.as_bytes();
        match value {
            Some(value) => tx
                .prepare_cached("INSERT OR REPLACE INTO cell VALUES (?1, ?2, ?3)")?
                .execute(params![name, state.counter, value])?,
            None => tx.prepare_cached("DELETE FROM cell WHERE name = ?1")?.execute([name])?,
        };
    }
    let Some(text) = &commit.record else { return Ok(Ok(0)) };
    state.head = state.head.then(&Record { position: state.counter, text: text.as_str().into() });
    tx.prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3)")?.execute(params![
        state.counter,
        state.head.digest.0,
        text
    ])?;
    Ok(Ok(state.counter))
}

// --- Reading ---

struct Readers {
    place: Place,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    fn ask<T>(
        &self,
        question: impl FnOnce(&Transaction<'_>, &Place) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let idle = self.idle.lock().pop();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                Connection::open_with_flags(&self.place.0, flags).map_err(|error| self.place.error(&error))?
            }
        };
        let tx = connection.transaction().map_err(|error| self.place.error(&error))?;
        let answer = question(&tx, &self.place);
        drop(tx);
        self.idle.lock().push(connection);
        answer
    }
}

fn read_page(tx: &Transaction<'_>, place: &Place, after: u64, limit: usize) -> Result<Page, Error> {
    let wrong = |error| place.error(&error);
    let floor = floor(tx).map_err(wrong)?;
    if after < floor.position {
        return Err(Error::Trimmed(floor));
    }
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut mark = mark_at(tx, after as u64).map_err(wrong)?;
    let sql = "SELECT position, digest, text FROM record WHERE position > ?1 ORDER BY position";
    let mut select = tx.prepare_cached(sql).map_err(wrong)?;
    let mut rows = select.query([after]).map_err(wrong)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(wrong)? {
        if records.len() == limit || bytes >= PAGE_BYTES_MAX {
            return Ok(Page { records, has_more: true, floor });
        }
        let columns = || Ok((row.get(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, String>(2)?));
        let (position, digest, text) = columns().map_err(wrong)?;
        let record = Record { position, text: text.into() };
        mark = mark.then(&record);
        if mark.digest.0 != digest {
            return Err(place.damaged(&format!("the record at position {position} is not what was written")));
        }
        bytes += record.text.len();
        records.push(record);
    }
    Ok(Page { records, has_more: false, floor })
}

fn floor(connection: &Connection) -> rusqlite::Result<Mark> {
    let sql = "SELECT floor_position, floor_digest FROM journal";
    connection.prepare_cached(sql)?.query_row([], read_mark)
}

/// The last record up to a position, or the floor.
fn mark_at(connection: &Connection, position: u64) -> rusqlite::Result<Mark> {
    let sql = "SELECT position, digest FROM record WHERE position <= ?1 ORDER BY position DESC LIMIT 1";
    match connection.prepare_cached(sql)?.query_row([position], read_mark).optional()? {
        Some(mark) => Ok(mark),
        None => floor(connection),
    }
}

fn read_mark(row: &rusqlite::Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark { position: row.get(0)?, digest: Digest(row.get(1)?) })
}
