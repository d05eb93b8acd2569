//! The bytes between a visitor and the edge, encrypted or not.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::frames::Conduct;

/// Encrypted bytes that may wait for the socket: four of TLS's largest records. What is written until a flush leaves in
/// as few system calls as that takes.
const SEALED_BYTES: usize = 64 * 1024;

/// Bytes that are taken off the socket at a time when nobody wants them.
const DISCARD_BYTES: usize = 16 * 1024;

/// A visitor's connection, as far as bytes go.
pub(crate) enum Io {
    /// As the socket has them.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<Sealed>),
}

/// A socket behind a TLS session whose handshake is over, or goes on behind early data.
pub(crate) struct Sealed {
    socket: TcpStream,
    session: ServerConnection,
    /// What came before the handshake was over (RFC 8446 §2.3), and was not read yet: [`ServerConfig::max_early_data_size`] at most.
    early: Vec<u8>,
    /// Whether the handshake goes on: what is read may be a replay.
    is_early: bool,
    /// Whether the visitor has sent its last byte.
    is_over: bool,
    /// Encrypted bytes that the socket has taken.
    sent: u64,
}

/// A socket of which something has been read before its owner came.
pub(crate) struct Prefixed {
    socket: TcpStream,
    first: Vec<u8>,
}

impl Prefixed {
    pub(super) fn new(socket: TcpStream, first: Vec<u8>) -> Self {
        Prefixed { socket, first }
    }
}

impl Io {
    fn socket(&self) -> &TcpStream {
        match self {
            Io::Plain(socket) => socket,
            Io::Tls(sealed) => &sealed.socket,
        }
    }
}

/// [`Io`] for two halves of one task, which never poll at the same time.
pub(super) struct Stream {
    io: RefCell<Io>,
    is_encrypted: bool,
}

impl Stream {
    pub(super) fn new(io: Io) -> Self {
        Stream { is_encrypted: matches!(io, Io::Tls(_)), io: RefCell::new(io) }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Whether the visitor's handshake is not over, so that what it asks may be somebody's replay of what it asked before.
    pub(super) fn is_early(&self) -> bool {
        matches!(&*self.io.borrow(), Io::Tls(sealed) if sealed.is_early)
    }

    pub(super) fn with_socket<T>(&self, look: impl FnOnce(&TcpStream) -> T) -> T {
        look(self.io.borrow().socket())
    }

    /// Ready when something has come. Takes no buffer.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = self.io.borrow_mut();
        if let Io::Tls(sealed) = &mut *io
            && sealed.has_opened()?
        {
            // It came with the last request and is decrypted already.
            return Poll::Ready(Ok(()));
        }
        io.socket().poll_read_ready(context)
    }

    /// Reads behind what `buffer` holds, as much as it has capacity for; 0 at the end.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut io = self.io.borrow_mut();
        match &mut *io {
            Io::Plain(socket) => pin!(socket.read_buf(buffer)).poll(context),
            Io::Tls(sealed) => pin!(sealed.read_buf(buffer)).poll(context),
        }
    }

    /// Whether something has come that was not read. It stays there: what is encrypted makes sense as a whole only.
    pub(super) fn has_unread(&self) -> bool {
        let mut io = self.io.borrow_mut();
        if let Io::Tls(sealed) = &mut *io
            && sealed.has_opened().unwrap_or(false)
        {
            return true;
        }
        let mut byte = [std::mem::MaybeUninit::uninit()];
        matches!(socket2::SockRef::from(io.socket()).peek(&mut byte), Ok(1))
    }

    /// Bytes that have left an encrypted stream so far: while they grow, the visitor gets on.
    pub(super) fn sent(&self) -> u64 {
        match &*self.io.borrow() {
            Io::Plain(_) => 0,
            Io::Tls(sealed) => sealed.sent,
        }
    }

    /// Takes some of what has come off the socket without a look at it; 0 at the end.
    pub(super) fn poll_discard(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = self.io.borrow();
        loop {
            ready!(io.socket().poll_read_ready(context))?;
            match io.socket().try_read(&mut [0; DISCARD_BYTES]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Writes some of `slices`: at least a byte. What is encrypted waits for a flush.
    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_write_vectored(context, slices)
    }

    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_flush(context)
    }

    pub(super) fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_shutdown(context)
    }
}

/// A stream of HTTP/2 frames whose flushes do nothing: for an owner that flushes after each frame. Whoever polls that
/// owner sends, with [`Stream::poll_flush`], what has gathered meanwhile; and looks whether [`Conduct::exceeded`] says
/// that enough has come, as nothing is read any more then.
pub(super) struct Gathering {
    pub(super) stream: Rc<Stream>,
    pub(super) conduct: Rc<Conduct>,
}

