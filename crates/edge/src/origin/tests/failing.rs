//! Origins in trouble: time-outs, fail-over, breaker, budget, probes.

use model::breaker::State;
use model::health;
use model::origin::Probe;
use model::retry::RetryPolicy;
use tokio::sync::mpsc;

use super::*;

const MS_50: Duration = Duration::from_millis(50);

/// A group of several origins.
fn group_of(origins: impl IntoIterator<Item = Origin>) -> OriginGroup {
    let mut origins = origins.into_iter();
    let mut group = OriginGroup::of(origins.next().unwrap());
    group.origins.extend(origins.map(Arc::new));
    group
}

const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

#[test]
fn what_one_origin_knows_the_edge_by_is_not_sent_to_the_one_that_stands_in() {
    play(async {
        let first = Scripted::start(vec![vec![Read, send(BUSY)]]).await;
        let second =
            Scripted::start(vec![vec![Read, send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]]).await;
        let mut group = group_of([first.origin(), second.origin()]);
        let set = |value: &str| model::rule::HeaderOps {
            ops: vec![model::rule::HeaderOp::Set("X-Secret".into(), value.into())],
        };
        group.request_headers_of = vec![set("of-the-first"), model::rule::HeaderOps::default()];
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "200 [0] \"\"");
        let sent = |origin: &Scripted| origin.seen().join("").to_ascii_lowercase();
        assert!(sent(&first).contains("x-secret: of-the-first"), "{}", sent(&first));
        assert!(!sent(&second).contains("x-secret"), "{}", sent(&second));
    });
}

// --- Time-outs ---

#[test]
fn an_origin_that_does_not_answer_times_out() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, Hang]]).await;
        let mut settings = origin.origin();
        settings.timeouts.first_byte = MS_50;
        let (origins, _) = origins();
        let error = origins.fetch(&OriginGroup::of(settings), get("/"), |_, _| {}).await.unwrap_err();
        assert_eq!(error.kind(), FetchErrorKind::Timeout(Phase::FirstByte));
        assert_eq!(error.why(), semantics::Why::OriginTimeout);
        assert_eq!(error.fault(), Fault::Origin);
        until("the connection is closed", || origin.connections.get() == 1).await;
    });
}

#[test]
fn what_is_given_up_on_does_not_reach_the_origin_later() {
    play(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // So little that most of the request stays on the edge's side.
        socket2::SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let mut origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        origin.timeouts.first_byte = Duration::from_millis(50);
        let (origins, _) = origins();
        let mut request = get("/");
        request.fields.append("X-Long", "x".repeat(256 * 1024)).unwrap();
        assert_eq!(fetch_line(&origins, &OriginGroup::of(origin), request).await, "timeout-first-byte");
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        let error = stream.read_to_end(&mut read).await.expect_err("the rest of the request came");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(read.len() < 256 * 1024, "the whole request came");
    });
}

#[test]
fn a_body_that_stops_times_out() {
    play(async {
        let part = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        let origin = Scripted::start(vec![vec![Read, send(part), Hang]]).await;
        let mut settings = origin.origin();
        settings.timeouts.idle = MS_50;
        let (origins, _) = origins();
        let line = fetch_line(&origins, &OriginGroup::of(settings), get("/")).await;
        assert_eq!(line, "200 [5] \"hel\" then timeout-idle");
    });
}

#[test]
fn the_whole_exchange_has_its_time() {
    play(async {
        let part = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        let origin = Scripted::start(vec![vec![Read, send(part), Hang], vec![Read, Hang]]).await;
        let mut settings = origin.origin();
        settings.timeouts.total = Some(MS_50);
        let (origins, _) = origins();
        let group = OriginGroup::of(settings);
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "200 [5] \"hel\" then timeout-total");
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "timeout-total");
    });
}

#[test]
fn a_handshake_that_hangs_is_a_connect_time_out() {
    play(async {
        let origin = Scripted::start(vec![vec![Hang]]).await;
        let mut settings = origin.origin();
        settings.scheme = model::Scheme::Https;
        settings.timeouts.connect = MS_50;
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &OriginGroup::of(settings), get("/")).await, "timeout-connect");
    });
}

#[test]
fn a_visitor_who_uploads_slowly_does_not_make_the_origin_late() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(OK)]]).await;
        let mut settings = origin.origin();
        settings.timeouts.first_byte = MS_50;
        let (parts, receiver) = mpsc::channel(1);
        let mut upload = request("POST", "/");
        upload.body = RequestBody::Stream { length: None, parts: receiver };
        tokio::task::spawn_local(async move {
            // Three times the time-out: the visitor's pace is the subject here, not a wait for a state.
            tokio::time::sleep(MS_50 * 3).await;
            parts.send(Ok(BodyPart::Data("late".into()))).await.unwrap();
            parts.send(Ok(BodyPart::End(Fields::new()))).await.unwrap();
        });
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &OriginGroup::of(settings), upload).await, "200 [2] \"ok\"");
    });
}

