//! Structured field values (RFC 9651), as far as caching fields need them: dictionaries of items (the targeted fields of
//! RFC 9213) and lists of strings (RFC 9875). Strict, as the RFC demands: one wrong byte and the whole field is void.
//!
//! Parameters are checked for form and then dropped. Inner lists, byte sequences, dates and display strings are checked
//! and come out as [`Item::Other`]: no field of ours has a use for them.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// One bare item (RFC 9651 §3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// Up to 15 digits, with sign.
    Integer(i64),
    /// The text between the quotes, unescaped.
    String(Cow<'a, [u8]>),
    /// A token, as it stands.
    Token(&'a [u8]),
    /// `?1`, `?0`, or a dictionary member without a value.
    Boolean(bool),
    /// A well-formed item or inner list of another kind.
    Other,
}

/// Reads a dictionary (RFC 9651 §4.2.2). `None` when it is malformed. A key that comes twice has its last value, as the RFC says; the
/// order, which nobody asks for, is that of the keys. An empty value is an empty dictionary.
pub(crate) fn dictionary(text: &[u8]) -> Option<BTreeMap<&[u8], Item<'_>>> {
    let mut members = BTreeMap::new();
    let mut parser = Parser { rest: text };
    parser.list(|parser| {
        let key = parser.key()?;
        let item = if parser.eat(b'=') { parser.item_or_inner_list()? } else { Item::Boolean(true) };
        parser.parameters()?;
        members.insert(key, item);
        Some(())
    })?;
    Some(members)
}

