//! The canary purge: each minute one of a surrogate key that nothing has, to see that purges arrive before somebody needs one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::Shared;
use crate::clock::now_ms;
use crate::limits::{CANARY_LATE, CANARY_TAG};
use crate::nodes::NodeRole;
use crate::purges::{Done, PurgeState, tag_order};

/// What the last one showed.
#[derive(Default)]
pub(crate) struct Canary {
    status: Mutex<CanaryStatus>,
}

/// The last canary purge.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct CanaryStatus {
    /// When it was sent, in ms since 1970; `null` before the first.
    pub(crate) at_ms: Option<i64>,
    /// Its position.
    pub(crate) position: Option<u64>,
    /// From there to the last receipt, in ms; `null` while it is missing.
    pub(crate) took_ms: Option<u64>,
    /// Whether it was not written, or some node in service had not proven it within five seconds.
    pub(crate) alarm: bool,
    /// Why.
    pub(crate) why: Option<String>,
}

impl Canary {
    pub(crate) fn status(&self) -> CanaryStatus {
        self.status.lock().clone()
    }
}

/// Sends one each minute, as long as there is an edge to prove it.
pub(crate) async fn sing(shared: Arc<Shared>, interval: Duration) {
    let mut minutes = tokio::time::interval(interval);
    minutes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    // The first tick is at once, when no node can be here yet.
    minutes.tick().await;
    loop {
        minutes.tick().await;
        let nodes = shared.nodes_heard();
        let nodes = nodes.iter().map(|(node, heard)| (node.role, shared.is_in_service(heard.as_ref())));
        if can_be_proven(nodes) {
            sing_once(&shared).await;
        }
    }
}

/// Whether there is an edge in service: routers and relays keep nothing that a purge is for. By the nodes' roles, and whether they are in
/// service.
fn can_be_proven(mut nodes: impl Iterator<Item = (NodeRole, bool)>) -> bool {
    nodes.any(|(role, is_in_service)| role == NodeRole::Edge && is_in_service)
}

pub(crate) async fn sing_once(shared: &Shared) {
    let begun = Instant::now();
    let mut status = CanaryStatus { at_ms: Some(now_ms()), ..CanaryStatus::default() };
    let written = shared.purge(vec![tag_order(CANARY_TAG)], "control".to_owned(), None).await;
    if let Ok(Done::At(position)) = written {
        status.position = Some(position);
        let until = begun + CANARY_LATE;
        loop {
            let changed = shared.receipts_changed();
            if shared.proof(position).state() == PurgeState::Done {
                status.took_ms = Some(begun.elapsed().as_millis() as u64);
                break;
            }
            if Instant::now() >= until {
                status.why = Some(format!(
                    "not proven after {} s by {}",
                    CANARY_LATE.as_secs(),
                    shared.proof(position).laggard_names()
                ));
                break;
            }
            let _timeout = tokio::time::timeout(Duration::from_millis(100), changed).await;
        }
    } else {
        status.why = Some("it could not be written: the journal cannot be reached".to_owned());
    }
    status.alarm = status.why.is_some();
    if let Some(why) = &status.why {
        shared.counts.canaries_late.fetch_add(1, Ordering::Relaxed);
        eprintln!("perigee: the canary purge: {why}");
    }
    *shared.canary.status.lock() = status;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_canary_is_sent_while_there_is_no_edge_to_prove_it() {
        use NodeRole::{Edge, Relay, Router};
        for (nodes, can_be) in [
            (&[][..], false),
            (&[(Router, true), (Relay, true), (Edge, false)], false),
            (&[(Router, true), (Edge, true)], true),
        ] {
            assert_eq!(can_be_proven(nodes.iter().copied()), can_be, "{nodes:?}");
        }
    }
}
