//! What comes back: framing, statuses, interim responses, and everything that is no HTTP.

use super::*;

/// What a GET of this answer, after which the origin closes, comes to.
fn check(answer: impl AsRef<[u8]>, expected: &str) {
    check_method("GET", answer, expected);
}

fn check_method(method: &str, answer: impl AsRef<[u8]>, expected: &str) {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(&answer)]]).await;
        let (origins, _) = origins();
        let line = fetch_line(&origins, &origin.group(), request(method, "/")).await;
        assert_eq!(line, expected, "{:?}", String::from_utf8_lossy(answer.as_ref()));
    });
}

#[test]
fn bodies_end_where_their_framing_says() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 [5] \"hello\"");
    check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 [0] \"\"");
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        "200 \"hello\"",
    );
    check("HTTP/1.1 200 OK\r\n\r\nuntil close", "200 \"until close\"");
    check("HTTP/1.0 200 OK\r\n\r\nuntil close", "200 \"until close\"");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\nuntil close", "200 \"until close\"");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "200 [5] \"hello\"");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "200 [5] \"hello\"");
    check("HTTP/1.1 204 No Content\r\n\r\n", "204 [0] \"\"");
    check("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 [0] \"\"");
    check_method("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 [0] \"\"");
    check_method("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 [0] \"\"");
}

#[test]
fn a_body_cut_short_never_ends_cleanly() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "200 [5] \"hel\" then truncated");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 [5] \"\" then truncated");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", "200 \"hel\" then truncated");
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n",
        "200 \"hel\" then truncated",
    );
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "200 \"hel\" then truncated");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 \"\" then truncated");
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhel\r\n0\r\n\r\n",
        "200 \"\" then protocol",
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
        "200 \"hel\" then protocol",
    );
}

#[test]
fn a_reset_in_a_body_until_close_is_no_end() {
    play(async {
        let part = "HTTP/1.1 200 OK\r\n\r\nhel";
        let gate = Rc::new(Notify::new());
        let origin = Scripted::start(vec![vec![Read, send(part), Wait(gate.clone()), Reset]]).await;
        let (origins, _) = origins();
        let mut response = origins.fetch(&origin.group(), get("/"), |_, _| {}).await.unwrap();
        assert_eq!(response.body.chunk().await.unwrap().unwrap(), "hel");
        gate.notify_one();
        let (rest, end) = read_body(&mut response).await;
        assert_eq!((&*rest, end), ("", Err(FetchErrorKind::Truncated)));
        assert!(response.body.chunk().await.is_none());
    });
}

#[test]
fn what_is_no_http_is_a_protocol_error() {
    for answer in [
        "hello\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 1000 High\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : space\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        check(answer, "protocol");
    }
}

#[test]
fn a_head_over_the_limits_is_a_protocol_error() {
    let lines = |count: usize, bytes: usize| {
        let line = format!("X-Line: {}\r\n", "x".repeat(bytes));
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok", line.repeat(count))
    };
    check(lines(100, 100), "200 [2] \"ok\"");
    check(lines(200, 1), "protocol");
    check(lines(3, 30_000), "protocol");
    check(lines(100, 10_000), "protocol");
}

#[test]
fn a_connection_that_ends_before_the_head_is_complete_is_a_reset() {
    check("", "reset");
    check("HTTP/1.1 200 OK\r\nContent-Le", "reset");
}

#[test]
fn any_three_digit_status_passes() {
    for status in [200, 203, 226, 299, 300, 399, 418, 451, 499, 500, 599, 600, 999] {
        check(
            format!("HTTP/1.1 {status} Odd\r\nContent-Length: 2\r\n\r\nok"),
            &format!("{status} [2] \"ok\""),
        );
    }
    check("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "200 [2] \"ok\"");
}

#[test]
fn length_and_chunked_together_are_chunked_and_the_connection_is_not_kept() {
    play(async {
        let both =
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let origin = Scripted::start(vec![vec![Read, send(both), Hang], vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        let mut response = origins.fetch(&origin.group(), get("/"), |_, _| {}).await.unwrap();
        assert_eq!(read_body(&mut response).await, ("ok".into(), Ok(())));
        assert!(!response.fields.contains("content-length"));
        assert_eq!(response.length, None);
        fetch_line(&origins, &origin.group(), get("/")).await;
        assert_eq!(origin.connections.get(), 2);
    });
}

#[test]
fn a_repeated_length_is_told_once() {
    play(async {
        let twice = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok";
        let origin = Scripted::start(vec![vec![Read, send(twice)]]).await;
        let (origins, _) = origins();
        let response = origins.fetch(&origin.group(), get("/"), |_, _| {}).await.unwrap();
        assert_eq!(response.fields.get_all("content-length").collect::<Vec<_>>(), [b"2"]);
    });
}

#[test]
fn interim_responses_reach_the_caller_before_the_final_one() {
    play(async {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        let gate = Rc::new(Notify::new());
        let acts =
            vec![Read, send("HTTP/1.1 100 Continue\r\n\r\n"), send(hints), Wait(gate.clone()), send(OK)];
        let origin = Scripted::start(vec![acts]).await;
        let (origins, _) = origins();
        let heard = RefCell::new(Vec::new());
        let group = origin.group();
        let response = origins.fetch(&group, get("/"), |status, fields| {
            heard.borrow_mut().push((status, fields.get("link").map(<[u8]>::to_vec)));
            if status == 103 {
                gate.notify_one();
            }
        });
        assert_eq!(response.await.unwrap().status, 200);
        assert_eq!(*heard.borrow(), [(100, None), (103, Some(b"</a.css>; rel=preload".to_vec()))]);
    });
}

#[test]
fn an_origin_that_sends_interim_responses_for_ever_is_given_up() {
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
    check(&hints, "reset");
    play(async {
        let mut acts = vec![Read];
        acts.extend((0..1000).map(|_| send("HTTP/1.1 103 Early Hints\r\n\r\n")));
        acts.push(Hang);
        let origin = Scripted::start(vec![acts]).await;
        let mut settings = origin.origin();
        settings.timeouts.first_byte = Duration::from_millis(300);
        let (origins, _) = origins();
        let line = fetch_line(&origins, &OriginGroup::of(settings), get("/")).await;
        assert!(["protocol", "timeout-first-byte"].contains(&&*line), "{line}");
    });
}

#[test]
fn trailers_after_the_body_are_dropped() {
    play(async {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
        let origin = Scripted::start(vec![vec![Read, send(answer)]]).await;
        let (origins, _) = origins();
        let mut response = origins.fetch(&origin.group(), get("/"), |_, _| {}).await.unwrap();
        let (body, ended) = read_body(&mut response).await;
        ended.unwrap();
        assert_eq!(body, "ok");
    });
}
