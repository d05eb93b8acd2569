//! What a request that changes something makes invalid (RFC 9111 §4.4, RFC 9875). The caller marks the stored responses
//! of these resources and groups as gone, for its site only.

use crate::structured::strings;
use crate::{Fields, Target};

/// What has become invalid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// Paths with query on the same host: the request's own, and those that Location and Content-Location name. Each
    /// once; at most three.
    pub targets: Vec<String>,
    /// Cache groups of the same host, as in `Cache-Groups` (see `tags.rs`), unescaped; letter case counts.
    pub groups: Vec<Vec<u8>>,
}

/// Whether a method only reads (RFC 9110 §9.2.1; the methods registered as safe). Methods that are not known here may
/// change things.
pub fn is_safe(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "QUERY" | "REPORT" | "SEARCH" | "PRI"
    )
}

/// What the answer to a request makes invalid.
///
/// - Nothing for safe methods, whatever the response says, and nothing for answers other than 2xx and 3xx: the change
///   did not happen, and otherwise anyone could empty the cache with requests that fail.
/// - Location and Content-Location count when they mean the same host ([`Target::resolve`]).
/// - Cache-Group-Invalidation that is not a list of strings counts as absent (RFC 9875 §3).
///
/// ```
/// use semantics::{Fields, Target, invalidation::invalidated_by};
/// let target = Target { authority: "shop.example", origin_authority: None, path_and_query: "/cart" };
/// let response: Fields = [("Location", "/cart/7"), ("Cache-Group-Invalidation", "\"carts\"")].into_iter().collect();
/// let invalid = invalidated_by("POST", 303, &target, &response);
/// assert_eq!(invalid.targets, ["/cart", "/cart/7"]);
/// assert_eq!(invalid.groups, [b"carts"]);
/// assert_eq!(invalidated_by("POST", 500, &target, &response), Default::default());
/// ```
pub fn invalidated_by(method: &str, status: u16, target: &Target<'_>, response: &Fields) -> Invalidation {
    if is_safe(method) || !(200..400).contains(&status) {
        return Invalidation::default();
    }
    let mut targets = vec![target.path_and_query.to_owned()];
    for name in ["location", "content-location"] {
        let named = response.get(name).and_then(|reference| target.resolve(reference));
        if let Some(named) = named.filter(|named| !targets.contains(named)) {
            targets.push(named);
        }
    }
    let groups = response.combined("cache-group-invalidation");
    let groups = groups.as_deref().and_then(strings).unwrap_or_default();
    Invalidation { targets, groups: groups.into_iter().map(std::borrow::Cow::into_owned).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_makes_its_target_and_what_it_names_invalid() {
        let target =
            Target { authority: "a.example", origin_authority: None, path_and_query: "/list?page=1" };
        let check = |method: &str, status: u16, lines: &[(&str, &str)], expected: &[&str]| {
            let response: Fields = lines.iter().copied().collect();
            let found = invalidated_by(method, status, &target, &response);
            assert_eq!(found.targets, expected, "{method} {status} {lines:?}");
        };
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "LOCK", "get", "FROBNICATE"] {
            check(method, 200, &[], &["/list?page=1"]);
            check(method, 204, &[], &["/list?page=1"]);
            check(method, 303, &[], &["/list?page=1"]);
            check(method, 400, &[], &[]);
            check(method, 500, &[], &[]);
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"] {
            check(method, 200, &[("Location", "/x")], &[]);
        }
        check("POST", 201, &[("Location", "item/1")], &["/list?page=1", "/item/1"]);
        check("PUT", 200, &[("Content-Location", "http://a.example/y")], &["/list?page=1", "/y"]);
        check("PUT", 200, &[("Location", "/y"), ("Content-Location", "/y")], &["/list?page=1", "/y"]);
        check("PUT", 200, &[("Content-Location", "/list?page=1")], &["/list?page=1"]);
        check("POST", 201, &[("Location", "http://b.example/y")], &["/list?page=1"]);
        check("POST", 201, &[("Location", "//b.example/y")], &["/list?page=1"]);
    }

    #[test]
    fn groups_are_a_list_of_strings_or_nothing() {
        let target = Target { authority: "a.example", origin_authority: None, path_and_query: "/" };
        let check = |method: &str, values: &[&str], expected: &[&[u8]]| {
            let response: Fields = values.iter().map(|value| ("Cache-Group-Invalidation", value)).collect();
            assert_eq!(invalidated_by(method, 200, &target, &response).groups, expected, "{values:?}");
        };
        check("POST", &[r#""a", "B c";x=1"#], &[b"a", b"B c"]);
        check("POST", &[r#""a""#, r#""b""#], &[b"a", b"b"]);
        check("POST", &["a"], &[]);
        check("POST", &[r#""a", b"#], &[]);
        check("GET", &[r#""a""#], &[]);
    }
}
