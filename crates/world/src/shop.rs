//! A shop, and what is true in it. Every body follows from its page and version, so whoever gets one can say whether it is right; its origin
//! gives them out, is slow at times, so that fills are in flight while a purge arrives, and counts how often it is asked.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

use crate::draw::Draw;

/// One in so many of the origin's answers takes up to 300 ms.
const SLOW_ONE_IN: u64 = 20;

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
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
    /// Where it is.
    pub fn path(self) -> String {
        match self {
            Page::Product(number) => format!("/p/{number}"),
            Page::File(number) => format!("/f/{number}"),
            Page::Account => "/account".to_owned(),
            Page::Basket => "/basket".to_owned(),
            Page::Orders => "/orders".to_owned(),
        }
    }

    fn of(path: &str) -> Option<Page> {
        let number = |prefix| path.strip_prefix(prefix)?.parse::<usize>().ok();
        match path {
            "/account" => Some(Page::Account),
            "/basket" => Some(Page::Basket),
            "/orders" => Some(Page::Orders),
            _ => number("/p/").map(Page::Product).or_else(|| number("/f/").map(Page::File)),
        }
    }

    /// Its surrogate key, beside that of all.
    pub fn tag(self) -> String {
        self.path().replace('/', "")
    }

    /// What its bytes follow from, beside its version.
    fn seed(self) -> u64 {
        match self {
            Page::Product(number) => number as u64,
            Page::File(number) => (1 << 32) + number as u64,
            Page::Account | Page::Basket | Page::Orders => 1 << 33,
        }
    }
}

/// The version that a validator names.
pub fn version_of(headers: &HeaderMap) -> Option<u64> {
    let tag = headers.get(ETAG)?.to_str().ok()?;
    // A copy that was encoded has another validator; visitors here ask for none.
    tag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok()
}

/// How the origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It answers.
    Well,
    /// It answers with 500.
    Fails,
    /// It takes requests, and answers none while it is so.
    Silent,
}

/// What is so at the origin.
pub struct Shop {
    products: usize,
    /// The longest product's page is shorter by 300 bytes.
    product_bytes: usize,
    /// The version that is given out, of each page that has versions: of products, then of files.
    pub versions: Vec<AtomicU64>,
    /// Requests so far.
    pub asked: AtomicU64,
    /// How it is just now.
    pub manner: Mutex<Manner>,
}

impl Shop {
    /// With so many products, whose pages have 300 bytes and up to `product_bytes` more, and so many files, of 1.5 MB and more.
    pub fn new(products: usize, product_bytes: usize, files: usize) -> Shop {
        Shop {
            products,
            product_bytes,
            versions: (0..products + files).map(|_| AtomicU64::new(1)).collect(),
            asked: AtomicU64::new(0),
            manner: Mutex::new(Manner::Well),
        }
    }

    /// Where a page's versions are counted; nowhere for what is a visitor's own.
    pub fn index(&self, page: Page) -> Option<usize> {
        match page {
            Page::Product(number) => Some(number),
            Page::File(number) => Some(self.products + number),
            Page::Account | Page::Basket | Page::Orders => None,
        }
    }

    /// Of the pages that have versions, the one with this index.
    pub fn versioned(&self, index: usize) -> Page {
        match index.checked_sub(self.products) {
            None => Page::Product(index),
            Some(number) => Page::File(number),
        }
    }

    /// The newest version of a page; none of what is a visitor's own.
    pub fn newest(&self, page: Page) -> Option<u64> {
        self.index(page).map(|index| self.versions[index].load(Ordering::SeqCst))
    }

