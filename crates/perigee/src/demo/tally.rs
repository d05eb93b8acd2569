//! What visitors have seen: pages and how long they took, hits, failures, and whether anything was seen that must not be. One thread
//! writes and reads it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::map::{CITIES, POPS};

/// Times that are kept per city and way, of which the median is said: the newest.
const TIMES_MAX: usize = 200;

/// Which way a visitor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the PoP that the router names.
    Cdn,
    /// To the shop itself.
    Straight,
}

/// One answer.
pub(super) struct Answer {
    pub(super) way: Way,
    /// The PoP that it came from, by way of the CDN.
    pub(super) pop: Option<usize>,
    pub(super) is_hit: bool,
    pub(super) bytes: usize,
}

/// What is counted.
#[derive(Default)]
pub(super) struct Tally(RefCell<Counts>);

#[derive(Default)]
struct Counts {
    cities: Vec<CityCounts>,
    pops: Vec<u64>,
    requests: u64,
    hits: u64,
    bytes: u64,
    straight_requests: u64,
    failed_tries: u64,
    given_up: u64,
    price: Option<Price>,
    price_pages: u64,
    price_pages_wrong: u64,
    carts: u64,
    carts_wrong: u64,
}

#[derive(Clone, Default)]
struct CityCounts {
    with: Times,
    without: Times,
    pages: u64,
    /// From where its last page came, and when.
    served: Option<(usize, Instant)>,
}

#[derive(Clone, Default)]
struct Times {
    newest_ms: VecDeque<u32>,
}

impl Times {
    fn add(&mut self, time: Duration) {
        if self.newest_ms.len() == TIMES_MAX {
            self.newest_ms.pop_front();
        }
        self.newest_ms.push_back(time.as_millis() as u32);
    }

    fn median_ms(&self) -> Option<u32> {
        let mut sorted: Vec<u32> = self.newest_ms.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// A price that was changed: what it is, and since when every edge has signed that the old one is gone.
struct Price {
    cents: u64,
    proven: Option<Instant>,
    pages_since: u64,
}

/// What there is to say in one line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    pub(super) pages: u64,
    /// By way of the CDN.
    pub(super) requests: u64,
    pub(super) hits: u64,
    pub(super) failed_tries: u64,
}

impl Tally {
    /// Nothing is counted yet.
    pub(super) fn new() -> Self {
        let counts = Counts {
            cities: vec![CityCounts::default(); CITIES.len()],
            pops: vec![0; POPS.len()],
            ..Counts::default()
        };
        Tally(RefCell::new(counts))
    }

    /// Counts an answer.
    pub(super) fn answered(&self, answer: &Answer) {
        let mut counts = self.0.borrow_mut();
        if answer.way == Way::Straight {
            counts.straight_requests += 1;
            return;
        }
        counts.requests += 1;
        counts.hits += u64::from(answer.is_hit);
        counts.bytes += answer.bytes as u64;
        if let Some(pop) = answer.pop {
            counts.pops[pop] += 1;
        }
    }

    /// Counts a page that is there with all that belongs to it. `took` is the time of a visitor's first page, which is the same for everybody:
    /// only those can be compared.
    pub(super) fn loaded(&self, city: usize, way: Way, pop: Option<usize>, took: Option<Duration>) {
        let city = &mut self.0.borrow_mut().cities[city];
        let times = match way {
            Way::Cdn => &mut city.with,
            Way::Straight => &mut city.without,
        };
        if let Some(took) = took {
            times.add(took);
        }
        if way == Way::Cdn {
            city.pages += 1;
        }
        if let Some(pop) = pop {
            city.served = Some((pop, Instant::now()));
        }
    }

    /// Counts a try that ended in nothing; visitors try again.
    pub(super) fn failed(&self) {
        self.0.borrow_mut().failed_tries += 1;
    }

    /// Counts a visitor who has gone away without a page.
    pub(super) fn gave_up(&self) {
        self.0.borrow_mut().given_up += 1;
    }

    // --- What must not be seen ---

    /// From now on this is the price of the product that is watched.
    pub(super) fn price_changed(&self, cents: u64) {
        self.0.borrow_mut().price = Some(Price { cents, proven: None, pages_since: 0 });
    }

    /// Each edge in service has signed: who asks from now on must see the new price.
    pub(super) fn price_proven(&self) {
        if let Some(price) = &mut self.0.borrow_mut().price {
            price.proven = Some(Instant::now());
        }
    }

    /// Somebody who asked at `asked` saw this price by way of the CDN.
    pub(super) fn price_seen(&self, cents: u64, asked: Instant) {
        let mut counts = self.0.borrow_mut();
        let Some(price) = &mut counts.price else { return };
        if price.proven.is_some_and(|proven| proven <= asked) {
            price.pages_since += 1;
            let is_wrong = cents != price.cents;
            counts.price_pages += 1;
            counts.price_pages_wrong += u64::from(is_wrong);
        }
    }

    /// Pages that have shown the watched price since the last change was proven; and those, of all, that showed an old one.
    pub(super) fn price_pages(&self) -> (u64, u64) {
        let counts = self.0.borrow();
        (counts.price.as_ref().map_or(0, |price| price.pages_since), counts.price_pages_wrong)
    }

