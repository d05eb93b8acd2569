//! What a hub says to another one and hears from it: a relay to the control above it, which it follows; a control to each other control, which
//! hears what its nodes report.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use trust::Peer;

use super::{Counting, Hub};
use crate::Record;
use crate::feed::dial::{Link, Node, Told};
use crate::feed::outbox::{Confirm, Outbox, Patience};
use crate::feed::{Down, Hello, Line, Report, SILENCE, Statistics};

/// A relay towards the control above it, or a control towards another.
pub(super) struct Forward {
    hub: Weak<Hub>,
    /// Whether it only says what nodes report and wants to hear nothing.
    reports_only: bool,
    /// The number of the last report that was passed on; 0 at the begin of each connection.
    said: Mutex<u64>,
    /// Whether it is told what nodes elsewhere report for routers.
    steers: AtomicBool,
    news: tokio::sync::Mutex<watch::Receiver<u64>>,
    pub(super) outbox: Arc<Outbox>,
}

/// A relay keeps nothing: it confirms what control has confirmed.
pub(super) struct PassOn(pub(super) Arc<Outbox>);

impl Counting for PassOn {
    fn count(&self, peer: &Peer, line: Arc<Statistics>, confirm: Confirm) -> Result<(), String> {
        if line.node != peer.name {
            return Err(format!("{} speaks for {}", peer.name, line.node));
        }
        self.0.push(line, Some(confirm));
        Ok(())
    }
}

impl Forward {
    pub(super) fn new(hub: &Arc<Hub>, reports_only: bool, patience: Patience) -> Forward {
        let news = tokio::sync::Mutex::new(hub.news());
        let outbox = Arc::new(Outbox::new(patience));
        Forward {
            hub: Arc::downgrade(hub),
            reports_only,
            said: Mutex::new(0),
            steers: AtomicBool::new(false),
            news,
            outbox,
        }
    }

    fn take(&self, line: Down) -> Result<(), String> {
        let Some(hub) = self.hub.upgrade() else { return Err("the hub has ended".to_owned()) };
        let head = hub.head();
        match line {
            _ if self.reports_only => {}
            Down::Restart(restart) => {
                let journal = hub.inner.lock().journal.clone().unwrap_or_default();
                hub.begin(&journal, restart.at, restart.plan);
            }
            Down::Records(line) => {
                if line.after != head.position {
                    return Err(format!("records after {} came, not after {}", line.after, head.position));
                }
                let records: Vec<Record> = line.records.into_iter().map(Line::into_record).collect();
                let mark = records.iter().fold(head, |mark, record| mark.then(record));
                if mark.digest != line.digest {
                    return Err(format!("the digest at {} is another one", mark.position));
                }
                hub.push(records);
            }
            Down::Welcome(welcome) => {
                let mut inner = hub.inner.lock();
                if inner.journal.as_deref() != Some(&welcome.journal) {
                    // What follows is a restart, which sets the rest.
                    inner.journal = Some(welcome.journal);
                }
            }
            Down::Beat(beat) => {
                if beat.is_current && beat.head == head.position {
                    hub.inner.lock().confirmed = Some(Instant::now());
                }
                if hub.steered.receiver_count() > 0 && !self.steers.load(Ordering::Relaxed) {
                    return Err("a router follows now, and wants to hear what all nodes report".to_owned());
                }
            }
            Down::Leases(leases) => hub.grant(leases),
            Down::Steered(line) => hub.steered_above(*line),
            Down::Refused { .. } | Down::Counted(_) => {}
        }
        Ok(())
    }
}

impl Node for Forward {
    fn hello(&self) -> Hello {
        *self.said.lock() = 0;
        let hub = self.hub.upgrade();
        // It costs what all nodes report, so only a relay that routers follow asks for it.
        let steers = !self.reports_only && hub.as_ref().is_some_and(|hub| hub.steered.receiver_count() > 0);
        self.steers.store(steers, Ordering::Relaxed);
        let inner = hub.as_ref().map(|hub| hub.inner.lock());
        Hello {
            node: hub.as_ref().map(|hub| hub.name.clone()).unwrap_or_default(),
            journal: inner.as_ref().and_then(|inner| inner.journal.clone()),
            cursor: inner.as_ref().map(|inner| inner.held.head()).unwrap_or_default(),
            reports_only: self.reports_only,
            steers,
            takes_leases: !self.reports_only,
        }
    }

    fn told(&self, lines: Vec<Down>) -> Told<'_> {
        Box::pin(async move { lines.into_iter().try_for_each(|line| self.take(line)) })
    }

    fn reports(&self) -> Vec<Report> {
        let Some(hub) = self.hub.upgrade() else { return Vec::new() };
        let inner = hub.inner.lock();
        let mut said = self.said.lock();
        let new = inner
            .nodes
            .values()
            .filter(|known| known.is_from_below && known.number > *said && known.heard.elapsed() < SILENCE);
        let reports = new.map(|known| known.report.clone()).collect();
        *said = inner.reports;
        reports
    }

    fn outbox(&self) -> Option<&Outbox> {
        Some(&self.outbox)
    }

    fn has_news(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // Ends with the hub, and then there is nothing to say.
            if self.news.lock().await.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn link(&self, link: Link<'_>) {
        match link {
            Link::Up(url) if self.reports_only => eprintln!("perigee: {url} is told of this control's nodes"),
            Link::Up(url) => eprintln!("perigee: following {url}"),
            Link::Down(url, why) => eprintln!("perigee: not connected with {url}: {why}"),
        }
    }
}