// --- Fail-over ---

#[test]
fn a_refused_connection_goes_to_the_next_origin_for_any_method() {
    play(async {
        let second = Scripted::start(vec![vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        let (parts, receiver) = mpsc::channel(2);
        parts.try_send(Ok(BodyPart::Data("hello".into()))).unwrap();
        parts.try_send(Ok(BodyPart::End(Fields::new()))).unwrap();
        let mut upload = request("POST", "/");
        upload.body = RequestBody::Stream { length: Some(5), parts: receiver };
        let (_socket, nobody) = refusing();
        let group = group_of([nobody, second.origin()]);
        let response = origins.fetch(&group, upload, |_, _| {}).await.unwrap();
        assert_eq!((response.status, response.info.attempts), (200, 2));
        assert!(second.seen()[0].ends_with("\r\n\r\nhello"), "{:?}", second.seen());
    });
}

#[test]
fn a_listed_status_goes_to_the_next_origin_for_safe_requests_alone() {
    play(async {
        let first = Scripted::start(vec![vec![Read, send(BUSY)], vec![Read, send(BUSY)]]).await;
        let second = Scripted::start(vec![vec![Read, send(OK), Read, send(OK)]]).await;
        let group = group_of([first.origin(), second.origin()]);
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "200 [2] \"ok\"");
        assert_eq!(fetch_line(&origins, &group, request("POST", "/")).await, "503 [4] \"busy\"");
        assert_eq!(second.seen().len(), 1);
    });
}

#[test]
fn an_unlisted_status_is_the_answer() {
    play(async {
        let absent = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        let first = Scripted::start(vec![vec![Read, send(absent)]]).await;
        let second = Scripted::start(vec![]).await;
        let (origins, _) = origins();
        let group = group_of([first.origin(), second.origin()]);
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "404 [0] \"\"");
        assert_eq!(second.connections.get(), 0);
    });
}

#[test]
fn when_the_next_origin_is_no_better_the_first_answer_stands() {
    play(async {
        let first = Scripted::start(vec![vec![Read, send(BUSY)]]).await;
        let (origins, _) = origins();
        let (_socket, nobody) = refusing();
        let group = group_of([first.origin(), nobody]);
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "503 [4] \"busy\"");
    });
}

#[test]
fn a_time_out_goes_to_the_next_origin_for_safe_requests_alone() {
    play(async {
        let first = Scripted::start(vec![vec![Read, Hang], vec![Read, Hang]]).await;
        let second = Scripted::start(vec![vec![Read, send(OK), Read, send(OK)]]).await;
        let mut slow = first.origin();
        slow.timeouts.first_byte = MS_50;
        let group = group_of([slow, second.origin()]);
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "200 [2] \"ok\"");
        assert_eq!(fetch_line(&origins, &group, request("POST", "/")).await, "timeout-first-byte");
    });
}

#[test]
fn a_single_origin_is_asked_once() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send("junk\r\n\r\n")], vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &origin.group(), get("/")).await, "protocol");
        assert_eq!(origin.connections.get(), 1);
    });
}

#[test]
fn retries_stop_when_their_budget_is_used_up() {
    play(async {
        let first = Scripted::start(vec![vec![Read, send(BUSY)]; 4]).await;
        let second = Scripted::start(vec![vec![Read, send(OK)]; 4]).await;
        let mut group = group_of([first.origin(), second.origin()]);
        group.retry = RetryPolicy { percent: 0, floor_per_sec: 1, window_secs: 2 };
        let (origins, _) = origins();
        let mut lines = Vec::new();
        for _ in 0..4 {
            lines.push(fetch_line(&origins, &group, get("/")).await[..3].to_owned());
        }
        assert_eq!(lines, ["200", "200", "503", "503"]);
        let reports = origins.shared.report();
        assert_eq!(reports.iter().map(|report| report.counts.budget_refusals).sum::<u64>(), 2);
    });
}

// --- Breaker ---

#[test]
fn a_failing_origin_is_left_alone_until_a_probe_succeeds() {
    play(async {
        let mut script = vec![vec![ReadHead]; 6];
        script.push(vec![Read, send(OK), Read, send(OK)]);
        let origin = Scripted::start(script).await;
        let (origins, clock) = origins();
        let group = hasty(origin.group());
        for _ in 0..5 {
            assert_eq!(fetch_line(&origins, &group, get("/")).await, "reset");
        }
        assert_eq!(origins.shared.report()[0].breaker, State::Open);
        for _ in 0..10 {
            assert_eq!(fetch_line(&origins, &group, get("/")).await, "breaker-open");
        }
        assert_eq!(origin.connections.get(), 5);
        clock.advance(Duration::from_secs(1));
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "reset");
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "breaker-open");
        clock.advance(Duration::from_secs(1));
        for _ in 0..2 {
            assert_eq!(fetch_line(&origins, &group, get("/")).await, "200 [2] \"ok\"");
        }
        assert_eq!(origin.connections.get(), 7);
    });
}

