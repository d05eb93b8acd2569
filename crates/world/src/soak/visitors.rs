//! Visitors: each asks the routers for addresses as a resolver would for its network, keeps them for as long as it may, beginning at any of
//! them, as resolvers change the order, and looks at all that it gets. Like a browser, it stays with a connection while these addresses are good, asks anew on
//! another one when that breaks or falls silent before an answer, and at the next address when one cannot be reached. Whoever takes its connection and
//! then says nothing has not answered. Then it gives up, and tries again after a second, and then every five, as pages of errors reload themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_RANGE, COOKIE, HOST, RANGE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::{DOMAIN, FILES, PAGES, TRIED, Watched};
use crate::draw::Draw;
use crate::shop::{Page, version_of};

/// The name that the routers answer for.
const NAME: &[u8] = b"\x04shop\x03cdn\x07example\0";
/// How long a resolver waits for a nameserver before it asks the next.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(1);
/// How long a visitor waits for a connection, and for an answer with all of its body.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(15);
/// Mean time between a visitor's requests.
const PAUSE_MS: usize = 150;

/// How long it waits when it was not answered once, and when not for the second time and more.
const RELOADS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// A visitor.
struct Visitor {
    world: Arc<Watched>,
    number: u64,
    draw: Draw,
    /// Where the shop is, and until when that is so.
    resolved: Option<(Vec<SocketAddr>, Instant)>,
    kept: Option<(SocketAddr, SendRequest<Full<Bytes>>)>,
    /// Requests without an answer in a row.
    failures: usize,
}

/// Whom it asks, and the oldest version that may be answered.
#[derive(Clone, Copy)]
struct Asked {
    edge: usize,
    floor: u64,
}

/// Visits the shop until all is over.
pub(super) async fn visit(world: Arc<Watched>, number: u64) {
    let draw = Draw(world.seed ^ (number + 1).wrapping_mul(0x1234_5678_9abc_def1));
    let mut visitor = Visitor { world, number, draw, resolved: None, kept: None, failures: 0 };
    while !visitor.world.is_over() {
        visitor.browse().await;
        let pause = Duration::from_millis(1 + visitor.draw.below(2 * PAUSE_MS) as u64);
        sleep(match visitor.failures {
            0 => pause,
            failures => RELOADS[failures.min(RELOADS.len()) - 1],
        })
        .await;
    }
}

impl Visitor {
    async fn browse(&mut self) {
        let page = match self.draw.below(100) {
            // What is popular is asked for more often.
            0..78 => Page::Product(self.draw.below(PAGES).min(self.draw.below(PAGES))),
            78..85 => Page::File(self.draw.below(FILES)),
            85..90 => Page::Account,
            90..95 => Page::Basket,
            _ => Page::Orders,
        };
        let range = match page {
            Page::File(_) if !self.draw.next().is_multiple_of(8) => {
                let length = self.world.shop.length(page);
                let start = self.draw.below(length - 1);
                Some(start..(start + 1 + self.draw.below(60_000)).min(length))
            }
            _ => None,
        };
        let began = self.world.visit_begins();
        let version = self.world.shop.newest(page);
        let mut asked = self.ask(page, range.clone()).await;
        if asked.is_err() && self.world.shop.newest(page) != version {
            // What had come of a long body cannot be gone on with when there is another by now: it is asked for anew.
            asked = self.ask(page, range).await;
        }
        self.failures = if asked.is_ok() { 0 } else { self.failures + 1 };
        if let Err(why) = &asked {
            self.kept = None;
            self.world.say(|| format!("visitor {} did not get {}: {why}", self.number, page.path()));
        }
        self.world.visit_ends(&began, asked.as_ref().err().map(String::as_str), page);
    }

