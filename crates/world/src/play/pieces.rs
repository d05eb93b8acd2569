//! An answer that is read piece by piece, by any client here: what is not read stops its sender.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::PATIENCE;

/// What has come and what is still to come.
pub struct Pieces {
    runtime: Handle,
    parts: Receiver<Result<Part, String>>,
    unread: BytesMut,
}

enum Part {
    Head(StatusCode),
    Content(Bytes),
}

/// Where a client tells what comes; it waits until that is read.
pub(super) struct Told(Sender<Result<Part, String>>);

impl Told {
    pub(super) async fn head(&self, status: StatusCode) {
        // Whoever reads no more may be gone.
        let _ = self.0.send(Ok(Part::Head(status))).await;
    }

    pub(super) async fn part(&self, content: Bytes) {
        let _ = self.0.send(Ok(Part::Content(content))).await;
    }
}

impl Pieces {
    /// Has `ask` tell what comes; waits for the head.
    pub(super) fn begin<F>(runtime: &Handle, ask: impl FnOnce(Told) -> F) -> Result<Pieces, String>
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (sender, parts) = channel(1);
        let asked = ask(Told(sender.clone()));
        runtime.spawn(async move {
            if let Err(error) = asked.await {
                let _ = sender.send(Err(error)).await;
            }
        });
        let mut pieces = Pieces { runtime: runtime.clone(), parts, unread: BytesMut::new() };
        match pieces.next()? {
            Some(Part::Head(StatusCode::OK)) => Ok(pieces),
            Some(Part::Head(status)) => Err(format!("status {status}")),
            _ => Err("no head".to_owned()),
        }
    }

    fn next(&mut self) -> Result<Option<Part>, String> {
        let next = self.runtime.block_on(async { timeout(PATIENCE, self.parts.recv()).await });
        next.expect("something comes in time").transpose()
    }

    /// The next `count` bytes, or what is left of them.
    ///
    /// # Errors
    /// The answer broke off.
    pub fn read(&mut self, count: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < count {
            match self.next()? {
                Some(Part::Content(content)) => self.unread.extend_from_slice(&content),
                _ => break,
            }
        }
        let count = count.min(self.unread.len());
        Ok(self.unread.split_to(count).to_vec())
    }

    /// All that is left.
    ///
    /// # Errors
    /// The answer broke off.
    pub fn rest(mut self) -> Result<Vec<u8>, String> {
        self.read(usize::MAX)
    }
}
