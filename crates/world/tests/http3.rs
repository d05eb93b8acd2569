//! HTTP/3 to visitors, by a client that nobody here wrote: the same answers as over any other protocol.

use std::net::UdpSocket;
use std::time::Duration;

use http::Method;
use world::play::{Play, content, wait_until};
use world::{Gate, play};

#[test]
fn a_cached_object_is_served_over_http3() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("one"));
    let client = play.http3();
    let first = client.get("/a").expect(200).body("one").header("Content-Length", "3");
    assert!(first.field("Cache-Status").is_some_and(|status| status.contains("fwd=uri-miss")), "{first:?}");
    let second = client.get("/a").expect(200).body("one");
    assert!(second.field("Cache-Status").is_some_and(|status| status.contains("hit")), "{second:?}");
    assert_eq!(second.field("Alt-Svc"), None, "who is there already is not told where to go");
}

#[test]
fn bodies_come_byte_by_byte_from_wherever_they_lie() {
    let mut play = play();
    play.tls();
    let (small, large) = (content(1, 50_000), content(2, 5_000_000));
    play.origin(|o| {
        o.get("/small").header("Cache-Control", "max-age=60").body(&small);
        o.get("/large").header("Cache-Control", "max-age=60").body(&large);
    });
    let client = play.http3();
    for _ in 0..2 {
        client.get("/small").expect(200).body(&small);
        client.get("/large").expect(200).body(&large);
    }
    let part = client.ask(Method::GET, "/large", &[("range", "bytes=1000000-1000099")], &[]);
    part.expect(206)
        .body(&large[1_000_000..1_000_100])
        .header("Content-Range", "bytes 1000000-1000099/5000000");
    let head = client.ask(Method::HEAD, "/large", &[], &[]);
    head.expect(200).body("").header("Content-Length", "5000000");
}

#[test]
fn an_upload_reaches_the_origin_with_its_length_and_its_bytes() {
    let mut play = play();
    play.tls();
    let upload = content(3, 700_000);
    play.origin(|o| o.post("/form").reply(201).body("taken"));
    let client = play.http3();
    let length = upload.len().to_string();
    client.ask(Method::POST, "/form", &[("content-length", &length)], &upload).expect(201).body("taken");
    play.origin_last_saw(|seen| {
        seen.header("Content-Length", &length).header("Via", "3.0 perigee");
        assert!(seen.body.bytes == upload, "{} bytes arrived", seen.body.bytes.len());
    });
}

#[test]
fn content_that_is_not_as_long_as_it_says_is_no_request() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.post("/form").reply(201).always());
    let client = play.quic();
    client.say(&[0x00, 0x04, 0x00], false);
    let head = section(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/form"),
        (":authority", "site.example"),
        ("content-length", "9"),
    ]);
    let answer = client.ask(&[&head[..], &[0x00, 0x05], b"short"].concat());
    assert!(!answer.windows(3).any(|part| part == b"201"), "{answer:?}");
}

#[test]
fn those_who_follow_a_fill_get_every_byte_of_it() {
    let gate = Gate::new();
    let mut play = play();
    play.tls();
    let body = content(4, 900_000);
    play.origin(|o| {
        o.get("/a")
            .header("Cache-Control", "max-age=60")
            .part(&body[..300_000])
            .hold(&gate)
            .part(&body[300_000..])
    });
    let (one, other) = (play.http3(), play.http3());
    let first = one.begin(Method::GET, "/a", &[], &[]);
    gate.wait_reached();
    let second = other.begin(Method::GET, "/a", &[], &[]);
    gate.open();
    first.wait().expect(200).body(&body);
    second.wait().expect(200).body(&body);
    play.origin_saw(1);
}

#[test]
fn what_an_origin_breaks_off_never_ends_cleanly() {
    let mut play = play();
    play.tls();
    let body = content(5, 400_000);
    play.origin(|o| {
        o.get("/length").header("Content-Length", "500000").part(&body).close();
        o.get("/chunked").part(&body).close();
        o.get("/stored").header("Cache-Control", "max-age=60").part(&body).close();
    });
    let client = play.http3();
    for path in ["/length", "/chunked", "/stored"] {
        // What was on its way when it broke off may never arrive, the head with it.
        if let Ok(answer) = client.begin(Method::GET, path, &[], &[]).try_wait() {
            assert!(answer.end.is_err(), "{path} ended cleanly after {} bytes", answer.body.len());
            assert!(body.starts_with(&answer.body), "{path} has other bytes");
        }
    }
}

