//! Leases: how the part of a budget that is no floor is shared out among nodes by demand, by any number of controls of which none is
//! the leader.
//!
//! ```text
//! node ── ask 7: wants, runs, has applied table 3 ──► control ── reads the table, twice a second ──► cell of the journal
//!      ◄── grant 7: so much, of table 4, for 4.6 s ──             ── writes the next one, if nobody has ──►
//! ```
//!
//! All controls read and write one [`Table`] by compare-and-set. For each node it says what may be granted (`allowed`) and what the
//! node may still be using (`held`, never less). The sum of what is held never exceeds what there is. So that nothing more need be
//! agreed on, and no two clocks compared:
//!
//! - A grant is good for [`LEASE_MS`] from when the reading began that it rests on, and the node counts from when it **asked**,
//!   which was before. So no grant of a table outlives the next table by more than that, however long it was on its way.
//! - A node that has applied a grant takes none of an older table. One that has just begun, and has forgotten what it has
//!   applied, takes none that rests on a reading before its begin.
//! - What is taken from a node stays held until the node says that it has applied that, or until every grant that was larger has
//!   run out by a control's own clock, counted from when it saw the table; then the window of a second passes too, or for what
//!   is in flight the grace after which the node ends it ([`super::BudgetPolicy::grace`]).
//!
//! - A node whose last grant has run out for as long again takes part as one that has just begun: it may have been so long that the
//!   table is another one.
//!
//! Clocks may run fast or slow by a tenth. A control that has just begun knows of nothing that has run out, and waits anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Amount;
use super::gate::WINDOW_MS;

/// How long a grant is good for after the reading that it rests on, in ms. Nodes ask each second.
pub const LEASE_MS: u64 = 5_000;

/// After how long without a word of it a node's share may be taken away, in ms.
const QUIET_MS: u64 = 30_000;

/// How often it is written down at least that a node is heard of, in ms: other controls may not hear of it themselves.
const BEAT_MS: u64 = 10_000;

/// Where there is too little for each to have one: how long a node gets nothing before it is its turn, and how long its turn is.
const TURN_MS: u64 = 5_000;

/// Asks that a node remembers: what is answered later than this many has run out.
const ASKS_MAX: usize = 16;

/// A time by another clock: a tenth longer, and half a second for what looks at clocks now and then.
const fn surely(ms: u64) -> u64 {
    ms + ms / 10 + 500
}

/// What all controls agree on, for one budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// One more with each write.
    pub number: u64,
    /// By the node's name.
    pub shares: BTreeMap<String, Share>,
}

/// What a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// What may be granted to it.
    pub allowed: Amount,
    /// What it may be using.
    pub held: Amount,
    /// The tables in which something was taken from it last: of requests per second, and of those in flight.
    pub since: (u64, u64),
    /// What was of use to it when this was written.
    pub demand: Amount,
    /// Changes now and then while it is heard of.
    pub beat: u64,
}

/// What a node says, each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Never the same again, in no process of the node.
    pub seq: u64,
    /// The newest table of which this process has applied a grant; 0 for none.
    pub applied: u64,
    /// What would be of use to it beside its floor.
    pub demand: Amount,
    /// What it has in flight beside its floor.
    pub running: u32,
}

/// What it is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of the ask that this answers.
    pub seq: u64,
    /// Of the table.
    pub number: u64,
    /// How much, beside its floor.
    pub amount: Amount,
    /// How long the reading had been begun that this rests on, in ms.
    pub age_ms: u64,
    /// For how long it is good after the ask, in ms.
    pub for_ms: u64,
}

// --- A node ---

/// A node's side: what it has been granted and for how long. Times are ms of the node's own monotonic clock.
#[derive(Clone, Debug)]
pub struct Holder {
    begun: u64,
    next_seq: u64,
    asked: Vec<(u64, u64)>,
    applied: u64,
    amount: Amount,
    until: u64,
}

impl Holder {
    /// A node's process that begins. `seq` is chance, so that answers to a process before it mean nothing to this one.
    pub fn new(seq: u64, now: u64) -> Holder {
        Holder {
            begun: now,
            next_seq: seq >> 1,
            asked: Vec::new(),
            applied: 0,
            amount: Amount::default(),
            until: 0,
        }
    }