impl AsyncRead for Gathering {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let held = buffer.filled().len();
        ready!(Pin::new(&mut *self.stream.io.borrow_mut()).poll_read(context, buffer))?;
        self.conduct.receive(&buffer.filled()[held..]);
        if self.conduct.exceeded().is_some() {
            buffer.set_filled(held);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_write(context, slices))?;
        self.conduct.send(slices, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(context)
    }
}

impl Sealed {
    /// Shakes hands: until that is done, or early data has come.
    ///
    /// # Errors
    /// Those of the socket; those of TLS, as [`rustls::Error`] within; an end before the handshake's.
    pub(super) async fn open(config: Arc<ServerConfig>, prefixed: Prefixed) -> io::Result<Self> {
        let Prefixed { socket, first } = prefixed;
        let session = ServerConnection::new(config).map_err(invalid)?;
        let mut sealed =
            Sealed { socket, session, early: Vec::new(), is_early: false, is_over: false, sent: 0 };
        let mut first = &first[..];
        while !first.is_empty() {
            sealed.session.read_tls(&mut first)?;
            if let Err(error) = sealed.session.process_new_packets() {
                return Err(sealed.refuse(&mut Context::from_waker(Waker::noop()), error));
            }
        }
        poll_fn(|context| sealed.poll_shake_hands(context)).await?;
        sealed.session.set_buffer_limit(Some(SEALED_BYTES));
        Ok(sealed)
    }

    /// What was agreed on.
    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    fn poll_shake_hands(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(context))?;
            self.take_early()?;
            if !self.early.is_empty() || !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.poll_open(context))? {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Takes what came early out of the session, which has a place of its own for it.
    fn take_early(&mut self) -> io::Result<()> {
        if let Some(mut early) = self.session.early_data() {
            early.read_to_end(&mut self.early)?;
        }
        self.is_early = self.session.is_handshaking();
        Ok(())
    }

    /// Whether there are decrypted bytes, or the end.
    fn has_opened(&mut self) -> io::Result<bool> {
        let state = self.session.process_new_packets().map_err(io::Error::other)?;
        Ok(!self.early.is_empty() || state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
    }

    /// Sends the alert that says what is wrong, as far as the socket takes it.
    fn refuse(&mut self, context: &mut Context<'_>, error: rustls::Error) -> io::Error {
        let _ = self.poll_send(context);
        invalid(error)
    }

    /// Reads from the socket once and decrypts; whether anything came.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut socket = Blocking { socket: &mut self.socket, context };
        let count = match self.session.read_tls(&mut socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            read => read?,
        };
        if let Err(error) = self.session.process_new_packets() {
            return Poll::Ready(Err(self.refuse(context, error)));
        }
        if self.is_early {
            self.take_early()?;
        }
        Poll::Ready(Ok(count > 0))
    }

    /// Gives the socket what is encrypted.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut socket = Blocking { socket: &mut self.socket, context };
            match self.session.write_tls(&mut socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                written => self.sent += written? as u64,
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A socket as rustls wants it: what would have to wait is an error, and the task is woken when it needn't any more.
struct Blocking<'a, 'b> {
    socket: &'a mut TcpStream,
    context: &'a mut Context<'b>,
}

fn or_would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Blocking<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        or_would_block(Pin::new(&mut *self.socket).poll_read(self.context, &mut buffer))?;
        Ok(buffer.filled().len())
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write_vectored(self.context, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Sealed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.early.is_empty() {
                let count = this.early.len().min(buffer.remaining());
                buffer.put_slice(&this.early[..count]);
                this.early.drain(..count);
                return Poll::Ready(Ok(()));
            }
            match this.session.reader().fill_buf() {
                Ok(opened) => {
                    // None of them is the end.
                    let count = opened.len().min(buffer.remaining());
                    buffer.put_slice(&opened[..count]);
                    this.session.reader().consume(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !this.is_over => {}
                // An end without TLS's own goodbye.
                Err(error) => return Poll::Ready(Err(error)),
            }
            this.is_over = !ready!(this.poll_open(context))?;
            if this.session.wants_write() {
                let _ = this.poll_send(context)?;
            }
        }
    }
}

impl AsyncWrite for Sealed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let count = self.session.writer().write_vectored(slices)?;
            if count > 0 || slices.iter().all(|slice| slice.is_empty()) {
                return Poll::Ready(Ok(count));
            }
            ready!(self.poll_send(context))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Said once, however often this is polled.
        self.session.send_close_notify();
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Io::Tls(sealed) => Pin::new(&mut **sealed).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Io::Tls(sealed) => Pin::new(&mut **sealed).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Io::Tls(sealed) => Pin::new(&mut **sealed).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_flush(context),
            Io::Tls(sealed) => Pin::new(&mut **sealed).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Io::Tls(sealed) => Pin::new(&mut **sealed).poll_shutdown(context),
        }
    }
}
