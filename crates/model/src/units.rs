//! Amounts as people write them: `"30d"`, `"1h30m"`, `"512MiB"`. Parsing gives a reason in words; printing gives the
//! shortest text that parses back to the same amount. Called by the configuration reader and by messages.

use std::fmt;
use std::time::Duration;

/// How long something may be reused: whole seconds, from 0 to [`Ttl::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

/// An amount of memory or of body: whole bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a text is no amount: a sentence part that follows the text, and a text that would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAmount {
    /// What is wrong, as in `"has no unit"`.
    pub reason: String,
    /// What to write instead.
    pub suggestion: String,
}

/// Units of time, longest first, with their length in milliseconds. A year is 365 days.
const TIME_UNITS: &[(&str, u64)] = &[
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Words that people write for the units above.
const TIME_WORDS: &[(&str, &[&str])] = &[
    ("y", &["year", "years", "yr"]),
    ("w", &["week", "weeks"]),
    ("d", &["day", "days", "D"]),
    ("h", &["hour", "hours", "hr", "hrs", "H"]),
    ("m", &["minute", "minutes", "min", "mins"]),
    ("s", &["second", "seconds", "sec", "secs", "S"]),
    ("ms", &["millisecond", "milliseconds", "msec", "MS"]),
];

/// Units of size, largest first. Binary units count in 1024, decimal ones in 1000 (IEC 80000-13).
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

impl Ttl {
    /// Largest delta-seconds that every cache understands: 2^31 (RFC 9111 §1.2.2), about 68 years.
    pub const MAX: Ttl = Ttl(1 << 31);

    /// `secs` seconds, at most [`Ttl::MAX`].
    pub const fn from_secs(secs: u64) -> Ttl {
        if secs > Ttl::MAX.0 { Ttl::MAX } else { Ttl(secs) }
    }

    /// Whole seconds.
    pub const fn secs(self) -> u64 {
        self.0
    }

    /// Reads a duration in whole seconds, such as `"90s"` or `"1h30m"`; see [`parse_duration`].
    pub fn parse(text: &str) -> Result<Ttl, BadAmount> {
        let duration = parse_duration(text)?;
        if duration.subsec_millis() != 0 {
            return Err(bad("is not in whole seconds", &Ttl(duration.as_secs() + 1).to_string()));
        }
        if duration.as_secs() > Ttl::MAX.0 {
            return Err(bad("is over 2147483648 seconds, the most that caches understand", "1y"));
        }
        Ok(Ttl(duration.as_secs()))
    }
}

/// Reads a duration: one or more whole numbers, each with its unit, largest unit first, nothing between them:
/// `"250ms"`, `"90s"`, `"1h30m"`, `"30d"`, `"1w"`, `"1y"` (365 days). `"0"` needs no unit.
///
/// Not supported: fractions, signs, white space, months (they have no fixed length).
pub fn parse_duration(text: &str) -> Result<Duration, BadAmount> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = split_amount(rest).ok_or_else(|| no_duration(text))?;
        rest = after;
        let Some(&(_, unit_ms)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.is_empty() && !rest.is_empty() {
                no_duration(text)
            } else {
                unknown_time_unit(number, unit)
            });
        };
        if unit_ms >= smallest {
            return Err(bad("does not go from the largest unit to the smallest, each once", "1h30m"));
        }
        smallest = unit_ms;
        total_ms = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_ms))
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| bad("is too long", "1y"))?;
    }
    if text.is_empty() {
        return Err(bad("is empty", "90s"));
    }
    Ok(Duration::from_millis(total_ms))
}

