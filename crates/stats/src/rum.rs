//! What visitors' browsers say of page views: times by site, country and group of pages.
//!
//! A [`Spread`] keeps values as they are, to the millisecond, while there are few different ones, and halves its resolution when there
//! are more: so a quantile of a quiet site is exact, that of a busy one has an error that is known, and neither takes more memory than
//! it may.

use crate::bytes::{Reader, write_number, write_text};
use crate::key::Country;
use crate::report::Damaged;

/// Different values of a spread: beyond, neighbours are taken for one.
pub const VALUES_MAX: usize = 512;

/// The longest time that is a time, in ms. Who waits for longer has gone away, or has a phone that slept.
pub const TIME_MS_MAX: u32 = 60_000;

/// The largest Cumulative Layout Shift that is one, in thousandths.
pub const SHIFT_MAX: u32 = 10_000;

/// Halvings of the resolution: from 1 ms to 128 ms, with which all times that there are have fewer than [`VALUES_MAX`] values twice over.
const HALVINGS_MAX: u8 = 7;
const _: () = assert!((TIME_MS_MAX as usize >> HALVINGS_MAX) < VALUES_MAX);

/// Bytes of a group's name.
pub const GROUP_BYTES_MAX: usize = 64;

macro_rules! metrics {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $good:expr, $poor:expr;)*) => {
        /// What is measured of a page view.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Metric { $($(#[doc = $doc])* $name,)* }

        impl Metric {
            /// All there are, in declaration order, which is that on the wire.
            pub const ALL: &'static [Metric] = &[$(Metric::$name),*];

            /// Its name, in the API and in beacons.
            pub const fn as_str(self) -> &'static str { match self { $(Metric::$name => $text,)* } }

            /// Up to where it is good, and above what it is poor, as web.dev has it; `None` for what is only a part of another.
            pub const fn bounds(self) -> Option<(u32, u32)> {
                match self { $(Metric::$name => if $poor > 0 { Some(($good, $poor)) } else { None },)* }
            }
        }
    };
}

metrics! {
    /// Time to the first byte of the document, redirects included (Navigation Timing 2, `responseStart`).
    Ttfb = "ttfb", 800, 1_800;
    /// First Contentful Paint (Paint Timing).
    Fcp = "fcp", 1_800, 3_000;
    /// Largest Contentful Paint before the first input.
    Lcp = "lcp", 2_500, 4_000;
    /// Interaction to Next Paint (Event Timing): the slowest interaction, but for one in fifty.
    Inp = "inp", 200, 500;
    /// Cumulative Layout Shift, the largest session window, in thousandths.
    Cls = "cls", 100, 250;
    /// End of the load event.
    Load = "load", 0, 0;
    /// Of the time to the first byte: redirects, and a service worker's start.
    Redirect = "redirect", 0, 0;
    /// Finding the address.
    Dns = "dns", 0, 0;
    /// TCP's handshake.
    Connect = "connect", 0, 0;
    /// TLS's handshake; QUIC's whole one.
    Tls = "tls", 0, 0;
    /// From the request to the first byte of the answer.
    Wait = "wait", 0, 0;
}

/// How many metrics there are.
pub const METRICS: usize = Metric::ALL.len();

impl Metric {
    /// The largest value: in ms, or thousandths.
    pub const fn max(self) -> u32 {
        match self {
            Metric::Cls => SHIFT_MAX,
            _ => TIME_MS_MAX,
        }
    }
}

/// What one page view said, by [`Metric`]; what its browser does not know, or never came about, is missing.
pub type View = [Option<u32>; METRICS];

/// Values and how often each came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Values are kept without so many of their lowest bits.
    halvings: u8,
    counts: Vec<(u32, u64)>,
}

impl Spread {
    /// Adds a value so many times.
    pub fn add(&mut self, value: u32, count: u64) {
        self.add_kept(value.min(TIME_MS_MAX) >> self.halvings, count);
        self.fit();
    }

