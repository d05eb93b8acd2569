use std::net::{Ipv4Addr, Ipv6Addr};

use semantics::Why;

use super::*;
use crate::event::Slot;
use crate::observer;

fn event() -> Event<'static> {
    Event {
        host: b"shop.example",
        target: b"/a.css?v=1",
        bytes_received: 145,
        encoded: None,
        referer: None,
        user_agent: Some(b"curl/8.5.0"),
        ..observer::tests::event(Slot::NONE)
    }
}

fn json(event: &Event<'_>) -> String {
    let mut out = Vec::new();
    write_json(&mut out, &mut Stamp::new(), event, LineNames { site: b"shop", origin: b"main" });
    String::from_utf8(out).unwrap()
}

fn combined(event: &Event<'_>) -> String {
    let mut out = Vec::new();
    write_combined(&mut out, &mut Stamp::new(), event);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_hit_is_one_json_object_without_what_is_absent() {
    let wanted = concat!(
        r#"{"time":"2026-11-23T20:44:33.007Z","id":"00abcdef01234567","client":"203.0.113.9","method":"GET","#,
        r#""host":"shop.example","target":"/a.css?v=1","protocol":"HTTP/1.1","status":200,"body_bytes":10240,"#,
        r#""head_bytes":310,"received_bytes":145,"duration_us":412,"first_byte_us":97,"outcome":"hit","#,
        r#""why":"fresh","site":"shop","rule":2,"age":12,"ttl":48,"user_agent":"curl/8.5.0"}"#,
        "\n"
    );
    assert_eq!(json(&event()), wanted);
}

#[test]
fn a_miss_names_its_origin() {
    let fetch = Fetch { origin: Slot::NONE, status: 503, duration_us: 90_000, attempts: 2 };
    let line = json(&Event {
        fetch: Some(fetch),
        why: Why::Expired,
        collapsed: true,
        stored: true,
        personal: false,
        encoded: Some((semantics::coding::Coding::Br, 100)),
        ttl: Some(-3),
        referer: Some(b"https://a.example/"),
        ..event()
    });
    let wanted = concat!(
        r#""outcome":"miss","why":"expired","site":"shop","rule":2,"age":12,"ttl":-3,"collapsed":true,"stored":true,"encoded":"br","#,
        r#""origin":"main","origin_status":503,"origin_us":90000,"attempts":2,"referer":"https://a.example/","#,
        r#""user_agent":"curl/8.5.0"}"#,
        "\n"
    );
    assert!(line.ends_with(wanted), "{line}");
}

#[test]
fn a_line_tells_what_decides_about_reuse_and_nothing_secret() {
    let mut answer = Fields::new();
    for (name, value) in [
        ("Vary", "Accept-Encoding"),
        ("Cache-Control", "max-age=60"),
        ("Vary", "Accept-Language"),
        ("X-Powered-By", "a\"b"),
        ("ETag", "W/\"1\""),
    ] {
        answer.append(name, value).unwrap();
    }
    let line = json(&Event {
        secure: true,
        authorized: true,
        selected_by: &[("accept-encoding".into(), 0x1f), ("cookie:theme".into(), 0xdead_beef)],
        fetch: Some(Fetch { origin: Slot::NONE, status: 200, duration_us: 9, attempts: 1 }),
        answer: Some(&answer),
        user_agent: None,
        ..event()
    });
    assert!(
        line.contains(r#""protocol":"HTTP/1.1","scheme":"https","authorized":true,"status":200"#),
        "{line}"
    );
    let wanted = concat!(
        r#""ttl":48,"selected_by":{"accept-encoding":"0000001f","cookie:theme":"deadbeef"},"origin":"main","#,
        r#""origin_status":200,"origin_us":9,"attempts":1,"answer":{"cache-control":"max-age=60","etag":"W/\"1\"","#,
        r#""vary":"Accept-Encoding, Accept-Language"}}"#,
        "\n"
    );
    assert!(line.ends_with(wanted), "{line}");
}

#[test]
fn the_combined_format_is_what_log_tools_read() {
    assert_eq!(
        combined(&event()),
        "203.0.113.9 - - [23/Nov/2026:20:44:33 +0000] \"GET /a.css?v=1 HTTP/1.1\" 200 10240 \"-\" \"curl/8.5.0\"\n"
    );
    let empty = Event { method: b"", target: b"", status: 0, user_agent: Some(b""), ..event() };
    assert!(combined(&empty).contains("\"- - HTTP/1.1\" 0 10240 \"-\" \"-\""), "{}", combined(&empty));
}

#[test]
fn no_field_can_end_its_line() {
    let evil: &[u8] = b"x\" 200 1 \"-\"\r\n{\"forged\":true}\n\x1b[2J\xff\\";
    let with = |value: &'static [u8]| Event {
        method: value,
        host: value,
        target: value,
        referer: Some(value),
        user_agent: Some(value),
        ..event()
    };
    for line in [json(&with(evil)), combined(&with(evil))] {
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with('\n'));
        assert!(line.trim_end().bytes().all(|byte| byte >= 0x20), "{line}");
    }
    let strings = |line: String| line.matches("\",\"").count();
    assert_eq!(
        strings(json(&with(evil))),
        strings(json(&with(b"x"))),
        "no quote of the client's ends a string"
    );
}

