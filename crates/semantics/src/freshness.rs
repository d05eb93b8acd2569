//! How old a response is and how long it stays fresh (RFC 9111 §4.2), as a few numbers that are kept beside the stored
//! response: [`Facts`]. Made by [`crate::decide_store`], read on every hit by [`crate::decide_reuse`].
//!
//! ```text
//!            initial_age         here
//!        |───────────────|──────────────|
//!   generated      response_time       now          age = initial_age + (now − response_time)
//!        |─────── lifetime ───────|                 fresh while age < lifetime
//!                                 |── swr ──|
//!                                 |── stale-if-error ──|
//! ```
//!
//! The age on arrival is the larger of what Date shows and what Age and the time of the fetch add up to (§4.2.3): an
//! answer that lay in a cache which does not say so is not taken for new. Date is cut to whole seconds, so up to a
//! second of the difference is taken as rounding.

use crate::directives::{ResponseDirectives, SECS_MAX, Scope, delta_seconds};
use crate::fields::trim;
use crate::{Fields, Policy, Wall, date};

/// What must be known of a stored response to decide about its reuse. 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When its last header byte arrived, or when it was last confirmed by 304.
    pub response_time: Wall,
    /// Its age at that moment, in milliseconds (`corrected_initial_age`).
    pub initial_age_ms: u64,
    /// Seconds of freshness, counted from its generation.
    pub lifetime: u32,
    /// Seconds of stale-while-revalidate that the response itself allows.
    pub stale_while_revalidate: u32,
    /// Seconds of stale-if-error that the response itself allows.
    pub stale_if_error: u32,
    /// Its status.
    pub status: u16,
    /// Where the lifetime comes from.
    pub source: LifetimeSource,
    /// What else it says.
    pub flags: Flags,
}

/// Where a lifetime comes from. `u8` is the place in `Policy::targeted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The rule's `ttl`.
    Rule,
    /// The rule's ttl for this status.
    RuleForStatus,
    /// The rule's ttl, for the status or for all, because the response says nothing.
    RuleForSilence,
    /// `s-maxage` in a targeted field.
    TargetedSMaxage(u8),
    /// `max-age` in a targeted field.
    TargetedMaxAge(u8),
    /// `s-maxage` in Cache-Control.
    SMaxage,
    /// `max-age` in Cache-Control.
    MaxAge,
    /// Expires.
    Expires,
    /// A part of Date − Last-Modified.
    Heuristic,
    /// Nothing gave one: it is zero.
    Nothing,
}

impl LifetimeSource {
    /// Whether the rule set the lifetime, in place of what the origin said.
    pub const fn is_rule(self) -> bool {
        matches!(self, LifetimeSource::Rule | LifetimeSource::RuleForStatus)
    }

    fn to_bytes(self) -> [u8; 2] {
        match self {
            LifetimeSource::Rule => [0, 0],
            LifetimeSource::RuleForStatus => [1, 0],
            LifetimeSource::TargetedSMaxage(place) => [2, place],
            LifetimeSource::TargetedMaxAge(place) => [3, place],
            LifetimeSource::SMaxage => [4, 0],
            LifetimeSource::MaxAge => [5, 0],
            LifetimeSource::Expires => [6, 0],
            LifetimeSource::Heuristic => [7, 0],
            LifetimeSource::Nothing => [8, 0],
            LifetimeSource::RuleForSilence => [9, 0],
        }
    }

    fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        Some(match bytes {
            [0, 0] => LifetimeSource::Rule,
            [1, 0] => LifetimeSource::RuleForStatus,
            [2, place] => LifetimeSource::TargetedSMaxage(place),
            [3, place] => LifetimeSource::TargetedMaxAge(place),
            [4, 0] => LifetimeSource::SMaxage,
            [5, 0] => LifetimeSource::MaxAge,
            [6, 0] => LifetimeSource::Expires,
            [7, 0] => LifetimeSource::Heuristic,
            [8, 0] => LifetimeSource::Nothing,
            [9, 0] => LifetimeSource::RuleForSilence,
            _ => return None,
        })
    }

    /// Whether the origin set the lifetime by name.
    pub const fn is_explicit(self) -> bool {
        !self.is_rule()
            && !matches!(
                self,
                LifetimeSource::RuleForSilence | LifetimeSource::Heuristic | LifetimeSource::Nothing
            )
    }
}

