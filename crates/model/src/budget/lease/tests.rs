use super::*;

fn amount(requests_per_second: u32, in_flight: u32) -> Amount {
    Amount { requests_per_second, in_flight }
}

fn ask(seq: u64, applied: u64, demand: Amount, running: u32) -> Ask {
    Ask { seq, applied, demand, running }
}

fn asked(node: &str, ask: Ask) -> Event {
    Event::Asked { node: node.to_owned(), ask, is_near: true }
}

/// A control with what it has written: each write comes through at once.
struct Alone {
    keeper: Keeper,
    table: Table,
}

impl Alone {
    fn new(total: Amount) -> Alone {
        let mut keeper = Keeper::new(0);
        keeper.step(Event::Budget { total, grace_ms: 10_000 }, 0);
        Alone { keeper, table: Table::default() }
    }

    /// Reads, and writes as long as there is something to write; what was granted.
    fn read(&mut self, now: u64) -> Vec<(String, Grant)> {
        let mut grants = Vec::new();
        for _ in 0..5 {
            let mut is_done = true;
            for action in self.keeper.step(Event::Read { begun: now, table: self.table.clone() }, now) {
                match action {
                    Action::Grant(node, grant) => grants.push((node, grant)),
                    Action::Write(table) => {
                        assert_eq!(table.number, self.table.number + 1);
                        (self.table, is_done) = (table, false);
                    }
                }
            }
            if is_done {
                break;
            }
        }
        grants
    }

    fn allowed(&self, node: &str) -> Amount {
        self.table.shares[node].allowed
    }
}

#[test]
fn the_only_one_who_asks_is_granted_everything() {
    let mut control = Alone::new(amount(100, 20));
    control.keeper.step(asked("a", ask(1, 0, amount(5, 1), 0)), 1_000);
    let grants = control.read(1_000);
    let [(node, grant)] = grants.as_slice() else { panic!("{grants:?}") };
    assert_eq!((node.as_str(), grant.seq, grant.amount, grant.for_ms), ("a", 1, amount(100, 20), LEASE_MS));
}

#[test]
fn what_is_taken_is_given_to_others_once_its_holder_has_said_that_it_lets_go() {
    let mut control = Alone::new(amount(100, 20));
    control.keeper.step(asked("a", ask(1, 0, amount(90, 15), 0)), 1_000);
    control.read(1_000);
    control.keeper.step(asked("b", ask(7, 0, amount(90, 15), 0)), 2_000);
    control.read(2_000);
    assert_eq!((control.allowed("a"), control.allowed("b")), (amount(50, 10), amount(0, 0)));
    let since = control.table.shares["a"].since.0;
    // It says nothing of it: nothing is free.
    control.keeper.step(asked("a", ask(2, since - 1, amount(90, 15), 12)), 3_000);
    control.read(3_000);
    assert_eq!(control.allowed("b"), amount(0, 0));
    // It has applied that, and uses two more than it may still.
    control.keeper.step(asked("a", ask(3, since, amount(90, 15), 12)), 4_000);
    control.read(4_000);
    assert_eq!(control.allowed("b"), amount(0, 8), "requests of the last second still count");
    control.keeper.step(asked("a", ask(4, since, amount(90, 15), 10)), 6_000);
    control.read(6_000);
    assert_eq!(control.allowed("b"), amount(50, 8), "what goes on stays its own");
}

#[test]
fn of_who_says_nothing_what_was_taken_is_free_when_every_grant_has_run_out() {
    let mut control = Alone::new(amount(100, 20));
    control.keeper.step(asked("a", ask(1, 0, amount(90, 15), 0)), 1_000);
    control.read(1_000);
    control.keeper.step(asked("b", ask(7, 0, amount(90, 15), 0)), 2_000);
    control.read(2_000);
    let lease = surely(LEASE_MS) + surely(WINDOW_MS);
    for (now, expected) in [(2_000 + lease - 1, 0), (2_000 + lease, 50)] {
        control.keeper.step(asked("b", ask(now, 0, amount(90, 15), 0)), now);
        control.read(now);
        assert_eq!(control.allowed("b"), amount(expected, 0), "at {now}");
    }
    let end = 2_000 + surely(LEASE_MS) + surely(10_000);
    control.keeper.step(asked("b", ask(end, 0, amount(90, 15), 0)), end);
    control.read(end);
    assert_eq!(control.allowed("b"), amount(50, 10), "and what was in flight, after the grace");
}

