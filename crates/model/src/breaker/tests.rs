use std::collections::HashMap;

use super::*;

/// A breaker before an origin, at a given time.
struct Play {
    breaker: Breaker,
    now: u64,
}

fn play() -> Play {
    Play { breaker: Breaker::new(BreakerPolicy::default()), now: 100_000 }
}

impl Play {
    /// One attempt that ends at once; `None` when it was refused.
    fn attempt(&mut self, event: Event) -> Option<Option<State>> {
        match self.breaker.allow(self.now) {
            Verdict::Refuse { .. } => None,
            Verdict::Allow(permit) | Verdict::Probe(permit) => {
                Some(self.breaker.step(event, permit, self.now))
            }
        }
    }

    fn open(mut self) -> Self {
        for _ in 0..4 {
            assert!(self.attempt(Event::Failed).is_some());
        }
        self.now += 1_000;
        assert!(self.attempt(Event::Failed).is_some());
        assert_eq!(self.breaker.state(), State::Open);
        self
    }
}

#[test]
fn opens_after_failures_in_a_row() {
    let mut play = play();
    for _ in 0..4 {
        assert_eq!(play.attempt(Event::Failed), Some(None));
    }
    play.now += 1_000;
    assert_eq!(play.attempt(Event::Failed), Some(Some(State::Open)));
    assert_eq!(play.attempt(Event::Failed), None);
}

#[test]
fn what_fails_in_one_moment_is_no_row() {
    let mut play = play();
    for _ in 0..12 {
        assert_eq!(play.attempt(Event::Failed), Some(None));
    }
    assert_eq!(play.attempt(Event::Succeeded), Some(None));
    play.now += 1_000;
    assert_eq!(play.attempt(Event::Failed), Some(None));
}

#[test]
fn a_success_between_failures_begins_the_count_again() {
    let mut play = play();
    for _ in 0..3 {
        (0..4).for_each(|_| assert_eq!(play.attempt(Event::Failed), Some(None)));
        assert_eq!(play.attempt(Event::Succeeded), Some(None));
        play.now += 10_000;
    }
    assert_eq!(play.breaker.state(), State::Closed);
}

#[test]
fn opens_when_half_of_enough_attempts_in_the_window_failed() {
    let mut play = play();
    let mut attempts = 0;
    while play.breaker.state() == State::Closed {
        attempts += 1;
        play.now += 100;
        play.attempt(if attempts % 2 == 0 { Event::Failed } else { Event::Succeeded });
    }
    assert_eq!(attempts, 20);
}

#[test]
fn failures_that_left_the_window_do_not_count() {
    let mut play = play();
    for attempt in 0..400 {
        play.attempt(if attempt % 2 == 0 { Event::Failed } else { Event::Succeeded });
        play.now += 400;
    }
    assert_eq!(play.breaker.state(), State::Closed, "12 attempts per window are too few to judge");
}

#[test]
fn refuses_with_the_time_to_the_next_probe() {
    let mut play = play().open();
    play.now += 300;
    assert_eq!(play.breaker.allow(play.now), Verdict::Refuse { retry_after_ms: 700 });
    play.now += 700;
    assert!(matches!(play.breaker.allow(play.now), Verdict::Probe(_)));
    assert_eq!(play.breaker.state(), State::HalfOpen);
    assert_eq!(play.breaker.allow(play.now), Verdict::Refuse { retry_after_ms: 1000 });
}

#[test]
fn a_successful_probe_closes_and_a_failed_one_does_not() {
    let mut play = play().open();
    play.now += 1000;
    assert_eq!(play.attempt(Event::Failed), Some(None));
    assert_eq!(play.breaker.state(), State::Open);
    play.now += 1000;
    assert_eq!(play.attempt(Event::Succeeded), Some(Some(State::Closed)));
    assert_eq!(play.attempt(Event::Failed), Some(None));
}

