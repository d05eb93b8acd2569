//! Loads a page and tells what a visitor got: each request, and when something was to be seen.
//!
//! All times are those of the browser: milliseconds since the navigation began. Requests are taken from the protocol's
//! Network events, paints and navigation timing from the page's own `performance` (Paint Timing, Largest Contentful Paint,
//! Layout Instability, Navigation Timing 2).

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::page::Page;
use crate::{Error, Event};

/// The page is done when it has been loaded and nothing was under way for so long.
const QUIET: Duration = Duration::from_millis(500);

/// Requests that one visit remembers.
const EXCHANGES_MAX: usize = 5_000;

/// Pictures of a film: a small one each time that something changes, width and height at most, in JPEG of some kilobytes.
const FRAME_SIZE_MAX: (u32, u32) = (240, 240);
const FRAME_QUALITY: u32 = 50;

/// Pictures that a film remembers; what changes more often, moves for ever.
const FRAMES_MAX: usize = 300;

/// What a visitor saw, and from when on.
#[derive(Clone, Debug)]
pub struct Frame {
    /// From the navigation's start.
    pub at_ms: f64,
    /// A JPEG, in base64; 240 pixels wide at most.
    pub jpeg: String,
}

/// What a visit came to.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// From the navigation's start to the first byte of the document, redirects included; `None` when none came.
    pub ttfb_ms: Option<f64>,
    /// First Contentful Paint; `None` when nothing was painted.
    pub fcp_ms: Option<f64>,
    /// Largest Contentful Paint.
    pub lcp: Option<Paint>,
    /// Cumulative Layout Shift, the largest session window.
    pub cls: f64,
    /// End of the load event; `None` when the page did not come to it.
    pub load_ms: Option<f64>,
    /// Bytes that came over the network, heads included.
    pub bytes: u64,
    /// Every request, in the order in which they began; the first 5,000.
    pub exchanges: Vec<Exchange>,
    /// Whether it came to rest before the deadline.
    pub is_complete: bool,
}

impl Visit {
    /// The page's own answer, behind its redirects. What frames in it asked for are documents too.
    pub fn document(&self) -> Option<&Exchange> {
        let is_redirect = |one: &&Exchange| matches!(one.status, 301 | 302 | 303 | 307 | 308);
        self.exchanges.iter().filter(|one| one.kind == "Document").find(|one| !is_redirect(one))
    }
}

/// The largest thing that was painted.
#[derive(Clone, Debug)]
pub struct Paint {
    /// When.
    pub at_ms: f64,
    /// Its URL if it is an image, else the name of its element.
    pub what: String,
}

/// One request of a page.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// What was asked for.
    pub url: String,
    /// The method.
    pub method: String,
    /// What the page wanted it for: `Document`, `Script`, `Image`, …
    pub kind: String,
    /// The answer's status; 0 when there was none.
    pub status: u16,
    /// `http/1.1`, `h2`, `h3`.
    pub protocol: String,
    /// The peer's address and port, if there was one.
    pub peer: Option<String>,
    /// Whether the browser's own cache answered.
    pub is_from_cache: bool,
    /// When the request began.
    pub start_ms: f64,
    /// When the head of the answer had come.
    pub head_ms: Option<f64>,
    /// When its last byte had come.
    pub end_ms: Option<f64>,
    /// Bytes over the network.
    pub bytes: u64,
    /// The answer's fields, as far as the browser shows them; names as they came, those of one name joined by line ends.
    pub fields: Vec<(String, String)>,
    /// Why it failed, in the browser's words (`net::ERR_…`, or why it was blocked).
    pub failure: Option<String>,
}

impl Exchange {
    /// The value of a field, whatever the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// What the page itself knows, asked once it is loaded.
const TIMING: &str = "new Promise(done => {
  const nav = performance.getEntriesByType('navigation')[0] || {};
  const fcp = performance.getEntriesByName('first-contentful-paint')[0];
  const out = { ttfb: nav.responseStart || null, load: nav.loadEventEnd || null, origin: performance.timeOrigin, fcp: fcp ? fcp.startTime : null, lcp: null, cls: 0 };
  let sum = 0, first = -Infinity, last = -Infinity;
  const shift = entry => {
    if (entry.hadRecentInput) return;
    if (entry.startTime - last > 1000 || entry.startTime - first > 5000) { sum = 0; first = entry.startTime; }
    sum += entry.value; last = entry.startTime; out.cls = Math.max(out.cls, sum);
  };
  const watch = (type, each) => {
    try { new PerformanceObserver(list => list.getEntries().forEach(each)).observe({ type, buffered: true }); } catch (e) {}
  };
  watch('largest-contentful-paint', entry => {
    out.lcp = { at: entry.startTime, what: entry.url || (entry.element ? entry.element.nodeName.toLowerCase() : '') };
  });
  watch('layout-shift', shift);
  setTimeout(() => done(out), 100);
})";

