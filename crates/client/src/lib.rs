//! The API of a cluster's control ([`Control`]), and that of one running edge ([`Admin`]), for programs. It is what the commands of `perigee`
//! speak with.
//!
//! Blocking, one request per connection, no runtime. Answers are the JSON that `/v1/openapi.json` of a control describes, as
//! [`serde_json::Value`]: a newer control may say more, and nothing is lost on the way.
//!
//! ```no_run
//! use std::time::Duration;
//! use client::{Control, Purge};
//!
//! # fn main() -> Result<(), client::Error> {
//! let authority = "64 hex digits, as `perigee control` prints them at its start";
//! let control = Control::new("https://control-1.example:7700", authority, "pgt_…")?;
//! let purge = Purge { tags: vec!["product-17".to_owned()], reason: Some("new price".to_owned()), ..Purge::default() };
//! let accepted = control.purge(&purge)?;
//! let proof = control.await_purge(client::position(&accepted)?, Duration::from_secs(30), &mut |_| {})?;
//! assert_eq!(proof["state"], "done", "every edge in service has signed that it is in force");
//! # Ok(())
//! # }
//! ```

mod admin;
mod control;
pub mod http;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

pub use admin::Admin;
pub use control::Control;

/// What to purge. Exactly one of the forms: a URL, a prefix, tags (of one site or of all), a site, or everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Purge {
    /// One URL, with all its variants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// All URLs that begin so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// All that has one of these surrogate keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// One site, by its name; with tags, only that site's objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// All that is stored.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// Stale instead of gone.
    pub soft: bool,
    /// Why, for those who read the list of purges. An edge by itself keeps no list, and is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why there is no answer, or none that was hoped for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: Option<u16>,
    message: String,
    next: String,
}

impl Error {
    /// `message` names place, value and what was wanted; `next` is the step to take, or empty.
    pub fn new(message: impl Into<String>, next: impl Into<String>) -> Error {
        Error { status: None, message: message.into(), next: next.into() }
    }

    /// What an API of ours has refused, in its words.
    pub fn refused(status: u16, answer: &Value) -> Error {
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        let mut message = text("error").unwrap_or_else(|| format!("status {status}"));
        for key in ["found", "wanted"] {
            if let Some(said) = text(key) {
                message.push_str(&format!("; {key} {said}"));
            }
        }
        Error { status: Some(status), ..Error::new(message, text("next").unwrap_or_default()) }
    }

    /// The status of the answer that refused, or of one of a control that is not JSON; `None` where there was no answer.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// What is wrong, in a sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do; may be empty.
    pub fn next(&self) -> &str {
        &self.next
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.next.is_empty() {
            write!(f, "; {}", self.next)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The position of an accepted purge.
///
/// # Errors
/// It has none: it is not what [`Control::purge`] has returned.
pub fn position(accepted: &Value) -> Result<u64, Error> {
    accepted["position"].as_u64().ok_or_else(|| {
        Error::new("the answer to a purge has no position", "is it perigee's control that answers there?")
    })
}

/// Appends `name=value` to a query, percent-encoding everything but letters, digits and `-._~`.
pub fn push_query(target: &mut String, name: &str, value: &str) {
    target.push(if target.contains('?') { '&' } else { '?' });
    target.push_str(name);
    target.push('=');
    target.push_str(&segment(value));
}

/// A text as a segment of a path, or a value of a query.
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// JSON of an answer, or why it is none.
fn read(answer: &[u8], strange: impl Fn(&str) -> Error) -> Result<Value, Error> {
    let (status, body) = http::parse_answer(answer).map_err(&strange)?;
    let value = serde_json::from_slice(body).map_err(|_| strange("is not JSON"))?;
    accepted(status, value)
}

/// The answer, unless its status says that it is none that was hoped for.
fn accepted(status: u16, value: Value) -> Result<Value, Error> {
    if (200..300).contains(&status) { Ok(value) } else { Err(Error::refused(status, &value)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn query_values_are_encoded() {
        let mut target = "/v1/explain".to_owned();
        push_query(&mut target, "url", "http://a/?x=1&y=é");
        push_query(&mut target, "header", "K: V");
        assert_eq!(target, "/v1/explain?url=http%3A%2F%2Fa%2F%3Fx%3D1%26y%3D%C3%A9&header=K%3A%20V");
    }

    #[test]
    fn errors_of_the_api_keep_their_parts() {
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n\
            {\"error\":\"no site has the host\",\"found\":\"x.example\",\"wanted\":\"a host\",\"next\":\"add it\"}";
        let error = read(answer, |what| Error::new(what, "")).unwrap_err();
        assert_eq!(error.message(), "no site has the host; found x.example; wanted a host");
        assert_eq!((error.next(), error.status()), ("add it", Some(400)));
        assert_eq!(error.to_string(), "no site has the host; found x.example; wanted a host; add it");
        let error = read(b"SSH-2.0\r\n\r\n", |what| Error::new(what, "")).unwrap_err();
        assert_eq!((error.message(), error.status()), ("is not HTTP/1", None));
    }

    #[test]
    fn a_purge_says_what_it_means_and_no_more() {
        let purge = Purge { tags: vec!["a".to_owned()], site: Some("shop".to_owned()), ..Purge::default() };
        assert_eq!(
            serde_json::to_value(purge).unwrap(),
            json!({ "tags": ["a"], "site": "shop", "soft": false })
        );
        assert_eq!(position(&json!({ "position": 7 })), Ok(7));
        assert!(position(&json!({})).is_err());
    }
}
