//! Headless Chromium, driven over its DevTools protocol. The protocol goes over a pair of pipes, one JSON text after another with a
//! zero byte between: no port is opened, and no WebSocket is needed.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

/// Time for a page to come to rest: loaded, and nothing fetched for [`REST`].
const PATIENCE: Duration = Duration::from_secs(45);

/// How long nothing may be fetched until a page counts as loaded, as browsers' own tools have it.
const REST: Duration = Duration::from_millis(500);

/// Longest message: a screenshot in base64.
const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The window.
const SIZE: (u32, u32) = (1000, 800);

/// A page as a script sees it: a line for each element, its URLs absolute.
const SNAPSHOT: &str = include_str!("snapshot.js");

/// A browser that was started for this.
pub(super) struct Browser {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    read: Vec<u8>,
    next_id: u64,
    events: VecDeque<Value>,
    profile: PathBuf,
}

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

/// Where the browser is: at `given`, or under one of its names.
pub(super) fn find(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return given.exists().then(|| given.to_owned());
    }
    let names = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
    let paths = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&paths).flat_map(|path| names.map(|name| path.join(name)));
    found.find(|program| program.is_file())
}

impl Browser {
    /// Starts one that nobody has used before, and that finds these hosts at these addresses.
    pub(super) async fn start(program: &Path, routes: &[(String, SocketAddr)]) -> Result<Browser, String> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.map_or(0, |now| now.subsec_nanos());
        let profile =
            std::env::temp_dir().join(format!("perigee-doctor-{}-{number}-{nanos}", std::process::id()));
        // A fresh one that is nobody else's, even where others may write beside it.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&profile);
        made.map_err(|error| format!("{} cannot be made: {error}", profile.display()))?;
        let rules: Vec<String> = routes.iter().map(|(host, to)| format!("MAP {host} {to}")).collect();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--remote-debugging-pipe".to_owned(),
            format!("--user-data-dir={}", profile.display()),
            format!("--window-size={},{}", SIZE.0, SIZE.1),
        ];
        if !rules.is_empty() {
            arguments.push(format!("--host-resolver-rules={}", rules.join(",")));
        }
        let plain = [
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            "--mute-audio",
            "--disable-quic",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,LocalNetworkAccessChecks",
            "--force-color-profile=srgb",
        ];
        arguments.extend(plain.map(str::to_owned));
        if rustix::process::geteuid().is_root() {
            // It refuses to start as root otherwise.
            arguments.push("--no-sandbox".to_owned());
        }
        // It reads from descriptor 3 and writes to 4.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(program)
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the browser has no pipes".into());
        };
        let (read, events) = (Vec::new(), VecDeque::new());
        let mut browser = Browser { child, input, output, read, next_id: 0, events, profile };
        browser.call(None, "Browser.getVersion", json!({})).await?;
        Ok(browser)
    }

    /// Ends it.
    pub(super) async fn close(mut self) -> Result<(), String> {
        // It may end before it answers.
        let _ = self.call(None, "Browser.close", json!({})).await;
        let ended = timeout_at(Instant::now() + PATIENCE, self.child.wait()).await;
        ended.map(|_| ()).map_err(|_| "the browser does not end".to_owned())
    }

    /// Visits a page as somebody who has never been there.
    pub(super) async fn visit(&mut self, url: &str) -> Result<Visit, String> {
        let context = self.call(None, "Target.createBrowserContext", json!({})).await?;
        let context = context["browserContextId"].clone();
        let target = json!({ "url": "about:blank", "browserContextId": context });
        let target = self.call(None, "Target.createTarget", target).await?["targetId"].clone();
        let attached = json!({ "targetId": target, "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attached).await?;
        let session = attached["sessionId"].as_str().unwrap_or_default().to_owned();
        let on = Some(session.as_str());
        for domain in ["Page.enable", "Network.enable", "Runtime.enable", "Log.enable"] {
            self.call(on, domain, json!({})).await?;
        }
        let attach = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
        self.call(on, "Target.setAutoAttach", attach).await?;
        let still = json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
        self.call(on, "Emulation.setEmulatedMedia", still).await?;
        self.events.clear();
        let navigated = self.call(on, "Page.navigate", json!({ "url": url })).await?;
        let mut visit = Visit::default();
        if let Some(error) = navigated["errorText"].as_str() {
            visit.console.push(format!("the page does not load: {error}"));
        }
        self.await_rest(&session, &mut visit).await?;
        let evaluate = json!({ "expression": SNAPSHOT, "returnByValue": true });
        let evaluated = self.call(on, "Runtime.evaluate", evaluate).await?;
        let elements = evaluated["result"]["value"].as_array().cloned().unwrap_or_default();
        visit.elements = elements.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let shot = self.call(on, "Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await?;
        visit.pixels = shot["data"].as_str().unwrap_or_default().to_owned();
        self.call(None, "Target.disposeBrowserContext", json!({ "browserContextId": context })).await?;
        visit.console.sort();
        Ok(visit)
    }

    /// Reads what happens until the page has loaded and nothing is fetched any more.
    async fn await_rest(&mut self, session: &str, visit: &mut Visit) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let (mut loaded, mut under_way) = (false, HashMap::new());
        let mut quiet_since = Instant::now();
        loop {
            let is_quiet = loaded && under_way.is_empty();
            let until = if is_quiet { deadline.min(quiet_since + REST) } else { deadline };
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match timeout_at(until, self.message()).await {
                    Ok(message) => message?,
                    Err(_) => {
                        visit.at_rest = is_quiet;
                        return Ok(());
                    }
                },
            };
            if event["sessionId"] != session {
                continue;
            }
            let before = (loaded, under_way.len());
            note(&event, visit, &mut loaded, &mut under_way);
            if before != (loaded, under_way.len()) {
                quiet_since = Instant::now();
            }
        }
    }

    /// Calls a method and waits for what it returns; what happens meanwhile is kept.
    async fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value, String> {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input
            .write_all(&bytes)
            .await
            .map_err(|error| format!("{method}: the browser has gone: {error}"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = timeout_at(deadline, self.message()).await;
            let mut message = message.map_err(|_| format!("{method}: no answer within {PATIENCE:?}"))??;
            if message["id"] != id {
                self.events.push_back(message);
                continue;
            }
            if let Some(error) = message.get("error") {
                return Err(format!("{method}: {}", error["message"].as_str().unwrap_or("failed")));
            }
            return Ok(message["result"].take());
        }
    }

    /// The next message. Dropping the future loses nothing.
    async fn message(&mut self) -> Result<Value, String> {
        let mut looked_at = 0;
        loop {
            if let Some(end) = self.read[looked_at..].iter().position(|byte| *byte == 0) {
                let rest = self.read.split_off(looked_at + end + 1);
                let message = std::mem::replace(&mut self.read, rest);
                return serde_json::from_slice(&message[..message.len() - 1])
                    .map_err(|error| format!("the browser says what is no JSON: {error}"));
            }
            looked_at = self.read.len();
            if looked_at > MESSAGE_BYTES_MAX {
                return Err("the browser says too much at once".into());
            }
            match self.output.read_buf(&mut self.read).await {
                Ok(0) => return Err("the browser has ended".into()),
                Ok(_) => {}
                Err(error) => return Err(format!("the browser has gone: {error}")),
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // What is left is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// Takes down what an event tells. `under_way`: the index of each request that has no end yet.
fn note(event: &Value, visit: &mut Visit, loaded: &mut bool, under_way: &mut HashMap<String, usize>) {
    let params = &event["params"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = text(&params["requestId"]);
    match event["method"].as_str().unwrap_or_default() {
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
