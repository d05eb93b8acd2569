//! One feed that a hub serves: from where the node goes on, and what it is told from then on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use trust::{Peer, Role};

use super::{Hub, LINE_RECORDS_MAX};
use crate::feed::lines::{Lines, Writer};
use crate::feed::{BEAT, Beat, Down, Hello, Line, Records, Restart, SILENCE, Steered, Up, Welcome};
use crate::{Error, Mark};

/// Bytes of texts in one line, at most, unless its first record has more.
const LINE_TEXT_BYTES_MAX: usize = 1 << 20;
/// Leases in one line, at most: about 1 MB.
const LEASES_TOGETHER_MAX: usize = 4_096;

/// Statistics of one feed that have been written down and not been told of.
const COUNTED_MAX: usize = 1_024;

/// How long a node whose cursor is above the hub's head waits for the hub to catch up. It hears nothing meanwhile: well below
/// [`SILENCE`].
const HEAD_PATIENCE: Duration = Duration::from_secs(2);

/// Nodes that have lost their feed all at once come back over this time for each of them: 25 a second, each of which costs
/// control a handshake of about 1 ms and what the node has missed.
const SPREAD_PER_NODE: Duration = Duration::from_millis(40);
const SPREAD_MIN: Duration = Duration::from_millis(500);
/// Well below the time after which a node is out of contact.
const SPREAD_MAX: Duration = Duration::from_secs(12);

