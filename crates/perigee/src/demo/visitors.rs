//! Visitors from the cities: each asks their resolver, opens connections over the long line as a browser does, loads a page with all that
//! belongs to it, looks at some more, and goes. One in [`STRAIGHT_ONE_IN`] takes the way without the CDN, so that both are seen at the
//! same time.
//!
//! A browser here keeps what may be kept for long, opens [`CONNECTIONS_MAX`] connections at most, and tries again when a page does not come.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use model::Draw;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::line::{Line, Uplink, carry};
use super::map::{self, CITIES};
use super::resolver::Resolvers;
use super::shop::Shop;
use super::shop::pages::price_on;
use super::tally::{Answer, Tally, Way};

/// The product whose price is changed on the tour, and that many visitors look at.
pub(super) const WATCHED: usize = 17;

/// Of so many visitors, one goes straight to the shop.
const STRAIGHT_ONE_IN: u64 = 10;
/// Connections of a browser to one server, as browsers have them for HTTP/1.1.
const CONNECTIONS_MAX: usize = 6;
/// Visitors at a time; who comes when there are so many goes away again.
const VISITORS_MAX: usize = 150;
/// For how long a visitor tries to see a page.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);
/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes between a browser and its line.
const SOCKET_BYTES: usize = 64 * 1024;

/// What all visitors have in common.
pub(super) struct Scene {
    /// The host that they ask for, with its port.
    pub(super) host: String,
    /// The port of the edges.
    pub(super) port: u16,
    /// The shop's own address.
    pub(super) shop_address: SocketAddr,
    pub(super) shop: Arc<Shop>,
    pub(super) uplink: Arc<Uplink>,
    pub(super) resolvers: Resolvers,
    pub(super) tally: Tally,
}

/// Lets each city look at the shelf once without the CDN: one after the other, so that they do not wait for each other.
pub(super) async fn look_without_cdn(scene: Rc<Scene>, mut draw: Draw) {
    for city in 0..CITIES.len() {
        let mut browser = Browser::new(Rc::clone(&scene), city, Way::Straight, 0, draw.fork());
        browser.load("/").await;
    }
}

/// Lets visitors come for ever, so many per second on average, at moments that have nothing to do with each other.
pub(super) async fn come(scene: Rc<Scene>, per_second: f64, mut draw: Draw) {
    let there = Rc::new(Cell::new(0_usize));
    let weights: u64 = CITIES.iter().map(|city| city.weight).sum();
    for number in 1.. {
        sleep(Duration::from_secs_f64(-(1.0 - draw.unit()).ln() / per_second)).await;
        let mut ticket = draw.below(weights);
        let city = CITIES.iter().position(|city| match ticket.checked_sub(city.weight) {
            Some(rest) => {
                ticket = rest;
                false
            }
            None => true,
        });
        let way = if draw.below(STRAIGHT_ONE_IN) == 0 { Way::Straight } else { Way::Cdn };
        let draw = draw.fork();
        if there.get() >= VISITORS_MAX {
            scene.tally.gave_up();
            continue;
        }
        let mut browser = Browser::new(Rc::clone(&scene), city.unwrap_or_default(), way, number, draw);
        let there = Rc::clone(&there);
        there.set(there.get() + 1);
        tokio::task::spawn_local(async move {
            browser.visit().await;
            there.set(there.get() - 1);
        });
    }
}

/// One visitor's browser.
struct Browser {
    scene: Rc<Scene>,
    city: usize,
    way: Way,
    number: u64,
    draw: Draw,
    /// What is not fetched a second time.
    kept: HashSet<String>,
    cookie: Option<String>,
    connections: Vec<Connection>,
    /// Of the addresses that the resolver gives, the one to begin with; the next when it fails.
    choice: usize,
    /// Where the last answer came from.
    pop: Option<usize>,
}

/// An open connection, and whose.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    to: IpAddr,
}

/// An answer, whole.
struct Page {
    status: StatusCode,
    text: Bytes,
    cookie: Option<String>,
}

/// A try that ended in nothing.
#[derive(Debug)]
struct Failed;

impl Browser {
    fn new(scene: Rc<Scene>, city: usize, way: Way, number: u64, mut draw: Draw) -> Self {
        let choice = draw.below(8) as usize;
        Browser {
            scene,
            city,
            way,
            number,
            draw,
            kept: HashSet::new(),
            cookie: None,
            connections: Vec::new(),
            choice,
            pop: None,
        }
    }

