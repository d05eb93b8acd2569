//! From an origin's name to a byte stream: resolve, connect to the first address that answers, TLS. Called by
//! [`super::pool`] when no kept connection fits, and by the prober.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{FetchError, FetchErrorKind, Sent};
use super::shared::{Counted, Gauge};
use crate::tcp_info;

/// How long the addresses of a name are believed. The system's resolver does not tell a record's own TTL.
const FOUND_TTL: Duration = Duration::from_secs(30);

/// How long a failed look-up is believed when there are no earlier addresses.
const FAILED_TTL: Duration = Duration::from_secs(2);

/// For how long addresses are still used when the resolver fails: an outage of DNS must not become one of the site.
const STALE_MAX: Duration = Duration::from_secs(600);

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A further address is tried when the one before has not answered for this long (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

// --- Names ---

/// The resolved names of one worker: those of the configuration, and of earlier ones until their addresses are of no use.
#[derive(Default)]
pub(super) struct Names {
    known: RefCell<HashMap<(Box<str>, u16), OneAtATime>>,
}

/// A name's addresses, locked by whoever looks them up.
type OneAtATime = Rc<Mutex<Known>>;

#[derive(Default)]
struct Known {
    addresses: Rc<[SocketAddr]>,
    error: Option<String>,
    found_at: Option<Instant>,
    good_until: Option<Instant>,
}

impl Names {
    /// The addresses of `host`, in the resolver's order (RFC 6724). Concurrent callers wait for one look-up.
    async fn resolve(&self, host: &str, port: u16) -> Result<Rc<[SocketAddr]>, FetchError> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok([SocketAddr::new(address, port)].into());
        }
        let known = self.known(host, port, Instant::now());
        let mut known = known.lock().await;
        let now = Instant::now();
        if known.good_until.is_none_or(|until| until <= now) {
            known.refresh(tokio::net::lookup_host((host, port)).await, now);
        }
        match &known.error {
            None => Ok(known.addresses.clone()),
            Some(error) => Err(FetchError::new(FetchErrorKind::Resolve, Sent::Nothing, error)),
        }
    }

    fn known(&self, host: &str, port: u16, now: Instant) -> OneAtATime {
        let mut names = self.known.borrow_mut();
        let name = (host.into(), port);
        if !names.contains_key(&name) {
            let is_of_use = |known: &Known| known.good_until.is_some_and(|until| now < until + STALE_MAX);
            names.retain(|_, one| {
                one.try_lock().map_or(true, |known| Rc::strong_count(one) > 1 || is_of_use(&known))
            });
        }
        names.entry(name).or_default().clone()
    }
}

impl Known {
    fn refresh(&mut self, found: io::Result<impl Iterator<Item = SocketAddr>>, now: Instant) {
        let error = match found.map(|found| found.take(ADDRESSES_MAX).collect::<Rc<[_]>>()) {
            Ok(addresses) if !addresses.is_empty() => {
                let good_until = Some(now + FOUND_TTL);
                *self = Known { addresses, error: None, found_at: Some(now), good_until };
                return;
            }
            Ok(_) => "the name has no address".to_string(),
            Err(error) => format!("the name does not resolve: {error}"),
        };
        self.good_until = Some(now + FAILED_TTL);
        if self.found_at.is_none_or(|at| now.duration_since(at) > STALE_MAX) {
            self.error = Some(error);
        }
    }
}

// --- Connections ---

/// Where to connect to, and how.
pub(super) struct Endpoint<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// From where: the one of the address's family, else the system chooses.
    pub(super) sources: &'a [IpAddr],
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Resolves, connects, shakes hands; counted in `open` until it is closed. The caller bounds the time.
pub(super) async fn connect(names: &Names, endpoint: Endpoint<'_>, open: &Gauge) -> Result<Wire, FetchError> {
    let addresses = names.resolve(endpoint.host, endpoint.port).await?;
    let tcp = dial(&addresses, endpoint.sources)
        .await
        .map_err(|error| FetchError::new(FetchErrorKind::Connect, Sent::Nothing, error))?;
    // Latency matters more than a few packets; the writers above hand over whole heads and chunks.
    let _ = tcp.set_nodelay(true);
    let socket = tcp.as_raw_fd();
    let stream = match endpoint.tls {
        None => Stream::Plain(tcp),
        Some((config, name)) => {
            let stream = TlsConnector::from(config)
                .connect(name, tcp)
                .await
                .map_err(|error| FetchError::new(FetchErrorKind::Tls, Sent::Nothing, error))?;
            Stream::Tls(Box::new(stream))
        }
    };
    Ok(Wire { stream, meter: Arc::new(Meter::new(socket)), is_deaf: false, _open: open.count() })
}

