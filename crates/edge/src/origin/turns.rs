//! Turns at origins across an upgrade in place: whichever processes a node has, it has one gate for each budget, and that is the
//! one of the process that serves.
//!
//! ```text
//! drains                                        serves
//!   ├─ Taken: what is in flight ── Told ─────────► counts it as its own, and opens its gates a window later
//!   ├─ Ask: one more, from before it is sent ────► has it wait among its own
//!   │ ◄──────────────────── Turn: granted, or not
//!   │ ◄──────────────────── GiveUp: to be ended
//!   └─ Over: it has ended ───────────────────────►
//! ```
//!
//! When the process that drains is gone, so is all that it had in flight. One whose successor is gone begins nothing more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use super::budget::{Askers, Budget, GivenUp, Turn};
use super::error::FetchError;
use super::shared::OriginsShared;
use crate::handover::Word;

/// Words of the neighbours that may wait to be heard: more than [`super::budget::WAITING_MAX`] requests make.
pub(crate) const WORDS_MAX: usize = 16_384;

/// Numbers in one word, so that it fits into a packet.
const NUMBERS_MAX: usize = 2_000;

/// What comes from the processes before and after this one.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A word of the one that drains.
    Before(Word),
    /// It is gone.
    BeforeGone,
    /// A word of the one that serves now.
    After(Word),
    /// It is gone.
    AfterGone,
}

/// Says a word to another process; does not wait for it to be heard.
pub(crate) type Tell = Box<dyn Fn(Word) + Send + Sync>;

/// A turn by the names that both processes have for it: its budget, and its number in the one that drains.
type Name = (String, u64);

/// What this process has to do with those before and after it.
#[derive(Default)]
pub(super) struct Turns {
    before: RwLock<Option<Tell>>,
    after: RwLock<Option<Tell>>,
    /// What the process before has in flight is not known yet: nothing may be asked until it is.
    is_held: AtomicBool,
    /// The process after this one is gone.
    is_orphan: AtomicBool,
    asked: Mutex<HashMap<Name, oneshot::Sender<()>>>,
    lent: Mutex<HashMap<Name, Turn>>,
}

impl Turns {
    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::SeqCst)
    }

    pub(super) fn is_handed_over(&self) -> bool {
        self.after.read().is_some()
    }

    /// Asks the process that serves now for leave to send one; whether it has given it.
    pub(super) async fn ask(&self, budget: &str, number: u64, askers: &Askers) -> bool {
        let (answer, answered) = oneshot::channel();
        self.asked.lock().insert((budget.to_owned(), number), answer);
        if self.is_orphan.load(Ordering::SeqCst) {
            return false;
        }
        let (rank, count) = askers.parts();
        self.tell_after(Word::Ask { budget: budget.to_owned(), number, rank, count });
        answered.await.is_ok()
    }

    /// One that had leave, or was taken along, has ended.
    pub(super) fn over(&self, budget: &str, number: u64) {
        self.tell_after(Word::Over { budget: budget.to_owned(), number });
    }

    fn tell_after(&self, word: Word) {
        if let Some(tell) = &*self.after.read() {
            tell(word);
        }
    }

    fn tell_before(&self, word: Word) {
        if let Some(tell) = &*self.before.read() {
            tell(word);
        }
    }
}

impl OriginsShared {
    /// There is a process before this one, which is to say what it has in flight. To be called before there are budgets.
    pub(crate) fn follow(&self) {
        self.turns.is_held.store(true, Ordering::SeqCst);
    }

    /// How that is spoken to.
    pub(crate) fn tell_before(&self, tell: Tell) {
        *self.turns.before.write() = Some(tell);
    }

    /// From now on the process at the other end has the gates: it is told what is in flight here, and asked for what is to come.
    pub(crate) fn hand_over(&self, tell: Tell) {
        *self.turns.after.write() = Some(tell);
        for budget in self.all_budgets() {
            let id = budget.id();
            budget.hand_over(|numbers| {
                for numbers in numbers.chunks(NUMBERS_MAX) {
                    self.turns.tell_after(Word::Taken { budget: id.to_owned(), numbers: numbers.to_vec() });
                }
            });
        }
        self.turns.tell_after(Word::Told);
    }

