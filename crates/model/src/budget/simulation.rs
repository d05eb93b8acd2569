//! A cluster in one thread, on one seed: nodes with gates and leases, controls on one cell, messages that come late or never, clocks
//! that differ and run at different speeds, restarts of everything; and an origin that counts.

use std::collections::VecDeque;

use super::gate::Gate;
use super::lease::{Action, Event, Grant, Holder, Keeper, Table};
use super::{Amount, BudgetPolicy, bounds};

const NODES: usize = 5;
const CONTROLS: usize = 2;
const STEP_MS: u64 = 20;

/// xorshift64*.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end.max(1)
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A monotonic clock of its own: where it stands and how fast it runs.
struct Skewed {
    offset: u64,
    per_mille: u64,
}

impl Skewed {
    fn new(chance: &mut Chance) -> Skewed {
        Skewed { offset: 10_000 + chance.below(1_000_000), per_mille: 950 + chance.below(101) }
    }

    fn at(&self, now: u64) -> u64 {
        self.offset + now * self.per_mille / 1_000
    }
}

struct Node {
    clock: Skewed,
    holder: Holder,
    gate: Gate,
    /// When each ends, in real time; the newest last.
    running: Vec<u64>,
    /// Begun and not sent yet: when they will be.
    pending: Vec<u64>,
    waiting: u32,
    /// Which control it follows; `None` while it is cut off.
    control: Option<usize>,
    asks_at: u64,
}

struct Control {
    clock: Skewed,
    keeper: Keeper,
    is_cut: bool,
    reads_at: u64,
    /// A reading or writing on its way.
    work: Option<Work>,
}

struct Work {
    /// When the engine does it, and when the answer is here.
    done_at: u64,
    back_at: u64,
    begun: u64,
    write: Option<Table>,
    read: Option<Table>,
    is_lost: bool,
}

enum Message {
    Ask(usize, usize, super::lease::Ask),
    Grant(usize, Grant),
}

