//! Requests that break HTTP's rules, or that two implementations could read in two ways: each is refused, its
//! connection closed, and the origin sees not one byte. RFC 9112 §2.2, §3, §5, §6, §7, §9.3; RFC 9110 §5, §7.2.

use world::play::{Play, wait_until};
use world::wire::End;
use world::{Gate, play};

/// A head that is fine but for what the case adds to it.
fn with(lines: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: site.example\r\n{lines}\r\n\r\n").into_bytes()
}

fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: site.example\r\n{lines}\r\n\r\n{body}").into_bytes()
}

fn start(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: site.example\r\n\r\n").into_bytes()
}

/// Each case: what it is, what is sent, which statuses are right. One edge takes them all; one failure names itself.
#[track_caller]
fn check(cases: &[(&str, Vec<u8>, &[u16])]) {
    let mut play = play();
    let client = play.visitor();
    let mut wrong = Vec::new();
    for (name, bytes, statuses) in cases {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut talk = client.connect();
            talk.say(bytes);
            talk.answer().status_in(statuses).whole();
            talk.expect_closed();
        }));
        if let Err(panic) = outcome {
            let message = panic.downcast_ref::<String>().map_or("panicked", String::as_str);
            wrong.push(format!("{name}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
    play.origin_saw_nothing();
}

const BAD: &[u16] = &[400];
/// A coding that is not spoken may be told from one that is wrongly placed; both are refusals (RFC 9112 §6.1).
const CODING: &[u16] = &[400, 501];

#[test]
fn a_body_whose_length_is_told_in_two_ways_is_refused() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: site.example\r\n\r\n";
    check(&[
        ("two lengths that differ", post("Content-Length: 5\r\nContent-Length: 6", "hello"), BAD),
        ("two lengths that agree", post("Content-Length: 5\r\nContent-Length: 5", "hello"), BAD),
        ("a list of lengths that differ", post("Content-Length: 5, 6", "hello"), BAD),
        ("a list of lengths that agree", post("Content-Length: 5, 5", "hello"), BAD),
        ("length then chunked", post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), BAD),
        ("chunked then length", post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), BAD),
        (
            "a request hidden behind the last chunk",
            post("Content-Length: 60\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{smuggled}")),
            BAD,
        ),
        (
            "a request hidden in a chunk",
            post(
                "Content-Length: 4\r\nTransfer-Encoding: chunked",
                &format!("31\r\n{smuggled}\r\n0\r\n\r\n"),
            ),
            BAD,
        ),
        ("chunked twice in one line", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), BAD),
        (
            "chunked in two lines",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            BAD,
        ),
        ("chunked is not the last coding", post("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"), CODING),
        (
            "chunked, then identity in a second line",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
            CODING,
        ),
        ("identity", post("Transfer-Encoding: identity", ""), CODING),
        ("identity with a length", post("Transfer-Encoding: identity\r\nContent-Length: 5", "hello"), CODING),
        ("gzip, chunked", post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), CODING),
        ("gzip alone", post("Transfer-Encoding: gzip", ""), CODING),
        ("xchunked", post("Transfer-Encoding: xchunked", "0\r\n\r\n"), CODING),
        ("chunked in quotes", post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"), CODING),
        ("chunked with a parameter", post("Transfer-Encoding: chunked;a=b", "0\r\n\r\n"), CODING),
        ("chunked behind a vertical tab", post("Transfer-Encoding: \u{b}chunked", "0\r\n\r\n"), CODING),
        ("an empty coding", post("Transfer-Encoding:", ""), CODING),
        (
            "coding with HTTP/1.0",
            b"POST /a HTTP/1.0\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            CODING,
        ),
        ("a folded coding", post("Transfer-Encoding:\r\n chunked", "0\r\n\r\n"), BAD),
        ("a space before the coding's colon", post("Transfer-Encoding : chunked", "0\r\n\r\n"), BAD),
        (
            "a coding on a line that begins with a space",
            post("X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n"),
            BAD,
        ),
    ]);
}

#[test]
fn a_length_that_is_no_plain_number_is_refused() {
    for length in [
        "+5",
        "-1",
        "0x5",
        "5a",
        "5 5",
        "1e1",
        "5.0",
        "",
        "\"5\"",
        "5;",
        "99999999999999999999",
        "18446744073709551616",
    ] {
        check(&[(length, post(&format!("Content-Length: {length}"), "hello"), &[400, 413])]);
    }
}

