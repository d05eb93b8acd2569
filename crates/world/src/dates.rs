//! HTTP dates for scripts: the fixed format of RFC 9110 §5.6.7 and the obsolete one of RFC 850.
//! Writes only. Written apart from `semantics`, so that a mistake there cannot hide here.

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 06 Nov 1994 08:49:37 GMT` for seconds since the epoch; times before it are not needed and come out as the epoch.
pub(crate) fn imf_fixdate(secs: i64) -> String {
    let (year, month, day, rest, weekday) = civil(secs);
    format!("{}, {day:02} {} {year:04} {} GMT", &DAYS[weekday][..3], MONTHS[month], clock(rest))
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`.
pub(crate) fn rfc850(secs: i64) -> String {
    let (year, month, day, rest, weekday) = civil(secs);
    format!("{}, {day:02}-{}-{:02} {} GMT", DAYS[weekday], MONTHS[month], year % 100, clock(rest))
}

fn clock(secs_of_day: i64) -> String {
    format!("{:02}:{:02}:{:02}", secs_of_day / 3600, secs_of_day / 60 % 60, secs_of_day % 60)
}

/// Year, month from 0, day from 1, seconds of the day, days since Thursday.
fn civil(secs: i64) -> (i64, usize, i64, i64, usize) {
    let secs = secs.max(0);
    let days = secs / 86_400;
    let (mut year, mut left) = (1970, days);
    while left >= days_of_year(year) {
        left -= days_of_year(year);
        year += 1;
    }
    let mut month = 0;
    while left >= days_of_month(year, month) {
        left -= days_of_month(year, month);
        month += 1;
    }
    (year, month, left + 1, secs % 86_400, (days % 7) as usize)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_year(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: i64, month: usize) -> i64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_name_the_same_instant() {
        for (secs, fixed, old) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "Tuesday, 29-Feb-00 00:00:00 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "Thursday, 01-Jan-70 00:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT", "Thursday, 31-Dec-26 23:59:59 GMT"),
        ] {
            assert_eq!(imf_fixdate(secs), fixed);
            assert_eq!(rfc850(secs), old);
        }
    }
}