/// Connects to the first of `addresses` that answers: the next one starts when the one before failed or took longer
/// than [`NEXT_ADDRESS_AFTER`]. The others are dropped.
async fn dial(addresses: &[SocketAddr], sources: &[IpAddr]) -> io::Result<TcpStream> {
    let from = |to: SocketAddr| {
        let source = sources.iter().find(|source| source.is_ipv4() == to.is_ipv4()).copied();
        connect_from(source, to)
    };
    if let [address] = addresses {
        return from(*address).await;
    }
    let mut rest = addresses.iter().copied().peekable();
    let mut tries = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = rest.next() {
            tries.spawn(from(address));
        }
        let next = match rest.peek() {
            Some(_) => match timeout(NEXT_ADDRESS_AFTER, tries.join_next()).await {
                Ok(next) => next,
                Err(_) => continue,
            },
            None => tries.join_next().await,
        };
        match next {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => return Err(last),
        }
    }
}

async fn connect_from(source: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(to).await };
    let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
        io::Error::new(error.kind(), format!("origin_source {source} cannot be used: {error}"))
    })?;
    socket.connect(to).await
}

/// A connection's bytes, counted: whether the origin has sent anything decides whether a request may be sent again.
///
/// Writing to it never fails because the origin has closed: it may have answered before (413 or 501 to an upload, RFC 9112
/// §9.5), and the library would throw that answer away, unread. What can no longer be written is dropped; reading tells
/// the end.
pub(super) struct Wire {
    stream: Stream,
    meter: Arc<Meter>,
    /// The origin takes nothing any more.
    is_deaf: bool,
    _open: Counted,
}

/// What is known of a connection without having it: bytes that it has carried, TLS not counted, and whether the origin's machine is there.
pub(super) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    /// Requests that were sent on it.
    asked: AtomicU64,
    /// Those of them whose answer's head is waited for.
    unanswered: AtomicU32,
    /// The number of the last one when something was given up on that may be on its way to the origin still; 0 when nothing is.
    given_up: AtomicU64,
    /// The open socket's number; [`CLOSED`] afterwards. All who look at it and who closes it are tasks of one thread.
    socket: AtomicI32,
}

const CLOSED: RawFd = -1;

impl Meter {
    fn new(socket: RawFd) -> Self {
        let (read, written, asked, unanswered, given_up) = Default::default();
        Meter { read, written, asked, unanswered, given_up, socket: AtomicI32::new(socket) }
    }

    /// A request is being sent.
    pub(super) fn asks(self: &Arc<Self>) -> Asked {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        Asked {
            number: self.asked.fetch_add(1, Ordering::Relaxed) + 1,
            is_answered: false,
            meter: self.clone(),
        }
    }

    /// Whether the origin may lack some of what was sent and is not wanted there any more, should the connection end now.
    fn owes(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > 0 || self.given_up.load(Ordering::Relaxed) > 0
    }