#[test]
fn a_head_that_could_be_read_in_two_ways_is_refused() {
    let bytes = |text: &str| text.as_bytes().to_vec();
    check(&[
        ("obs-fold with a space", with("X-A: one\r\n two"), BAD),
        ("obs-fold with a tab", with("X-A: one\r\n\ttwo"), BAD),
        ("obs-fold of the first line", bytes("GET /a HTTP/1.1\r\n X: y\r\nHost: site.example\r\n\r\n"), BAD),
        ("a space before the colon", with("X-A : one"), BAD),
        ("a tab before the colon", with("X-A\t: one"), BAD),
        ("Host with a space before its colon", bytes("GET /a HTTP/1.1\r\nHost : site.example\r\n\r\n"), BAD),
        ("a line without a colon", with("X-A"), BAD),
        ("an empty name", with(": one"), BAD),
        ("a name with a space", with("X A: one"), BAD),
        ("a name with a parenthesis", with("X(A): one"), BAD),
        ("a name with a letter outside ASCII", with("X-Ä: one"), BAD),
        ("a name with NUL", with("X-\0A: one"), BAD),
        ("a name with a control byte", with("X-\u{1}A: one"), BAD),
        ("a value with NUL", with("X-A: o\0ne"), BAD),
        ("a value with a control byte", with("X-A: o\u{1}ne"), BAD),
        ("a value with DEL", with("X-A: o\u{7f}ne"), BAD),
        ("a value with a bare CR", with("X-A: one\rX-B: two"), BAD),
        ("a bare CR at a value's end", with("X-A: one\r"), BAD),
        ("lines that end with LF alone", bytes("GET /a HTTP/1.1\nHost: site.example\n\n"), BAD),
        ("one line that ends with LF alone", with("X-A: one\nX-B: two"), BAD),
        ("an empty line with LF alone", bytes("GET /a HTTP/1.1\r\nHost: site.example\r\n\n"), BAD),
        ("a bare CR for a line end", bytes("GET /a HTTP/1.1\rHost: site.example\r\n\r\n"), BAD),
    ]);
}

#[test]
fn a_request_without_exactly_one_good_host_is_refused() {
    let host = |lines: &str| format!("GET /a HTTP/1.1\r\n{lines}\r\n").into_bytes();
    check(&[
        ("no Host", host(""), BAD),
        ("an empty Host", host("Host:\r\n"), BAD),
        ("two that differ", host("Host: site.example\r\nHost: other.example\r\n"), BAD),
        ("two that agree", host("Host: site.example\r\nHost: site.example\r\n"), BAD),
        ("a list", host("Host: site.example, other.example\r\n"), BAD),
        ("a space inside", host("Host: site example\r\n"), BAD),
        ("a path", host("Host: site.example/path\r\n"), BAD),
        ("a query", host("Host: site.example?query\r\n"), BAD),
        ("user information", host("Host: user@site.example\r\n"), BAD),
        ("a backslash", host("Host: site.example\\other\r\n"), BAD),
        ("a quote", host("Host: \"site.example\"\r\n"), BAD),
        ("a tag", host("Host: <script>\r\n"), BAD),
        ("a port that is no number", host("Host: site.example:http\r\n"), BAD),
        ("a port out of range", host("Host: site.example:99999\r\n"), BAD),
        ("two ports", host("Host: site.example:80:81\r\n"), BAD),
        ("an open bracket", host("Host: [::1\r\n"), BAD),
        ("a scheme", host("Host: http://site.example\r\n"), BAD),
        ("a percent that begins no encoding", host("Host: site%zz.example\r\n"), BAD),
    ]);
}

#[test]
fn a_request_line_that_breaks_the_grammar_is_refused() {
    let long = "x".repeat(20_000);
    check(&[
        ("no version", start("GET /a"), &[400, 505]),
        ("a word too many", start("GET /a b HTTP/1.1"), &[400, 505]),
        ("two spaces", start("GET  /a HTTP/1.1"), BAD),
        ("a tab between the words", start("GET\t/a\tHTTP/1.1"), BAD),
        ("a space at its end", start("GET /a HTTP/1.1 "), BAD),
        ("a space before it", start(" GET /a HTTP/1.1"), BAD),
        ("a method that is no token", start("G(T /a HTTP/1.1"), BAD),
        ("a method with a control byte", start("GE\u{1}T /a HTTP/1.1"), BAD),
        ("a method with NUL", start("GET\0 /a HTTP/1.1"), BAD),
        ("a target without slash", start("GET a HTTP/1.1"), BAD),
        ("an asterisk for GET", start("GET * HTTP/1.1"), BAD),
        ("a fragment", start("GET /a#b HTTP/1.1"), BAD),
        ("a control byte in the target", start("GET /a\u{1}b HTTP/1.1"), BAD),
        ("NUL in the target", start("GET /a\0b HTTP/1.1"), BAD),
        ("DEL in the target", start("GET /a\u{7f}b HTTP/1.1"), BAD),
        ("a scheme that no web server has", start("GET ftp://site.example/a HTTP/1.1"), BAD),
        ("a URL with user information", start("GET http://user@site.example/a HTTP/1.1"), BAD),
        ("a URL without a host", start("GET http:///a HTTP/1.1"), BAD),
        ("HTTP/2.0", start("GET /a HTTP/2.0"), &[400, 505]),
        ("HTTP/0.9", start("GET /a HTTP/0.9"), &[400, 505]),
        ("a version with three digits", start("GET /a HTTP/1.10"), &[400, 505]),
        ("a version in small letters", start("GET /a http/1.1"), &[400, 505]),
        ("another protocol", start("GET /a ICY/1.1"), &[400, 505]),
        ("CONNECT to a host", start("CONNECT other.example:443 HTTP/1.1"), &[400, 405, 501]),
        ("CONNECT to a path", start("CONNECT /a HTTP/1.1"), &[400, 405, 501]),
        ("TRACE", start("TRACE /a HTTP/1.1"), &[400, 405, 501]),
        ("a very long target", start(&format!("GET /{long} HTTP/1.1")), &[414, 431]),
        ("a very long method", start(&format!("{long} / HTTP/1.1")), &[400, 414, 431, 501]),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[400, 505]),
        ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), BAD),
    ]);
}

