//! The database: buckets by step, view and time; names; what has been counted already. One writer, and readers of their own.

use std::collections::HashMap;
use std::path::Path;

use journal::feed::Statistics;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use stats::report::Damaged;

use super::cells::{Bucket, Coord, Dims, Sums};
use super::seen::{Lives, Seen};
use super::{KEPT, NAMES_BEFORE_PATHS_MAX, NAMES_MAX, Names, STEPS, VIEWS, rum, top};

/// Connections that are kept for queries. More come and go.
pub(super) const READERS_MAX: usize = 4;

/// How long a bucket stays open before it is summed up, in s. What comes later costs one more write, and nothing else.
const GRACE: i64 = 10;

/// How long a life of a node's program is remembered after its last word, in s: longer than anybody keeps what it has said.
const LIFE_KEPT: i64 = 86_400;

/// Buckets that are summed up in one go, so that lines do not wait for long behind it.
const ROLLED_TOGETHER_MAX: usize = 10;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS buckets (
    step INTEGER NOT NULL, view INTEGER NOT NULL, at INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (step, view, at)
) STRICT;
CREATE TABLE IF NOT EXISTS rolled (step INTEGER PRIMARY KEY, until INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS seen (
    node TEXT NOT NULL, epoch INTEGER NOT NULL, numbers BLOB NOT NULL, lost INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (node, epoch)
) STRICT;
";

/// The form of what is in it. Another one is begun anew: statistics are no configuration.
const FORM: i64 = 1;

/// The writer.
pub(super) struct Database {
    connection: Connection,
    lives: Lives,
    rolled: [i64; STEPS.len()],
}

/// For queries.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    // What is looked at again and again is some tens of MiB; the system has the rest.
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
    Ok(connection)
}

/// Up to where the buckets of each step have been summed up into the next one.
pub(super) fn rolled(connection: &Connection) -> rusqlite::Result<[i64; STEPS.len()]> {
    let mut rolled = [0; STEPS.len()];
    let mut statement = connection.prepare_cached("SELECT step, until FROM rolled")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    for row in rows {
        let (step, until) = row?;
        if let Some(place) = usize::try_from(step).ok().and_then(|step| rolled.get_mut(step)) {
            *place = until;
        }
    }
    Ok(rolled)
}

/// The views of which there are buckets of a step. Each costs one look at the index, however many buckets it has.
fn views(connection: &Connection, step: usize) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached(
            "WITH RECURSIVE found (view) AS (
                 SELECT MIN(view) FROM buckets WHERE step = ?1
                 UNION ALL
                 SELECT (SELECT MIN(view) FROM buckets WHERE step = ?1 AND view > found.view) FROM found
                 WHERE found.view IS NOT NULL
             ) SELECT view FROM found WHERE view IS NOT NULL",
        )?
        .query_map([step as i64], |row| row.get(0))?
        .collect()
}

/// Whether this version can add up the buckets of a view. Those of a newer one, which has run here before, are left alone, and forgotten
/// when their time has come: they must not keep the others from being summed up.
fn is_known(view: i64) -> bool {
    top::is_list(view) || rum::is_rum(view) || VIEWS.iter().any(|known| i64::from(known.0) == view)
}

