//! The ways in which logs write times.

use semantics::Wall;

/// `2026-11-23T20:44:33Z`, with any fraction and offset (RFC 3339 §5.6); the fraction is cut to milliseconds.
pub(super) fn rfc3339(text: &str) -> Option<Wall> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes[4] != b'-' || bytes[7] != b'-' || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let day = days(number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?)?;
    let secs = clock(&bytes[11..19])?;
    let mut rest = &bytes[19..];
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        for place in 0..3 {
            ms = ms * 10
                + fraction.get(place).filter(|_| place < digits).map_or(0, |byte| i64::from(byte - b'0'));
        }
        rest = &fraction[digits..];
    }
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), hours @ ..] => {
            let (hour, minute) = match hours {
                [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
                _ => return None,
            };
            (hour * 3600 + minute * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some(Wall((day * 86_400 + secs - offset) * 1000 + ms))
}

/// `23/Nov/2026:20:44:33 +0000`, as in the combined format.
pub(super) fn combined(text: &[u8]) -> Option<Wall> {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    if text.len() != 26 || text[2] != b'/' || text[6] != b'/' || text[11] != b':' || text[20] != b' ' {
        return None;
    }
    let month = MONTHS.chunks(3).position(|name| name.eq_ignore_ascii_case(&text[3..6]))? as i64 + 1;
    let day = days(number(&text[7..11])?, month, number(&text[..2])?)?;
    let offset = number(&text[22..24])? * 3600 + number(&text[24..26])? * 60;
    let offset = match text[21] {
        b'+' => offset,
        b'-' => -offset,
        _ => return None,
    };
    Some(Wall((day * 86_400 + clock(&text[12..20])? - offset) * 1000))
}

/// `2026-11-23` and `20:44:33`, in UTC, as CloudFront writes them.
pub(super) fn date_and_time(date: &str, time: &str) -> Option<Wall> {
    let (date, time) = (date.as_bytes(), time.as_bytes());
    if date.len() != 10 || date[4] != b'-' || date[7] != b'-' || time.len() != 8 {
        return None;
    }
    let day = days(number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?)?;
    Some(Wall((day * 86_400 + clock(time)?) * 1000))
}

/// Seconds, milliseconds or nanoseconds since the epoch, told apart by their size.
pub(super) fn unix(number: i64) -> Wall {
    match number.unsigned_abs() {
        0..100_000_000_000 => Wall(number * 1000),
        100_000_000_000..100_000_000_000_000 => Wall(number),
        _ => Wall(number / 1_000_000),
    }
}

fn clock(text: &[u8]) -> Option<i64> {
    if text[2] != b':' || text[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (number(&text[..2])?, number(&text[3..5])?, number(&text[6..8])?);
    (hour < 24 && minute < 60 && second < 61).then_some(hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// Days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    is_date.then(|| semantics::date::days_of(year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_and_refused_in_none_that_there_is() {
        let wanted = Some(Wall(1_795_466_673_000));
        assert_eq!(rfc3339("2026-11-23T20:44:33Z"), wanted);
        assert_eq!(rfc3339("2026-11-23T22:44:33.007123+02:00"), Some(Wall(1_795_466_673_007)));
        assert_eq!(rfc3339("2026-11-23T20:44:33.5Z"), Some(Wall(1_795_466_673_500)));
        assert_eq!(combined(b"23/Nov/2026:20:44:33 +0000"), wanted);
        assert_eq!(combined(b"23/Nov/2026:12:44:33 -0800"), wanted);
        assert_eq!(date_and_time("2026-11-23", "20:44:33"), wanted);
        assert_eq!(unix(1_795_466_673), Wall(1_795_466_673_000));
        assert_eq!(unix(1_795_466_673_000), Wall(1_795_466_673_000));
        assert_eq!(unix(1_795_466_673_000_000_000), Wall(1_795_466_673_000));
        for bad in [
            "",
            "2026-11-23",
            "2026-13-23T20:44:33Z",
            "2026-11-23T25:44:33Z",
            "2026-11-23T20:44:33",
            "2026-11-23T20:44:33.Z+",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
        assert_eq!(combined(b"23/Nox/2026:20:44:33 +0000"), None);
        assert_eq!(date_and_time("2026-11-23", "20.44.33"), None);
    }
}