#[test]
fn a_head_over_the_limits_is_refused() {
    let long = "x".repeat(70_000);
    let many = (0..200).map(|index| format!("X-{index}: y")).collect::<Vec<_>>().join("\r\n");
    check(&[
        ("a huge value", with(&format!("X-A: {long}")), &[431]),
        ("a huge name", with(&format!("X-{long}: a")), &[400, 431]),
        ("too many lines", with(&many), &[431]),
        (
            "a head without end",
            format!("GET /a HTTP/1.1\r\nHost: site.example\r\nX-A: {long}").into_bytes(),
            &[431],
        ),
    ]);
}

/// Deadlines of sockets run on the machine's clock, so these limits are the shortest there are.
fn impatient() -> Play {
    let mut play = play();
    play.config(
        "[edge]\nlimits = { header_timeout = \"1s\", idle_timeout = \"1s\", body_stall_timeout = \"1s\" }\n\
         [[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\n",
    );
    play
}

#[test]
fn a_head_that_comes_too_slowly_is_given_up() {
    let mut play = impatient();
    let mut talk = play.visitor().connect();
    talk.say("GET /a HTTP/1.1\r\nHost: site.exa");
    talk.answer().status_in(&[408]);
    talk.expect_closed();
    play.origin_saw_nothing();
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let mut play = impatient();
    play.visitor().connect().expect_closed();
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let mut play = impatient();
    play.origin(|o| o.post("/a").always().body("taken"));
    let mut talk = play.visitor().connect();
    talk.say(post("Content-Length: 10", "hello"));
    let rest = String::from_utf8_lossy(&talk.rest()).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    play.origin(|o| assert!(o.seen().iter().all(|seen| seen.body.end == End::Cut)));
}

