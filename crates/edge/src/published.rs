//! Something that every worker reads all the time and that is replaced as a whole, rarely. A worker keeps a hold of its
//! own, counted by itself alone, and notices a replacement by one load: no lock and no shared count is on a request's way.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// The value in force.
pub(crate) struct Published<T> {
    current: RwLock<Arc<T>>,
    /// Counts replacements.
    version: AtomicU64,
}

impl<T> Published<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Published { current: RwLock::new(value), version: AtomicU64::new(0) }
    }

    /// The value in force, for whoever asks rarely.
    pub(crate) fn get(&self) -> Arc<T> {
        self.current.read().clone()
    }

    /// Puts another value in force. What began with the old one keeps it.
    pub(crate) fn replace(&self, value: Arc<T>) {
        *self.current.write() = value;
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// A value as the requests of one worker hold it: counted by the worker alone.
pub(crate) type Held<T> = Rc<Arc<T>>;

/// A [`Published`] value as one worker knows it.
pub(crate) struct Hold<T>(RefCell<(u64, Held<T>)>);

impl<T> Hold<T> {
    pub(crate) fn of(published: &Published<T>) -> Self {
        // The version first: a replacement in between is noticed with the next look.
        let version = published.version.load(Ordering::Acquire);
        Hold(RefCell::new((version, Rc::new(published.get()))))
    }

    /// The value in force, or one that was until a moment ago.
    pub(crate) fn get(&self, published: &Published<T>) -> Held<T> {
        let version = published.version.load(Ordering::Acquire);
        let mut held = self.0.borrow_mut();
        if held.0 != version {
            *held = (version, Rc::new(published.get()));
        }
        held.1.clone()
    }
}
