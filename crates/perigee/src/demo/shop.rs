//! The demo's origin: a small shop with pages, photos, a video, a login and a cart, as a server of HTTP/1.1. It knows of the CDN what any
//! website knows: which of its answers are for everybody, for how long, and by what keys they are purged.
//!
//! ```text
//! /  /products/N                 for everybody; the CDN for an hour, browsers not at all; Surrogate-Key product-N of all that they show
//! /static/…  /photos/…  /media/… for everybody, for long
//! /login  /cart  /api/me         for one; no-store
//! ```
//!
//! The back office, where prices are changed, listens apart, and the CDN doesn't reach it.

pub(super) mod goods;
pub(super) mod pages;
mod photo;
mod sessions;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use goods::Product;
use sessions::Sessions;

/// Pixels of a photo, each way.
const PHOTO_PIXELS: usize = 400;
/// Pixels of a small one.
const SMALL_PIXELS: usize = 160;
/// Bytes of a form.
const FORM_BYTES_MAX: usize = 4096;
/// The most that anything costs, in cents.
const CENTS_MAX: u64 = 10_000_000;

/// What the CDN is told of pages, and browsers are not (RFC 9213).
const FOR_CDN: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

const STYLE: &str = include_str!("shop/style.css");
const SCRIPT: &str = include_str!("shop/shop.js");
const LOGO: &str = include_str!("shop/logo.svg");
/// How it was made: `shop/README.md`.
const VIDEO: &[u8] = include_bytes!("shop/shelf.webm");

/// The shop.
pub(super) struct Shop {
    goods: Vec<Product>,
    cents: Vec<AtomicU64>,
    photos: Vec<OnceLock<Bytes>>,
    sessions: Sessions,
    asked: Asked,
}

/// Requests that have come, by who sent them.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Edges.
    pub(super) by_cdn: AtomicU64,
    /// Visitors who came without them.
    pub(super) by_visitors: AtomicU64,
}

/// Which door somebody came through.
#[derive(Clone, Copy)]
pub(super) enum Door {
    /// The shop.
    Front,
    /// Its back office.
    Office,
}

impl Shop {
    /// With everything at its first price.
    pub(super) fn new() -> Self {
        let goods = goods::all();
        let cents = goods.iter().map(|product| AtomicU64::new(product.cents)).collect();
        let photos = goods.iter().flat_map(|_| [OnceLock::new(), OnceLock::new()]).collect();
        Shop { goods, cents, photos, sessions: Sessions::default(), asked: Asked::default() }
    }

    /// What it sells.
    pub(super) fn goods(&self) -> &[Product] {
        &self.goods
    }

    /// Who has asked it.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The price of a product, in cents; 0 for what there is not.
    pub(super) fn price(&self, number: usize) -> u64 {
        let cents = number.checked_sub(1).and_then(|index| self.cents.get(index));
        cents.map_or(0, |cents| cents.load(Ordering::SeqCst))
    }

    fn product(&self, number: &str) -> Option<&Product> {
        self.goods.get(number.parse::<usize>().ok()?.checked_sub(1)?)
    }

    /// Draws the photos of the shelf; the large ones are drawn when somebody looks at them. It takes a while: call it on a thread of its own.
    pub(super) fn draw(&self) {
        for product in &self.goods {
            self.photo(product, true);
        }
    }

    fn photo(&self, product: &Product, is_small: bool) -> Option<Bytes> {
        let photo = self.photos.get((product.number - 1) * 2 + usize::from(is_small))?;
        let size = if is_small { SMALL_PIXELS } else { PHOTO_PIXELS };
        Some(photo.get_or_init(|| photo::picture(&product.pot, size).unwrap_or_default().into()).clone())
    }