/// A set of properties of a stored response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Nothing.
    pub const NONE: Flags = Flags(0);
    /// Use only after validation.
    pub const NO_CACHE: Flags = Flags(1);
    /// `must-revalidate`, `proxy-revalidate` or `no-cache`: stale answers are forbidden.
    pub const NEVER_STALE: Flags = Flags(1 << 1);
    /// `s-maxage`: stale answers are forbidden unless a window is named.
    pub const STALE_IF_NAMED: Flags = Flags(1 << 2);
    /// The response names a stale-if-error window (which may be zero).
    pub const STALE_IF_ERROR: Flags = Flags(1 << 3);
    /// Will not change while fresh.
    pub const IMMUTABLE: Flags = Flags(1 << 4);
    /// Has a strong entity tag.
    pub const STRONG_ETAG: Flags = Flags(1 << 5);
    /// Has a weak entity tag.
    pub const WEAK_ETAG: Flags = Flags(1 << 6);
    /// Has a Last-Modified that is a date.
    pub const LAST_MODIFIED: Flags = Flags(1 << 7);
    /// Was fetched by a request with Authorization, or sets a cookie: it may have been made for one visitor, and is shared
    /// because response or rule says so.
    pub const PERSONAL: Flags = Flags(1 << 8);

    /// Whether any of `flags` is in the set.
    pub const fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 != 0
    }

    /// Both sets together.
    pub const fn with(self, flags: Flags) -> Flags {
        Flags(self.0 | flags.0)
    }

    /// `flags` added when `condition` holds.
    pub const fn with_if(self, condition: bool, flags: Flags) -> Flags {
        if condition { self.with(flags) } else { self }
    }
}

impl Facts {
    /// Seconds since the response was generated, as in Age (RFC 9111 §5.1).
    pub const fn age(&self, now: Wall) -> u64 {
        let here = now.0.saturating_sub(self.response_time.0);
        let here = if here < 0 { 0 } else { here as u64 };
        self.initial_age_ms.saturating_add(here) / 1000
    }

    /// Seconds of freshness that are left; zero or less when stale.
    pub fn ttl(&self, now: Wall) -> i64 {
        i64::from(self.lifetime) - i64::try_from(self.age(now)).unwrap_or(i64::MAX)
    }

    /// The same for something that is fresh for no more than `secs` after its arrival, as the cache behind this one has said;
    /// negative when it was stale there. What that counts from its own arrival (a rule's ttl) must not begin anew here.
    #[must_use]
    pub fn fresh_for_at_most(self, secs: i64) -> Facts {
        let age_secs = i64::try_from(self.initial_age_ms / 1000).unwrap_or(i64::MAX);
        let end = age_secs.saturating_add(secs).clamp(0, i64::from(u32::MAX));
        Facts { lifetime: self.lifetime.min(end as u32), ..self }
    }

    /// Whether the origin can be asked "has it changed?".
    pub const fn has_validator(&self) -> bool {
        self.flags.has(Flags::STRONG_ETAG.with(Flags::WEAK_ETAG).with(Flags::LAST_MODIFIED))
    }

