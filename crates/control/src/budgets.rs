//! Origins' budgets: what nodes want, what they are granted, and the table in the journal on which all controls agree.
//!
//! ```text
//! reports ─► hub.wanted ─► Keeper (model::budget::lease) ◄── cell budgets/HASH, read twice a second
//! hub.grant ◄─ grants ──────────┘  └─ the next table ─► the cell, if nobody has written meanwhile
//! ```
//!
//! A table that no configuration has a budget for, and that nobody has written for an hour, is deleted: whatever was granted of it has
//! run out, and whatever was in flight has been ended.
//!
//! Nothing else is read or written while no configuration has a budget. A control that cannot reach the journal grants for as long as its last
//! reading is good, and then nothing: nodes go on with their floors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use journal::feed::{Leased, Wanted};
use journal::{Commit, Error};
use model::Snapshot;
use model::budget::lease::{Action, Event, Keeper, Table};
use model::budget::{Amount, BudgetPolicy, bounds};
use model::change::Plan;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, sleep};
use trust::text_hash;

use crate::Shared;
use crate::cells;
use crate::nodes::NodeRole;
use crate::view::Picture;

/// How often the tables are read. Together with [`GATHER`] well below [`model::budget::lease::LEASE_MS`].
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// How often it is looked for tables of budgets that no configuration has any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// After how long such a table is deleted: the longest grace, with what clocks may differ by.
const UNNAMED_MAX: Duration = Duration::from_secs(bounds::GRACE.max.as_secs() * 5 / 4);

/// Reports that come within this are answered together.
const GATHER: Duration = Duration::from_millis(50);

/// A budget's table as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// See [`BudgetPolicy::id`].
    budget: String,
    table: Table,
}

fn cell(budget: &str) -> String {
    format!("budgets/{}", text_hash(budget.as_bytes()))
}

/// What is leased of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Terms {
    total: Amount,
    grace_ms: u64,
    /// How many nodes it has floors for, and how large each is.
    nodes: u32,
    floor: Amount,
}

/// Grants leases for as long as this control runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut keeping = Keeping {
        begun: Instant::now(),
        keepers: BTreeMap::new(),
        terms: BTreeMap::new(),
        read_for: None,
        unnamed: Unnamed::default(),
        swept: None,
        reported: 0,
        trouble: None,
        shared,
    };
    let mut news = keeping.shared.hub.news();
    let mut ticks = tokio::time::interval(READ_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                keeping.look_at_configurations();
                if !keeping.terms.is_empty() {
                    keeping.hear();
                    keeping.read().await;
                }
                keeping.sweep().await;
            }
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
                sleep(GATHER).await;
                news.mark_unchanged();
                keeping.hear();
            }
        }
    }
}

struct Keeping {
    shared: Arc<Shared>,
    begun: Instant,
    keepers: BTreeMap<String, Keeper>,
    terms: BTreeMap<String, Terms>,
    /// For which plan the terms have been read.
    read_for: Option<Plan>,
    unnamed: Unnamed,
    /// When it was looked for such tables last.
    swept: Option<Instant>,
    /// The number of the newest report that was heard.
    reported: u64,
    trouble: Option<String>,
}

impl Keeping {
    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Which budgets there are, by the configurations that nodes may run.
    fn look_at_configurations(&mut self) {
        let picture = self.shared.view.get();
        if self.read_for.as_ref() != Some(&picture.plan) && picture.is_whole {
            self.terms = terms(picture.snapshots());
            self.read_for = Some(picture.plan.clone());
        }
        let now = self.now_ms();
        self.keepers.retain(|budget, _| self.terms.contains_key(budget));
        let edges = edges(&picture);
        for (budget, terms) in &self.terms {
            let keeper = self.keepers.entry(budget.clone()).or_insert_with(|| Keeper::new(now));
            let total = (terms.nodes..edges).fold(terms.total, |total, _| total.minus(terms.floor));
            keeper.step(Event::Budget { total, grace_ms: terms.grace_ms }, now);
        }
    }

