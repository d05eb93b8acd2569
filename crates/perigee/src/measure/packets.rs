//! A line that makes a peer far away, packet by packet: what is sent into one end comes out of the other half a round trip later, or is
//! lost, and passes a bottleneck where there is one.
//!
//! ```text
//! namespace of the browser                 this process                    namespace of the far end      where perigee runs
//!   Chromium ── TCP ── TUN ── reader ─► delay, rate, loss ─► writer ── TUN ── TCP ── forwarder ───────────── the server
//! ```
//!
//! So handshakes, slow start, windows and repeats are those of the kernel over such a line, and each connection has them whole: the far end's
//! forwarder hands bytes on to the server without delay. The browser's namespace has no other way out; hosts that are not under test are
//! reached through [`BESIDE`], to which nothing is delayed. UDP has no forwarder, so a browser there speaks no HTTP/3.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use model::Draw;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::device;
use super::relay::accepted;

// Addresses for tests of networks (RFC 2544 Appendix C.2.2): inside of the namespaces alone.
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The far end's other address, to which nothing is delayed.
const BESIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);

/// Packets under way in one direction: what a window of 16 MiB holds.
const PACKETS_MAX: usize = 12_000;

/// Largest packet of the devices.
const PACKET_BYTES_MAX: usize = 1500;

/// Bytes that wait before a bottleneck; what comes above is lost. As home routers have.
const WAITING_BYTES_MAX: f64 = 256.0 * 1024.0;

/// How often a reader looks whether its line is still wanted.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What a line does to packets, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Shape {
    pub(super) round_trip: Duration,
    /// Bits a second.
    pub(super) rate: Option<f64>,
    /// Share of packets that are lost.
    pub(super) loss: f64,
}

/// A line, until it is dropped.
pub(super) struct Line {
    near: Arc<OwnedFd>,
    far: OwnedFd,
    forwarders: JoinSet<()>,
    is_over: Arc<AtomicBool>,
}

impl Line {
    /// Lays one. Fails without root and `/dev/net/tun`.
    pub(super) fn open(shape: Shape) -> io::Result<Line> {
        let (near, near_end) = device::namespace(&[NEAR])?;
        let (far, far_end) = device::namespace(&[FAR, BESIDE])?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (near_end, far_end) = (Arc::new(near_end), Arc::new(far_end));
        carry(near_end.clone(), far_end.clone(), shape, 1, &is_over)?;
        carry(far_end, near_end, shape, 2, &is_over)?;
        Ok(Line { near: Arc::new(near), far, forwarders: JoinSet::new(), is_over })
    }

    /// The namespace that a visitor's programs run in.
    pub(super) fn near(&self) -> Arc<OwnedFd> {
        self.near.clone()
    }

    /// Has `server` at the far end: the address to find it at.
    pub(super) fn forward(&mut self, server: SocketAddr) -> io::Result<SocketAddr> {
        self.listen(FAR, server)
    }

    /// Has `server` reached past the line.
    pub(super) fn forward_beside(&mut self, server: SocketAddr) -> io::Result<SocketAddr> {
        self.listen(BESIDE, server)
    }

    fn listen(&mut self, address: Ipv4Addr, server: SocketAddr) -> io::Result<SocketAddr> {
        let listener = device::within(&self.far, || {
            let listener = std::net::TcpListener::bind((address, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        self.forwarders.spawn(async move {
            let mut all = JoinSet::new();
            loop {
                let (mut visitor, _) = accepted(|| listener.accept()).await;
                while all.try_join_next().is_some() {}
                all.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    let _ = (visitor.set_nodelay(true), server.set_nodelay(true));
                    // Ends when both sides have, or one breaks, which drops the other.
                    let _ = tokio::io::copy_bidirectional(&mut visitor, &mut server).await;
                });
            }
        });
        Ok(address)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Carries packets in one direction, with a thread that reads and one that writes when their time has come.
fn carry(
    from: Arc<File>,
    to: Arc<File>,
    shape: Shape,
    seed: u64,
    is_over: &Arc<AtomicBool>,
) -> io::Result<()> {
    let (sender, due) = sync_channel(PACKETS_MAX);
    let (writing_to, is_over) = (to.clone(), is_over.clone());
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    thread("line-out").spawn(move || write(&writing_to, &due))?;
    thread("line-in").spawn(move || {
        // Whatever ends it ends the line: the writer has nobody left to hear from.
        if let Err(error) = read(&from, &to, Bottleneck::new(shape, seed), &sender, &is_over) {
            eprintln!("A line has ended before its time, and what is visited over it will not come: {error}");
        }
    })?;
    Ok(())
}

type Packet = (Instant, Vec<u8>);

fn read(
    from: &File,
    past: &File,
    mut bottleneck: Bottleneck,
    sender: &SyncSender<Packet>,
    is_over: &AtomicBool,
) -> io::Result<()> {
    let mut packet = [0; PACKET_BYTES_MAX];
    while !is_over.load(Ordering::Relaxed) {
        // A signal, or a debugger, may interrupt either.
        if retry_on_intr(|| poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&LOOK_EVERY)))? == 0 {
            continue;
        }
        let count = retry_on_intr(|| rustix::io::read(from, &mut packet[..]))?;
        let packet = &packet[..count];
        // Source and destination (RFC 791 §3.1). What is of IPv6 asks for neighbours that there are none of.
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            continue;
        }
        if packet[12..16] == BESIDE.octets() || packet[16..20] == BESIDE.octets() {
            // A device that takes no more loses packets, as others do.
            let _ = retry_on_intr(|| rustix::io::write(past, packet));
            continue;
        }
        if let Some(due) = bottleneck.pass(packet.len(), Instant::now()) {
            // A full line loses what comes.
            let _ = sender.try_send((due, packet.to_vec()));
        }
    }
    Ok(())
}

fn write(to: &File, due: &Receiver<Packet>) {
    while let Ok((due, packet)) = due.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let _ = retry_on_intr(|| rustix::io::write(to, &packet));
    }
}