struct World {
    chance: Chance,
    policy: BudgetPolicy,
    now: u64,
    nodes: Vec<Node>,
    controls: Vec<Control>,
    cell: Table,
    messages: Vec<(u64, Message)>,
    /// When requests have come to the origin.
    arrivals: VecDeque<u64>,
    is_calm: bool,
    arrived: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let policy = BudgetPolicy {
            site: "shop".into(),
            total: Amount {
                requests_per_second: [7, 60, 200][chance.below(3) as usize],
                in_flight: [6, 25, 90][chance.below(3) as usize],
            },
            queue: bounds::QUEUE.default,
            stale_deadline: bounds::STALE_DEADLINE.default,
            reserve_percent: [0, 20, 60][chance.below(3) as usize],
            nodes: NODES as u32,
            grace: std::time::Duration::from_millis(2_000 + chance.below(20_000)),
        };
        let nodes = (0..NODES).map(|_| {
            let clock = Skewed::new(&mut chance);
            let (holder, gate) = (Holder::new(chance.0, clock.at(0)), Gate::new(clock.at(0)));
            let (running, pending) = (Vec::new(), Vec::new());
            Node { clock, holder, gate, running, pending, waiting: 0, control: Some(0), asks_at: 0 }
        });
        let nodes = nodes.collect();
        let controls = (0..CONTROLS).map(|_| {
            let clock = Skewed::new(&mut chance);
            let keeper = Keeper::new(clock.at(0));
            Control { clock, keeper, is_cut: false, reads_at: 0, work: None }
        });
        let controls = controls.collect();
        World {
            policy,
            now: 0,
            nodes,
            controls,
            cell: Table::default(),
            messages: Vec::new(),
            arrivals: VecDeque::new(),
            is_calm: false,
            arrived: 0,
            chance,
        }
    }

    fn way(&mut self) -> u64 {
        match !self.is_calm && self.chance.once_in(20) {
            true => self.chance.below(8_000),
            false => self.chance.below(60),
        }
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        if !self.is_calm {
            self.break_something();
        }
        self.deliver();
        (0..CONTROLS).for_each(|at| self.run_control(at));
        (0..NODES).for_each(|at| self.run_node(at));
        self.check();
    }

    fn break_something(&mut self) {
        let now = self.now;
        if self.chance.once_in(100) {
            let node = self.chance.below(NODES as u64) as usize;
            self.nodes[node].control = match self.chance.below(4) {
                0 => None,
                other => Some(other as usize % CONTROLS),
            };
        }
        if self.chance.once_in(300) {
            let control = self.chance.below(CONTROLS as u64) as usize;
            self.controls[control].is_cut = !self.controls[control].is_cut;
        }
        if self.chance.once_in(500) {
            let control = self.chance.below(CONTROLS as u64) as usize;
            let keeper = Keeper::new(self.controls[control].clock.at(now));
            let work = self.controls[control].work.take();
            self.controls[control].keeper = keeper;
            // What it had sent to the engine may be done all the same.
            if let Some(Work { write: Some(table), done_at, .. }) = work
                && done_at > now
                && table.number == self.cell.number + 1
                && self.chance.once_in(2)
            {
                self.cell = table;
            }
        }
        if self.chance.once_in(500) {
            let seq = self.chance.below(u64::MAX);
            let at = self.chance.below(NODES as u64) as usize;
            let node = &mut self.nodes[at];
            let local = node.clock.at(now);
            (node.holder, node.gate) = (Holder::new(seq, local), Gate::new(local));
            node.running.clear();
            node.pending.clear();
        }
        if self.chance.once_in(400) {
            let at = self.chance.below(NODES as u64) as usize;
            self.nodes[at].waiting = self.chance.below(2) as u32 * self.chance.below(500) as u32;
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let due: Vec<Message> =
            self.messages.extract_if(.., |(at, _)| *at <= now).map(|(_, it)| it).collect();
        for message in due {
            match message {
                Message::Ask(control, node, ask) => {
                    let to = &mut self.controls[control];
                    let event = Event::Asked { node: format!("node-{node}"), ask, is_near: true };
                    let actions = to.keeper.step(event, to.clock.at(now));
                    self.act(control, actions, 0);
                }
                Message::Grant(node, grant) => {
                    let node = &mut self.nodes[node];
                    node.holder.take(grant, node.clock.at(now));
                }
            }
        }
    }

    fn act(&mut self, control: usize, actions: Vec<Action>, begun: u64) {
        for action in actions {
            match action {
                Action::Grant(node, grant) => {
                    let node = node.trim_start_matches("node-").parse().unwrap();
                    let at = self.now + self.way();
                    self.messages.push((at, Message::Grant(node, grant)));
                }
                Action::Write(table) => self.send_work(control, Some(table), begun),
            }
        }
    }

    fn send_work(&mut self, control: usize, write: Option<Table>, begun: u64) {
        let done_at = self.now + self.way();
        let back_at = done_at + self.way();
        let is_lost = self.controls[control].is_cut;
        self.controls[control].work = Some(Work { done_at, back_at, begun, write, read: None, is_lost });
    }

    fn run_control(&mut self, at: usize) {
        let now = self.now;
        let local = self.controls[at].clock.at(now);
        let (total, grace_ms) = (self.policy.leasable(), self.policy.grace.as_millis() as u64);
        self.controls[at].keeper.step(Event::Budget { total, grace_ms }, local);
        if let Some(work) = &mut self.controls[at].work {
            if now >= work.done_at && work.read.is_none() && !work.is_lost {
                if let Some(table) = work.write.take().filter(|table| table.number == self.cell.number + 1) {
                    self.cell = table;
                }
                work.read = Some(self.cell.clone());
            }
            if now >= work.back_at {
                let (begun, read) = (work.begun, work.read.take());
                self.controls[at].work = None;
                if let Some(table) = read {
                    let actions = self.controls[at].keeper.step(Event::Read { begun, table }, local);
                    self.act(at, actions, local);
                }
            }
        } else if now >= self.controls[at].reads_at {
            self.controls[at].reads_at = now + 500;
            self.send_work(at, None, local);
        }
    }

    fn run_node(&mut self, at: usize) {
        let (now, floor) = (self.now, self.policy.floor());
        let grace_ms = self.policy.grace.as_millis() as u64;
        let node = &mut self.nodes[at];
        let local = node.clock.at(now);
        node.gate.allow(floor.plus(node.holder.allowed(local)), local);
        let mut ended = node.running.len();
        node.running.retain(|until| *until > now);
        ended -= node.running.len();
        let excess = node.gate.excess(local, grace_ms) as usize;
        let newest = node.running.len().saturating_sub(excess);
        ended += node.running.len() - newest;
        node.running.truncate(newest);
        (0..ended).for_each(|_| node.gate.end(local));
        let due = node.pending.extract_if(.., |at| *at <= now).count();
        for _ in 0..due {
            if !node.gate.send(local) {
                node.gate.end(local);
                continue;
            }
            self.arrivals.push_back(now);
            self.arrived += 1;
            // A slow origin.
            let most = if self.chance.once_in(10) { 30_000 } else { 900 };
            node.running.push(now + 20 + self.chance.below(most));
        }
        let wanted = node.waiting;
        for _ in 0..wanted {
            if node.gate.begin(local).is_err() {
                break;
            }
            let most = if self.chance.once_in(10) { 3_000 } else { 30 };
            node.pending.push(now + self.chance.below(most));
        }
        node.gate.note_demand(wanted, local);
        if now >= node.asks_at {
            node.asks_at = now + 1_000;
            let demand = node.gate.demand(wanted, local).minus(floor);
            let running = node.gate.running().saturating_sub(floor.in_flight);
            let ask = node.holder.ask(demand, running, local);
            if let Some(control) = node.control {
                let way = self.way();
                self.messages.push((now + way, Message::Ask(control, at, ask)));
            }
        }
    }

    fn check(&mut self) {
        let total = self.policy.total;
        while self.arrivals.front().is_some_and(|at| at + 1_000 <= self.now) {
            self.arrivals.pop_front();
        }
        let in_flight: usize = self.nodes.iter().map(|node| node.running.len()).sum();
        assert!(
            self.arrivals.len() <= total.requests_per_second as usize,
            "{} a second",
            self.arrivals.len()
        );
        assert!(in_flight <= total.in_flight as usize, "{in_flight} in flight of {}", total.in_flight);
        let leasable = self.policy.leasable();
        let held = self.cell.shares.values().fold(Amount::default(), |sum, share| sum.plus(share.held));
        assert!(held.is_within(leasable), "{held:?} of {leasable:?} at {:?}", self.cell);
    }
}

