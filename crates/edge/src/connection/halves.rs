//! The two halves of a visitor's stream: reading into the connection's buffer, and writing answers from wherever their
//! bytes lie. Both wait under a deadline of their own; neither knows what it carries.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use semantics::{Fields, Why};
use store::Run;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::h1;
use crate::object::Stored;
use crate::pieces::{BrokenOff, Piece, Pieces};
use crate::worker::{Watch, Worker};

use super::Gone;
use super::stream::Stream;

/// Most slices of a stored body that one write names.
const WRITE_SLICES: usize = 16;

/// Pages that are encrypted are read in pieces of so many bytes: four of TLS's largest records.
const PAGES_READ_BYTES: usize = 64 * 1024;

/// Pieces up to this size wait for what follows them, if that is there already.
const SMALL_PIECE_BYTES: usize = 512;

/// Why an answer was not written to its end.
pub(super) enum Unwritten {
    /// The visitor left or took too long.
    Visitor,
    /// The origin broke off, or there was no room for more.
    Origin(Why),
}

impl From<Unwritten> for Gone {
    fn from(_: Unwritten) -> Self {
        Gone
    }
}

/// Whether trailer fields may follow a chunked body (RFC 9110 §6.5.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trailers {
    Wanted,
    Dropped,
}

pub(super) struct Reader<'a> {
    pub(super) stream: &'a Stream,
    pub(super) buffer: Vec<u8>,
    pub(super) watch: Rc<Watch>,
}

impl Reader<'_> {
    /// Whether the visitor has sent more than was read: closing now would reset what it has yet to receive.
    pub(super) fn has_unread(&self) -> bool {
        !self.buffer.is_empty() || self.stream.has_unread()
    }

    /// Reads what there is behind what the buffer holds; 0 at the end. `TimedOut` when the watch expires.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < 1024 {
            self.buffer.reserve(16 * 1024);
        }
        poll_fn(|context| {
            if self.watch.is_expired() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let read = self.stream.poll_read(context, &mut self.buffer);
            if read.is_pending() {
                self.watch.register(context);
            }
            read
        })
        .await
    }
}

pub(super) struct Writer<'a> {
    pub(super) stream: &'a Stream,
    pub(super) watch: Rc<Watch>,
    /// Bytes of the current answer that the stream has taken.
    pub(super) sent: u64,
}

