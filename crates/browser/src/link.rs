//! The pipe to the browser: calls out, answers and events in. Each message is a JSON object and ends with a zero byte.
//!
//! One task reads. An answer goes to who has called, an event to the page it is about; both are forgotten when the pipe
//! ends, so that nobody waits for what cannot come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::{CALL_TIME_MAX, Error};

/// Longest message that is read: a screenshot of a long page in base64 is some MiB.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Events that may wait to be read, per page. A page that loads a thousand resources has some ten thousand; what comes above
/// is dropped, and [`Page::lost`](crate::Page::lost) counts it.
pub(crate) const EVENTS_MAX: usize = 20_000;

/// Something that has happened in a page.
#[derive(Clone, Debug)]
pub struct Event {
    /// Domain and name, as `Network.responseReceived`.
    pub method: String,
    /// What the protocol says of it.
    pub params: Value,
}

/// The sending half, shared by all pages of a browser.
pub(crate) struct Link {
    pipe: AsyncMutex<ChildStdin>,
    next_id: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    is_closed: bool,
    calls: HashMap<u64, oneshot::Sender<Result<Value, String>>>,
    pages: HashMap<String, (mpsc::Sender<Event>, Arc<AtomicU64>)>,
}

impl Link {
    /// Begins to read. Ends with the pipe.
    pub(crate) fn open(writer: ChildStdin, reader: ChildStdout) -> Arc<Link> {
        let link = Arc::new(Link {
            pipe: AsyncMutex::new(writer),
            next_id: AtomicU64::new(1),
            table: Mutex::new(Table::default()),
        });
        let reading = link.clone();
        tokio::spawn(async move {
            reading.read(BufReader::new(reader)).await;
            let mut table = reading.table();
            *table = Table { is_closed: true, ..Table::default() };
        });
        link
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a method, in a page if `session` names one.
    pub(crate) async fn call(
        &self,
        session: Option<&str>,
        method: &'static str,
        params: Value,
    ) -> Result<Value, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let (sender, answer) = oneshot::channel();
        {
            let mut table = self.table();
            if table.is_closed {
                return Err(Error::Gone);
            }
            table.calls.insert(id, sender);
        }
        let exchange = async {
            let mut pipe = self.pipe.lock().await;
            pipe.write_all(&bytes).await.map_err(|_| Error::Gone)?;
            pipe.flush().await.map_err(|_| Error::Gone)?;
            drop(pipe);
            answer.await.map_err(|_| Error::Gone)?.map_err(|said| Error::Refused(method, said))
        };
        let answered = tokio::time::timeout(CALL_TIME_MAX, exchange).await;
        self.table().calls.remove(&id);
        answered.unwrap_or(Err(Error::Late(method)))
    }

    /// Has the events of a page sent on from now on; the counter is of those that are dropped.
    pub(crate) fn follow(&self, session: &str) -> (mpsc::Receiver<Event>, Arc<AtomicU64>) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let mut table = self.table();
        if !table.is_closed {
            table.pages.insert(session.to_owned(), (sender, lost.clone()));
        }
        (events, lost)
    }

    /// Ends what [`Link::follow`] began.
    pub(crate) fn leave(&self, session: &str) {
        self.table().pages.remove(session);
    }

    async fn read(&self, mut pipe: BufReader<ChildStdout>) {
        let mut message = Vec::new();
        loop {
            message.clear();
            let taken = (&mut pipe).take(MESSAGE_BYTES_MAX).read_until(0, &mut message).await;
            if !taken.is_ok_and(|count| count > 0) || message.pop() != Some(0) {
                return;
            }
            if let Ok(value) = serde_json::from_slice(&message) {
                self.deliver(value);
            }
        }
    }

    fn deliver(&self, mut message: Value) {
        let mut table = self.table();
        if let Some(id) = message["id"].as_u64() {
            let Some(caller) = table.calls.remove(&id) else { return };
            let answer = match message.get("error") {
                Some(error) => {
                    Err(error["message"].as_str().unwrap_or("an error without a message").to_owned())
                }
                None => Ok(message["result"].take()),
            };
            // Who has given up waiting misses nothing.
            let _ = caller.send(answer);
            return;
        }
        let Some(session) = message["sessionId"].as_str() else { return };
        let Some((page, lost)) = table.pages.get(session) else { return };
        let Some(method) = message["method"].as_str().map(str::to_owned) else { return };
        if page.try_send(Event { method, params: message["params"].take() }).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
