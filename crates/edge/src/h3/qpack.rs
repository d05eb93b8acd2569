//! Field sections (RFC 9204 §4.5) without a dynamic table: read into lines, written from lines.

use super::huffman;
use super::static_table::{LINES, number_of_line, number_of_name};

/// What RFC 9114 §4.2.2 counts for each line beside its bytes.
const LINE_COST: u64 = 32;

/// A field section as its lines: `text` holds names and values, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Section {
    text: Vec<u8>,
    /// Where name and value of each line end in `text`.
    ends: Vec<(usize, usize)>,
}

impl Section {
    /// Names and values, in order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let mut begin = 0;
        self.ends.iter().map(move |&(name, value)| {
            let line = (&self.text[begin..name], &self.text[name..value]);
            begin = value;
            line
        })
    }
}

/// Why a section could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadSection {
    /// It breaks the rules of QPACK; the connection is to be closed (RFC 9204 §2.2.3).
    Undecodable,
    /// Its lines are larger than allowed. Found out before more than that is kept.
    TooLarge,
}

/// Reads a section whose lines, by the count of RFC 9114 §4.2.2, have at most `size_max` bytes.
pub(crate) fn decode(section: &[u8], size_max: u64) -> Result<Section, BadSection> {
    let mut reader = Reader { rest: section };
    // §4.5.1: a section that needs nothing of a dynamic table, and counts from its begin.
    let required_inserts = reader.integer(8)?;
    let is_negative = reader.peek()? & 0x80 != 0;
    let _base = reader.integer(7)?;
    if required_inserts != 0 || is_negative {
        return Err(BadSection::Undecodable);
    }
    let mut lines = Section { text: Vec::with_capacity(section.len() * 2), ends: Vec::with_capacity(24) };
    while !reader.rest.is_empty() {
        let first = reader.peek()?;
        match first {
            // Indexed, static.
            0xc0.. => {
                let (name, value) = reader.known(6)?;
                lines.text.extend_from_slice(name.as_bytes());
                let name_end = lines.text.len();
                lines.text.extend_from_slice(value.as_bytes());
                lines.ends.push((name_end, lines.text.len()));
            }
            // Literal with a static name; the bit before the last tells intermediaries not to index it.
            0x40..0x80 if first & 0x10 != 0 => {
                let (name, _) = reader.known(4)?;
                lines.text.extend_from_slice(name.as_bytes());
                let name_end = lines.text.len();
                reader.text(7, size_max, &mut lines.text)?;
                lines.ends.push((name_end, lines.text.len()));
            }
            // Literal.
            0x20..0x40 => {
                reader.text(3, size_max, &mut lines.text)?;
                let name_end = lines.text.len();
                reader.text(7, size_max, &mut lines.text)?;
                lines.ends.push((name_end, lines.text.len()));
            }
            // What refers to a dynamic table, which there is none of.
            _ => return Err(BadSection::Undecodable),
        }
        if lines.text.len() as u64 + LINE_COST * lines.ends.len() as u64 > size_max {
            return Err(BadSection::TooLarge);
        }
    }
    Ok(lines)
}

/// Reads the instructions of QPACK's two streams (RFC 9204 §4.3, §4.4), of which few make sense without a table.
#[derive(Debug)]
pub(crate) struct Instructions {
    is_encoder: bool,
    /// The rest of an integer is to come.
    inside: bool,
}

/// An instruction that refers to what doesn't exist; the connection is to be closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadInstruction;

impl Instructions {
    /// Those of the visitor's encoder, or of its decoder.
    pub(crate) fn of_encoder(is_encoder: bool) -> Self {
        Instructions { is_encoder, inside: false }
    }

