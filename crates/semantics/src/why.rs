//! The closed list of reasons for each outcome. Every response that leaves the edge carries exactly one: in
//! `Cache-Status` (`detail=`), in the access log and as a metric label.

macro_rules! whys {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $outcome:ident;)*) => {
        /// Why a request ended as it did. The text form is stable: dashboards and log queries depend on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Why { $(#[doc = $doc] $name,)* }

        impl Why {
            /// All reasons, in declaration order; the index of each is `why as usize`.
            pub const ALL: &'static [Why] = &[$(Why::$name),*];

            /// The stable text form, as in `detail=` of Cache-Status.
            pub const fn as_str(self) -> &'static str { match self { $(Why::$name => $text,)* } }

            /// The family of the reason.
            pub const fn outcome(self) -> Outcome { match self { $(Why::$name => Outcome::$outcome,)* } }

            /// One sentence for people: what happened.
            pub fn sentence(self) -> &'static str { match self { $(Why::$name => $doc.trim(),)* } }
        }
    };
}

/// The family a [`Why`] belongs to: what an operator counts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// Answered from the cache without waiting for the origin.
    Hit,
    /// The origin was asked and the answer could be cached (or is a validated stored one).
    Miss,
    /// The cache was not consulted or may not keep the answer.
    Pass,
    /// Answered by the edge itself: a redirect, a preflight.
    Local,
    /// No useful answer: a refused request or a failed origin.
    Error,
}

impl Outcome {
    /// All families, in declaration order.
    pub const ALL: &'static [Outcome] =
        &[Outcome::Hit, Outcome::Miss, Outcome::Pass, Outcome::Local, Outcome::Error];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Miss => "miss",
            Outcome::Pass => "pass",
            Outcome::Local => "local",
            Outcome::Error => "error",
        }
    }
}

whys! {
    /// A fresh stored response answered.
    Fresh = "fresh", Hit;
    /// A stale stored response answered while one request revalidates it in the background (stale-while-revalidate).
    StaleWhileRevalidate = "stale-while-revalidate", Hit;
    /// A stale stored response answered because the origin failed (stale-if-error).
    StaleIfError = "stale-if-error", Hit;
    /// A stale stored response answered because the origin's budget had let the visitor wait for long enough.
    StaleBudget = "stale-budget", Hit;
    /// The body of a fill that another request had started answered.
    Collapsed = "collapsed", Hit;
    /// The stored response had gone stale; the origin confirmed it with 304.
    Revalidated = "revalidated", Miss;
    /// Nothing was stored under the key.
    Absent = "absent", Miss;
    /// Something was stored, but for other values of the headers that Vary names.
    Variant = "variant", Miss;
    /// The stored response had gone stale and the origin sent a new one.
    Expired = "expired", Miss;
    /// A hard purge had removed the stored response.
    Purged = "purged", Miss;
    /// The client's Cache-Control asked for an answer newer than the stored one.
    RequestDirective = "request-directive", Miss;
    /// Only a part of the representation was stored, and not all that was asked for.
    Partial = "partial", Miss;
    /// The origin was asked and its answer may not be stored.
    Uncacheable = "uncacheable", Pass;
    /// The origin's answer is larger than the cache keeps.
    TooLarge = "too-large", Pass;
    /// An earlier answer under this key could not be stored, so nobody queues behind it.
    HitForMiss = "hit-for-miss", Pass;
    /// The method is never answered from the cache.
    Method = "method", Pass;
    /// A rule says that this path is not cached.
    Rule = "rule", Pass;
    /// The connection was handed to the origin (Upgrade).
    Upgrade = "upgrade", Pass;
    /// A rule answered with a redirect.
    Redirect = "redirect", Local;
    /// A certificate authority that looks whose a domain is got its answer (RFC 8555).
    Challenge = "challenge", Local;
    /// The beacon: its script, what it times, or what it reports.
    Beacon = "beacon", Local;
    /// A CORS preflight was answered by rule, or OPTIONS that may go no further (Max-Forwards).
    Preflight = "preflight", Local;
    /// The client wanted only a stored response and there was none (only-if-cached, RFC 9111 §5.2.1.7).
    OnlyIfCached = "only-if-cached", Local;
    /// The request broke HTTP's rules and was refused.
    BadRequest = "bad-request", Error;
    /// The request was over a limit and was refused.
    Limit = "limit", Error;
    /// The client's address is on the block list.
    Blocked = "blocked", Error;
    /// No site of the configuration has this host.
    UnknownSite = "unknown-site", Error;
    /// A rule wants visitors to show a certificate, and this one has shown none.
    ClientCertificate = "client-certificate", Error;
    /// The connection was made for another site than the request, which wants to see a certificate (RFC 9110 §15.5.20).
    Misdirected = "misdirected", Error;
    /// The request has come through this edge before (CDN-Loop, RFC 8586).
    Loop = "loop", Error;
    /// No connection to the origin could be made.
    OriginConnect = "origin-connect", Error;
    /// The origin did not answer in time.
    OriginTimeout = "origin-timeout", Error;
    /// The origin's answer broke HTTP's rules or ended early.
    OriginProtocol = "origin-protocol", Error;
    /// The origin is failing and its breaker is open.
    OriginDown = "origin-down", Error;
    /// The origin's budget is used up, and others came first.
    OriginBudget = "origin-budget", Error;
    /// The client went away before the answer was complete.
    ClientGone = "client-gone", Error;
    /// A fault of the edge itself; the log has the rest.
    Internal = "internal", Error;
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