#[test]
fn trailers_come_behind_the_content() {
    let mut play = play();
    play.tls();
    play.origin(|o| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\nTrailer: Check-Sum\r\n\r\n";
        o.get("/a").raw(format!("{head}3\r\none\r\n0\r\nCheck-Sum: 7\r\n\r\n"))
    });
    let answer = play.http3().get("/a").expect(200).body("one");
    let trailers = answer.trailers.expect("there are trailers");
    assert_eq!(trailers.get("check-sum").and_then(|value| value.to_str().ok()), Some("7"));
}

#[test]
fn early_hints_come_before_the_answer() {
    let mut play = play();
    play.tls();
    play.origin(|o| {
        o.get("/a")
            .interim(103, "Link: </a.css>; rel=preload\r\n")
            .header("Cache-Control", "no-store")
            .body("one")
    });
    let client = play.quic();
    client.say(&[0x00, 0x04, 0x00], false);
    let answer = client.ask(&get("/a"));
    // HEADERS with `:status: 103`, of the static table.
    assert_eq!((answer[0], &answer[2..5]), (0x01, &[0, 0, 0xc0 | 24][..]), "{answer:?}");
    assert!(answer.ends_with(b"\x00\x03one"), "{answer:?}");
}

#[test]
fn refusals_are_answers() {
    let mut play = play();
    play.tls();
    play.config(
        "[edge.limits]\nheader_bytes_max = \"4KiB\"\nbody_bytes_max = \"1KiB\"\n\
         [[site]]\nname = \"site\"\ndomains = [\"site.example\"]\norigin = \"{origin}\"\n",
    );
    let client = play.http3();
    client.ask(Method::POST, "/a", &[("content-length", "2000")], &[7; 2000]).expect(413);
    client.ask(Method::TRACE, "/a", &[], &[]).expect(405);
    client.ask(Method::GET, "/a", &[("te", "gzip")], &[]).expect(400);
    let raw = play.quic();
    let authority =
        [(":method", "GET"), (":scheme", "https"), (":authority", "site.example"), (":path", "/a")];
    for line in [
        ("host", "other.example"),
        ("x-Upper", "a"),
        ("x-feed", "a\nb"),
        (":status", "200"),
        ("upgrade", "h2c"),
    ] {
        let answer = raw.ask(&section(&[&authority[..], &[line]].concat()));
        // HEADERS with `:status: 400`, of the static table.
        assert_eq!(answer.get(5..7), Some(&[0xff, 67 - 63][..]), "{line:?}: {answer:?}");
    }
    play.origin_saw_nothing();
}

#[test]
fn a_head_without_end_is_refused_and_never_kept() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("one"));
    let client = play.quic();
    client.say(&[0x00, 0x04, 0x00], false);
    // A HEADERS frame of a GiB, and as much of it as is taken.
    let mut attack = vec![0x01, 0xc0, 0, 0, 0, 0x40, 0, 0, 0];
    attack.resize(64 * 1024 * 1024, b'a');
    let answer = client.ask(&attack);
    // HEADERS with `:status`, of the static table's names, and 431.
    assert!(answer.windows(4).any(|part| part == b"\x03431"), "{:?}", &answer[..answer.len().min(64)]);
    assert!(client.ask(&get("/a")).ends_with(b"one"), "the connection is as good as before");
}

