//! Answers to questions: which series over which time, from the smallest view that has what is asked for.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use rusqlite::{Connection, params};
use stats::report::Damaged;

use super::cells::{Coord, Dim, Dims, Sums, each, is_named, number_of, text_of};
use super::{KEPT, Names, STEPS, VIEWS, database};

/// Series of an answer; what comes after that many is summed up in one, `(others)`.
pub(crate) const SERIES_MAX: usize = 1_000;

/// Points of a series at most, whatever step is asked for: 13 months of hours.
pub(crate) const POINTS_MAX: i64 = 10_000;

/// Points of all series together: about 100 MB while they are answered.
const POINTS_IN_ALL_MAX: usize = 500_000;

/// Points for which a step is chosen.
const POINTS_WANTED: i64 = 1_000;

/// For how long buckets may still grow: nodes say what a second had when it is over, and that takes a moment.
pub(crate) const SETTLES_SECS: i64 = 3;

/// A question. Times are in s.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// The place in [`STEPS`]; `None` chooses one.
    pub(crate) step: Option<usize>,
    pub(crate) by: Option<Dim>,
    /// By dimension, the values that count.
    pub(crate) filters: BTreeMap<Dim, Vec<String>>,
    /// Whether points are wanted, or totals alone.
    pub(crate) with_points: bool,
    /// Now.
    pub(crate) now: i64,
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// In s.
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) step: i64,
    /// Buckets from here on may still grow.
    pub(crate) complete_to: i64,
    /// By key, the largest first.
    pub(crate) series: Vec<Series>,
    /// What nodes could not deliver, of those that have been heard of in the last day.
    pub(crate) lost: u64,
}

/// The sums of one key.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// Empty where nothing is told apart.
    pub(crate) key: String,
    pub(crate) total: Sums,
    /// One for each bucket.
    pub(crate) points: Vec<Option<Box<Sums>>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CannotSay {
    /// No view has this.
    NotKept(String),
    /// There would be more points than an answer has.
    TooManyPoints(i64),
    /// The database.
    Broken(String),
}

impl From<rusqlite::Error> for CannotSay {
    fn from(error: rusqlite::Error) -> Self {
        CannotSay::Broken(error.to_string())
    }
}

impl From<Damaged> for CannotSay {
    fn from(damaged: Damaged) -> Self {
        CannotSay::Broken(format!("a bucket {damaged}"))
    }
}

/// The finest step that is kept for `from` and gives few enough points.
fn chosen(ask: &Ask) -> usize {
    let is_good = |step: &usize| {
        ask.from >= ask.now - KEPT[*step] && (ask.to - ask.from) / STEPS[*step] <= POINTS_WANTED
    };
    (0..STEPS.len()).find(is_good).unwrap_or(STEPS.len() - 1)
}

pub(super) fn answer(connection: &Connection, names: &Mutex<Names>, ask: &Ask) -> Result<Answer, CannotSay> {
    let place = ask.step.unwrap_or_else(|| chosen(ask));
    let step = STEPS[place];
    let from = ask.from.div_euclid(step) * step;
    let to =
        ask.to.max(ask.from + 1).div_euclid(step) * step + if ask.to.rem_euclid(step) > 0 { step } else { 0 };
    let points = (to - from) / step;
    if ask.with_points && points > POINTS_MAX {
        return Err(CannotSay::TooManyPoints(points));
    }
    let view = view_for(ask);
    let lost: i64 = connection.query_row("SELECT COALESCE(SUM(lost), 0) FROM seen", [], |row| row.get(0))?;
    let mut gathering = Gathering {
        ask,
        names,
        filters: filters(names, ask),
        from,
        step,
        points: if ask.with_points { points as usize } else { 0 },
        places: HashMap::new(),
        series: Vec::new(),
    };
    for (place, begin, end) in parts(0, place, from, to, &database::rolled(connection)?) {
        let mut statement = connection.prepare_cached(
            "SELECT at, content FROM buckets WHERE step = ?1 AND view = ?2 AND at >= ?3 AND at < ?4",
        )?;
        let mut rows = statement.query(params![place as i64, i64::from(view.0), begin, end])?;
        while let Some(row) = rows.next()? {
            let content = row.get_ref(1)?.as_blob().map_err(|error| CannotSay::Broken(error.to_string()))?;
            gathering.take(view, row.get(0)?, content)?;
        }
    }
    let mut series = gathering.series;
    for one in &mut series {
        // Each cell was added once: to its point, where there are any.
        for point in one.points.iter().flatten() {
            one.total.merge(point);
        }
    }
    series.sort_by(|a, b| (b.total.requests, &a.key).cmp(&(a.total.requests, &b.key)));
    let complete_to = (ask.now - SETTLES_SECS).div_euclid(step) * step;
    Ok(Answer { from, to, step, complete_to, series, lost: lost as u64 })
}