    /// Does what the processes before and after this one say; never ends while they may. One task in the process runs it.
    pub(crate) async fn hear(self: Arc<Self>, mut words: mpsc::Receiver<Heard>) {
        while let Some(heard) = words.recv().await {
            match heard {
                Heard::Before(word) => self.hear_before(word),
                Heard::BeforeGone => {
                    self.open();
                    // Each of them is dropped without the lock: it may give its turn to the next.
                    let gone = std::mem::take(&mut *self.turns.lent.lock());
                    drop(gone);
                }
                Heard::After(word) => self.hear_after(word),
                Heard::AfterGone => {
                    self.turns.is_orphan.store(true, Ordering::SeqCst);
                    self.turns.asked.lock().clear();
                }
            }
        }
    }

    fn hear_before(self: &Arc<Self>, word: Word) {
        match word {
            Word::Taken { budget, numbers } => {
                let Some(known) = self.budget_named(&budget) else { return };
                numbers.into_iter().for_each(|number| self.lend((budget.clone(), number), known.adopt()));
            }
            Word::Told => self.open(),
            Word::Ask { budget, number, rank, count } => {
                let (origins, askers) = (self.clone(), Askers::of(rank, count));
                tokio::task::spawn_local(async move { origins.grant_one((budget, number), &askers).await });
            }
            Word::Over { budget, number } => {
                let over = self.turns.lent.lock().remove(&(budget, number));
                drop(over);
            }
            Word::Turn { .. } | Word::GiveUp { .. } => {}
        }
    }

    fn hear_after(&self, word: Word) {
        match word {
            Word::Turn { budget, number, is_granted } => {
                // Dropped, it says that there is none.
                let waits = self.turns.asked.lock().remove(&(budget.clone(), number));
                if !is_granted {
                    return;
                }
                let is_wanted = self.budget_named(&budget).is_some_and(|known| known.note_sent(number));
                match waits.filter(|_| is_wanted) {
                    Some(waits) => drop(waits.send(())),
                    // Whoever wanted it has left.
                    None => self.turns.over(&budget, number),
                }
            }
            Word::GiveUp { budget, number } => {
                if let Some(budget) = self.budget_named(&budget) {
                    budget.give_up(number);
                }
            }
            Word::Taken { .. } | Word::Told | Word::Ask { .. } | Word::Over { .. } => {}
        }
    }

    /// Gets a turn for the process that drains.
    async fn grant_one(self: Arc<Self>, name: Name, askers: &Askers) {
        let (budget, number) = name.clone();
        let tell = |is_granted| self.turns.tell_before(Word::Turn { budget, number, is_granted });
        match self.budget_named(&name.0) {
            None => tell(true),
            Some(known) => match sent(&known, askers).await {
                Ok(turn) => {
                    self.lend(name, turn);
                    tell(true);
                }
                Err(_counted) => tell(false),
            },
        }
    }

    fn lend(self: &Arc<Self>, name: Name, turn: Turn) {
        let (origins, mut given_up) = (self.clone(), turn.given_up());
        self.turns.lent.lock().insert(name.clone(), turn);
        tokio::task::spawn_local(async move {
            GivenUp::wait_for(Some(&mut given_up)).await;
            if origins.turns.lent.lock().contains_key(&name) {
                let (budget, number) = name;
                origins.turns.tell_before(Word::GiveUp { budget, number });
            }
        });
    }

    /// All is known that the process before has in flight.
    fn open(&self) {
        if self.turns.is_held.swap(false, Ordering::SeqCst) {
            self.all_budgets().iter().for_each(|budget| budget.open());
        }
    }
}

/// A turn that counts as sent now.
async fn sent(budget: &Arc<Budget>, askers: &Askers) -> Result<Turn, FetchError> {
    loop {
        let mut turn = budget.turn(askers).await?;
        if turn.send(askers).await? {
            return Ok(turn);
        }
    }
}