    async fn ask(&mut self, page: Page, range: Option<Range<usize>>) -> Result<(), String> {
        let addresses = self.resolve().await?;
        let kept = self.kept.take().filter(|(at, sender)| addresses.contains(at) && !sender.is_closed());
        if let Some((address, sender)) = kept {
            let asked = self.asked(address, page)?;
            if let Ok(response) = self.send(address, sender, page, range.as_ref()).await {
                return self.take(asked, page, range.as_ref(), response).await;
            }
        }
        let mut why = String::new();
        for address in addresses {
            let asked = self.asked(address, page)?;
            let name = self.world.edges[asked.edge].name.clone();
            match connect(address).await {
                Err(error) => why = format!("{name}: {error}"),
                Ok(sender) => {
                    let response = self.send(address, sender, page, range.as_ref()).await;
                    let response = response.map_err(|error| format!("{name}: {error}"))?;
                    return self.take(asked, page, range.as_ref(), response).await;
                }
            }
        }
        Err(why)
    }

    fn asked(&self, address: SocketAddr, page: Page) -> Result<Asked, String> {
        let edge = self.world.edge_at(address.ip()).ok_or_else(|| format!("{address} is no edge's"))?;
        let floor = self.world.shop.index(page).map_or(0, |index| self.world.floor(edge, index));
        Ok(Asked { edge, floor })
    }

    /// The head of an answer on this connection, which is kept.
    async fn send(
        &mut self,
        address: SocketAddr,
        mut sender: SendRequest<Full<Bytes>>,
        page: Page,
        range: Option<&Range<usize>>,
    ) -> Result<Response<Incoming>, String> {
        let answered = timeout(PATIENCE, sender.send_request(self.request(page, range)?)).await;
        let response = answered.map_err(|_| "no answer in time")?.map_err(|error| error.to_string())?;
        self.kept = Some((address, sender));
        Ok(response)
    }

    /// Looks at an answer, with all of its body.
    async fn take(
        &self,
        asked: Asked,
        page: Page,
        range: Option<&Range<usize>>,
        response: Response<Incoming>,
    ) -> Result<(), String> {
        let name = &self.world.edges[asked.edge].name;
        let (head, body) = response.into_parts();
        let body =
            timeout(PATIENCE, body.collect()).await.map_err(|_| format!("{name}: the body stands still"))?;
        let body = body.map_err(|error| format!("{name}: a broken body: {error}"))?.to_bytes();
        self.look(asked, page, range, head.status, &head.headers, &body)
    }