    /// Reads on.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), BadInstruction> {
        for &byte in bytes {
            if self.inside {
                self.inside = byte & 0x80 != 0;
                continue;
            }
            match (self.is_encoder, byte) {
                // A capacity of 0, which is the only one that our settings allow.
                (true, 0x20) => {}
                // The cancellation of a stream, by its number.
                (false, 0x40..0x80) => self.inside = byte == 0x7f,
                _ => return Err(BadInstruction),
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Result<u8, BadSection> {
        self.rest.first().copied().ok_or(BadSection::Undecodable)
    }

    /// An integer that begins in the last `bits` of a byte (RFC 7541 §5.1). More than 2^32 is refused.
    fn integer(&mut self, bits: u32) -> Result<u64, BadSection> {
        let (&first, mut rest) = self.rest.split_first().ok_or(BadSection::Undecodable)?;
        let mask = (1_u64 << bits) - 1;
        let mut value = u64::from(first) & mask;
        if value == mask {
            for shift in (0..).step_by(7) {
                let (&byte, more) = rest.split_first().ok_or(BadSection::Undecodable)?;
                rest = more;
                if shift > 28 {
                    return Err(BadSection::Undecodable);
                }
                value += u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        self.rest = rest;
        Ok(value)
    }

    /// A line of the static table, by a number in the last `bits` of a byte.
    fn known(&mut self, bits: u32) -> Result<(&'static str, &'static str), BadSection> {
        let number = self.integer(bits)?;
        LINES.get(number as usize).copied().ok_or(BadSection::Undecodable)
    }

    /// A text whose length is in the last `bits` of a byte, behind the bit that says whether it is Huffman-coded.
    fn text(&mut self, bits: u32, size_max: u64, out: &mut Vec<u8>) -> Result<(), BadSection> {
        let is_coded = self.peek()? >> bits & 1 == 1;
        let length = self.integer(bits)?;
        if length > self.rest.len() as u64 {
            return Err(BadSection::Undecodable);
        }
        // A code has thirty bits at most.
        if out.len() as u64 + if is_coded { length * 8 / 30 } else { length } > size_max {
            return Err(BadSection::TooLarge);
        }
        let (text, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        match is_coded {
            true => huffman::decode(text, out).map_err(|_| BadSection::Undecodable)?,
            false => out.extend_from_slice(text),
        }
        Ok(())
    }
}

// --- Writing ---

/// Begins a section.
pub(crate) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
}

/// Appends `:status`.
pub(crate) fn write_status(out: &mut Vec<u8>, status: u16) {
    let digits =
        [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
    // The statuses stand in two places of the table.
    let known = [24, 63].into_iter().find_map(|first| number_of_line(first, &digits));
    match known {
        Some(number) => write_integer(out, 0xc0, 6, number),
        None => {
            write_integer(out, 0x50, 4, 24);
            write_text(out, 0, 7, &digits);
        }
    }
}

/// Appends a line; its name is made lower case (RFC 9114 §4.2). Texts are not Huffman-coded: they lie there as they are
/// sent, and a fifth of a head is not worth coding it for each answer.
pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut small = [0; 64];
    let mut large;
    let lower = match small.get_mut(..name.len()) {
        Some(lower) => lower,
        None => {
            large = vec![0; name.len()];
            &mut large[..]
        }
    };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let Some(first) = number_of_name(lower) else {
        write_text(out, 0x20, 3, lower);
        return write_text(out, 0, 7, value);
    };
    match number_of_line(first, value) {
        Some(number) => write_integer(out, 0xc0, 6, number),
        None => {
            write_integer(out, 0x50, 4, first);
            write_text(out, 0, 7, value);
        }
    }
}

fn write_text(out: &mut Vec<u8>, pattern: u8, bits: u32, text: &[u8]) {
    write_integer(out, pattern, bits, text.len());
    out.extend_from_slice(text);
}

/// Appends an integer into the last `bits` of a byte that begins with `pattern`.
fn write_integer(out: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        return out.push(pattern | value as u8);
    }
    out.push(pattern | mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Lines = Vec<(Vec<u8>, Vec<u8>)>;

    fn lines(section: &[u8]) -> Result<Lines, BadSection> {
        decode(section, 4096)
            .map(|read| read.lines().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
    }

    /// RFC 9204 §B.1, and one line of each other kind.
    #[test]
    fn sections_are_read() {
        let line = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let path = [&[0, 0, 0x51, 0x0b][..], b"/index.html"].concat();
        assert_eq!(lines(&path), Ok(vec![line(":path", "/index.html")]));
        assert_eq!(lines(&[0, 0, 0xd1]), Ok(vec![line(":method", "GET")]));
        assert_eq!(lines(&[0, 0, 0xff, 35]), Ok(vec![line("x-frame-options", "sameorigin")]));
        let literal = [&[0, 0, 0x23][..], b"abc", &[0x01], b"d"].concat();
        assert_eq!(lines(&literal), Ok(vec![line("abc", "d")]));
        let coded = [0, 0, 0x5f, 0x1d, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(lines(&coded), Ok(vec![line("content-type", "no-cache")]));
    }

    #[test]
    fn what_needs_a_dynamic_table_is_refused() {
        for section in [
            &[1, 0, 0xd1][..],      // required inserts
            &[0, 0x80, 0xd1],       // a negative base
            &[0, 0, 0x80],          // indexed, dynamic
            &[0, 0, 0x10],          // indexed, behind the base
            &[0, 0, 0x40, 0],       // a name of the dynamic table
            &[0, 0, 0x00, 0],       // a name behind the base
            &[0, 0, 0xff, 36],      // beyond the static table
            &[0, 0, 0x51, 5, b'/'], // a text that is cut short
            &[0],
            &[],
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert_eq!(lines(section), Err(BadSection::Undecodable), "{section:?}");
        }
    }

    #[test]
    fn small_sections_of_large_lines_are_refused_in_time() {
        let bomb = [&[0, 0][..], &[0xd1].repeat(4000)].concat();
        assert_eq!(lines(&bomb), Err(BadSection::TooLarge));
        let long = [&[0, 0, 0x51, 0x7f, 0xff, 0x7f][..], &[b'/'; 20_000]].concat();
        assert_eq!(lines(&long), Err(BadSection::TooLarge));
    }

    #[test]
    fn instructions_without_a_table_are_few() {
        assert_eq!(Instructions::of_encoder(true).read(&[0x20]), Ok(()));
        assert_eq!(Instructions::of_encoder(true).read(&[0x3f, 0x01]), Err(BadInstruction));
        assert_eq!(Instructions::of_encoder(true).read(&[0xc0, 0x00]), Err(BadInstruction));
        let mut decoder = Instructions::of_encoder(false);
        assert_eq!(decoder.read(&[0x44, 0x7f, 0x81]), Ok(()));
        assert_eq!(decoder.read(&[0x01, 0x40]), Ok(()));
        assert_eq!(decoder.read(&[0x84]), Err(BadInstruction), "an acknowledgement");
        assert_eq!(Instructions::of_encoder(false).read(&[0x01]), Err(BadInstruction), "an increment");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            status in 100_u16..600,
            lines in prop::collection::vec(("[a-zA-Z0-9-]{1,80}", "[ -~]{0,300}"), 0..8),
        ) {
            let mut section = Vec::new();
            begin(&mut section);
            write_status(&mut section, status);
            for (name, value) in &lines {
                write_line(&mut section, name.as_bytes(), value.as_bytes());
            }
            for (name, value) in LINES {
                write_line(&mut section, name.as_bytes(), value.as_bytes());
            }
            let read = decode(&section, 1 << 20).expect("what we write can be read");
            let read: Lines = read.lines().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            let mut wanted = vec![(b":status".to_vec(), status.to_string().into_bytes())];
            let lower = |name: &str| name.to_ascii_lowercase().into_bytes();
            wanted.extend(lines.iter().map(|(name, value)| (lower(name), value.clone().into_bytes())));
            wanted.extend(LINES.map(|(name, value)| (lower(name), value.as_bytes().to_vec())));
            prop_assert_eq!(read, wanted);
        }
    }
}