#[test]
fn the_breaker_of_one_worker_is_the_breaker_of_all() {
    play(async {
        let clock = Clock::manual(Wall::default());
        let shared = Arc::new(OriginsShared::new(clock, Arc::default(), &[], false));
        let (_socket, nobody) = refusing();
        let group = hasty(OriginGroup::of(nobody));
        let (one, other) = (Origins::new(shared.clone()), Origins::new(shared));
        for _ in 0..5 {
            assert_eq!(fetch_line(&one, &group, get("/")).await, "connect");
        }
        assert_eq!(fetch_line(&other, &group, get("/")).await, "breaker-open");
    });
}

#[test]
fn answers_of_a_single_origin_never_open_its_breaker() {
    play(async {
        let origin = Scripted::start(vec![(0..10).flat_map(|_| [Read, send(BUSY)]).collect()]).await;
        let (origins, _) = origins();
        for _ in 0..10 {
            assert_eq!(fetch_line(&origins, &origin.group(), get("/")).await, "503 [4] \"busy\"");
        }
    });
}

#[test]
fn a_body_that_breaks_off_counts_against_the_origin() {
    play(async {
        let part = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        let origin = Scripted::start(vec![vec![Read, send(part)]; 5]).await;
        let (origins, _) = origins();
        for _ in 0..5 {
            fetch_line(&origins, &origin.group(), get("/")).await;
        }
        assert_eq!(origins.shared.report()[0].counts.failures, 5);
    });
}

#[test]
fn what_the_visitor_breaks_off_does_not_count_against_the_origin() {
    play(async {
        let origin = Scripted::start(vec![vec![ReadHead, Hang]; 8]).await;
        let (origins, _) = origins();
        for _ in 0..8 {
            let (parts, receiver) = mpsc::channel(1);
            let mut upload = request("POST", "/");
            upload.body = RequestBody::Stream { length: Some(5), parts: receiver };
            drop(parts);
            assert_eq!(fetch_line(&origins, &origin.group(), upload).await, "upload");
        }
        assert_eq!(origins.shared.report()[0].breaker, State::Closed);
    });
}

#[test]
fn an_empty_group_is_an_error_of_the_configuration() {
    play(async {
        let (_socket, nobody) = refusing();
        let mut group = OriginGroup::of(nobody);
        group.origins.clear();
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "no-origin");
    });
}

// --- Probes ---

#[test]
fn probes_turn_requests_away_from_an_origin_and_back() {
    play(async {
        let (bad, good) = ("HTTP/1.1 500 Bad\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n");
        let gate = Rc::new(Notify::new());
        let mut script = vec![vec![Read, send(bad)]; 3];
        script.push(vec![Read, Wait(gate.clone()), send(good)]);
        script.extend(vec![vec![Read, send(good)]; 1000]);
        let first = Scripted::start(script).await;
        let second = Scripted::start(vec![vec![Read, send(OK)]; 1000]).await;
        let mut group = group_of([first.origin(), second.origin()]);
        group.probe = Some(Probe {
            path: "/healthy".into(),
            interval: Duration::from_millis(5),
            timeout: Duration::from_secs(5),
            statuses: vec![200..=299],
        });
        let (origins, _) = origins();
        origins.shared.configure([&group]);
        let prober = tokio::task::spawn_local(probe_origins(origins.shared.clone()));
        let name = group.origins[0].url();
        let health = || {
            let reports = origins.shared.report();
            reports.iter().find(|report| *report.name == name).map(|report| report.health).unwrap()
        };
        until("the first is down", || health() == health::State::Down).await;
        assert_eq!(first.asked()[0], "GET /healthy HTTP/1.1");
        assert_eq!(fetch_line(&origins, &group, get("/")).await, "200 [2] \"ok\"");
        assert!(!first.asked().contains(&"GET / HTTP/1.1".to_owned()));
        gate.notify_one();
        until("the first is up", || health() == health::State::Up).await;
        // Forgotten origins are probed no more.
        origins.shared.configure([]);
        assert!(origins.shared.report().is_empty());
        prober.abort();
    });
}

// --- Names ---

#[test]
fn a_name_is_resolved_and_an_unknown_one_is_an_error() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(OK)]]).await;
        let mut settings = origin.origin();
        settings.host = "localhost".into();
        let (origins, _) = origins();
        assert_eq!(
            fetch_line(&origins, &OriginGroup::of(settings.clone()), get("/")).await,
            "200 [2] \"ok\""
        );
        settings.host = "does-not-exist.invalid".into();
        settings.timeouts.connect = Duration::from_secs(10);
        let line = fetch_line(&origins, &OriginGroup::of(settings), get("/")).await;
        assert!(["resolve", "timeout-connect"].contains(&&*line), "{line}");
    });
}
