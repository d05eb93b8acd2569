//! How long a visitor of a cell waits for a PoP: a guess by distance, corrected by what was measured.
//!
//! ```text
//! estimate = 10 ms + km / 54 per ms + R(all) + R(country, PoP) + R(cell, PoP)
//!                                                              or + R(country, AS, PoP) + R(cell, AS, PoP), of an AS that was measured
//! ```
//!
//! Of whom no data says which AS it is, R(country, /16, PoP) + R(cell, /20, PoP) stand for these (IPv6: /32 and /36), behind R(cell, PoP).
//! Of a PoP that an AS was not measured against, its cell speaks.
//!
//! Each R is what the estimates before it miss on average, times n / (n + 2): a single sample moves an estimate by a third. The first,
//! over all samples, is there because paths are longer than distances: without it, whichever PoP nobody has measured yet would look
//! the best. What was learned of a PoP says how sure an estimate is, and [`Estimates::prefer`] leaves geography's choice
//! only for a gain that is beyond that doubt: with few samples, geography decides. How much samples of one AS differ is learned from
//! them too, so an internet whose ways are steady is believed sooner.
//!
//! Pure: samples in, estimates out. Called by `table` and by `perigee route`.

use std::collections::{HashMap, HashSet};

use crate::systems::{is_prefix, wider};

/// What the first km costs: the visitor's own line, both ways.
pub const PRIOR_MS: f64 = 10.0;
/// How far a packet and its answer get per ms: half of what light does in fibre, as paths are no straight lines.
pub const PRIOR_KM_PER_MS: f64 = 54.0;
/// Light in glass, there and back: who claims to be faster has not been where it says.
pub const LIGHT_KM_PER_MS: f64 = 100.0;
/// A visitor may be nearer to a PoP than the middle of his cell by so many km.
const CELL_KM: f64 = 50.0;
/// Samples longer than this tell of a sleeping phone, not of a path.
pub const SAMPLE_MS_MAX: f64 = 2_000.0;
/// A sample, or a mean of several of one client, counts for at most so many ms more than those before it let expect: what a phone did
/// before it answered is no path.
const OUTLIER_MS: f64 = 60.0;
/// A choice is changed only for a gain of at least so many ms, and of [`GAIN_SHARE_MIN`]: resolvers' and objects' caches stay warm.
pub const GAIN_MS_MIN: f64 = 3.0;
/// See [`GAIN_MS_MIN`].
pub const GAIN_SHARE_MIN: f64 = 0.05;
/// How much one sample differs from the next of the same visitors.
const DOUBT_MS: f64 = 40.0;
/// Samples from which a level is believed by half.
const SHRINK: f64 = 2.0;
/// As [`DOUBT_MS`], within one autonomous system, whose visitors go the same ways: until samples say that it is less.
const SYSTEM_DOUBT_MS: f64 = 30.0;
/// What samples say is believed down to this: nobody makes it nothing by saying the same again and again.
const SYSTEM_DOUBT_MS_MIN: f64 = 8.0;
/// [`SYSTEM_DOUBT_MS`] counts for as many samples.
const SYSTEM_DOUBT_SAMPLES: f64 = 20.0;
/// Of what is distributed normally, the standard deviation ÷ the mean distance from the mean.
const DEVIATION_PER_DISTANCE: f64 = 1.2533;
/// So many times the doubt while it is a single sample that speaks.
const SINGLE_DOUBT: f64 = 1.5;
/// What a single sample of a system and cell is worth: it counts for both.
const SINGLE_WORTH: f64 = 2.0;
/// While a system has fewer samples, one of them may be of a phone that slept: what they say to be slow is doubted as anybody's.
const FEW: f64 = 3.0;
/// As [`SHRINK`], of a system.
const SYSTEM_SHRINK: f64 = 1.0;
/// A sample of the same system and country, in whichever cell, tells as much as one of the cell whose system is not known.
const SYSTEM_WORTH: f64 = 1.0;
/// A sample of the same country, but another cell, tells so much of one of the cell itself.
const COUNTRY_WORTH: f64 = 0.2;
/// Samples of one key that are kept in its sums; older ones fade (each new one weighs 1 / this, then).
const MEMORY_SAMPLES: f64 = 200.0;

/// Round trip by distance alone.
pub fn prior_ms(km: f64) -> f64 {
    PRIOR_MS + km / PRIOR_KM_PER_MS
}

/// The least round trip over a distance; what is below 0 is none.
pub(crate) fn light_ms(km: f64) -> f64 {
    km.max(0.0) / LIGHT_KM_PER_MS
}

