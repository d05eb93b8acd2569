//! A relay that makes a peer far away: what passes it arrives later by half a round trip, in each direction.
//!
//! It delays bytes, not packets: what is sent arrives whole and in order, no bandwidth is limited, nothing is lost, and TCP's slow start
//! runs on both sides of it by itself. As the connection to the relay is made at once, the first bytes of a connection wait for the
//! round trip that its handshake would have taken.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Pieces that are on their way in one direction: at 16 KiB each, what a window of 4 MiB holds.
const PIECES_MAX: usize = 256;
const PIECE_BYTES: usize = 16 * 1024;

/// Before a listener is asked again that had nothing to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on a free loopback port, and passes on to `target` with this round trip, until the second value is dropped.
pub(super) async fn start(target: SocketAddr, round_trip: Duration) -> io::Result<(SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        loop {
            let (near, _) = accepted(|| listener.accept()).await;
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(target).await else { return };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let one_way = round_trip / 2;
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(pass(near_in, far_out, one_way, round_trip));
                pass(far_in, near_out, one_way, Duration::ZERO).await;
            });
        }
    });
    Ok((address, listening))
}

/// What a listener accepts next. A visitor who has left again (ECONNABORTED), or a moment without descriptors (EMFILE), does not end it.
pub(super) async fn accepted<T, F: Future<Output = io::Result<T>>>(mut accept: impl FnMut() -> F) -> T {
    loop {
        match accept().await {
            Ok(one) => return one,
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Passes bytes on, each piece `delay` after it came and the first one `more` later still. Ends when one side does.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, more: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let opened = Instant::now() + more;
    let reading = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match from.read(&mut piece).await {
                Ok(count) if count > 0 => piece.truncate(count),
                _ => return,
            }
            let due = Instant::now().max(opened) + delay;
            if sender.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The end of a direction travels too.
        sleep_until(Instant::now() + delay).await;
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_outlives_what_one_visitor_or_moment_brings() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let failed = |errno: rustix::io::Errno| Err(io::Error::from(errno));
            let errors = [failed(rustix::io::Errno::CONNABORTED), failed(rustix::io::Errno::MFILE), Ok(7)];
            let mut answers = errors.into_iter();
            assert_eq!(accepted(|| std::future::ready(answers.next().unwrap())).await, 7);
        });
    }

    #[test]
    fn an_exchange_through_it_takes_its_round_trips_and_loses_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = server.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut asked = [0; 4];
                while stream.read_exact(&mut asked).await.is_ok() {
                    stream.write_all(&vec![asked[0]; 100_000]).await.unwrap();
                }
            });
            let round_trip = Duration::from_millis(60);
            let (relay, _listening) = start(target, round_trip).await.unwrap();
            let begin = Instant::now();
            let mut stream = TcpStream::connect(relay).await.unwrap();
            for (number, trips) in [(1, 2), (2, 3)] {
                stream.write_all(&[number; 4]).await.unwrap();
                let mut answer = vec![0; 100_000];
                stream.read_exact(&mut answer).await.unwrap();
                assert!(answer.iter().all(|byte| *byte == number));
                // Never sooner; how much later is the machine's affair.
                assert!(begin.elapsed() >= round_trip * trips, "{:?}", begin.elapsed());
            }
        });
    }
}
