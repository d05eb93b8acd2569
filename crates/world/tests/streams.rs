//! Streams in both directions, as gRPC has them, and trailers: each part passes as soon as it is there, and either side's
//! end is the other's.

#![expect(clippy::unwrap_used, reason = "a frame that cannot be sent or does not come fails the test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::sync::{Notify, mpsc};
use world::play;
use world::play::{Http2, Play, content, wait_until};

/// A play whose site has an origin that speaks HTTP/2, and a client that does.
fn stage<S: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> S + Send + Sync + 'static,
) -> (Play, Http2) {
    let mut play = play();
    let origin = play.http2_origin(serve);
    play.tls().config(&format!(
        "[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\ncache = false\n\
         origin_options = {{ http2 = true, timeouts = {{ idle = \"30s\" }} }}\n"
    ));
    let client = play.http2();
    (play, client)
}

fn call(path: &str) -> Request<()> {
    Request::post(format!("https://site.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

fn ok() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    lines.iter().map(field).collect()
}

/// The next part of a body; `None` at its end.
async fn part(body: &mut RecvStream) -> Option<Bytes> {
    let part = body.data().await?.unwrap();
    body.flow_control().release_capacity(part.len()).unwrap();
    Some(part)
}

async fn rest(body: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(part) = part(body).await {
        all.extend_from_slice(&part);
    }
    all
}

/// Sends bytes as the other side gives room for them.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await.unwrap().unwrap();
        stream.send_data(bytes.split_to(room.min(bytes.len())), false).unwrap();
    }
}

#[test]
fn a_unary_call_passes_with_the_trailers_of_both_sides() {
    let (_play, client) = stage(|request, mut respond| async move {
        let (head, mut body) = request.into_parts();
        assert_eq!(head.headers.get("te"), Some(&HeaderValue::from_static("trailers")));
        assert_eq!(rest(&mut body).await, b"ping");
        // What says how a message is framed or read is for heads alone.
        assert_eq!(body.trailers().await.unwrap(), Some(fields(&[("x-sum", "7")])));
        let mut body = respond.send_response(ok(), false).unwrap();
        body.send_data("pong".into(), false).unwrap();
        body.send_trailers(fields(&[("grpc-status", "0"), ("set-cookie", "a=b"), ("grpc-message", "fine")]))
            .unwrap();
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut body) = requests.send_request(call("/unary"), false).unwrap();
        body.send_data("ping".into(), false).unwrap();
        body.send_trailers(fields(&[("x-sum", "7"), ("cookie", "a=b"), ("content-length", "4")])).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(rest(&mut body).await, b"pong");
        let wanted = fields(&[("grpc-status", "0"), ("grpc-message", "fine")]);
        assert_eq!(body.trailers().await.unwrap(), Some(wanted));
    });
}

#[test]
fn trailers_follow_content_whose_length_was_told() {
    let (_play, client) = stage(|_, mut respond| async move {
        let mut head = ok();
        head.headers_mut().insert("content-length", HeaderValue::from_static("4"));
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data("pong".into(), false).unwrap();
        body.send_trailers(fields(&[("grpc-status", "0")])).unwrap();
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, _) = requests.send_request(call("/unary"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().get("content-length"), Some(&HeaderValue::from_static("4")));
        let mut body = response.into_body();
        assert_eq!(rest(&mut body).await, b"pong");
        assert_eq!(body.trailers().await.unwrap(), Some(fields(&[("grpc-status", "0")])));
    });
}

#[test]
fn an_answer_of_trailers_only_ends_with_its_head() {
    let (_play, client) = stage(|_, mut respond| async move {
        let mut head = ok();
        head.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
        respond.send_response(head, true).unwrap();
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut body) = requests.send_request(call("/none"), false).unwrap();
        body.send_data("ping".into(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().get("grpc-status"), Some(&HeaderValue::from_static("5")));
        assert!(response.body().is_end_stream(), "no frame follows");
    });
}

#[test]
fn each_side_hears_the_other_while_both_speak() {
    let (_play, client) = stage(|request, mut respond| async move {
        let mut asked = request.into_body();
        let mut body = respond.send_response(ok(), false).unwrap();
        while let Some(word) = part(&mut asked).await {
            body.send_data(word.to_ascii_uppercase().into(), false).unwrap();
        }
        body.send_trailers(fields(&[("grpc-status", "0")])).unwrap();
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/both"), false).unwrap();
        // The head is there before a word has been said.
        let mut body = response.await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            asking.send_data(word.into(), false).unwrap();
            assert_eq!(part(&mut body).await.unwrap(), word.to_ascii_uppercase());
        }
        asking.send_data(Bytes::new(), true).unwrap();
        assert_eq!(part(&mut body).await, None);
        assert_eq!(body.trailers().await.unwrap(), Some(fields(&[("grpc-status", "0")])));
    });
}

