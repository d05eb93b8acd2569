//! Surrogate keys: the names under which a response can be purged together with others.
//!
//! Read from four response fields: `Surrogate-Key` and `xkey` (separated by white space), `Cache-Tag` (by commas) and
//! `Cache-Groups` (RFC 9875 §2, a list of strings). A store keeps the 64-bit hashes only; a purge hashes the name it
//! is given and compares. The fields go on to visitors as the origin has sent them, for caches behind this one that purge by them, too; a
//! rule can take them away.
//!
//! A Cache-Groups group is, by its RFC, one of its origin; here the name alone counts, within the site.

use crate::Fields;
use crate::fields::trim;
use crate::structured::strings;
use siphasher::sip::SipHasher13;
use std::borrow::Cow;

/// Most surrogate keys that one response may have; further ones are dropped. Fastly and Varnish's xkey see tens.
pub const COUNT_MAX: usize = 256;

/// Most bytes of one surrogate key; a longer one is dropped. 1024 is what CDNs accept for one key.
pub const BYTES_MAX: usize = 1024;

/// The secret of tag hashes, 16 bytes of chance, the same for storing and purging.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TagSeed(pub [u8; 16]);

impl std::fmt::Debug for TagSeed {
    /// Does not print the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TagSeed")
    }
}

/// The hashes of a response's surrogate keys, and how many keys were over a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Sorted, each once.
    pub hashes: Vec<u64>,
    /// How many keys were dropped because there were too many or they were too long. A purge by a dropped key misses
    /// this response, so a caller that counts some should not store it, or say so loudly.
    pub dropped: usize,
}

/// SipHash-1-3 of one surrogate key, byte by byte: case matters.
pub fn tag_hash(seed: &TagSeed, tag: &[u8]) -> u64 {
    SipHasher13::new_with_key(&seed.0).hash(tag)
}

/// Whether a text can be one surrogate key that people name, in a purge or a rule: 1 to [`BYTES_MAX`] bytes of UTF-8 without
/// ASCII white space, ASCII control characters and commas, which in a list of several stand between them. (What Cache-Tag and
/// Cache-Groups may have beyond that cannot be named, nor what an origin says in another character set.)
pub fn is_key(text: &str) -> bool {
    let is_within = |byte: u8| byte != b' ' && !byte.is_ascii_control() && byte != b',';
    (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(is_within)
}

/// The surrogate keys of a response, in order, with repetitions and without regard to limits. A malformed Cache-Groups
/// line has none. Allocates only for Cache-Groups.
pub fn surrogate_keys(response: &Fields) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let spaced = ["surrogate-key", "xkey"]
        .into_iter()
        .flat_map(|name| response.get_all(name))
        .flat_map(|line| line.split(|byte| matches!(byte, b' ' | b'\t')));
    let listed = response.get_all("cache-tag").flat_map(|line| line.split(|&byte| byte == b','));
    let groups =
        response.get_all("cache-groups").filter_map(strings).flatten().filter(|group| !group.is_empty());
    spaced.chain(listed).map(trim).filter(|tag| !tag.is_empty()).map(Cow::Borrowed).chain(groups)
}

/// The hashes of a response's surrogate keys, within [`COUNT_MAX`] and [`BYTES_MAX`]. Allocates nothing for a response without any.
pub fn tags_of(response: &Fields, seed: &TagSeed) -> Tags {
    let mut tags = Tags::default();
    for tag in surrogate_keys(response) {
        let hash = tag_hash(seed, &tag);
        match tags.hashes.binary_search(&hash) {
            Ok(_) => {}
            Err(_) if tag.len() > BYTES_MAX || tags.hashes.len() >= COUNT_MAX => tags.dropped += 1,
            Err(place) => tags.hashes.insert(place, hash),
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: TagSeed = TagSeed([7; 16]);

    fn keys(lines: &[(&str, &str)]) -> Vec<String> {
        let response: Fields = lines.iter().copied().collect();
        surrogate_keys(&response).map(|key| String::from_utf8(key.into_owned()).unwrap()).collect()
    }

    #[test]
    fn each_field_has_its_own_separator() {
        assert_eq!(keys(&[("Surrogate-Key", "a  b\tc,d"), ("surrogate-key", "e")]), ["a", "b", "c,d", "e"]);
        assert_eq!(keys(&[("Cache-Tag", " a b,, c ,")]), ["a b", "c"]);
        assert_eq!(keys(&[("xkey", "a b")]), ["a", "b"]);
        assert_eq!(keys(&[("Cache-Groups", r#""a", "b, c";p=1, "", "e\"\\f""#)]), ["a", "b, c", r#"e"\f"#]);
        assert_eq!(keys(&[("Cache-Groups", r#""a", never"#), ("Cache-Groups", r#""b""#)]), ["b"]);
        assert_eq!(keys(&[("Content-Type", "a")]), [""; 0]);
    }

    #[test]
    fn a_name_that_could_be_several_is_no_key() {
        for good in ["a", "product-17", "schuhe-größe", "a\u{a0}b", &"x".repeat(BYTES_MAX)] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", " ", "a b", "a,b", "a\tb", "a\r\n", "\u{7f}", &"x".repeat(BYTES_MAX + 1)] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn hashes_are_sorted_unique_and_within_limits() {
        let response: Fields = [("Surrogate-Key", "b a b"), ("Cache-Tag", "a")].into_iter().collect();
        let tags = tags_of(&response, &SEED);
        let mut expected = [tag_hash(&SEED, b"a"), tag_hash(&SEED, b"b")];
        expected.sort_unstable();
        assert_eq!((&tags.hashes[..], tags.dropped), (&expected[..], 0));
        assert_ne!(tag_hash(&SEED, b"a"), tag_hash(&TagSeed([8; 16]), b"a"));
        assert_ne!(tag_hash(&SEED, b"a"), tag_hash(&SEED, b"A"));
    }

    #[test]
    fn keys_over_a_limit_are_dropped_and_counted() {
        let check = |keys: &[String], expected| {
            let response: Fields = keys.iter().map(|key| ("xkey", key)).collect();
            let tags = tags_of(&response, &SEED);
            assert_eq!((tags.hashes.len(), tags.dropped), expected);
        };
        check(&["l".repeat(BYTES_MAX + 1), "m".repeat(BYTES_MAX)], (1, 1));
        let many: Vec<String> = (0..=COUNT_MAX).map(|key| key.to_string()).collect();
        check(&many, (COUNT_MAX, 1));
        check(&[&many[..COUNT_MAX], &many[..COUNT_MAX]].concat(), (COUNT_MAX, 0));
    }
}