    /// Serves who comes through a door, for ever. Call it in a `LocalSet`.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, door: Door) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let shop = Arc::clone(&self);
            tokio::task::spawn_local(async move {
                let answer = service_fn(|request| {
                    let shop = Arc::clone(&shop);
                    async move { Ok::<_, Infallible>(shop.answer(request, door).await) }
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                let served = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer);
                // It ends when the other side goes away, in whatever way.
                let _gone = served.await;
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, door: Door) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if let Door::Front = door {
            let asked = &self.asked;
            let by = if head.headers.contains_key(header::VIA) { &asked.by_cdn } else { &asked.by_visitors };
            by.fetch_add(1, Ordering::Relaxed);
        }
        let form = match head.method {
            Method::POST => Limited::new(body, FORM_BYTES_MAX).collect().await.ok(),
            _ => None,
        };
        let form = form.map(|form| form.to_bytes()).unwrap_or_default();
        let form = Form(std::str::from_utf8(&form).unwrap_or_default());
        let path = head.uri.path();
        match door {
            Door::Front if head.method != Method::POST && path.starts_with("/photos/") => {
                // It may have to be drawn, which is no work for the thread that everything else is on.
                let (shop, name) = (Arc::clone(&self), path["/photos/".len()..].to_owned());
                let drawn = tokio::task::spawn_blocking(move || shop.photo_named(&name, &head.headers)).await;
                drawn.unwrap_or_else(|_| missing())
            }
            Door::Front => self.front(&head.method, path, &head.headers, form),
            Door::Office => self.office(&head.method, path, form),
        }
    }

    // --- The shop ---

    fn front(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        form: Form<'_>,
    ) -> Response<Full<Bytes>> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match segments.as_slice() {
            [""] if reads => {
                let keys: Vec<String> =
                    self.goods.iter().map(|product| format!("product-{}", product.number)).collect();
                let page = pages::home(&self.goods, |number| self.price(number));
                self.page(page, &format!("shelf {}", keys.join(" ")), headers)
            }
            ["products", number] if reads => match self.product(number) {
                Some(product) => {
                    let page = pages::product(product, self.price(product.number));
                    self.page(page, &format!("product-{}", product.number), headers)
                }
                None => missing(),
            },
            ["static", "style.css"] if reads => for_long("text/css; charset=utf-8", STYLE.into(), headers),
            ["static", "shop.js"] if reads => {
                for_long("text/javascript; charset=utf-8", SCRIPT.into(), headers)
            }
            ["static", "logo.svg"] if reads => for_long("image/svg+xml", LOGO.into(), headers),
            ["media", "shelf.webm"] if reads => for_long("video/webm", Bytes::from_static(VIDEO), headers),
            ["healthz"] if reads => private("text/plain; charset=utf-8", "well\n".to_owned()),
            ["login"] if reads => self.page(pages::login(), "login", headers),
            ["login"] if *method == Method::POST => {
                let token = self.sessions.log_in(&form.value("name").unwrap_or_default());
                see_other("/cart", token.as_deref())
            }
            ["cart"] if reads => {
                let session = self.sessions.of(headers);
                let items: Vec<(&Product, u64)> = session
                    .items
                    .iter()
                    .filter_map(|number| Some((self.goods.get(number.checked_sub(1)?)?, self.price(*number))))
                    .collect();
                private("text/html; charset=utf-8", pages::cart(session.name.as_deref(), &items))
            }
            ["cart"] if *method == Method::POST => match form.value("product") {
                Some(number) if self.product(&number).is_some() => {
                    let token = self.sessions.add(headers, number.parse().unwrap_or_default());
                    see_other("/cart", token.as_deref())
                }
                _ => missing(),
            },
            ["api", "me"] if reads => {
                let session = self.sessions.of(headers);
                let me = serde_json::json!({ "name": session.name, "items": session.items.len() });
                private("application/json", me.to_string())
            }
            _ => missing(),
        }
    }

    /// A page for everybody, by whose keys it is found when what it shows has changed.
    fn page(&self, text: String, keys: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let mut response = whole("text/html; charset=utf-8", text.into(), headers);
        let fields = response.headers_mut();
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
        fields.insert(FOR_CDN, HeaderValue::from_static("max-age=3600"));
        if let Ok(keys) = HeaderValue::from_str(keys) {
            fields.insert(SURROGATE_KEY, keys);
        }
        response
    }

    fn photo_named(&self, name: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let Some(number) = name.strip_suffix(".png") else { return missing() };
        let (number, is_small) = match number.strip_suffix("-small") {
            Some(number) => (number, true),
            None => (number, false),
        };
        match self.product(number).and_then(|product| self.photo(product, is_small)) {
            Some(photo) => for_long("image/png", photo, headers),
            None => missing(),
        }
    }

    // --- The back office ---

    fn office(&self, method: &Method, path: &str, form: Form<'_>) -> Response<Full<Bytes>> {
        let product = path.strip_prefix("/products/").and_then(|number| self.product(number));
        let Some(product) = product else {
            let text = "GET /products/N, or POST to it: cents=3900\n".to_owned();
            let mut response = private("text/plain; charset=utf-8", text);
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        if *method == Method::POST {
            let cents = form.value("cents").and_then(|cents| cents.parse::<u64>().ok());
            match cents.filter(|cents| *cents <= CENTS_MAX) {
                Some(cents) => self.cents[product.number - 1].store(cents, Ordering::SeqCst),
                None => {
                    let text = format!("cents is missing, or not a whole number up to {CENTS_MAX}\n");
                    let mut response = private("text/plain; charset=utf-8", text);
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    return response;
                }
            }
        }
        let text = format!("{} costs {}\n", product.name, pages::dollars(self.price(product.number)));
        private("text/plain; charset=utf-8", text)
    }
}

/// What was filled in: `name=value&…`.
#[derive(Clone, Copy)]
struct Form<'a>(&'a str);

