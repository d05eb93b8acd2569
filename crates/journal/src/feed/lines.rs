//! Lines of JSON in the bodies of HTTP/2: whole ones out of pieces, and a body that is written line by line.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::LINE_BYTES_MAX;

/// Lines that wait to be sent, at most. Whoever says more waits.
const LINES_WAITING_MAX: usize = 4;

/// Reads lines from a body.
pub(super) struct Lines<B> {
    body: B,
    buffer: BytesMut,
    /// Bytes at the buffer's begin that hold no end of a line.
    looked_at: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Lines<B>
where
    B::Error: std::fmt::Display,
{
    pub(super) fn new(body: B) -> Self {
        Lines { body, buffer: BytesMut::new(), looked_at: 0 }
    }

    /// The next line; `None` at the body's end. Cancelling it loses nothing.
    ///
    /// # Errors
    /// In words: the connection broke, a line is too long, or is none of this protocol.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, String> {
        loop {
            if let Some(read) = self.buffered()? {
                return Ok(Some(read));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("the connection broke: {error}")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next line, as far as it has arrived already.
    pub(super) fn buffered<T: DeserializeOwned>(&mut self) -> Result<Option<T>, String> {
        let Some(end) = self.buffer[self.looked_at..].iter().position(|byte| *byte == b'\n') else {
            self.looked_at = self.buffer.len();
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(format!("a line is longer than {LINE_BYTES_MAX} bytes"));
            }
            return Ok(None);
        };
        let line = self.buffer.split_to(self.looked_at + end);
        self.buffer.advance(1);
        self.looked_at = 0;
        let wrong = |error: serde_json::Error| format!("a line that is none of this protocol: {error}");
        serde_json::from_slice(&line).map(Some).map_err(wrong)
    }
}

/// A body that is written line by line.
pub struct LinesBody(mpsc::Receiver<Bytes>);

/// Its other end; dropping it ends the body.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Bytes>);

pub(super) fn lines_body() -> (Writer, LinesBody) {
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    (Writer(sender), LinesBody(receiver))
}

impl Writer {
    /// Waits while the other side doesn't read.
    ///
    /// # Errors
    /// The other side has gone.
    pub(super) async fn say<T: Serialize>(&self, line: &T) -> Result<(), String> {
        let mut text = serde_json::to_vec(line).map_err(|error| error.to_string())?;
        text.push(b'\n');
        self.0.send(text.into()).await.map_err(|_| "the other side has gone".to_owned())
    }
}

impl Body for LinesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_wherever_they_were_cut() {
        let text = b"1\n22\n\"three\"\n";
        for size in 1..=text.len() {
            let (sender, receiver) = mpsc::channel(text.len());
            for piece in text.chunks(size) {
                sender.send(Bytes::from_static(piece)).await.unwrap();
            }
            drop(sender);
            let mut lines = Lines::new(LinesBody(receiver));
            let mut seen: Vec<serde_json::Value> = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                seen.push(line);
            }
            assert_eq!(serde_json::to_string(&seen).unwrap(), r#"[1,22,"three"]"#, "{size}");
        }
    }

    #[tokio::test]
    async fn what_is_none_of_the_protocol_is_refused_in_words() {
        let (sender, receiver) = mpsc::channel(1);
        sender.send(Bytes::from_static(b"{\n")).await.unwrap();
        let read = Lines::new(LinesBody(receiver)).next::<serde_json::Value>().await;
        assert!(read.unwrap_err().starts_with("a line that is none of this protocol"));
        let (sender, receiver) = mpsc::channel(1);
        sender.send(vec![b' '; LINE_BYTES_MAX + 1].into()).await.unwrap();
        let read = Lines::new(LinesBody(receiver)).next::<serde_json::Value>().await;
        assert_eq!(read.unwrap_err(), "a line is longer than 4194304 bytes");
    }
}
