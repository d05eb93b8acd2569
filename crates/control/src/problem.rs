//! What the API answers when it cannot do what it was asked: one shape for all of it.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::diagnostic::{Mistake, did_you_mean, few, shown};
use serde::Serialize;
use utoipa::ToSchema;

use crate::configurations::Finding;

/// Seconds after which another try makes sense while the journal cannot be reached.
const JOURNAL_RETRY_SECS: u64 = 2;

/// What is wanted where there is nothing that could be named.
pub(crate) const NONE_YET: &str = "an existing one; there is none yet";

/// An error, as every path answers it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    #[serde(skip)]
    retry_after_secs: Option<u16>,
    /// What is wrong.
    error: String,
    /// The value that was found.
    found: Option<String>,
    /// What was wanted instead.
    wanted: Option<String>,
    /// What to do.
    next: Option<String>,
    /// What is wrong with a configuration, each with its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnostics: Option<Box<[Finding]>>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Problem {
            status,
            retry_after_secs: None,
            error: error.into(),
            found: None,
            wanted: None,
            next: None,
            diagnostics: None,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// 400.
    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, error)
    }

    /// 400: what was given under this name is not what it should be.
    pub(crate) fn mistake(name: &str, found: &str, mistake: Mistake) -> Self {
        Problem::bad(format!("{name} {}", mistake.error))
            .found(shown(found))
            .wanted(mistake.wanted)
            .next(mistake.next)
    }

    pub(crate) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(crate) fn wanted(mut self, wanted: impl Into<String>) -> Self {
        self.wanted = Some(wanted.into());
        self
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn diagnostics(mut self, diagnostics: Vec<Finding>) -> Self {
        self.diagnostics = Some(diagnostics.into());
        self
    }

    /// Seconds after which it is worth another try.
    pub(crate) fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(u16::try_from(secs).unwrap_or(u16::MAX));
        self
    }

    /// A name that is not among those there are. `next`: the step to take where it is none of them misspelt.
    pub(crate) fn unknown<'a>(
        error: &str,
        found: &str,
        known: impl Iterator<Item = &'a str>,
        next: &str,
    ) -> Problem {
        let known: BTreeSet<&str> = known.collect();
        let problem = Problem::new(StatusCode::NOT_FOUND, error).found(format!("{found:?}"));
        let problem = match few(known.iter().copied()) {
            names if names.is_empty() => problem.wanted(NONE_YET),
            names => problem.wanted(names),
        };
        match did_you_mean(found, known) {
            Some(close) => problem.next(format!("did you mean {close:?}?")),
            None => problem.next(next),
        }
    }
}

impl From<journal::Error> for Problem {
    fn from(error: journal::Error) -> Self {
        use journal::Error;
        let text = error.to_string();
        match error {
            Error::Conflict(_) => Problem::new(StatusCode::CONFLICT, text)
                .next("nothing was written; look again, and repeat it"),
            Error::Trimmed(_) => Problem::new(StatusCode::GONE, text),
            Error::Unavailable(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
                .retry_after(JOURNAL_RETRY_SECS)
                .next("nothing was changed; look after the journal's engine, and repeat it"),
            Error::Unknown(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
                .retry_after(JOURNAL_RETRY_SECS)
                .next("it may be in force or not; repeat it with the same Idempotency-Key, or look first"),
            Error::Broken(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
                .next("trying again is of no use; correct what it says"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after_secs) = (self.status, self.retry_after_secs);
        let mut response = (status, Json(self)).into_response();
        if let Some(secs) = retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, secs.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"perigee control\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
