//! Page views as browsers have told of them: by minute, hour and day, for as long as lists of URLs are kept.
//!
//! ```text
//! form │ site, PoP, country, group; 0 in those that the view doesn't have │ length │ page views │ …
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;
use rusqlite::{Connection, params};
use stats::Country;
use stats::bytes::{Reader, write_number};
use stats::report::Damaged;
use stats::rum::{Of, Views};

use super::cells::{CELLS, Dims, TOO_MANY, each_of};
use super::database::{self, Work};
use super::query::{CannotSay, POINTS_MAX, parts};
use super::{Names, STEPS, top};

/// The step of the finest buckets: a minute.
const FINEST: usize = 1;

/// Buckets that an answer is put together of, at most, before coarser ones are taken.
const BUCKETS_WANTED: i64 = 400;

/// Cells of a bucket; those with the fewest page views beyond are one, of nobody. Of the view with all dimensions there are none then.
const CELLS_MAX: usize = 2_000;
const ALL_CELLS_MAX: usize = 500;

/// Keys of an answer, those with the most page views.
const KEYS_MAX: usize = 200;

/// What page views are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Site,
    Pop,
    Country,
    Group,
}

/// The views that are kept, by dimension, the smallest first; numbered from [`FIRST_VIEW`].
const VIEWS: [[bool; 4]; 4] = [
    [true, true, false, false],
    [true, false, true, false],
    [true, false, false, true],
    [true, true, true, true],
];
const FIRST_VIEW: i64 = 200;
const ALL: i64 = FIRST_VIEW + 3;

/// Whether the buckets of a view are of page views.
pub(super) fn is_rum(view: i64) -> bool {
    (FIRST_VIEW..FIRST_VIEW + VIEWS.len() as i64).contains(&view)
}

type Coord = [u32; 4];

fn only(coord: Coord, dims: [bool; 4]) -> Coord {
    std::array::from_fn(|index| if dims[index] { coord[index] } else { 0 })
}

/// A bucket; `None` when it had too many cells.
type Bucket = Option<BTreeMap<Coord, Views>>;

// --- Writing ---

/// Page views of a transaction, by minute, with all dimensions.
#[derive(Default)]
pub(super) struct Gathered(BTreeMap<i64, BTreeMap<Coord, Views>>);

impl Gathered {
    /// Adds those of a node's report; `sites` has the numbers of its sites.
    pub(super) fn add(
        &mut self,
        work: &mut Work<'_>,
        second: i64,
        pop: u32,
        sites: &[u32],
        all: Vec<(Of, Views)>,
    ) -> rusqlite::Result<()> {
        let at = second.div_euclid(STEPS[FINEST]) * STEPS[FINEST];
        for (of, views) in all {
            let site = sites.get(of.site as usize).copied().unwrap_or_default();
            let coord = [site, pop, u32::from(of.country.number()), work.number(&of.group)?];
            self.0.entry(at).or_default().entry(coord).or_default().merge(&views);
        }
        Ok(())
    }

    pub(super) fn write(self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        for (at, cells) in self.0 {
            for (view, dims) in (FIRST_VIEW..).zip(VIEWS) {
                let mut folded: BTreeMap<Coord, Views> = BTreeMap::new();
                for (coord, views) in &cells {
                    folded.entry(only(*coord, dims)).or_default().merge(views);
                }
                work.add(FINEST, view, at, &write(view, Some(folded)))?;
            }
        }
        Ok(())
    }
}

/// The sum of contents of a view.
pub(super) fn merge<'a>(view: i64, contents: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Damaged> {
    let mut sum: Bucket = Some(BTreeMap::new());
    for content in contents {
        let mut cells = BTreeMap::new();
        let is_whole = each_of(content, Dims::ALL, |coord, views| {
            cells.insert(coord, Views::read(&mut Reader(views))?);
            Ok(())
        })?;
        match &mut sum {
            Some(sum) if is_whole => {
                cells.into_iter().for_each(|(coord, views)| sum.entry(coord).or_default().merge(&views));
            }
            _ => sum = None,
        }
    }
    Ok(write(view, sum))
}

fn write(view: i64, bucket: Bucket) -> Vec<u8> {
    let Some(mut cells) = bucket.filter(|cells| view != ALL || cells.len() <= ALL_CELLS_MAX) else {
        return vec![TOO_MANY];
    };
    if cells.len() > CELLS_MAX {
        let mut by_count: Vec<(u64, Coord)> =
            cells.iter().map(|(coord, views)| (views.count, *coord)).collect();
        by_count.sort_unstable_by(|a, b| b.cmp(a));
        for (_, coord) in by_count.split_off(CELLS_MAX - 1) {
            if let Some(views) = cells.remove(&coord) {
                cells.entry(Coord::default()).or_default().merge(&views);
            }
        }
    }
    let (mut out, mut payload) = (vec![CELLS], Vec::new());
    for (coord, views) in &cells {
        coord.iter().for_each(|number| write_number(&mut out, u64::from(*number)));
        payload.clear();
        views.write(&mut payload);
        write_number(&mut out, payload.len() as u64);
        out.extend_from_slice(&payload);
    }
    out
}

