//! Kept connections: reuse, staleness, limits, queues.

use super::*;

#[test]
fn requests_one_after_the_other_share_a_connection() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(OK), Read, send(OK), Read, send(OK)]]).await;
        let (origins, _) = origins();
        for path in ["/1", "/2", "/3"] {
            assert_eq!(fetch_line(&origins, &origin.group(), get(path)).await, "200 [2] \"ok\"");
        }
        assert_eq!(origin.connections.get(), 1);
        assert_eq!(origin.asked(), ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /3 HTTP/1.1"]);
    });
}

#[test]
fn a_response_that_nobody_reads_to_its_end_closes_its_connection() {
    play(async {
        let part = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhel";
        let origin = Scripted::start(vec![vec![Read, send(part), ReadHead], vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        let response = origins.fetch(&origin.group(), get("/1"), |_, _| {}).await.unwrap();
        drop(response);
        until("the origin sees the end", || origin.ended.get() == 1).await;
        assert_eq!(fetch_line(&origins, &origin.group(), get("/2")).await, "200 [2] \"ok\"");
        assert_eq!(origin.asked(), ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]);
    });
}

/// The first connection answers one request and closes when the second one comes.
async fn closing_on_the_second() -> Scripted {
    Scripted::start(vec![vec![Read, send(OK), ReadHead], vec![Read, send(OK)], vec![Read, send(OK)]]).await
}

#[test]
fn a_safe_request_on_a_stale_connection_is_sent_again_once() {
    play(async {
        let origin = closing_on_the_second().await;
        let (origins, _) = origins();
        fetch_line(&origins, &origin.group(), get("/1")).await;
        assert_eq!(fetch_line(&origins, &origin.group(), get("/2")).await, "200 [2] \"ok\"");
        assert_eq!(origin.asked(), ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /2 HTTP/1.1"]);
        assert_eq!(origins.shared.report()[0].counts.stale, 1);
        assert_eq!(origins.shared.report()[0].counts.failures, 0);
    });
}

#[test]
fn an_unsafe_request_on_a_stale_connection_is_not_sent_again() {
    play(async {
        let origin = closing_on_the_second().await;
        let (origins, _) = origins();
        fetch_line(&origins, &origin.group(), get("/1")).await;
        assert_eq!(fetch_line(&origins, &origin.group(), request("POST", "/2")).await, "reset");
        assert_eq!(origin.asked(), ["GET /1 HTTP/1.1", "POST /2 HTTP/1.1"]);
    });
}

#[test]
fn a_second_connection_that_ends_too_is_an_error() {
    play(async {
        let origin =
            Scripted::start(vec![vec![Read, send(OK), ReadHead], vec![ReadHead], vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        fetch_line(&origins, &origin.group(), get("/1")).await;
        assert_eq!(fetch_line(&origins, &origin.group(), get("/2")).await, "reset");
        assert_eq!(origin.connections.get(), 2);
    });
}

#[test]
fn a_kept_connection_that_dies_after_a_part_of_the_answer_is_an_error() {
    play(async {
        let origin =
            Scripted::start(vec![vec![Read, send(OK), Read, send("HTTP/1.1 200")], vec![Read, send(OK)]])
                .await;
        let (origins, _) = origins();
        fetch_line(&origins, &origin.group(), get("/1")).await;
        assert_eq!(fetch_line(&origins, &origin.group(), get("/2")).await, "reset");
        assert_eq!(origin.connections.get(), 1);
    });
}

#[test]
fn a_connection_closed_while_idle_is_noticed_before_it_is_used() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(OK)], vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        fetch_line(&origins, &origin.group(), get("/1")).await;
        let pool = origins.pools.borrow().values().next().unwrap().clone();
        until("the connection is gone", || pool.idle_count() == 0).await;
        assert_eq!(fetch_line(&origins, &origin.group(), request("POST", "/2")).await, "200 [2] \"ok\"");
    });
}

