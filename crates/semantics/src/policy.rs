//! What one rule of the configuration says about caching. Built by `model`, read by the other modules here: plain data
//! without behaviour of its own. [`Policy::default`] means "HTTP decides" (RFC 9111, stricter for Set-Cookie).
//!
//! # Who wins: how long a response is fresh
//!
//! From strongest to weakest; the first that applies decides alone:
//!
//! 1. [`Policy::ttl_by_status`], the first range that holds the status.
//! 2. [`Policy::ttl`], for statuses 200, 203, 204, 206, 300, 301 and 308 only. A rule that says "30 days" means the page,
//!    not the error or the temporary redirect in its place; those follow the origin or `ttl_by_status`.
//! 3. The first field of [`Policy::targeted`] that is present and valid (RFC 9213): `s-maxage`, then `max-age` in it.
//!    Cache-Control and Expires are then as if absent.
//! 4. Cache-Control: `s-maxage`, then `max-age`.
//! 5. Expires.
//! 6. [`Policy::heuristic`], when nothing above is present.
//!
//! With [`Policy::ttl_overrides`] off, 1 and 2 stand between 5 and 6: they hold for what the origin says no lifetime of, as nginx's
//! `proxy_cache_valid`, CloudFront's default TTL and Varnish's `default_ttl` do. `no-cache` then counts.
//!
//! With [`Policy::heeds_no_cache`] on, an answer that says `no-cache` is treated as if `ttl_overrides` were off: so Varnish's own program has it.
//! [`Policy::ttl_max`] cuts what 3 to 6 give, as CloudFront's maximum TTL does; it lengthens nothing.
//!
//! A rule's ttl (1, 2) counts from the moment the response arrived here, whatever its Age and Date say: the operator
//! means time at this edge, and an origin with a wrong clock must not undo that. It also replaces `no-cache`, as it
//! does with CloudFront's minimum TTL and with a TTL set in VCL.
//!
//! # What a rule's ttl does not override
//!
//! `no-store`, `private`, Set-Cookie, Authorization and `Vary: *` keep a response out of the cache whatever the ttl:
//! they say *whose* the response is, not how long it lasts, and a path pattern that is too wide must not share one
//! visitor's page with the next. Each has a word of its own that lifts it: [`Policy::set_cookie`],
//! [`Policy::share_authorized`]; for `private` and `no-store` it is a targeted field from the origin
//! (`Perigee-Cache-Control: max-age=60`).
//!
//! # Who wins: how long a stale response may answer
//!
//! [`Policy::stale_while_revalidate`] and [`Policy::stale_if_error`] beat the directives of the same names in the
//! response (RFC 5861). `must-revalidate`, `proxy-revalidate` and `no-cache` forbid stale answers altogether (RFC 9111
//! §4.2.4), unless a rule's ttl has replaced the origin's freshness *and* the rule names the window. A bare `s-maxage`
//! forbids them too (it implies `proxy-revalidate`, §5.2.2.10), but not where the same field, or the rule, names a
//! window: origins write `s-maxage=60, stale-while-revalidate=600` and mean it.

use crate::vary::Normalise;
use std::ops::RangeInclusive;

/// One rule's choices about caching. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a good answer is fresh, whatever its headers say; see the module's text. Zero stores, and revalidates
    /// on every use.
    pub ttl: Option<u64>,
    /// The same for ranges of statuses, errors among them (negative caching). The first match counts. Zero does not store: a stale
    /// error, or redirect, is nothing to answer with.
    pub ttl_by_status: Vec<(RangeInclusive<u16>, u64)>,
    /// Whether `ttl` and `ttl_by_status` replace what the response says of its lifetime; else they stand in where it says nothing.
    pub ttl_overrides: bool,
    /// Whether they leave an answer alone that says `no-cache`.
    pub heeds_no_cache: bool,
    /// Longest time for which what is fresh by the response's own word, or by guess, is fresh here, from its arrival.
    pub ttl_max: Option<u64>,
    /// How long after its end of freshness a response may answer while it is fetched anew (RFC 5861 §3). `None` leaves
    /// it to the response; zero forbids it.
    pub stale_while_revalidate: Option<u64>,
    /// How long after its end of freshness a response may answer because the origin fails (RFC 5861 §4). `None` leaves
    /// it to the response, and to [`UNREACHABLE_SECS`] when no connection can be had; zero forbids both.
    pub stale_if_error: Option<u64>,
    /// What becomes of a response with Set-Cookie.
    pub set_cookie: SetCookie,
    /// Names of response fields that speak to this cache before Cache-Control does, most important first (RFC 9213).
    pub targeted: Vec<String>,
    /// Freshness when the origin says nothing.
    pub heuristic: Heuristic,
    /// Whether clients may ask for newer answers than the stored ones.
    pub request_cache_control: RequestCacheControl,
    /// Whether answers to requests with Authorization may be shared although the origin does not say so.
    pub share_authorized: bool,
    /// How spellings of request headers are made equal before forwarding and keying.
    pub vary_normalise: Vec<(String, Normalise)>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            ttl: None,
            ttl_by_status: Vec::new(),
            ttl_overrides: true,
            heeds_no_cache: false,
            ttl_max: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            set_cookie: SetCookie::Refuse,
            targeted: vec!["Perigee-Cache-Control".into(), "CDN-Cache-Control".into()],
            heuristic: Heuristic::default(),
            request_cache_control: RequestCacheControl::Ignore,
            share_authorized: false,
            vary_normalise: Vec::new(),
        }
    }
}

/// What becomes of a response that sets a cookie. The first visitor always gets the line; this is about the stored copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Not stored, unless the origin says that it is for all: `public`, `s-maxage`, or a targeted field with a lifetime.
    /// A session cookie that is handed to everyone is the worst thing a cache can do, and origins set them by accident.
    #[default]
    Refuse,
    /// Stored and sent to everyone as RFC 9111 §7.3 allows.
    Rfc9111,
    /// Stored without its Set-Cookie lines.
    Strip,
    /// Not stored, whatever the origin says.
    Never,
}

/// What clients may ask with Cache-Control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestCacheControl {
    /// `no-cache`, `max-age`, `min-fresh`, `no-store` and Pragma are passed over, as in CloudFront, Fastly, Varnish and
    /// nginx: whoever reloads must not be able to make the origin work. What spares the origin is honoured
    /// (`only-if-cached`, `max-stale`).
    #[default]
    Ignore,
    /// All of RFC 9111 §5.2.1.
    Honour,
}

/// Freshness by guess (RFC 9111 §4.2.2): a part of the time for which the response had not changed when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heuristic {
    /// Per cent of Date − Last-Modified; zero turns guessing off.
    pub fraction_percent: u8,
    /// Longest guess.
    pub max_secs: u64,
}

impl Default for Heuristic {
    /// 10 % as RFC 9111 suggests, at most [`HEURISTIC_SECS_MAX`].
    fn default() -> Self {
        Heuristic { fraction_percent: 10, max_secs: HEURISTIC_SECS_MAX }
    }
}

/// Longest lifetime by guess unless configured: one day, CloudFront's default TTL. Guessing longer makes mistakes that
/// nobody notices for a week.
pub const HEURISTIC_SECS_MAX: u64 = 86_400;

/// How long a stale response may answer while its origin cannot be reached at all, when neither rule nor response says
/// so. RFC 9111 §4.2.4 allows it to a cache that is disconnected; a day is how long an outage is bridged by default.
pub const UNREACHABLE_SECS: u64 = 86_400;
