//! HTTP/3 to visitors, by a client that nobody here wrote: the same answers as over any other protocol.

use http::Method;
use world::play;
use world::play::content;

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