impl Page {
    /// Loads `url` and waits until the page is at rest, at most for `patience`.
    ///
    /// Leaves the page where it is, so that a second visit is what the visitor's next one would be: with the cache and
    /// cookies that the first has left. A page that cannot be had at all is no error: the failed request says why.
    pub async fn visit(&mut self, url: &str, patience: Duration) -> Result<Visit, Error> {
        self.load(url, patience, false).await.map(|(visit, _)| visit)
    }

    /// The same, with pictures of what was to be seen, in the order of time; none where the page could not be had. They cost the browser time:
    /// who measures does not film.
    pub async fn film(&mut self, url: &str, patience: Duration) -> Result<(Visit, Vec<Frame>), Error> {
        self.load(url, patience, true).await
    }

    async fn load(
        &mut self,
        url: &str,
        patience: Duration,
        films: bool,
    ) -> Result<(Visit, Vec<Frame>), Error> {
        let deadline = Instant::now() + patience;
        self.call("Page.enable", json!({})).await?;
        self.call("Page.navigate", json!({ "url": "about:blank" })).await?;
        self.call("Network.enable", json!({})).await?;
        self.forget_events();
        if films {
            let (width, height) = FRAME_SIZE_MAX;
            let wanted =
                json!({ "format": "jpeg", "quality": FRAME_QUALITY, "maxWidth": width, "maxHeight": height });
            self.call("Page.startScreencast", wanted).await?;
        }
        let answer = self.call("Page.navigate", json!({ "url": url })).await?;
        let mut seen = Seen::default();
        let failed = answer["errorText"].as_str().is_some_and(|text| !text.is_empty());
        let is_complete = self.watch(&mut seen, failed, deadline).await?;
        if films {
            self.call("Page.stopScreencast", json!({})).await?;
        }
        let frames = std::mem::take(&mut seen.frames);
        let mut visit = seen.finish();
        visit.is_complete = is_complete;
        if failed {
            return Ok((visit, Vec::new()));
        }
        let timing = self.evaluate(TIMING).await?;
        visit.ttfb_ms = timing["ttfb"].as_f64();
        visit.load_ms = timing["load"].as_f64();
        visit.fcp_ms = timing["fcp"].as_f64();
        visit.cls = timing["cls"].as_f64().unwrap_or(0.0);
        visit.lcp = timing["lcp"]["at"].as_f64().map(|at_ms| Paint {
            at_ms,
            what: timing["lcp"]["what"].as_str().unwrap_or_default().to_owned(),
        });
        // Both are times of day of one clock. Before the navigation, the empty page was to be seen.
        let origin = timing["origin"].as_f64().unwrap_or(0.0);
        let frames = frames.into_iter().map(|(at, jpeg)| Frame { at_ms: at * 1000.0 - origin, jpeg });
        Ok((visit, frames.filter(|frame| frame.at_ms >= 0.0).collect()))
    }

    /// Reads events until the page is loaded and quiet; `false` at the deadline.
    async fn watch(&mut self, seen: &mut Seen, failed: bool, deadline: Instant) -> Result<bool, Error> {
        // Of the last event that had to do with loading: a page that moves for ever is quiet, too.
        let mut last = Instant::now();
        loop {
            let is_done = (seen.is_loaded || failed) && seen.under_way == 0;
            let until = if is_done { deadline.min(last + QUIET) } else { deadline };
            match timeout_at(until, self.next_event()).await {
                Ok(Some(event)) if event.method == "Page.screencastFrame" => {
                    let taken = json!({ "sessionId": event.params["sessionId"] });
                    seen.frame(event);
                    // Without, no other comes.
                    self.call("Page.screencastFrameAck", taken).await?;
                }
                Ok(Some(event)) => {
                    last = Instant::now();
                    seen.take(&event);
                }
                Ok(None) => return Err(Error::Gone),
                Err(_) => return Ok(is_done),
            }
        }
    }
}

/// What has been seen of a visit so far.
#[derive(Default)]
struct Seen {
    visit: Visit,
    /// Where the exchange is that a request's id means now: a redirect begins another one under the same id.
    open: HashMap<String, usize>,
    /// Start of each exchange on the browser's monotonic clock, in seconds.
    starts: Vec<f64>,
    under_way: usize,
    is_loaded: bool,
    /// Times of day in seconds, and pictures.
    frames: Vec<(f64, String)>,
}

