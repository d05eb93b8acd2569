//! The edge's own error answers: what a visitor is told, which is little, and what the log is told, which is all.

use bytes::Bytes;
use model::rate::TooMuch;
use semantics::{Fields, Why};
use website::html::escape;

use crate::answer::{Answer, Body, Head, Note};
use crate::h1::{self, BadHead};
use crate::request::Request;

/// Why the edge answers with an error of its own.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The head cannot be read; the sentence says what is wrong.
    Syntax(&'static str),
    /// The head can be read and breaks a rule: status and sentence.
    Rule(u16, &'static str),
    /// The version is not spoken.
    Version,
    /// The head is over so many bytes.
    HeadTooLarge(u64),
    /// The head has more lines than this.
    TooManyLines(usize),
    /// The request line is over so many bytes.
    TargetTooLong(u64),
    /// The head did not come in time.
    HeadTimeout,
    /// The body stopped coming.
    BodyTimeout,
    /// The body is over so many bytes.
    BodyTooLarge(u64),
    /// It was asked too often.
    TooOften(TooMuch),
    /// The client is on the block list.
    Blocked,
    /// No site has the host.
    UnknownSite,
    /// There are no sites at all: the node has not been told of any yet.
    NoSites,
    /// The rule wants a certificate of the visitor, and there is none.
    NoCertificate,
    /// The connection was made for another site than the request, and cannot show what that wants to see.
    Misdirected,
    /// The request has been here before.
    Loop,
    /// Only a stored answer was wanted and there is none.
    OnlyIfCached,
    /// More large bodies are being sent than memory has room for.
    Crowded,
    /// The origin gave no answer.
    Origin(Why),
}

impl Refusal {
    pub(crate) fn of_head(bad: BadHead) -> Self {
        match bad {
            BadHead::Version => Refusal::Version,
            BadHead::TooManyLines => Refusal::TooManyLines(semantics::fields::LINES_MAX),
            BadHead::BareLf | BadHead::Syntax => Refusal::Syntax(bad.sentence()),
        }
    }

    /// The status, by RFC 9110 §15.5 and §15.6, RFC 6585 §4 and §5, RFC 5861 §4.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Refusal::Syntax(_) => 400,
            Refusal::Rule(status, _) => *status,
            Refusal::Version => 505,
            Refusal::HeadTooLarge(_) | Refusal::TooManyLines(_) => 431,
            Refusal::TargetTooLong(_) => 414,
            Refusal::HeadTimeout | Refusal::BodyTimeout => 408,
            Refusal::BodyTooLarge(_) => 413,
            Refusal::TooOften(_) => 429,
            Refusal::Blocked => 403,
            Refusal::UnknownSite | Refusal::Misdirected => 421,
            // Another edge may know: routers take who says 500 or more for down.
            Refusal::NoSites | Refusal::Crowded => 503,
            // 401 would have to name a scheme of authentication by fields (RFC 9110 §15.5.2), which is of no use here.
            Refusal::NoCertificate => 403,
            Refusal::Loop => 508,
            Refusal::OnlyIfCached => 504,
            Refusal::Origin(Why::OriginTimeout) => 504,
            Refusal::Origin(Why::Internal) => 500,
            Refusal::Origin(Why::OriginDown | Why::OriginBudget) => 503,
            Refusal::Origin(_) => 502,
        }
    }

    pub(crate) fn why(&self) -> Why {
        match self {
            Refusal::Syntax(_) | Refusal::Rule(..) | Refusal::Version => Why::BadRequest,
            Refusal::HeadTooLarge(_)
            | Refusal::TooManyLines(_)
            | Refusal::TargetTooLong(_)
            | Refusal::HeadTimeout
            | Refusal::BodyTimeout
            | Refusal::BodyTooLarge(_)
            | Refusal::TooOften(_)
            | Refusal::Crowded => Why::Limit,
            Refusal::Blocked => Why::Blocked,
            Refusal::UnknownSite | Refusal::NoSites => Why::UnknownSite,
            Refusal::NoCertificate => Why::ClientCertificate,
            Refusal::Misdirected => Why::Misdirected,
            Refusal::Loop => Why::Loop,
            Refusal::OnlyIfCached => Why::OnlyIfCached,
            Refusal::Origin(why) => *why,
        }
    }

    /// The limit to count, when one was reached.
    pub(crate) fn limit(&self) -> Option<observe::Limit> {
        match self {
            Refusal::HeadTooLarge(_) => Some(observe::Limit::HeadBytes),
            Refusal::TooManyLines(_) => Some(observe::Limit::HeadLines),
            Refusal::TargetTooLong(_) => Some(observe::Limit::TargetBytes),
            Refusal::BodyTooLarge(_) => Some(observe::Limit::BodyBytes),
            _ => None,
        }
    }

    /// One sentence for the visitor: what to do, nothing about the inside.
    fn sentence(&self) -> String {
        match self {
            Refusal::Syntax(sentence) => format!("The request was refused: {sentence}."),
            Refusal::Rule(_, sentence) => (*sentence).to_owned(),
            Refusal::Version => "Only HTTP/1.0 and HTTP/1.1 are spoken here.".into(),
            Refusal::HeadTooLarge(max) => format!("The request head is larger than {max} bytes."),
            Refusal::TooManyLines(max) => format!("The request has more than {max} header lines."),
            Refusal::TargetTooLong(max) => format!("The request line is longer than {max} bytes."),
            Refusal::HeadTimeout => "The request head did not arrive in time.".into(),
            Refusal::BodyTimeout => "The request body did not arrive in time.".into(),
            Refusal::BodyTooLarge(max) => format!("The request body is larger than {max} bytes."),
            Refusal::TooOften(_) => "Too many requests. Please try again shortly.".into(),
            Refusal::Blocked => "This address is not served here.".into(),
            Refusal::UnknownSite => "No site of this name is served here.".into(),
            Refusal::NoSites => "No site is served here yet. Please try again shortly.".into(),
            Refusal::NoCertificate => {
                "This takes a client certificate, and none was shown. Please choose one that the site has given you.".into()
            }
            Refusal::Misdirected => {
                "This takes a connection of its own, made for the name that is asked. Please try again.".into()
            }
            Refusal::Loop => "The request came back to a node that had already passed it on.".into(),
            Refusal::OnlyIfCached => {
                "The cache holds no answer, and the request allowed nothing else.".into()
            }
            Refusal::Origin(Why::OriginTimeout) => {
                "The site did not answer in time. Please try again shortly.".into()
            }
            Refusal::Crowded => "Too much is being sent at this moment. Please try again shortly.".into(),
            Refusal::Origin(_) => "The site is not available now. Please try again shortly.".into(),
        }
    }

    /// The page: plain, small, with the request's id, never cached by anybody.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let status = self.status();
        // No page of ours shows a byte of a request unescaped; the sentences hold none today, and stay so by this.
        let (reason, sentence) = (h1::reason(status), escape(&self.sentence()));
        let id = request.id.text();
        let id = String::from_utf8_lossy(&id);
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{status} {reason}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh \
             auto;padding:0 1rem}}small{{color:#666}}</style><h1>{status} {reason}</h1><p>{sentence}</p>\
             <p><small>Request {id}</small></p></html>\n"
        );
        let mut fields = Fields::with_capacity(4, 128);
        fields.append_unchecked(b"Content-Type", b"text/html; charset=utf-8");
        fields.append_unchecked(b"Cache-Control", b"no-store");
        if status == 405 {
            fields.append_unchecked(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        if let Refusal::TooOften(refused) = self {
            let secs = refused.wait_secs();
            fields.append_unchecked(b"Retry-After", secs.to_string().as_bytes());
            // draft-ietf-httpapi-ratelimit-headers-10 §4: nothing remains, and when that changes.
            fields.append_unchecked(b"RateLimit", format!("\"requests\";r=0;t={secs}").as_bytes());
        }
        if status == 503 {
            fields.append_unchecked(b"Retry-After", b"5");
        }
        Answer {
            length: Some(page.len() as u64),
            body: Body::Bytes(Bytes::from(page)),
            ..Answer::new(status, Head::Own(fields), Note::of(self.why()))
        }
    }
}
