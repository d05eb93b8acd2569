//! A long line: it carries the bytes of a TCP connection, and holds each for as long as it would be under way. Nothing in the edges or in
//! the shop sleeps; all that is slow in the demo is slow here.
//!
//! ```text
//! near ── read ─► (due at now + one way) ─► write ── far
//! near ◄─ write ─ (due at now + one way) ◄─ read ─── far      and after those before it on the shop's uplink
//! ```
//!
//! A connection costs its round trip before it carries anything, as the handshake of TCP does. What is left out makes the far shop look
//! better than it is: no slow start, no loss, no other traffic.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces under way in one direction of a connection: 1 MiB, a usual window for TCP. More wait at the sender.
const PIECES_MAX: usize = 64;
/// Time between two tries to take a connection while the system has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How far it is, and what limits it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Time from one end to the other.
    pub(super) one_way: Duration,
    /// What those at the far end share for what they send.
    pub(super) uplink: Option<Arc<Uplink>>,
}

/// A line's capacity, shared by all connections that send on it.
#[derive(Debug)]
pub(super) struct Uplink {
    bits_per_second: u64,
    free_at: Mutex<Instant>,
}

impl Uplink {
    /// Nothing is on it yet.
    pub(super) fn new(bits_per_second: u64) -> Self {
        Uplink { bits_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// When the last bit of so many bytes has left, which come after all that were before.
    fn send(&self, bytes: usize) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / self.bits_per_second as f64);
        let mut free_at = self.free_at.lock();
        *free_at = (*free_at).max(Instant::now()) + takes;
        *free_at
    }
}

/// Carries a connection from `near` to a server at `far`, until both have nothing more to say or one breaks.
///
/// # Errors
/// Nobody listens there, or the connection broke. Whoever is near sees its end.
pub(super) async fn carry(near: impl AsyncRead + AsyncWrite, far: SocketAddr, line: &Line) -> io::Result<()> {
    sleep(line.one_way).await;
    let connected = TcpStream::connect(far).await;
    // A refusal takes as long to come back as a greeting.
    sleep(line.one_way).await;
    let far = connected?;
    far.set_nodelay(true)?;
    let (near_reads, near_writes) = tokio::io::split(near);
    let (far_reads, far_writes) = far.into_split();
    let there = pump(near_reads, far_writes, line.one_way, None);
    let back = pump(far_reads, near_writes, line.one_way, line.uplink.as_deref());
    tokio::try_join!(there, back).map(|_| ())
}

/// One direction.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    one_way: Duration,
    uplink: Option<&Uplink>,
) -> io::Result<()> {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Bytes)>(PIECES_MAX);
    let read = async move {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            let count = from.read_buf(&mut piece).await?;
            let left_at = uplink.map_or_else(Instant::now, |uplink| uplink.send(count));
            // An empty piece is the end, which travels as everything does.
            let is_heard = under_way.send((left_at + one_way, piece.freeze())).await.is_ok();
            if count == 0 || !is_heard {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = arriving.recv().await {
            sleep_until(due).await;
            match piece.is_empty() {
                true => return to.shutdown().await,
                false => to.write_all(&piece).await?,
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Takes connections for ever, and carries each to where `route` says, by the address that it comes from; `None` is not carried.
/// Call it in a `LocalSet`.
pub(super) async fn listen<F, R>(listener: TcpListener, route: F)
where
    F: Fn(SocketAddr) -> R + Clone + 'static,
    R: Future<Output = Option<(SocketAddr, Line)>>,
{
    loop {
        let (near, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let route = route.clone();
        tokio::task::spawn_local(async move {
            if let Some((far, line)) = route(from).await {
                let _ = near.set_nodelay(true);
                // Whoever is near sees that it broke; nobody else is there to be told.
                let _broken = carry(near, far, &line).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, in upper case.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn bytes_arrive_whole_and_not_before_two_round_trips() {
        let far = echo().await;
        let line = Line { one_way: Duration::from_millis(20), uplink: None };
        let (mut client, near) = tokio::io::duplex(1024);
        let carried = tokio::spawn(async move { carry(near, far, &line).await });
        let begun = Instant::now();
        client.write_all(b"a long way").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "A LONG WAY");
        // The handshake, and there and back: never sooner.
        assert!(begun.elapsed() >= Duration::from_millis(80));
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_an_end_for_the_near_one() {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let line = Line { one_way: Duration::from_millis(1), uplink: None };
        let (mut client, near) = tokio::io::duplex(1024);
        assert!(carry(near, far, &line).await.is_err());
        assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_uplink_sends_one_after_the_other() {
        let uplink = Uplink::new(8_000_000);
        let begun = Instant::now();
        // A second's worth, then half a second's: whoever they are from.
        assert!(uplink.send(1_000_000) >= begun + Duration::from_secs(1));
        assert!(uplink.send(500_000) >= begun + Duration::from_millis(1500));
    }
}
