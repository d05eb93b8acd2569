//! Interim (1xx) responses on their way from an origin to the visitor who caused the fetch (RFC 9110 §15.2).

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use semantics::{Fields, hop};

/// Most interim responses that are passed on for one request; an origin that sends more is not listened to.
const INTERIM_MAX: usize = 16;

/// A small queue between the task that fetches and the connection that waits. Both are on one worker.
#[derive(Clone, Default)]
pub(crate) struct Interim {
    queue: Rc<RefCell<Queue>>,
}

#[derive(Default)]
struct Queue {
    responses: Vec<(u16, Fields)>,
    seen: usize,
    waker: Option<Waker>,
}

impl Interim {
    /// Takes in what the origin sent. 100 and 101 concern the hop to the origin alone.
    pub(crate) fn push(&self, status: u16, mut fields: Fields) {
        let mut queue = self.queue.borrow_mut();
        if !(102..200).contains(&status) || queue.seen == INTERIM_MAX {
            return;
        }
        hop::strip_hop_by_hop(&mut fields);
        fields.remove("content-length");
        queue.seen += 1;
        queue.responses.push((status, fields));
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    /// Ready when there is something to [`Interim::take`].
    pub(crate) fn poll_some(&self, context: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.borrow_mut();
        if !queue.responses.is_empty() {
            return Poll::Ready(());
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// What has come since the last call.
    pub(crate) fn take(&self) -> Vec<(u16, Fields)> {
        std::mem::take(&mut self.queue.borrow_mut().responses)
    }
}