// --- Asking ---

/// A question. Times are in s.
#[derive(Clone, Debug, Default)]
pub(crate) struct RumAsk {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) now: i64,
    pub(crate) by: Option<By>,
    /// By dimension, the values that count; all without.
    pub(crate) filters: [Option<Vec<String>>; 4],
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct RumAnswer {
    /// What it is of, in s: whole minutes, hours or days.
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) step: i64,
    /// All together.
    pub(crate) total: Views,
    /// All together, by bucket.
    pub(crate) points: Vec<Views>,
    /// By key, those with the most page views first.
    pub(crate) by_key: Vec<(String, Views)>,
}

pub(super) fn answer(
    connection: &Connection,
    names: &Mutex<Names>,
    ask: &RumAsk,
) -> Result<RumAnswer, CannotSay> {
    let is_good = |step: &usize| {
        ask.from >= ask.now - top::KEPT[*step] && (ask.to - ask.from) / STEPS[*step] <= BUCKETS_WANTED
    };
    let place = (FINEST..STEPS.len()).find(is_good).unwrap_or(STEPS.len() - 1);
    let step = STEPS[place];
    let points = ask.to.saturating_sub(ask.from) / step;
    if points > POINTS_MAX {
        return Err(CannotSay::TooManyPoints(points));
    }
    let from = ask.from.div_euclid(step) * step;
    let to = (ask.to.max(ask.from + 1) + step - 1).div_euclid(step) * step;
    let filters = ask.filters.iter().enumerate().filter_map(|(dim, texts)| {
        let number = |text: &String| match dim {
            2 => Some(country_of(text)),
            _ => names.lock().numbers.get(text).copied(),
        };
        Some((dim, texts.as_ref()?.iter().filter_map(number).collect()))
    });
    let filters: Vec<(usize, HashSet<u32>)> = filters.collect();
    let is_wanted = |dim: usize| {
        filters.iter().any(|(known, _)| *known == dim) || ask.by.is_some_and(|by| by as usize == dim)
    };
    let view = VIEWS
        .iter()
        .position(|dims| (0..4).all(|dim| dims[dim] || !is_wanted(dim)))
        .unwrap_or(VIEWS.len() - 1);
    let mut answer = RumAnswer { from, to, step, ..RumAnswer::default() };
    answer.points.resize_with(((to - from) / step).max(0) as usize, Views::default);
    let mut by_number: HashMap<u32, Views> = HashMap::new();
    for (place, begin, end) in parts(FINEST, place, from, to, &database::rolled(connection)?) {
        let mut statement = connection.prepare_cached(
            "SELECT at, content FROM buckets WHERE step = ?1 AND view = ?2 AND at >= ?3 AND at < ?4",
        )?;
        let mut rows = statement.query(params![place as i64, FIRST_VIEW + view as i64, begin, end])?;
        while let Some(row) = rows.next()? {
            let at: i64 = row.get(0)?;
            let content = row.get_ref(1)?.as_blob().map_err(|error| CannotSay::Broken(error.to_string()))?;
            let bucket = ((at - from).div_euclid(step)).max(0) as usize;
            let is_whole = each_of(content, Dims::ALL, |coord: Coord, views| {
                if filters.iter().all(|(dim, numbers)| numbers.contains(&coord[*dim])) {
                    let views = Views::read(&mut Reader(views))?;
                    answer.total.merge(&views);
                    if let Some(point) = answer.points.get_mut(bucket) {
                        point.merge(&views);
                    }
                    if let Some(by) = ask.by {
                        by_number.entry(coord[by as usize]).or_default().merge(&views);
                    }
                }
                Ok(())
            })?;
            if !is_whole {
                return Err(CannotSay::NotKept("more than one of pop, country and group".to_owned()));
            }
        }
    }
    let mut ordered: Vec<(u32, Views)> = by_number.into_iter().collect();
    ordered.sort_by_key(|(number, views)| (std::cmp::Reverse(views.count), *number));
    ordered.truncate(KEYS_MAX);
    let text = |number: u32| match ask.by {
        Some(By::Country) => Country::of_number(number as u16).to_string(),
        _ => names.lock().text(number),
    };
    answer.by_key = ordered.into_iter().map(|(number, views)| (text(number), views)).collect();
    Ok(answer)
}

fn country_of(text: &str) -> u32 {
    let letters = <[u8; 2]>::try_from(text.as_bytes());
    u32::from(letters.map_or(Country::UNKNOWN, Country::of).number())
}
