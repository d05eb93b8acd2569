//! What a page looks like, says and fetches in headless Chromium: what the doctor asks of crate `browser`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use browser::{Browser, Event, Options, Page};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

/// Time for a page to come to rest: loaded, and nothing fetched for [`REST`].
const PATIENCE: Duration = Duration::from_secs(45);

/// How long nothing may be fetched until a page counts as loaded, as browsers' own tools have it.
const REST: Duration = Duration::from_millis(500);

/// The window.
const SIZE: (u32, u32) = (1000, 800);

/// A page as a script sees it: a line for each element, its URLs absolute.
const SNAPSHOT: &str = include_str!("snapshot.js");

/// What one visit has shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Visit {
    /// A line for each element.
    pub(super) elements: Vec<String>,
    /// PNG in base64.
    pub(super) pixels: String,
    pub(super) console: Vec<String>,
    pub(super) requests: Vec<Request>,
    /// Whether it came to rest.
    pub(super) at_rest: bool,
}

/// What a page has fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) url: String,
    /// `Script`, `Image`, `XHR` and so on.
    pub(super) kind: String,
    /// 0 when there was no answer.
    pub(super) status: u64,
    pub(super) failed: Option<String>,
}

/// Starts a browser that finds these hosts at these addresses. It speaks no QUIC: what it is to see is what an edge answers, by whichever way.
pub(super) async fn start(program: PathBuf, routes: Vec<(String, SocketAddr)>) -> Result<Browser, String> {
    let options = Options {
        program: Some(program),
        hosts: routes,
        window: SIZE,
        without_quic: true,
        ..Options::default()
    };
    Browser::launch(&options).await.map_err(|error| error.to_string())
}

/// Visits a page as somebody who has never been there.
pub(super) async fn visit(browser: &Browser, url: &str) -> Result<Visit, String> {
    let mut page = browser.new_page().await.map_err(|error| error.to_string())?;
    let visit = visit_in(&mut page, url).await.map_err(|error| error.to_string())?;
    page.close().await.map_err(|error| error.to_string())?;
    Ok(visit)
}

async fn visit_in(page: &mut Page, url: &str) -> Result<Visit, browser::Error> {
    for domain in ["Page.enable", "Network.enable", "Runtime.enable", "Log.enable"] {
        page.call(domain, json!({})).await?;
    }
    let attach = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
    page.call("Target.setAutoAttach", attach).await?;
    let still = json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
    page.call("Emulation.setEmulatedMedia", still).await?;
    page.forget_events();
    let navigated = page.call("Page.navigate", json!({ "url": url })).await?;
    let mut visit = Visit::default();
    if let Some(error) = navigated["errorText"].as_str() {
        visit.console.push(format!("the page does not load: {error}"));
    }
    await_rest(page, &mut visit).await?;
    let elements = page.evaluate(SNAPSHOT).await?;
    let elements = elements.as_array().into_iter().flatten();
    visit.elements = elements.filter_map(Value::as_str).map(str::to_owned).collect();
    visit.pixels = page.screenshot_of_all().await?;
    visit.console.sort();
    Ok(visit)
}

/// Reads what happens until the page has loaded and nothing is fetched any more.
async fn await_rest(page: &mut Page, visit: &mut Visit) -> Result<(), browser::Error> {
    let deadline = Instant::now() + PATIENCE;
    let (mut loaded, mut under_way) = (false, HashMap::new());
    let mut quiet_since = Instant::now();
    loop {
        let is_quiet = loaded && under_way.is_empty();
        let until = if is_quiet { deadline.min(quiet_since + REST) } else { deadline };
        let event = match timeout_at(until, page.next_event()).await {
            Ok(Some(event)) => event,
            Ok(None) => return Err(browser::Error::Gone),
            Err(_) => {
                visit.at_rest = is_quiet;
                return Ok(());
            }
        };
        let before = (loaded, under_way.len());
        note(&event, visit, &mut loaded, &mut under_way);
        if before != (loaded, under_way.len()) {
            quiet_since = Instant::now();
        }
    }
}

