use super::*;
use proptest::prelude::*;

#[track_caller]
fn check_ttl(text: &str, expected: Result<u64, &str>) {
    let found = Ttl::parse(text).map(Ttl::secs).map_err(|bad| bad.to_string());
    assert_eq!(found, expected.map_err(str::to_owned), "{text:?}");
}

#[track_caller]
fn check_size(text: &str, expected: Result<u64, &str>) {
    let found = ByteSize::parse(text).map(ByteSize::bytes).map_err(|bad| bad.to_string());
    assert_eq!(found, expected.map_err(str::to_owned), "{text:?}");
}

#[test]
fn durations_are_numbers_with_units() {
    check_ttl("90s", Ok(90));
    check_ttl("30d", Ok(30 * 86_400));
    check_ttl("1h30m", Ok(5400));
    check_ttl("1w", Ok(604_800));
    check_ttl("1y", Ok(31_536_000));
    check_ttl("0", Ok(0));
    check_ttl("0s", Ok(0));
    check_ttl("2000ms", Ok(2));
}

#[test]
fn a_bad_duration_says_what_to_write_instead() {
    check_ttl("", Err(r#"is empty; write e.g. "90s""#));
    check_ttl("5 parsecs", Err(r#"is not a duration; write e.g. "90s""#));
    check_ttl("90", Err(r#"has no unit; write e.g. "90s""#));
    check_ttl("5min", Err(r#"has the unit "min", which is none of ms, s, m, h, d, w, y; write e.g. "5m""#));
    check_ttl("5days", Err(r#"has the unit "days", which is none of ms, s, m, h, d, w, y; write e.g. "5d""#));
    check_ttl("5q", Err(r#"has the unit "q", which is none of ms, s, m, h, d, w, y; write e.g. "90s""#));
    check_ttl(
        "30m1h",
        Err(r#"does not go from the largest unit to the smallest, each once; write e.g. "1h30m""#),
    );
    check_ttl(
        "1h1h",
        Err(r#"does not go from the largest unit to the smallest, each once; write e.g. "1h30m""#),
    );
    check_ttl("-1s", Err(r#"is not a duration; write e.g. "90s""#));
    check_ttl("1.5h", Err(r#"is not a duration; write e.g. "90s""#));
    check_ttl("1500ms", Err(r#"is not in whole seconds; write e.g. "2s""#));
    check_ttl("99999999999999999999y", Err(r#"is too long; write e.g. "1y""#));
    check_ttl("100y", Err(r#"is over 2147483648 seconds, the most that caches understand; write e.g. "1y""#));
}

#[test]
fn sizes_are_a_number_with_a_unit() {
    check_size("512MiB", Ok(512 << 20));
    check_size("1kB", Ok(1000));
    check_size("1KiB", Ok(1024));
    check_size("7B", Ok(7));
    check_size("0", Ok(0));
    check_size("2TiB", Ok(2 << 40));
}

#[test]
fn a_bad_size_says_what_to_write_instead() {
    check_size("512", Err(r#"has no unit; write e.g. "512MiB""#));
    check_size(
        "512M",
        Err(
            r#"has the unit "M", which is none of B, kB, KiB, MB, MiB, GB, GiB, TB, TiB; write e.g. "512MiB""#,
        ),
    );
    check_size(
        "4gb",
        Err(
            r#"has the unit "gb", which is none of B, kB, KiB, MB, MiB, GB, GiB, TB, TiB; write e.g. "4GiB""#,
        ),
    );
    check_size("1.5GiB", Err(r#"is not a size; write e.g. "512MiB""#));
    check_size("", Err(r#"is empty; write e.g. "512MiB""#));
    check_size("99999999999TiB", Err(r#"is too large; write e.g. "1TiB""#));
}

#[test]
fn amounts_print_as_people_would_write_them() {
    for (secs, text) in
        [(0, "0s"), (90, "90s"), (60, "1m"), (3600, "1h"), (5400, "90m"), (86_400, "1d"), (2_592_000, "30d")]
    {
        assert_eq!(Ttl::from_secs(secs).to_string(), text);
    }
    for (bytes, text) in [(0, "0B"), (1024, "1KiB"), (1000, "1kB"), (512 << 20, "512MiB"), (1001, "1001B")] {
        assert_eq!(ByteSize(bytes).to_string(), text);
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_as_the_same_amount(secs in 0..=Ttl::MAX.secs(), ms: u32, bytes: u64) {
        prop_assert_eq!(Ttl::parse(&Ttl::from_secs(secs).to_string()), Ok(Ttl::from_secs(secs)));
        let duration = Duration::from_millis(u64::from(ms));
        prop_assert_eq!(parse_duration(&write_duration(duration)), Ok(duration));
        prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,20}") {
        let _ = Ttl::parse(&text);
        let _ = ByteSize::parse(&text);
    }
}