    fn add_kept(&mut self, kept: u32, count: u64) {
        match self.counts.binary_search_by_key(&kept, |(known, _)| *known) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (kept, count)),
        }
    }

    /// Adds what another one has. The outcome does not depend on the order in which several are added.
    pub fn merge(&mut self, other: &Spread) {
        while self.halvings < other.halvings {
            self.halve();
        }
        let finer = self.halvings - other.halvings;
        for (kept, count) in &other.counts {
            self.add_kept(kept >> finer, *count);
        }
        self.fit();
    }

    fn fit(&mut self) {
        while self.counts.len() > VALUES_MAX {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.halvings += 1;
        let mut halved: Vec<(u32, u64)> = Vec::with_capacity(self.counts.len() / 2 + 1);
        for (kept, count) in &self.counts {
            match halved.last_mut().filter(|(last, _)| *last == kept >> 1) {
                Some((_, sum)) => *sum = sum.saturating_add(*count),
                None => halved.push((kept >> 1, *count)),
            }
        }
        self.counts = halved;
    }

    /// How many values it holds.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// How many are at most `bound`: exact while the resolution is 1.
    pub fn count_to(&self, bound: u32) -> u64 {
        let counted = self.counts.iter().filter(|(kept, _)| self.value(*kept) <= bound);
        counted.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Values that differ by less than this are one: 1 is exact.
    pub fn resolution(&self) -> u32 {
        1 << self.halvings
    }

    /// The value that `per_mille` of all are at or below (nearest rank), the middle of those that are one; `None` without any.
    pub fn quantile(&self, per_mille: u64) -> Option<u32> {
        let rank = (u128::from(self.count()) * u128::from(per_mille)).div_ceil(1000).max(1) as u64;
        let mut seen = 0u64;
        let reaches = |(_, count): &&(u32, u64)| {
            seen = seen.saturating_add(*count);
            seen >= rank
        };
        self.counts.iter().find(reaches).map(|(kept, _)| self.value(*kept))
    }

    fn value(&self, kept: u32) -> u32 {
        (kept << self.halvings) + ((1 << self.halvings) - 1) / 2
    }

    /// Appends it to bytes; [`Spread::read`] reads it back.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.halvings);
        write_number(out, self.counts.len() as u64);
        let mut before = 0;
        for (kept, count) in &self.counts {
            write_number(out, u64::from(kept - before));
            write_number(out, *count);
            before = *kept;
        }
    }

    /// Reads what [`Spread::write`] has written.
    ///
    /// # Errors
    /// It is none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let halvings = reader.byte()?;
        if halvings > HALVINGS_MAX {
            return Err(WRONG);
        }
        let count = reader.count(2)?;
        if count > VALUES_MAX {
            return Err(WRONG);
        }
        let (mut counts, mut kept) = (Vec::with_capacity(count), 0u32);
        for index in 0..count {
            let gap = u32::try_from(reader.number()?).map_err(|_| WRONG)?;
            kept = kept.checked_add(gap).filter(|kept| *kept <= TIME_MS_MAX >> halvings).ok_or(WRONG)?;
            if gap == 0 && index > 0 {
                return Err(WRONG);
            }
            counts.push((kept, reader.number()?));
        }
        Ok(Spread { halvings, counts })
    }
}

const WRONG: Damaged = Damaged("has page views that are none");

/// What page views are told apart by at one node. Sites by number, as in [`crate::Key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Of {
    /// The site.
    pub site: u32,
    /// Where the visitor is.
    pub country: Country,
    /// The group of pages; [`GROUP_BYTES_MAX`] at most.
    pub group: Box<str>,
}

/// Page views of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    /// How many.
    pub count: u64,
    /// What they said, by [`Metric`].
    pub spreads: [Spread; METRICS],
}

