//! URLs in style sheets, as the sheet streams through: `url()`, `src()`, `@import`, strings in `image-set()`. All other bytes
//! pass as they are. What the tokens are is CSS Syntax 3 §4; only comments, strings, names and parentheses are told apart, which
//! is enough to know where a URL can stand.

use super::url::URL_BYTES_MAX;

/// Parentheses that are remembered; within deeper ones no string is taken for a URL.
const DEPTH_MAX: usize = 64;

/// Longest name that means something: `-webkit-image-set`.
const NAME_BYTES_MAX: usize = 24;

/// A style sheet, or a piece of one, that streams through.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    state: State,
    /// The name that is being read, lower-case; empty between names.
    name: Vec<u8>,
    /// Whether `@` stands before the name.
    is_at: bool,
    /// Whether `@import` has been read, and nothing after it but blanks and comments.
    awaits_import: bool,
    /// The functions whose parentheses are open, the innermost last.
    open: Vec<Function>,
    /// How many more are open than are remembered.
    deeper: usize,
    /// What may be a URL, as far as it has come.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// Behind a `/` that may begin a comment.
    Slash,
    Comment,
    /// In a comment, behind a `*`.
    CommentStar,
    /// In a string that ends with this quote.
    Text {
        quote: u8,
        is_url: bool,
    },
    /// In a string, behind a backslash.
    Escaped {
        quote: u8,
        is_url: bool,
        /// Behind a backslash and CR, which are one line's end with LF.
        is_at_cr: bool,
    },
    /// Behind a backslash outside of strings.
    Backslash,
    /// Behind `url(`: blanks, then a quote or the URL.
    UrlStart,
    /// In a URL without quotes.
    Url {
        is_held: bool,
    },
    /// In one, behind a backslash.
    UrlEscaped {
        is_held: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    ImageSet,
    Other,
}