/// Reads a list of strings (RFC 9651 §4.2.1). `None` when it is malformed or has a member that is no string.
pub(crate) fn strings(text: &[u8]) -> Option<Vec<Cow<'_, [u8]>>> {
    let mut members = Vec::new();
    let mut parser = Parser { rest: text };
    parser.list(|parser| {
        let Item::String(text) = parser.item_or_inner_list()? else { return None };
        parser.parameters()?;
        members.push(text);
        Some(())
    })?;
    Some(members)
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn eat(&mut self, wanted: u8) -> bool {
        match self.rest {
            [byte, rest @ ..] if *byte == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Takes bytes while `wanted` holds.
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// The members between commas, to the end of the field. A comma at the end is an error, no member at all is not.
    fn list(&mut self, mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(|byte| byte == b' ');
        while let [rest @ .., b' '] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return Some(());
        }
        loop {
            member(self)?;
            self.take(is_ows);
            if self.rest.is_empty() {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
            self.take(is_ows);
        }
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let key = self.take(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
        });
        key.first().filter(|first| first.is_ascii_lowercase() || **first == b'*').map(|_| key)
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.take(|byte| byte == b' ');
            self.key()?;
            if self.eat(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn item_or_inner_list(&mut self) -> Option<Item<'a>> {
        if !self.eat(b'(') {
            return self.bare_item();
        }
        loop {
            self.take(|byte| byte == b' ');
            if self.eat(b')') {
                return Some(Item::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.rest, [b' ' | b')', ..]) {
                return None;
            }
        }
    }

    fn bare_item(&mut self) -> Option<Item<'a>> {
        match *self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => {
                self.rest = &self.rest[1..];
                self.string()
            }
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                let is_tail = |byte| crate::fields::is_tchar(byte) || matches!(byte, b':' | b'/');
                Some(Item::Token(self.take(is_tail)))
            }
            b'?' => {
                self.rest = &self.rest[1..];
                match self.rest {
                    [byte @ (b'0' | b'1'), rest @ ..] => {
                        self.rest = rest;
                        Some(Item::Boolean(*byte == b'1'))
                    }
                    _ => None,
                }
            }
            b':' => {
                self.rest = &self.rest[1..];
                self.take(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Item::Other)
            }
            b'@' => {
                self.rest = &self.rest[1..];
                matches!(self.number()?, Item::Integer(_)).then_some(Item::Other)
            }
            b'%' => {
                self.rest = self.rest.strip_prefix(b"%\"")?;
                self.take(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
                self.eat(b'"').then_some(Item::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item<'a>> {
        let negative = self.eat(b'-');
        let whole = self.take(|byte| byte.is_ascii_digit());
        if whole.is_empty() {
            return None;
        }
        if self.eat(b'.') {
            let fraction = self.take(|byte| byte.is_ascii_digit());
            return (whole.len() <= 12 && matches!(fraction.len(), 1..=3)).then_some(Item::Other);
        }
        if whole.len() > 15 {
            return None;
        }
        let number = whole.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        Some(Item::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Item<'a>> {
        let plain = self.take(is_string_byte);
        let mut text = Cow::Borrowed(plain);
        loop {
            if self.eat(b'"') {
                return Some(Item::String(text));
            }
            let [b'\\', escaped @ (b'"' | b'\\'), rest @ ..] = self.rest else { return None };
            self.rest = rest;
            let text = text.to_mut();
            text.push(*escaped);
            text.extend_from_slice(self.take(is_string_byte));
        }
    }
}

fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_string_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_reads_or_is_void_as_a_whole() {
        let check = |text: &str, expected: Option<&str>| {
            let found = dictionary(text.as_bytes()).map(|members| {
                let shown = members.iter().map(|(key, item)| {
                    let key = String::from_utf8_lossy(key);
                    match item {
                        Item::Integer(number) => format!("{key}={number}"),
                        Item::String(text) => format!("{key}:{}", String::from_utf8_lossy(text)),
                        Item::Token(token) => format!("{key}~{}", String::from_utf8_lossy(token)),
                        Item::Boolean(is) => format!("{key}?{is}"),
                        Item::Other => format!("{key}#"),
                    }
                });
                shown.collect::<Vec<_>>().join(" ")
            });
            assert_eq!(found.as_deref(), expected, "{text:?}");
        };
        check("", Some(""));
        check("  ", Some(""));
        check("max-age=60", Some("max-age=60"));
        check("  max-age=60 ,\tno-cache  ", Some("max-age=60 no-cache?true"));
        check("a=1, b=2, a=3", Some("a=3 b=2"));
        check("a=-5, b=?0, c=tok/en:x, *d=1.5", Some("*d# a=-5 b?false c~tok/en:x"));
        check(r#"a="x \"y\" \\", b"#, Some(r#"a:x "y" \ b?true"#));
        check("a;p=1;q, b=1;x=?1", Some("a?true b=1"));
        check("a=(1 2;x \"s\");y, b=:YWJj:, c=@12, d=%\"f%c3\"", Some("a# b# c# d#"));
        check("a=999999999999999", Some("a=999999999999999"));
        for bad in [
            "a=1,",
            ",a=1",
            "a=1,,b",
            "A=1",
            "max-age =60",
            "max-age= 60",
            "max-age=60, &&&&&",
            "a=1 b=2",
            "a=",
            "a=1.",
            "a=1.2345",
            "a=--1",
            "a=1000000000000000",
            "a='1'",
            "a=\"open",
            "a=\"\\x\"",
            "a=\"\u{fc}\"",
            "a=?2",
            "a=(1 2",
            "a=(1,2)",
            "a=@1.5",
            "a=:YW",
            "1a",
            "a;",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_list_of_strings_takes_nothing_else() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let found = strings(text.as_bytes());
            let found = found.as_ref().map(|texts| texts.iter().map(|text| &text[..]).collect::<Vec<_>>());
            let expected = expected.map(|texts| texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
            assert_eq!(found, expected, "{text:?}");
        };
        check(r#""a", "b c";p=1 , "a,b""#, Some(&["a", "b c", "a,b"]));
        check("", Some(&[]));
        check("a", None);
        check(r#""a", 1"#, None);
        check(r#""a" "b""#, None);
        check(r#""a","#, None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            let _ = dictionary(&text);
            let _ = strings(&text);
        }

        #[test]
        fn no_near_dictionary_panics(text in r#"[a-c=0-9",;?:()@%. \t\\-]{0,24}"#) {
            let _ = dictionary(text.as_bytes());
        }
    }
}