/// Sums that are kept for cells, as many for autonomous systems, and as many for these in cells: some 15 MB.
const SUMS_MAX: usize = 200_000;
/// What [`Estimates::fade`] leaves of every sum, each time.
const FADE: f64 = 0.98;
/// A sum that is worth less than so many samples is forgotten.
const WORTH_MIN: f64 = 0.3;

/// Who was measured against which PoP.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The visitor's cell.
    pub cell: u16,
    /// Its country, as the cell has it.
    pub country: [u8; 2],
    /// Its autonomous system, or what stands for it ([`crate::systems::Systems::of`]); 0 when it shall not be told apart.
    pub asn: u32,
    /// Which PoP.
    pub pop: u16,
    /// From the cell to the PoP.
    pub km: f64,
    /// Whether that is a place: of another CDN, which has many, `km` is a guess, and nothing too fast.
    pub is_placed: bool,
    /// What was measured: the mean, if it was several times.
    pub rtt_ms: f64,
    /// How many times.
    pub count: u32,
}

/// Why a sample is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing gets there and back so fast.
    FasterThanLight,
    /// Not a time at all, or beyond [`SAMPLE_MS_MAX`].
    OutOfRange,
    /// There is no room for another cell and PoP.
    Full,
}

/// What was learned of a sample that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// All that it says.
    Whole,
    /// Not, or not in full, of its system: there is no room for another one and PoP.
    WithoutSystem,
}

/// Number and sum, in which what is old fades.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: f64,
    ms: f64,
}

impl Sum {
    fn add(&mut self, ms: f64, count: f64) {
        let keep = if self.count >= MEMORY_SAMPLES { 1.0 - (count / MEMORY_SAMPLES).min(1.0) } else { 1.0 };
        self.count = self.count * keep + count;
        self.ms = self.ms * keep + ms * count;
    }

    fn shrunk(self, before_ms: f64, shrink: f64) -> f64 {
        if self.count == 0.0 {
            return 0.0;
        }
        (self.ms / self.count - before_ms) * self.count / (self.count + shrink)
    }

    fn mean_or(self, otherwise: f64) -> f64 {
        if self.count == 0.0 { otherwise } else { self.ms / self.count }
    }

    fn fade(&mut self) -> bool {
        (self.count, self.ms) = (self.count * FADE, self.ms * FADE);
        self.count >= WORTH_MIN
    }
}

/// Sums by PoP.
#[derive(Clone, Debug, Default)]
struct ByPop(Vec<(u16, Sum)>);

impl ByPop {
    fn get(&self, pop: u16) -> Sum {
        self.0.iter().find(|(known, _)| *known == pop).map_or_else(Sum::default, |(_, sum)| *sum)
    }

    /// Returns whether there is one more.
    fn add(&mut self, pop: u16, ms: f64, count: f64) -> bool {
        match self.0.iter_mut().find(|(known, _)| *known == pop) {
            Some((_, sum)) => {
                sum.add(ms, count);
                false
            }
            None => {
                let mut sum = Sum::default();
                sum.add(ms, count);
                self.0.push((pop, sum));
                true
            }
        }
    }
}

/// What was measured. All sums are of the difference to [`prior_ms`].
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    all: Sum,
    countries: HashMap<[u8; 2], ByPop>,
    cells: HashMap<u16, ByPop>,
    /// Of countries and systems, or the wider prefixes that stand for these.
    networks: HashMap<([u8; 2], u32), ByPop>,
    systems: HashMap<(u16, u32), ByPop>,
    /// How far samples lie from the mean of those before them in `networks`, and the same by country.
    scatter: Sum,
    scatters: HashMap<[u8; 2], Sum>,
    /// How many there are.
    sums: Sums,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    cells: usize,
    networks: usize,
    systems: usize,
}

/// What all samples, and those of a country to a PoP, miss by.
fn of_country_ms(all: Sum, country: Sum) -> f64 {
    let of_all = all.shrunk(0.0, SHRINK);
    of_all + country.shrunk(of_all, SHRINK)
}

/// What was measured of the visitors of a cell, or of an autonomous system in it.
pub struct Known<'e> {
    all: Sum,
    country: Option<&'e ByPop>,
    cell: Option<&'e ByPop>,
    network: Option<&'e ByPop>,
    system: Option<&'e ByPop>,
    is_prefix: bool,
    system_doubt_ms: f64,
}

