use super::*;
use crate::origin::Scheme;

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

fn shop() -> Cors {
    Cors::Allow(Allow {
        origins: AllowedOrigins::List(vec!["https://shop.example".into()]),
        methods: vec!["PUT".into()],
        headers: vec!["X-Token".into()],
        expose: vec!["X-Total".into()],
        credentials: true,
        max_age_secs: 600,
    })
}

#[track_caller]
fn check_received(cors: &Cors, response: &[(&str, &str)], expected: &str) {
    let mut response = fields(response);
    cors.on_receive(&mut response);
    assert_eq!(String::from_utf8_lossy(response.as_block()), expected);
}

#[test]
fn static_types_are_opened_and_do_not_vary_by_origin() {
    check_received(
        &Cors::Static,
        &[("Content-Type", "text/css; charset=utf-8"), ("Vary", "Accept-Encoding, Origin")],
        "Content-Type: text/css; charset=utf-8\r\nAccess-Control-Allow-Origin: *\r\nTiming-Allow-Origin: *\r\nVary: Accept-Encoding\r\n",
    );
    check_received(
        &Cors::Static,
        &[("Content-Type", "FONT/woff2"), ("Vary", "Origin")],
        "Content-Type: FONT/woff2\r\nAccess-Control-Allow-Origin: *\r\nTiming-Allow-Origin: *\r\n",
    );
}

#[test]
fn data_and_answers_with_credentials_are_left_to_the_origin() {
    for content_type in ["application/json", "text/html", "application/xml", "text/plain", ""] {
        check_received(
            &Cors::Static,
            &[("Content-Type", content_type), ("Vary", "Origin")],
            &format!("Content-Type: {content_type}\r\nVary: Origin\r\n"),
        );
    }
    check_received(
        &Cors::Static,
        &[("Content-Type", "text/css"), ("Access-Control-Allow-Credentials", "true"), ("Vary", "Origin")],
        "Content-Type: text/css\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n",
    );
    check_received(&Cors::Off, &[("Content-Type", "text/css")], "Content-Type: text/css\r\n");
}

#[test]
fn a_list_of_origins_is_answered_when_the_response_leaves() {
    let cors = shop();
    let mut response =
        fields(&[("Access-Control-Allow-Origin", "https://other.example"), ("Vary", "origin")]);
    cors.on_receive(&mut response);
    assert_eq!(response.as_block(), b"Access-Control-Expose-Headers: X-Total\r\n");
    assert!(cors.depends_on_origin());

    let mut allowed = response.clone();
    cors.on_deliver(&fields(&[("Origin", "https://shop.example")]), &mut allowed);
    assert_eq!(allowed.get("access-control-allow-origin"), Some(&b"https://shop.example"[..]));
    assert_eq!(allowed.get("access-control-allow-credentials"), Some(&b"true"[..]));
    assert_eq!(allowed.get("vary"), Some(&b"Origin"[..]));

    let mut other = response.clone();
    cors.on_deliver(&fields(&[("Origin", "https://shop.example.evil")]), &mut other);
    assert_eq!(other.get("access-control-allow-origin"), None);
    assert_eq!(other.get("vary"), Some(&b"Origin"[..]));
}

#[test]
fn preflights_are_answered_only_by_rule() {
    let preflight = fields(&[("Origin", "https://shop.example"), ("Access-Control-Request-Method", "PUT")]);
    let request = RequestView {
        method: "OPTIONS",
        scheme: Scheme::Https,
        host: "cdn.example",
        path: "/",
        query: None,
        fields: &preflight,
    };
    assert_eq!(Cors::Static.preflight(&request), None);
    assert_eq!(Cors::Off.preflight(&request), None);
    let answer = shop().preflight(&request).unwrap();
    assert_eq!(answer.get("access-control-allow-methods"), Some(&b"PUT"[..]));
    assert_eq!(answer.get("access-control-allow-headers"), Some(&b"X-Token"[..]));
    assert_eq!(answer.get("access-control-max-age"), Some(&b"600"[..]));
    assert_eq!(shop().preflight(&RequestView { method: "GET", ..request }), None);

    let foreign = fields(&[("Origin", "https://evil.example"), ("Access-Control-Request-Method", "PUT")]);
    let answer = shop().preflight(&RequestView { fields: &foreign, ..request }).unwrap();
    assert_eq!(answer.get("access-control-allow-origin"), None);

    let plain = fields(&[("Origin", "https://shop.example")]);
    assert_eq!(shop().preflight(&RequestView { fields: &plain, ..request }), None);
}