impl Scanner {
    /// Takes more of the sheet. `change` says what a URL becomes: the replaced bytes of its beginning, and what for.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>, change: &mut Change<'_>) {
        // What has been looked at and can leave as it is.
        let mut kept = 0;
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Plain => {
                    if self.name.is_empty() && !self.awaits_import && self.open.is_empty() {
                        // Most bytes by far: blanks, braces, numbers.
                        let dull = input[at..].iter().take_while(|byte| is_dull(**byte)).count();
                        if dull > 0 {
                            self.is_at = false;
                            at += dull;
                            continue;
                        }
                    }
                    self.plain(byte);
                    if matches!(self.state, State::Text { is_url: true, .. }) {
                        out.extend_from_slice(&input[kept..=at]);
                        kept = at + 1;
                    }
                }
                State::Slash => {
                    self.state = if byte == b'*' { State::Comment } else { State::Plain };
                    if byte != b'*' {
                        self.awaits_import = false;
                        continue;
                    }
                }
                State::Comment => {
                    let star = input[at..].iter().position(|byte| *byte == b'*');
                    at += star.unwrap_or(input.len() - at);
                    if star.is_none() {
                        continue;
                    }
                    self.state = State::CommentStar;
                }
                State::CommentStar => match byte {
                    b'/' => self.state = State::Plain,
                    b'*' => {}
                    _ => self.state = State::Comment,
                },
                State::Backslash => {
                    // An escaped name is not one that we know; it goes on.
                    self.state = State::Plain;
                    self.push_name(b'\\');
                }
                State::UrlStart => match byte {
                    b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => {}
                    b'"' | b'\'' => {
                        out.extend_from_slice(&input[kept..=at]);
                        kept = at + 1;
                        self.state = State::Text { quote: byte, is_url: true };
                    }
                    _ => {
                        out.extend_from_slice(&input[kept..at]);
                        kept = at;
                        self.state = State::Url { is_held: true };
                        continue;
                    }
                },
                State::Url { is_held } => {
                    let is_end = matches!(byte, b')' | b' ' | b'\t' | b'\n' | b'\r' | b'\x0c');
                    if is_end {
                        if is_held {
                            self.held.extend_from_slice(&input[kept..at]);
                            kept = at;
                            self.release(out, change);
                        }
                        // Blanks may stand before the parenthesis, which closes what `url(` has opened.
                        self.state = State::Plain;
                        continue;
                    }
                    if byte == b'\\' {
                        self.state = State::UrlEscaped { is_held };
                    } else if is_held && !self.may_be_url(&input[kept..=at]) {
                        self.give_up(&input[kept..=at], out);
                        kept = at + 1;
                        self.state = State::Url { is_held: false };
                    }
                }
                State::UrlEscaped { is_held } => self.state = State::Url { is_held },
                State::Text { quote, is_url } => {
                    let is_end = byte == quote || matches!(byte, b'\n' | b'\x0c' | b'\r');
                    if is_end {
                        if is_url {
                            self.held.extend_from_slice(&input[kept..at]);
                            kept = at;
                            match byte == quote {
                                true => self.release(out, change),
                                // A string that a line's end breaks off is none.
                                false => self.give_up(&[], out),
                            }
                        }
                        self.state = State::Plain;
                    } else if byte == b'\\' {
                        self.state = State::Escaped { quote, is_url, is_at_cr: false };
                    } else if is_url && !self.may_be_url(&input[kept..=at]) {
                        self.give_up(&input[kept..=at], out);
                        kept = at + 1;
                        self.state = State::Text { quote, is_url: false };
                    } else if !is_url {
                        let special =
                            |byte: &u8| *byte == quote || matches!(byte, b'\\' | b'\n' | b'\x0c' | b'\r');
                        let dull = input[at..].iter().position(special).unwrap_or(input.len() - at);
                        at += dull;
                        continue;
                    }
                }
                State::Escaped { quote, is_url, is_at_cr: false } if byte == b'\r' => {
                    self.state = State::Escaped { quote, is_url, is_at_cr: true };
                }
                State::Escaped { quote, is_url, is_at_cr } => {
                    self.state = State::Text { quote, is_url };
                    if is_at_cr && byte != b'\n' {
                        continue;
                    }
                }
            }
            at += 1;
        }
        let rest = &input[kept..];
        match self.is_holding() {
            true => self.held.extend_from_slice(rest),
            false => out.extend_from_slice(rest),
        }
    }

    /// The sheet has ended: what is held is no URL that is whole.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.give_up(&[], out);
        *self = Scanner::default();
    }

    fn is_holding(&self) -> bool {
        matches!(
            self.state,
            State::Text { is_url: true, .. }
                | State::Escaped { is_url: true, .. }
                | State::Url { is_held: true }
                | State::UrlEscaped { is_held: true }
        )
    }

    fn plain(&mut self, byte: u8) {
        let is_name = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || byte >= 0x80;
        if is_name {
            return self.push_name(byte);
        }
        let name = std::mem::take(&mut self.name);
        let is_at = std::mem::take(&mut self.is_at);
        if is_at {
            self.awaits_import = name == b"import";
        } else if !name.is_empty() && byte != b'(' {
            self.awaits_import = false;
        }
        // The allocation is used again.
        let known = function(&name);
        self.name = name;
        self.name.clear();
        match byte {
            b'@' => (self.is_at, self.awaits_import) = (true, false),
            b'/' => self.state = State::Slash,
            b'\\' => self.state = State::Backslash,
            b'"' | b'\'' => {
                let is_url = std::mem::take(&mut self.awaits_import)
                    || (self.deeper == 0 && self.open.last() == Some(&Function::ImageSet));
                self.state = State::Text { quote: byte, is_url };
            }
            b'(' => {
                self.awaits_import = false;
                let (function, takes_url) = known;
                match self.open.len() < DEPTH_MAX {
                    true => self.open.push(function),
                    false => self.deeper += 1,
                }
                if takes_url {
                    self.state = State::UrlStart;
                }
            }
            b')' => match self.deeper {
                0 => drop(self.open.pop()),
                _ => self.deeper -= 1,
            },
            b'{' | b'}' | b';' => {
                self.awaits_import = false;
                if byte != b';' {
                    // A block ends what was left open.
                    self.open.clear();
                    self.deeper = 0;
                }
            }
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => {}
            _ => self.awaits_import = false,
        }
    }

    fn push_name(&mut self, byte: u8) {
        if self.name.len() <= NAME_BYTES_MAX {
            self.name.push(byte.to_ascii_lowercase());
        }
    }

    /// Whether what is held, with this behind it, may still become something that moves: `data:` may not, and is long.
    fn may_be_url(&self, more: &[u8]) -> bool {
        const DATA: &[u8] = b"data:";
        let length = self.held.len() + more.len();
        let is_data = || self.held.iter().chain(more).map(u8::to_ascii_lowercase).eq(DATA.iter().copied());
        length <= URL_BYTES_MAX && !(length == DATA.len() && is_data())
    }

    /// Lets what is held go as it is, and `more` behind it.
    fn give_up(&mut self, more: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.held);
        out.extend_from_slice(more);
    }

    /// Lets the URL that is held go, changed or not.
    fn release(&mut self, out: &mut Vec<u8>, change: &mut Change<'_>) {
        let blank = |byte: &u8| byte.is_ascii_whitespace();
        let start = self.held.iter().take_while(|byte| blank(byte)).count();
        let end = self.held.len() - self.held[start..].iter().rev().take_while(|byte| blank(byte)).count();
        if let Some((replaced, with)) = change(&self.held[start..end]) {
            out.extend_from_slice(&self.held[..start]);
            out.extend_from_slice(with.as_bytes());
            out.extend_from_slice(&self.held[start + replaced..]);
            self.held.clear();
        } else {
            out.append(&mut self.held);
        }
    }
}

