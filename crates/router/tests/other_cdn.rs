//! Requests by HTTP where a PoP is another CDN: a running router, asked over sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use model::Snapshot;
use router::server::{Config, Router, Settings};
use serde_json::{Value, json};

/// A router for two PoPs, one of them the other CDN; `own` and `other` are further keys of each.
fn start(own: &str, other: &str, dns: &str) -> Router {
    let text = format!(
        "[[pop]]\nname = \"fra\"\nlocation = \"FRA\"\nedges = [\"192.0.2.1\"]\n{own}\n\
         [[pop]]\nname = \"other\"\ncname = \"shop.other-cdn.example\"\n{other}\n\
         [probe]\nkind = \"off\"\n[dns]\nzone = \"cdn.example\"\n{dns}\n\
         nameservers = {{ \"ns1.cdn.example\" = [\"192.0.2.53\"] }}\n\
         [[site]]\nname = \"shop\"\ndomains = [\"www.shop.example\"]\norigin = \"http://192.0.2.9\"\npops = [\"fra\", \"other\"]\n\
         [[site]]\nname = \"blog\"\ndomains = [\"blog.example\"]\norigin = \"http://192.0.2.9\"\n"
    );
    let parsed = Snapshot::parse_cluster(&text, "cluster.toml");
    let snapshot = parsed.snapshot.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let any = "127.0.0.1:0".parse().unwrap();
    let settings = Settings {
        listen: vec![any],
        admin: None,
        http: vec![any],
        workers: 1,
        config: Config::Told(Box::new(snapshot), 1),
        location: None,
        key: None,
        node: "ns1".to_owned(),
        cookie_secret: [7; 16],
        token: None,
    };
    Router::start(settings, |_| {}).unwrap()
}

/// Asks; status, fields and content.
fn ask(router: SocketAddr, method: &str, target: &str, host: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(router).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

fn location(head: &str) -> Option<&str> {
    head.lines().find_map(|line| line.strip_prefix("Location: "))
}

#[test]
fn a_visitor_by_http_is_redirected_to_the_other_cdns_own_name() {
    let own = Some("http://fra.shop.cdn.example/media/a.mp4?x=1");
    let theirs = Some("http://shop.other-cdn.example/media/a.mp4?x=1");
    for (keys, wanted, why) in [
        (("", "share = 100"), theirs, "share"),
        (("", "last_resort = true"), own, "unlocated"),
        (("drain = true", "last_resort = true"), theirs, "last-resort"),
        (("", "drain = true"), own, "unlocated"),
    ] {
        let router = start(keys.0, keys.1, "https = false");
        let http = router.http[0];
        for (method, target, host, status) in [
            ("GET", "/media/a.mp4?x=1", "www.shop.example", 302),
            ("HEAD", "/r/shop/media/a.mp4?x=1", "ns1.cdn.example", 302),
            ("PUT", "/media/a.mp4?x=1", "www.shop.example:80", 307),
        ] {
            let (found, head, _) = ask(http, method, target, host);
            assert_eq!((found, location(&head)), (status, wanted), "{keys:?} {method} {target}: {head}");
            assert!(head.contains("Cache-Control: private, max-age="), "{head}");
        }
        let (status, _, body) = ask(http, "GET", "/v1/route?site=shop", "ns1.cdn.example");
        let route: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &route["why"]), (200, &json!(why)), "{keys:?}: {route}");
        let cname = if wanted == theirs { json!("shop.other-cdn.example") } else { Value::Null };
        assert_eq!(route["order"][0]["cname"], cname, "{keys:?}: {route}");
        // Who does not name it is never sent there.
        let (_, head, _) = ask(http, "GET", "/a", "blog.example");
        assert_eq!(location(&head), Some("http://fra.blog.cdn.example/a"), "{keys:?}");
        router.stop();
    }
}

#[test]
fn a_name_of_the_other_cdn_that_leads_back_here_is_not_redirected_again() {
    let router = start("", "share = 100", "");
    let http = router.http[0];
    let (_, head, _) = ask(http, "GET", "/a", "www.shop.example");
    assert_eq!(location(&head), Some("https://shop.other-cdn.example/a"));
    for host in ["other.cdn.example", "other.shop.cdn.example", "fra.shop.cdn.example"] {
        let (status, head, _) = ask(http, "GET", "/a", host);
        assert_eq!((status, location(&head)), (421, None), "{host}: {head}");
    }
    router.stop();
}