#[test]
fn an_upload_goes_on_after_the_head_of_its_answer() {
    let upload = Bytes::from(content(1, 2_000_000));
    let (sent, wanted) = (upload.clone(), upload);
    let (_play, client) = stage(move |request, mut respond| {
        let wanted = wanted.clone();
        async move {
            let mut body = respond.send_response(ok(), false).unwrap();
            assert!(rest(&mut request.into_body()).await == wanted, "another upload came");
            body.send_data("all".into(), false).unwrap();
            body.send_trailers(fields(&[("grpc-status", "0")])).unwrap();
        }
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/up"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        send(&mut asking, sent).await;
        asking.send_data(Bytes::new(), true).unwrap();
        assert_eq!(rest(&mut body).await, b"all");
        assert_eq!(body.trailers().await.unwrap(), Some(fields(&[("grpc-status", "0")])));
    });
}

#[test]
fn a_stream_of_answers_comes_one_by_one() {
    let next = Arc::new(Notify::new());
    let heard = next.clone();
    let (_play, client) = stage(move |_, mut respond| {
        let heard = heard.clone();
        async move {
            let mut body = respond.send_response(ok(), false).unwrap();
            for word in ["one", "two", "three"] {
                body.send_data(word.into(), false).unwrap();
                heard.notified().await;
            }
            body.send_trailers(fields(&[("grpc-status", "0")])).unwrap();
        }
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/down"), false).unwrap();
        asking.send_data("ask".into(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            assert_eq!(part(&mut body).await.unwrap(), word);
            next.notify_one();
        }
        assert_eq!(part(&mut body).await, None);
        assert_eq!(body.trailers().await.unwrap(), Some(fields(&[("grpc-status", "0")])));
    });
}

#[test]
fn an_answer_that_is_over_before_its_request_comes_whole() {
    let (_play, client) = stage(|_, mut respond| async move {
        let mut body = respond.send_response(ok(), false).unwrap();
        body.send_data("enough".into(), false).unwrap();
        body.send_trailers(fields(&[("grpc-status", "8")])).unwrap();
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/early"), false).unwrap();
        asking.send_data("one".into(), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(rest(&mut body).await, b"enough");
        assert_eq!(body.trailers().await.unwrap(), Some(fields(&[("grpc-status", "8")])));
        let reset = std::future::poll_fn(|context| asking.poll_reset(context)).await;
        assert_eq!(reset.unwrap(), Reason::NO_ERROR, "the rest is not wanted");
    });
}

#[test]
fn a_visitor_who_cancels_is_gone_for_the_origin_too() {
    let (told, mut hears) = mpsc::unbounded_channel();
    let (_play, client) = stage(move |request, mut respond| {
        let told = told.clone();
        async move {
            let mut asked = request.into_body();
            let mut body = respond.send_response(ok(), false).unwrap();
            assert_eq!(part(&mut asked).await.unwrap(), "one");
            let reset = std::future::poll_fn(|context| body.poll_reset(context)).await;
            told.send(reset.unwrap()).unwrap();
        }
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/cancel"), false).unwrap();
        asking.send_data("one".into(), false).unwrap();
        let _body = response.await.unwrap().into_body();
        asking.send_reset(Reason::CANCEL);
        assert_eq!(hears.recv().await, Some(Reason::CANCEL));
    });
}

#[test]
fn an_origin_that_breaks_off_is_no_end_for_the_visitor() {
    let (_play, client) = stage(|request, mut respond| async move {
        let mut asked = request.into_body();
        let mut body = respond.send_response(ok(), false).unwrap();
        body.send_data("one".into(), false).unwrap();
        assert_eq!(part(&mut asked).await.unwrap(), "heard");
        body.send_reset(Reason::INTERNAL_ERROR);
    });
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/break"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(part(&mut body).await.unwrap(), "one");
        asking.send_data("heard".into(), false).unwrap();
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn visitors_of_http11_get_trailers_when_they_take_them() {
    let (mut play, _) = stage(|_, mut respond| async move {
        let mut body = respond.send_response(ok(), false).unwrap();
        body.send_data("pong".into(), false).unwrap();
        body.send_trailers(fields(&[("x-sum", "7"), ("content-length", "9")])).unwrap();
    });
    let client = play.visitor();
    let ask = |te: &str| {
        let mut talk = client.connect();
        talk.say(format!("GET / HTTP/1.1\r\nHost: site.example\r\n{te}Connection: close\r\n\r\n"));
        String::from_utf8(talk.rest()).unwrap().to_ascii_lowercase()
    };
    let answer = ask("TE: trailers\r\n");
    assert!(answer.ends_with("\r\n\r\n4\r\npong\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    let answer = ask("");
    assert!(answer.ends_with("\r\n\r\n4\r\npong\r\n0\r\n\r\n"), "{answer}");
}

#[test]
fn origins_of_http11_are_told_who_takes_trailers() {
    let mut play = play();
    play.tls().site("cache = false");
    play.origin(|o| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        o.get("/a").raw(format!("{head}2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"));
        o.get("/b").body("ok");
    });
    play.http2().wait(async |mut requests: SendRequest<Bytes>| {
        let ask = |path: &str| Request::get(format!("https://site.example{path}"));
        let request = ask("/a").header("te", "trailers").body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(rest(&mut body).await, b"ok");
        assert_eq!(body.trailers().await.unwrap(), Some(fields(&[("x-sum", "7")])));
    });
    play.origin_last_saw(|seen| {
        seen.header("TE", "trailers").header("Connection", "TE");
    });
    play.http2().wait(async |mut requests: SendRequest<Bytes>| {
        let request = Request::get("https://site.example/b").body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        assert_eq!(rest(&mut response.await.unwrap().into_body()).await, b"ok");
    });
    play.origin_last_saw(|seen| {
        seen.no_header("TE").no_header("Connection");
    });
}

#[test]
fn silence_of_the_origin_is_no_stall_while_the_request_gets_on() {
    let (mut play, _) = stage(|request, mut respond| async move {
        let mut body = respond.send_response(ok(), false).unwrap();
        assert_eq!(rest(&mut request.into_body()).await.len(), 8);
        body.send_data("all".into(), true).unwrap();
    });
    let config = play.config_text().replace("30s", "2s");
    play.reconfigure(&config);
    let client = play.http2();
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/slow"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        // Longer than the time-out in all, a fraction of it between two words.
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            asking.send_data("x".into(), false).unwrap();
        }
        asking.send_data(Bytes::new(), true).unwrap();
        assert_eq!(rest(&mut body).await, b"all");
    });
}

#[test]
fn silence_of_the_visitor_is_no_stall_once_there_is_an_answer() {
    let (mut play, _) = stage(|request, mut respond| async move {
        let mut body = respond.send_response(ok(), false).unwrap();
        assert_eq!(rest(&mut request.into_body()).await, b"word");
        body.send_data("all".into(), true).unwrap();
    });
    let limits = "[edge.limits]\nbody_stall_timeout = \"1s\"\n\n";
    let config = format!("{limits}{}", play.config_text());
    play.reconfigure(&config);
    let mut talk = play.visitor().connect();
    let ask = "POST /slow HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let head = talk.say(ask).expect_head(200);
    std::thread::sleep(Duration::from_millis(1500));
    talk.say("4\r\nword\r\n0\r\n\r\n").finish(&head).body("all");
}

#[test]
fn an_upload_that_breaks_the_limit_is_its_visitors_fault_also_when_its_answer_has_begun() {
    let (mut play, client) = stage(|request, mut respond| async move {
        let mut asked = request.into_body();
        let mut body = respond.send_response(ok(), false).unwrap();
        body.send_data("one".into(), false).unwrap();
        while let Some(Ok(part)) = asked.data().await {
            asked.flow_control().release_capacity(part.len()).unwrap();
        }
    });
    let config = format!("[edge.limits]\nbody_bytes_max = \"1KiB\"\n\n{}", play.config_text());
    play.reconfigure(&config);
    let told = |play: &mut Play, count: usize| {
        let registry = play.handle().registry().clone();
        let outcome = format!("site=\"site\",outcome=\"error\",why=\"client-gone\"}} {count}\n");
        wait_until(&outcome, || registry.render().contains(&outcome));
        assert!(!registry.render().contains("why=\"origin-protocol\""));
    };
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut asking) = requests.send_request(call("/up"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(part(&mut body).await.unwrap(), "one");
        asking.send_data(content(1, 2000).into(), false).unwrap();
        assert!(body.data().await.unwrap().is_err());
    });
    told(&mut play, 1);
    let mut talk = play.visitor().connect();
    let ask = "POST /up HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = talk.say(ask).expect_head(200);
    talk.expect_part(&head, "one");
    talk.say(format!("7d0\r\n{}\r\n", "x".repeat(2000)));
    talk.rest();
    told(&mut play, 2);
}