impl Views {
    /// Adds a page view.
    pub fn add(&mut self, view: &View) {
        self.count = self.count.saturating_add(1);
        for (spread, value) in self.spreads.iter_mut().zip(view) {
            if let Some(value) = value {
                spread.add(*value, 1);
            }
        }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Views) {
        self.count = self.count.saturating_add(other.count);
        for (spread, more) in self.spreads.iter_mut().zip(&other.spreads) {
            spread.merge(more);
        }
    }

    /// What they said of a metric.
    pub fn of(&self, metric: Metric) -> &Spread {
        &self.spreads[metric as usize]
    }

    /// Appends them to bytes; [`Views::read`] reads them back. Metrics that another version has and this one has not are passed over.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_number(out, self.count);
        write_number(out, METRICS as u64);
        self.spreads.iter().for_each(|spread| spread.write(out));
    }

    /// Reads what [`Views::write`] has written.
    ///
    /// # Errors
    /// They are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut views = Views { count: reader.number()?, ..Views::default() };
        for index in 0..reader.count(2)? {
            let spread = Spread::read(reader)?;
            if let Some(known) = views.spreads.get_mut(index) {
                *known = spread;
            }
        }
        Ok(views)
    }
}

pub(crate) fn write_all(out: &mut Vec<u8>, all: &[(Of, Views)]) {
    write_number(out, all.len() as u64);
    for (of, views) in all {
        write_number(out, u64::from(of.site));
        write_number(out, u64::from(of.country.number()));
        write_text(out, &of.group);
        views.write(out);
    }
}

pub(crate) fn read_all(reader: &mut Reader<'_>, sites: usize) -> Result<Vec<(Of, Views)>, Damaged> {
    let mut all = Vec::new();
    for _ in 0..reader.count(5)? {
        let site = u32::try_from(reader.number()?).ok().filter(|site| (*site as usize) < sites);
        let site = site.ok_or(Damaged("names a site that it does not have"))?;
        let country = Country::of_number(u16::try_from(reader.number()?).map_err(|_| WRONG)?);
        let group: Box<str> = reader.text()?.into();
        if group.len() > GROUP_BYTES_MAX {
            return Err(WRONG);
        }
        all.push((Of { site, country, group }, Views::read(reader)?));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(values: &[u32]) -> Spread {
        let mut spread = Spread::default();
        values.iter().for_each(|value| spread.add(*value, 1));
        spread
    }

    #[test]
    fn few_values_are_kept_to_the_millisecond() {
        let spread = spread(&[700, 12, 813, 402]);
        assert_eq!(spread.resolution(), 1);
        assert_eq!(
            [250, 500, 750, 1000].map(|per_mille| spread.quantile(per_mille)),
            [12, 402, 700, 813].map(Some)
        );
        assert_eq!((spread.count(), spread.count_to(402)), (4, 2));
        assert_eq!(Spread::default().quantile(750), None);
    }

    #[test]
    fn many_values_stay_within_the_resolution_that_is_told() {
        let values: Vec<u32> = (0..TIME_MS_MAX).step_by(7).collect();
        let spread = spread(&values);
        assert!(spread.counts.len() <= VALUES_MAX && spread.resolution() <= 128);
        for per_mille in [1, 500, 750, 990] {
            let wanted = f64::from(TIME_MS_MAX) * per_mille as f64 / 1000.0;
            let found = f64::from(spread.quantile(per_mille).unwrap());
            assert!((found - wanted).abs() <= f64::from(spread.resolution()), "{found} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_merging_makes_no_difference(
            values in prop::collection::vec(0..=TIME_MS_MAX, 0..2_000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let whole = spread(&values);
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(values.len() + 1)).collect();
            places.extend([0, values.len()]);
            places.sort_unstable();
            let mut merged = Spread::default();
            for pair in places.windows(2).rev() {
                merged.merge(&spread(&values[pair[0]..pair[1]]));
            }
            prop_assert_eq!(&merged, &whole);
            let mut bytes = Vec::new();
            whole.write(&mut bytes);
            prop_assert_eq!(Spread::read(&mut Reader(&bytes)), Ok(whole));
        }
    }
}