    /// The facts as 40 bytes, for storing: numbers little-endian, in the order of the fields.
    pub fn to_bytes(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&self.response_time.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.initial_age_ms.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.lifetime.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.stale_while_revalidate.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.stale_if_error.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.status.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.source.to_bytes());
        bytes[32..34].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes
    }

    /// Reads back what [`Facts::to_bytes`] has made; `None` for anything that it cannot have made.
    pub fn from_bytes(bytes: &[u8; 40]) -> Option<Facts> {
        let half = |at: usize| [bytes[at], bytes[at + 1]];
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let double = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let is_clean = bytes[34..].iter().all(|byte| *byte == 0);
        is_clean.then_some(Facts {
            response_time: Wall(double(0).cast_signed()),
            initial_age_ms: double(8),
            lifetime: word(16),
            stale_while_revalidate: word(20),
            stale_if_error: word(24),
            status: u16::from_le_bytes(half(28)),
            source: LifetimeSource::from_bytes(half(30))?,
            flags: Flags(u16::from_le_bytes(half(32))),
        })
    }

    /// The same response as just confirmed by its origin, but for this one use: stale at once and never used stale.
    /// For those who waited for a validation whose 304 says that the response may no longer be kept.
    #[must_use]
    pub const fn confirmed(mut self, response_time: Wall) -> Facts {
        self.response_time = response_time;
        self.initial_age_ms = 0;
        self.lifetime = 0;
        self.source = LifetimeSource::Nothing;
        self.flags = self.flags.with(Flags::NO_CACHE).with(Flags::NEVER_STALE);
        self
    }
}

// --- Age on arrival ---

/// `corrected_initial_age` in milliseconds. RFC 9111 §4.2.3.
pub(crate) fn initial_age_ms(response: &Fields, request_time: Wall, response_time: Wall) -> u64 {
    let since = |moment: Wall| u64::try_from(response_time.0.saturating_sub(moment.0)).unwrap_or(0);
    let apparent = date_of(response, response_time).map_or(0, |date| since(date).saturating_sub(999));
    let corrected = u64::from(age_value(response)) * 1000 + since(request_time);
    apparent.max(corrected)
}

/// The first member of Age, in seconds; zero when there is none or it is not all digits (RFC 9111 §5.1).
pub(crate) fn age_value(response: &Fields) -> u32 {
    let first = response.get("age").and_then(|value| value.split(|&byte| byte == b',').next()).map(trim);
    first.and_then(delta_seconds).unwrap_or(0)
}

/// The moment in Date, when it is one.
pub(crate) fn date_of(response: &Fields, now: Wall) -> Option<Wall> {
    response.get("date").and_then(|value| date::parse(value, now))
}

// --- Lifetime ---

/// Statuses that may be kept by guess when the origin says nothing (RFC 9110 §15.1).
pub const fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Statuses that a rule's plain `ttl` is about; see `policy.rs`.
const fn is_good(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308)
}

/// `freshness_lifetime` in seconds and where it comes from; the order is in `policy.rs`. RFC 9111 §4.2.1, §4.2.2.
///
/// - `initial_age_ms`: a rule's ttl counts from arrival, so the age on arrival is added to it.
pub(crate) fn lifetime(
    status: u16,
    response: &Fields,
    directives: &ResponseDirectives,
    policy: &Policy,
    response_time: Wall,
    initial_age_ms: u64,
) -> (u32, LifetimeSource) {
    let rule = |ttl: u64| {
        let ttl = clamp(ttl);
        ttl.saturating_add(clamp(initial_age_ms / 1000))
    };
    let by_rule = ttl_for_status(status, policy).map(|ttl| (ttl, LifetimeSource::RuleForStatus));
    let by_rule = by_rule.or_else(|| Some((policy.ttl.filter(|_| is_good(status))?, LifetimeSource::Rule)));
    let is_heeded = policy.heeds_no_cache && directives.no_cache == Scope::Whole;
    if let Some((ttl, source)) = by_rule.filter(|_| policy.ttl_overrides && !is_heeded) {
        return (rule(ttl), source);
    }
    let (secs, source) =
        lifetime_said(status, response, directives, policy, response_time, by_rule.map(|(ttl, _)| rule(ttl)));
    (policy.ttl_max.map_or(secs, |max| secs.min(rule(max))), source)
}

