//! Follows the journal for control itself, by its hub: which purges were the last ones, and how many records there are to trim.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use journal::feed::Hub;
use journal::{Error, Journal, Record};
use model::change::{Change, Order, Written};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::audit::AuditEntry;
use crate::cells::bounded;
use crate::clock::ms;
use crate::limits::{CANARY_TAG, LISTED_MAX, RECORDS_KEPT, RECORDS_KEPT_MAX};
use crate::purges::describe;
use crate::tokens::Caller;

/// Records in one read.
const PAGE: usize = 500;

/// Purges of a record that are put into words.
const DESCRIBED_MAX: usize = 10;

/// After a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// What has been read.
pub(crate) struct Tail {
    read: Mutex<Read>,
    head: watch::Sender<u64>,
}

#[derive(Default)]
struct Read {
    /// Position and time of each record that is kept, the oldest first.
    records: VecDeque<(u64, i64)>,
    purges: VecDeque<RecentPurge>,
}

/// A record with purges.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RecentPurge {
    /// Its position.
    pub(crate) position: u64,
    /// When, in ms since 1970.
    pub(crate) at_ms: i64,
    /// Name of the token.
    pub(crate) by: String,
    /// Why, as they said it.
    pub(crate) reason: Option<String>,
    /// How many.
    pub(crate) purges: usize,
    /// The first ten in words.
    pub(crate) matches: Vec<String>,
    /// The sites that they name.
    #[serde(skip)]
    sites: Vec<String>,
}

impl Tail {
    pub(crate) fn new() -> Tail {
        Tail { read: Mutex::default(), head: watch::channel(0).0 }
    }

    /// The newest position that has been read.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Notes that there is a record at this position, which is read in a moment.
    pub(crate) fn advance(&self, position: u64) {
        self.head.send_if_modified(|head| std::mem::replace(head, position.max(*head)) < position);
    }

    /// Follows the hub until it is dropped; reads from the journal what the hub does not hold.
    pub(crate) async fn follow(&self, journal: Arc<dyn Journal>, hub: Arc<Hub>) {
        let mut heads = hub.heads();
        let (mut after, mut begun_anew) = (0, heads.borrow_and_update().1);
        loop {
            let now = heads.borrow_and_update().1;
            if std::mem::replace(&mut begun_anew, now) != now {
                after = 0;
                *self.read.lock() = Read::default();
                self.head.send_replace(0);
            }
            let step = match hub.held(after, PAGE) {
                Some(records) if records.is_empty() => {
                    // The hub ends with this control.
                    let _ended = heads.changed().await;
                    Ok(())
                }
                Some(records) => {
                    after = self.add(&records, after);
                    Ok(())
                }
                None => match bounded(journal.read(after, PAGE)).await {
                    // It was put back to before that: the hub notices in a moment.
                    Ok(page) if page.records.is_empty() && page.floor.position <= after => {
                        let _anew = tokio::time::timeout(PAUSE, heads.changed()).await;
                        Ok(())
                    }
                    Ok(page) => {
                        after = self.add(&page.records, after.max(page.floor.position));
                        Ok(())
                    }
                    Err(Error::Trimmed(floor)) => {
                        after = floor.position;
                        self.advance(after);
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            if step.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Adds records above a position; gives that of the last.
    fn add(&self, records: &[Record], after: u64) -> u64 {
        let written: Vec<(u64, Option<Written>)> =
            records.iter().map(|record| (record.position, serde_json::from_str(&record.text).ok())).collect();
        let mut read = self.read.lock();
        for (position, written) in written {
            let at_ms = written.as_ref().map_or(0, |written| written.at_ms);
            read.records.push_back((position, at_ms));
            if let Some(Written { by, at_ms, change: Change::Purge(orders) }) = written {
                let recent = recent(position, &by, at_ms, &orders);
                if recent.matches != [describe_canary()] {
                    read.purges.push_back(recent);
                }
            }
            if read.purges.len() > LISTED_MAX {
                read.purges.pop_front();
            }
        }
        drop(read);
        let last = records.last().map_or(after, |record| record.position);
        self.advance(last);
        last
    }

    /// Forgets records that have been taken away.
    pub(crate) fn trimmed(&self, through: u64) {
        let mut read = self.read.lock();
        let gone = read.records.partition_point(|(position, _)| *position <= through);
        read.records.drain(..gone);
    }

    /// The newest purges, the newest first, without the canaries and those that name a site which is not `caller`'s.
    pub(crate) fn recent_purges(&self, caller: &Caller) -> Vec<RecentPurge> {
        let is_for = |purge: &&RecentPurge| purge.sites.iter().all(|site| caller.is_for(site));
        self.read.lock().purges.iter().rev().filter(is_for).cloned().collect()
    }

    /// The same as entries of the audit log.
    pub(crate) fn purges_since(&self, since_ms: i64) -> Vec<AuditEntry> {
        let read = self.read.lock();
        let entry = |purge: &RecentPurge| AuditEntry {
            at_ms: purge.at_ms,
            by: purge.by.clone(),
            action: "purge".into(),
            subject: format!("{} at position {}", purge.matches.join("; "), purge.position),
            reason: purge.reason.clone(),
        };
        read.purges.iter().filter(|purge| purge.at_ms >= since_ms).map(entry).collect()
    }

    /// Up to where records can be taken away; `None` when all are to be kept.
    pub(crate) fn trim_through(&self, now_ms: i64) -> Option<u64> {
        let read = self.read.lock();
        let surplus = read.records.len().saturating_sub(RECORDS_KEPT_MAX);
        let old = read.records.iter().take_while(|(_, at_ms)| *at_ms < now_ms - ms(RECORDS_KEPT)).count();
        // The newest one stays, so that who is up to date is never told that it is not.
        let count = surplus.max(old).min(read.records.len().saturating_sub(1));
        count.checked_sub(1).and_then(|last| read.records.get(last)).map(|(position, _)| *position)
    }
}

fn recent(position: u64, by: &str, at_ms: i64, orders: &[Order]) -> RecentPurge {
    let (by, reason) = match by.split_once(": ") {
        Some((by, reason)) => (by, Some(reason.to_owned())),
        None => (by, None),
    };
    RecentPurge {
        position,
        at_ms,
        by: by.to_owned(),
        reason,
        purges: orders.len(),
        matches: orders.iter().take(DESCRIBED_MAX).map(describe).collect(),
        sites: orders.iter().filter_map(|order| order.what.site()).map(str::to_owned).collect(),
    }
}

fn describe_canary() -> String {
    describe(&crate::purges::tag_order(CANARY_TAG))
}
