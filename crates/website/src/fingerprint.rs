//! Which URLs are named by their content: what stands there never changes, so it may be kept for ever.

/// Whether the path, or the query, holds a fingerprint or a version of the content, as the tools of the known stacks write
/// them: `app.3f2a9c1b.css`, `app-DhG8s_2K.js` (Vite), `/_next/static/…`, `/build/assets/…`, `/static/version1700000000/…`
/// (Magento), `?v=12`, `?ver=6.4` (WordPress).
pub fn is_versioned(path: &str, query: Option<&str>) -> bool {
    if path.contains("/_next/static/") || path.contains("/build/assets/") {
        return true;
    }
    let has_version_directory = path.split('/').any(|segment| {
        segment
            .strip_prefix("version")
            .is_some_and(|digits| digits.len() >= 8 && is_all(digits, |byte| byte.is_ascii_digit()))
    });
    if has_version_directory {
        return true;
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    let by_name = stem.split('.').skip(1).any(is_digest)
        || stem.rsplit_once(['-', '_']).is_some_and(|(_, last)| is_digest(last))
        || (stem.len() > 9
            && stem.as_bytes()[stem.len() - 9] == b'-'
            && is_vite_digest(&stem[stem.len() - 8..]));
    let by_query = query.is_some_and(|query| {
        query.split('&').any(|pair| matches!(pair.split_once('='), Some(("v" | "ver" | "version", value)) if !value.is_empty()))
    });
    by_name || by_query
}

/// 8 to 64 hex digits, at least one of them a digit: "facade12" is one, "deadbeef" may be a word.
fn is_digest(text: &str) -> bool {
    (8..=64).contains(&text.len())
        && is_all(text, |byte| byte.is_ascii_hexdigit())
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Eight characters of base64url that no word has: with upper case or a digit after a lower-case letter.
fn is_vite_digest(text: &str) -> bool {
    is_all(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        && text.bytes().skip(1).any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn is_all(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::is_versioned;

    #[test]
    fn names_made_from_their_content_are_known_and_others_are_not() {
        for (url, versioned) in [
            ("/static/app.3f2a9c1b.css", true),
            ("/static/css/welcome_page.7df0a4b3cd9e.css", true),
            ("/assets/application-908e25f4bf641868d8683022a5b62f54.js", true),
            ("/assets/index-DhG8s_2K.js", true),
            ("/_next/static/chunks/main.js", true),
            ("/build/assets/x.js", true),
            ("/static/version1700000000/frontend/a.js", true),
            ("/a.css?ver=6.4", true),
            ("/a.css?v=", false),
            ("/a.css?w=100", false),
            ("/a.css", false),
            ("/jquery-3.7.1.min.js", false),
            ("/my-template.js", false),
            ("/photo-portrait.jpg", false),
            ("/", false),
            ("/media/2024-10/12345678", false),
        ] {
            let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
            assert_eq!(is_versioned(path, query), versioned, "{url}");
        }
    }
}
