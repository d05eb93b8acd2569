//! The other controls: each notes in a cell that it runs, and tells all others what its nodes report, so that whichever is asked
//! for a purge's receipts knows all nodes. Positions and plans they read from the journal.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use journal::feed::{Dialer, SILENCE, chance_below, follow};
use journal::{Commit, Error};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::Shared;
use crate::cells;
use crate::clock::{ms, now_ms};
use crate::tls::Certificates;

/// How often it is looked which controls there are. Who says something here for the first time is looked for at once: until it is told
/// what is reported here, whoever asks it for receipts waits.
const LOOK: Duration = Duration::from_secs(5);

/// How often a control notes that it runs.
const NOTE: Duration = Duration::from_secs(10);

/// After how many looks at the same note a control counts as gone: a minute. Looks are counted, and no clocks compared: those of two
/// machines differ, and while the journal cannot be read nobody can note anything.
const SAME_NOTE_MAX: u32 = 12;

/// What is known of the other controls.
#[derive(Default)]
pub(crate) struct Peers(Mutex<BTreeMap<String, Noted>>);

/// How often a control's note has been the same.
#[derive(Clone, Copy)]
struct Noted {
    version: u64,
    same: u32,
}

impl Peers {
    /// Notes what a look has found; `is_tick`: one of those that are counted. `own`: what is written under the own name. Whatever else is
    /// found there, once this control has written, is of another one that has been given the same name.
    fn looked(&self, own: &Running, has_written: bool, found: &[(Running, u64)], is_tick: bool) {
        let mut noted = self.0.lock();
        noted.retain(|name, _| found.iter().any(|(other, _)| other.name == *name));
        noted.values_mut().for_each(|noted| noted.same += u32::from(is_tick));
        let is_other = |other: &Running| other.name != own.name || (has_written && other.run != own.run);
        for (other, version) in found.iter().filter(|(other, _)| is_other(other)) {
            let is_new = noted.get(&other.name).is_none_or(|known| known.same > SAME_NOTE_MAX);
            let known = noted.entry(other.name.clone()).or_insert(Noted { version: *version, same: 0 });
            if known.version != *version {
                *known = Noted { version: *version, same: 0 };
            }
            if is_new && other.name == own.name && known.same == 0 {
                eprintln!(
                    "perigee: another control runs under the name {}, at {}: until each has a name of its own, purges wait \
                     for all nodes that are quiet here",
                    own.name,
                    other.urls.join(", ")
                );
            }
        }
    }

    fn is_running(&self, name: &str) -> bool {
        self.0.lock().get(name).is_some_and(|noted| noted.same <= SAME_NOTE_MAX)
    }
}

impl Shared {
    /// Controls that run, as the journal says, and do not say here what their nodes report, among them one of the own name. As long as
    /// there is one, nobody can say here of a node that it is out of contact: it may be that one's.
    pub(crate) fn unheard_controls(&self) -> Vec<String> {
        let names: Vec<String> = self.peers.0.lock().keys().cloned().collect();
        let is_heard = |name: &str| self.hub.silence_of(name).is_some_and(|silence| silence <= 3 * SILENCE);
        names.into_iter().filter(|name| self.peers.is_running(name) && !is_heard(name)).collect()
    }
}

/// A control that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    name: String,
    urls: Vec<String>,
    at_ms: i64,
    /// Drawn at its start. Older ones don't say.
    #[serde(default)]
    run: u64,
}

/// Notes that this control runs, and reports to the others.
pub(crate) async fn keep(shared: Arc<Shared>, certificates: Arc<Certificates>, address: SocketAddr) {
    let (name, urls) = (shared.name.clone(), certificates.urls(address.port()));
    let mut own = Running { name, urls, at_ms: 0, run: 1 + chance_below(u64::MAX) };
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Dropped with this task, and with it all reports.
    let mut reports = JoinSet::new();
    let mut others: HashMap<String, (Vec<String>, AbortHandle)> = HashMap::new();
    loop {
        let is_tick = tokio::select! {
            _ = ticks.tick() => true,
            () = shared.hub.newcomer() => false,
        };
        // Before it is written over what another one of the same name has written.
        let found = cells::load_all::<Running>(&*shared.journal, "controls/").await;
        let has_written = own.at_ms > 0;
        // Also when the clock has been set back.
        if !(0..ms(NOTE)).contains(&(now_ms() - own.at_ms)) {
            let noted = Running { at_ms: now_ms(), ..own.clone() };
            if note(&shared, &noted).await.is_ok() {
                own = noted;
            }
        }
        // While the journal cannot be read, those that are known are reported to.
        let Ok(found) = found else { continue };
        shared.peers.looked(&own, has_written, &found, is_tick);
        let running = |name: &str, urls: &[String]| {
            shared.peers.is_running(name)
                && found.iter().any(|(other, _)| other.name == name && other.urls == urls)
        };
        others.retain(|name, (urls, task)| {
            let stays = running(name, urls);
            if !stays {
                task.abort();
            }
            stays
        });
        for (other, _) in found.iter().filter(|(other, _)| other.name != shared.name) {
            if running(&other.name, &other.urls) && !others.contains_key(&other.name) {
                let certificates = Arc::clone(&certificates);
                let dialer = Dialer::new(other.urls.clone(), move || certificates.identity());
                let task = reports.spawn(follow(shared.hub.reporter(), Arc::new(dialer)));
                others.insert(other.name.clone(), (other.urls.clone(), task));
            }
        }
        while reports.try_join_next().is_some() {}
    }
}

async fn note(shared: &Shared, own: &Running) -> Result<(), Error> {
    let cells = vec![(format!("controls/{}", own.name), Some(cells::value(own)?))];
    cells::commit(&*shared.journal, Commit { cells, ..Commit::default() }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_has_written_under_the_own_name_is_another_controls() {
        let of = |run| Running { name: "c1".into(), urls: Vec::new(), at_ms: 1, run };
        let (own, peers) = (of(1), Peers::default());
        let look = |has_written, run, version| {
            peers.looked(&own, has_written, &[(of(run), version)], true);
            peers.is_running("c1")
        };
        assert!(!look(false, 9, 1), "what an earlier run has left");
        assert!(!look(true, 1, 2));
        assert!(look(true, 9, 3));
        // The two write over each other, in turn.
        for version in (4..100).step_by(2) {
            assert!(look(true, 1, version) && look(true, 9, version + 1));
        }
        for version in 0..SAME_NOTE_MAX {
            assert!(look(true, 1, 100 + u64::from(version)), "it may only be slow");
        }
        assert!(!look(true, 1, 200), "it is gone");
        assert!(look(true, 9, 201), "and there again");
    }
}