impl Form<'_> {
    /// The first value of that name, decoded (WHATWG URL, §5.1). Bytes that are no text are lost.
    fn value(self, name: &str) -> Option<String> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(known, _)| *known == name)?;
        let mut bytes = Vec::new();
        let mut rest = value.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            });
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

// --- Answers ---

/// The whole body, or 304 for who has it. Ranges are the edges' affair: they get it whole.
fn whole(content_type: &'static str, body: Bytes, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let tag = format!("\"{}\"", &trust::text_hash(&body)[..16]);
    let has_it = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .is_some_and(|known| known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
    let mut response = Response::new(Full::new(if has_it { Bytes::new() } else { body }));
    if has_it {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        fields.insert(header::ETAG, tag);
    }
    response
}

fn for_long(content_type: &'static str, body: Bytes, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = whole(content_type, body, headers);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    response
}

fn private(content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}

fn missing() -> Response<Full<Bytes>> {
    let mut response = private("text/html; charset=utf-8", pages::missing());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// After a form, with the session's cookie if it has just begun.
fn see_other(place: &'static str, token: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = private("text/plain; charset=utf-8", String::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(place));
    let cookie = token.map(|token| format!("{}={token}; Path=/; HttpOnly; SameSite=Lax", sessions::COOKIE));
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
        // For the page's script, which may not see the other one.
        let known = HeaderValue::from_static("known=1; Path=/; SameSite=Lax");
        response.headers_mut().append(header::SET_COOKIE, known);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(shop: &Shop, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        shop.front(&Method::GET, path, headers, Form(""))
    }

    fn field<'a>(response: &'a Response<Full<Bytes>>, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn pages_are_for_everybody_and_carts_for_one() {
        let (shop, nobody) = (Shop::new(), HeaderMap::new());
        let shelf = get(&shop, "/", &nobody);
        assert_eq!(field(&shelf, "cdn-cache-control"), "max-age=3600");
        assert!(field(&shelf, "surrogate-key").split(' ').any(|key| key == "product-17"));
        assert_eq!(field(&get(&shop, "/products/17", &nobody), "surrogate-key"), "product-17");
        for path in ["/cart", "/api/me", "/products/0", "/products/25"] {
            assert_eq!(field(&get(&shop, path, &nobody), "cache-control"), "private, no-store", "{path}");
        }
    }

    #[test]
    fn photos_are_drawn_and_names_of_none_are_not_found() {
        let (shop, nobody) = (Shop::new(), HeaderMap::new());
        assert_eq!(field(&shop.photo_named("17-small.png", &nobody), "content-type"), "image/png");
        for name in ["x.png", "0.png", "25-small.png", "17.gif"] {
            assert_eq!(shop.photo_named(name, &nobody).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }

    #[test]
    fn who_has_it_is_not_sent_it_again() {
        let (shop, mut headers) = (Shop::new(), HeaderMap::new());
        let first = get(&shop, "/static/style.css", &headers);
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(get(&shop, "/static/style.css", &headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(get(&shop, "/static/shop.js", &headers).status(), StatusCode::OK);
    }

    #[test]
    fn a_price_is_changed_in_the_back_office_alone() {
        let (shop, nobody) = (Shop::new(), HeaderMap::new());
        let before = shop.price(17);
        let post = |cents| shop.office(&Method::POST, "/products/17", Form(cents)).status();
        assert_eq!(post("cents=x"), StatusCode::BAD_REQUEST);
        assert_eq!(post("cents=10000001"), StatusCode::BAD_REQUEST);
        let front = shop.front(&Method::POST, "/products/17", &nobody, Form("cents=1"));
        assert_eq!((front.status(), shop.price(17)), (StatusCode::NOT_FOUND, before));
        assert_eq!((post("cents=1234"), shop.price(17)), (StatusCode::OK, 1234));
        assert_eq!(
            shop.office(&Method::POST, "/products/99", Form("cents=1")).status(),
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn forms_are_decoded() {
        let form = Form("name=S%C3%A3o+%26&x=1");
        assert_eq!(form.value("name").as_deref(), Some("São &"));
        assert_eq!((form.value("y"), Form("name=%4").value("name")), (None, None));
    }
}