    /// Takes what nodes want, and answers what can be answered now.
    fn hear(&mut self) {
        let now = self.now_ms();
        let (reported, wanted) = self.shared.hub.wanted(self.reported);
        self.reported = reported;
        let mut leases = Vec::new();
        for (node, is_near, wanted) in wanted {
            for Wanted { budget, ask } in wanted {
                let Some(keeper) = self.keepers.get_mut(&budget) else { continue };
                let actions = keeper.step(Event::Asked { node: node.clone(), ask, is_near }, now);
                leases.extend(actions.into_iter().filter_map(|action| leased(&budget, action)));
            }
        }
        self.shared.hub.grant(leases);
    }

    /// Reads all tables, and writes those that are to be others; once more where one has been written.
    async fn read(&mut self) {
        for _ in 0..2 {
            let begun = self.now_ms();
            let found = match cells::load_all::<Kept>(&*self.shared.journal, "budgets/").await {
                Ok(found) => found,
                Err(error) => return self.tell(Some(error.to_string())),
            };
            let mut tables: BTreeMap<String, (Table, u64)> =
                found.into_iter().map(|(kept, version)| (kept.budget, (kept.table, version))).collect();
            let (now, mut leases, mut writes) = (self.now_ms(), Vec::new(), Vec::new());
            for (budget, keeper) in &mut self.keepers {
                let (table, version) = tables.remove(budget).unwrap_or_default();
                for action in keeper.step(Event::Read { begun, table }, now) {
                    match action {
                        Action::Write(table) => writes.push((budget.clone(), table, version)),
                        grant => leases.extend(leased(budget, grant)),
                    }
                }
            }
            self.shared.hub.grant(leases);
            let is_done = writes.is_empty();
            for (budget, table, version) in writes {
                match self.write(budget, table, version).await {
                    // Somebody else was first, or it may have been written: it is read again in any case.
                    Ok(()) | Err(Error::Conflict(_) | Error::Unknown(_)) => {}
                    Err(error) => return self.tell(Some(error.to_string())),
                }
            }
            if is_done {
                break;
            }
        }
        self.tell(None);
    }

    async fn write(&self, budget: String, table: Table, version: u64) -> Result<(), Error> {
        let name = cell(&budget);
        let commit = Commit::swap(name, version, Some(cells::value(&Kept { budget, table })?));
        cells::bounded(self.shared.journal.commit(commit)).await.map(drop)
    }

    /// Deletes tables of budgets that no configuration has any more.
    async fn sweep(&mut self) {
        if self.read_for.is_none() || self.swept.is_some_and(|at| at.elapsed() < SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(Instant::now());
        // What cannot be read or written now is looked at again the next time.
        let Ok(found) = cells::load_all::<Kept>(&*self.shared.journal, "budgets/").await else { return };
        let unnamed = found.into_iter().filter(|(kept, _)| !self.terms.contains_key(&kept.budget));
        let versions = unnamed.map(|(kept, version)| (kept.budget, version)).collect();
        for (budget, version) in self.unnamed.over(versions, self.begun.elapsed()) {
            let name = cell(&budget);
            let commit = Commit::swap(name, version, None);
            let _again = cells::bounded(self.shared.journal.commit(commit)).await;
        }
    }

    /// Says once what is in the way, and once that it is not any more.
    fn tell(&mut self, trouble: Option<String>) {
        match (&self.trouble, &trouble) {
            (None, Some(trouble)) => eprintln!("perigee: budgets of origins cannot be leased: {trouble}"),
            (Some(_), None) => eprintln!("perigee: budgets of origins are leased again"),
            _ => {}
        }
        self.trouble = trouble;
    }
}

/// Tables of budgets that no configuration has: at which version of its cell each was first seen, and when.
#[derive(Debug, Default)]
struct Unnamed(BTreeMap<String, (u64, Duration)>);

impl Unnamed {
    /// Takes those that there are at this time, with their versions; which of them are to be deleted. Whatever has been written since
    /// it was seen, some control still leases.
    fn over(&mut self, tables: BTreeMap<String, u64>, now: Duration) -> Vec<(String, u64)> {
        self.0.retain(|budget, (version, _)| tables.get(budget) == Some(version));
        let seen = |(budget, version): (String, u64)| {
            let (_, since) = self.0.entry(budget.clone()).or_insert((version, now));
            (now - *since >= UNNAMED_MAX).then_some((budget, version))
        };
        tables.into_iter().filter_map(seen).collect()
    }
}

fn leased(budget: &str, action: Action) -> Option<Leased> {
    match action {
        Action::Grant(node, grant) => Some(Leased { node, budget: budget.to_owned(), grant }),
        Action::Write(_) => None,
    }
}

/// How many edges have been enrolled.
pub(crate) fn edges(picture: &Picture) -> u32 {
    let edges = picture.nodes.values().filter(|node| node.role == NodeRole::Edge).count();
    u32::try_from(edges).unwrap_or(u32::MAX)
}

/// What is leased while nodes may run any of these configurations: the least of what they say, and the longest grace.
fn terms<'a>(snapshots: impl Iterator<Item = &'a Snapshot>) -> BTreeMap<String, Terms> {
    let mut terms: BTreeMap<String, Terms> = BTreeMap::new();
    for (policy, origin) in snapshots.flat_map(budgets_of) {
        let (total, floor) = (policy.leasable(), policy.floor());
        let grace_ms = policy.grace.as_millis() as u64;
        let of_this = Terms { total, grace_ms, nodes: policy.nodes, floor };
        let known = terms.entry(policy.id(&origin)).or_insert(of_this);
        known.total = known.total.min(total);
        known.grace_ms = known.grace_ms.max(grace_ms);
        known.nodes = known.nodes.min(policy.nodes);
        known.floor = known.floor.max(floor);
    }
    terms
}

