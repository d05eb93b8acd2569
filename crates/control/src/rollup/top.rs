//! Lists of URLs, and examples: by minute, hour and day, for each PoP and for all together.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use rusqlite::{Connection, params};
use semantics::Why;
use stats::bytes::{Reader, write_number, write_text};
use stats::report::Damaged;
use stats::sketch::Of;
use stats::{Entry, Example, ListKind, TopList};

use super::database::{self, Work};
use super::query::{CannotSay, parts};
use super::{Names, STEPS};

/// For how long lists of each step are kept, in s: a day, a month, and thirteen months. There are none of a second.
pub(super) const KEPT: [i64; 4] = [0, 86_400, 31 * 86_400, 400 * 86_400];

/// The step of the finest lists.
const FINEST: usize = 1;

/// URLs of a list in a bucket: of all PoPs together, and of one.
const LISTED_MAX: usize = 200;
const LISTED_OF_POP_MAX: usize = 50;

/// Examples in a bucket: one for each reason and site.
const EXAMPLES_MAX: usize = 500;

/// Buckets that an answer is put together of, at most, before coarser ones are taken.
const BUCKETS_WANTED: i64 = 400;

/// Views of lists are numbered from here: eight for each PoP, and for all together those of PoP 0.
const FIRST_VIEW: i64 = 1_000;
const EXAMPLES: i64 = 6;

/// Lists, and examples, that a question holds before it puts them together: it may be for hundreds of PoPs and buckets.
const LISTS_AT_ONCE: usize = 64;
const EXAMPLES_AT_ONCE: usize = 8 * EXAMPLES_MAX;

/// Whether the buckets of a view are lists or examples, of a kind that this version knows.
pub(super) fn is_list(view: i64) -> bool {
    let last = view_of(u32::MAX, EXAMPLES);
    (FIRST_VIEW..=last).contains(&view) && (0..=EXAMPLES).contains(&kind_of(view))
}

pub(super) fn view_of(pop: u32, kind: i64) -> i64 {
    FIRST_VIEW + i64::from(pop) * 8 + kind
}

fn listed_max(view: i64) -> usize {
    if view < FIRST_VIEW + 8 { LISTED_MAX } else { LISTED_OF_POP_MAX }
}

fn kind_of(view: i64) -> i64 {
    (view - FIRST_VIEW).rem_euclid(8)
}

/// An example, and the PoP where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) example: Example,
    pub(crate) pop: u32,
}

// --- Writing ---

/// Lists and examples of a transaction, by view and minute.
#[derive(Default)]
pub(super) struct Gathered {
    lists: HashMap<(i64, i64), Vec<TopList>>,
    examples: HashMap<(i64, i64), Vec<At>>,
}

impl Gathered {
    /// Adds those of a node's report; `sites` has the numbers of its sites.
    pub(super) fn add(
        &mut self,
        second: i64,
        pop: u32,
        sites: &[u32],
        lists: Vec<(ListKind, TopList)>,
        examples: Vec<Example>,
    ) {
        let at = second.div_euclid(STEPS[FINEST]) * STEPS[FINEST];
        let named = |of: Of| Of { site: sites.get(of.site as usize).copied().unwrap_or_default(), ..of };
        for (kind, mut list) in lists {
            list.entries.iter_mut().for_each(|entry| entry.of = named(entry.of));
            for pop in [0, pop] {
                self.lists.entry((view_of(pop, kind as i64), at)).or_default().push(list.clone());
            }
        }
        for example in examples {
            let example = At { example: Example { of: named(example.of), ..example }, pop };
            for pop in [0, pop] {
                self.examples.entry((view_of(pop, EXAMPLES), at)).or_default().push(example.clone());
            }
        }
    }

    pub(super) fn write(self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        for ((view, at), lists) in self.lists {
            let mut sum = TopList::default();
            sum.merge(&lists);
            sum.keep(listed_max(view));
            work.add(FINEST, view, at, &write_list(&sum))?;
        }
        for ((view, at), examples) in self.examples {
            work.add(FINEST, view, at, &write_examples(&newest(examples)))?;
        }
        Ok(())
    }
}

/// The sum of contents of a view.
pub(super) fn merge<'a>(view: i64, contents: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Damaged> {
    if kind_of(view) == EXAMPLES {
        let mut all = Vec::new();
        for content in contents {
            all.extend(read_examples(content)?);
        }
        return Ok(write_examples(&newest(all)));
    }
    let lists = contents.map(read_list).collect::<Result<Vec<TopList>, Damaged>>()?;
    let mut sum = TopList::default();
    sum.merge(&lists);
    sum.keep(listed_max(view));
    Ok(write_list(&sum))
}

/// The newest example of each reason and site.
fn newest(examples: Vec<At>) -> Vec<At> {
    let mut by: HashMap<Of, At> = HashMap::new();
    for at in examples {
        let known = by.get(&at.example.of);
        if known.is_none_or(|known| known.example.at_ms <= at.example.at_ms) {
            by.insert(at.example.of, at);
        }
    }
    let mut newest: Vec<At> = by.into_values().collect();
    newest.sort_by_key(|at| std::cmp::Reverse(at.example.at_ms));
    newest.truncate(EXAMPLES_MAX);
    newest
}

fn write_of(out: &mut Vec<u8>, of: Of) {
    write_number(out, u64::from(of.site));
    write_text(out, of.why.map_or("", Why::as_str));
}

fn read_of(reader: &mut Reader<'_>) -> Result<Of, Damaged> {
    let site = u32::try_from(reader.number()?).map_err(|_| Damaged("has a site that is none"))?;
    let text = reader.text()?;
    Ok(Of { site, why: Why::ALL.iter().copied().find(|why| why.as_str() == text) })
}