impl Known<'_> {
    /// How long they wait for `pop`, which is `km` away.
    pub fn of(&self, pop: u16, km: f64) -> Estimate {
        let prior_ms = prior_ms(km);
        if self.all.count == 0.0 {
            return Estimate { prior_ms, ..Estimate::default() };
        }
        let sum = |level: Option<&ByPop>| level.map_or_else(Sum::default, |sums| sums.get(pop));
        let country = sum(self.country);
        let mut residual_ms = of_country_ms(self.all, country);
        let cell = sum(self.cell);
        let (network, system) = (sum(self.network), sum(self.system));
        let own_samples = SYSTEM_WORTH * network.count + system.count;
        // What the cell says is of all its systems together: of a system that was measured, the country's others say as much.
        let others = Sum { count: (cell.count - system.count).max(0.0), ms: cell.mean_or(0.0) };
        let others = Sum { ms: others.ms * others.count, ..others };
        if own_samples == 0.0 || self.is_prefix {
            residual_ms += others.shrunk(residual_ms, SHRINK);
        }
        if own_samples == 0.0 {
            let samples = cell.count + COUNTRY_WORTH * (country.count - cell.count).max(0.0);
            return Estimate { prior_ms, residual_ms, samples, doubt_ms: DOUBT_MS, ..Estimate::default() };
        }
        let before_ms = residual_ms;
        residual_ms += network.shrunk(residual_ms, SYSTEM_SHRINK);
        residual_ms += system.shrunk(residual_ms, SHRINK);
        let own_ms = residual_ms - before_ms;
        let is_own = own_ms.abs() > before_ms.abs();
        let elsewhere = COUNTRY_WORTH * (country.count - network.count).max(0.0);
        let samples = own_samples + if is_own { 0.0 } else { elsewhere };
        let single = if own_samples < SINGLE_WORTH + 1.0 { SINGLE_DOUBT } else { 1.0 };
        let doubt_ms = match is_own && own_ms > 0.0 && network.count < FEW {
            true => DOUBT_MS * SINGLE_DOUBT,
            false => self.system_doubt_ms * single,
        };
        Estimate { prior_ms, residual_ms, samples, doubt_ms, own_samples, is_own }
    }

    /// Whether something is known of their system alone.
    pub fn is_of_system(&self) -> bool {
        self.network.is_some()
    }

    /// Whether that is known of the whole country, or of the wider prefix, and nothing of their place and prefix by itself.
    pub fn is_of_wider_alone(&self) -> bool {
        self.system.is_none()
    }

    /// Whether nobody of them, or of their country, was measured: then distance decides.
    pub fn is_nothing(&self) -> bool {
        self.country.is_none()
    }
}

/// An estimate and its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// By distance.
    pub prior_ms: f64,
    /// What measurements add to it.
    pub residual_ms: f64,
    /// What the measurements are worth, in samples of the cell itself.
    pub samples: f64,
    /// How much one of these differs from the next.
    doubt_ms: f64,
    /// Of these, those of their own system.
    own_samples: f64,
    /// Whether these have moved it by more than all others.
    is_own: bool,
}

impl Estimate {
    /// The estimate itself.
    pub fn ms(&self) -> f64 {
        self.prior_ms + self.residual_ms
    }
}

impl Estimates {
    /// Takes a sample, unless it can't be true.
    pub fn add(&mut self, sample: &Sample) -> Result<Learned, Refused> {
        if !(sample.rtt_ms > 0.0 && sample.rtt_ms <= SAMPLE_MS_MAX) {
            return Err(Refused::OutOfRange);
        }
        if sample.is_placed && sample.rtt_ms < light_ms(sample.km - CELL_KM) {
            return Err(Refused::FasterThanLight);
        }
        let of = |level: Option<&ByPop>| level.map_or_else(Sum::default, |sums| sums.get(sample.pop));
        let known = self.known(sample.cell, sample.country, sample.asn);
        let (country, cell) = (of(known.country), of(known.cell));
        let (network, system) = (of(known.network), of(known.system));
        if self.sums.cells >= SUMS_MAX && cell.count == 0.0 {
            return Err(Refused::Full);
        }
        let count = f64::from(sample.count.max(1));
        let missed = sample.rtt_ms - prior_ms(sample.km);
        let expected = of_country_ms(self.all, country);
        // What is really slower becomes known, as the limit goes with its mean.
        let limited = |known: &[Sum]| {
            missed.min(known.iter().map(|sum| sum.mean_or(expected)).fold(expected, f64::max) + OUTLIER_MS)
        };
        self.all.add(limited(&[]), count);
        self.countries.entry(sample.country).or_default().add(sample.pop, limited(&[]), count);
        let is_new = self.cells.entry(sample.cell).or_default().add(sample.pop, limited(&[cell]), count);
        self.sums.cells += usize::from(is_new);
        if sample.asn == 0 {
            return Ok(Learned::Whole);
        }
        let missed = limited(&[network, system]);
        if network.count >= 1.0 {
            // Both means are in doubt: by as much less as more samples are in them.
            let distance = (missed - network.mean_or(0.0)).abs();
            let distance = distance * (count * network.count / (count + network.count)).sqrt();
            self.scatter.add(distance, 1.0);
            self.scatters.entry(sample.country).or_default().add(distance, 1.0);
        }
        let mut learned = Learned::Whole;
        if network.count > 0.0 || self.sums.networks < SUMS_MAX {
            let sums = self.networks.entry((sample.country, wider(sample.asn))).or_default();
            self.sums.networks += usize::from(sums.add(sample.pop, missed, count));
        } else {
            learned = Learned::WithoutSystem;
        }
        if system.count > 0.0 || self.sums.systems < SUMS_MAX {
            let sums = self.systems.entry((sample.cell, sample.asn)).or_default();
            self.sums.systems += usize::from(sums.add(sample.pop, missed, count));
        } else {
            learned = Learned::WithoutSystem;
        }
        Ok(learned)
    }