/// Each budget of a configuration, with the URL of the origin that it is for.
fn budgets_of(snapshot: &Snapshot) -> impl Iterator<Item = (&BudgetPolicy, String)> {
    let groups = snapshot.sites.iter().flat_map(|site| {
        site.rules.iter().map(|rule| &rule.origin).chain(std::iter::once(&site.defaults.origin))
    });
    groups
        .filter_map(|group| Some((group, group.budget.as_ref()?)))
        .flat_map(|(group, budget)| group.origins.iter().map(move |origin| (budget, origin.url())))
}

/// A budget that has floors for fewer nodes than there are `edges`: the sentence that says so. The floors of all nodes together would
/// be more than the reserve.
pub(crate) fn without_floor(snapshot: &Snapshot, edges: u32) -> Option<String> {
    budgets_of(snapshot).find_map(|(policy, origin)| {
        (policy.floor() != Amount::default() && policy.nodes < edges)
            .then(|| format!("the budget of site {} for {origin} is for {} edges", policy.site, policy.nodes))
    })
}

#[cfg(test)]
mod tests {
    use model::budget::lease::Share;

    use super::*;

    #[test]
    fn a_table_that_no_configuration_has_and_nobody_writes_is_deleted_after_the_longest_grace() {
        let mut unnamed = Unnamed::default();
        let tables =
            |of: &[(&str, u64)]| of.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect();
        let at = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(unnamed.over(tables(&[("one", 3), ("two", 5)]), at(0)), []);
        // Another control still leases the second.
        assert_eq!(unnamed.over(tables(&[("one", 3), ("two", 6)]), at(74)), []);
        assert_eq!(unnamed.over(tables(&[("one", 3), ("two", 6)]), at(75)), [("one".to_owned(), 3)]);
        // A site with the first has come and gone.
        assert_eq!(unnamed.over(tables(&[("two", 6)]), at(80)), []);
        assert_eq!(unnamed.over(tables(&[("one", 9)]), at(150)), []);
        assert_eq!(unnamed.over(tables(&[("one", 9)]), at(225)), [("one".to_owned(), 9)]);
    }

    /// The number is in docs/control.md.
    #[test]
    fn the_table_of_4_000_edges_fits_into_a_cell() {
        let much = Amount { requests_per_second: 99_999, in_flight: 9_999 };
        let share = Share {
            allowed: much,
            held: much,
            since: (99_999_999, 99_999_999),
            demand: much,
            beat: 99_999_999,
        };
        let shares = (0..4_000).map(|number| (format!("edge-frankfurt-{number:04}"), share)).collect();
        let kept = Kept {
            budget: "shop https://origin.shop.example".into(),
            table: Table { number: 99_999_999, shares },
        };
        let bytes = cells::value(&kept).unwrap().len();
        assert!(bytes < journal::TEXT_BYTES_MAX, "{bytes}");
    }
}