/// Takes down what an event tells. `under_way`: the index of each request that has no end yet.
fn note(event: &Event, visit: &mut Visit, loaded: &mut bool, under_way: &mut HashMap<String, usize>) {
    let params = &event.params;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = text(&params["requestId"]);
    match event.method.as_str() {
        "Page.loadEventFired" => *loaded = true,
        "Network.requestWillBeSent" => {
            if let (Some(index), false) = (under_way.get(&id), params["redirectResponse"].is_null()) {
                visit.requests[*index].status = params["redirectResponse"]["status"].as_u64().unwrap_or(0);
            }
            let url = text(&params["request"]["url"]);
            if url.starts_with("data:") || url.starts_with("blob:") {
                return;
            }
            under_way.insert(id, visit.requests.len());
            visit.requests.push(Request { url, kind: text(&params["type"]), status: 0, failed: None });
        }
        "Network.responseReceived" => {
            if let Some(index) = under_way.get(&id) {
                visit.requests[*index].status = params["response"]["status"].as_u64().unwrap_or(0);
                if visit.requests[*index].kind == "EventSource" {
                    // It never ends.
                    under_way.remove(&id);
                }
            }
        }
        "Target.attachedToTarget" => {
            // A worker has its script; what it fetches from then on is told to itself.
            let url = text(&params["targetInfo"]["url"]);
            under_way.retain(|_, index| {
                let request = &mut visit.requests[*index];
                let is_its = request.url == url && request.kind == "Script";
                if is_its && request.status == 0 {
                    request.status = 200;
                }
                !is_its
            });
        }
        "Network.loadingFinished" => drop(under_way.remove(&id)),
        "Network.loadingFailed" => {
            if let Some(index) = under_way.remove(&id) {
                let blocked = [&params["blockedReason"], &params["corsErrorStatus"]["corsError"]];
                let blocked: Vec<_> = blocked.iter().filter_map(|reason| reason.as_str()).collect();
                let reason = format!("{} {}", text(&params["errorText"]), blocked.join(" "));
                visit.requests[index].failed = Some(reason.trim().to_owned());
            }
        }
        "Runtime.consoleAPICalled" => {
            let words = params["args"].as_array().into_iter().flatten().map(|word| match &word["value"] {
                Value::String(text) => text.clone(),
                Value::Null => text(&word["description"]),
                other => other.to_string(),
            });
            let words: Vec<String> = words.collect();
            visit.console.push(format!("{}: {}", text(&params["type"]), words.join(" ")));
        }
        "Runtime.exceptionThrown" => {
            let details = &params["exceptionDetails"];
            let thrown = details["exception"]["description"].as_str().or(details["text"].as_str());
            // The first line says what; the others where, which differs.
            let thrown = thrown.unwrap_or_default().lines().next().unwrap_or_default();
            visit.console.push(format!("error: {thrown}"));
        }
        "Log.entryAdded" => {
            let entry = &params["entry"];
            // Chromium asks for the icon once for each host, not for each visit.
            if !text(&entry["url"]).ends_with("/favicon.ico") {
                visit.console.push(format!("{}: {}", text(&entry["level"]), text(&entry["text"])));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_down() {
        let (mut visit, mut loaded, mut under_way) = (Visit::default(), false, HashMap::new());
        for event in [
            json!({ "method": "Network.requestWillBeSent", "params": { "requestId": "1", "type": "Script", "request": { "url": "http://a/x.js" } } }),
            json!({ "method": "Network.requestWillBeSent", "params": { "requestId": "2", "type": "Font", "request": { "url": "http://a/x.woff2" } } }),
            json!({ "method": "Network.requestWillBeSent", "params": { "requestId": "3", "type": "Image", "request": { "url": "data:image/png," } } }),
            json!({ "method": "Network.responseReceived", "params": { "requestId": "1", "response": { "status": 200 } } }),
            json!({ "method": "Network.loadingFinished", "params": { "requestId": "1" } }),
            json!({ "method": "Network.loadingFailed", "params": { "requestId": "2", "errorText": "net::ERR_FAILED", "corsErrorStatus": { "corsError": "MissingAllowOriginHeader" } } }),
            json!({ "method": "Runtime.consoleAPICalled", "params": { "type": "info", "args": [{ "value": "ready" }, { "value": 3 }] } }),
            json!({ "method": "Runtime.exceptionThrown", "params": { "exceptionDetails": { "text": "Uncaught", "exception": { "description": "Error: x\n at y" } } } }),
            json!({ "method": "Page.loadEventFired", "params": {} }),
            json!({ "method": "Page.unknown" }),
        ] {
            let method = event["method"].as_str().unwrap().to_owned();
            let event = Event { method, params: event["params"].clone() };
            note(&event, &mut visit, &mut loaded, &mut under_way);
        }
        assert!(loaded && under_way.is_empty());
        assert_eq!(visit.console, ["info: ready 3", "error: Error: x"]);
        let requests: Vec<_> = visit
            .requests
            .iter()
            .map(|request| (&*request.kind, request.status, request.failed.as_deref()))
            .collect();
        assert_eq!(
            requests,
            [("Script", 200, None), ("Font", 0, Some("net::ERR_FAILED MissingAllowOriginHeader"))]
        );
    }
}
