//! A response and what may be demanded of it. Every check names the exchange when it fails.

use crate::wire::{End, Response};

/// Longest body that is shown when it is not what was expected; of longer ones the first wrong byte is told.
const SHOWN_BYTES_MAX: usize = 4096;

/// A response that was read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    said: String,
    response: Response,
}

impl Answer {
    pub(super) fn new(said: &[u8], response: Response) -> Answer {
        Answer { said: String::from_utf8_lossy(said).into_owned(), response }
    }

    /// The status.
    #[track_caller]
    pub fn status(self, status: u16) -> Self {
        assert_eq!(self.response.head.status(), status, "status of\n{}", self.exchange());
        self
    }

    /// The status is one of these.
    #[track_caller]
    pub fn status_in(self, statuses: &[u16]) -> Self {
        let status = self.response.head.status();
        assert!(statuses.contains(&status), "status {status} is none of {statuses:?}\n{}", self.exchange());
        self
    }

    /// The body byte for byte, ended as its framing says.
    #[track_caller]
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        let (got, body) = (self.response.body.bytes.as_slice(), body.as_ref());
        if got.len().max(body.len()) <= SHOWN_BYTES_MAX {
            let (got, body) = (String::from_utf8_lossy(got), String::from_utf8_lossy(body));
            assert_eq!(got, body, "body of\n{}", self.exchange());
        }
        self.begins(body);
        assert_eq!(got.len(), body.len(), "length of the body of\n{}", self.exchange());
        self.whole()
    }

    /// What came of the body is a beginning of `body`, or more.
    #[track_caller]
    fn begins(&self, body: &[u8]) {
        let got = &self.response.body.bytes;
        let wrong = got.iter().zip(body).position(|(got, wanted)| got != wanted);
        assert_eq!(wrong, None, "first wrong byte of the body of\n{}", self.exchange());
    }

    /// The body broke off, and what came is the beginning of `body`.
    #[track_caller]
    pub fn cut_from(self, body: impl AsRef<[u8]>) -> Self {
        self.begins(body.as_ref());
        self.cut()
    }

    /// The body ended as its framing says.
    #[track_caller]
    pub fn whole(self) -> Self {
        assert_eq!(self.response.body.end, End::Whole, "end of the body of\n{}", self.exchange());
        self
    }

    /// The body did not end as its framing says: the client can tell that it is not whole.
    #[track_caller]
    pub fn cut(self) -> Self {
        assert_eq!(self.response.body.end, End::Cut, "end of the body of\n{}", self.exchange());
        self
    }

    /// A field's value; several lines are joined by `", "`.
    #[track_caller]
    pub fn header(self, name: &str, value: &str) -> Self {
        assert_eq!(self.response.head.field(name).as_deref(), Some(value), "{name} of\n{}", self.exchange());
        self
    }

    /// A field whose value contains `part`.
    #[track_caller]
    pub fn header_has(self, name: &str, part: &str) -> Self {
        let value = self.response.head.field(name).unwrap_or_default();
        assert!(value.contains(part), "{name} without {part:?} in\n{}", self.exchange());
        self
    }

    /// No such field.
    #[track_caller]
    pub fn no_header(self, name: &str) -> Self {
        assert_eq!(self.response.head.field(name), None, "{name} of\n{}", self.exchange());
        self
    }

    /// `detail` in the edge's member of Cache-Status.
    #[track_caller]
    pub fn why(self, why: &str) -> Self {
        assert_eq!(self.detail().as_deref(), Some(why), "why of\n{}", self.exchange());
        self
    }

    /// `detail` is one of these.
    #[track_caller]
    pub fn why_in(self, whys: &[&str]) -> Self {
        let why = self.detail().unwrap_or_default();
        assert!(whys.contains(&why.as_str()), "why {why:?} is none of {whys:?}\n{}", self.exchange());
        self
    }

    /// The Age field.
    #[track_caller]
    pub fn age(self, secs: u64) -> Self {
        self.header("age", &secs.to_string())
    }

    /// The statuses of the interim responses before it.
    #[track_caller]
    pub fn interim(self, statuses: &[u16]) -> Self {
        let got: Vec<u16> = self.response.interim.iter().map(|head| head.status()).collect();
        assert_eq!(got, statuses, "interim responses of\n{}", self.exchange());
        self
    }

    /// The response as it came.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.response.body.bytes).into_owned()
    }

    /// The last member's `detail` parameter: the edge writes its member last.
    fn detail(&self) -> Option<String> {
        let status = self.response.head.field("cache-status")?;
        let member = status.rsplit(", ").next()?;
        let detail = member.split(';').find_map(|parameter| parameter.trim().strip_prefix("detail="))?;
        Some(detail.trim_matches('"').to_owned())
    }

    fn exchange(&self) -> String {
        let head = String::from_utf8_lossy(&self.response.head.raw);
        let body = String::from_utf8_lossy(&self.response.body.bytes);
        let said: String = self.said.chars().take(2000).collect();
        let body: String = body.chars().take(500).collect();
        format!("--- sent\n{}\n--- received\n{}\n\n{body}", said.trim_end(), head.trim_end())
    }
}