    /// Whether nothing of what was sent has been acknowledged for so long.
    pub(super) fn is_unheard(&self, within: Duration) -> bool {
        let socket = self.socket.load(Ordering::Relaxed);
        socket != CLOSED && tcp_info::is_unheard(&socket, within)
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// A request whose answer's head has not come. Dropped before that, it was given up on.
pub(super) struct Asked {
    meter: Arc<Meter>,
    number: u64,
    is_answered: bool,
}

impl Asked {
    /// The head of an answer has come. What is still on its way to the origin is wanted there: the rest of an upload, or what a tunnel
    /// carries. What had been given up on before this was asked has arrived, as bytes come in order.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
        if self.meter.given_up.load(Ordering::Relaxed) < self.number {
            self.meter.given_up.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.meter.unanswered.fetch_sub(1, Ordering::Relaxed);
        if !self.is_answered {
            self.meter.given_up.store(self.meter.asked.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether TLS agreed on HTTP/2 (ALPN, RFC 7301).
    pub(super) fn agreed_http2(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// What writing `length` bytes has come to.
    fn wrote(&mut self, polled: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Err(error)) if has_closed(&error) => {
                self.is_deaf = true;
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Ok(bytes)) => {
                self.meter.written.fetch_add(bytes as u64, Ordering::Relaxed);
                Poll::Ready(Ok(bytes))
            }
            other => other,
        }
    }
}

/// What was given up on is not to reach the origin when its line is mended or it reads again, by when nobody waits for it: the
/// kernel would go on sending what it still has.
impl Drop for Wire {
    fn drop(&mut self) {
        self.meter.socket.store(CLOSED, Ordering::Relaxed);
        let tcp = self.tcp();
        if self.meter.owes() && tcp_info::is_stuck(tcp) {
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Whether writing failed because the other side reads no more.
fn has_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        self.meter.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.wrote(polled, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(length));
        }
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.wrote(polled, length)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.wrote(polled.map_ok(|()| 0), 0).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_on_has_arrived_when_one_is_answered_that_was_asked_after_it() {
        let meter = Arc::new(Meter::new(CLOSED));
        let (given_up, before) = (meter.asks(), meter.asks());
        assert!(meter.owes());
        drop(given_up);
        before.answered();
        assert!(meter.owes(), "nothing says that it has arrived");
        let after = meter.asks();
        after.answered();
        assert!(!meter.owes());
        let (waits, answered) = (meter.asks(), meter.asks());
        answered.answered();
        assert!(meter.owes(), "one waits");
        waits.answered();
        assert!(!meter.owes());
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_outlive_a_failing_resolver_for_a_while() {
        let start = Instant::now();
        let none = || Err::<std::vec::IntoIter<SocketAddr>, _>(io::Error::other("no resolver"));
        let mut known = Known::default();
        known.refresh(none(), start);
        assert_eq!(known.error.as_deref(), Some("the name does not resolve: no resolver"));
        assert_eq!(known.good_until, Some(start + FAILED_TTL));

        known.refresh(Ok(vec![address("192.0.2.1:80")].into_iter()), start);
        assert_eq!((known.error.as_deref(), known.good_until), (None, Some(start + FOUND_TTL)));

        known.refresh(none(), start + FOUND_TTL);
        assert_eq!((known.error.as_deref(), &*known.addresses), (None, &[address("192.0.2.1:80")][..]));

        known.refresh(Ok(Vec::new().into_iter()), start + STALE_MAX + FOUND_TTL);
        assert_eq!(known.error.as_deref(), Some("the name has no address"));
    }

    #[test]
    fn names_of_earlier_configurations_are_forgotten() {
        let (names, start) = (Names::default(), Instant::now());
        let look_up = |name: &str, now| {
            let known = names.known(name, 80, now);
            let found = Ok(vec![address("192.0.2.1:80")].into_iter());
            known.try_lock().unwrap().refresh(found, now);
            known
        };
        drop(look_up("earlier", start));
        let held = look_up("held", start);
        drop(look_up("current", start + STALE_MAX));
        assert_eq!(names.known.borrow().len(), 3, "addresses of use while the resolver fails stay");
        drop(look_up("new", start + FOUND_TTL + STALE_MAX));
        let mut left: Vec<_> = names.known.borrow().keys().map(|(name, _)| name.to_string()).collect();
        left.sort();
        assert_eq!(left, ["current", "held", "new"]);
        drop(held);
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let listen = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let refusing = listen().await.unwrap().local_addr().unwrap();
        let listening = listen().await.unwrap();
        let address = listening.local_addr().unwrap();
        let stream = dial(&[refusing, refusing, address], &[]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert_eq!(
            dial(&[refusing, refusing], &[]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert!(dial(&[], &[]).await.is_err());
    }

    #[tokio::test]
    async fn connections_come_from_the_address_of_their_family() {
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listening.local_addr().unwrap();
        let source: IpAddr = "127.83.0.9".parse().unwrap();
        let stream = dial(&[to], &["2001:db8::9".parse().unwrap(), source]).await.unwrap();
        assert_eq!(listening.accept().await.unwrap().1, stream.local_addr().unwrap());
        assert_eq!(stream.local_addr().unwrap().ip(), source);

        // An address of nobody here (RFC 5737).
        let error = dial(&[to], &["192.0.2.9".parse().unwrap()]).await.unwrap_err();
        assert!(error.to_string().contains("origin_source 192.0.2.9 cannot be used"), "{error}");
    }
}
