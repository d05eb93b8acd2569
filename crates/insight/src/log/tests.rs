use std::io::Write;

use semantics::Outcome;

use super::*;

const OURS: &str = r#"{"time":"2026-11-23T20:44:33.007Z","id":"00abcdef01234567","client":"203.0.113.9","method":"GET","host":"shop.example:8080","target":"/a.css?v=1","protocol":"HTTP/1.1","scheme":"https","status":200,"body_bytes":10240,"head_bytes":310,"received_bytes":145,"duration_us":412,"first_byte_us":97,"outcome":"miss","why":"absent","site":"shop","rule":2,"stored":true,"selected_by":{"accept-encoding":"0000001f"},"origin":"main","origin_status":200,"origin_us":900,"attempts":1,"answer":{"cache-control":"max-age=60","set-cookie":"1"},"user_agent":"curl/8.5.0 \u00e9"}"#;
const LOGPUSH: &str = r#"{"CacheCacheStatus":"expired","ClientIP":"203.0.113.9","ClientRequestHost":"Shop.example","ClientRequestMethod":"GET","ClientRequestURI":"/a?b=c","ClientRequestScheme":"https","ClientRequestUserAgent":"x","EdgeStartTimestamp":1795466673,"EdgeResponseStatus":200,"EdgeResponseBytes":1200,"EdgeResponseContentType":"text/html","OriginResponseStatus":200,"OriginResponseDurationMs":12,"ResponseHeaders":{"cache-control":"max-age=5"}}"#;
const CLOUDFRONT: &str = "2026-11-23\t20:44:33\tFRA56\t2390\t203.0.113.9\tGET\td1.cloudfront.net\t/view/my/file.html\t200\thttps://a.example/\tMozilla/5.0%2520(X11)\ta=b\t-\tHit\tid\tshop.example\thttps\t23\t0.001\t-\tTLSv1.3\tx\tHit\tHTTP/2.0\t-\t-\t11040\t0.002\tHit\ttext/html\t78\t-\t-";
const COMBINED: &str = r#"203.0.113.9 - - [23/Nov/2026:20:44:33 +0000] "GET /a\"b?c HTTP/1.1" 304 - "-" "curl \x22q\x22" "more""#;

fn one(line: &str) -> (Format, Record) {
    Reader::default().read(line.as_bytes()).unwrap().unwrap()
}

#[test]
fn each_format_is_known_by_its_look_and_read() {
    let (format, record) = one(OURS);
    assert_eq!((format, &*record.host, &*record.target), (Format::Json, "shop.example", "/a.css?v=1"));
    assert_eq!((record.path(), record.query()), ("/a.css", Some("v=1")));
    assert_eq!(
        (record.time.0, record.secure, record.outcome),
        (1_795_466_673_007, Some(true), Some(Outcome::Miss))
    );
    assert_eq!(record.selector("accept-encoding"), Some(0x1f));
    assert_eq!(record.fields.get("user-agent"), Some("curl/8.5.0 é".as_bytes()));
    let answer = record.fetch.unwrap().answer.unwrap();
    assert_eq!(
        (answer.get("cache-control"), answer.contains("set-cookie")),
        (Some(&b"max-age=60"[..]), true)
    );

    let (format, record) = one(LOGPUSH);
    assert_eq!((format, &*record.host, record.why), (Format::Logpush, "shop.example", Some("expired")));
    assert_eq!((record.time.0, record.body_bytes), (1_795_466_673_000, 1200));
    assert_eq!(record.fetch.unwrap().answer.unwrap().get("cache-control"), Some(&b"max-age=5"[..]));

    let (format, record) = one(CLOUDFRONT);
    assert_eq!(
        (format, &*record.host, &*record.target),
        (Format::CloudFront, "shop.example", "/view/my/file.html?a=b")
    );
    assert_eq!(record.fields.get("user-agent"), Some(&b"Mozilla/5.0 (X11)"[..]));
    assert_eq!(
        (record.outcome, record.body_bytes, record.content_type.as_deref()),
        (Some(Outcome::Hit), 78, Some("text/html"))
    );

    let (format, record) = one(COMBINED);
    assert_eq!(
        (format, &*record.target, record.status, record.body_bytes),
        (Format::Combined, "/a\"b?c", 304, 0)
    );
    assert_eq!(record.fields.get("user-agent"), Some(&b"curl \"q\""[..]));
    assert_eq!((record.outcome, record.fields.contains("referer")), (None, false));
}

#[test]
fn columns_of_a_cloudfront_log_are_found_by_their_names() {
    let mut reader = Reader::default();
    assert!(reader.read(b"#Version: 1.0").unwrap().is_none());
    assert!(reader.read(b"#Fields: date time cs-uri-stem sc-status cs-method").unwrap().is_none());
    let (_, record) = reader.read(b"2026-11-23\t20:44:33\t/x\t200\tGET").unwrap().unwrap();
    assert_eq!((&*record.target, record.status), ("/x", 200));
}

#[test]
fn what_cannot_be_read_says_why() {
    for (line, wanted) in [
        ("hello", "there is no [time]"),
        ("{\"time\":1}", "no such JSON object"),
        (&OURS.replace("absent", "luck"), "no outcome is called \"luck\""),
        (&OURS.replace("2026-11-23T", "yesterday "), "the time"),
        (&OURS.replace("/a.css", "a.css"), "is no path"),
        (&CLOUDFRONT.replace("20:44:33", "noon"), "no date and time"),
        ("a\tb", "no date and time"),
        (&COMBINED.replace("304", "abc"), "the status \"abc\" is no number"),
        (&COMBINED.replace("GET ", ""), "is no path"),
    ] {
        let why = Reader::default().read(line.as_bytes()).map(drop).unwrap_err().0;
        assert!(why.contains(wanted), "{line}: {why}");
    }
}

#[test]
fn a_log_is_streamed_plain_and_packed_and_its_bad_lines_are_shown() {
    let long = "x".repeat(LINE_BYTES_MAX + 10);
    let text = format!("{OURS}\n\nnonsense\n{LOGPUSH}\r\n{long}\n#Fields: x\n{COMBINED}\n");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    // Two members, as log rotation and `cat` leave them.
    let twice = [packed.clone(), packed.clone()].concat();
    for (bytes, wanted) in [(text.as_bytes(), 3), (&packed, 3), (&twice, 6)] {
        let mut lines = Lines::new(bytes);
        let mut formats = Vec::new();
        while let Some((format, _)) = lines.next().unwrap() {
            formats.push(format);
        }
        assert_eq!(formats.len(), wanted);
        assert_eq!(formats[..2], [Format::Json, Format::Logpush]);
        let shown: Vec<_> = lines.shown.iter().take(2).map(|bad| (bad.line, &*bad.why)).collect();
        assert_eq!(shown, [(3, "there is no [time]"), (5, "it is longer than 262144 bytes")]);
    }
    // One that was cut off is an error, not a shorter log.
    let mut cut = Lines::new(&packed[..packed.len() / 2]);
    let end = loop {
        match cut.next() {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(end.is_err());
}
