//! What may be said of two sets of measurements: medians, how sure they are, and whether one is really faster than the other.
//!
//! Made for few values that are skewed, as load times are: ranks and resampling, no normal distribution of the values. Chance comes
//! in as a seed, so that the same values give the same report.

use model::Draw;

/// Resamples of one interval.
const RESAMPLES: usize = 2000;

/// Values per side up to which the test counts all arrangements; above it takes the normal approximation.
const EXACT_MAX: usize = 20;

/// The middle value, or the mean of the two in the middle; `None` of nothing. Order does not matter; not a number counts as the
/// largest.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The interval in which the median lies with this confidence (0 to 1), by the percentile bootstrap.
pub fn median_interval(values: &[f64], confidence: f64, seed: u64) -> Option<(f64, f64)> {
    let mut draw = Draw(seed);
    let medians = (0..RESAMPLES).map(|_| median(&resample(&mut draw, values)));
    interval(medians.collect::<Option<Vec<f64>>>()?, confidence)
}

/// The interval of median(`before`) − median(`after`).
pub fn gain_interval(before: &[f64], after: &[f64], confidence: f64, seed: u64) -> Option<(f64, f64)> {
    let mut draw = Draw(seed);
    let gains = (0..RESAMPLES).map(|_| {
        let one = median(&resample(&mut draw, before))?;
        Some(one - median(&resample(&mut draw, after))?)
    });
    interval(gains.collect::<Option<Vec<f64>>>()?, confidence)
}

fn interval(mut values: Vec<f64>, confidence: f64) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence.clamp(0.0, 1.0)) / 2.0;
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| values[((last as f64 * share).round() as usize).min(last)];
    Some((at(tail), at(1.0 - tail)))
}

/// The rank test of Mann and Whitney.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTest {
    /// U of the first set: pairs in which its value is the larger, ties as a half.
    pub u: f64,
    /// How likely ranks that differ so much, or more, are where nothing differs; two-sided.
    pub p: f64,
}

/// Tests whether two sets come from the same distribution. `None` where one is empty.
///
/// Exact where neither has more than 20 values, equal ones among them; else by the normal approximation with the corrections for
/// ties and continuity. H. B. Mann, D. R. Whitney, *On a Test of Whether one of Two Random Variables is Stochastically Larger than
/// the Other*, Ann. Math. Statist. 18 (1947).
pub fn rank_test(one: &[f64], other: &[f64]) -> Option<RankTest> {
    if one.is_empty() || other.is_empty() {
        return None;
    }
    let pairs = one.iter().flat_map(|left| other.iter().map(move |right| (left, right)));
    let u: f64 = pairs
        .map(|(left, right)| match left.total_cmp(right) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum();
    let (n, m) = (one.len(), other.len());
    let ranks = Ranks::of(one, other);
    let p = match n.max(m) <= EXACT_MAX {
        true => exact(&ranks, n),
        false => approximate(u, n as f64, m as f64, &ranks.ties),
    };
    Some(RankTest { u, p })
}

/// The ranks of both sets together.
struct Ranks {
    /// Twice the rank of each value, as equal ones share the middle of theirs: those of the first set come first.
    doubled: Vec<usize>,
    /// How many values share each rank, where more than one does.
    ties: Vec<f64>,
}

impl Ranks {
    fn of(one: &[f64], other: &[f64]) -> Ranks {
        let all = [one, other].concat();
        let rank = |value: &f64| {
            let smaller = all.iter().filter(|other| other.total_cmp(value).is_lt()).count();
            let same = all.iter().filter(|other| other.total_cmp(value).is_eq()).count();
            2 * smaller + same + 1
        };
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let groups = sorted.chunk_by(|left, right| left.total_cmp(right).is_eq());
        let ties = groups.map(|group| group.len() as f64).filter(|count| *count > 1.0).collect();
        Ranks { doubled: all.iter().map(rank).collect(), ties }
    }
}

/// Counts in how many of all ways to choose the first `n` the sum of their ranks is as far from the middle, or farther.
fn exact(ranks: &Ranks, n: usize) -> f64 {
    let all = ranks.doubled.len();
    let most: usize = ranks.doubled.iter().sum();
    // ways[k][s]: choices of k values whose doubled ranks sum up to s.
    let mut ways = vec![vec![0.0; most + 1]; n + 1];
    ways[0][0] = 1.0;
    for &rank in &ranks.doubled {
        for k in (1..=n).rev() {
            for sum in (rank..=most).rev() {
                ways[k][sum] += ways[k - 1][sum - rank];
            }
        }
    }
    let middle = n * (all + 1);
    let found: usize = ranks.doubled[..n].iter().sum();
    let is_far = |sum: usize| sum.abs_diff(middle) >= found.abs_diff(middle);
    let total: f64 = ways[n].iter().sum();
    let tail: f64 = ways[n].iter().enumerate().filter(|(sum, _)| is_far(*sum)).map(|(_, count)| count).sum();
    tail / total
}

fn approximate(u: f64, n: f64, m: f64, ties: &[f64]) -> f64 {
    let all = n + m;
    let tied: f64 = ties.iter().map(|count| count.powi(3) - count).sum();
    let variance = n * m / 12.0 * (all + 1.0 - tied / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - n * m / 2.0).abs() - 0.5).max(0.0);
    erfc(distance / variance.sqrt() / std::f64::consts::SQRT_2)
}

/// The complementary error function, to seven digits. Abramowitz and Stegun, *Handbook of Mathematical Functions*, 7.1.26.
fn erfc(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    polynomial * (-x * x).exp()
}