/// The head of these is good, so the origin may have been asked already; it must never take the body for whole.
#[test]
fn a_body_with_broken_chunks_never_reaches_the_origin_as_whole() {
    let long = "x".repeat(100_000);
    for (name, body) in [
        ("a size that is no number", "xyz\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a space before it", " 5\r\nhello\r\n0\r\n\r\n"),
        ("a size that overflows", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("a size that wraps to five", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
        ("a chunk without its line end", "5\r\nhello0\r\n\r\n"),
        ("a size line that ends with LF alone", "5\nhello\r\n0\r\n\r\n"),
        ("a chunk that ends with LF alone", "5\r\nhello\n0\r\n\r\n"),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("NUL in an extension", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
        ("an extension without end", &format!("5;{long}\r\nhello\r\n0\r\n\r\n")),
        ("a trailer that is no field", "5\r\nhello\r\n0\r\nno field\r\n\r\n"),
        ("a trailer without end", &format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n")),
    ] {
        let mut play = play();
        play.origin(|o| o.post("/a").always().reply(200).body("taken"));
        let mut talk = play.visitor().connect();
        talk.say(post("Transfer-Encoding: chunked", body));
        let rest = String::from_utf8_lossy(&talk.rest()).into_owned();
        let first_line = rest.lines().next().unwrap_or_default();
        assert!(first_line.is_empty() || first_line.starts_with("HTTP/1.1 400"), "{name}: {rest}");
        play.origin(|o| {
            for seen in o.seen() {
                assert_eq!(seen.body.end, End::Cut, "{name}: {:?}", seen.body);
            }
        });
    }
}

#[test]
fn a_body_that_stops_early_never_reaches_the_origin_as_whole() {
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut play = play();
        play.origin(|o| o.post("/a").always().reply(200).body("taken"));
        let mut talk = play.visitor().connect();
        talk.say(post(framing, "5\r\nab")).finish_saying();
        talk.rest();
        play.origin(|o| {
            for seen in o.seen() {
                assert_eq!(seen.body.end, End::Cut, "{framing}: {:?}", seen.body);
            }
        });
    }
}

#[test]
fn what_follows_a_refused_request_on_its_connection_is_never_answered() {
    let mut play = play();
    play.origin(|o| o.get("/first").header("Cache-Control", "max-age=60").body("first"));
    let mut talk = play.visitor().connect();
    talk.say(
        "GET /first HTTP/1.1\r\nHost: site.example\r\n\r\n\
         GET /second HTTP/1.1\r\nHost: site.example\r\nX : y\r\n\r\n\
         GET /third HTTP/1.1\r\nHost: site.example\r\n\r\n",
    );
    talk.expect(200).body("first");
    talk.expect(400);
    talk.expect_closed();
    play.origin_saw(1);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let mut play = play();
    play.origin(|o| {
        o.get("/1").header("Cache-Control", "max-age=60").body("one");
        o.get("/2").header("Cache-Control", "max-age=60").part("tw").part("o");
        o.post("/3").body("three");
    });
    let mut talk = play.visitor().connect();
    talk.say(
        "GET /1 HTTP/1.1\r\nHost: site.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: site.example\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: site.example\r\nContent-Length: 19\r\n\r\nGET /4 HTTP/1.1\r\n\r\n\
         \r\nGET /1 HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n",
    );
    talk.expect(200).body("one");
    talk.expect(200).body("two");
    talk.expect(200).body("three");
    talk.expect(200).body("one").why("fresh");
    talk.expect_closed();
    play.origin_last_saw(|seen| assert_eq!(seen.body.bytes, b"GET /4 HTTP/1.1\r\n\r\n"));
}

#[test]
fn eight_empty_lines_before_a_request_are_passed_over_and_a_ninth_refused() {
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("a"));
    let (lines, request) = ("\r\n".repeat(8), String::from_utf8(start("GET /a HTTP/1.1")).unwrap());
    let mut talk = play.visitor().connect();
    talk.say(format!("{lines}{request}{lines}{request}{lines}\r\n{request}"));
    talk.expect(200).body("a");
    talk.expect(200).body("a").why("fresh");
    talk.expect(400);
    talk.expect_closed();
}

/// Waits until so many requests of the site have been told so.
fn told(play: &mut Play, why: &str, count: usize) {
    let registry = play.handle().registry().clone();
    let told = format!("perigee_requests_total{{site=\"site\",outcome=\"error\",why=\"{why}\"}} {count}\n");
    wait_until(&told, || registry.render().contains(&told));
}

#[test]
fn an_upload_over_the_limit_is_told_as_its_sites() {
    let mut play = play();
    play.config(&format!("[edge.limits]\nbody_bytes_max = \"1KiB\"\n\n{}", play.config_text()));
    let mut talk = play.visitor().connect();
    talk.say(post("Content-Length: 2000", "hello")).expect(413);
    told(&mut play, "limit", 1);
    let mut talk = play.visitor().connect();
    play.origin(|o| o.post("/a").always().body("taken"));
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000));
    talk.say(post("Transfer-Encoding: chunked", &chunk)).expect(413);
    told(&mut play, "limit", 2);
    let metrics = play.handle().registry().render();
    assert!(metrics.contains("perigee_limits_reached_total{limit=\"body-bytes\"} 2\n"));
}

#[test]
fn a_visitor_who_cannot_be_told_of_progress_is_told_of() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        o.get("/a").hold(&gate).raw(early).raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").close()
    });
    let mut talk = play.visitor().connect();
    talk.say("GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n");
    gate.wait_reached();
    talk.reset();
    gate.open();
    told(&mut play, "client-gone", 1);
}

#[test]
fn what_the_edge_says_itself_has_a_date() {
    let mut play = play();
    play.site("[[site.rule]]\npath = \"/old\"\nredirect = { to = \"/new\" }\n");
    let client = play.visitor();
    let answers = [
        client.get("/old").expect(308),
        client.ask("TRACE", "/a").expect(405),
        client.get("/a").header("Cache-Control", "only-if-cached").expect(504),
    ];
    for answer in answers {
        let dates =
            answer.response().head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"date"));
        assert_eq!(dates.count(), 1, "{:?}", answer.response().head);
    }
}

#[test]
fn the_beacon_says_what_may_be_asked_of_it() {
    let mut play = play();
    play.site("rum = true");
    let client = play.visitor();
    client.head("/.perigee/beacon.js").expect(200).header("Content-Type", "text/javascript").body("");
    client.ask("PUT", "/.perigee/beacon.js").expect(405).header("Allow", "GET, HEAD");
    client.ask("PUT", "/.perigee/beacon").expect(405).header("Allow", "GET, HEAD, POST");
    play.origin_saw_nothing();
}
