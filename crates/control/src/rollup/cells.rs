//! Sums by what is told apart, and how they lie in the database: a view's cells of one bucket, in order, behind one another.
//!
//! ```text
//! form │ coordinate, one number per dimension of the view │ length │ seven sums, histogram │ …
//! ```
//!
//! The length lets whoever looks for some of the cells pass over the others.

use std::collections::HashMap;

use stats::bytes::{Reader, write_number};
use stats::report::Damaged;
use stats::{Class, Country, Histogram, Key, Status};

use super::ALL_CELLS_MAX;

/// A dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Dim {
    Site,
    Pop,
    Country,
    Class,
    Rule,
    Status,
    Why,
}

impl Dim {
    pub(crate) const ALL: [Dim; 7] =
        [Dim::Site, Dim::Pop, Dim::Country, Dim::Class, Dim::Rule, Dim::Status, Dim::Why];

    /// Its name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Dim::Site => "site",
            Dim::Pop => "pop",
            Dim::Country => "country",
            Dim::Class => "class",
            Dim::Rule => "rule",
            Dim::Status => "status",
            Dim::Why => "why",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Dims(pub(crate) u8);

impl Dims {
    pub(crate) const SITE: u8 = 1 << Dim::Site as u8;
    pub(crate) const POP: u8 = 1 << Dim::Pop as u8;
    pub(crate) const COUNTRY: u8 = 1 << Dim::Country as u8;
    pub(crate) const CLASS: u8 = 1 << Dim::Class as u8;
    pub(crate) const RULE: u8 = 1 << Dim::Rule as u8;
    pub(crate) const STATUS: u8 = 1 << Dim::Status as u8;
    pub(crate) const WHY: u8 = 1 << Dim::Why as u8;
    /// All there are.
    pub(crate) const ALL: Dims = Dims(0x7f);

    pub(crate) fn with(self, dim: Dim) -> Dims {
        Dims(self.0 | dim.bit())
    }

    pub(crate) fn has(self, dim: Dim) -> bool {
        self.0 & dim.bit() != 0
    }

    pub(crate) fn has_all(self, others: Dims) -> bool {
        self.0 & others.0 == others.0
    }
}

/// What a cell is of: numbers by dimension, 0 in those that its view doesn't have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Coord(pub(crate) [u32; 7]);

impl Coord {
    /// Of a node's cell. What has a name is numbered by names, reasons too: their order in a program is no promise.
    pub(crate) fn of(key: &Key, site: u32, pop: u32, why: u32) -> Coord {
        let rule = u32::from(key.rule.0);
        Coord([site, pop, u32::from(key.country.number()), key.class as u32, rule, key.status as u32, why])
    }

    /// The same with these dimensions alone.
    pub(crate) fn only(&self, dims: Dims) -> Coord {
        let mut coord = *self;
        for dim in Dim::ALL.into_iter().filter(|dim| !dims.has(*dim)) {
            coord.0[dim as usize] = 0;
        }
        coord
    }
}

/// Whether the values of a dimension are numbered by names.
pub(crate) fn is_named(dim: Dim) -> bool {
    matches!(dim, Dim::Site | Dim::Pop | Dim::Why)
}

/// The text of a value, where it is no name.
pub(crate) fn text_of(dim: Dim, number: u32) -> Option<String> {
    let small = number as usize;
    Some(match dim {
        Dim::Site | Dim::Pop | Dim::Why => return None,
        Dim::Country => Country::of_number(number as u16).to_string(),
        Dim::Class => Class::ALL.get(small).map_or("-", |class| class.as_str()).to_owned(),
        Dim::Status => Status::ALL.get(small).map_or("-", |status| status.as_str()).to_owned(),
        Dim::Rule => match number {
            0 => "defaults".to_owned(),
            number if number == u32::from(stats::Rule::OTHERS.0) => "(others)".to_owned(),
            number => number.to_string(),
        },
    })
}

/// The number of a value's text, where it is no name; `None` when there is no such value.
pub(crate) fn number_of(dim: Dim, text: &str) -> Option<u32> {
    let found = |place: Option<usize>| place.map(|place| place as u32);
    match dim {
        Dim::Site | Dim::Pop | Dim::Why => None,
        Dim::Country => match <[u8; 2]>::try_from(text.as_bytes()) {
            Ok(letters) => Some(u32::from(Country::of(letters).number())),
            Err(_) => (text == "-").then(|| u32::from(Country::UNKNOWN.number())),
        },
        Dim::Class => found(Class::ALL.iter().position(|class| class.as_str() == text)),
        Dim::Status => found(Status::ALL.iter().position(|status| status.as_str() == text)),
        Dim::Rule if text == "defaults" => Some(0),
        Dim::Rule => text.parse::<u16>().ok().map(u32::from),
    }
}

/// Sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) errors: u64,
    pub(crate) bytes: u64,
    pub(crate) hit_bytes: u64,
    pub(crate) origin_requests: u64,
    pub(crate) origin_bytes: u64,
    pub(crate) first_byte: Histogram,
}