/// Which of several tests may be claimed so that, where nothing differs anywhere, a false claim is made with probability `level` at
/// most for all of them together. S. Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scand. J. Statist. 6 (1979).
pub fn claims(ps: &[f64], level: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|one, other| ps[*one].total_cmp(&ps[*other]));
    let mut claimed = vec![false; ps.len()];
    for (place, index) in order.into_iter().enumerate() {
        if ps[index] > level / (ps.len() - place) as f64 {
            break;
        }
        claimed[index] = true;
    }
    claimed
}

fn resample(draw: &mut Draw, values: &[f64]) -> Vec<f64> {
    values.iter().map(|_| values[draw.below(values.len() as u64) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64, by: f64) {
        assert!((one - other).abs() <= by, "{one} is not {other}");
    }

    /// Ranks of two sets of `n` of which the first has this U: its lowest ranks, with the highest of them moved up as far as it takes.
    fn with_u(u: usize, n: usize) -> Ranks {
        let (all, mut left) = (2 * n, u);
        let mut first: Vec<usize> = (1..=n).collect();
        for place in (0..n).rev() {
            let step = left.min(n);
            (first[place], left) = (first[place] + step, left - step);
        }
        let rest = (1..=all).filter(|rank| !first.contains(rank));
        Ranks { doubled: first.iter().copied().chain(rest).map(|rank| 2 * rank).collect(), ties: Vec::new() }
    }

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_rank_test_gives_the_published_values() {
        // The example of SciPy's manual, from Mann and Whitney's tables: U = 17, p = 0.111.
        let test = rank_test(&[19.0, 22.0, 16.0, 29.0, 24.0], &[20.0, 11.0, 17.0, 12.0]).unwrap();
        assert_eq!(test.u, 17.0);
        near(test.p, 0.111_111, 1e-5);
        // The least values of exact tables: 2 / C(2n, n).
        for (n, wanted) in [(4, 2.0 / 70.0), (5, 2.0 / 252.0), (7, 2.0 / 3432.0), (9, 2.0 / 48_620.0)] {
            let low: Vec<f64> = (0..n).map(f64::from).collect();
            let high: Vec<f64> = (0..n).map(|value| f64::from(value) + 100.0).collect();
            let test = rank_test(&low, &high).unwrap();
            assert_eq!(test.u, 0.0);
            near(test.p, wanted, 1e-12);
            near(rank_test(&high, &low).unwrap().p, wanted, 1e-12);
        }
        // Critical values at 0.05, two-sided, of the usual tables: for n = m = 8 U is 13, for 9 it is 17, for 10 it is 23, for 20 it is 127.
        for (n, critical) in [(8, 13), (9, 17), (10, 23), (20, 127)] {
            assert!(exact(&with_u(critical, n), n) <= 0.05, "{n}");
            assert!(exact(&with_u(critical + 1, n), n) > 0.05, "{n}");
        }
        // With ties, by hand: the ranks are 1, 2.5, 2.5, 4, 5, and of the ten ways to choose three no other has a sum so far from 9.
        near(rank_test(&[1.0, 2.0, 2.0], &[3.0, 4.0]).unwrap().p, 1.0 / 10.0, 1e-12);
    }

    #[test]
    fn the_approximation_agrees_with_the_count() {
        for u in [30, 60, 90, 127, 180, 200] {
            near(approximate(u as f64, 20.0, 20.0, &[]), exact(&with_u(u, 20), 20), 0.01);
        }
        // All the same: nothing differs.
        near(rank_test(&[1.0; 9], &[1.0; 9]).unwrap().p, 1.0, 0.0);
        near(erfc(0.0), 1.0, 1e-6);
        near(erfc(1.959_964 / std::f64::consts::SQRT_2), 0.05, 1e-6);
    }

    #[test]
    fn a_false_claim_is_as_rare_as_is_stated() {
        let mut draw = Draw(7);
        let mut false_claims = 0;
        for _ in 0..400 {
            let ps: Vec<f64> = (0..4)
                .map(|_| {
                    let one: Vec<f64> = (0..9).map(|_| draw.unit()).collect();
                    let other: Vec<f64> = (0..9).map(|_| draw.unit()).collect();
                    rank_test(&one, &other).unwrap().p
                })
                .collect();
            false_claims += usize::from(claims(&ps, 0.01).contains(&true));
        }
        assert!(false_claims <= 10, "{false_claims} of 400, and 4 are allowed on average");
    }

    #[test]
    fn claims_get_stricter_with_their_number() {
        assert_eq!(claims(&[0.01, 0.04], 0.05), [true, true]);
        assert_eq!(claims(&[0.03, 0.04], 0.05), [false, false]);
        assert_eq!(claims(&[0.2, 0.001, 0.02], 0.05), [false, true, true]);
        assert_eq!(claims(&[], 0.05), Vec::<bool>::new());
    }

    #[test]
    fn intervals_hold_the_truth_about_as_often_as_they_say() {
        let mut draw = Draw(11);
        let mut held = 0;
        for seed in 0..200 {
            let values: Vec<f64> = (0..15).map(|_| draw.unit()).collect();
            let (low, high) = median_interval(&values, 0.95, seed).unwrap();
            held += usize::from((low..=high).contains(&0.5));
        }
        assert!(held >= 180, "{held} of 200");
        let (low, high) = gain_interval(&[10.0, 11.0, 12.0], &[1.0, 2.0, 3.0], 0.95, 1).unwrap();
        assert!(low >= 7.0 && high <= 11.0, "{low} to {high}");
    }
}
