//! What a node says of one second, and its form on the wire.
//!
//! ```text
//! version  second  names: sites and reasons  cells…  lists…  examples…  page views…
//! ```
//!
//! Page views are there from version 2 on, which is said only where there are any: controls that do not know it still understand all else.
//!
//! Numbers take seven bits per byte, names are said once. Reasons are named by text, so that nodes and controls of different
//! versions understand each other; one that is not known counts as none. Whatever bytes are given to [`Report::decode`], it
//! returns, and allocates no more than some times what it was given.

use semantics::Why;

use crate::bytes::{Reader, write_number, write_text};
use crate::histogram::Histogram;
use crate::key::{Class, Country, Key, Rule, Status};
use crate::rum::{self, Views};
use crate::sketch::{Entry, Of, TopList};

const VERSION: u8 = 1;
/// With page views.
const VERSION_VIEWS: u8 = 2;

/// Sums of the requests under one key in one second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Finished requests.
    pub requests: u64,
    /// Bytes sent to visitors, heads and bodies.
    pub bytes: u64,
    /// Attempts at origins that have ended.
    pub origin_requests: u64,
    /// Bytes received from origins.
    pub origin_bytes: u64,
    /// Times to the first byte of the answer; requests without one are not in it.
    pub first_byte: Histogram,
}

impl Cell {
    /// Adds what another one has.
    pub fn merge(&mut self, other: &Cell) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.origin_requests = self.origin_requests.saturating_add(other.origin_requests);
        self.origin_bytes = self.origin_bytes.saturating_add(other.origin_bytes);
        self.first_byte.merge(&other.first_byte);
    }
}

/// What a list of URLs is about, and what it is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ListKind {
    /// All, by requests.
    UrlsByRequests,
    /// All, by bytes sent.
    UrlsByBytes,
    /// What was not answered from the cache, by requests.
    MissesByRequests,
    /// What was not answered from the cache, by bytes sent.
    MissesByBytes,
    /// What was answered with 500 to 599, by requests.
    ErrorsByRequests,
    /// What was answered with 500 to 599, by bytes sent.
    ErrorsByBytes,
}

/// All kinds, in declaration order.
pub const LISTS: [ListKind; 6] = [
    ListKind::UrlsByRequests,
    ListKind::UrlsByBytes,
    ListKind::MissesByRequests,
    ListKind::MissesByBytes,
    ListKind::ErrorsByRequests,
    ListKind::ErrorsByBytes,
];

impl ListKind {
    /// Whether `count` of its entries are bytes, and `other` requests.
    pub fn is_by_bytes(self) -> bool {
        matches!(self, ListKind::UrlsByBytes | ListKind::MissesByBytes | ListKind::ErrorsByBytes)
    }
}

/// One request that was not answered from the cache, as an example for all that ended for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Site and reason.
    pub of: Of,
    /// What was asked for.
    pub url: String,
    /// The edge's member of Cache-Status (RFC 9211).
    pub cache_status: String,
    /// When it ended, in ms since 1970.
    pub at_ms: i64,
}

/// What a node says of one second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Which, in s since 1970.
    pub second: i64,
    /// The names of the sites, by the numbers that keys have.
    pub sites: Vec<String>,
    /// Each key once.
    pub cells: Vec<(Key, Cell)>,
    /// What has been asked for most since the last report with lists; every few seconds.
    pub lists: Vec<(ListKind, TopList)>,
    /// One for each reason, when there are lists.
    pub examples: Vec<Example>,
    /// Page views, each kind once.
    pub views: Vec<(rum::Of, Views)>,
}

/// Why bytes are no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damaged {}

/// The number of a reason where there is none.
const NO_WHY: u64 = 0;

fn why_number(why: Option<Why>) -> u64 {
    why.map_or(NO_WHY, |why| why as u64 + 1)
}