/// When packets come out at the other end.
struct Bottleneck {
    shape: Shape,
    /// When all that waits will have been sent.
    free: Option<Instant>,
    draw: Draw,
}

impl Bottleneck {
    fn new(shape: Shape, seed: u64) -> Bottleneck {
        Bottleneck { shape, free: None, draw: Draw(seed) }
    }

    /// `None` if it is lost: by chance, or because too much waits already.
    fn pass(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        if self.shape.loss > 0.0 && self.draw.unit() < self.shape.loss {
            return None;
        }
        let mut sent = now;
        if let Some(rate) = self.shape.rate {
            let begin = self.free.map_or(now, |free| free.max(now));
            let waiting = begin.saturating_duration_since(now).as_secs_f64() * rate / 8.0;
            if waiting + bytes as f64 > WAITING_BYTES_MAX {
                return None;
            }
            sent = begin + Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
            self.free = Some(sent);
        }
        Some(sent + self.shape.round_trip / 2)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_bottleneck_takes_its_time_and_loses_what_is_too_much() {
        let second = Duration::from_secs(1);
        let now = Instant::now();
        let shape = Shape { round_trip: second, rate: Some(8_000.0), loss: 0.0 };
        let mut line = Bottleneck::new(shape, 1);
        assert_eq!(line.pass(1000, now), Some(now + second + second / 2));
        assert_eq!(line.pass(1000, now), Some(now + second * 2 + second / 2), "behind the first");
        let later = now + second * 10;
        assert_eq!(line.pass(1000, later), Some(later + second + second / 2), "all has been sent");
        let passed = (0..1000).filter(|_| line.pass(1000, later).is_some()).count();
        assert_eq!(passed, 261, "256 KiB wait");
    }

    #[test]
    fn as_many_are_lost_as_was_said() {
        let mut line = Bottleneck::new(Shape { loss: 0.1, ..Shape::default() }, 1);
        let lost = (0..10_000).filter(|_| line.pass(100, Instant::now()).is_none()).count();
        assert!((900..1100).contains(&lost), "{lost}");
    }

    /// Needs what the module needs; says so where that is missing.
    #[test]
    fn a_connection_over_it_takes_its_round_trips_and_loses_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let round_trip = Duration::from_millis(60);
            let mut line = match Line::open(Shape { round_trip, rate: None, loss: 0.01 }) {
                Ok(line) => line,
                Err(error) => {
                    return eprintln!("no packets can be delayed here ({error}): nothing was tested");
                }
            };
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = server.local_addr().unwrap();
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = server.accept().await.unwrap();
                    tokio::spawn(async move {
                        let mut asked = [0; 4];
                        while stream.read_exact(&mut asked).await.is_ok() {
                            stream.write_all(&vec![asked[0]; 300_000]).await.unwrap();
                        }
                    });
                }
            });
            for (address, trips) in
                [(line.forward(target).unwrap(), 2), (line.forward_beside(target).unwrap(), 0)]
            {
                let begin = Instant::now();
                let near = line.near();
                let stream = device::within(&near, || std::net::TcpStream::connect(address)).unwrap();
                stream.set_nonblocking(true).unwrap();
                let mut stream = TcpStream::from_std(stream).unwrap();
                for number in [1, 2] {
                    stream.write_all(&[number; 4]).await.unwrap();
                    let mut answer = vec![0; 300_000];
                    stream.read_exact(&mut answer).await.unwrap();
                    assert!(answer.iter().all(|byte| *byte == number));
                }
                // The handshake, and two exchanges of which the first has to open its window; never sooner.
                assert!(begin.elapsed() >= round_trip * trips * 2, "{:?}", begin.elapsed());
            }
        });
    }
}
