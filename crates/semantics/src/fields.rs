//! The field lines of one message: an ordered list of names and values over one buffer.
//!
//! This is the one representation of headers in Perigee: requests as they came from the wire, responses as they came
//! from the origin, and the stored head. It keeps order and repeated lines, compares names without regard to case
//! (RFC 9110 §5.1) and never interprets a value. The buffer is itself a valid HTTP/1.1 header block
//! (`name ": " value CRLF` per line), so a stored head is sent without being built again:
//!
//! ```text
//! buffer   Content-Type: text/css\r\nETag: "a"\r\n
//! lines    [name 0..12, value 14..22] [name 24..28, value 30..33]
//! ```
//!
//! It does not validate: the HTTP/1 parser and the origin client have done so before. [`Fields::append`] refuses
//! what would break the block (CR, LF and NUL in a value, a name that is not a token), so that no caller can inject a line.

/// Most field lines that one message may have; the parsers above refuse more with 431 or 502.
/// Default of Envoy's edge guide and of hyper (100), with room for what the edge adds.
pub const LINES_MAX: usize = 128;

/// An ordered list of field lines. Cloning copies the buffer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields {
    block: Vec<u8>,
    lines: Vec<Line>,
    /// One bit per `(length, first letter)` class of names present: a clear bit proves absence without a scan.
    present: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Line {
    name_start: u32,
    value_start: u32,
    value_len: u32,
    name_len: u16,
}

/// Why a field line was refused by [`Fields::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadField {
    /// The name is empty or has a byte outside `tchar` (RFC 9110 §5.6.2).
    Name,
    /// The value has CR, LF or NUL (RFC 9110 §5.5).
    Value,
}

impl Fields {
    /// No lines, no allocation.
    pub const fn new() -> Self {
        Fields { block: Vec::new(), lines: Vec::new(), present: 0 }
    }

    /// Room for `lines` lines and `bytes` bytes of block.
    pub fn with_capacity(lines: usize, bytes: usize) -> Self {
        Fields { block: Vec::with_capacity(bytes), lines: Vec::with_capacity(lines), present: 0 }
    }

    /// Reads back a block made by [`Fields::as_block`]. A line without `": "` is skipped: such a block was not made here.
    pub fn from_block(block: &[u8]) -> Self {
        let mut fields = Fields::with_capacity(16, block.len());
        for (name, value) in lines_of(block) {
            fields.append_unchecked(name, value);
        }
        fields
    }

    /// Adds a line at the end. Leading and trailing white space of `value` is dropped (RFC 9110 §5.5).
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), BadField> {
        let (name, value) = (name.as_ref(), value.as_ref());
        if name.is_empty() || name.len() > usize::from(u16::MAX) || !name.iter().all(|&byte| is_tchar(byte)) {
            return Err(BadField::Name);
        }
        if value.iter().any(|&byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(BadField::Value);
        }
        self.append_unchecked(name, trim(value));
        Ok(())
    }

    /// Adds a line whose name and value a parser has already validated and trimmed. Never fails; a caller that
    /// passes CR or LF here breaks the block, so the only callers are parsers and constants.
    pub fn append_unchecked(&mut self, name: &[u8], value: &[u8]) {
        let name_start = self.block.len() as u32;
        self.block.reserve(name.len() + value.len() + 4);
        self.block.extend_from_slice(name);
        self.block.extend_from_slice(b": ");
        let value_start = self.block.len() as u32;
        self.block.extend_from_slice(value);
        self.block.extend_from_slice(b"\r\n");
        self.present |= class(name);
        self.lines.push(Line {
            name_start,
            value_start,
            value_len: value.len() as u32,
            name_len: name.len() as u16,
        });
    }

    /// Replaces every line of `name` by one at the end.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), BadField> {
        self.remove(name.as_ref());
        self.append(name, value)
    }

    /// Drops every line of `name`; says how many there were. Costs a rebuild of the block only when there were any.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> usize {
        let name = name.as_ref();
        if !self.contains(name) {
            return 0;
        }
        let before = self.len();
        self.retain(|candidate, _| !candidate.eq_ignore_ascii_case(name));
        before - self.len()
    }

    /// Keeps the lines for which `keep(name, value)` holds, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let mut kept = Fields::with_capacity(self.lines.len(), self.block.len());
        for (name, value) in self.iter() {
            if keep(name, value) {
                kept.append_unchecked(name, value);
            }
        }
        *self = kept;
    }

    /// The value of the first line of `name`, in any case; no allocation.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        if self.present & class(name) == 0 {
            return None;
        }
        self.lines.iter().find(|line| self.name(line).eq_ignore_ascii_case(name)).map(|line| self.value(line))
    }

    /// The values of all lines of `name`, in order.
    pub fn get_all<'a>(
        &'a self,
        name: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let name = name.as_ref();
        let lines: &[Line] = if self.present & class(name) == 0 { &[] } else { &self.lines };
        lines.iter().filter(|line| self.name(line).eq_ignore_ascii_case(name)).map(|line| self.value(line))
    }

    /// All lines of `name` as one list, joined by `", "` (RFC 9110 §5.3); `None` when there is no such line.
    pub fn combined(&self, name: impl AsRef<[u8]>) -> Option<std::borrow::Cow<'_, [u8]>> {
        let name = name.as_ref();
        let first = self.get(name)?;
        let mut rest = self.get_all(name).skip(1).peekable();
        if rest.peek().is_none() {
            return Some(first.into());
        }
        let mut joined = first.to_vec();
        for value in rest {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value);
        }
        Some(joined.into())
    }

    /// Whether there is a line of `name`.
    pub fn contains(&self, name: impl AsRef<[u8]>) -> bool {
        self.get(name).is_some()
    }

    /// Every line as `(name, value)`, in order; the name in the case it came in.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.name(line), self.value(line)))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines as an HTTP/1.1 header block without the empty line that ends it.
    pub fn as_block(&self) -> &[u8] {
        &self.block
    }

    fn name(&self, line: &Line) -> &[u8] {
        &self.block[line.name_start as usize..][..usize::from(line.name_len)]
    }

    fn value(&self, line: &Line) -> &[u8] {
        &self.block[line.value_start as usize..][..line.value_len as usize]
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.block))
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    /// For tests and constants; a bad line is left out.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        let mut fields = Fields::new();
        for (name, value) in lines {
            let _ = fields.append(name, value);
        }
        fields
    }
}

