//! The two halves of a visitor's socket: reading into the connection's buffer, and writing answers from wherever their
//! bytes lie. Both wait under a deadline of their own; neither knows what it carries.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use semantics::Fields;
use store::Run;
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::answer::Body;
use crate::h1;
use crate::object::Stored;
use crate::slices::{Piece, SliceReader};
use crate::worker::{Watch, Worker};

use super::Gone;

/// Most slices of a stored body that one write names.
const WRITE_SLICES: usize = 16;

/// Why an answer was not written to its end.
pub(super) enum Unwritten {
    /// The visitor left or took too long.
    Visitor,
    /// The origin broke off.
    Origin,
}

pub(super) struct Reader<'a> {
    pub(super) half: ReadHalf<'a>,
    pub(super) buffer: Vec<u8>,
    pub(super) watch: Rc<Watch>,
}

impl Reader<'_> {
    /// Whether the visitor has sent more than was read: closing now would reset what it has yet to receive.
    pub(super) fn has_unread(&self) -> bool {
        !self.buffer.is_empty() || matches!(self.half.try_read(&mut [0]), Ok(1))
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
            let read = pin!(self.half.read_buf(&mut self.buffer)).poll(context);
            if read.is_pending() {
                self.watch.register(context);
            }
            read
        })
        .await
    }
}

pub(super) struct Writer<'a> {
    pub(super) half: WriteHalf<'a>,
    pub(super) watch: Rc<Watch>,
    /// Bytes of the current answer that the socket has taken.
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

    /// Writes `first` and then `rest`, all of it.
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
        Ok(())
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
                    return Err(Unwritten::Origin);
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
        Ok(())
    }

    /// Writes `head` and then bytes `start..end` of a body that the kernel sends from where it lies.
    async fn write_pages(
        &mut self,
        worker: &Worker,
        head: &[u8],
        run: &Run,
        start: u64,
        end: u64,
    ) -> Result<(), Unwritten> {
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

    /// Writes the head in `out` and then a body that comes piece by piece.
    pub(super) async fn write_streamed(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        body: Body,
        chunked: bool,
    ) -> Result<(), Unwritten> {
        match body {
            Body::Multipart(stored, None, parts, closing) => {
                for part in parts {
                    out.extend_from_slice(&part.head);
                    self.write_stored(worker, out, &stored, part.start, part.end).await?;
                    out.clear();
                }
                self.write(worker, &closing, &[]).await
            }
            Body::Multipart(_, Some(mut reader), parts, closing) => {
                for part in parts {
                    out.extend_from_slice(&part.head);
                    reader.seek(part.start, part.end);
                    self.write_slices(worker, out, &mut reader).await?;
                }
                self.write(worker, &closing, &[]).await
            }
            Body::Sliced(mut reader) => self.write_slices(worker, out, &mut reader).await,
            Body::Fill(mut reader, end) => {
                let mut left = end.map(|end| end.saturating_sub(reader.offset()));
                while left != Some(0) {
                    // The head goes out with the first piece, or alone if that is not there yet.
                    let next = self.next_piece(worker, out, reader.next()).await?;
                    let Some(mut piece) = next.map_err(|_| Unwritten::Origin)? else { break };
                    if let Some(left) = &mut left {
                        piece.truncate((*left).min(piece.len() as u64) as usize);
                        *left -= piece.len() as u64;
                    }
                    self.write_piece(worker, out, &piece, chunked).await?;
                }
                self.finish(worker, out, chunked).await
            }
            Body::Origin(mut body) => {
                loop {
                    let next = self.next_piece(worker, out, body.chunk()).await?;
                    match next {
                        Some(Ok(piece)) => self.write_piece(worker, out, &piece, chunked).await?,
                        Some(Err(_)) => return Err(Unwritten::Origin),
                        None => break,
                    }
                }
                self.finish(worker, out, chunked).await
            }
            Body::Empty | Body::Bytes(_) | Body::Stored(..) | Body::Tunnel(_) => Ok(()),
        }
    }

    /// Writes what `out` holds and then bytes that are read from disk.
    async fn write_slices(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        reader: &mut SliceReader,
    ) -> Result<(), Unwritten> {
        loop {
            let next = self.next_piece(worker, out, reader.next()).await?;
            match next.map_err(|_| Unwritten::Origin)? {
                Some(Piece::Bytes(piece)) => self.write(worker, out, &[&piece]).await?,
                Some(Piece::Pages(run, start, end)) => {
                    self.write_pages(worker, out, &run, start, end).await?
                }
                None => break,
            }
            out.clear();
        }
        self.write(worker, out, &[]).await?;
        out.clear();
        Ok(())
    }

    /// Waits for a piece; if it takes a moment, what `out` holds is sent before.
    async fn next_piece<T>(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        next: impl Future<Output = T>,
    ) -> Result<T, Unwritten> {
        let mut next = pin!(next);
        let ready = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
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
        if piece.is_empty() {
            return Ok(());
        }
        let result = if chunked {
            h1::write_chunk_size(out, piece.len());
            self.write(worker, out, &[piece, b"\r\n"]).await
        } else {
            self.write(worker, out, &[piece]).await
        };
        out.clear();
        result
    }

    async fn finish(&mut self, worker: &Worker, out: &mut Vec<u8>, chunked: bool) -> Result<(), Unwritten> {
        if chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        let result = self.write(worker, out, &[]).await;
        out.clear();
        result
    }

    /// One vectored write of at least a byte.
    async fn write_some(&mut self, worker: &Worker, slices: &[IoSlice<'_>]) -> Result<usize, Unwritten> {
        self.wait_to_write(worker, |half, context| Pin::new(half).poll_write_vectored(context, slices)).await
    }

    /// One system call of ours that writes at least a byte.
    async fn write_by(
        &mut self,
        worker: &Worker,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Result<usize, Unwritten> {
        let attempt = |half: &mut WriteHalf<'_>, context: &mut Context<'_>| {
            let socket: &TcpStream = (*half).as_ref();
            loop {
                ready!(socket.poll_write_ready(context))?;
                match socket.try_io(Interest::WRITABLE, || call(socket)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return Poll::Ready(done),
                }
            }
        };
        self.wait_to_write(worker, attempt).await
    }

    /// Waits for a write. Only a socket that does not take anything at once arms the stall deadline.
    async fn wait_to_write(
        &mut self,
        worker: &Worker,
        mut attempt: impl FnMut(&mut WriteHalf<'_>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Result<usize, Unwritten> {
        let mut waited = false;
        let written = poll_fn(|context| {
            if waited && self.watch.is_expired() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let written = attempt(&mut self.half, context);
            if written.is_pending() {
                if !waited {
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

    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut self.half).poll_shutdown(context)).await
    }

    /// Makes the close that follows a reset.
    pub(super) fn reset(&self) {
        let _ = socket2::SockRef::from(self.half.as_ref()).set_linger(Some(Duration::ZERO));
    }
}