impl Seen {
    fn take(&mut self, event: &Event) {
        let params = &event.params;
        match event.method.as_str() {
            "Page.loadEventFired" => self.is_loaded = true,
            "Network.requestWillBeSent" => self.begin(params),
            "Network.responseReceived" => self.answer(params),
            "Network.responseReceivedExtraInfo" => self.with(params, |exchange, _| {
                // What came over the wire: with Set-Cookie, and with what scripts may not see.
                exchange.fields = fields_of(&params["headers"]);
            }),
            "Network.requestServedFromCache" => {
                self.with(params, |exchange, _| exchange.is_from_cache = true)
            }
            "Network.loadingFinished" => {
                self.with(params, |exchange, start| {
                    exchange.bytes = params["encodedDataLength"].as_f64().unwrap_or(0.0) as u64;
                    exchange.end_ms = since(params, start);
                });
                self.end(params);
            }
            "Network.loadingFailed" => {
                self.with(params, |exchange, start| {
                    let why = params["blockedReason"].as_str().or(params["errorText"].as_str());
                    exchange.failure = Some(why.filter(|why| !why.is_empty()).unwrap_or("failed").to_owned());
                    exchange.end_ms = since(params, start);
                });
                self.end(params);
            }
            _ => {}
        }
    }

    fn frame(&mut self, mut event: Event) {
        let at = event.params["metadata"]["timestamp"].as_f64();
        if let (Some(at), Value::String(jpeg)) = (at, event.params["data"].take())
            && self.frames.len() < FRAMES_MAX
        {
            self.frames.push((at, jpeg));
        }
    }

    fn begin(&mut self, params: &Value) {
        let Some(id) = params["requestId"].as_str() else { return };
        let url = params["request"]["url"].as_str().unwrap_or_default();
        if url.starts_with("data:") || url.starts_with("blob:") {
            return;
        }
        if params["redirectResponse"].is_object() {
            self.answer(&json!({ "requestId": id, "response": params["redirectResponse"] }));
            self.with(params, |exchange, start| exchange.end_ms = since(params, start));
            self.end(params);
        }
        if self.visit.exchanges.len() == EXCHANGES_MAX {
            return;
        }
        self.open.insert(id.to_owned(), self.visit.exchanges.len());
        self.starts.push(params["timestamp"].as_f64().unwrap_or(0.0));
        // An EventSource goes on for as long as the page is open.
        self.under_way += usize::from(params["type"] != "EventSource");
        self.visit.exchanges.push(Exchange {
            url: url.to_owned(),
            method: params["request"]["method"].as_str().unwrap_or("GET").to_owned(),
            kind: params["type"].as_str().unwrap_or("Other").to_owned(),
            ..Exchange::default()
        });
    }

    fn answer(&mut self, params: &Value) {
        let response = &params["response"];
        self.with(params, |exchange, start| {
            exchange.status = response["status"].as_u64().unwrap_or(0) as u16;
            exchange.protocol = response["protocol"].as_str().unwrap_or_default().to_owned();
            exchange.peer = response["remoteIPAddress"]
                .as_str()
                .map(|address| format!("{address}:{}", response["remotePort"].as_u64().unwrap_or(0)));
            exchange.is_from_cache |=
                response["fromDiskCache"] == true || response["fromPrefetchCache"] == true;
            exchange.bytes = response["encodedDataLength"].as_f64().unwrap_or(0.0) as u64;
            if exchange.fields.is_empty() {
                exchange.fields = fields_of(&response["headers"]);
            }
            // `requestTime` is in seconds on the monotonic clock, the rest in milliseconds from there.
            let timing = &response["timing"];
            exchange.head_ms = timing["receiveHeadersEnd"]
                .as_f64()
                .zip(timing["requestTime"].as_f64())
                .map(|(head_ms, begun)| (begun - start) * 1000.0 + head_ms);
        });
    }

    fn with(&mut self, params: &Value, change: impl FnOnce(&mut Exchange, f64)) {
        let index = params["requestId"].as_str().and_then(|id| self.open.get(id));
        if let Some(&index) = index {
            change(&mut self.visit.exchanges[index], self.starts[index]);
        }
    }

    fn end(&mut self, params: &Value) {
        if let Some(index) = params["requestId"].as_str().and_then(|id| self.open.remove(id)) {
            self.under_way -= usize::from(self.visit.exchanges[index].kind != "EventSource");
        }
    }

    /// Puts all times on the clock of the navigation, which begins with the document's first request.
    fn finish(mut self) -> Visit {
        let origin = self.starts.first().copied().unwrap_or(0.0);
        for (exchange, start) in self.visit.exchanges.iter_mut().zip(&self.starts) {
            exchange.start_ms = (start - origin) * 1000.0;
            for time in [&mut exchange.head_ms, &mut exchange.end_ms].into_iter().flatten() {
                *time += exchange.start_ms;
            }
        }
        self.visit.bytes =
            self.visit.exchanges.iter().filter(|exchange| !exchange.is_from_cache).map(|one| one.bytes).sum();
        self.visit
    }
}

/// Milliseconds since the exchange began.
fn since(params: &Value, start: f64) -> Option<f64> {
    params["timestamp"].as_f64().map(|at| (at - start) * 1000.0)
}

fn fields_of(headers: &Value) -> Vec<(String, String)> {
    let lines = headers.as_object().into_iter().flatten();
    lines.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