/// What a name before a parenthesis means, and whether a URL follows.
fn function(name: &[u8]) -> (Function, bool) {
    match name {
        b"url" | b"src" => (Function::Other, true),
        b"image-set" | b"-webkit-image-set" => (Function::ImageSet, false),
        _ => (Function::Other, false),
    }
}

/// What a URL becomes, if anything: how many bytes of its beginning are replaced, and by what.
pub(super) type Change<'c> = dyn FnMut(&[u8]) -> Option<(usize, String)> + 'c;

/// Bytes that mean nothing outside of names, strings and parentheses.
const fn is_dull(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t'
            | b'\n'
            | b'\r'
            | b'\x0c'
            | b':'
            | b';'
            | b','
            | b'.'
            | b'#'
            | b'{'
            | b'}'
            | b'>'
            | b'+'
            | b'%'
            | b'!'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut scanner, mut out) = (Scanner::default(), Vec::new());
        let mut change = |url: &[u8]| url.starts_with(b"/").then(|| (1, "MOVED/".to_owned()));
        for piece in pieces {
            scanner.push(piece, &mut out, &mut change);
        }
        scanner.finish(&mut out);
        out
    }

    fn whole(text: &str) -> String {
        String::from_utf8(through(&[text.as_bytes()])).unwrap()
    }

    #[test]
    fn urls_are_found_where_css_has_them_and_nowhere_else() {
        for (sheet, becomes) in [
            ("a{b:url(/x.png)}", "a{b:url(MOVED/x.png)}"),
            ("a{b:url( /x.png )}", "a{b:url( MOVED/x.png )}"),
            ("a{b:URL(\"/x.png\")}", "a{b:URL(\"MOVED/x.png\")}"),
            ("a{b:url( '/x.png' )}", "a{b:url( 'MOVED/x.png' )}"),
            ("a{b:url()}c{d:url(/x)}", "a{b:url()}c{d:url(MOVED/x)}"),
            ("@import \"/x.css\";", "@import \"MOVED/x.css\";"),
            ("@import/**/ '/x.css' layer(\"/y\") screen;", "@import/**/ 'MOVED/x.css' layer(\"/y\") screen;"),
            ("@IMPORT url(/x.css) screen;", "@IMPORT url(MOVED/x.css) screen;"),
            ("@import url(\"/x.css\");", "@import url(\"MOVED/x.css\");"),
            ("@charset \"/x\";", "@charset \"/x\";"),
            ("@important \"/x\";", "@important \"/x\";"),
            (
                "a{b:image-set(\"/x.png\" 1x,'/y.png' 2x)}",
                "a{b:image-set(\"MOVED/x.png\" 1x,'MOVED/y.png' 2x)}",
            ),
            ("a{b:-webkit-image-set(url(/x) 1x)}", "a{b:-webkit-image-set(url(MOVED/x) 1x)}"),
            (
                "a{b:image-set(\"/x\" type(\"/image\"), url('/y') 2x);c:\"/z\"}",
                "a{b:image-set(\"MOVED/x\" type(\"/image\"), url('MOVED/y') 2x);c:\"/z\"}",
            ),
            (
                "@font-face{src:url(/x.woff2)format(\"/w\"),src(\"/y\")}",
                "@font-face{src:url(MOVED/x.woff2)format(\"/w\"),src(\"MOVED/y\")}",
            ),
            ("a{content:\"url(/x)\"}", "a{content:\"url(/x)\"}"),
            ("a{content:\"\\\"url(/x)\"}", "a{content:\"\\\"url(/x)\"}"),
            ("a{content:\"\\\r\nurl(/x)\";b:url(/y)}", "a{content:\"\\\r\nurl(/x)\";b:url(MOVED/y)}"),
            ("a{content:\"\\\r\";b:url(/y)}", "a{content:\"\\\r\";b:url(MOVED/y)}"),
            (
                "@import \"/x\\\r\n.css\";@import \"/y\";",
                "@import \"MOVED/x\\\r\n.css\";@import \"MOVED/y\";",
            ),
            ("/* url(/x) */a{b:url(/y)}", "/* url(/x) */a{b:url(MOVED/y)}"),
            ("/* * / **/a{b:url(/y)}", "/* * / **/a{b:url(MOVED/y)}"),
            ("a{b:myurl(/x)}", "a{b:myurl(/x)}"),
            ("a{b:c/url(/x)}", "a{b:c/url(MOVED/x)}"),
            ("a{b:\\url(/x)}", "a{b:\\url(/x)}"),
            ("a{b:url(/x\\)y)c:url(/z)}", "a{b:url(MOVED/x\\)y)c:url(MOVED/z)}"),
            ("a{b:url(\"/x\n)}c{d:url(/y)}", "a{b:url(\"/x\n)}c{d:url(MOVED/y)}"),
            ("a{b:url(data:image/png;base64,/x)}", "a{b:url(data:image/png;base64,/x)}"),
            (
                "a{b:url(\"data:image/svg+xml,<svg x='/y'/>\")}",
                "a{b:url(\"data:image/svg+xml,<svg x='/y'/>\")}",
            ),
            ("a{b:url(/x", "a{b:url(/x"),
            ("a{b:image-set(}c{d:\"/x\"}", "a{b:image-set(}c{d:\"/x\"}"),
            ("caf\u{e9}{b:url(/\u{e9})}", "caf\u{e9}{b:url(MOVED/\u{e9})}"),
        ] {
            assert_eq!(whole(sheet), becomes);
        }
    }

    #[test]
    fn what_is_too_long_for_a_url_passes_as_it_is() {
        let sheet = format!("a{{b:url(/{})}}c{{d:url(/y)}}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(whole(&sheet), sheet.replace("url(/y)", "url(MOVED/y)"));
        let mut scanner = Scanner::default();
        let mut out = Vec::new();
        for _ in 0..100 {
            scanner.push(&[b'('; 100], &mut out, &mut |_| None);
        }
        assert!(scanner.open.len() <= DEPTH_MAX && out.len() == 10_000);
    }

    fn sheet() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(vec![
            "url(",
            "/x.png",
            ")",
            "\"",
            "'",
            "@import",
            " ",
            "\n",
            "/*",
            "*/",
            "\\",
            "image-set(",
            "src(",
            "data:",
            "{",
            "}",
            ";",
            ",",
            "a",
            "\u{e9}",
            "/",
            "*",
            "(",
            "@",
        ]);
        prop::collection::vec(word, 0..40).prop_map(|words| words.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn how_a_sheet_is_cut_makes_no_difference(sheet in sheet(), cuts in prop::collection::vec(0_usize..200, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(sheet.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&sheet[from..cut]);
                from = cut;
            }
            pieces.push(&sheet[from..]);
            prop_assert_eq!(through(&pieces), through(&[&sheet]));
        }

        #[test]
        fn nothing_is_lost_or_added_where_nothing_moves(sheet in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut scanner, mut out) = (Scanner::default(), Vec::new());
            scanner.push(&sheet, &mut out, &mut |_| None);
            scanner.finish(&mut out);
            prop_assert_eq!(out, sheet);
        }
    }
}
