//! The shop: what is true. Every body follows from its page and version, so whoever gets one can say whether it is right; the origin
//! gives them out and counts how often it is asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_RANGE, COOKIE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, SET_COOKIE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::Watched;
use crate::draw::Draw;

/// Pages that prices stand on, and large files.
pub(super) const PAGES: usize = 120;
pub(super) const FILES: usize = 6;
/// What the origin may be asked, by all nodes together.
pub(super) const REQUESTS_PER_SECOND: usize = 80;
/// One in so many of the origin's answers takes up to 300 ms.
const SLOW_ONE_IN: u64 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// What everybody gets alike, until its version changes.
    Product(usize),
    /// The same, of some MiB, of which parts are asked for.
    File(usize),
    /// What a visitor alone gets: by a cookie, with an answer that is private.
    Account,
    /// By a cookie, with an answer that says it may be kept, but sets one.
    Basket,
    /// By Authorization.
    Orders,
}

impl Page {
    pub(super) fn path(self) -> String {
        match self {
            Page::Product(number) => format!("/p/{number}"),
            Page::File(number) => format!("/f/{number}"),
            Page::Account => "/account".to_owned(),
            Page::Basket => "/basket".to_owned(),
            Page::Orders => "/orders".to_owned(),
        }
    }

    fn of(path: &str) -> Option<Page> {
        let number = |prefix, end| {
            let number = path.strip_prefix(prefix)?.parse::<usize>().ok()?;
            (number < end).then_some(number)
        };
        match path {
            "/account" => Some(Page::Account),
            "/basket" => Some(Page::Basket),
            "/orders" => Some(Page::Orders),
            _ => number("/p/", PAGES).map(Page::Product).or_else(|| number("/f/", FILES).map(Page::File)),
        }
    }

    /// Where its versions are counted; nowhere for what is a visitor's own.
    pub(super) fn index(self) -> Option<usize> {
        match self {
            Page::Product(number) => Some(number),
            Page::File(number) => Some(PAGES + number),
            Page::Account | Page::Basket | Page::Orders => None,
        }
    }

    /// Of the things that have versions, the one with this index.
    pub(super) fn versioned(index: usize) -> Page {
        match index.checked_sub(PAGES) {
            None => Page::Product(index),
            Some(number) => Page::File(number),
        }
    }

    /// Bytes of its body, of whatever version.
    pub(super) fn length(self) -> usize {
        match self {
            Page::Product(number) => 300 + number * number * 7 % 40_000,
            Page::File(number) => 1_500_000 + number * 700_001,
            Page::Account | Page::Basket | Page::Orders => 400,
        }
    }

    /// Bytes of its body, of a version or for a visitor.
    pub(super) fn body(self, version: u64, range: Range<usize>) -> Vec<u8> {
        let mut head = String::with_capacity(64);
        let _ = writeln!(head, "{} {version}", self.path());
        let seed = self.index().unwrap_or(1_000) as u64 * 1_000_003 + version;
        let mut bytes = Vec::with_capacity(range.len() + 8);
        // Eight letters follow from where they are, so that a part can be made without what is before it.
        let mut word = range.start / 8;
        while bytes.len() < range.len() + range.start % 8 {
            let mixed = Draw(seed.wrapping_add(word as u64 * 0x1_0000_0001)).next();
            bytes.extend(mixed.to_le_bytes().map(|byte| b'a' + byte % 26));
            word += 1;
        }
        bytes.drain(..range.start % 8);
        bytes.truncate(range.len());
        for (byte, place) in head.bytes().zip(0..) {
            if range.contains(&place) {
                bytes[place - range.start] = byte;
            }
        }
        bytes
    }
}

/// The version that a validator names.
pub(super) fn version_of(headers: &HeaderMap) -> Option<u64> {
    let tag = headers.get(ETAG)?.to_str().ok()?;
    // A copy that was encoded has another validator; visitors here ask for none.
    tag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok()
}

/// How the origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Well,
    /// It answers with 500.
    Fails,
    /// It takes requests, and answers none while it is so.
    Silent,
}

/// What is so at the origin.
pub(super) struct Shop {
    /// The version that is given out.
    pub(super) versions: Vec<AtomicU64>,
    pub(super) asked: AtomicU64,
    pub(super) manner: Mutex<Manner>,
    arrivals: Mutex<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    last: VecDeque<Instant>,
    /// The most within a second.
    most: usize,
}

impl Shop {
    pub(super) fn new() -> Shop {
        Shop {
            versions: (0..PAGES + FILES).map(|_| AtomicU64::new(1)).collect(),
            asked: AtomicU64::new(0),
            manner: Mutex::new(Manner::Well),
            arrivals: Mutex::default(),
        }
    }