impl Database {
    pub(super) fn open(path: &Path, names: &mut Names) -> rusqlite::Result<Database> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // What was confirmed is safe from a loss of power: one sync for each transaction, two or three a second.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -32 * 1024)?;
        let form: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if form != FORM {
            if form != 0 {
                eprintln!(
                    "perigee: {} has statistics in the form {form}, and this version writes {FORM}: they are begun anew",
                    path.display()
                );
            }
            connection.execute_batch(
                "DROP TABLE IF EXISTS names; DROP TABLE IF EXISTS buckets; DROP TABLE IF EXISTS rolled; DROP TABLE IF EXISTS seen;",
            )?;
        }
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", FORM)?;
        let mut lives = Lives::new();
        {
            let mut statement = connection.prepare("SELECT id, text FROM names")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            for row in rows {
                let (number, text) = row?;
                names.insert(number, &text);
            }
            let mut statement = connection.prepare("SELECT node, epoch, numbers, lost, at FROM seen")?;
            let rows = statement.query_map([], |row| {
                let key = (row.get(0)?, row.get::<_, i64>(1)? as u64);
                let (numbers, lost): (Vec<u8>, i64) = (row.get(2)?, row.get(3)?);
                Ok((key, Seen::read(&numbers, lost as u64, row.get(4)?)))
            })?;
            for row in rows {
                let (key, seen) = row?;
                lives.insert(key, seen);
            }
        }
        let rolled = rolled(&connection)?;
        Ok(Database { connection, lives, rolled })
    }

    #[cfg(feature = "measure")]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A number that a statement with a time finds.
    #[cfg(test)]
    pub(super) fn count(&self, statement: &str, at: i64) -> i64 {
        self.connection.query_row(statement, [at], |row| row.get(0)).unwrap_or(-1)
    }

    /// Begins a transaction.
    pub(super) fn begin<'a>(&'a mut self, names: &'a Mutex<Names>) -> rusqlite::Result<Work<'a>> {
        Ok(Work {
            transaction: self.connection.transaction()?,
            lives: &mut self.lives,
            changed: HashMap::new(),
            rolled: self.rolled,
            names,
            new_names: Vec::new(),
        })
    }

    /// Sums up what is over, and forgets what is old; of much, a part. Returns whether there is more to sum up.
    pub(super) fn keep_house(&mut self, now: i64) -> rusqlite::Result<bool> {
        let mut has_more = false;
        for step in 0..STEPS.len() - 1 {
            let next = STEPS[step + 1];
            let until = (now - GRACE).div_euclid(next) * next;
            // What is not in these buckets yet cannot be summed up from them.
            let until =
                if step == 0 { until } else { until.min(self.rolled[step - 1].div_euclid(next) * next) };
            let mut rolled = 0;
            while self.rolled[step] < until && rolled < ROLLED_TOGETHER_MAX {
                self.roll(step, until)?;
                rolled += 1;
            }
            has_more |= rolled > 0;
        }
        self.forget(now)?;
        Ok(has_more)
    }

    /// Sums up the first buckets that have not been, as far as one of the next step reaches.
    fn roll(&mut self, step: usize, until: i64) -> rusqlite::Result<()> {
        let next = STEPS[step + 1];
        let transaction = self.connection.transaction()?;
        let views: Vec<i64> = views(&transaction, step)?.into_iter().filter(|view| is_known(*view)).collect();
        let mut first = None;
        for view in &views {
            let found: Option<i64> = transaction
                .prepare_cached("SELECT MIN(at) FROM buckets WHERE step = ?1 AND view = ?2 AND at >= ?3")?
                .query_row(params![step as i64, view, self.rolled[step]], |row| row.get(0))?;
            first = first.into_iter().chain(found).min();
        }
        let begin = first.map_or(until, |first| first.div_euclid(next) * next);
        let mut rolled = self.rolled;
        rolled[step] = until;
        if begin < until {
            let end = begin + next;
            rolled[step] = end;
            for view in views {
                let rows: Vec<Vec<u8>> = transaction
                    .prepare_cached(
                        "SELECT content FROM buckets WHERE step = ?1 AND view = ?2 AND at >= ?3 AND at < ?4",
                    )?
                    .query_map(params![step as i64, view, begin, end], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                if !rows.is_empty() {
                    let contents: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
                    add(&transaction, &rolled, step + 1, view, begin, &contents)?;
                }
            }
        }
        transaction
            .prepare_cached("INSERT OR REPLACE INTO rolled VALUES (?1, ?2)")?
            .execute(params![step as i64, rolled[step]])?;
        transaction.commit()?;
        self.rolled = rolled;
        Ok(())
    }

    fn forget(&mut self, now: i64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for (step, kept) in KEPT.into_iter().enumerate() {
            let views = views(&transaction, step)?;
            for view in views {
                let kept = if top::is_list(view) || rum::is_rum(view) { top::KEPT[step] } else { kept };
                // Nothing goes that is not in the next step yet.
                let before =
                    (now - kept).min(if step + 1 < STEPS.len() { self.rolled[step] } else { i64::MAX });
                transaction
                    .prepare_cached("DELETE FROM buckets WHERE step = ?1 AND view = ?2 AND at < ?3")?
                    .execute(params![step as i64, view, before])?;
            }
        }
        transaction.execute("DELETE FROM seen WHERE at < ?1", [now - LIFE_KEPT])?;
        transaction.commit()?;
        self.lives.retain(|_, seen| seen.at >= now - LIFE_KEPT);
        Ok(())
    }
}

/// A transaction.
pub(super) struct Work<'a> {
    transaction: Transaction<'a>,
    lives: &'a mut Lives,
    /// Takes effect with the commit.
    changed: Lives,
    rolled: [i64; STEPS.len()],
    names: &'a Mutex<Names>,
    new_names: Vec<(u32, String)>,
}