    /// What it says now.
    pub fn ask(&mut self, demand: Amount, running: u32, now: u64) -> Ask {
        if self.applied > 0 && now >= self.until + LEASE_MS {
            *self = Holder { next_seq: self.next_seq, ..Holder::new(0, now) };
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        if self.asked.len() == ASKS_MAX {
            self.asked.remove(0);
        }
        self.asked.push((seq, now));
        Ask { seq, applied: self.applied, demand, running }
    }

    /// Takes an answer; says whether anything is other now.
    pub fn take(&mut self, grant: Grant, now: u64) -> bool {
        let Some(&(_, asked)) = self.asked.iter().find(|(seq, _)| *seq == grant.seq) else { return false };
        let is_before_us = asked.saturating_sub(self.begun) < grant.age_ms;
        let until = asked + grant.for_ms.min(LEASE_MS);
        if grant.number < self.applied || is_before_us || until <= now {
            return false;
        }
        let before = (self.amount, self.until);
        self.until = if grant.number == self.applied { self.until.max(until) } else { until };
        (self.applied, self.amount) = (grant.number, grant.amount);
        before != (self.amount, self.until)
    }

    /// What it may use beside its floor.
    pub fn allowed(&self, now: u64) -> Amount {
        if now < self.until { self.amount } else { Amount::default() }
    }
}

// --- A control ---

/// A control's side, for one budget. Times are ms of the control's own monotonic clock.
#[derive(Clone, Debug)]
pub struct Keeper {
    begun: u64,
    total: Amount,
    grace_ms: u64,
    read: Option<(Table, u64)>,
    heard: BTreeMap<String, Heard>,
    seen: BTreeMap<String, Seen>,
}

/// What a node has said last.
#[derive(Clone, Copy, Debug)]
struct Heard {
    ask: Ask,
    at: u64,
    /// Whether it is for this control to answer, and has not been answered.
    is_open: bool,
    is_near: bool,
}

/// What has been seen of something that was taken from a node.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// The table in which it was taken.
    since: u64,
    /// When that was first seen.
    at: u64,
    /// When the node first said that it has applied that.
    confirmed_at: Option<u64>,
}

impl Taken {
    fn look(&mut self, since: u64, now: u64) {
        if self.since != since {
            *self = Taken { since, at: now, confirmed_at: None };
        }
    }

    fn confirm(&mut self, applied: u64, now: u64) {
        if applied > 0 && applied >= self.since {
            self.confirmed_at = self.confirmed_at.or(Some(now));
        }
    }

    /// Whether it is surely over: the node has said so `after_word` ms ago, or the last grant has run out as long ago as
    /// `after_lease`.
    fn is_over(&self, after_word: u64, after_lease: u64, now: u64) -> bool {
        self.confirmed_at.is_some_and(|at| now.saturating_sub(at) >= after_word)
            || now.saturating_sub(self.at) >= surely(LEASE_MS) + after_lease
    }
}

/// What has been seen of a node's share.
#[derive(Clone, Copy, Debug)]
struct Seen {
    rate: Taken,
    flight: Taken,
    beat: u64,
    beat_at: u64,
    /// Since when it wants something and has nothing.
    starved_at: Option<u64>,
    /// Since when it has something.
    had_at: Option<u64>,
}

/// What happens to a control.
#[derive(Clone, Debug)]
pub enum Event {
    /// The budget is this, from now on: see [`super::BudgetPolicy::leasable`].
    Budget {
        /// What is leased out.
        total: Amount,
        /// See [`super::BudgetPolicy::grace`].
        grace_ms: u64,
    },
    /// The table was read; `begun` is from before the engine was asked. Empty when there is none yet.
    Read {
        /// When the reading began.
        begun: u64,
        /// What was read.
        table: Table,
    },
    /// A node was heard of.
    Asked {
        /// Its name.
        node: String,
        /// What it has said.
        ask: Ask,
        /// Whether it can be answered here.
        is_near: bool,
    },
}

/// What a control is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer a node.
    Grant(String, Grant),
    /// Write this in the place of the table that was read last, if nobody has written meanwhile; then read.
    Write(Table),
}