/// The lines of a block made by [`Fields::as_block`], read without building [`Fields`].
pub fn lines_of(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = block;
    std::iter::from_fn(move || {
        loop {
            let end = memchr::memchr(b'\r', rest)?;
            let line = &rest[..end];
            rest = rest.get(end + 2..).unwrap_or(&[]);
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            return Some((&line[..colon], trim(&line[colon + 1..])));
        }
    })
}

/// The first value of `name` in a block made by [`Fields::as_block`].
pub fn value_in<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    lines_of(block)
        .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
pub const fn is_tchar(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// Whether `byte` is one of the control characters that RFC 9110 §5.5 calls invalid or dangerous in a value; HTAB is allowed.
pub const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Whether `name` is one of `names`, in any case.
pub fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// Appends `value` in decimal. Faster than `core::fmt`, which a line of the log would enter a dozen times.
pub fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The last `N` hex digits of `value`, in lower case; `N` is 32 at most.
pub fn hex<const N: usize>(value: u128) -> [u8; N] {
    std::array::from_fn(|place| b"0123456789abcdef"[(value >> (4 * (N - 1 - place))) as usize & 15])
}

/// `value` without leading and trailing SP and HTAB (OWS, RFC 9110 §5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn class(name: &[u8]) -> u64 {
    let first = name.first().map_or(0, |byte| byte | 0x20);
    1 << ((name.len() as u64).wrapping_mul(31).wrapping_add(u64::from(first)) & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_lines_keep_their_order() {
        let fields: Fields =
            [("Set-Cookie", "a=1"), ("x", " padded\t"), ("set-cookie", "b=2")].into_iter().collect();
        assert_eq!(fields.get("SET-COOKIE"), Some(&b"a=1"[..]));
        assert_eq!(fields.get_all("set-cookie").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(fields.combined("set-cookie").as_deref(), Some(&b"a=1, b=2"[..]));
        assert_eq!(fields.as_block(), b"Set-Cookie: a=1\r\nx: padded\r\nset-cookie: b=2\r\n");
        assert_eq!(fields.get("absent"), None);
    }

    #[test]
    fn a_block_reads_back_as_the_same_lines() {
        let fields: Fields = [("A", ""), ("B", "x: y"), ("C", "z")].into_iter().collect();
        assert_eq!(Fields::from_block(fields.as_block()), fields);
        assert_eq!(value_in(fields.as_block(), "b"), Some(&b"x: y"[..]));
    }

    #[test]
    fn a_line_that_would_break_the_block_is_refused() {
        let mut fields = Fields::new();
        for value in ["a\r\nEvil: 1", "a\n", "\0", "a\rb"] {
            assert_eq!(fields.append("x", value), Err(BadField::Value), "{value:?}");
        }
        for name in ["", "a b", "a:", "é", "a\r"] {
            assert_eq!(fields.append(name, "v"), Err(BadField::Name), "{name:?}");
        }
        assert!(fields.is_empty());
    }

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0, 9, 10, 4096, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
            assert_eq!(hex::<16>(value.into())[..], *format!("{value:016x}").as_bytes());
        }
        assert_eq!(hex(u128::MAX - 1), *b"fffffffffffffffffffffffffffffffe");
    }

    #[test]
    fn set_replaces_every_line_and_remove_counts_them() {
        let mut fields: Fields = [("a", "1"), ("b", "2"), ("A", "3")].into_iter().collect();
        fields.set("a", "4").unwrap();
        assert_eq!(fields.as_block(), b"b: 2\r\na: 4\r\n");
        assert_eq!(fields.remove("A"), 1);
        assert_eq!(fields.remove("A"), 0);
        assert_eq!(fields.len(), 1);
    }
}
