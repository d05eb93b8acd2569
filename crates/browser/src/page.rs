//! One tab, in a profile of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::Error;
use crate::link::{Event, Link};

/// One tab. Its profile lives as long: visits of the same page share cookies and cache.
pub struct Page {
    link: Arc<Link>,
    context: String,
    session: String,
    events: mpsc::Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl Page {
    pub(crate) async fn open(link: Arc<Link>) -> Result<Page, Error> {
        let text = |answer: &Value, method, key: &'static str| {
            answer[key].as_str().map(str::to_owned).ok_or(Error::Strange(method, key))
        };
        let made = link.call(None, "Target.createBrowserContext", json!({ "disposeOnDetach": true })).await?;
        let context = text(&made, "Target.createBrowserContext", "browserContextId")?;
        let blank = json!({ "url": "about:blank", "browserContextId": context });
        let made = link.call(None, "Target.createTarget", blank).await?;
        let target = text(&made, "Target.createTarget", "targetId")?;
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = link.call(None, "Target.attachToTarget", attach).await?;
        let session = text(&attached, "Target.attachToTarget", "sessionId")?;
        let (events, lost) = link.follow(&session);
        Ok(Page { link, context, session, events, lost })
    }

    /// Calls a method of the protocol in this page.
    pub async fn call(&self, method: &'static str, params: Value) -> Result<Value, Error> {
        self.link.call(Some(&self.session), method, params).await
    }

    /// The next event of a domain that was enabled (`Network.enable`, …); `None` when the page or its browser has ended.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Events that were dropped because nobody read them in time.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Throws away the events that have come.
    pub fn forget_events(&mut self) {
        while self.events.try_recv().is_ok() {}
    }

    /// The value of an expression in the page; of a promise, what it comes to. An exception is a refusal.
    pub async fn evaluate(&self, expression: &str) -> Result<Value, Error> {
        const METHOD: &str = "Runtime.evaluate";
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call(METHOD, asked).await?;
        if let Some(exception) = answer.get("exceptionDetails") {
            let thrown = exception["exception"]["description"].as_str().or(exception["text"].as_str());
            return Err(Error::Refused(METHOD, thrown.unwrap_or("an exception").to_owned()));
        }
        Ok(answer["result"]["value"].take())
    }

    /// What the whole page looks like now, however long, as a PNG in base64.
    pub async fn screenshot_of_all(&self) -> Result<String, Error> {
        const METHOD: &str = "Page.captureScreenshot";
        let how = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.call(METHOD, how).await?;
        answer["data"].as_str().map(str::to_owned).ok_or(Error::Strange(METHOD, "data"))
    }

    /// Closes it and forgets its profile.
    pub async fn close(self) -> Result<(), Error> {
        self.link.leave(&self.session);
        let context = json!({ "browserContextId": self.context });
        self.link.call(None, "Target.disposeBrowserContext", context).await.map(drop)
    }
}