/// The same, where no rule replaces it; `for_silence` is what a rule says for an origin that says nothing.
fn lifetime_said(
    status: u16,
    response: &Fields,
    directives: &ResponseDirectives,
    policy: &Policy,
    response_time: Wall,
    for_silence: Option<u32>,
) -> (u32, LifetimeSource) {
    match (directives.targeted, directives.s_maxage, directives.max_age) {
        (Some(place), Some(secs), _) => return (secs, LifetimeSource::TargetedSMaxage(place)),
        (Some(place), None, Some(secs)) => return (secs, LifetimeSource::TargetedMaxAge(place)),
        (None, Some(secs), _) => return (secs, LifetimeSource::SMaxage),
        (None, None, Some(secs)) => return (secs, LifetimeSource::MaxAge),
        (_, None, None) => {}
    }
    let date = date_of(response, response_time).unwrap_or(response_time);
    if directives.targeted.is_none()
        && let Some(expires) = response.get("expires")
    {
        // What is no date is in the past (RFC 9111 §5.3). Of several lines the first counts.
        let expires = date::parse(expires, response_time).unwrap_or(Wall(i64::MIN));
        return (clamp(expires.secs_since(date)), LifetimeSource::Expires);
    }
    if let Some(secs) = for_silence {
        return (secs, LifetimeSource::RuleForSilence);
    }
    let may_guess = is_heuristically_cacheable(status) || directives.public;
    if may_guess && let Some(modified) = last_modified(response, response_time) {
        let guess = date.secs_since(modified) / 100 * u64::from(policy.heuristic.fraction_percent)
            + date.secs_since(modified) % 100 * u64::from(policy.heuristic.fraction_percent) / 100;
        return (clamp(guess.min(policy.heuristic.max_secs)), LifetimeSource::Heuristic);
    }
    (0, LifetimeSource::Nothing)
}

/// What a rule says of a status by name.
pub(crate) fn ttl_for_status(status: u16, policy: &Policy) -> Option<u64> {
    policy.ttl_by_status.iter().find(|(statuses, _)| statuses.contains(&status)).map(|(_, ttl)| *ttl)
}

/// The moment in Last-Modified, when it is one.
pub(crate) fn last_modified(response: &Fields, now: Wall) -> Option<Wall> {
    response.get("last-modified").and_then(|value| date::parse(value, now))
}

fn clamp(secs: u64) -> u32 {
    secs.min(u64::from(SECS_MAX)) as u32
}

// --- For people ---

/// Where the lifetime came from, in words: `s-maxage in CDN-Cache-Control`, `the rule's ttl of 60 s`,
/// `10 % of Date - Last-Modified, at most 86400 s`, `nothing says how long`.
pub fn lifetime_origin(facts: &Facts, policy: &Policy) -> String {
    let field =
        |place: u8| policy.targeted.get(usize::from(place)).map_or("a targeted field", String::as_str);
    let ttl = u64::from(facts.lifetime).saturating_sub(facts.initial_age_ms / 1000);
    if let Some(max) = policy.ttl_max.filter(|max| *max == ttl)
        && !matches!(facts.source, LifetimeSource::Rule | LifetimeSource::RuleForStatus)
    {
        return format!("the rule's ttl_max of {max} s from arrival");
    }
    match facts.source {
        LifetimeSource::Rule => format!("the rule's ttl of {ttl} s from arrival"),
        LifetimeSource::RuleForStatus => format!("the rule's ttl of {ttl} s for status {}", facts.status),
        LifetimeSource::RuleForSilence => format!("the rule's ttl of {ttl} s, as the origin says nothing"),
        LifetimeSource::TargetedSMaxage(place) => format!("s-maxage in {}", field(place)),
        LifetimeSource::TargetedMaxAge(place) => format!("max-age in {}", field(place)),
        LifetimeSource::SMaxage => "s-maxage in Cache-Control".to_owned(),
        LifetimeSource::MaxAge => "max-age in Cache-Control".to_owned(),
        LifetimeSource::Expires => "Expires - Date".to_owned(),
        LifetimeSource::Heuristic => format!(
            "{} % of Date - Last-Modified, at most {} s",
            policy.heuristic.fraction_percent, policy.heuristic.max_secs
        ),
        LifetimeSource::Nothing => "nothing says how long".to_owned(),
    }
}

#[cfg(test)]
mod tests;
