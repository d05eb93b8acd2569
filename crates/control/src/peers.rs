//! The other controls: each notes in a cell that it runs, and tells all others what its nodes report, so that whichever is asked
//! for a purge's receipts knows all nodes. Positions and plans they read from the journal.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use journal::feed::{Dialer, SILENCE, follow};
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
    /// Notes what a look has found; `is_tick`: one of those that are counted.
    fn looked(&self, shared: &Shared, found: &[(Running, u64)], is_tick: bool) {
        let mut noted = self.0.lock();
        noted.retain(|name, _| found.iter().any(|(other, _)| other.name == *name));
        for (other, version) in found.iter().filter(|(other, _)| other.name != shared.name) {
            let known = noted.entry(other.name.clone()).or_insert(Noted { version: *version, same: 0 });
            let same = if known.version == *version { known.same + u32::from(is_tick) } else { 0 };
            *known = Noted { version: *version, same };
        }
    }

    fn is_running(&self, name: &str) -> bool {
        self.0.lock().get(name).is_some_and(|noted| noted.same <= SAME_NOTE_MAX)
    }
}

impl Shared {
    /// Controls that run, as the journal says, and do not say here what their nodes report. As long as there is one, nobody can say
    /// here of a node that it is out of contact: it may be that one's.
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
}

/// Notes that this control runs, and reports to the others.
pub(crate) async fn keep(shared: Arc<Shared>, certificates: Arc<Certificates>, address: SocketAddr) {
    let urls = certificates.urls(address.port());
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted_ms = 0;
    // Dropped with this task, and with it all reports.
    let mut reports = JoinSet::new();
    let mut others: HashMap<String, (Vec<String>, AbortHandle)> = HashMap::new();
    loop {
        let is_tick = tokio::select! {
            _ = ticks.tick() => true,
            () = shared.hub.newcomer() => false,
        };
        if now_ms() - noted_ms >= ms(NOTE) && note(&shared, &urls).await.is_ok() {
            noted_ms = now_ms();
        }
        // While the journal cannot be read, those that are known are reported to.
        let Ok(found) = cells::load_all::<Running>(&*shared.journal, "controls/").await else { continue };
        shared.peers.looked(&shared, &found, is_tick);
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

async fn note(shared: &Shared, urls: &[String]) -> Result<(), Error> {
    let running = Running { name: shared.name.clone(), urls: urls.to_owned(), at_ms: now_ms() };
    let cells = vec![(format!("controls/{}", shared.name), Some(cells::value(&running)?))];
    cells::commit(&*shared.journal, Commit { cells, ..Commit::default() }).await.map(drop)
}