#[test]
fn who_breaks_the_rules_is_told_which() {
    const CONTROL: &[u8] = &[0x00, 0x04, 0x00];
    let mut play = play();
    play.tls();
    let streams: [(&str, &[u8], bool, u64); 13] = [
        ("no settings", &[0x00, 0x07, 0x01, 0x00], false, 0x10a),
        ("settings twice", &[0x00, 0x04, 0x00, 0x04, 0x00], false, 0x105),
        ("a setting twice", &[0x00, 0x04, 0x04, 0x06, 0x01, 0x06, 0x01], false, 0x109),
        ("a setting of HTTP/2", &[0x00, 0x04, 0x02, 0x02, 0x01], false, 0x109),
        ("content on the control stream", &[0x00, 0x04, 0x00, 0x00, 0x00], false, 0x105),
        ("a control stream that ends", CONTROL, true, 0x104),
        ("a push", &[0x01, 0x00], false, 0x103),
        ("a push cancelled", &[0x00, 0x04, 0x00, 0x03, 0x01, 0x00], false, 0x108),
        ("an endless setting", &[0x00, 0x04, 0x80, 0x10, 0x00, 0x00], false, 0x107),
        ("a table", &[0x02, 0x3f, 0x01], false, 0x201),
        ("an entry for a table", &[0x02, 0xc0, 0x01, b'a'], false, 0x201),
        ("an acknowledgement of nothing", &[0x03, 0x80], false, 0x202),
        ("the priority of no request", &[0x00, 0x04, 0x00, 0x80, 0x0f, 0x07, 0x00, 0x01, 0x02], false, 0x108),
    ];
    for (what, bytes, ends, code) in streams {
        let client = play.quic();
        client.say(bytes, ends);
        assert_eq!(client.closed(), code, "{what}");
    }
    let twice = play.quic();
    twice.say(CONTROL, false);
    twice.say(CONTROL, false);
    assert_eq!(twice.closed(), 0x103, "two control streams");
    let requests: [(&str, &[u8], u64); 6] = [
        ("content before a head", &[0x00, 0x01, b'a'], 0x105),
        ("settings in a request", &[0x04, 0x00], 0x105),
        ("a frame of HTTP/2", &[0x06, 0x00], 0x105),
        ("a frame that is cut short", &[0x01, 0x05, 0x00], 0x106),
        ("a line of a table that there is not", &[0x01, 0x03, 0x00, 0x00, 0x80], 0x200),
        ("frames that say nothing", &[0x21, 0x00].repeat(2000), 0x107),
    ];
    for (what, bytes, code) in requests {
        let client = play.quic();
        client.say(CONTROL, false);
        let _ = client.ask(bytes);
        assert_eq!(client.closed(), code, "{what}");
    }
}

#[test]
fn what_nobody_knows_is_passed_over() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("one").always());
    let client = play.quic();
    client.say(&[0x00, 0x04, 0x04, 0x21, 0x01, 0x33, 0x01, 0x40, 0x40, 0x01, 0x07], false);
    client.say(&[0x40, 0x61, 1, 2, 3], false);
    // PRIORITY_UPDATE for the first stream, whose answer is wanted last.
    let unknown = [&[0x21, 0x02, 1, 2][..], &get("/a"), &[0x21, 0x00]].concat();
    assert!(client.ask(&unknown).ends_with(b"one"));
    assert!(client.ask(&get("/a")).ends_with(b"one"));
}

#[test]
fn a_connection_outlives_its_visitors_addresses() {
    let mut play = play();
    play.tls();
    let config = format!("[edge]\nworkers = 4\n{}", play.config_text());
    play.config(&config);
    let body = content(6, 300_000);
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body(&body));
    let client = play.http3();
    // The kernel gives each address to one of four workers by chance: that all of these come to the first is one in 65,536.
    for _ in 0..8 {
        client.get("/a").expect(200).body(&body);
        client.quic().move_away();
    }
    client.get("/a").expect(200).body(&body);
}

#[test]
fn a_connection_outlives_the_process_that_takes_new_ones() {
    if std::env::var_os(world::play::DISK_EVERYWHERE).is_some() {
        return; // The disk is passed on too then, which is another test's.
    }
    let gate = Gate::new();
    let mut play = play();
    play.tls();
    let (slow, quick) = (content(7, 3_000_000), content(8, 200_000));
    play.origin(|o| {
        o.get("/slow")
            .header("Cache-Control", "max-age=60")
            .part(&slow[..1000])
            .hold(&gate)
            .part(&slow[1000..]);
        o.get("/quick").header("Cache-Control", "max-age=60").body(&quick);
    });
    let before = play.http3();
    let waiting = before.begin(Method::GET, "/slow", &[], &[]);
    gate.wait_reached();
    let old = play.upgrade();
    let after = play.http3();
    after.get("/quick").expect(200).body(&quick);
    assert_eq!((old.connections(), play.handle().status().connections), (1, 1));
    gate.open();
    waiting.wait().expect(200).body(&slow);
}