impl Sums {
    /// Adds others.
    pub(crate) fn merge(&mut self, other: &Sums) {
        for (sum, more) in self.numbers_mut().into_iter().zip(other.numbers()) {
            *sum = sum.saturating_add(more);
        }
        self.first_byte.merge(&other.first_byte);
    }

    fn numbers(&self) -> [u64; 7] {
        [
            self.requests,
            self.hits,
            self.errors,
            self.bytes,
            self.hit_bytes,
            self.origin_requests,
            self.origin_bytes,
        ]
    }

    fn numbers_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.requests,
            &mut self.hits,
            &mut self.errors,
            &mut self.bytes,
            &mut self.hit_bytes,
            &mut self.origin_requests,
            &mut self.origin_bytes,
        ]
    }

    fn read(bytes: &[u8]) -> Result<Sums, Damaged> {
        let mut reader = Reader(bytes);
        let mut sums = Sums::default();
        for number in sums.numbers_mut() {
            *number = reader.number()?;
        }
        sums.first_byte = Histogram::read(&mut reader)?;
        Ok(sums)
    }
}

/// The form of a bucket's cells: there are some, or there were too many.
pub(super) const CELLS: u8 = 0;
pub(super) const TOO_MANY: u8 = 1;

/// A bucket of a view.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bucket {
    Cells(HashMap<Coord, Sums>),
    /// It had more than [`ALL_CELLS_MAX`].
    TooMany,
}

impl Bucket {
    /// Adds another one.
    pub(crate) fn merge(&mut self, other: Bucket, view: Dims) {
        match (&mut *self, other) {
            (Bucket::Cells(cells), Bucket::Cells(others)) => {
                for (coord, sums) in others {
                    cells.entry(coord).or_default().merge(&sums);
                }
                if view == Dims::ALL && cells.len() > ALL_CELLS_MAX {
                    *self = Bucket::TooMany;
                }
            }
            _ => *self = Bucket::TooMany,
        }
    }

    /// As it lies in the database.
    pub(crate) fn write(&self, view: Dims) -> Vec<u8> {
        let Bucket::Cells(cells) = self else { return vec![TOO_MANY] };
        let mut out = vec![CELLS];
        let mut ordered: Vec<(&Coord, &Sums)> = cells.iter().collect();
        ordered.sort_unstable_by_key(|(coord, _)| **coord);
        let mut payload = Vec::new();
        for (coord, sums) in ordered {
            for dim in Dim::ALL.into_iter().filter(|dim| view.has(*dim)) {
                write_number(&mut out, u64::from(coord.0[dim as usize]));
            }
            payload.clear();
            sums.numbers().into_iter().for_each(|number| write_number(&mut payload, number));
            sums.first_byte.write(&mut payload);
            write_number(&mut out, payload.len() as u64);
            out.extend_from_slice(&payload);
        }
        out
    }

    /// From the database.
    pub(crate) fn read(bytes: &[u8], view: Dims) -> Result<Bucket, Damaged> {
        let mut cells = HashMap::new();
        let all = each(bytes, view, |coord, sums| {
            cells.insert(coord, sums.read()?);
            Ok(())
        })?;
        Ok(if all { Bucket::Cells(cells) } else { Bucket::TooMany })
    }
}

/// Sums that have not been looked at yet.
pub(crate) struct Unread<'a>(&'a [u8]);

impl Unread<'_> {
    pub(crate) fn read(&self) -> Result<Sums, Damaged> {
        Sums::read(self.0)
    }

    /// Adds them to others: half of what reading them first would cost.
    pub(crate) fn add_to(&self, sums: &mut Sums) -> Result<(), Damaged> {
        let mut reader = Reader(self.0);
        for number in sums.numbers_mut() {
            *number = number.saturating_add(reader.number()?);
        }
        sums.first_byte.merge_from(&mut reader)
    }
}

/// Shows each cell of a bucket; `false` when it had too many.
pub(crate) fn each(
    bytes: &[u8],
    view: Dims,
    mut show: impl FnMut(Coord, Unread<'_>) -> Result<(), Damaged>,
) -> Result<bool, Damaged> {
    each_of(bytes, view, |coord, sums| show(Coord(coord), Unread(sums)))
}

/// The same of a bucket of any kind: the numbers of the first dimensions, 0 in those that the view has not, and what lies behind.
pub(super) fn each_of<const N: usize>(
    bytes: &[u8],
    view: Dims,
    mut show: impl FnMut([u32; N], &[u8]) -> Result<(), Damaged>,
) -> Result<bool, Damaged> {
    let mut reader = Reader(bytes);
    match reader.byte()? {
        CELLS => {}
        TOO_MANY => return Ok(false),
        _ => return Err(Damaged("is of another form")),
    }
    while !reader.0.is_empty() {
        let mut coord = [0; N];
        for index in (0..N).filter(|index| view.0 >> index & 1 == 1) {
            coord[index] =
                u32::try_from(reader.number()?).map_err(|_| Damaged("has a coordinate that is none"))?;
        }
        let length = reader.count(1)?;
        show(coord, reader.take(length)?)?;
    }
    Ok(true)
}