impl Work<'_> {
    /// Whether a line has not been counted before. From the commit on, it has.
    pub(super) fn is_new(&mut self, line: &Statistics, now: i64) -> bool {
        let key = (line.node.clone(), line.epoch);
        let known = self.lives.get(&key).cloned().unwrap_or_default();
        let seen = self.changed.entry(key).or_insert(known);
        (seen.lost, seen.at) = (seen.lost.max(line.lost), now);
        seen.is_new(line.sequence)
    }

    /// The number of a name, a new one if need be; those for which there is no room share one.
    pub(super) fn number(&mut self, text: &str) -> rusqlite::Result<u32> {
        let count = {
            let names = self.names.lock();
            if let Some(number) = names.numbers.get(text) {
                return Ok(*number);
            }
            names.numbers.len() + self.new_names.len()
        };
        if let Some((number, _)) = self.new_names.iter().find(|(_, known)| known == text) {
            return Ok(*number);
        }
        // No other name begins so.
        let names_max = if text.starts_with('/') { NAMES_BEFORE_PATHS_MAX } else { NAMES_MAX };
        if count >= names_max && text != OTHERS {
            return self.number(OTHERS);
        }
        self.transaction.prepare_cached("INSERT INTO names (text) VALUES (?1)")?.execute([text])?;
        let number = self.transaction.last_insert_rowid() as u32;
        self.new_names.push((number, text.to_owned()));
        Ok(number)
    }

    /// Adds cells to a bucket of a view.
    pub(super) fn add_cells(
        &mut self,
        step: usize,
        view: Dims,
        at: i64,
        cells: HashMap<Coord, Sums>,
    ) -> rusqlite::Result<()> {
        // Merged into nothing, so that too many are too many.
        let mut bucket = Bucket::Cells(HashMap::new());
        bucket.merge(Bucket::Cells(cells), view);
        self.add(step, i64::from(view.0), at, &bucket.write(view))
    }

    /// Adds some content to a bucket of any kind.
    pub(super) fn add(&mut self, step: usize, view: i64, at: i64, content: &[u8]) -> rusqlite::Result<()> {
        add(&self.transaction, &self.rolled, step, view, at, &[content])
    }

    pub(super) fn commit(self) -> rusqlite::Result<()> {
        {
            let mut statement =
                self.transaction.prepare_cached("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for ((node, epoch), seen) in &self.changed {
                let lost = i64::try_from(seen.lost).unwrap_or(i64::MAX);
                statement.execute(params![node, *epoch as i64, seen.write(), lost, seen.at])?;
            }
        }
        self.transaction.commit()?;
        self.lives.extend(self.changed);
        let mut names = self.names.lock();
        self.new_names.iter().for_each(|(number, text)| names.insert(*number, text));
        Ok(())
    }
}

/// What names share for which there is no room.
const OTHERS: &str = "(others)";

/// Adds contents to a bucket, and to each coarser one that has it already.
fn add(
    transaction: &Transaction<'_>,
    rolled: &[i64; STEPS.len()],
    step: usize,
    view: i64,
    at: i64,
    contents: &[&[u8]],
) -> rusqlite::Result<()> {
    for step in step..STEPS.len() {
        let begin = at.div_euclid(STEPS[step]) * STEPS[step];
        let key = params![step as i64, view, begin];
        let known: Option<Vec<u8>> = transaction
            .prepare_cached("SELECT content FROM buckets WHERE step = ?1 AND view = ?2 AND at = ?3")?
            .query_row(key, |row| row.get(0))
            .optional()?;
        let merged = merge(view, known.as_deref(), contents).map_err(corrupt)?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO buckets VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![step as i64, view, begin, merged])?;
        if begin >= rolled[step] {
            return Ok(());
        }
    }
    Ok(())
}

fn merge(view: i64, known: Option<&[u8]>, contents: &[&[u8]]) -> Result<Vec<u8>, Damaged> {
    if known.is_none() && contents.len() == 1 {
        return Ok(contents[0].to_vec());
    }
    let all = known.iter().chain(contents);
    if top::is_list(view) {
        return top::merge(view, all.copied());
    }
    if rum::is_rum(view) {
        return rum::merge(view, all.copied());
    }
    let view = VIEWS.iter().copied().find(|known| i64::from(known.0) == view).unwrap_or(Dims::ALL);
    let mut sum = Bucket::Cells(HashMap::new());
    for content in all {
        sum.merge(Bucket::read(content, view)?, view);
    }
    Ok(sum.write(view))
}

/// What was read is not what was written.
fn corrupt(damaged: Damaged) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Blob, Box::new(damaged))
}
