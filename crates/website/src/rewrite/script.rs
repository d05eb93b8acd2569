//! URLs in what stands inline between `<script>` and `</script>`: import maps as JSON, and strings of other scripts as far
//! as a rule lists paths. Text in, edits out: what is not replaced stays as it was written.

use std::ops::Range;

use serde::de::IgnoredAny;

use super::url::Mapped;

/// Longest inline script that is looked at; longer ones pass as they are.
pub(super) const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// Replaces these bytes by that text.
pub(super) type Edit = (Range<usize>, String);

/// Says what becomes of a URL.
pub(super) type Map<'m> = dyn FnMut(&[u8]) -> Mapped + 'm;

/// What becomes of the URLs in an import map (HTML, "import maps"). What a specifier is mapped to moves. A URL that is itself
/// looked up, as a specifier, as a scope or for its integrity, is looked up by the page as it stands and by what has moved as
/// it has moved: both stand in the new map. `None` when it is no JSON.
pub(super) fn import_map(text: &str, map: &mut Map<'_>) -> Option<Vec<Edit>> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut edits = Vec::new();
    for member in members(text, 0..text.len()) {
        match &text[member.key.clone()] {
            "imports" => mappings(text, member.value, true, map, &mut edits),
            "integrity" => mappings(text, member.value, false, map, &mut edits),
            "scopes" => {
                for scope in members(text, member.value) {
                    let mut inner = Vec::new();
                    mappings(text, scope.value.clone(), true, map, &mut inner);
                    add_moved_key(text, &scope, &inner, map, &mut edits);
                    edits.append(&mut inner);
                }
            }
            _ => {}
        }
    }
    Some(edits)
}

/// The members of an object of URLs: what they are mapped to, if that is URLs too, and beside each what has moved.
fn mappings(text: &str, object: Range<usize>, to_urls: bool, map: &mut Map<'_>, edits: &mut Vec<Edit>) {
    for member in members(text, object) {
        let mut inner = Vec::new();
        let value = &text[member.value.clone()];
        if to_urls && value.len() >= 2 && value.starts_with('"') {
            let within = member.value.start + 1..member.value.end - 1;
            inner.extend(moved(text, within, map));
        }
        add_moved_key(text, &member, &inner, map, edits);
        edits.append(&mut inner);
    }
}

/// Puts before a member whose key is a URL that moves the same member under the URL that it moves to.
fn add_moved_key(text: &str, member: &Member, inner: &[Edit], map: &mut Map<'_>, edits: &mut Vec<Edit>) {
    let key = &text[member.key.clone()];
    // All else is a name, and a name is the same wherever it is imported from.
    if !["/", "\\/", "./", "../", ".\\/", "..\\/", "http:", "https:"]
        .iter()
        .any(|start| key.starts_with(start))
    {
        return;
    }
    if let Some((range, with)) = moved(text, member.key.clone(), map) {
        let rest = &text[range.end..member.key.end];
        let value = applied(text, member.value.clone(), inner);
        let before = member.key.start - 1;
        edits.push((before..before, format!("\"{with}{rest}\": {value}, ")));
    }
}

/// What becomes of the URLs that begin a string somewhere in a script: `"/…"`, `'https://…'`, `"https:\/\/…"`, also in strings
/// within strings.
pub(super) fn strings(text: &str, map: &mut Map<'_>) -> Vec<Edit> {
    let bytes = text.as_bytes();
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b'`');
    let mut edits = Vec::new();
    let mut at = 0;
    while let Some(quote) = bytes[at..].iter().position(is_quote) {
        let start = at + quote + 1;
        at = start;
        let rest = &text[start..];
        if !["/", "\\/", "http:", "https:"].iter().any(|begin| rest.starts_with(begin)) {
            continue;
        }
        let mut end = start;
        while let Some(byte) = bytes.get(end) {
            let is_slash = *byte == b'\\' && bytes.get(end + 1) == Some(&b'/');
            let ends =
                is_quote(byte) || *byte <= b' ' || matches!(byte, b'<' | b'>' | b'{') || *byte == b'\\';
            if ends && !is_slash {
                break;
            }
            end += 1;
        }
        // What is put together in a template is nobody's URL yet.
        if bytes.get(end) != Some(&b'{') {
            edits.extend(moved(text, start..end, map));
        }
        at = end;
    }
    edits
}

/// How a URL in a string moves, whose slashes may be escaped as PHP does.
fn moved(text: &str, range: Range<usize>, map: &mut Map<'_>) -> Option<Edit> {
    let raw = &text[range.clone()];
    let plain = raw.replace("\\/", "/");
    let Mapped::To { replaced, with } = map(plain.as_bytes()) else { return None };
    if plain.len() == raw.len() {
        return Some((range.start..range.start + replaced, with));
    }
    // So many bytes of the plain spelling are more in the escaped one.
    let (mut raw_at, mut plain_at) = (0, 0);
    while plain_at < replaced {
        raw_at += if raw[raw_at..].starts_with("\\/") { 2 } else { 1 };
        plain_at += 1;
    }
    Some((range.start..range.start + raw_at, with.replace('/', "\\/")))
}