impl Report {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.views.is_empty() { VERSION } else { VERSION_VIEWS }];
        write_number(&mut out, self.second.max(0) as u64);
        write_number(&mut out, self.sites.len() as u64);
        self.sites.iter().for_each(|name| write_text(&mut out, name));
        write_number(&mut out, Why::ALL.len() as u64);
        Why::ALL.iter().for_each(|why| write_text(&mut out, why.as_str()));
        write_number(&mut out, self.cells.len() as u64);
        for (key, cell) in &self.cells {
            write_number(&mut out, u64::from(key.site));
            write_number(&mut out, u64::from(key.rule.0));
            write_number(&mut out, u64::from(key.country.number()));
            out.push(key.class as u8);
            write_number(&mut out, why_number(key.why));
            out.push(key.status as u8);
            for number in [cell.requests, cell.bytes, cell.origin_requests, cell.origin_bytes] {
                write_number(&mut out, number);
            }
            cell.first_byte.write(&mut out);
        }
        write_number(&mut out, self.lists.len() as u64);
        for (kind, list) in &self.lists {
            out.push(*kind as u8);
            write_number(&mut out, list.floor);
            write_number(&mut out, list.entries.len() as u64);
            for entry in &list.entries {
                write_of(&mut out, entry.of);
                write_text(&mut out, &entry.url);
                for number in [entry.count, entry.over, entry.other] {
                    write_number(&mut out, number);
                }
            }
        }
        write_number(&mut out, self.examples.len() as u64);
        for example in &self.examples {
            write_of(&mut out, example.of);
            write_text(&mut out, &example.url);
            write_text(&mut out, &example.cache_status);
            write_number(&mut out, example.at_ms.max(0) as u64);
        }
        if !self.views.is_empty() {
            rum::write_all(&mut out, &self.views);
        }
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are not what [`Report::encode`] makes: in words.
    pub fn decode(bytes: &[u8]) -> Result<Report, Damaged> {
        let mut reader = Reader(bytes);
        let version = reader.byte()?;
        if ![VERSION, VERSION_VIEWS].contains(&version) {
            return Err(Damaged("is of another version"));
        }
        let second = time(reader.number()?)?;
        let mut names = Vec::new();
        for _ in 0..reader.count(1)? {
            names.push(reader.text()?.to_owned());
        }
        let mut whys = vec![None];
        for _ in 0..reader.count(1)? {
            let text = reader.text()?;
            whys.push(Why::ALL.iter().copied().find(|why| why.as_str() == text));
        }
        let tables = Tables { sites: names.len(), whys };
        let mut report = Report { second, sites: names, ..Report::default() };
        for _ in 0..reader.count(11)? {
            report.cells.push(tables.read_cell(&mut reader)?);
        }
        for _ in 0..reader.count(3)? {
            report.lists.push(tables.read_list(&mut reader)?);
        }
        for _ in 0..reader.count(5)? {
            report.examples.push(Example {
                of: tables.read_of(&mut reader)?,
                url: reader.text()?.to_owned(),
                cache_status: reader.text()?.to_owned(),
                at_ms: time(reader.number()?)?,
            });
        }
        if version == VERSION_VIEWS {
            report.views = rum::read_all(&mut reader, tables.sites)?;
        }
        match reader.0.is_empty() {
            true => Ok(report),
            false => Err(Damaged("has bytes behind its end")),
        }
    }
}

fn write_of(out: &mut Vec<u8>, of: Of) {
    write_number(out, u64::from(of.site));
    write_number(out, why_number(of.why));
}

/// Until the year 9999 in ms, that sums and differences stay in range.
fn time(number: u64) -> Result<i64, Damaged> {
    const MS_MAX: i64 = 253_402_300_799_999;
    i64::try_from(number).ok().filter(|time| *time <= MS_MAX).ok_or(Damaged("is of no time"))
}

/// What the numbers of a report mean.
struct Tables {
    sites: usize,
    whys: Vec<Option<Why>>,
}

impl Tables {
    fn read_of(&self, reader: &mut Reader<'_>) -> Result<Of, Damaged> {
        let site = reader.number()?;
        let site = u32::try_from(site).ok().filter(|site| (*site as usize) < self.sites);
        let site = site.ok_or(Damaged("names a site that it does not have"))?;
        Ok(Of { site, why: self.why(reader.number()?)? })
    }