/// Which buckets hold a stretch of time: those of the step that is asked for, and of finer ones what has not been summed up yet,
/// down to the finest that there is.
pub(super) fn parts(
    finest: usize,
    step: usize,
    from: i64,
    to: i64,
    rolled: &[i64; STEPS.len()],
) -> Vec<(usize, i64, i64)> {
    let (mut parts, mut begin) = (Vec::new(), from);
    for place in (finest..=step).rev() {
        let end = if place == finest { to } else { to.min(rolled[place - 1]) };
        if begin < end {
            parts.push((place, begin, end));
            begin = end;
        }
    }
    parts
}

fn view_for(ask: &Ask) -> Dims {
    let wanted = ask.filters.keys().chain(&ask.by).fold(Dims::default(), |dims, dim| dims.with(*dim));
    VIEWS.iter().copied().find(|view| view.has_all(wanted)).unwrap_or(Dims::ALL)
}

/// By dimension, the numbers that count. A value that nobody has heard of has none.
fn filters(names: &Mutex<Names>, ask: &Ask) -> Vec<(Dim, Vec<u32>)> {
    let names = names.lock();
    let number = |dim: Dim, text: &String| match is_named(dim) {
        true if text == "-" && dim == Dim::Why => Some(0),
        true => names.numbers.get(text).copied(),
        false => number_of(dim, text),
    };
    let numbers = |dim: Dim, texts: &Vec<String>| {
        let mut numbers: Vec<u32> = texts.iter().filter_map(|text| number(dim, text)).collect();
        numbers.sort_unstable();
        numbers
    };
    ask.filters.iter().map(|(dim, texts)| (*dim, numbers(*dim, texts))).collect()
}

struct Gathering<'a> {
    ask: &'a Ask,
    names: &'a Mutex<Names>,
    /// Few numbers each, looked at for each cell: faster in a row than by hash.
    filters: Vec<(Dim, Vec<u32>)>,
    from: i64,
    step: i64,
    points: usize,
    /// By site and value: a rule is one of a site's.
    places: HashMap<(u32, u32), usize>,
    series: Vec<Series>,
}

impl Gathering<'_> {
    fn take(&mut self, view: Dims, at: i64, content: &[u8]) -> Result<(), CannotSay> {
        let bucket = ((at - self.from).div_euclid(self.step)).max(0) as usize;
        let is_whole = each(content, view, |coord, unread| {
            let is_wanted =
                |(dim, numbers): &(Dim, Vec<u32>)| numbers.binary_search(&coord.0[*dim as usize]).is_ok();
            if !self.filters.iter().all(is_wanted) {
                return Ok(());
            }
            let place = self.place(coord);
            let points = self.points;
            let series = &mut self.series[place];
            if bucket >= points {
                return unread.add_to(&mut series.total);
            }
            if series.points.len() < points {
                series.points.resize_with(points, || None);
            }
            unread.add_to(series.points[bucket].get_or_insert_default())
        })?;
        match is_whole {
            true => Ok(()),
            false => Err(CannotSay::NotKept(self.words())),
        }
    }

    fn words(&self) -> String {
        let dims: Vec<&str> = self.ask.filters.keys().chain(&self.ask.by).map(|dim| dim.as_str()).collect();
        dims.join(" and ")
    }

    fn place(&mut self, coord: Coord) -> usize {
        let Some(by) = self.ask.by else {
            if self.series.is_empty() {
                self.series.push(Series::default());
            }
            return 0;
        };
        let value = coord.0[by as usize];
        let site = if by == Dim::Rule { coord.0[Dim::Site as usize] } else { 0 };
        if let Some(place) = self.places.get(&(site, value)) {
            return *place;
        }
        let is_full = self.series.len() >= SERIES_MAX.min(POINTS_IN_ALL_MAX / self.points.max(1));
        let key = match is_full {
            true => "(others)".to_owned(),
            false => self.key(by, site, value),
        };
        if is_full && self.series.last().is_some_and(|last| last.key == key) {
            let place = self.series.len() - 1;
            self.places.insert((site, value), place);
            return place;
        }
        self.series.push(Series { key, ..Series::default() });
        let place = self.series.len() - 1;
        self.places.insert((site, value), place);
        place
    }

    fn key(&self, by: Dim, site: u32, value: u32) -> String {
        match text_of(by, value) {
            None => self.names.lock().text(value),
            Some(text) if by == Dim::Rule => format!("{}/{text}", self.names.lock().text(site)),
            Some(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_moment_is_in_exactly_one_part() {
        let rolled = [7_260, 7_200, 0, 0];
        let check = |step: usize, from: i64, to: i64| parts(0, step, from, to, &rolled);
        assert_eq!(check(0, 7_000, 8_000), [(0, 7_000, 8_000)]);
        assert_eq!(check(1, 6_960, 8_000), [(1, 6_960, 7_260), (0, 7_260, 8_000)]);
        assert_eq!(check(2, 0, 10_800), [(2, 0, 7_200), (1, 7_200, 7_260), (0, 7_260, 10_800)]);
        assert_eq!(check(3, 0, 86_400), [(2, 0, 7_200), (1, 7_200, 7_260), (0, 7_260, 86_400)]);
        assert_eq!(check(3, 7_200, 7_201), [(1, 7_200, 7_201)]);
        assert_eq!(parts(1, 2, 3_600, 8_000, &rolled), [(2, 3_600, 7_200), (1, 7_200, 8_000)]);
    }
}
