//! What is compressed: which types, into which codings, from which size on. Whether a response may be encoded at all is
//! [`semantics::coding`]'s to say, how and when it is done the edge's.

use std::ops::RangeInclusive;

use semantics::coding::Coding;

use crate::glob::Glob;
use crate::settings::bound;
use crate::{ByteSize, settings::Bound};

/// Least bytes of a body that is encoded. Below it head and packet outweigh what is saved; nginx's 20 bytes and Apache's 0
/// make bodies longer, CloudFront begins at 1,000.
pub const MIN_SIZE: Bound<ByteSize> = bound(ByteSize::from_kib(1), ByteSize(0), ByteSize::from_mib(4));

/// Most bytes of a body that is encoded. CloudFront's largest is 10 MB. Ours is lower because a copy is made of a body that
/// is whole in memory, twice for a moment; text that is longer is seldom a page's.
pub const MAX_SIZE: Bound<ByteSize> =
    bound(ByteSize::from_mib(4), ByteSize::from_kib(1), ByteSize::from_mib(64));

/// Types that are compressed unless a rule says which: text in one form or another, and formats that leave compressing to
/// HTTP. Not what is compressed by itself: images, sound, video, archives, WOFF and WOFF2.
pub const TYPES: &[&str] = &[
    "text/*",
    "*+json",
    "*+xml",
    "*+text",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/json",
    "application/x-ndjson",
    "application/xml",
    "application/wasm",
    "application/vnd.apple.mpegurl",
    "application/vnd.ms-fontobject",
    "application/x-mpegurl",
    "application/graphql",
    "application/toml",
    "application/yaml",
    "application/rtf",
    "font/ttf",
    "font/otf",
    "font/collection",
    "application/x-font-ttf",
    "application/x-font-otf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
    "image/vnd.adobe.photoshop",
];

/// What a rule says about compressing what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// Content-Types, lower-case, without parameters.
    pub types: Vec<Glob>,
    /// Codings that copies are made in. The first that a visitor accepts is made first.
    pub codings: Vec<Coding>,
    /// Bytes of bodies that are encoded.
    pub sizes: RangeInclusive<u64>,
}

impl Default for Compress {
    /// zstd first: it takes a tenth of the time that brotli takes for a copy of about the same size. What proves to be hot is
    /// made anew in brotli, which is the smallest.
    fn default() -> Self {
        Compress {
            types: TYPES.iter().map(|name| Glob::new(name)).collect(),
            codings: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            sizes: MIN_SIZE.default.0..=MAX_SIZE.default.0,
        }
    }
}

impl Compress {
    /// Whether bodies of this type (without parameters, in any case) and length are encoded.
    pub fn covers(&self, media_type: &[u8], length: u64) -> bool {
        let lower = media_type.to_ascii_lowercase();
        self.sizes.contains(&length) && self.types.iter().any(|glob| glob.matches(&lower))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_compressed_by_default_and_what_is_compressed_is_not() {
        let compress = Compress::default();
        for name in [
            "text/html",
            "Text/CSS",
            "application/javascript",
            "application/json",
            "application/ld+json",
            "image/svg+xml",
            "application/wasm",
            "font/ttf",
        ] {
            assert!(compress.covers(name.as_bytes(), 5000), "{name}");
        }
        for name in [
            "image/png",
            "image/webp",
            "video/mp4",
            "application/zip",
            "application/octet-stream",
            "font/woff",
            "font/woff2",
            "application/pdf",
            "",
        ] {
            assert!(!compress.covers(name.as_bytes(), 5000), "{name}");
        }
        let lengths = [(1023, false), (1024, true), (4 << 20, true), ((4 << 20) + 1, false)];
        for (length, covered) in lengths {
            assert_eq!(compress.covers(b"text/css", length), covered, "{length}");
        }
    }
}