    /// As the country's samples say it, as far as there are some, and else all.
    fn system_doubt_ms(&self, country: [u8; 2]) -> f64 {
        let shrunk = |before_ms: f64, Sum { count, ms }: Sum| {
            let sum = before_ms * SYSTEM_DOUBT_SAMPLES + DEVIATION_PER_DISTANCE * ms;
            sum / (SYSTEM_DOUBT_SAMPLES + count)
        };
        let of_country = self.scatters.get(&country).copied().unwrap_or_default();
        shrunk(shrunk(SYSTEM_DOUBT_MS, self.scatter), of_country).clamp(SYSTEM_DOUBT_MS_MIN, SYSTEM_DOUBT_MS)
    }

    /// Lets everything count for less; what is worth nothing any more is forgotten. To be called every ten minutes: half of a sample is
    /// left after six hours.
    pub fn fade(&mut self) {
        self.all.fade();
        self.scatter.fade();
        self.scatters.retain(|_, sum| sum.fade());
        fn fade<K>(levels: &mut HashMap<K, ByPop>) -> usize {
            levels.retain(|_, sums| {
                sums.0.retain_mut(|(_, sum)| sum.fade());
                !sums.0.is_empty()
            });
            levels.values().map(|sums| sums.0.len()).sum()
        }
        fade(&mut self.countries);
        self.sums = Sums {
            cells: fade(&mut self.cells),
            networks: fade(&mut self.networks),
            systems: fade(&mut self.systems),
        };
        if self.countries.is_empty() {
            *self = Estimates::default();
        }
    }

    /// Gives PoPs other numbers, as a changed configuration does; those of which `to` says nothing are forgotten.
    pub fn renumber(&mut self, to: impl Fn(u16) -> Option<u16>) {
        fn renumber<K>(levels: &mut HashMap<K, ByPop>, to: &impl Fn(u16) -> Option<u16>) -> usize {
            levels.retain(|_, sums| {
                let known = std::mem::take(&mut sums.0);
                sums.0 = known.into_iter().filter_map(|(pop, sum)| Some((to(pop)?, sum))).collect();
                !sums.0.is_empty()
            });
            levels.values().map(|sums| sums.0.len()).sum()
        }
        renumber(&mut self.countries, &to);
        self.sums = Sums {
            cells: renumber(&mut self.cells, &to),
            networks: renumber(&mut self.networks, &to),
            systems: renumber(&mut self.systems, &to),
        };
    }

    /// Forgets which cell and system was which, as other location data numbers them anew; what is known of countries stays.
    pub fn forget_cells(&mut self) {
        self.cells.clear();
        self.systems.clear();
        self.sums = Sums { cells: 0, systems: 0, ..self.sums };
    }

    /// Whether something was measured of systems by themselves.
    pub fn knows_systems(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Countries of whose systems something was measured.
    pub fn countries_with_systems(&self) -> HashSet<[u8; 2]> {
        self.networks.keys().map(|(country, _)| *country).collect()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.all.count == 0.0
    }

    /// What is known of the visitors of `cell`. `asn`: as in [`Sample`]; 0: whichever their network is.
    pub fn known(&self, cell: u16, country: [u8; 2], asn: u32) -> Known<'_> {
        Known {
            all: self.all,
            country: self.countries.get(&country),
            cell: self.cells.get(&cell),
            network: if asn == 0 { None } else { self.networks.get(&(country, wider(asn))) },
            system: if asn == 0 { None } else { self.systems.get(&(cell, asn)) },
            is_prefix: is_prefix(asn),
            system_doubt_ms: self.system_doubt_ms(country),
        }
    }