/// Seeds are counted from 1: `PERIGEE_BUDGET_SEEDS` says how many.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let count = std::env::var("PERIGEE_BUDGET_SEEDS").ok().and_then(|count| count.parse().ok());
    1..=count.unwrap_or(12)
}

#[test]
fn whatever_breaks_the_origin_never_gets_more_than_its_budget() {
    for seed in seeds() {
        let world = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.nodes.iter_mut().for_each(|node| node.waiting = 300);
            (0..9_000).for_each(|_| world.step());
            world.arrived
        });
        match world {
            Ok(arrived) => assert!(arrived > 50, "seed {seed}: the origin was asked {arrived} times"),
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn when_all_is_well_again_the_budget_is_used() {
    for seed in seeds() {
        let mut world = World::new(seed);
        (0..3_000).for_each(|_| world.step());
        world.is_calm = true;
        world.nodes.iter_mut().enumerate().for_each(|(at, node)| {
            (node.waiting, node.control) = (300, Some(at % CONTROLS));
        });
        world.controls.iter_mut().for_each(|control| control.is_cut = false);
        // Long enough for what was held to run out and for each turn.
        (0..5_000).for_each(|_| world.step());
        let (mut most_in_flight, before) = (0, world.arrived);
        for _ in 0..1_500 {
            world.step();
            most_in_flight = most_in_flight.max(world.nodes.iter().map(|node| node.running.len()).sum());
        }
        let total = world.policy.total;
        let per_second = (world.arrived - before) / 30;
        let uses_rate = per_second * 100 >= u64::from(total.requests_per_second) * 50;
        let uses_flight = most_in_flight * 100 >= total.in_flight as usize * 70;
        assert!(
            uses_rate || uses_flight,
            "seed {seed}: {per_second}/s and {most_in_flight} of {total:?}, {:?}",
            world.cell
        );
    }
}
