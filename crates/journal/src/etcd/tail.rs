//! Noticing what others have committed: one watch on head and records for all who wait, and a question each second that notices when
//! the watch has fallen silent. What a watch has not brought is read from the keys, so nothing is lost with it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch::Sender;
use tokio::time::sleep;

use super::wire::{self, Head, KeyValue, text};
use super::{Found, Shared};
use crate::{Error, Record};

/// How often the head is asked for beside the watch: so late a change is noticed when a watch says nothing any more.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);

/// Keeps `head` at the newest one that is known. Ends only when it is aborted.
pub(super) async fn follow(shared: Arc<Shared>, head: Sender<Found>) {
    let (mut failures, mut but) = (0, None);
    loop {
        if let Ok(Found { head: Head { mark, .. }, revision, .. }) = ask(&shared, &head).await {
            // From the head to the last record: nothing else that is written often lies between.
            let create = json!({ "create_request": {
                "key": text(&shared.keys.head()), "range_end": text(&shared.keys.records_end()),
                "start_revision": (revision + 1).to_string(), "filters": ["NODELETE"],
            } });
            let (index, opened) = shared.gateway.watch(create.to_string().into_bytes(), but).await;
            but = Some(index);
            if let Ok(watch) = opened {
                failures = 0;
                shared.recent.lock().begin(mark);
                listen(&shared, &head, watch, revision).await;
                shared.recent.lock().end();
            }
        }
        failures += 1;
        shared.gateway.pause(failures).await;
    }
}

/// Until the watch ends, or has been behind for two questions in a row.
async fn listen(shared: &Shared, head: &Sender<Found>, mut watch: super::gateway::Watch<'_>, mut seen: u64) {
    let mut missed = None;
    // Beside the watch, which is read on meanwhile: the member that is asked may be another one, which hangs.
    let mut asking = pin!(ask_later(shared, head));
    loop {
        tokio::select! {
            biased;
            watched = watch.next() => {
                let Ok(watched) = watched else { return };
                let mut newest = None;
                for kv in watched.events.into_iter().filter_map(|event| event.kv) {
                    seen = seen.max(kv.mod_revision);
                    if kv.key == shared.keys.head() {
                        newest = Found::read(&kv).ok().or(newest);
                    } else {
                        shared.bring(&kv);
                    }
                }
                // Who is woken by it finds the records.
                if let Some(found) = newest {
                    tell(head, &found);
                }
            }
            asked = &mut asking => {
                // An answer that does not come is no fault of the watch.
                if let Ok(Found { revision, .. }) = asked {
                    if missed.is_some_and(|missed| seen < missed) {
                        return;
                    }
                    missed = Some(revision);
                }
                asking.set(ask_later(shared, head));
            }
        }
    }
}

impl Shared {
    /// Keeps a record that the watch has brought. What is none of ours is for reading to find.
    pub(super) fn bring(&self, kv: &KeyValue) {
        if let Some(position) = self.keys.position(&kv.key)
            && self.keys.record(position) == kv.key
            && let Some((digest, text)) = wire::read_record(&kv.value)
        {
            self.recent.lock().bring(Record { position, text: text.into() }, digest);
        }
    }
}

async fn ask_later(shared: &Shared, head: &Sender<Found>) -> Result<Found, Error> {
    sleep(ASK_EVERY).await;
    ask(shared, head).await
}

/// Asks the whole etcd for the head.
async fn ask(shared: &Shared, head: &Sender<Found>) -> Result<Found, Error> {
    let known = head.borrow().revision;
    let found = shared.head().await?;
    if found.revision < known {
        // It was restored: what was known is no more.
        head.send_replace(found.clone());
    }
    tell(head, &found);
    Ok(found)
}

/// It only grows, whichever way it is heard of first. Wakes those who wait when there are new records.
pub(super) fn tell(head: &Sender<Found>, found: &Found) {
    head.send_if_modified(|head| {
        let is_news = found.head.mark.position > head.head.mark.position;
        head.clone_newer(found);
        is_news
    });
}