    /// Somebody looked into a cart, and it was or wasn't their own.
    pub(super) fn cart_seen(&self, is_own: bool) {
        let mut counts = self.0.borrow_mut();
        counts.carts += 1;
        counts.carts_wrong += u64::from(!is_own);
    }

    // --- What is said of it ---

    /// All in a few figures.
    pub(super) fn summary(&self) -> Summary {
        let counts = self.0.borrow();
        Summary {
            pages: counts.cities.iter().map(|city| city.pages).sum(),
            requests: counts.requests,
            hits: counts.hits,
            failed_tries: counts.failed_tries,
        }
    }

    /// Median time of a first page from a city in ms, with the CDN and without.
    pub(super) fn medians_ms(&self, city: usize) -> (Option<u32>, Option<u32>) {
        let city = &self.0.borrow().cities[city];
        (city.with.median_ms(), city.without.median_ms())
    }

    /// The PoP that has served a city's newest page since a moment.
    pub(super) fn served_since(&self, city: usize, since: Instant) -> Option<usize> {
        let (pop, at) = self.0.borrow().cities[city].served?;
        (at >= since).then_some(pop)
    }

    /// The PoP of a city's newest page.
    pub(super) fn served(&self, city: usize) -> Option<usize> {
        self.0.borrow().cities[city].served.map(|(pop, _)| pop)
    }

    /// Everything, for programs. `by_cdn` is how often edges have asked the shop.
    pub(super) fn json(&self, by_cdn: u64) -> Value {
        let counts = self.0.borrow();
        let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let city = |(number, city): (usize, &CityCounts)| {
            json!({
                "city": CITIES[number].name, "country": CITIES[number].country,
                "pop": city.served.map(|(pop, _)| POPS[pop].name),
                "pages": city.pages,
                "first_page_p50_ms": city.with.median_ms(),
                "first_page_without_cdn_p50_ms": city.without.median_ms(),
            })
        };
        let pop =
            |(number, requests): (usize, &u64)| json!({ "pop": POPS[number].name, "requests": requests });
        json!({
            "requests": counts.requests,
            "hits": counts.hits,
            "hit_ratio": ratio(counts.hits, counts.requests),
            "bytes": counts.bytes,
            "origin_requests": by_cdn,
            "origin_requests_saved_ratio": 1.0 - ratio(by_cdn.min(counts.requests), counts.requests),
            "requests_without_cdn": counts.straight_requests,
            "failed_tries": counts.failed_tries,
            "given_up": counts.given_up,
            "price_pages_after_proof": counts.price_pages,
            "price_pages_after_proof_with_an_old_price": counts.price_pages_wrong,
            "carts_seen": counts.carts,
            "carts_of_others_seen": counts.carts_wrong,
            "pops": counts.pops.iter().enumerate().map(pop).collect::<Vec<_>>(),
            "cities": counts.cities.iter().enumerate().map(city).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_price_counts_only_after_the_proof() {
        let tally = Tally::new();
        let before = Instant::now();
        tally.price_seen(100, before);
        tally.price_changed(200);
        tally.price_seen(100, Instant::now());
        tally.price_proven();
        // Asked before the proof, and answered after it.
        tally.price_seen(100, before);
        assert_eq!(tally.price_pages(), (0, 0));
        tally.price_seen(200, Instant::now());
        assert_eq!(tally.price_pages(), (1, 0));
        tally.price_seen(100, Instant::now());
        assert_eq!(tally.price_pages(), (2, 1));
        // A further change begins anew; what was wrong stays.
        tally.price_changed(300);
        assert_eq!(tally.price_pages(), (0, 1));
    }

    #[test]
    fn medians_are_those_of_the_newest_first_pages() {
        let tally = Tally::new();
        assert_eq!(tally.medians_ms(0), (None, None));
        for ms in 0..2 * TIMES_MAX as u64 {
            tally.loaded(0, Way::Cdn, Some(1), Some(Duration::from_millis(ms)));
        }
        tally.loaded(0, Way::Straight, None, Some(Duration::from_millis(7)));
        tally.loaded(0, Way::Cdn, Some(1), None);
        assert_eq!(tally.medians_ms(0), (Some(300), Some(7)));
        assert_eq!((tally.summary().pages, tally.served(0)), (401, Some(1)));
    }

    #[test]
    fn who_goes_straight_counts_for_no_hit_ratio() {
        let tally = Tally::new();
        let answer = |way, is_hit| Answer { way, pop: None, is_hit, bytes: 10 };
        for (way, is_hit) in [(Way::Cdn, true), (Way::Cdn, false), (Way::Straight, false)] {
            tally.answered(&answer(way, is_hit));
        }
        let json = tally.json(1);
        assert_eq!((json["hit_ratio"].as_f64(), json["requests_without_cdn"].as_u64()), (Some(0.5), Some(1)));
        assert_eq!(json["origin_requests_saved_ratio"].as_f64(), Some(0.5));
    }
}
