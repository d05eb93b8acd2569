//! Kinds of content and classes of URLs: what reports are grouped by, and what advice is given for.

use model::url::is_fingerprinted;

/// What a URL is, as far as its name and type tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A page, or what has no name that tells.
    Page,
    /// A style sheet.
    Style,
    /// A script.
    Script,
    /// An image.
    Image,
    /// A font.
    Font,
    /// Sound or moving pictures.
    Media,
    /// JSON, XML and the like.
    Data,
    /// A file for download.
    File,
}

const EXTENSIONS: &[(Kind, &[&str])] = &[
    (Kind::Page, &["html", "htm", "php", "asp", "aspx", "jsp"]),
    (Kind::Style, &["css"]),
    (Kind::Script, &["js", "mjs", "wasm"]),
    (Kind::Image, &["png", "jpg", "jpeg", "gif", "webp", "avif", "svg", "ico", "bmp", "jxl"]),
    (Kind::Font, &["woff2", "woff", "ttf", "otf", "eot"]),
    (Kind::Media, &["mp4", "webm", "m4s", "ts", "m3u8", "mpd", "mp3", "ogg", "m4a", "mov", "aac"]),
    (Kind::Data, &["json", "xml", "txt", "csv", "rss", "atom", "map", "webmanifest"]),
    (Kind::File, &["zip", "gz", "pdf", "exe", "dmg", "tar", "bin", "iso", "deb", "rpm", "apk"]),
];

const TYPES: &[(Kind, &str)] = &[
    (Kind::Style, "text/css"),
    (Kind::Script, "text/javascript"),
    (Kind::Script, "application/javascript"),
    (Kind::Script, "application/wasm"),
    (Kind::Image, "image/"),
    (Kind::Font, "font/"),
    (Kind::Media, "video/"),
    (Kind::Media, "audio/"),
    (Kind::Data, "application/json"),
    (Kind::Data, "application/xml"),
    (Kind::File, "application/pdf"),
    (Kind::File, "application/zip"),
    (Kind::File, "application/octet-stream"),
];

impl Kind {
    /// By the extension of the path, else by the type, else a page.
    pub fn of(path: &str, content_type: Option<&[u8]>) -> Kind {
        let by_name = extension(path).and_then(|extension| {
            EXTENSIONS.iter().find(|(_, known)| known.contains(&&*extension)).map(|(kind, _)| *kind)
        });
        let by_type = || {
            let essence = content_type?.to_ascii_lowercase();
            TYPES.iter().find(|(_, prefix)| essence.starts_with(prefix.as_bytes())).map(|(kind, _)| *kind)
        };
        by_name.or_else(by_type).unwrap_or(Kind::Page)
    }

    /// Whether such content is as a rule the same for every visitor.
    pub const fn is_static(self) -> bool {
        matches!(self, Kind::Style | Kind::Script | Kind::Image | Kind::Font | Kind::Media | Kind::File)
    }

    /// Whether such content gets much smaller by compressing.
    pub const fn is_text(self) -> bool {
        matches!(self, Kind::Page | Kind::Style | Kind::Script | Kind::Data)
    }
}

/// The extension of the last segment, lower-case: letters and digits, at most 11 of them.
fn extension(path: &str) -> Option<String> {
    let (stem, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
    let is_one = !stem.is_empty()
        && (1..=11).contains(&extension.len())
        && extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_one.then(|| extension.to_ascii_lowercase())
}

/// The class of a URL as a pattern of the configuration: its first segment and its extension, `/static/*.css`, `/api/*`, `/*`.
///
/// What a pattern could take for one of its own stars, or an encoding, is not taken into it.
pub fn pattern(path: &str) -> String {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
    let first =
        rest.split_once('/').map(|(first, _)| first).filter(|first| !first.is_empty() && is_plain(first));
    let mut pattern = String::from("/");
    if let Some(first) = first {
        pattern.push_str(first);
        pattern.push('/');
    }
    pattern.push('*');
    if let Some(extension) = extension(path) {
        pattern.push('.');
        pattern.push_str(&extension);
    }
    pattern
}

/// Whether a name may be one with a hash: so that one of chance without figures, or with a dash in it, is not taken for a name that stays.
/// Its last eight characters are of two kinds at least, behind a dot, dash or underscore.
pub fn may_be_fingerprinted(path: &str) -> bool {
    let stem = path
        .rsplit('/')
        .next()
        .and_then(|name| name.rsplit_once('.'))
        .map_or("", |(stem, _)| stem)
        .as_bytes();
    let ends_in_one = stem.len().checked_sub(9).is_some_and(|at| {
        let last = &stem[at + 1..];
        let kinds: [fn(&u8) -> bool; 4] =
            [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit, |byte| b"-_".contains(byte)];
        b".-_".contains(&stem[at])
            && last.iter().all(|byte| kinds.iter().any(|is| is(byte)))
            && kinds.iter().filter(|is| last.iter().any(is)).count() > 1
    });
    ends_in_one || is_fingerprinted(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_put_into_few_classes() {
        for (path, wanted, kind) in [
            ("/static/css/a.CSS", "/static/*.css", Kind::Style),
            ("/a.js", "/*.js", Kind::Script),
            ("/", "/*", Kind::Page),
            ("/api/v1/items", "/api/*", Kind::Page),
            ("/a*b/x.png", "/*.png", Kind::Image),
            ("/%61/x.woff2", "/*.woff2", Kind::Font),
            ("//x", "/*", Kind::Page),
            ("/v1.2/.hidden", "/v1.2/*", Kind::Page),
        ] {
            assert_eq!((&*pattern(path), Kind::of(path, None)), (wanted, kind), "{path}");
        }
        assert_eq!(Kind::of("/thumb", Some(b"Image/png; q")), Kind::Image);
    }

    #[test]
    fn names_that_may_have_a_hash_are_known() {
        for name in ["/main-BkWacDeX.css", "/main-Bk-7cD_e.js", "/app.3f9a1c2b.js", "/chunk.12345678a.js"] {
            assert!(may_be_fingerprinted(name), "{name}");
        }
        for name in ["/config.js", "/app-settings.js", "/photo-20261123.jpg", "/Summer2024Banner.png", "/"] {
            assert!(!may_be_fingerprinted(name), "{name}");
        }
    }
}
