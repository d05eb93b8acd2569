//! Numbers and texts as bytes, as short as they are. Whatever is read is checked, and never longer than what is there.

use crate::report::Damaged;

/// Appends seven bits per byte, the lowest first.
pub fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a text behind its length.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    write_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what these have written.
pub struct Reader<'a>(
    /// What has not been read yet.
    pub &'a [u8],
);

impl<'a> Reader<'a> {
    /// The next byte.
    ///
    /// # Errors
    /// There is none, as for all that follows.
    pub fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.0.split_first().ok_or(Damaged("is cut off"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number.
    ///
    /// # Errors
    /// It is cut off, or has more than 64 bits.
    pub fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte < 0x80 {
                let fits = bits << shift >> shift == bits;
                return if fits { Ok(number) } else { Err(Damaged("has a number over 64 bits")) };
            }
        }
        Err(Damaged("has a number over 64 bits"))
    }

    /// A number that says how many of something follow, each of which takes `bytes_min`.
    ///
    /// # Errors
    /// There is less than it says.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, Damaged> {
        let count = self.number()?;
        match count <= (self.0.len() / bytes_min.max(1)) as u64 {
            true => Ok(count as usize),
            false => Err(Damaged("says that more follows than is there")),
        }
    }

    /// So many bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged("is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// A text behind its length.
    ///
    /// # Errors
    /// It is cut off, or not in UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.count(1)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Damaged("has a text that is none"))
    }
}