pub(super) fn write_list(list: &TopList) -> Vec<u8> {
    let mut out = Vec::new();
    write_number(&mut out, list.floor);
    for entry in &list.entries {
        write_of(&mut out, entry.of);
        write_text(&mut out, &entry.url);
        [entry.count, entry.over, entry.other].into_iter().for_each(|number| write_number(&mut out, number));
    }
    out
}

fn read_list(content: &[u8]) -> Result<TopList, Damaged> {
    let mut reader = Reader(content);
    let mut list = TopList { floor: reader.number()?, entries: Vec::new() };
    while !reader.0.is_empty() {
        let of = read_of(&mut reader)?;
        let url = reader.text()?.to_owned();
        let (count, over, other) = (reader.number()?, reader.number()?, reader.number()?);
        list.entries.push(Entry { of, url, count, over, other });
    }
    Ok(list)
}

fn write_examples(examples: &[At]) -> Vec<u8> {
    let mut out = Vec::new();
    for At { example, pop } in examples {
        write_of(&mut out, example.of);
        write_number(&mut out, u64::from(*pop));
        write_text(&mut out, &example.url);
        write_text(&mut out, &example.cache_status);
        write_number(&mut out, example.at_ms.max(0) as u64);
    }
    out
}

fn read_examples(content: &[u8]) -> Result<Vec<At>, Damaged> {
    let (mut reader, mut examples) = (Reader(content), Vec::new());
    while !reader.0.is_empty() {
        let of = read_of(&mut reader)?;
        let pop = u32::try_from(reader.number()?).map_err(|_| Damaged("has a PoP that is none"))?;
        let (url, cache_status) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        let at_ms = i64::try_from(reader.number()?).map_err(|_| Damaged("is of no time"))?;
        examples.push(At { example: Example { of, url, cache_status, at_ms }, pop });
    }
    Ok(examples)
}

// --- Asking ---

/// A question for lists.
#[derive(Clone, Debug)]
pub(crate) struct TopAsk {
    /// In s.
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) now: i64,
    /// Which list; `None`: examples.
    pub(crate) kind: Option<ListKind>,
    /// The sites that count; all without.
    pub(crate) sites: Option<Vec<String>>,
    /// The PoPs that count; all without.
    pub(crate) pops: Option<Vec<String>>,
    pub(crate) limit: usize,
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Top {
    /// What the answer is of, in s.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// No URL was counted more often than this above what is said of it.
    pub(crate) floor: u64,
    pub(crate) items: Vec<TopItem>,
    pub(crate) examples: Vec<Shown>,
}

/// One URL.
#[derive(Debug)]
pub(crate) struct TopItem {
    pub(crate) site: String,
    pub(crate) entry: Entry,
}

/// An example.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) example: Example,
    pub(crate) pop: String,
}

pub(super) fn answer(connection: &Connection, names: &Mutex<Names>, ask: &TopAsk) -> Result<Top, CannotSay> {
    let is_good = |step: &usize| {
        ask.from >= ask.now - KEPT[*step] && (ask.to - ask.from) / STEPS[*step] <= BUCKETS_WANTED
    };
    let place = (FINEST..STEPS.len()).find(is_good).unwrap_or(STEPS.len() - 1);
    let step = STEPS[place];
    let from = ask.from.div_euclid(step) * step;
    let to = (ask.to.max(ask.from + 1) + step - 1).div_euclid(step) * step;
    let number = |text: &String| names.lock().numbers.get(text).copied();
    let pops: BTreeSet<u32> = match &ask.pops {
        None => BTreeSet::from([0]),
        Some(pops) => pops.iter().filter_map(number).collect(),
    };
    let sites: Option<Vec<u32>> = ask.sites.as_ref().map(|sites| sites.iter().filter_map(number).collect());
    let is_wanted = |of: &Of| sites.as_ref().is_none_or(|sites| sites.contains(&of.site));
    let (mut sum, mut lists, mut examples) = (TopList::default(), Vec::new(), Vec::new());
    for (place, begin, end) in parts(FINEST, place, from, to, &database::rolled(connection)?) {
        for pop in &pops {
            let view = view_of(*pop, ask.kind.map_or(EXAMPLES, |kind| kind as i64));
            let mut statement = connection.prepare_cached(
                "SELECT content FROM buckets WHERE step = ?1 AND view = ?2 AND at >= ?3 AND at < ?4",
            )?;
            let mut rows = statement.query(params![place as i64, view, begin, end])?;
            while let Some(row) = rows.next()? {
                let content =
                    row.get_ref(0)?.as_blob().map_err(|error| CannotSay::Broken(error.to_string()))?;
                match ask.kind {
                    Some(_) => {
                        let mut list = read_list(content)?;
                        list.entries.retain(|entry| is_wanted(&entry.of));
                        lists.push(list);
                        if lists.len() >= LISTS_AT_ONCE {
                            sum.merge(&std::mem::take(&mut lists));
                        }
                    }
                    None => {
                        examples.extend(read_examples(content)?);
                        examples.retain(|at: &At| is_wanted(&at.example.of));
                        if examples.len() > EXAMPLES_AT_ONCE {
                            examples = newest(examples);
                        }
                    }
                }
            }
        }
    }
    sum.merge(&lists);
    let floor = sum.floor;
    // What is cut off here was left out because of the limit, and not because it was not known.
    sum.keep(ask.limit);
    let names = names.lock();
    let items = sum.entries.into_iter().map(|entry| TopItem { site: names.text(entry.of.site), entry });
    let examples =
        newest(examples).into_iter().map(|at| Shown { example: at.example, pop: names.text(at.pop) });
    Ok(Top { from, to, floor, items: items.collect(), examples: examples.collect() })
}