#[test]
fn addresses_are_written_in_their_shortest_form() {
    let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    for (address, wanted) in [
        (IpAddr::V4(Ipv4Addr::new(255, 0, 10, 1)), "255.0.10.1"),
        (IpAddr::V6(mapped), "10.0.0.1"),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), "::1"),
        (IpAddr::V6("2001:db8::a:0:1".parse().unwrap()), "2001:db8::a:0:1"),
    ] {
        let mut out = Vec::new();
        write_address(&mut out, address);
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}

#[test]
fn times_are_right_on_leap_days_and_outside_of_four_digit_years() {
    for (ms, wanted) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
        (1_735_689_599_500, "2024-12-31T23:59:59.500Z"),
        (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
        (i64::MAX, "9999-12-31T23:59:59.807Z"),
        (i64::MIN, "0001-01-01T00:00:00.192Z"),
    ] {
        let mut out = Vec::new();
        Stamp::new().write_rfc3339(&mut out, Wall(ms));
        assert_eq!(String::from_utf8(out).unwrap(), wanted, "{ms}");
    }
}

#[test]
fn a_new_second_gets_a_new_text() {
    let mut stamp = Stamp::new();
    let mut out = Vec::new();
    for ms in [999, 1000, 1999, 500] {
        stamp.write_rfc3339(&mut out, Wall(ms));
    }
    let wanted =
        "1970-01-01T00:00:00.999Z1970-01-01T00:00:01.000Z1970-01-01T00:00:01.999Z1970-01-01T00:00:00.500Z";
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
}

#[test]
fn cloudfronts_fields_are_33_and_hold_no_tab() {
    let mut out = Vec::new();
    let target = b"/a b\t%20.css?x=\"1\"";
    foreign::write_cloudfront(&mut out, &mut Stamp::new(), &Event { target, age: Some(3), ..event() });
    let text = String::from_utf8(out).unwrap();
    let fields: Vec<&str> = text.strip_suffix('\n').unwrap().split('\t').collect();
    let names = foreign::CLOUDFRONT_HEAD.lines().nth(1).unwrap().strip_prefix("#Fields: ").unwrap();
    assert_eq!((fields.len(), names.split(' ').count()), (33, 33));
    let by_name: std::collections::HashMap<&str, &str> = names.split(' ').zip(fields).collect();
    for (name, value) in [
        ("date", "2026-11-23"),
        ("time", "20:44:33"),
        ("x-edge-location", "edge"),
        ("sc-bytes", "10550"),
        ("c-ip", "203.0.113.9"),
        ("cs-method", "GET"),
        ("cs(Host)", "shop.example"),
        ("cs-uri-stem", "/a%20b%09%2520.css"),
        ("sc-status", "200"),
        ("cs(Referer)", "-"),
        ("cs(User-Agent)", "curl/8.5.0"),
        ("cs-uri-query", "x=%221%22"),
        ("x-edge-result-type", "Hit"),
        ("x-edge-request-id", "00abcdef01234567"),
        ("cs-protocol", "http"),
        ("cs-bytes", "145"),
        ("time-taken", "0.000"),
        ("cs-protocol-version", "HTTP/1.1"),
        ("time-to-first-byte", "0.000"),
        ("sc-content-len", "10240"),
        ("sc-range-end", "-"),
    ] {
        assert_eq!(by_name[name], value, "{name}");
    }
    let gone =
        Event { status: 0, why: Why::ClientGone, duration_us: 12_345_678, protocol: "HTTP/2", ..event() };
    let mut out = Vec::new();
    foreign::write_cloudfront(&mut out, &mut Stamp::new(), &gone);
    let text = String::from_utf8(out).unwrap();
    assert!(
        ["\t000\t", "\t12.345\t", "\tHTTP/2.0\t", "\tClientCommError\t"]
            .iter()
            .all(|part| text.contains(part)),
        "{text}"
    );
}

#[test]
fn logpushs_names_hold_what_the_event_has() {
    let fetch = Fetch { origin: Slot::NONE, status: 200, duration_us: 31_000, attempts: 1 };
    let event = Event { why: Why::Expired, duration_us: 40_000, fetch: Some(fetch), ..event() };
    let mut out = Vec::new();
    let names = LineNames { site: b"shop", origin: b"main" };
    foreign::write_logpush(&mut out, &mut Stamp::new(), &event, names);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"EdgeStartTimestamp\":\"2026-11-23T20:44:32.967Z\",\"EdgeEndTimestamp\":\"2026-11-23T20:44:33.007Z\",\"RayID\":\"00abcdef01234567\",\
         \"ClientIP\":\"203.0.113.9\",\"ClientCountry\":\"de\",\"ClientRequestMethod\":\"GET\",\"ClientRequestHost\":\"shop.example\",\
         \"ClientRequestURI\":\"/a.css?v=1\",\"ClientRequestPath\":\"/a.css\",\"ClientRequestProtocol\":\"HTTP/1.1\",\
         \"ClientRequestScheme\":\"http\",\"ClientRequestReferer\":\"\",\"ClientRequestUserAgent\":\"curl/8.5.0\",\"ClientRequestBytes\":145,\
         \"EdgeResponseStatus\":200,\"EdgeResponseBytes\":10550,\"EdgeResponseBodyBytes\":10240,\"EdgeTimeToFirstByteMs\":0,\
         \"EdgeColoCode\":\"edge\",\"CacheCacheStatus\":\"expired\",\"ZoneName\":\"shop\",\"OriginResponseStatus\":200,\
         \"OriginResponseDurationMs\":31}\n"
    );
}
