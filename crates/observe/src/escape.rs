//! Makes bytes from the network safe inside a quoted log field. Nothing that a client sends can end a field, end a
//! line, move a terminal's cursor or turn the reading direction around.
//!
//! The common case, printable ASCII without quote or backslash, is one vectorised scan and one copy.

/// Bytes of one field that are logged; the rest becomes `...`. Bounds a line to about 150 KB when all is escaped.
pub(crate) const FIELD_BYTES_MAX: usize = 4096;

/// Appends `bytes` for use inside a JSON string (RFC 8259 §7), without the quotes. Controls become `\u00XX`, as do line
/// separators and direction marks; valid UTF-8 else stays; a byte that is not UTF-8 becomes the text `\xHH`, written
/// `\\xHH` so that the line stays valid JSON.
pub(crate) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() <= FIELD_BYTES_MAX && is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        json_slowly(out, bytes);
    }
}

/// Appends `bytes` for use inside double quotes in the combined format: quote and backslash get a backslash, all that is
/// not printable ASCII becomes `\xHH`.
pub(crate) fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() <= FIELD_BYTES_MAX && is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    let (kept, cut) = bounded(bytes);
    for &byte in kept {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x20..=0x7e => out.push(byte),
            _ => hex(out, b"\\x", u32::from(byte), 2),
        }
    }
    out.extend_from_slice(cut);
}

fn is_plain(bytes: &[u8]) -> bool {
    // Folds without an early exit: that is what lets the compiler compare 16 or 32 bytes at once.
    !bytes
        .iter()
        .fold(false, |odd, &byte| odd | (byte.wrapping_sub(0x20) >= 0x5f) | (byte == b'"') | (byte == b'\\'))
}

#[cold]
fn json_slowly(out: &mut Vec<u8>, bytes: &[u8]) {
    let (kept, cut) = bounded(bytes);
    for chunk in kept.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
                _ if is_treacherous(char) => hex(out, b"\\u", u32::from(char), 4),
                _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for &byte in chunk.invalid() {
            hex(out, b"\\\\x", u32::from(byte), 2);
        }
    }
    out.extend_from_slice(cut);
}

fn bounded(bytes: &[u8]) -> (&[u8], &'static [u8]) {
    match bytes.get(..FIELD_BYTES_MAX) {
        Some(kept) if bytes.len() > FIELD_BYTES_MAX => (kept, b"..."),
        _ => (bytes, b""),
    }
}

/// Controls (C0, DEL, C1), line and paragraph separators, and the marks that reorder or hide what a person reads. All
/// within four hex digits.
fn is_treacherous(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn hex(out: &mut Vec<u8>, prefix: &[u8], value: u32, digits: u32) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(prefix);
    for place in (0..digits).rev() {
        out.push(DIGITS[(value >> (4 * place)) as usize & 15]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &[u8], in_json: &str, in_combined: &str) {
        let (mut as_json, mut as_quoted) = (Vec::new(), Vec::new());
        json(&mut as_json, input);
        quoted(&mut as_quoted, input);
        assert_eq!(String::from_utf8_lossy(&as_json), in_json, "JSON of {input:?}");
        assert_eq!(String::from_utf8_lossy(&as_quoted), in_combined, "combined of {input:?}");
    }

    #[test]
    fn fields_are_escaped_for_their_format() {
        check(b"", "", "");
        check(b"/a/b.css?v=1&x=~", "/a/b.css?v=1&x=~", "/a/b.css?v=1&x=~");
        check(b"a\"b", r#"a\"b"#, r#"a\"b"#);
        check(b"a\\b", r"a\\b", r"a\\b");
        check(b"a\r\nb", r"a\u000d\u000ab", r"a\x0d\x0ab");
        check(b"\0\t\x1b[31m", r"\u0000\u0009\u001b[31m", r"\x00\x09\x1b[31m");
        check(b"\x7f", r"\u007f", r"\x7f");
        check("caf\u{e9}".as_bytes(), "caf\u{e9}", r"caf\xc3\xa9");
        check("\u{85}\u{9b}31m".as_bytes(), r"\u0085\u009b31m", r"\xc2\x85\xc2\x9b31m");
        check(
            "\u{2028}\u{202e}\u{feff}".as_bytes(),
            r"\u2028\u202e\ufeff",
            r"\xe2\x80\xa8\xe2\x80\xae\xef\xbb\xbf",
        );
        check("\u{1f41d}".as_bytes(), "\u{1f41d}", r"\xf0\x9f\x90\x9d");
        check(b"a\xff\xc3", r"a\\xff\\xc3", r"a\xff\xc3");
    }

    #[test]
    fn a_field_over_the_limit_is_cut_and_says_so() {
        let long = "x".repeat(FIELD_BYTES_MAX + 1);
        let cut = format!("{}...", "x".repeat(FIELD_BYTES_MAX));
        check(long.as_bytes(), &cut, &cut);
        let exact = "x".repeat(FIELD_BYTES_MAX);
        check(exact.as_bytes(), &exact, &exact);
    }

    proptest! {
        #[test]
        fn nothing_escapes_its_quotes_or_its_line(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            for escape in [json, quoted] {
                let mut out = Vec::new();
                escape(&mut out, &input);
                prop_assert!(std::str::from_utf8(&out).is_ok());
                prop_assert!(out.iter().all(|&byte| byte >= 0x20 && byte != 0x7f));
                let mut bytes = out.iter();
                while let Some(byte) = bytes.next() {
                    prop_assert_ne!(*byte, b'"');
                    if *byte == b'\\' {
                        prop_assert!(bytes.next().is_some(), "a lone backslash would swallow the closing quote");
                    }
                }
            }
        }
    }
}
