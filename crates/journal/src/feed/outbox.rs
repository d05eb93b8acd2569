//! Statistics on their way to control: kept until control has said that it has them, for a bounded time and in bounded memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Counted, Statistics};

/// What is not confirmed after this is said once more: whoever got it may have lost it.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Lines that are said at a time, so that reports come in between.
const SAID_TOGETHER_MAX: usize = 64;

/// Tells whoever has said a line that control has it.
pub type Confirm = mpsc::Sender<Counted>;

/// What an outbox keeps.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For how long.
    pub time: Duration,
    /// Bytes of lines.
    pub bytes: usize,
}

impl Patience {
    /// Of a node: a control that restarts is back in seconds, and another one takes over in less.
    pub const NODE: Patience = Patience { time: Duration::from_secs(60), bytes: 8 << 20 };
    /// Of a relay, for all its nodes.
    pub const RELAY: Patience = Patience { time: Duration::from_secs(60), bytes: 64 << 20 };
    /// Of a control, for others that it has not heard of yet: they look for each other every few seconds.
    pub const NEW_CONTROL: Patience = Patience { time: Duration::from_secs(60), bytes: 16 << 20 };
    /// Of a control towards another one, which may be away for as long as an upgrade of its machine takes.
    pub const CONTROL: Patience = Patience { time: Duration::from_secs(600), bytes: 64 << 20 };
}

/// See the module's text. Nobody waits for it: what there is no room for takes the place of what is oldest.
pub struct Outbox {
    patience: Patience,
    waiting: Mutex<Waiting>,
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    bytes: usize,
}

struct Line {
    line: Arc<Statistics>,
    since: Instant,
    said: Option<Instant>,
    confirm: Option<Confirm>,
}

impl Outbox {
    /// An empty one.
    pub fn new(patience: Patience) -> Self {
        Outbox { patience, waiting: Mutex::default(), lost: AtomicU64::new(0) }
    }

    /// Puts a line in. `confirm`: who is told when it has arrived.
    pub fn push(&self, line: Arc<Statistics>, confirm: Option<Confirm>) {
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        waiting.bytes += line.bytes();
        waiting.lines.push_back(Line { line, since: now, said: None, confirm });
        self.let_go(&mut waiting, now);
    }

    /// All that waits, to be put into another one.
    pub(super) fn lines(&self) -> Vec<Arc<Statistics>> {
        self.waiting.lock().lines.iter().map(|line| Arc::clone(&line.line)).collect()
    }

    /// A new connection: nothing has been said on it yet.
    pub(super) fn begin(&self) {
        self.waiting.lock().lines.iter_mut().for_each(|line| line.said = None);
    }

    /// What is to be said now.
    pub(super) fn next(&self) -> Vec<Arc<Statistics>> {
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        self.let_go(&mut waiting, now);
        let is_due = |line: &&mut Line| line.said.is_none_or(|said| now.duration_since(said) >= SAID_AGAIN);
        let due = waiting.lines.iter_mut().filter(is_due).take(SAID_TOGETHER_MAX);
        due.map(|line| {
            line.said = Some(now);
            Arc::clone(&line.line)
        })
        .collect()
    }

    /// Takes out what has arrived, and passes that on.
    pub(super) fn confirm(&self, counted: &Counted) {
        let mut waiting = self.waiting.lock();
        let Some(at) = waiting.lines.iter().position(|line| counted.is_of(&line.line)) else { return };
        let Some(gone) = waiting.lines.remove(at) else { return };
        waiting.bytes -= gone.line.bytes();
        drop(waiting);
        if let Some(confirm) = gone.confirm {
            // Whoever is gone or does not read says it again, and hears of it then.
            let _full = confirm.try_send(counted.clone());
        }
    }

    /// Lines that were given up, since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Lines that wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().lines.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn let_go(&self, waiting: &mut Waiting, now: Instant) {
        while let Some(oldest) = waiting.lines.front()
            && (waiting.bytes > self.patience.bytes || now.duration_since(oldest.since) > self.patience.time)
        {
            waiting.bytes -= oldest.line.bytes();
            waiting.lines.pop_front();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64, length: usize) -> Arc<Statistics> {
        let report = "x".repeat(length);
        Arc::new(Statistics { node: "a".into(), epoch: 1, sequence, lost: 0, report })
    }

    fn sequences(outbox: &Outbox) -> Vec<u64> {
        outbox.next().iter().map(|line| line.sequence).collect()
    }

    #[test]
    fn lines_are_said_once_a_connection_until_they_have_arrived() {
        let outbox = Outbox::new(Patience::NODE);
        let (confirm, mut confirmed) = mpsc::channel(4);
        (1..=3).for_each(|sequence| outbox.push(line(sequence, 10), Some(confirm.clone())));
        assert_eq!(sequences(&outbox), [1, 2, 3]);
        assert_eq!(sequences(&outbox), [0; 0]);
        let counted = Counted { node: "a".into(), epoch: 1, sequence: 2 };
        outbox.confirm(&counted);
        outbox.confirm(&counted);
        assert_eq!(confirmed.try_recv(), Ok(counted));
        assert!(confirmed.try_recv().is_err());
        outbox.confirm(&Counted { node: "a".into(), epoch: 2, sequence: 1 });
        outbox.begin();
        assert_eq!(sequences(&outbox), [1, 3]);
        assert_eq!(outbox.lost(), 0);
    }

    #[test]
    fn what_there_is_no_room_for_takes_the_place_of_the_oldest_and_is_counted() {
        let outbox = Outbox::new(Patience { time: Duration::from_secs(60), bytes: 5 * line(0, 100).bytes() });
        (1..=9).for_each(|sequence| outbox.push(line(sequence, 100), None));
        assert_eq!(sequences(&outbox), [5, 6, 7, 8, 9]);
        assert_eq!((outbox.len(), outbox.lost()), (5, 4));
    }

    #[test]
    fn what_has_waited_too_long_is_given_up_and_counted() {
        let outbox = Outbox::new(Patience { time: Duration::ZERO, bytes: 1 << 20 });
        outbox.push(line(1, 10), None);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(sequences(&outbox), [0; 0]);
        assert_eq!(outbox.lost(), 1);
    }
}
