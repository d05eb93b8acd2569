//! The public HTTP cache-tests definitions as data: what one test sends, what its origin answers, what is expected.
//!
//! Field names are those of the definitions' schema. A field that this runner does not know is an error, so that a
//! newer set of definitions cannot pass by being half understood.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// Tests on one subject.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Group {
    /// For people.
    pub(super) name: String,
    /// The tests in the order of the file.
    pub(super) tests: Vec<Test>,
}

/// One test: a list of requests on one fresh URL, in order.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Test {
    /// Unique over all groups.
    pub(super) id: String,
    /// One sentence.
    pub(super) name: String,
    /// What failing means.
    #[serde(default)]
    pub(super) kind: Kind,
    /// Not for proxies.
    #[serde(default)]
    pub(super) browser_only: bool,
    /// Tests that must pass for this one to count.
    #[serde(default)]
    pub(super) depends_on: Vec<String>,
    /// The script.
    pub(super) requests: Vec<Step>,
}

/// What a test's result means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A requirement of an RFC.
    #[default]
    Required,
    /// What a good cache does.
    Optimal,
    /// Behaviour worth knowing; no answer is wrong.
    Check,
}

impl Kind {
    /// As in the result line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Required => "required",
            Kind::Optimal => "optimal",
            Kind::Check => "check",
        }
    }
}

/// A header of a script: name, value (a number stands for a date so many seconds from now), and whether the origin
/// remembers it to be compared with what the client got.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Vec<Value>")]
pub(super) struct Line {
    /// Field name in the case it is sent in.
    pub(super) name: String,
    /// Field value.
    pub(super) value: Value,
    /// `false`: not compared.
    pub(super) remembered: bool,
}

impl From<Vec<Value>> for Line {
    fn from(parts: Vec<Value>) -> Line {
        Line {
            name: parts.first().and_then(Value::as_str).unwrap_or_default().to_owned(),
            value: parts.get(1).cloned().unwrap_or(Value::Null),
            remembered: parts.get(2).is_none_or(|third| third == &Value::Bool(true)),
        }
    }
}

/// A header that is expected to be there, or not to be there: a name; a name and a value; a name, `=` or `>`, and
/// what to compare with.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Expected {
    /// Present, whatever its value.
    Name(String),
    /// Two or three parts.
    Parts(Vec<Value>),
}

/// What kind of answer is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// Stored by the cache; the origin does not see the request.
    Cached,
    /// From the origin.
    NotCached,
    /// Stored, after the origin answered If-None-Match with 304.
    EtagValidated,
    /// Stored, after the origin answered If-Modified-Since with 304.
    LmValidated,
}

/// One request of a test and the origin's answer to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Step {
    /// Default GET.
    pub(super) request_method: Option<String>,
    /// Sent by the client.
    pub(super) request_headers: Vec<Line>,
    /// Sent by the client.
    pub(super) request_body: Option<String>,
    /// Added to the URL after `?`.
    pub(super) query_arg: Option<String>,
    /// Added to the URL's path.
    pub(super) filename: Option<String>,
    /// If-Modified-Since is a number relative to the origin's time at the previous response.
    pub(super) magic_ims: bool,
    /// Location and Content-Location are relative to the request's URL.
    pub(super) magic_locations: bool,
    /// Date headers (lower case) in the format of RFC 850.
    pub(super) rfc850date: Vec<String>,
    /// Wait three seconds after this request.
    pub(super) pause_after: Option<bool>,
    /// The origin closes the connection instead of answering.
    pub(super) disconnect: bool,
    /// The origin waits so many seconds before it answers.
    pub(super) response_pause: Option<u64>,
    /// 1xx responses before the final one: `[status]` or `[status, headers]`.
    pub(super) interim_responses: Vec<Vec<Value>>,
    /// Status and phrase.
    pub(super) response_status: Option<(u16, String)>,
    /// Sent by the origin.
    pub(super) response_headers: Vec<Line>,
    /// Sent by the origin; without it the test's own unique text.
    pub(super) response_body: Option<String>,
    /// `false`: the client does not look at the body.
    pub(super) check_body: Option<bool>,
    /// Where the answer must come from.
    pub(super) expected_type: Option<Source>,
    /// Method that the origin must see.
    pub(super) expected_method: Option<String>,
    /// Status that the client must see; `null`: any.
    #[serde(deserialize_with = "present")]
    pub(super) expected_status: Option<Option<u16>>,
    /// What the origin must see.
    pub(super) expected_request_headers: Vec<Expected>,
    /// What the origin must not see.
    pub(super) expected_request_headers_missing: Vec<Expected>,
    /// What the client must see.
    pub(super) expected_response_headers: Vec<Expected>,
    /// What the client must not see.
    pub(super) expected_response_headers_missing: Vec<Expected>,
    /// 1xx responses that the client must see.
    pub(super) expected_interim_responses: Option<Vec<Vec<Value>>>,
    /// Body that the client must see; `null`: any.
    #[serde(deserialize_with = "present")]
    pub(super) expected_response_text: Option<Option<String>>,
    /// Failing here says nothing about the subject of the test.
    pub(super) setup: bool,
    /// As `setup`, for these expectations only.
    pub(super) setup_tests: Vec<String>,
    /// `manual`: never followed here either way.
    pub(super) redirect: Option<String>,
    /// Browsers only.
    pub(super) mode: Option<String>,
    /// Browsers only.
    pub(super) credentials: Option<String>,
    /// Browsers only.
    pub(super) cache: Option<String>,
}

impl Step {
    /// Whether a failure of `expectation` is a failure of the setup.
    pub(super) fn is_setup(&self, expectation: &str) -> bool {
        self.setup || self.setup_tests.iter().any(|name| name == expectation)
    }

    /// The method sent.
    pub(super) fn method(&self) -> &str {
        self.request_method.as_deref().unwrap_or("GET")
    }
}

/// Tells `null` from absent: `Some(None)` and `None`.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Reads the definitions; tests that are not for proxies are left out.
pub(super) fn load(path: &Path) -> Result<Vec<Group>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut groups: Vec<Group> =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    for group in &mut groups {
        group.tests.retain(|test| !test.browser_only);
    }
    Ok(groups)
}