impl Keeper {
    /// A control that begins.
    pub fn new(now: u64) -> Keeper {
        Keeper {
            begun: now,
            total: Amount::default(),
            grace_ms: super::bounds::GRACE.max.as_millis() as u64,
            read: None,
            heard: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// See [`Event`] and [`Action`]. At most one write comes of one event.
    pub fn step(&mut self, event: Event, now: u64) -> Vec<Action> {
        match event {
            Event::Budget { total, grace_ms } => {
                (self.total, self.grace_ms) = (total, grace_ms);
                Vec::new()
            }
            Event::Asked { node, ask, is_near } => {
                if self.heard.get(&node).is_some_and(|heard| heard.ask.seq == ask.seq) {
                    return Vec::new();
                }
                self.heard.insert(node.clone(), Heard { ask, at: now, is_open: is_near, is_near });
                self.confirm(&node, now);
                self.answer(now)
            }
            Event::Read { begun, table } => {
                self.look(&table, now);
                self.read = Some((table, begun));
                let mut actions = self.answer(now);
                actions.extend(self.next(now).map(Action::Write));
                actions
            }
        }
    }

    /// Notes what a table shows for the first time.
    fn look(&mut self, table: &Table, now: u64) {
        self.seen.retain(|node, _| table.shares.contains_key(node));
        self.heard.retain(|_, heard| now.saturating_sub(heard.at) <= 2 * QUIET_MS);
        for (node, share) in &table.shares {
            let taken = |since| Taken { since, at: now, confirmed_at: None };
            let seen = self.seen.entry(node.clone()).or_insert(Seen {
                rate: taken(share.since.0),
                flight: taken(share.since.1),
                beat: share.beat,
                beat_at: now,
                starved_at: None,
                had_at: None,
            });
            seen.rate.look(share.since.0, now);
            seen.flight.look(share.since.1, now);
            if seen.beat != share.beat {
                (seen.beat, seen.beat_at) = (share.beat, now);
            }
            let has_none = share.allowed.requests_per_second == 0 || share.allowed.in_flight == 0;
            let wants = share.demand != Amount::default();
            seen.starved_at = (has_none && wants).then(|| seen.starved_at.unwrap_or(now));
            seen.had_at = (!has_none).then(|| seen.had_at.unwrap_or(now));
        }
        let nodes: Vec<String> = table.shares.keys().cloned().collect();
        nodes.iter().for_each(|node| self.confirm(node, now));
    }

    /// Notes that a node has applied what was taken from it.
    fn confirm(&mut self, node: &str, now: u64) {
        if let (Some(heard), Some(seen)) = (self.heard.get(node), self.seen.get_mut(node)) {
            seen.rate.confirm(heard.ask.applied, now);
            seen.flight.confirm(heard.ask.applied, now);
        }
    }

    /// Answers whom it can.
    fn answer(&mut self, now: u64) -> Vec<Action> {
        let Some((table, begun)) = &self.read else { return Vec::new() };
        let age_ms = now.saturating_sub(*begun);
        let for_ms = LEASE_MS.saturating_sub(age_ms);
        if for_ms == 0 {
            return Vec::new();
        }
        let mut actions = Vec::new();
        for (node, heard) in self.heard.iter_mut().filter(|(_, heard)| heard.is_open) {
            let Some(share) = table.shares.get(node) else { continue };
            heard.is_open = false;
            let (seq, number, amount) = (heard.ask.seq, table.number, share.allowed);
            actions.push(Action::Grant(node.clone(), Grant { seq, number, amount, age_ms, for_ms }));
        }
        actions
    }

    /// The table that is to come after the one that was read, if another one is wanted.
    fn next(&self, now: u64) -> Option<Table> {
        let (table, _) = self.read.as_ref()?;
        let mut next = table.clone();
        next.number += 1;
        for (node, heard) in self.heard.iter().filter(|(_, heard)| now - heard.at <= LEASE_MS) {
            let share = next.shares.entry(node.clone()).or_default();
            share.demand = heard.ask.demand;
        }
        self.release(&mut next, now);
        self.share_out(&mut next, now);
        next.shares.retain(|node, share| share.held != Amount::default() || !self.is_quiet(node, now));
        let is_other = next.shares.len() != table.shares.len()
            || next.shares.iter().any(|(node, share)| {
                table.shares.get(node).is_none_or(|before| {
                    let wakes = (before.demand == Amount::default()) != (share.demand == Amount::default());
                    wakes || (before.allowed, before.held) != (share.allowed, share.held)
                })
            });
        let mut is_late = false;
        for (node, heard) in self.heard.iter().filter(|(_, heard)| heard.is_near) {
            let is_heard = now - heard.at <= LEASE_MS;
            if let (Some(share), true) = (next.shares.get_mut(node), is_heard) {
                let beats = self.seen.get(node).is_some_and(|seen| now - seen.beat_at >= BEAT_MS);
                is_late |= beats;
                share.beat += u64::from(beats);
            }
        }
        (is_other || is_late).then_some(next)
    }

    /// Whether nothing has been heard of a node by any control for long.
    fn is_quiet(&self, node: &str, now: u64) -> bool {
        let last = [
            Some(self.begun),
            self.heard.get(node).map(|heard| heard.at),
            self.seen.get(node).map(|seen| seen.beat_at),
        ];
        last.into_iter().flatten().all(|at| now.saturating_sub(at) > QUIET_MS)
    }

    /// Gives back what nodes surely do not use any more.
    fn release(&self, next: &mut Table, now: u64) {
        for (node, share) in &mut next.shares {
            let Some(seen) = self.seen.get(node) else { continue };
            if seen.rate.is_over(surely(WINDOW_MS), surely(WINDOW_MS), now) {
                share.held.requests_per_second = share.allowed.requests_per_second;
            }
            // What it says of what it uses counts only with that it has applied what was taken.
            let said = self
                .heard
                .get(node)
                .filter(|heard| seen.flight.confirmed_at.is_some() && heard.ask.applied >= seen.flight.since);
            if seen.flight.is_over(u64::MAX, surely(self.grace_ms), now) {
                share.held.in_flight = share.allowed.in_flight;
            } else if let Some(heard) = said {
                let used = heard.ask.running.max(share.allowed.in_flight);
                share.held.in_flight = share.held.in_flight.min(used);
            }
        }
    }

    /// Takes from who has more than its part when others lack it, and gives out what is free.
    fn share_out(&self, next: &mut Table, now: u64) {
        let number = next.number;
        let mut of_rate: Vec<Part> = Vec::new();
        let mut of_flight: Vec<Part> = Vec::new();
        for (node, share) in &next.shares {
            let is_quiet = self.is_quiet(node, now);
            let heard = self.heard.get(node).filter(|_| !is_quiet);
            let demand = if is_quiet { Amount::default() } else { share.demand };
            let seen = self.seen.get(node).map_or((None, None), |seen| (seen.had_at, seen.starved_at));
            let turn = match seen {
                (Some(had), _) if now.saturating_sub(had) < TURN_MS => (0, 0),
                (_, Some(starved)) if now.saturating_sub(starved) >= TURN_MS => (1, starved),
                (Some(_), _) => (2, 0),
                _ => (3, 0),
            };
            // One taking at a time: else a node that is always a step behind would never have let go.
            let is_settled = |taken: fn(&Seen) -> &Taken| {
                self.seen.get(node).is_none_or(|seen| taken(seen).is_over(0, 0, now))
            };
            let (rate_is_settled, flight_is_settled) =
                (is_settled(|seen| &seen.rate), is_settled(|seen| &seen.flight));
            let part = |allowed, held, wants, uses, is_settled| {
                let is_settled = is_settled || allowed == held;
                Part { allowed, held, wants, uses, turn, is_quiet, is_settled }
            };
            let (allowed, held) = (share.allowed, share.held);
            let running = heard.map_or(0, |heard| heard.ask.running).min(held.in_flight);
            of_rate.push(part(
                allowed.requests_per_second,
                held.requests_per_second,
                demand.requests_per_second,
                0,
                rate_is_settled,
            ));
            of_flight.push(part(
                allowed.in_flight,
                held.in_flight,
                demand.in_flight,
                running,
                flight_is_settled,
            ));
        }
        divide(self.total.requests_per_second, &mut of_rate);
        divide(self.total.in_flight, &mut of_flight);
        for (share, (rate, flight)) in next.shares.values_mut().zip(of_rate.iter().zip(&of_flight)) {
            let allowed = Amount { requests_per_second: rate.allowed, in_flight: flight.allowed };
            if allowed.requests_per_second < share.allowed.requests_per_second {
                share.since.0 = number;
            }
            if allowed.in_flight < share.allowed.in_flight {
                share.since.1 = number;
            }
            share.allowed = allowed;
            share.held = Amount { requests_per_second: rate.held, in_flight: flight.held };
        }
    }
}

/// One node's part of one number.
#[derive(Clone, Copy, Debug)]
struct Part {
    allowed: u32,
    held: u32,
    wants: u32,
    /// What must not be taken away: it goes on.
    uses: u32,
    /// Who comes first where there is less than one for each.
    turn: (u8, u64),
    is_quiet: bool,
    /// Whether what was taken before has been let go.
    is_settled: bool,
}

/// Divides `total` anew: `held` of all together stays within it, or sinks.
fn divide(total: u32, parts: &mut [Part]) {
    let targets = targets(total, parts);
    // Safe: it is held already.
    for part in parts.iter_mut() {
        part.allowed = part.allowed.max(part.uses.min(part.held));
    }
    let sum =
        |of: fn(&Part) -> u32, parts: &[Part]| parts.iter().map(|part| u64::from(of(part))).sum::<u64>();
    let unmet = sum(|part| part.wants.saturating_sub(part.allowed), parts).min(u64::from(total));
    let allowed = sum(|part| part.allowed, parts);
    let free = u64::from(total).saturating_sub(allowed);
    // A little more or less here and there is no reason to write.
    let is_short = unmet > 0 && unmet.saturating_sub(free) >= u64::from((total / 20).max(1));
    if is_short || allowed > u64::from(total) {
        for (part, target) in parts.iter_mut().zip(&targets).filter(|(part, _)| part.is_settled) {
            part.allowed = part.allowed.min((*target).max(part.uses));
        }
    }
    let mut free = u64::from(total).saturating_sub(sum(|part| part.held, parts));
    let mut order: Vec<usize> = (0..parts.len()).filter(|&at| !parts[at].is_quiet).collect();
    order.sort_by_key(|&at| (parts[at].turn, at));
    for at in order {
        let (part, target) = (&mut parts[at], targets[at]);
        let is_worth_it = part.allowed < part.wants.min(target) || target > part.allowed.saturating_mul(2);
        if target <= part.allowed || !is_worth_it {
            continue;
        }
        part.allowed = target.min(part.held).max(part.allowed);
        let more = u64::from(target - part.allowed).min(free);
        part.allowed += more as u32;
        let before = part.held;
        part.held = part.held.max(part.allowed);
        free -= u64::from(part.held - before);
    }
}

/// What each would have if nothing had been given yet: an equal part, or what it wants where that is less, with a quarter for
/// what may come; what is left over goes to all who are heard of alike.
fn targets(total: u32, parts: &[Part]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&at| (parts[at].turn, at));
    let wanted = |at: usize| match parts[at].wants.max(parts[at].uses) {
        0 => 0,
        wants => wants.saturating_add(wants / 4 + 1),
    };
    let mut targets = vec![0; parts.len()];
    let left = pour(total, &mut targets, &order, wanted);
    order.retain(|&at| !parts[at].is_quiet);
    pour(left, &mut targets, &order, |_| u32::MAX);
    targets
}

/// Adds to what each has, alike and at most up to `most`, the first of `order` first. What is left.
fn pour(mut left: u32, targets: &mut [u32], order: &[usize], most: impl Fn(usize) -> u32) -> u32 {
    let mut open: Vec<usize> = order.iter().copied().filter(|&at| targets[at] < most(at)).collect();
    while left > 0 && !open.is_empty() {
        let each = (left / open.len() as u32).max(1);
        for &at in &open {
            let more = each.min(most(at) - targets[at]).min(left);
            targets[at] += more;
            left -= more;
        }
        open.retain(|&at| targets[at] < most(at));
    }
    left
}

#[cfg(test)]
mod tests;