    fn request(&self, page: Page, range: Option<&Range<usize>>) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().uri(page.path()).header(HOST, DOMAIN);
        request = match page {
            Page::Orders => request.header("authorization", format!("Bearer {}", self.number)),
            _ => request.header(COOKIE, format!("visitor={}", self.number)),
        };
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        request.body(Full::default()).map_err(|error| error.to_string())
    }

    /// Looks at an answer from an edge. The error is what a visitor would complain of; what must never be is a violation.
    fn look(
        &self,
        Asked { edge, floor }: Asked,
        page: Page,
        range: Option<&Range<usize>>,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), String> {
        let (world, name) = (&self.world, &self.world.edges[edge].name);
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let told = || {
            let lines = headers.get_all("cache-status").iter().filter_map(|value| value.to_str().ok());
            lines.collect::<Vec<_>>().join(", ")
        };
        if let Ok(number) = text(TRIED).parse::<u64>() {
            world.runs(edge, number);
        }
        let (shop, length) = (&world.shop, world.shop.length(page));
        let range = match (status, range) {
            (StatusCode::OK, _) => 0..length,
            (StatusCode::PARTIAL_CONTENT, Some(range)) => range.clone(),
            _ => return Err(format!("{name}: answered {status} ({})", told())),
        };
        if status == StatusCode::PARTIAL_CONTENT {
            let wanted = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            if text(CONTENT_RANGE.as_str()) != wanted {
                world.violation("bytes", || {
                    format!("{name}: {wanted} of {} is {}", page.path(), text(CONTENT_RANGE.as_str()))
                });
            }
        }
        let Some(version) = version_of(headers) else {
            world.violation("bytes", || {
                format!("{name}: {} has lost its validator: {headers:?}", page.path())
            });
            return Ok(());
        };
        match shop.newest(page) {
            None if version != self.number => world.violation("private", || {
                format!("{name}: visitor {} got {} of {version} ({})", self.number, page.path(), told())
            }),
            None => {}
            Some(newest) => {
                if version < floor {
                    world.violation("purged", || {
                        let path = page.path();
                        format!("{name}: {path} at version {version}, purged up to {floor} ({})", told())
                    });
                }
                if version > newest {
                    world.violation("bytes", || {
                        format!("{name}: {} at version {version}, which is not before {newest}", page.path())
                    });
                }
            }
        }
        if body != shop.part(page, version, range.clone()) {
            world.violation("bytes", || {
                let wanted = shop.part(page, version, range.clone());
                let first = body.iter().zip(&wanted).position(|(one, other)| one != other);
                format!(
                    "{name}: {} at version {version}, bytes {range:?}: {} bytes of {}, which differ first at {first:?} ({})",
                    page.path(), body.len(), wanted.len(), told()
                )
            });
        }
        Ok(())
    }

    // --- DNS ---

    /// Where the shop is. What was known is used when no nameserver answers (RFC 8767).
    async fn resolve(&mut self) -> Result<Vec<SocketAddr>, String> {
        if let Some((addresses, until)) = &self.resolved
            && Instant::now() < *until
        {
            return Ok(addresses.clone());
        }
        let routers = self.world.routers.clone();
        let first = self.draw.below(routers.len());
        for turn in 0..routers.len() {
            let router = routers[(first + turn) % routers.len()];
            let asked = timeout(RESOLVER_PATIENCE, self.query(router)).await;
            if let Ok(Ok(Some((addresses, ttl)))) = asked {
                let port = self.world.service_port;
                let mut addresses: Vec<_> =
                    addresses.into_iter().map(|address| SocketAddr::new(IpAddr::V4(address), port)).collect();
                let begin = self.draw.below(addresses.len());
                addresses.rotate_left(begin);
                // Who comes again after a while has no connection.
                self.kept = None;
                self.resolved = Some((addresses.clone(), Instant::now() + ttl));
                return Ok(addresses);
            }
        }
        match &self.resolved {
            Some((addresses, _)) => Ok(addresses.clone()),
            None => Err("no nameserver answers".to_owned()),
        }
    }

    /// Asks as a resolver that names the visitor's network (RFC 7871): a /24 of each one's own.
    async fn query(&mut self, router: SocketAddr) -> std::io::Result<Option<(Vec<Ipv4Addr>, Duration)>> {
        let mut query = Vec::from((self.draw.next() as u16).to_be_bytes());
        query.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        query.extend(NAME);
        query.extend([0, 1, 0, 1]);
        // OPT with one option: client subnet, IPv4, 24 bits.
        query.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
        query.extend([203, 0, self.number as u8]);
        let socket = UdpSocket::bind((self.world.hub, 0)).await?;
        socket.connect(router).await?;
        socket.send(&query).await?;
        let mut answer = [0; 1_232];
        let count = socket.recv(&mut answer).await?;
        Ok(addresses_in(&answer[..count], &query[..2]))
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| "no connection in time")?.map_err(|error| error.to_string())?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(driver);
    Ok(sender)
}

/// The addresses in an answer to a question for `NAME` with this id, and for how long they are good.
fn addresses_in(answer: &[u8], id: &[u8]) -> Option<(Vec<Ipv4Addr>, Duration)> {
    if answer.get(..2)? != id || answer.get(3)? & 0xf != 0 {
        return None;
    }
    let count = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let mut rest = answer.get(12 + NAME.len() + 4..)?;
    let (mut addresses, mut ttl) = (Vec::new(), u32::MAX);
    for _ in 0..count {
        // The owner is a pointer to the question.
        let [_, _, 0, 1, 0, 1, a, b, c, d, 0, 4, e, f, g, h] = *rest.first_chunk::<16>()? else {
            return None;
        };
        addresses.push(Ipv4Addr::new(e, f, g, h));
        ttl = ttl.min(u32::from_be_bytes([a, b, c, d]));
        rest = &rest[16..];
    }
    (!addresses.is_empty()).then_some((addresses, Duration::from_secs(ttl.into())))
}