/// The shortest text that [`parse_duration`] reads as `duration`; below a millisecond is dropped.
pub fn write_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    // "90s" and "36h" read better than "1m30s" and "1d12h": one unit is enough below three of the next.
    if let Some((unit, unit_ms)) =
        TIME_UNITS.iter().find(|(unit, ms)| !matches!(*unit, "y" | "w") && rest.is_multiple_of(*ms))
    {
        let larger = TIME_UNITS.iter().rev().find(|(_, ms)| ms > unit_ms).map_or(u64::MAX, |(_, ms)| *ms);
        if rest < larger.saturating_mul(3) || *unit == "d" {
            return format!("{}{unit}", rest / unit_ms);
        }
    }
    let mut text = String::new();
    for (unit, unit_ms) in TIME_UNITS.iter().filter(|(unit, _)| !matches!(*unit, "y" | "w")) {
        if rest >= *unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    text
}

impl ByteSize {
    /// Reads a size: one whole number and one unit of B, kB, KiB, MB, MiB, GB, GiB, TB, TiB. `"0"` needs no unit.
    ///
    /// Not supported: fractions, white space, `K`, `M` and `G` alone (1000 or 1024?).
    pub fn parse(text: &str) -> Result<ByteSize, BadAmount> {
        if text == "0" {
            return Ok(ByteSize(0));
        }
        if text.is_empty() {
            return Err(bad("is empty", "512MiB"));
        }
        let Some((number, unit, "")) = split_amount(text) else {
            return Err(bad("is not a size", "512MiB"));
        };
        let Some(&(_, unit_bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
            let reason = match unit {
                "" => "has no unit".to_owned(),
                _ => format!("has the unit {unit:?}, which is none of B, kB, KiB, MB, MiB, GB, GiB, TB, TiB"),
            };
            let close = match unit.as_bytes().first().map(u8::to_ascii_lowercase) {
                Some(b'k') => "KiB",
                Some(b'g') => "GiB",
                Some(b't') => "TiB",
                Some(b'b') => "B",
                _ => "MiB",
            };
            return Err(bad(&reason, &format!("{number}{close}")));
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_bytes))
            .map(ByteSize)
            .ok_or_else(|| bad("is too large", "1TiB"))
    }

    /// `mib` × 2^20 bytes.
    pub const fn from_mib(mib: u64) -> ByteSize {
        ByteSize(mib << 20)
    }

    /// `kib` × 2^10 bytes.
    pub const fn from_kib(kib: u64) -> ByteSize {
        ByteSize(kib << 10)
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_duration(Duration::from_secs(self.0)))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        let fitting = SIZE_UNITS.iter().filter(|(_, bytes)| self.0.is_multiple_of(*bytes));
        // The unit that leaves the smallest number; binary before decimal when both do.
        match fitting.min_by_key(|(_, bytes)| self.0 / bytes) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Display for BadAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; write e.g. {:?}", self.reason, self.suggestion)
    }
}

/// For what has blanks, signs or points in it; the text without blanks is suggested where that helps.
fn no_duration(text: &str) -> BadAmount {
    let joined: String = text.split_whitespace().collect();
    let suggestion = if joined == text {
        "90s".to_owned()
    } else {
        match parse_duration(&joined) {
            Ok(_) => joined,
            Err(bad) => bad.suggestion,
        }
    };
    bad("is not a duration", &suggestion)
}

fn unknown_time_unit(number: &str, unit: &str) -> BadAmount {
    if unit.is_empty() {
        return bad("has no unit", &format!("{number}s"));
    }
    let word = TIME_WORDS.iter().find(|(_, words)| words.contains(&unit)).map(|(short, _)| short);
    let reason = format!("has the unit {unit:?}, which is none of ms, s, m, h, d, w, y");
    match word {
        Some(short) => bad(&reason, &format!("{number}{short}")),
        None => bad(&reason, "90s"),
    }
}

/// `text` as digits, letters and what comes after; `None` when it does not begin with a digit.
fn split_amount(text: &str) -> Option<(&str, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    (!number.is_empty()).then_some((number, unit, after))
}

fn bad(reason: &str, suggestion: &str) -> BadAmount {
    BadAmount { reason: reason.to_owned(), suggestion: suggestion.to_owned() }
}

#[cfg(test)]
mod tests;