impl Writer<'_> {
    pub(super) async fn write_interim(
        &mut self,
        worker: &Worker,
        responses: Vec<(u16, Fields)>,
    ) -> Result<(), Gone> {
        for (status, fields) in responses {
            let mut out = worker.take_buffer();
            h1::write_status_line(&mut out, status);
            out.extend_from_slice(fields.as_block());
            out.extend_from_slice(b"\r\n");
            let written = self.write(worker, &out, &[]).await;
            worker.return_buffer(out);
            written.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Writes `first` and then `rest`, all of it, and sees it off.
    pub(super) async fn write(
        &mut self,
        worker: &Worker,
        first: &[u8],
        rest: &[&[u8]],
    ) -> Result<(), Unwritten> {
        let total = first.len() + rest.iter().map(|slice| slice.len()).sum::<usize>();
        let mut done = 0;
        while done < total {
            let mut slices = [IoSlice::new(&[]); 4];
            let mut count = 0;
            let mut skip = done;
            for slice in std::iter::once(&first).chain(rest) {
                if skip >= slice.len() {
                    skip -= slice.len();
                    continue;
                }
                slices[count] = IoSlice::new(&slice[skip..]);
                skip = 0;
                count += 1;
            }
            done += self.write_some(worker, &slices[..count]).await?;
        }
        self.flush(worker).await
    }

    /// Writes `head` and bytes `start..end` of a stored body.
    pub(super) async fn write_stored(
        &mut self,
        worker: &Worker,
        head: &[u8],
        stored: &Stored,
        start: u64,
        end: u64,
    ) -> Result<(), Unwritten> {
        if let Some(run) = stored.pages() {
            return self.write_pages(worker, head, run, start, end).await;
        }
        let (mut head_done, mut offset) = (0, start);
        while head_done < head.len() || offset < end {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let mut count = 0;
            if head_done < head.len() {
                slices[0] = IoSlice::new(&head[head_done..]);
                count = 1;
            }
            let mut at = offset;
            while at < end && count < WRITE_SLICES {
                let slice = stored.body_at(at);
                let slice = &slice[..slice.len().min((end - at) as usize)];
                if slice.is_empty() {
                    return Err(Unwritten::Origin(Why::OriginProtocol));
                }
                slices[count] = IoSlice::new(slice);
                at += slice.len() as u64;
                count += 1;
            }
            let written = self.write_some(worker, &slices[..count]).await?;
            let of_head = written.min(head.len() - head_done);
            head_done += of_head;
            offset += (written - of_head) as u64;
        }
        self.flush(worker).await
    }

    /// Writes `head` and then bytes `start..end` of a body that lies in pages: the kernel sends it from there, unless it has
    /// to be encrypted.
    async fn write_pages(
        &mut self,
        worker: &Worker,
        head: &[u8],
        run: &Run,
        start: u64,
        end: u64,
    ) -> Result<(), Unwritten> {
        if self.stream.is_encrypted() {
            return self.write_read_pages(worker, head, run, start, end).await;
        }
        let mut head_done = 0;
        while head_done < head.len() {
            // MSG_MORE: the head waits for the body, so that both share packets.
            let more = if start < end { SendFlags::MORE } else { SendFlags::empty() };
            head_done += self.write_by(worker, |socket| Ok(send(socket, &head[head_done..], more)?)).await?;
        }
        let mut at = start;
        while at < end {
            at += self.write_by(worker, |socket| run.send(socket, at, end)).await? as u64;
        }
        Ok(())
    }

    async fn write_read_pages(
        &mut self,
        worker: &Worker,
        head: &[u8],
        run: &Run,
        start: u64,
        end: u64,
    ) -> Result<(), Unwritten> {
        let (mut head, mut at) = (head, start);
        let mut buffer = vec![0; PAGES_READ_BYTES.min((end - start) as usize)];
        loop {
            let wanted = buffer.len().min((end - at) as usize);
            let read =
                run.read(at, &mut buffer[..wanted]).map_err(|_| Unwritten::Origin(Why::OriginProtocol))?;
            self.write(worker, head, &[&buffer[..read]]).await?;
            head = &[];
            at += read as u64;
            if at >= end || read == 0 {
                return Ok(());
            }
        }
    }

    /// Writes the head in `out` and then a body that comes piece by piece.
    pub(super) async fn write_streamed(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        pieces: &mut Pieces,
        chunked: Option<Trailers>,
    ) -> Result<(), Unwritten> {
        let is_chunked = chunked.is_some();
        loop {
            // The head goes out with the first piece, or alone if that is not there yet.
            let next = self.next_piece(worker, out, pin!(pieces.next())).await?;
            match next.map_err(|BrokenOff(why)| Unwritten::Origin(why))? {
                Some(Piece::Bytes(piece)) => self.write_piece(worker, out, &piece, is_chunked).await?,
                Some(Piece::Pages(run, start, end)) => {
                    self.write_pages(worker, out, &run, start, end).await?;
                    out.clear();
                }
                None => break,
            }
            if out.is_empty() {
                // What it was taken for, the head, is sent; the rest may take long.
                worker.return_buffer(std::mem::take(out));
            }
        }
        if let Some(trailers) = chunked {
            out.extend_from_slice(b"0\r\n");
            if trailers == Trailers::Wanted {
                out.extend_from_slice(pieces.take_trailers().as_block());
            }
            out.extend_from_slice(b"\r\n");
        }
        let result = self.write(worker, out, &[]).await;
        out.clear();
        result
    }

    /// Waits for a piece; if it takes a moment, what `out` holds is sent before.
    async fn next_piece<T>(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        mut next: impl Future<Output = T> + Unpin,
    ) -> Result<T, Unwritten> {
        let ready = poll_fn(|context| Poll::Ready(Pin::new(&mut next).poll(context))).await;
        match ready {
            Poll::Ready(piece) => Ok(piece),
            Poll::Pending => {
                if !out.is_empty() {
                    self.write(worker, out, &[]).await?;
                    out.clear();
                }
                Ok(next.await)
            }
        }
    }

    async fn write_piece(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        piece: &[u8],
        chunked: bool,
    ) -> Result<(), Unwritten> {
        match (piece.len(), chunked) {
            (0, _) => return Ok(()),
            (..=SMALL_PIECE_BYTES, false) => {
                out.extend_from_slice(piece);
                return Ok(());
            }
            (_, false) => self.write(worker, out, &[piece]).await?,
            (len, true) => {
                h1::write_chunk_size(out, len);
                self.write(worker, out, &[piece, b"\r\n"]).await?;
            }
        }
        out.clear();
        Ok(())
    }

    /// One vectored write of at least a byte.
    async fn write_some(&mut self, worker: &Worker, slices: &[IoSlice<'_>]) -> Result<usize, Unwritten> {
        self.wait_to_write(worker, |stream, context| stream.poll_write(context, slices)).await
    }

    /// One system call of ours that writes at least a byte to a stream that is not encrypted.
    async fn write_by(
        &mut self,
        worker: &Worker,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Result<usize, Unwritten> {
        let attempt = |stream: &Stream, context: &mut Context<'_>| {
            stream.with_socket(|socket| {
                loop {
                    ready!(socket.poll_write_ready(context))?;
                    match socket.try_io(Interest::WRITABLE, || call(socket)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        done => return Poll::Ready(done),
                    }
                }
            })
        };
        self.wait_to_write(worker, attempt).await
    }

    /// Waits for a write. Only a socket that does not take anything at once arms the stall deadline.
    async fn wait_to_write(
        &mut self,
        worker: &Worker,
        mut attempt: impl FnMut(&Stream, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Result<usize, Unwritten> {
        let (mut waited, mut sent) = (false, 0);
        let written = poll_fn(|context| {
            if waited && self.watch.is_expired() {
                // What is encrypted has to leave before more can be taken: it may be on its way, slowly.
                if std::mem::replace(&mut sent, self.stream.sent()) == self.stream.sent() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                self.watch.set(worker.tick_after(worker.limits().write_stall_timeout));
            }
            let written = attempt(self.stream, context);
            if written.is_pending() {
                if !waited {
                    sent = self.stream.sent();
                    self.watch.set(worker.tick_after(worker.limits().write_stall_timeout));
                    waited = true;
                }
                self.watch.register(context);
            }
            written
        })
        .await;
        if waited {
            self.watch.clear();
        }
        match written {
            Ok(count) if count > 0 => {
                self.sent += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                worker.count_limit(observe::Limit::SendTime);
                Err(Unwritten::Visitor)
            }
            _ => Err(Unwritten::Visitor),
        }
    }

    /// Waits until all that was written has left us: what is encrypted may have been taken and not sent.
    async fn flush(&mut self, worker: &Worker) -> Result<(), Unwritten> {
        if !self.stream.is_encrypted() {
            return Ok(());
        }
        let sent = self.sent;
        let flushed =
            self.wait_to_write(worker, |stream, context| stream.poll_flush(context).map_ok(|()| 1)).await;
        self.sent = sent;
        flushed.map(drop)
    }

    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|context| self.stream.poll_shutdown(context)).await
    }

    /// Makes the close that follows a reset.
    pub(super) fn reset(&self) {
        let _ =
            self.stream.with_socket(|socket| socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)));
    }
}
