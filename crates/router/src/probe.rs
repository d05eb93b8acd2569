//! Asks each edge on its service port whether it lives.
//!
//! One task per address, at its own pace; what it sees goes through a channel to whoever keeps the [`Sight`](crate::health::Sight)s.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::routing::{ProbeKind, ProbeSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// What was seen of an edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) edge: IpAddr,
    pub(crate) good: bool,
    /// How long it took to connect, in µs: a packet to it and its answer, and what this machine was busy with; of hundreds, the least
    /// is without the latter. `None` unless it was good.
    pub(crate) rtt_us: Option<u32>,
}

/// Who is probed, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Targets {
    pub(crate) edges: Vec<IpAddr>,
    pub(crate) settings: ProbeSettings,
}

/// Probes whoever is to be probed, until nobody says any more who that is.
pub(crate) async fn probe_all(
    mut targets: tokio::sync::watch::Receiver<Targets>,
    seen: tokio::sync::mpsc::Sender<Seen>,
) {
    loop {
        let now = targets.borrow_and_update().clone();
        let mut watchers = JoinSet::new();
        if now.settings.kind != ProbeKind::Off {
            for edge in now.edges {
                watchers.spawn(watch(edge, now.settings, seen.clone()));
            }
        }
        // Dropping the set ends its tasks; a probe that is cut off has seen nothing.
        if targets.changed().await.is_err() {
            return;
        }
    }
}

/// Probes of one edge under way at a time. The next one doesn't wait for one that gets no answer, or a dead edge would be
/// noticed later than a refusing one.
const PROBES_MAX: usize = 4;

/// Probes `edge` until nobody listens any more.
async fn watch(edge: IpAddr, settings: ProbeSettings, seen: tokio::sync::mpsc::Sender<Seen>) {
    // Edges are not all asked at the same instant.
    let offset = (settings.interval.as_millis() * u128::from(hash(edge))) >> 64;
    let mut next = Instant::now() + Duration::from_millis(offset as u64);
    // Dropped with this task, which ends them.
    let mut probes = JoinSet::new();
    while !seen.is_closed() {
        sleep_until(next).await;
        while probes.try_join_next().is_some() {}
        if probes.len() >= PROBES_MAX {
            probes.join_next().await;
        }
        let seen = seen.clone();
        probes.spawn(async move {
            let rtt = timeout(settings.timeout, probe(edge, &settings)).await.ok().flatten();
            let rtt_us = rtt.map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
            // Nobody listens any more: this task is about to end.
            _ = seen.send(Seen { edge, good: rtt.is_some(), rtt_us }).await;
        });
        next = (next + settings.interval).max(Instant::now());
    }
}

fn hash(edge: IpAddr) -> u64 {
    let number = match edge {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    (number as u64 ^ (number >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How long it took to connect, if the edge is well.
async fn probe(edge: IpAddr, settings: &ProbeSettings) -> Option<Duration> {
    let address = SocketAddr::new(edge, settings.port);
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await.ok()?;
    let rtt = began.elapsed();
    match settings.kind {
        ProbeKind::Tcp | ProbeKind::Off => return Some(rtt),
        ProbeKind::Http => {}
    }
    // By its address, so that no site's origin is asked: it is the edge that is looked at.
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: perigee-router\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.ok()?;
    // `HTTP/1.1 404`: whatever it says, it says something, unless it is that it can't.
    (line.starts_with(b"HTTP/1.") && matches!(line[9], b'1'..=b'4')).then_some(rtt)
}
