//! What the observer is told of attempts.

use observe::{BuildInfo, ConnectionUse, FetchEnd, OriginFailure};

use super::*;

/// An event without its times, as a line.
fn line(event: &FetchEvent) -> String {
    let connection = match event.connection {
        ConnectionUse::Opened { .. } => "opened",
        ConnectionUse::Reused => "reused",
        ConnectionUse::Missing => "missing",
    };
    let end = match event.end {
        FetchEnd::Answered(status) => status.to_string(),
        FetchEnd::Failed(failure) => failure.as_str().to_owned(),
    };
    let head = if event.first_byte_us.is_some() { " head" } else { "" };
    let retry = if event.retry { " retry" } else { "" };
    format!("{connection} {end} +{} -{}{head}{retry}", event.bytes_sent, event.bytes_received)
}

/// The events of `test`.
async fn events(test: impl AsyncFnOnce(&Origins)) -> Vec<String> {
    let (origins, _) = origins();
    let lines = Rc::new(RefCell::new(Vec::new()));
    let noted = lines.clone();
    let registry = observe::Registry::new(BuildInfo { version: "test", commit: "" });
    origins.report_to(&registry, move |event| noted.borrow_mut().push(line(event)));
    test(&origins).await;
    lines.take()
}

#[test]
fn each_attempt_is_told_when_its_body_is_over() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(OK), Read, send(OK)]]).await;
        let seen = events(async |origins| {
            for path in ["/1", "/2"] {
                fetch_line(origins, &origin.group(), get(path)).await;
            }
        });
        let sent = "GET /1 HTTP/1.1\r\nHost: www.shop.example\r\n\r\n".len();
        let expected = ["opened", "reused"].map(|how| format!("{how} 200 +{sent} -{} head", OK.len()));
        assert_eq!(seen.await, expected);
    });
}

#[test]
fn failed_attempts_and_their_successors_are_told() {
    play(async {
        let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        let first = Scripted::start(vec![vec![Read, send(busy)]]).await;
        let second = Scripted::start(vec![vec![Read, send(OK)]]).await;
        let mut group = first.group();
        group.origins.push(Arc::new(second.origin()));
        let seen = events(async |origins| drop(fetch_line(origins, &group, get("/")).await)).await;
        assert!(seen[0].starts_with("opened 503 ") && seen[1].starts_with("opened 200 "), "{seen:?}");
        assert!(seen[1].ends_with(" retry") && !seen[0].ends_with(" retry"), "{seen:?}");

        let (_socket, nobody) = refusing();
        let nobody = hasty(OriginGroup::of(nobody));
        let seen = events(async |origins| {
            for _ in 0..6 {
                fetch_line(origins, &nobody, get("/")).await;
            }
        });
        let mut expected = vec!["missing connect +0 -0"; 5];
        expected.push("missing breaker +0 -0");
        assert_eq!(seen.await, expected);
    });
}

#[test]
fn an_answer_that_nobody_reads_is_told_as_abandoned() {
    play(async {
        let origin = Scripted::start(vec![vec![Read, send(OK), Hang]]).await;
        let seen = events(async |origins| {
            drop(origins.fetch(&origin.group(), get("/"), |_, _| {}).await.unwrap());
        });
        let seen = seen.await;
        assert!(seen[0].starts_with(&format!("opened {} ", OriginFailure::Abandoned.as_str())), "{seen:?}");
    });
}

#[test]
fn open_and_idle_connections_are_counted_while_they_exist() {
    play(async {
        let gate = Rc::new(Notify::new());
        let origin =
            Scripted::start(vec![vec![Read, Wait(gate.clone()), send(OK), Wait(gate.clone())]]).await;
        let (origins, _) = origins();
        let origins = Rc::new(origins);
        let (fetching, group) = (origins.clone(), origin.group());
        let fetch = tokio::task::spawn_local(async move { fetch_line(&fetching, &group, get("/")).await });
        until("the origin has the request", || origin.seen().len() == 1).await;
        let now = || (origins.shared.report()[0].open, origins.shared.report()[0].idle);
        assert_eq!(now(), (1, 0));
        gate.notify_one();
        fetch.await.unwrap();
        assert_eq!(now(), (1, 1));
        gate.notify_one();
        until("the connection is gone", || now().0 == 0).await;
    });
}