    /// Another version of the page with this index, which is given out from now on.
    pub fn change(&self, index: usize) -> u64 {
        self.versions[index].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether there is such a page.
    fn has(&self, page: Page) -> bool {
        match page {
            Page::Product(number) => number < self.products,
            Page::File(number) => number < self.versions.len() - self.products,
            Page::Account | Page::Basket | Page::Orders => true,
        }
    }

    /// Bytes of a page's body, of whatever version.
    pub fn length(&self, page: Page) -> usize {
        match page {
            Page::Product(number) => 300 + number * number * 7 % self.product_bytes,
            Page::File(number) => 1_500_000 + number * 700_001,
            Page::Account | Page::Basket | Page::Orders => 400,
        }
    }

    /// The whole body of a page, of a version or for a visitor.
    pub fn body(&self, page: Page, version: u64) -> Vec<u8> {
        self.part(page, version, 0..self.length(page))
    }

    /// Some of its bytes.
    pub fn part(&self, page: Page, version: u64, range: Range<usize>) -> Vec<u8> {
        let mut head = String::with_capacity(64);
        let _ = writeln!(head, "{} {version}", page.path());
        let seed = page.seed().wrapping_mul(1_000_003).wrapping_add(version);
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

/// Answers for the shop until the runtime ends; `asked` is called with who has sent each request. What is slow follows from the seed.
pub async fn serve(
    shop: Arc<Shop>,
    seed: u64,
    listener: TcpListener,
    asked: impl Fn(IpAddr) + Send + Sync + 'static,
) {
    let (seed, asked) = (Arc::new(AtomicU64::new(seed)), Arc::new(asked));
    loop {
        let Ok((stream, from)) = listener.accept().await else { continue };
        let (shop, seed, asked) = (shop.clone(), seed.clone(), asked.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let shop = shop.clone();
                let drawn = Draw(seed.fetch_add(1, Ordering::Relaxed)).next();
                shop.asked.fetch_add(1, Ordering::Relaxed);
                asked(from.ip());
                async move { Ok::<_, Infallible>(give(&shop, &request, drawn).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The version is read first and sent last: what lies between is the time in which a purge may come.
async fn give(shop: &Shop, request: &Request<Incoming>, drawn: u64) -> Response<Full<Bytes>> {
    while *shop.manner.lock() == Manner::Silent {
        sleep(Duration::from_millis(50)).await;
    }
    if *shop.manner.lock() == Manner::Fails {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let page = Page::of(request.uri().path()).filter(|page| shop.has(*page));
    let Some(page) = page else { return status(StatusCode::NOT_FOUND) };
    let headers = request.headers();
    let newest = shop.newest(page);
    let Some(version) = newest.or_else(|| visitor_of(headers)) else { return status(StatusCode::FORBIDDEN) };
    if drawn.is_multiple_of(SLOW_ONE_IN) {
        sleep(Duration::from_millis(drawn / 7 % 300)).await;
    }
    let tag = format!("\"v{version}\"");
    let response = Response::builder().header(ETAG, &tag).header("content-type", "text/plain");
    let response = match page {
        Page::Product(_) | Page::File(_) => {
            let keys = format!("{} all", page.tag());
            response.header(CACHE_CONTROL, "max-age=86400").header("surrogate-key", keys)
        }
        Page::Account => response.header(CACHE_CONTROL, "private, max-age=600"),
        Page::Basket => {
            response.header(CACHE_CONTROL, "max-age=600").header(SET_COOKIE, format!("basket={version}"))
        }
        Page::Orders => response.header(CACHE_CONTROL, "max-age=600"),
    };
    let is_same = |name| headers.get(name).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    if newest.is_some() && is_same(IF_NONE_MATCH) {
        return response.status(StatusCode::NOT_MODIFIED).body(Full::default()).unwrap_or_default();
    }
    let length = shop.length(page);
    let range =
        headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| range_of(text, length));
    match range.filter(|_| !headers.contains_key(IF_RANGE) || is_same(IF_RANGE)) {
        Some(range) => {
            let content = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, content);
            response.body(Full::from(shop.part(page, version, range))).unwrap_or_default()
        }
        None => response.body(Full::from(shop.body(page, version))).unwrap_or_default(),
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
    fn a_part_of_a_body_is_what_the_whole_has_there_and_versions_and_pages_differ() {
        let shop = Shop::new(12, 40_000, 6);
        for page in [Page::Product(3), Page::File(2), Page::Account] {
            let whole = shop.body(page, 7);
            assert_eq!(whole.len(), shop.length(page));
            for (start, end) in [(0, 1), (0, 64), (3, 21), (8, 16), (100, 300), (17, 18)] {
                assert_eq!(shop.part(page, 7, start..end), whole[start..end], "{page:?} {start}..{end}");
            }
            assert_ne!(whole, shop.body(page, 8));
            assert_eq!(shop.has(page), Page::of(&page.path()) == Some(page));
        }
        for index in 0..shop.versions.len() {
            let page = shop.versioned(index);
            assert_eq!((shop.index(page), shop.has(page)), (Some(index), true));
        }
        assert!(!shop.has(Page::Product(12)) && !shop.has(Page::File(6)));
    }
}