    /// The gain, in ms, above which `other` is to be preferred to `first`, where distance alone prefers `first`.
    ///
    /// More than the usual hysteresis, by the doubt that so few samples leave.
    pub fn margin_ms(first: &Estimate, other: &Estimate) -> f64 {
        let steady = GAIN_MS_MIN.max(first.ms() * GAIN_SHARE_MIN);
        // Where a system differs from all others, these do not say how it does at another PoP.
        let is_own = first.is_own || other.is_own;
        let worth = |one: &Estimate| 1.0 / (1.0 + if is_own { one.own_samples } else { one.samples });
        let doubt = first.doubt_ms.max(other.doubt_ms) * (worth(first) + worth(other)).sqrt();
        // Without any sample of either, distance is all there is, and it is compared as it stands.
        if first.samples + other.samples == 0.0 { f64::INFINITY } else { steady.max(doubt) }
    }

    /// The best of `candidates`, which begin with geography's choice: that one, unless another is better beyond doubt.
    /// The index; 0 for an empty list.
    pub fn prefer(candidates: &[(Estimate, f64)]) -> usize {
        let Some((first, first_extra)) = candidates.first() else { return 0 };
        let first_ms = first.ms() + first_extra;
        let better = candidates.iter().enumerate().skip(1).filter(|(_, (other, extra))| {
            first_ms - (other.ms() + extra) > Estimates::margin_ms(first, other)
        });
        let by_ms = |(estimate, extra): &(Estimate, f64)| estimate.ms() + extra;
        better.min_by(|(_, a), (_, b)| by_ms(a).total_cmp(&by_ms(b))).map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::Systems;
    use proptest::prelude::*;

    fn sample(pop: u16, km: f64, rtt_ms: f64) -> Sample {
        Sample { cell: 1, country: *b"DE", asn: 3320, pop, km, is_placed: true, rtt_ms, count: 1 }
    }

    fn of(estimates: &Estimates, asn: u32, pop: u16, km: f64) -> Estimate {
        estimates.known(1, *b"DE", asn).of(pop, km)
    }

    #[test]
    fn without_samples_distance_decides() {
        let estimates = Estimates::default();
        let near = of(&estimates, 0, 0, 540.0);
        assert_eq!((near.ms(), near.samples), (20.0, 0.0));
    }

    #[test]
    fn a_detour_that_is_measured_often_is_avoided_and_one_sample_is_not_enough() {
        let choose = |count| {
            let mut estimates = Estimates::default();
            for _ in 0..count {
                estimates.add(&sample(0, 100.0, 60.0)).unwrap();
                estimates.add(&sample(1, 400.0, 25.0)).unwrap();
            }
            let of = |pop, km| (of(&estimates, 3320, pop, km), 0.0);
            Estimates::prefer(&[of(0, 100.0), of(1, 400.0)])
        };
        assert_eq!((choose(0), choose(1), choose(20)), (0, 0, 1));
    }

    #[test]
    fn what_is_faster_than_light_or_no_time_is_refused() {
        let mut estimates = Estimates::default();
        assert_eq!(estimates.add(&sample(0, 6_000.0, 20.0)), Err(Refused::FasterThanLight));
        for rtt in [0.0, -1.0, f64::NAN, f64::INFINITY, 5_000.0] {
            assert_eq!(estimates.add(&sample(0, 0.0, rtt)), Err(Refused::OutOfRange), "{rtt}");
        }
        assert!(estimates.is_empty());
    }

    #[test]
    fn a_system_has_ways_of_its_own() {
        let mut estimates = Estimates::default();
        for cell in 0..6 {
            for (asn, near, far) in [(3320, 60.0, 25.0), (6805, 18.0, 30.0)] {
                for (pop, km, rtt_ms) in [(0, 100.0, near), (1, 400.0, far)] {
                    estimates.add(&Sample { cell, asn, ..sample(pop, km, rtt_ms) }).unwrap();
                }
            }
        }
        let choose = |asn| {
            let of = |pop, km| (estimates.known(99, *b"DE", asn).of(pop, km), 0.0);
            Estimates::prefer(&[of(0, 100.0), of(1, 400.0)])
        };
        assert_eq!(
            (choose(3320), choose(6805), choose(0)),
            (1, 0, 0),
            "also in a cell where nobody was measured"
        );
    }

    #[test]
    fn a_prefix_stands_for_a_system_that_is_not_known() {
        let systems = Systems::default();
        let system = |address: &str| systems.of(address.parse().unwrap());
        let mut estimates = Estimates::default();
        for (pop, km, rtt_ms) in [(0, 100.0, 90.0), (1, 400.0, 25.0)] {
            for address in ["10.1.0.1", "10.1.16.1", "10.1.32.1", "10.1.0.2"] {
                let asn = system(address);
                estimates.add(&Sample { asn, ..sample(pop, km, rtt_ms) }).unwrap();
            }
            for _ in 0..4 {
                let asn = system("10.1.240.1");
                estimates.add(&Sample { asn, ..sample(pop, km, 115.0 - rtt_ms) }).unwrap();
            }
        }
        let choose = |address| {
            let of = |pop, km| (of(&estimates, system(address), pop, km), 0.0);
            Estimates::prefer(&[of(0, 100.0), of(1, 400.0)])
        };
        assert_eq!((choose("10.1.0.9"), choose("10.1.240.9"), choose("10.2.0.1")), (1, 0, 0));
    }

    #[test]
    fn samples_that_agree_are_believed_sooner_than_samples_that_do_not() {
        let choose = |off_ms: f64| {
            let mut estimates = Estimates::default();
            for number in 0..400 {
                let off_ms = if number % 2 == 0 { off_ms } else { -off_ms };
                let other = Sample { cell: 7, country: *b"FR", ..sample(0, 100.0, 60.0 + off_ms) };
                estimates.add(&other).unwrap();
            }
            for (pop, km, rtt_ms) in [(0, 100.0, 50.0), (1, 400.0, 32.0)] {
                (0..2).for_each(|_| assert!(estimates.add(&sample(pop, km, rtt_ms)).is_ok()));
            }
            let of = |pop, km| (of(&estimates, 3320, pop, km), 0.0);
            Estimates::prefer(&[of(0, 100.0), of(1, 400.0)])
        };
        assert_eq!((choose(2.0), choose(50.0)), (1, 0));
    }

    /// Another system's `count` good samples of cell 1, of PoPs 100 and 500 km away.
    fn country_of_another_system(count: usize) -> Estimates {
        let mut estimates = Estimates::default();
        for number in 0..count {
            let off_ms = (number % 5) as f64;
            estimates.add(&Sample { asn: 1, ..sample(0, 100.0, 15.0 + off_ms) }).unwrap();
            estimates.add(&Sample { asn: 1, ..sample(1, 500.0, 25.0 + off_ms) }).unwrap();
        }
        estimates
    }

    fn choose(estimates: &Estimates, cell: u16, asn: u32, km: [f64; 2]) -> usize {
        let known = estimates.known(cell, *b"DE", asn);
        Estimates::prefer(&[(known.of(0, km[0]), 0.0), (known.of(1, km[1]), 0.0)])
    }

    #[test]
    fn one_beacon_of_a_prefix_takes_nothing_away_from_what_its_town_says() {
        let system = |number: u32| Systems::default().of_24(number << 8);
        let mut estimates = Estimates::default();
        for number in 0..200 {
            for of_country in 0..20 {
                let asn = system(1_000 + (number * 20 + of_country) % 500);
                estimates.add(&Sample { asn, ..sample(0, 100.0, 17.0) }).unwrap();
                estimates.add(&Sample { asn, ..sample(1, 400.0, 24.0) }).unwrap();
            }
            let of_town = Sample { cell: 7, asn: system(2_000 + number % 50), ..sample(0, 100.0, 80.0) };
            estimates.add(&of_town).unwrap();
            estimates.add(&Sample { pop: 1, km: 400.0, rtt_ms: 28.0, ..of_town }).unwrap();
        }
        let mut choices = vec![choose(&estimates, 7, system(5_555), [100.0, 400.0])];
        // To a third PoP, then to each of the two: there, as the town's others.
        for (pop, km, rtt_ms) in [(3, 600.0, 30.0), (0, 100.0, 80.0), (1, 400.0, 28.0)] {
            let asn = system(5_555);
            estimates.add(&Sample { cell: 7, asn, ..sample(pop, km, rtt_ms) }).unwrap();
            choices.push(choose(&estimates, 7, asn, [100.0, 400.0]));
        }
        assert_eq!(choices, [1; 4]);
        assert_eq!(choose(&estimates, 1, system(5_555), [100.0, 400.0]), 0, "not so in another town");
    }

    #[test]
    fn a_slow_network_of_a_fast_country_becomes_known() {
        let mut estimates = country_of_another_system(50);
        let mut slow_ms = Vec::new();
        for _ in 0..3 {
            for _ in 0..150 {
                estimates.add(&Sample { asn: 2, ..sample(0, 100.0, 400.0) }).unwrap();
                estimates.add(&Sample { asn: 2, ..sample(1, 500.0, 95.0) }).unwrap();
            }
            slow_ms.push(of(&estimates, 2, 0, 100.0).ms());
        }
        assert!(slow_ms[0] > 250.0 && slow_ms[2] > 385.0 && slow_ms[2] < 401.0, "{slow_ms:?}");
        assert!((of(&estimates, 2, 1, 500.0).ms() - 95.0).abs() < 2.0);
        let two_samples = |asn| choose(&estimates, 1, asn, [100.0, 500.0]);
        assert_eq!((two_samples(2), two_samples(1)), (1, 0));
    }

    #[test]
    fn a_slow_network_is_left_after_some_samples() {
        let mut estimates = country_of_another_system(50);
        let needed = (1..20).find(|_| {
            estimates.add(&Sample { asn: 2, ..sample(0, 100.0, 400.0) }).unwrap();
            estimates.add(&Sample { asn: 2, ..sample(1, 500.0, 40.0) }).unwrap();
            choose(&estimates, 1, 2, [100.0, 500.0]) == 1
        });
        assert!(needed.is_some_and(|needed| needed <= 4), "{needed:?}");
    }

    #[test]
    fn a_phone_that_slept_does_not_speak_for_its_system() {
        for (count, cell, is_whole) in
            [1, 2].iter().flat_map(|count| [(*count, 1, false), (*count, 2, false), (*count, 2, true)])
        {
            let mut estimates = country_of_another_system(50);
            estimates.add(&Sample { cell: 2, asn: 2, count, ..sample(0, 100.0, 300.0) }).unwrap();
            if is_whole {
                estimates.add(&Sample { cell: 2, asn: 2, ..sample(1, 500.0, 27.0) }).unwrap();
            }
            // Nor later, when what it said counts for less.
            for faded in 0..200 {
                assert_eq!(choose(&estimates, cell, 2, [100.0, 500.0]), 0, "{count} {cell} {faded}");
                estimates.fade();
            }
        }
    }

    #[test]
    fn a_mean_of_many_counts_for_as_little_more_as_a_single_sample() {
        let slow_ms = |count| {
            let mut estimates = country_of_another_system(50);
            estimates.add(&Sample { asn: 2, count, ..sample(0, 100.0, 1_900.0) }).unwrap();
            of(&estimates, 2, 0, 100.0).ms()
        };
        assert!(slow_ms(1) > 40.0 && slow_ms(64) < 17.0 + 2.0 * OUTLIER_MS, "{} {}", slow_ms(1), slow_ms(64));
        assert!(country_of_another_system(50).countries[b"DE"].get(0).ms < 50.0 * 20.0);
    }

    #[test]
    fn means_of_many_say_as_much_of_the_doubt_as_single_samples() {
        // A mean of n of what differs by 9 ms differs by 9 ms / √n.
        let doubt_ms = |count: u32| {
            let mut estimates = Estimates::default();
            for number in 0..2_000u32 {
                let off_ms = if number.is_multiple_of(2) { 9.0 } else { -9.0 };
                let rtt_ms = 60.0 + off_ms / f64::from(count).sqrt();
                let asn = 1 + number / 2 % 50;
                estimates.add(&Sample { asn, count, ..sample(0, 100.0, rtt_ms) }).unwrap();
            }
            estimates.system_doubt_ms(*b"DE")
        };
        let [one, ten, many] = [1, 10, 64].map(doubt_ms);
        assert!((ten / one - 1.0).abs() < 0.1 && (many / one - 1.0).abs() < 0.1, "{one} {ten} {many}");
        assert!(one > 10.0 && one < 14.0, "{one}");
    }

    #[test]
    fn a_restless_country_is_doubted_by_itself() {
        let mut estimates = Estimates::default();
        for number in 0..2_000u32 {
            let off_ms = if number.is_multiple_of(2) { 1.0 } else { -1.0 };
            estimates.add(&sample(0, 100.0, 60.0 + off_ms)).unwrap();
            if number.is_multiple_of(20) {
                let off_ms = if number.is_multiple_of(40) { 30.0 } else { -30.0 };
                estimates.add(&Sample { country: *b"FR", ..sample(0, 100.0, 60.0 + off_ms) }).unwrap();
            }
        }
        let [steady, restless, unknown] =
            [*b"DE", *b"FR", *b"IT"].map(|country| estimates.system_doubt_ms(country));
        assert!(steady < 9.0 && restless > 25.0 && unknown < 12.0, "{steady} {restless} {unknown}");
    }

    #[test]
    fn what_is_known_of_a_system_is_learned_when_there_is_no_room_for_others() {
        let mut estimates = Estimates::default();
        estimates.add(&sample(0, 100.0, 20.0)).unwrap();
        estimates.sums.systems = SUMS_MAX;
        assert_eq!(estimates.add(&sample(0, 100.0, 20.0)), Ok(Learned::Whole));
        let in_another_cell = Sample { cell: 2, ..sample(0, 100.0, 20.0) };
        assert_eq!(estimates.add(&in_another_cell), Ok(Learned::WithoutSystem));
        let sums = |estimates: &Estimates, asn| {
            estimates.known(2, *b"DE", asn).network.map(|sums| sums.get(0).count)
        };
        assert_eq!(sums(&estimates, 3320), Some(3.0), "of the whole country it is");
        estimates.sums.networks = SUMS_MAX;
        let another = Sample { asn: 6805, ..sample(0, 100.0, 20.0) };
        assert_eq!(estimates.add(&another), Ok(Learned::WithoutSystem));
        assert_eq!(sums(&estimates, 6805), None);
        assert_eq!(estimates.cells[&1].get(0).count, 3.0);
        estimates.sums.cells = SUMS_MAX;
        assert_eq!(estimates.add(&Sample { cell: 3, ..another }), Err(Refused::Full));
    }

    #[test]
    fn what_is_old_fades_and_pops_may_get_other_numbers() {
        let mut estimates = Estimates::default();
        for _ in 0..50 {
            estimates.add(&sample(0, 100.0, 60.0)).unwrap();
            estimates.add(&sample(3, 400.0, 25.0)).unwrap();
        }
        let before = of(&estimates, 3320, 3, 400.0);
        estimates.renumber(|pop| (pop == 3).then_some(1));
        assert_eq!(of(&estimates, 3320, 1, 400.0), before);
        assert_eq!(of(&estimates, 3320, 0, 100.0).samples, 0.0, "its PoP is gone");
        estimates.fade();
        let faded = of(&estimates, 3320, 1, 400.0).samples;
        assert!(faded < before.samples && faded > before.samples / 2.0, "{faded}");
        (0..1_000).for_each(|_| estimates.fade());
        assert!(estimates.is_empty());
        assert_eq!(estimates.sums, Sums::default());
    }

    proptest! {
        /// One liar, or one unlucky visitor, moves an estimate by no more than its share.
        #[test]
        fn one_sample_moves_an_estimate_by_less_than_itself(
            good in prop::collection::vec(20.0f64..60.0, 0..50), bad in 60.0f64..2000.0,
        ) {
            let mut estimates = Estimates::default();
            for rtt in &good {
                estimates.add(&sample(0, 500.0, *rtt)).unwrap();
            }
            let before = of(&estimates, 0, 0, 500.0).ms();
            estimates.add(&sample(0, 500.0, bad)).unwrap();
            let after = of(&estimates, 0, 0, 500.0).ms();
            prop_assert!(after <= bad + 1e-6, "{before} {after}");
        }

        /// Whatever is said of whom, what samples differ by counts within its bounds.
        #[test]
        fn doubt_stays_within_its_bounds(
            told in prop::collection::vec((0u32..4, 0u16..3, 10.0f64..2000.0, 1u32..64), 0..300),
        ) {
            let mut estimates = Estimates::default();
            for (asn, pop, rtt_ms, count) in told {
                estimates.add(&Sample { asn, count, ..sample(pop, 100.0, rtt_ms) }).unwrap();
            }
            let doubt_ms = estimates.system_doubt_ms(*b"DE");
            prop_assert!((SYSTEM_DOUBT_MS_MIN..=SYSTEM_DOUBT_MS).contains(&doubt_ms), "{doubt_ms}");
        }

        /// Whoever is slow once, however slow, was so for himself.
        #[test]
        fn one_slow_sample_sends_nobody_elsewhere(
            good in prop::collection::vec(12.0f64..40.0, 0..50), slow_ms in 60.0f64..2000.0, asn in 0u32..2,
        ) {
            let mut estimates = Estimates::default();
            for (number, rtt_ms) in good.iter().enumerate() {
                estimates.add(&Sample { asn, ..sample(0, 100.0, *rtt_ms) }).unwrap();
                if number % 2 == 0 {
                    estimates.add(&Sample { asn, ..sample(1, 500.0, rtt_ms + 10.0) }).unwrap();
                }
            }
            estimates.add(&Sample { asn, ..sample(0, 100.0, slow_ms) }).unwrap();
            let of = |pop, km| (of(&estimates, asn, pop, km), 0.0);
            prop_assert_eq!(Estimates::prefer(&[of(0, 100.0), of(1, 500.0), of(2, 600.0)]), 0);
        }

        /// One beacon of a system is no reason to go where it is faster by less than what is doubted of it.
        #[test]
        fn one_beacon_changes_nothing_for_a_little(gain_ms in 0.0f64..30.0) {
            let mut estimates = Estimates::default();
            estimates.add(&sample(0, 100.0, 60.0)).unwrap();
            estimates.add(&sample(1, 150.0, 60.0 - gain_ms)).unwrap();
            let of = |pop, km| (of(&estimates, 3320, pop, km), 0.0);
            prop_assert_eq!(Estimates::prefer(&[of(0, 100.0), of(1, 150.0)]), 0);
        }
    }
}