    fn why(&self, number: u64) -> Result<Option<Why>, Damaged> {
        let known = usize::try_from(number).ok().and_then(|number| self.whys.get(number));
        known.copied().ok_or(Damaged("names a reason that it does not have"))
    }

    fn read_cell(&self, reader: &mut Reader<'_>) -> Result<(Key, Cell), Damaged> {
        const NO_KEY: Damaged = Damaged("has a key that is none");
        let site = u32::try_from(reader.number()?).ok().filter(|site| (*site as usize) < self.sites);
        let site = site.ok_or(Damaged("names a site that it does not have"))?;
        let rule = Rule(u16::try_from(reader.number()?).map_err(|_| NO_KEY)?);
        let country = Country::of_number(u16::try_from(reader.number()?).map_err(|_| NO_KEY)?);
        let class = *Class::ALL.get(usize::from(reader.byte()?)).ok_or(NO_KEY)?;
        let why = self.why(reader.number()?)?;
        let status = *Status::ALL.get(usize::from(reader.byte()?)).ok_or(NO_KEY)?;
        let cell = Cell {
            requests: reader.number()?,
            bytes: reader.number()?,
            origin_requests: reader.number()?,
            origin_bytes: reader.number()?,
            first_byte: Histogram::read(reader)?,
        };
        Ok((Key { site, rule, country, class, why, status }, cell))
    }

    fn read_list(&self, reader: &mut Reader<'_>) -> Result<(ListKind, TopList), Damaged> {
        let kind = *LISTS.get(usize::from(reader.byte()?)).ok_or(Damaged("has a list of no kind"))?;
        let mut list = TopList { floor: reader.number()?, entries: Vec::new() };
        for _ in 0..reader.count(6)? {
            let of = self.read_of(reader)?;
            let url = reader.text()?.to_owned();
            let (count, over, other) = (reader.number()?, reader.number()?, reader.number()?);
            list.entries.push(Entry { of, url, count, over: over.min(count), other });
        }
        Ok((kind, list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report() -> Report {
        let mut first_byte = Histogram::default();
        [(3, 1), (40, 7), (104, u64::MAX)].iter().for_each(|(bucket, count)| first_byte.add(*bucket, *count));
        let cell = Cell { requests: 8, bytes: 1 << 40, origin_requests: 1, origin_bytes: 300, first_byte };
        let key = Key {
            site: 1,
            rule: Rule::OTHERS,
            country: Country::of(*b"DE"),
            class: Class::Image,
            why: Some(Why::Internal),
            status: Status::ServerError,
        };
        let of = Of { site: 1, why: Some(Why::Absent) };
        let mut views = Views::default();
        views.add(&std::array::from_fn(|index| (index % 3 > 0).then_some(index as u32 * 900)));
        let entry = Entry { of, url: "https://a.example/\u{fc}".into(), count: 9, over: 2, other: 700 };
        Report {
            second: 1_800_000_000,
            sites: vec!["-".into(), "shop".into()],
            cells: vec![(key, cell), (Key::of_origin(0, Rule(3)), Cell::default())],
            lists: vec![(ListKind::MissesByBytes, TopList { floor: 4, entries: vec![entry] })],
            examples: vec![Example {
                of,
                url: "/a".into(),
                cache_status: "edge; fwd=miss".into(),
                at_ms: 1_800_000_000_123,
            }],
            views: vec![(rum::Of { site: 1, country: Country::of(*b"DE"), group: "/tea".into() }, views)],
        }
    }

    #[test]
    fn what_was_said_is_read_again() {
        for report in [report(), Report { views: Vec::new(), ..report() }, Report::default()] {
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_refused() {
        let bytes = report().encode();
        for cut in 0..bytes.len() {
            assert!(Report::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert_eq!(Report::decode(&[&bytes[..], &[0]].concat()), Err(Damaged("has bytes behind its end")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut bytes = report().encode();
            for (index, byte) in &edits {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Ok(read) = Report::decode(&bytes) {
                prop_assert_eq!(Report::decode(&read.encode()), Ok(read));
            }
        }
    }
}