    /// The shelf, some products, now and then the video, a login and a cart.
    async fn visit(&mut self) {
        let mut stays = self.load("/").await;
        for _ in 0..self.draw.below(5) {
            if !stays {
                return;
            }
            self.think().await;
            let number = match self.draw.below(3) {
                0 => WATCHED,
                _ => 1 + self.draw.below(self.scene.shop.goods().len() as u64) as usize,
            };
            stays = self.load(&format!("/products/{number}")).await;
            if self.draw.below(6) == 0 {
                stays &= self.watch().await.is_ok();
            }
        }
        if stays && self.draw.below(4) == 0 {
            self.think().await;
            if self.buy().await.is_err() {
                self.fail();
            }
        }
    }

    async fn think(&mut self) {
        sleep(Duration::from_millis(500 + self.draw.below(3500))).await;
    }

    /// Loads a page and what belongs to it; false when the visitor has lost patience.
    async fn load(&mut self, path: &str) -> bool {
        let (begun, is_first) = (Instant::now(), self.kept.is_empty());
        while begun.elapsed() < PATIENCE {
            if self.try_to_load(path).await.is_ok() {
                let took = is_first.then(|| begun.elapsed());
                self.scene.tally.loaded(self.city, self.way, self.pop, took);
                return true;
            }
            self.fail();
            sleep(AGAIN).await;
        }
        self.scene.tally.gave_up();
        false
    }

    /// Takes another address next time, and other connections.
    fn fail(&mut self) {
        self.scene.tally.failed();
        self.connections.clear();
        self.choice += 1;
    }

    async fn try_to_load(&mut self, path: &str) -> Result<(), Failed> {
        let asked = Instant::now();
        let page = self.ask(Method::GET, path, "").await?;
        if page.status != StatusCode::OK {
            return Err(Failed);
        }
        let text = String::from_utf8_lossy(&page.text);
        if let (Way::Cdn, Some(cents)) = (self.way, price_on(&text, WATCHED)) {
            self.scene.tally.price_seen(cents, asked);
        }
        let wanted: Vec<String> =
            belonging(&text).filter(|path| !self.kept.contains(*path)).map(str::to_owned).collect();
        // Whose cart it is, the page's script asks for who is known.
        let whose = self.cookie.is_some().then_some("/api/me");
        let paths = whose.into_iter().chain(wanted.iter().map(String::as_str));
        let requests = paths.map(|path| self.request(Method::GET, path, "").map_err(|_| Failed));
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        self.fetch_all(requests).await?;
        self.kept.extend(wanted);
        Ok(())
    }

    /// Some of the video, as a player asks for it: its begin, then the rest.
    async fn watch(&mut self) -> Result<(), Failed> {
        for range in ["bytes=0-65535", "bytes=65536-"] {
            let mut request = self.request(Method::GET, "/media/shelf.webm", "").map_err(|_| Failed)?;
            request.headers_mut().insert(header::RANGE, header::HeaderValue::from_static(range));
            self.send(request).await?;
        }
        Ok(())
    }

    /// Logs in, puts something into the cart and looks at it: it must be this visitor's own.
    async fn buy(&mut self) -> Result<(), Failed> {
        let name = format!("Visitor {} from {}", self.number, CITIES[self.city].name);
        let form = format!("name={}", client::segment(&name));
        self.cookie = self.ask(Method::POST, "/login", &form).await?.cookie;
        let form = format!("product={WATCHED}");
        self.ask(Method::POST, "/cart", &form).await?;
        let cart = self.ask(Method::GET, "/cart", "").await?;
        let is_own = String::from_utf8_lossy(&cart.text).contains(&format!("data-name=\"{name}\""));
        self.scene.tally.cart_seen(is_own);
        self.try_to_load("/").await
    }

    // --- Requests ---

    async fn ask(&mut self, method: Method, path: &str, form: &str) -> Result<Page, Failed> {
        let request = self.request(method, path, form).map_err(|_| Failed)?;
        self.send(request).await
    }