#[test]
fn one_client_may_begin_so_many_handshakes() {
    let mut play = play();
    play.tls();
    play.config(&format!("[edge.limits]\nhandshakes_per_client = 1\n\n{}", play.config_text()));
    for number in 0..10 {
        assert!(play.takes_quic(), "{number}");
    }
    assert!(!play.takes_quic(), "ten seconds' worth have come");
    let counted = |play: &mut Play, series: &str| play.handle().registry().render().contains(series);
    assert!(counted(&mut play, "perigee_limits_reached_total{limit=\"handshakes-per-client\"} 1\n"));
    assert!(counted(&mut play, "perigee_tls_handshakes_total{result=\"quic\"} 10\n"));
    play.pass_secs(1);
    assert!(play.takes_quic(), "a second later");
    assert!(!play.takes_quic());
}

#[test]
fn one_client_may_have_so_many_connections_open() {
    let mut play = play();
    play.tls();
    play.config(&format!("[edge.limits]\nconnections_per_client_max = 1\n\n{}", play.config_text()));
    let first = play.quic();
    assert!(!play.takes_quic());
    let metrics = play.handle().registry().render();
    assert!(metrics.contains("perigee_limits_reached_total{limit=\"connections-per-client\"} 1\n"));
    assert!(
        metrics.contains("perigee_tls_handshakes_total{result=\"quic\"} 1\n"),
        "refused before its handshake"
    );
    drop(first);
    wait_until("room for one more", || play.takes_quic());
}

#[test]
fn a_stop_ends_what_runs_and_says_goodbye() {
    let gate = Gate::new();
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/slow").hold(&gate).header("Cache-Control", "max-age=60").body("late"));
    let client = play.http3();
    let idle = play.quic();
    idle.say(&[0x00, 0x04, 0x00], false);
    let waiting = client.begin(Method::GET, "/slow", &[], &[]);
    gate.wait_reached();
    let stopping = play.stop_edge(Duration::from_secs(20));
    assert_eq!(idle.closed(), 0x100, "an idle connection is closed without an error");
    gate.open();
    waiting.wait().expect(200).body("late");
    assert!(stopping.join().unwrap_or(false), "everything ended by itself");
}

#[test]
fn visitors_of_tls_are_told_where_http3_is_spoken() {
    let mut play = play();
    play.tls();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=60").header("Alt-Svc", "h3=\":1\"").body("one").always()
    });
    let request = "GET /a HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n";
    let answer = play.tls_ask(request);
    let port = play.handle().addresses_tls()[0].port();
    let told: Vec<&str> =
        answer.lines().filter(|line| line.to_ascii_lowercase().starts_with("alt-svc")).collect();
    assert_eq!(told, [format!("Alt-Svc: h3=\":{port}\"; ma=86400")], "{answer}");
    play.client(|c| {
        let plain = "GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n";
        drop(c.raw(plain).status(200).body("one").no_header("Alt-Svc"));
    });
}

#[test]
fn without_http3_nobody_is_told_of_it() {
    let mut play = play();
    play.tls();
    let config = format!("[edge]\nhttp3 = false\n{}", play.config_text());
    play.config(&config);
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("one"));
    let answer = play.tls_ask("GET /a HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("Alt-Svc"), "{answer}");
    let port = play.handle().addresses_tls()[0].port();
    UdpSocket::bind(("127.0.0.1", port)).expect("the port is free for others");
}

/// A HEADERS frame of these lines, as literals.
fn section(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in lines {
        assert!(name.len() < 7 + 127 && value.len() < 127);
        match name.len().checked_sub(7) {
            Some(more) => section.extend_from_slice(&[0x27, more as u8]),
            None => section.push(0x20 | name.len() as u8),
        }
        section.extend_from_slice(name.as_bytes());
        section.push(value.len() as u8);
        section.extend_from_slice(value.as_bytes());
    }
    assert!(section.len() < 0x4000);
    let length = (section.len() as u16 | 0x4000).to_be_bytes();
    [&[0x01][..], &length, &section].concat()
}

/// A request for a path of `site.example`.
fn get(path: &str) -> Vec<u8> {
    section(&[(":method", "GET"), (":scheme", "https"), (":authority", "site.example"), (":path", path)])
}
