//! HTTP dates (RFC 9110 §5.6.7): read in the three forms that exist, written in the one that is left.
//!
//! Strict about form, because a wrong Expires must mean "stale" rather than a guess, and lax about letter case. The day
//! name must be one but is not compared with the date. A second of 60 is taken as the first of the next minute.

use crate::Wall;

const DAYS: [&[u8]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const DAYS_LONG: [&[u8]; 7] =
    [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// Reads an HTTP date. `None` for anything that is not exactly one of
///
/// - `Sun, 06 Nov 1994 08:49:37 GMT` (IMF-fixdate),
/// - `Sunday, 06-Nov-94 08:49:37 GMT` (RFC 850; the year is the one at most 50 years ahead of `now`),
/// - `Sun Nov  6 08:49:37 1994` (asctime).
///
/// Allocates nothing.
///
/// ```
/// use semantics::{Wall, date};
/// assert_eq!(date::parse(b"Sun, 06 Nov 1994 08:49:37 GMT", Wall(0)), Some(Wall::from_secs(784_111_777)));
/// assert_eq!(date::parse(b"0", Wall(0)), None);
/// ```
pub fn parse(text: &[u8], now: Wall) -> Option<Wall> {
    let comma = memchr::memchr(b',', text);
    match comma {
        Some(3) => parse_fixdate(text),
        Some(end) => parse_rfc850(&text[..end], &text[end + 1..], now),
        None => parse_asctime(text),
    }
}

fn parse_fixdate(text: &[u8]) -> Option<Wall> {
    // Sun, 06 Nov 1994 08:49:37 GMT
    // 0    5  8   12   17       26
    let fits = text.len() == 29
        && is_one_of(&text[..3], &DAYS)
        && text[4] == b' '
        && text[7] == b' '
        && text[11] == b' '
        && text[16] == b' '
        && is_gmt(&text[25..]);
    if !fits {
        return None;
    }
    wall(number(&text[12..16])?, month(&text[8..11])?, number(&text[5..7])?, &text[17..25])
}

fn parse_rfc850(day: &[u8], rest: &[u8], now: Wall) -> Option<Wall> {
    //  06-Nov-94 08:49:37 GMT
    // 01  4   8  11       19
    let fits = rest.len() == 23
        && is_one_of(day, &DAYS_LONG)
        && rest[0] == b' '
        && rest[3] == b'-'
        && rest[7] == b'-'
        && rest[10] == b' '
        && is_gmt(&rest[19..]);
    if !fits {
        return None;
    }
    let (this_year, ..) = civil_of(now.secs().div_euclid(86_400));
    let mut year = this_year - this_year.rem_euclid(100) + number(&rest[8..10])?;
    if year > this_year + 50 {
        year -= 100;
    } else if year <= this_year - 50 {
        year += 100;
    }
    wall(year, month(&rest[4..7])?, number(&rest[1..3])?, &rest[11..19])
}

fn parse_asctime(text: &[u8]) -> Option<Wall> {
    // Sun Nov  6 08:49:37 1994
    // 0   4   8  11       20
    let fits = text.len() == 24
        && is_one_of(&text[..3], &DAYS)
        && text[3] == b' '
        && text[7] == b' '
        && text[10] == b' '
        && text[19] == b' ';
    if !fits {
        return None;
    }
    let day = if text[8] == b' ' { &text[9..10] } else { &text[8..10] };
    wall(number(&text[20..24])?, month(&text[4..7])?, number(day)?, &text[11..19])
}

fn is_one_of(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|candidate| candidate.eq_ignore_ascii_case(name))
}

fn is_gmt(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b" GMT")
}

fn month(name: &[u8]) -> Option<i64> {
    let place = MONTHS.chunks_exact(3).position(|candidate| candidate.eq_ignore_ascii_case(name))?;
    Some(place as i64 + 1)
}

/// One to four digits and nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn wall(year: i64, month: i64, day: i64, clock: &[u8]) -> Option<Wall> {
    let [hour @ .., b':', _, _, b':', _, _] = clock else { return None };
    let (hour, minute, second) = (number(hour)?, number(&clock[3..5])?, number(&clock[6..8])?);
    let days_in_month = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day < 1 || day > days_in_month || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let secs = days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Wall::from_secs(secs))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Counts years from March, so that the leap day
/// is the last of its year; 719,468 days lie between 0000-03-01 and the epoch.
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The inverse of [`days_of`]: year, month, day.
pub fn civil_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The text of a moment as IMF-fixdate, on the stack. Made by [`format()`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DateText([u8; 29]);

impl DateText {
    /// 29 ASCII bytes: `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for DateText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes a moment as IMF-fixdate, cut to the second. Years outside 0 to 9999, which no clock shows, come out as the
/// nearest of those. Allocates nothing.
pub fn format(moment: Wall) -> DateText {
    const FIRST: i64 = -62_167_219_200;
    const LAST: i64 = 253_402_300_799;
    let secs = moment.secs().clamp(FIRST, LAST);
    let (day_number, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = civil_of(day_number);
    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    text[..3].copy_from_slice(DAYS[day_number.rem_euclid(7) as usize]);
    text[8..11].copy_from_slice(&MONTHS[(month as usize - 1) * 3..][..3]);
    let numbers = [
        (5, day),
        (12, year / 100),
        (14, year % 100),
        (17, second / 3600),
        (20, second / 60 % 60),
        (23, second % 60),
    ];
    for (place, number) in numbers {
        text[place] = b'0' + (number / 10) as u8;
        text[place + 1] = b'0' + (number % 10) as u8;
    }
    DateText(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall::from_secs(1_790_000_000); // 2026-09-21

    #[test]
    fn the_three_forms_read_and_everything_else_is_refused() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse(text.as_bytes(), NOW), expected.map(Wall::from_secs), "{text:?}");
        };
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Sun Nov 16 08:49:37 1994", Some(784_975_777));
        check("sUN, 06 nOV 1994 08:49:37 gmt", Some(784_111_777));
        check("Wed, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799));
        check("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800));
        check("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_800));
        // Two digits: the century that is nearest, at most 50 years ahead.
        check("Tuesday, 01-Jan-75 00:00:00 GMT", Some(3_313_526_400));
        check("Friday, 01-Jan-77 00:00:00 GMT", Some(220_924_800));
        for bad in [
            "",
            "0",
            "-1",
            "now",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun,  6 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Wed, 29 Feb 2023 00:00:00 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nuv 1994 08:49:37 GMT",
            "Sun, -6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for secs in [0, 1, -1, 784_111_777, 951_782_400, 4_102_444_800, 253_402_300_799, -62_167_219_200] {
            let text = format(Wall::from_secs(secs));
            assert_eq!(parse(text.as_bytes(), NOW), Some(Wall::from_secs(secs)), "{text:?}");
        }
        assert_eq!(format(Wall(784_111_777_999)).as_str(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(Wall(i64::MAX)).as_str(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(format(Wall(i64::MIN)).as_str(), "Sat, 01 Jan 0000 00:00:00 GMT");
    }

    proptest::proptest! {
        #[test]
        fn every_second_reads_back(secs in -62_167_219_200i64..253_402_300_800) {
            let text = format(Wall::from_secs(secs));
            proptest::prop_assert_eq!(parse(text.as_bytes(), NOW), Some(Wall::from_secs(secs)));
        }

        #[test]
        fn no_text_panics(text: Vec<u8>, now: i64) {
            let _ = parse(&text, Wall(now));
        }
    }
}
