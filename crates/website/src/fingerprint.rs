//! Which URLs are named by their content: what stands there never changes, so it may be kept for ever.

use model::url::is_fingerprinted;

/// Whether the path holds a fingerprint of the content ([`is_fingerprinted`]), or the query of a file a version: `?v=12`, `?ver=6.4`
/// (WordPress).
pub fn is_versioned(path: &str, query: Option<&str>) -> bool {
    let has_version = |query: &str| {
        query.split('&').any(|pair| matches!(pair.split_once('='), Some(("v" | "ver" | "version", value)) if !value.is_empty()))
    };
    let is_file = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    is_fingerprinted(path) || is_file && query.is_some_and(has_version)
}

#[cfg(test)]
mod tests {
    use super::is_versioned;

    #[test]
    fn queries_with_a_version_count_too() {
        for (url, versioned) in [
            ("/static/app.3f2a9c1b.css", true),
            ("/static/app-20241128.css", false),
            ("/a.css?ver=6.4", true),
            ("/a.css?v=", false),
            ("/a.css?w=100", false),
            ("/a.css", false),
            ("/?v=1", false),
        ] {
            let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
            assert_eq!(is_versioned(path, query), versioned, "{url}");
        }
    }
}