impl Hub {
    /// Reads what `peer` says and writes what it is told, until either ends, and why.
    pub(super) async fn session<B>(&self, peer: &Peer, body: B, writer: &Writer) -> Result<(), String>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut lines = Lines::new(body);
        let first =
            timeout(SILENCE, lines.next::<Up>()).await.map_err(|_| "it said nothing".to_owned())??;
        let Some(Up::Hello(hello)) = first else { return Err("it did not say who it is".to_owned()) };
        if hello.node != peer.name {
            let why = format!("it calls itself {:?}, and its certificate {:?}", hello.node, peer.name);
            writer.say(&Down::Refused { why: why.clone() }).await?;
            return Err(why);
        }
        let (journal, head) = {
            let inner = self.inner.lock();
            (inner.journal.clone(), inner.held.head().position)
        };
        let Some(journal) = journal else {
            return Err("this relay has not heard from control yet".to_owned());
        };
        writer
            .say(&Down::Welcome(Welcome {
                journal: journal.clone(),
                from: self.name.clone(),
                head,
                takes_statistics: self.counting.get().is_some(),
            }))
            .await?;
        let (confirm, mut confirmed) = mpsc::channel(COUNTED_MAX);
        let confirming = async {
            while let Some(counted) = confirmed.recv().await {
                writer.say(&Down::Counted(counted)).await?;
            }
            Ok(())
        };
        // It may be said with each line of what others have said, and whoever passes that on can do nothing about it.
        let mut complained: Option<Instant> = None;
        let mut complain = |what: String| {
            if complained.is_none_or(|last| last.elapsed() >= SILENCE) {
                eprintln!("perigee: {what}");
                complained = Some(Instant::now());
            }
        };
        let reading = async {
            loop {
                let line = timeout(SILENCE, lines.next::<Up>());
                let line =
                    line.await.map_err(|_| format!("it said nothing for {} s", SILENCE.as_secs()))??;
                if hello.reports_only && peer.role == Role::Control {
                    let before = self.inner.lock().reporters.insert(peer.name.clone(), Instant::now());
                    if before.is_none() {
                        self.newcomer.notify_one();
                    }
                }
                match line {
                    None => return Ok(()),
                    Some(Up::Report(report)) => {
                        let is_own = report.node == peer.name;
                        let node = report.node.clone();
                        match self.report(peer, *report) {
                            Err(why) if is_own => return Err(why),
                            Err(why) => complain(format!("a report of {node} by {}: {why}", peer.name)),
                            Ok(()) => {}
                        }
                    }
                    Some(Up::Statistics(line)) => {
                        let is_own = line.node == peer.name;
                        let node = line.node.clone();
                        let taken = self
                            .counting
                            .get()
                            .map(|counting| counting.count(peer, Arc::new(*line), confirm.clone()));
                        match taken {
                            Some(Err(why)) if is_own => return Err(why),
                            Some(Err(why)) => {
                                complain(format!("statistics of {node} by {}: {why}", peer.name))
                            }
                            Some(Ok(())) | None => {}
                        }
                    }
                    Some(Up::Beat) => {}
                    Some(Up::Hello(_)) => return Err("it said twice who it is".to_owned()),
                }
            }
        };
        let writing = async {
            match hello.reports_only {
                true => self.beat(writer).await,
                false => self.tell(&hello, &journal, writer).await,
            }
        };
        tokio::select! {
            ended = reading => ended,
            ended = writing => ended,
            ended = confirming => ended,
            ended = self.watch(peer) => ended,
        }
    }

    /// Returns when it may not go on, whatever it says or doesn't, and whether it reads or not.
    async fn watch(&self, peer: &Peer) -> Result<(), String> {
        loop {
            sleep(BEAT).await;
            self.admit(peer)?;
        }
    }

    fn word(&self) -> Down {
        let inner = self.inner.lock();
        let spread = SPREAD_PER_NODE * u32::try_from(inner.nodes.len()).unwrap_or(u32::MAX);
        let spread = spread.clamp(SPREAD_MIN, SPREAD_MAX);
        Down::Beat(Beat {
            head: inner.held.head().position,
            spread_ms: spread.as_millis() as u64,
            is_current: inner.is_current(),
        })
    }

    fn is_current(&self) -> bool {
        self.inner.lock().is_current()
    }

    async fn beat(&self, writer: &Writer) -> Result<(), String> {
        loop {
            writer.say(&self.word()).await?;
            sleep(BEAT).await;
        }
    }

    /// Tells a node everything, from where it is.
    async fn tell(&self, hello: &Hello, journal: &str, writer: &Writer) -> Result<(), String> {
        let mut heads = self.head.subscribe();
        let mut leases = self.leases.subscribe();
        let begun_anew = heads.borrow_and_update().1;
        let mut cursor = self.start(hello, journal, writer).await?;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut steered = hello.steers.then(|| self.steered.subscribe());
        let mut missed = 0;
        loop {
            match self.after(cursor, begun_anew)? {
                Next::Records(records, mark) => {
                    writer.say(&Down::Records(records)).await?;
                    cursor = mark;
                }
                Next::Older => cursor = self.catch_up(cursor, writer).await?,
                Next::Nothing => {
                    tokio::select! {
                        biased;
                        _ = beat.tick() => writer.say(&self.word()).await?,
                        changed = leases.changed(), if hello.takes_leases => {
                            changed.map_err(|_| "the hub has ended".to_owned())?;
                            let own = self.leases_by(&hello.node);
                            for some in own.chunks(LEASES_TOGETHER_MAX) {
                                writer.say(&Down::Leases(some.to_vec())).await?;
                            }
                        }
                        changed = heads.changed() => changed.map_err(|_| "the hub has ended".to_owned())?,
                        heard = next_steered(&mut steered) => match heard {
                            Ok(line) => {
                                let missed = std::mem::take(&mut missed);
                                writer.say(&Down::Steered(Box::new(Steered { missed, ..line }))).await?;
                            }
                            Err(RecvError::Lagged(count)) => missed += count,
                            Err(RecvError::Closed) => return Err("the hub has ended".to_owned()),
                        },
                    }
                }
            }
        }
    }

    /// From where a node goes on: its cursor, if its digest is this journal's, or the head.
    async fn start(&self, hello: &Hello, journal: &str, writer: &Writer) -> Result<Mark, String> {
        let Some(followed) = &hello.journal else {
            return self.restart(writer, "the node is new").await;
        };
        if followed != journal {
            let why = format!("the node has followed the journal {followed}, and this is {journal}");
            return self.restart(writer, &why).await;
        }
        let mut heads = self.head.subscribe();
        let reaches = heads.wait_for(|(head, _)| *head >= hello.cursor.position);
        if timeout(HEAD_PATIENCE, reaches).await.is_err() {
            if !self.is_current() {
                return Err(format!("the node is at {}, and this end is behind", hello.cursor.position));
            }
            let why = format!("the node is at {}, which the journal has not reached", hello.cursor.position);
            return self.restart(writer, &why).await;
        }
        let is_other = {
            let inner = self.inner.lock();
            // What lies below the floor shows when it has been caught up with.
            hello.cursor.position >= inner.held.floor().position
                && inner.held.digest_at(hello.cursor.position) != Some(hello.cursor)
        };
        match is_other {
            true => {
                let why = format!("the node's digest at {} is not the journal's", hello.cursor.position);
                self.restart(writer, &why).await
            }
            false => Ok(hello.cursor),
        }
    }

    async fn restart(&self, writer: &Writer, why: &str) -> Result<Mark, String> {
        let (at, plan) = {
            let inner = self.inner.lock();
            (inner.held.head(), inner.plan.clone())
        };
        writer.say(&Down::Restart(Restart { at, plan, why: why.to_owned() })).await?;
        Ok(at)
    }

    /// Tells a node what lies below what is held, from the source.
    async fn catch_up(&self, cursor: Mark, writer: &Writer) -> Result<Mark, String> {
        let page = match self.source.read(cursor.position, LINE_RECORDS_MAX).await {
            Ok(page) => page,
            Err(Error::Trimmed(floor)) => {
                let why = format!(
                    "the node is at {}, and the journal is kept from {} on",
                    cursor.position, floor.position
                );
                return self.restart(writer, &why).await;
            }
            Err(error) => return Err(error.to_string()),
        };
        let floor = self.inner.lock().held.floor();
        // Not into what is held: there the digests tell whether they fit.
        let older = page.records.into_iter().take_while(|record| record.position <= floor.position);
        let (mut records, mut mark, mut bytes) = (Vec::new(), cursor, 0);
        for record in older {
            bytes += record.text.len();
            if bytes > LINE_TEXT_BYTES_MAX && !records.is_empty() {
                break;
            }
            mark = mark.then(&record);
            records.extend(Line::of(&record));
        }
        if records.is_empty() || (mark.position == floor.position && mark != floor) {
            let why = format!("the node's digest at {} is not the journal's", cursor.position);
            return self.restart(writer, &why).await;
        }
        let head = self.head().position;
        let line = Records { after: cursor.position, records, digest: mark.digest, head };
        writer.say(&Down::Records(line)).await?;
        Ok(mark)
    }

    fn after(&self, cursor: Mark, begun_anew: u64) -> Result<Next, String> {
        let inner = self.inner.lock();
        if inner.begun_anew != begun_anew {
            return Err("the journal was begun anew above".to_owned());
        }
        let Some(above) = inner.held.above(cursor.position) else { return Ok(Next::Older) };
        let (mut records, mut mark, mut bytes) = (Vec::new(), cursor, 0);
        for (record, after) in above.take(LINE_RECORDS_MAX) {
            bytes += record.text.len();
            if bytes > LINE_TEXT_BYTES_MAX && !records.is_empty() {
                break;
            }
            mark = *after;
            records.extend(Line::of(record));
        }
        let head = inner.held.head().position;
        Ok(match records.is_empty() {
            true => Next::Nothing,
            false => {
                let line = Records { after: cursor.position, records, digest: mark.digest, head };
                Next::Records(line, mark)
            }
        })
    }
}

/// The next report for routers; never for who wants none.
async fn next_steered(from: &mut Option<broadcast::Receiver<Steered>>) -> Result<Steered, RecvError> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

enum Next {
    Records(Records, Mark),
    Nothing,
    /// What comes next is not held any more.
    Older,
}
