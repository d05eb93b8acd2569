//! The bytes between a visitor and the edge, encrypted or not.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A visitor's connection, as far as bytes go.
pub(crate) enum Io {
    /// As the socket has them.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<Prefixed>>),
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
            Io::Tls(stream) => &stream.get_ref().0.socket,
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

    pub(super) fn with_socket<T>(&self, look: impl FnOnce(&TcpStream) -> T) -> T {
        look(self.io.borrow().socket())
    }

    /// Ready when something has come. Takes no buffer.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = self.io.borrow_mut();
        if let Io::Tls(stream) = &mut *io {
            let has_prefix = !stream.get_ref().0.first.is_empty();
            // What came with the last request is decrypted already.
            let decrypted = stream.get_mut().1.process_new_packets().map_err(io::Error::other)?;
            if has_prefix || decrypted.plaintext_bytes_to_read() > 0 || decrypted.peer_has_closed() {
                return Poll::Ready(Ok(()));
            }
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
            Io::Tls(stream) => pin!(stream.read_buf(buffer)).poll(context),
        }
    }

    /// Whether something has come that was not read.
    pub(super) fn has_unread(&self) -> bool {
        self.with_socket(|socket| matches!(socket.try_read(&mut [0]), Ok(1)))
    }

    /// Writes some of `slices`: at least a byte.
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

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.drain(..count);
        if self.first.is_empty() {
            self.first = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
            Io::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
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
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