#[test]
fn bytes_after_an_answer_are_never_taken_for_the_next_one() {
    play(async {
        let smuggled = format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        let origin = Scripted::start(vec![vec![Read, send(smuggled), Hang], vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        for _ in 0..2 {
            assert_eq!(fetch_line(&origins, &origin.group(), get("/")).await, "200 [2] \"ok\"");
        }
        assert_eq!(origin.connections.get(), 2);
    });
}

#[test]
fn connection_close_is_honoured() {
    play(async {
        let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        let origin = Scripted::start(vec![vec![Read, send(closing), Hang], vec![Read, send(OK)]]).await;
        let (origins, _) = origins();
        for _ in 0..2 {
            assert_eq!(fetch_line(&origins, &origin.group(), get("/")).await, "200 [2] \"ok\"");
        }
        assert_eq!(origin.connections.get(), 2);
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(OK), ReadHead]]).await;
        let mut settings = origin.origin();
        settings.timeouts.keep_alive = Duration::from_millis(20);
        let (origins, _) = origins();
        fetch_line(&origins, &OriginGroup::of(settings), get("/")).await;
        until("the origin sees the end", || origin.ended.get() == 1).await;
    });
}

#[test]
fn no_more_requests_run_at_once_than_connections_are_allowed() {
    play(async {
        let gate = Rc::new(Notify::new());
        let acts = vec![Read, Wait(gate.clone()), send(OK), Read, send(OK)];
        let origin = Scripted::start(vec![acts, vec![Read, send(OK)]]).await;
        let mut settings = origin.origin();
        settings.connections_max = 1;
        settings.timeouts.connect = Duration::from_secs(10);
        let group = OriginGroup::of(settings);
        let (origins, _) = origins();
        let origins = Rc::new(origins);
        let fetches: Vec<_> = (0..2)
            .map(|_| {
                let (origins, group) = (origins.clone(), group.clone());
                tokio::task::spawn_local(async move { fetch_line(&origins, &group, get("/")).await })
            })
            .collect();
        until("one waits", || origins.shared.report().iter().any(|report| report.counts.queued == 1)).await;
        until("one runs", || origin.seen().len() == 1).await;
        gate.notify_one();
        for fetch in fetches {
            assert_eq!(fetch.await.unwrap(), "200 [2] \"ok\"");
        }
        assert_eq!(origin.connections.get(), 1);
    });
}

#[test]
fn the_queue_for_connections_is_bounded_in_length_and_time() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, Hang]]).await;
        let mut settings = origin.origin();
        settings.connections_max = 1;
        settings.timeouts.connect = Duration::from_millis(200);
        let group = OriginGroup::of(settings);
        let (origins, _) = origins();
        let origins = Rc::new(origins);
        let start = || {
            let (origins, group) = (origins.clone(), group.clone());
            tokio::task::spawn_local(async move { fetch_line(&origins, &group, get("/")).await })
        };
        let first = start();
        until("one runs", || origin.seen().len() == 1).await;
        let waiting: Vec<_> = (0..4).map(|_| start()).collect();
        until("four wait", || origins.shared.report()[0].counts.queued == 4).await;
        assert_eq!(start().await.unwrap(), "queue-full");
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), "timeout-queue");
        }
        first.abort();
    });
}

#[test]
fn states_last_as_long_as_a_configuration_names_their_origin() {
    let shared = OriginsShared::new(Clock::manual(Wall::default()), Arc::default(), &[], false);
    let [a, b, c] = ["http://a.example", "http://b.example", "http://c.example"]
        .map(|url| OriginGroup::of(Origin::parse(url).unwrap()));
    assert_eq!(shared.configure([&a, &b]), Vec::<String>::new());
    let kept = shared.group(&b)[0].clone();
    kept.counters.attempts.add();
    shared.configure([&b, &c]);
    let mut names: Vec<_> = shared.report().iter().map(|report| report.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["http://b.example", "http://c.example"]);
    assert!(Arc::ptr_eq(&kept, &shared.group(&b)[0]));
    shared.configure([&c]);
    assert!(kept.is_retired());
}

#[test]
fn a_request_of_an_older_configuration_finds_what_is_known_of_its_origins() {
    let shared = OriginsShared::new(Clock::manual(Wall::default()), Arc::default(), &[], false);
    let [a, b] =
        ["http://a.example", "http://b.example"].map(|url| OriginGroup::of(Origin::parse(url).unwrap()));
    let names = || shared.report().iter().map(|report| report.name.to_string()).collect::<Vec<_>>();
    shared.configure([&a]);
    let older = shared.named([&a]);
    let id = shared.group(&a)[0].id;
    shared.configure([&b]);
    assert_eq!((shared.group(&a)[0].id, names()), (id, vec!["http://b.example".to_owned()]));
    // One that is named again is one of those that are told of, and is probed.
    shared.configure([&a]);
    assert!(!shared.group(&a)[0].is_retired());
    assert_eq!(names(), ["http://a.example"]);
    drop(older);
    shared.configure([&b]);
    assert_eq!(names(), ["http://b.example"]);
}
