//! What requests are told apart by.

use std::fmt;

use semantics::{Outcome, Why};

/// A country by its two letters (ISO 3166-1); `-` where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// Not known: nobody has said where addresses are, or not where this one is.
    pub const UNKNOWN: Country = Country([b'-', 0]);

    /// From two letters, in either case; anything else is not known.
    pub fn of(letters: [u8; 2]) -> Self {
        match letters.iter().all(u8::is_ascii_alphabetic) {
            true => Country(letters.map(|letter| letter.to_ascii_uppercase())),
            false => Country::UNKNOWN,
        }
    }

    /// As it is kept.
    pub fn number(self) -> u16 {
        u16::from_be_bytes(self.0)
    }

    /// From [`Country::number`]; what was never one is not known.
    pub fn of_number(number: u16) -> Self {
        Country::of(number.to_be_bytes())
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = if *self == Country::UNKNOWN { 1 } else { 2 };
        self.0[..length].iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

macro_rules! closed {
    ($(#[doc = $about:literal])* $name:ident { $(#[doc = $doc:literal] $variant:ident = $text:literal,)* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $doc] $variant,)* }

        impl $name {
            /// All values, in declaration order; the index of each is `value as usize`.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str { match self { $($name::$variant => $text,)* } }
        }
    };
}

closed! {
    /// What kind of content was sent, by Content-Type (RFC 9110 §8.3).
    Class {
        /// No content, or none that says what it is.
        None = "-",
        /// Pages.
        Html = "html",
        /// Style sheets.
        Css = "css",
        /// Scripts.
        Script = "script",
        /// JSON, also of a vendor (`+json`), and XML that is no page.
        Data = "data",
        /// Images.
        Image = "image",
        /// Fonts.
        Font = "font",
        /// Video, and the lists by which it is streamed.
        Video = "video",
        /// Sound.
        Audio = "audio",
        /// Archives, programs, documents.
        Download = "download",
        /// Anything else.
        Other = "other",
    }
}

impl Class {
    /// Of a Content-Type field's value; `None` where there is none.
    pub fn of(content_type: Option<&[u8]>) -> Self {
        let Some(value) = content_type else { return Class::None };
        let end = value.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(value.len());
        let mut lower = [0; 64];
        let length = end.min(lower.len());
        lower[..length].copy_from_slice(&value[..length]);
        lower.make_ascii_lowercase();
        let Ok(text) = std::str::from_utf8(&lower[..length]) else { return Class::Other };
        let (kind, subtype) = text.split_once('/').unwrap_or((text, ""));
        match (kind, subtype) {
            ("", _) => Class::None,
            ("text", "html") | ("application", "xhtml+xml") => Class::Html,
            ("text", "css") => Class::Css,
            ("text" | "application", "javascript" | "ecmascript" | "x-javascript")
            | ("application", "wasm") => Class::Script,
            ("image", _) => Class::Image,
            ("font", _) | ("application", "font-woff" | "font-woff2" | "vnd.ms-fontobject") => Class::Font,
            ("video", _) | ("application", "dash+xml" | "vnd.apple.mpegurl" | "x-mpegurl") => Class::Video,
            ("audio", _) => Class::Audio,
            (_, "json" | "xml" | "x-ndjson") => Class::Data,
            (_, subtype) if subtype.ends_with("+json") || subtype.ends_with("+xml") => Class::Data,
            (
                "application",
                "octet-stream" | "zip" | "gzip" | "x-gzip" | "zstd" | "x-tar" | "x-xz" | "x-bzip2" | "pdf",
            ) => Class::Download,
            _ => Class::Other,
        }
    }
}

closed! {
    /// The class of the status sent.
    Status {
        /// No response: the visitor went away, or it is about what origins were asked.
        None = "-",
        /// 100 to 199.
        Informational = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 to 599.
        ServerError = "5xx",
    }
}

impl Status {
    /// Of a status; anything outside of 100 to 599 is none.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Status::Informational,
            2 => Status::Success,
            3 => Status::Redirection,
            4 => Status::ClientError,
            5 => Status::ServerError,
            _ => Status::None,
        }
    }
}

/// The rule that decided: its place in the site's list, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule(pub u16);

impl Rule {
    /// None matched: the site's defaults decided, or there was no site.
    pub const DEFAULTS: Rule = Rule(0);
    /// Those for which there was no room.
    pub const OTHERS: Rule = Rule(u16::MAX);
}

/// What requests are told apart by. Sites by number: who holds the key says what the numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The site.
    pub site: u32,
    /// The rule.
    pub rule: Rule,
    /// Where the visitor is.
    pub country: Country,
    /// What was sent.
    pub class: Class,
    /// Why it ended so; `None` for what origins were asked, which may be for several visitors or for none.
    pub why: Option<Why>,
    /// The class of the status.
    pub status: Status,
}

impl Key {
    /// What origins were asked on behalf of a site's rule.
    pub fn of_origin(site: u32, rule: Rule) -> Self {
        Key { site, rule, country: Country::UNKNOWN, class: Class::None, why: None, status: Status::None }
    }

    /// Whether requests under this key were answered from the cache: also stale, and revalidated as unchanged.
    pub fn is_hit(&self) -> bool {
        self.why.is_some_and(is_hit)
    }
}

/// Whether what ended so was answered from the cache: also stale, and revalidated as unchanged.
pub fn is_hit(why: Why) -> bool {
    why.outcome() == Outcome::Hit || why == Why::Revalidated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_classed_by_its_type_alone() {
        for (value, class) in [
            (None, Class::None),
            (Some(""), Class::None),
            (Some("Text/HTML; charset=utf-8"), Class::Html),
            (Some("text/css"), Class::Css),
            (Some("application/javascript"), Class::Script),
            (Some("application/ld+json"), Class::Data),
            (Some("image/svg+xml"), Class::Image),
            (Some("font/woff2"), Class::Font),
            (Some("application/vnd.apple.mpegurl"), Class::Video),
            (Some("audio/mpeg"), Class::Audio),
            (Some("application/zip"), Class::Download),
            (Some("text/plain"), Class::Other),
            (Some("\u{fc}"), Class::Other),
        ] {
            assert_eq!(Class::of(value.map(str::as_bytes)), class, "{value:?}");
        }
    }

    #[test]
    fn countries_are_two_letters_or_not_known() {
        assert_eq!(Country::of(*b"de").to_string(), "DE");
        assert_eq!(Country::of([0, 0]).to_string(), "-");
        for country in [Country::of(*b"US"), Country::UNKNOWN] {
            assert_eq!(Country::of_number(country.number()), country);
        }
    }
}
