//! Noticing what others have committed: one watch on the head for all who wait, and a question each second that notices when the
//! watch has fallen silent. The watch tells only that there is something; it is read from the keys, so nothing is lost with a watch.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch::Sender;
use tokio::time::{Instant, sleep_until};

use super::wire::text;
use super::{Found, Shared};
use crate::Error;

/// How often the head is asked for beside the watch: so late a change is noticed when a watch says nothing any more.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);

/// Keeps `head` at the newest one that is known. Ends only when it is aborted.
pub(super) async fn follow(shared: Arc<Shared>, head: Sender<Found>) {
    let (mut failures, mut but) = (0, None);
    loop {
        if let Ok(revision) = ask(&shared, &head).await {
            let create = json!({ "create_request": { "key": text(&shared.keys.head()), "start_revision": (revision + 1).to_string() } });
            let (index, opened) = shared.gateway.watch(create.to_string().into_bytes(), but).await;
            but = Some(index);
            if let Ok(watch) = opened {
                failures = 0;
                listen(&shared, &head, watch, revision).await;
            }
        }
        failures += 1;
        shared.gateway.pause(failures).await;
    }
}

/// Until the watch ends, or has been behind for two questions in a row.
async fn listen(shared: &Shared, head: &Sender<Found>, mut watch: super::gateway::Watch<'_>, mut seen: u64) {
    let mut missed = None;
    let mut ask_at = Instant::now() + ASK_EVERY;
    loop {
        tokio::select! {
            biased;
            watched = watch.next() => {
                let Ok(watched) = watched else { return };
                for kv in watched.events.into_iter().filter_map(|event| event.kv) {
                    seen = seen.max(kv.mod_revision);
                    if let Ok(found) = Found::read(&kv) {
                        tell(head, &found);
                    }
                }
            }
            () = sleep_until(ask_at) => {
                // An answer that does not come is no fault of the watch.
                if let Ok(revision) = ask(shared, head).await {
                    if missed.is_some_and(|missed| seen < missed) {
                        return;
                    }
                    missed = Some(revision);
                }
                ask_at = Instant::now() + ASK_EVERY;
            }
        }
    }
}

/// Asks the whole etcd for the head; its revision.
async fn ask(shared: &Shared, head: &Sender<Found>) -> Result<u64, Error> {
    let known = head.borrow().revision;
    let found = shared.head().await?;
    if found.revision < known {
        // It was restored: what was known is no more.
        head.send_replace(found.clone());
    }
    tell(head, &found);
    Ok(found.revision)
}

/// It only grows, whichever way it is heard of first. Wakes those who wait when there are new records.
pub(super) fn tell(head: &Sender<Found>, found: &Found) {
    head.send_if_modified(|head| {
        let is_news = found.head.mark.position > head.head.mark.position;
        head.clone_newer(found);
        is_news
    });
}