    fn request(&self, method: Method, path: &str, form: &str) -> http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.scene.host)
            .header(header::USER_AGENT, "Mozilla/5.0 (a visitor of the demo)")
            // The edges are told to believe this of connections from this machine.
            .header("x-forwarded-for", map::visitor(self.city, self.number).to_string());
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        if !form.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        // Pages are read here, and so asked for as they are.
        if path.starts_with("/static/") {
            request = request.header(header::ACCEPT_ENCODING, "gzip, br, zstd");
        }
        request.body(Full::new(form.to_owned().into()))
    }

    /// One request, on a connection that is open, or on a new one.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Page, Failed> {
        let mut connection = match self.open_one() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let page = exchange(&self.scene, self.way, &mut connection, request).await?;
        self.pop = map::pop_of(connection.to);
        self.connections.push(connection);
        Ok(page)
    }

    /// Many requests, on as many connections as a browser opens for them.
    async fn fetch_all(&mut self, requests: Vec<Request<Full<Bytes>>>) -> Result<(), Failed> {
        let mut fetching = JoinSet::new();
        let count = requests.len().min(CONNECTIONS_MAX);
        let queue = Rc::new(RefCell::new(requests.into_iter()));
        for _ in 0..count {
            let (scene, way, queue) = (Rc::clone(&self.scene), self.way, Rc::clone(&queue));
            let to = self.address().await?;
            let mut connection = self.open_one();
            fetching.spawn_local(async move {
                loop {
                    let Some(request) = queue.borrow_mut().next() else { return Ok(connection) };
                    let mut open = match connection.take() {
                        Some(open) => open,
                        None => open_to(to.clone()).await?,
                    };
                    exchange(&scene, way, &mut open, request).await?;
                    connection = Some(open);
                }
            });
        }
        while let Some(done) = fetching.join_next().await {
            self.connections.extend(done.map_err(|_| Failed)??);
        }
        Ok(())
    }

    fn open_one(&mut self) -> Option<Connection> {
        self.connections.retain(|connection| !connection.sender.is_closed());
        self.connections.pop()
    }

    async fn connect(&self) -> Result<Connection, Failed> {
        open_to(self.address().await?).await
    }

    /// Where to, over which line.
    async fn address(&self) -> Result<(SocketAddr, Line), Failed> {
        match self.way {
            Way::Straight => {
                let uplink = Some(Arc::clone(&self.scene.uplink));
                Ok((self.scene.shop_address, Line { one_way: map::city_to_shop(self.city), uplink }))
            }
            Way::Cdn => {
                let found = self.scene.resolvers.resolve(self.city).await.map_err(|_| Failed)?;
                let address = found[self.choice % found.len()];
                let pop = map::pop_of(address).ok_or(Failed)?;
                let line = Line { one_way: map::city_to_pop(self.city, pop), uplink: None };
                Ok((SocketAddr::new(address, self.scene.port), line))
            }
        }
    }
}

async fn open_to((address, line): (SocketAddr, Line)) -> Result<Connection, Failed> {
    let (browser, near) = tokio::io::duplex(SOCKET_BYTES);
    tokio::task::spawn_local(async move {
        // The browser sees that it broke.
        let _broken = carry(near, address, &line).await;
    });
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(browser)).await;
    let (sender, connection) = handshake.map_err(|_| Failed)?;
    tokio::task::spawn_local(async move {
        let _broken = connection.await;
    });
    Ok(Connection { sender, to: address.ip() })
}

async fn exchange(
    scene: &Scene,
    way: Way,
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<Page, Failed> {
    let answered = async {
        connection.sender.ready().await.map_err(|_| Failed)?;
        let (head, body) = connection.sender.send_request(request).await.map_err(|_| Failed)?.into_parts();
        let text = body.collect().await.map_err(|_| Failed)?.to_bytes();
        let field = |name| head.headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        scene.tally.answered(&Answer {
            way,
            pop: map::pop_of(connection.to),
            is_hit: field("cache-status").is_some_and(|status| status.contains("; hit")),
            bytes: text.len(),
        });
        let cookie = field("set-cookie").and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
        Ok(Page { status: head.status, text, cookie })
    };
    timeout(ANSWER_TIMEOUT, answered).await.map_err(|_| Failed)?
}

/// What a page has browsers load: paths in `src="…"` and of its style sheet.
fn belonging(page: &str) -> impl Iterator<Item = &str> {
    let after = |mark: &'static str| page.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
    let sources = after("src=\"").filter(|path| !path.starts_with("/media/"));
    after("rel=\"stylesheet\" href=\"").chain(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_page_is_found_and_a_video_waits_for_play() {
        let page = "<link rel=\"stylesheet\" href=\"/static/a.css\"><img src=\"/photos/1.png\" alt=\"\">\
            <video src=\"/media/shelf.webm\"></video><a href=\"/cart\">";
        assert_eq!(belonging(page).collect::<Vec<_>>(), ["/static/a.css", "/photos/1.png"]);
    }
}