/// A piece of the text with the edits in it, which are in order and may lie outside of it.
pub(super) fn applied(text: &str, range: Range<usize>, edits: &[Edit]) -> String {
    let mut out = String::with_capacity(range.len());
    let mut at = range.start;
    for (replaced, with) in
        edits.iter().filter(|(edit, _)| edit.start >= range.start && edit.end <= range.end)
    {
        out.push_str(&text[at..replaced.start]);
        out.push_str(with);
        at = replaced.end;
    }
    out.push_str(&text[at..range.end]);
    out
}

/// A member of an object: its key without quotes, and its value.
struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

/// The members of the object at `range` of a text that is known to be JSON; none if it is no object.
fn members(text: &str, range: Range<usize>) -> Vec<Member> {
    let bytes = &text.as_bytes()[..range.end];
    let skip = |at: usize| at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let mut found = Vec::new();
    let mut at = skip(range.start);
    if bytes.get(at) != Some(&b'{') {
        return found;
    }
    at = skip(at + 1);
    while bytes.get(at) == Some(&b'"') {
        let end = end_of_value(bytes, at);
        let key = at + 1..end - 1;
        // The colon.
        let start = skip(skip(end) + 1);
        let end = end_of_value(bytes, start);
        found.push(Member { key, value: start..end });
        at = skip(end);
        if bytes.get(at) == Some(&b',') {
            at = skip(at + 1);
        }
    }
    found
}

/// Where the value ends that begins at `start`.
fn end_of_value(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if depth == 0 {
                    return (at + 1).min(bytes.len());
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if depth <= 1 {
                    return if depth == 0 { at } else { at + 1 };
                }
                depth -= 1;
            }
            b',' if depth == 0 => return at,
            _ if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(url: &[u8]) -> Mapped {
        match url.strip_prefix(b"https://www.example".as_slice()).unwrap_or(url) {
            rest if rest.starts_with(b"/s/") => {
                Mapped::To { replaced: url.len() - rest.len(), with: "https://cdn.example".into() }
            }
            _ => Mapped::Nothing,
        }
    }

    #[test]
    fn an_import_map_moves_as_a_whole() {
        let text = r#" {"imports": {"app": "/s/app.js", "/s/a.js" :"/s/a.1.js", "x": null, "y": "/other.js"},
            "scopes": {"/s/lib/": {"app": "https:\/\/www.example\/s\/b.js"}}, "integrity":{"/s/app.js":"sha384-x"} , "z": ["}"]} "#;
        let edits = import_map(text, &mut map).unwrap();
        let moved = applied(text, 0..text.len(), &edits);
        let expected = r#" {"imports": {"app": "https://cdn.example/s/app.js", "https://cdn.example/s/a.js": "https://cdn.example/s/a.1.js", "/s/a.js" :"https://cdn.example/s/a.1.js", "x": null, "y": "/other.js"},
            "scopes": {"https://cdn.example/s/lib/": {"app": "https:\/\/cdn.example\/s\/b.js"}, "/s/lib/": {"app": "https:\/\/cdn.example\/s\/b.js"}}, "integrity":{"https://cdn.example/s/app.js": "sha384-x", "/s/app.js":"sha384-x"} , "z": ["}"]} "#;
        assert_eq!(moved, expected);
        serde_json::from_str::<IgnoredAny>(&moved).unwrap();
        assert_eq!(import_map("{\"imports\": {", &mut map), None);
        assert_eq!(import_map("[]", &mut map), Some(vec![]));
    }

    #[test]
    fn strings_of_scripts_move_where_they_begin_with_a_url() {
        for (text, becomes) in [
            (r#"a("/s/x.js")"#, r#"a("https://cdn.example/s/x.js")"#),
            (r#"a('https://www.example/s/x.js?a=b')"#, r#"a('https://cdn.example/s/x.js?a=b')"#),
            (r#"{"u":"https:\/\/www.example\/s\/x.js"}"#, r#"{"u":"https:\/\/cdn.example\/s\/x.js"}"#),
            (r#"{"u":"\/s\/x.js"}"#, r#"{"u":"https:\/\/cdn.example\/s\/x.js"}"#),
            (
                r#"document.write('<script src="/s/x.js"><\/script>')"#,
                r#"document.write('<script src="https://cdn.example/s/x.js"><\/script>')"#,
            ),
            (r#"a = "{\"u\":\"/s/x.js\"}""#, r#"a = "{\"u\":\"https://cdn.example/s/x.js\"}""#),
            ("a(`/s/${name}.js`)", "a(`/s/${name}.js`)"),
            ("a(\"x /s/x.js\") // /s/y.js", "a(\"x /s/x.js\") // /s/y.js"),
            ("a(\"/api\")", "a(\"/api\")"),
            ("\"", "\""),
        ] {
            let edits = strings(text, &mut map);
            assert_eq!(applied(text, 0..text.len(), &edits), becomes);
        }
    }
}