#[test]
fn who_has_been_granted_nothing_for_long_takes_grants_of_a_table_that_has_begun_anew() {
    let mut node = Holder::new(40, 0);
    let grant = |seq, number, age_ms| Grant { seq, number, amount: amount(5, 5), age_ms, for_ms: LEASE_MS };
    let first = node.ask(amount(5, 5), 0, 1_000);
    assert!(node.take(grant(first.seq, 17, 0), 1_010));
    let second = node.ask(amount(5, 5), 0, 2_000);
    assert!(!node.take(grant(second.seq, 3, 0), 2_010), "of an older table");
    let late = 6_000 + LEASE_MS;
    let third = node.ask(amount(5, 5), 0, late);
    assert_eq!(third.applied, 0);
    assert!(!node.take(grant(third.seq, 3, 1), late + 10), "of a reading before it began anew");
    assert!(node.take(grant(third.seq, 3, 0), late + 10));
}

#[test]
fn a_control_that_begins_waits_anew() {
    let mut control = Alone::new(amount(100, 20));
    control.keeper.step(asked("a", ask(1, 0, amount(90, 15), 0)), 1_000);
    control.read(1_000);
    control.keeper.step(asked("b", ask(7, 0, amount(90, 15), 0)), 2_000);
    control.read(2_000);
    let mut next = Alone { table: control.table, ..Alone::new(amount(100, 20)) };
    let now = 5;
    next.keeper.step(asked("b", ask(8, 0, amount(90, 15), 0)), now);
    next.read(now);
    assert_eq!(next.allowed("b"), amount(0, 0));
}

#[test]
fn where_there_is_less_than_one_for_each_all_have_their_turn() {
    let mut control = Alone::new(amount(1, 1));
    let mut had = [0, 0, 0];
    let mut applied = [0, 0, 0];
    for second in 1..100 {
        let now = second * 1_000;
        let mut grants = control.read(now);
        for (at, node) in ["a", "b", "c"].into_iter().enumerate() {
            let ask = ask(now + at as u64, applied[at], amount(9, 9), 0);
            for action in control.keeper.step(asked(node, ask), now) {
                let Action::Grant(node, grant) = action else { panic!("{action:?}") };
                grants.push((node, grant));
            }
        }
        for (node, grant) in grants {
            let at = ["a", "b", "c"].iter().position(|name| *name == node).unwrap();
            applied[at] = grant.number;
            had[at] += u32::from(grant.amount == amount(1, 1));
        }
    }
    assert!(had.iter().all(|had| *had >= 10), "{had:?}");
}

#[test]
fn a_node_that_is_quiet_keeps_its_share_until_others_lack_it() {
    let mut control = Alone::new(amount(100, 20));
    control.keeper.step(asked("a", ask(1, 0, amount(60, 10), 0)), 1_000);
    control.keeper.step(asked("b", ask(2, 0, amount(10, 2), 0)), 1_000);
    control.read(1_000);
    let had = control.allowed("a");
    for second in 2..100 {
        control.keeper.step(asked("b", ask(second, 9, amount(10, 2), 0)), second * 1_000);
        control.read(second * 1_000);
    }
    assert_eq!(control.allowed("a"), had);
    for second in 100..120 {
        control.keeper.step(asked("b", ask(second, 9, amount(100, 20), 0)), second * 1_000);
        control.read(second * 1_000);
    }
    assert_eq!(control.allowed("b"), amount(100, 20));
    assert!(!control.table.shares.contains_key("a"));
}

#[test]
fn a_grant_is_good_from_when_the_node_asked_and_only_for_this_process() {
    let grant = |seq, number, age_ms| Grant { seq, number, amount: amount(9, 9), age_ms, for_ms: 4_000 };
    let mut holder = Holder::new(0, 10_000);
    let ask = holder.ask(amount(1, 1), 0, 10_500);
    assert!(!holder.take(grant(ask.seq, 3, 501), 10_600), "the reading may be of before this process");
    assert!(!holder.take(grant(ask.seq + 9, 3, 0), 10_600), "nobody has asked that");
    assert!(holder.take(grant(ask.seq, 3, 500), 10_600));
    assert_eq!((holder.allowed(14_499), holder.allowed(14_500)), (amount(9, 9), amount(0, 0)));
    let ask = holder.ask(amount(1, 1), 0, 12_000);
    assert!(!holder.take(grant(ask.seq, 2, 0), 12_100), "it knows of a newer table");
    assert!(!holder.take(grant(ask.seq, 4, 0), 16_000), "it has run out on its way");
    assert!(holder.take(grant(ask.seq, 4, 0), 12_100));
    assert_eq!(holder.ask(amount(1, 1), 0, 12_200).applied, 4);
}

#[test]
fn a_smaller_budget_is_in_force_once_everybody_has_let_go() {
    let mut control = Alone::new(amount(100, 20));
    control.keeper.step(asked("a", ask(1, 0, amount(90, 15), 0)), 1_000);
    control.read(1_000);
    control.keeper.step(Event::Budget { total: amount(30, 5), grace_ms: 10_000 }, 2_000);
    control.read(2_000);
    assert_eq!(control.allowed("a"), amount(30, 5));
    assert_eq!(control.table.shares["a"].held, amount(100, 20));
}