#[test]
fn as_many_probes_as_asked_must_succeed_in_a_row() {
    let policy = BreakerPolicy { probes_to_close: 2, ..BreakerPolicy::default() };
    let mut play = Play { breaker: Breaker::new(policy), now: 0 }.open();
    for (event, state) in [
        (Event::Succeeded, State::HalfOpen),
        (Event::Failed, State::Open),
        (Event::Succeeded, State::HalfOpen),
        (Event::Succeeded, State::Closed),
    ] {
        play.now += 1000;
        play.attempt(event);
        assert_eq!(play.breaker.state(), state);
    }
}

#[test]
fn what_began_before_an_opening_says_nothing_afterwards() {
    let mut play = play();
    let Verdict::Allow(early) = play.breaker.allow(play.now) else { panic!("closed") };
    let mut play = play.open();
    assert_eq!(play.breaker.step(Event::Succeeded, early, play.now), None);
    assert_eq!(play.breaker.state(), State::Open);
    play.now += 1000;
    play.attempt(Event::Succeeded);
    for _ in 0..10 {
        assert_eq!(play.breaker.step(Event::Failed, early, play.now), None);
    }
    assert_eq!(play.breaker.state(), State::Closed);
}

#[test]
fn a_clock_that_stands_or_goes_back_does_not_disturb() {
    let mut play = play().open();
    play.now -= 50_000;
    assert_eq!(play.attempt(Event::Succeeded), None);
    play.now += 51_000;
    assert_eq!(play.attempt(Event::Succeeded), Some(Some(State::Closed)));
}

/// Visitors come every `gap_ms`; the origin answers after `latency_ms`, but hangs until `timeout_ms` while it is down,
/// from 10 s to 60 s. Returns (ms until the breaker opened, ms until it closed again, most attempts in a second while open).
fn outage(gap_ms: u64, latency_ms: u64, timeout_ms: u64) -> (u64, u64, usize) {
    let mut breaker = Breaker::new(BreakerPolicy::default());
    let down = 10_000..60_000;
    let (mut under_way, mut opened, mut closed, mut probes) = (HashMap::new(), 0, 0, Vec::new());
    for now in 0..90_000 {
        for (event, permit) in under_way.remove(&now).unwrap_or_else(Vec::new) {
            match breaker.step(event, permit, now) {
                Some(State::Open) if opened == 0 => opened = now,
                Some(State::Closed) => closed = now,
                _ => {}
            }
        }
        if now % gap_ms == 0 {
            let permit = match breaker.allow(now) {
                Verdict::Refuse { .. } => continue,
                Verdict::Allow(permit) => permit,
                Verdict::Probe(permit) => {
                    probes.push(now);
                    permit
                }
            };
            let (end, event) = match down.contains(&now) {
                true => (now + timeout_ms, Event::Failed),
                false => (now + latency_ms, Event::Succeeded),
            };
            under_way.entry(end).or_default().push((event, permit));
        }
    }
    let densest =
        probes.iter().map(|at| probes.iter().filter(|other| (*at..at + 1000).contains(other)).count());
    (opened - down.start, closed - down.end, densest.max().unwrap_or(0))
}

#[test]
fn an_outage_opens_within_five_seconds_and_recovery_closes_within_five() {
    // Refused at once, and hanging until a time-out, under light and heavy traffic.
    for (gap_ms, latency_ms, timeout_ms) in
        [(1, 20, 1), (10, 20, 1), (1000, 20, 1), (7, 300, 3_000), (500, 50, 2_000), (1, 1_000, 30_000)]
    {
        let (opened, closed, densest) = outage(gap_ms, latency_ms, timeout_ms);
        let case = format!("every {gap_ms} ms, {latency_ms} ms, hanging {timeout_ms} ms");
        assert!(opened <= 5_000 + timeout_ms, "{case}: opened after {opened} ms");
        assert!(closed <= 5_000, "{case}: closed after {closed} ms");
        assert!(densest <= 1, "{case}: {densest} attempts in one second while open");
    }
}