    /// The most requests that came within a second so far.
    pub(super) fn most_in_a_second(&self) -> usize {
        self.arrivals.lock().most
    }

    /// Takes note of a request. How many came within the last second, of `SECOND - late`: a machine that is late by so much puts
    /// together what was apart.
    fn arrived(&self, late: Duration) -> usize {
        let now = Instant::now();
        let mut arrivals = self.arrivals.lock();
        arrivals.last.push_back(now);
        while arrivals.last.front().is_some_and(|first| now - *first >= SECOND.saturating_sub(late)) {
            arrivals.last.pop_front();
        }
        let count = arrivals.last.len();
        arrivals.most = arrivals.most.max(count);
        count
    }
}

/// Answers for the shop until the runtime ends.
pub(super) async fn serve(world: Arc<Watched>, listener: TcpListener) {
    let seed = Arc::new(AtomicU64::new(world.seed));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (world, seed) = (world.clone(), seed.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let world = world.clone();
                let drawn = Draw(seed.fetch_add(1, Ordering::Relaxed)).next();
                async move { Ok::<_, Infallible>(give(&world, &request, drawn).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The version is read first and sent last: what lies between is the time in which a purge may come.
async fn give(world: &Watched, request: &Request<Incoming>, drawn: u64) -> Response<Full<Bytes>> {
    let shop = &world.shop;
    shop.asked.fetch_add(1, Ordering::Relaxed);
    let count = shop.arrived(world.late());
    if count > REQUESTS_PER_SECOND {
        world.violation("budget", || {
            format!("the origin had {count} requests within a second of {REQUESTS_PER_SECOND}")
        });
    }
    while *shop.manner.lock() == Manner::Silent {
        sleep(Duration::from_millis(50)).await;
    }
    if *shop.manner.lock() == Manner::Fails {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let Some(page) = Page::of(request.uri().path()) else { return status(StatusCode::NOT_FOUND) };
    let headers = request.headers();
    let version = match page.index() {
        Some(index) => shop.versions[index].load(Ordering::SeqCst),
        None => match visitor_of(headers) {
            Some(visitor) => visitor,
            None => return status(StatusCode::FORBIDDEN),
        },
    };
    if drawn.is_multiple_of(SLOW_ONE_IN) {
        sleep(Duration::from_millis(drawn / 7 % 300)).await;
    }
    let tag = format!("\"v{version}\"");
    let response = Response::builder().header(ETAG, &tag).header("content-type", "text/plain");
    let response = match page {
        Page::Product(number) => {
            response.header(CACHE_CONTROL, "max-age=86400").header("surrogate-key", format!("p{number} all"))
        }
        Page::File(number) => {
            response.header(CACHE_CONTROL, "max-age=86400").header("surrogate-key", format!("f{number} all"))
        }
        Page::Account => response.header(CACHE_CONTROL, "private, max-age=600"),
        Page::Basket => {
            response.header(CACHE_CONTROL, "max-age=600").header(SET_COOKIE, format!("basket={version}"))
        }
        Page::Orders => response.header(CACHE_CONTROL, "max-age=600"),
    };
    let is_same = |name| headers.get(name).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    if page.index().is_some() && is_same(IF_NONE_MATCH) {
        return response.status(StatusCode::NOT_MODIFIED).body(Full::default()).unwrap_or_default();
    }
    let length = page.length();
    let range =
        headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| range_of(text, length));
    match range.filter(|_| !headers.contains_key(IF_RANGE) || is_same(IF_RANGE)) {
        Some(range) => {
            let content = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, content);
            response.body(Full::from(page.body(version, range))).unwrap_or_default()
        }
        None => response.body(Full::from(page.body(version, 0..length))).unwrap_or_default(),
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Who asks, by cookie or credentials.
fn visitor_of(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let by_cookie = text(COOKIE).and_then(|value| value.strip_prefix("visitor="));
    by_cookie.or_else(|| text(AUTHORIZATION)?.strip_prefix("Bearer "))?.parse().ok()
}

/// `bytes=3-9`, `bytes=3-`; nothing else is asked for.
fn range_of(text: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse::<usize>().ok().filter(|first| *first < length)?;
    let end =
        if last.is_empty() { length } else { last.parse::<usize>().ok()?.saturating_add(1).min(length) };
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_body_is_what_the_whole_has_there_and_versions_differ() {
        for page in [Page::Product(3), Page::File(2), Page::Account] {
            let whole = page.body(7, 0..page.length());
            assert_eq!(whole.len(), page.length());
            for (start, end) in [(0, 1), (0, 64), (3, 21), (8, 16), (100, 300), (17, 18)] {
                assert_eq!(page.body(7, start..end), whole[start..end], "{page:?} {start}..{end}");
            }
            assert_ne!(whole, page.body(8, 0..page.length()));
        }
    }
}
