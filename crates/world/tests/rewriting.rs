//! Pages and style sheets that a rule rewrites: once, before they are stored, with a head that speaks of what is sent. RFC 9110
//! §7.7, §8.8, §14; RFC 9111 §5.2.2.6.

use world::play;
use world::play::Play;

const PAGE: &str =
    "<head><link rel=stylesheet href=/a.css></head><img src=//any.example/b.png><a href=/c.pdf>c</a>";
const MOVED: &str = "<head><link rel=preconnect href=\"https://cdn.example\"><link rel=stylesheet href=https://cdn.example/a.css></head><img src=https://cdn.example/b.png><a href=/c.pdf>c</a>";

fn rewriting() -> Play {
    let mut play = play();
    play.site("rewrite = { host = \"cdn.example\" }");
    play
}

#[test]
fn a_page_is_rewritten_once_and_stored_as_that() {
    let mut play = rewriting();
    play.origin(|o| {
        let reply = o.get("/").expecting("Accept-Encoding", "identity").header("Content-Type", "text/html");
        let reply =
            reply.header("Cache-Control", "max-age=60").header("ETag", "\"x\"").header("Content-MD5", "y");
        let reply = reply.header("Vary", "Accept-Encoding, X-Theme").header("Accept-Ranges", "bytes");
        reply
            .header("Content-Security-Policy", "img-src 'self'")
            .header("Link", "</a.css>; rel=preload; as=style")
            .body(PAGE);
    });
    play.client(|c| {
        for why in ["absent", "fresh"] {
            let answer =
                c.get("/").host("any.example").header("Accept-Encoding", "gzip").expect(200).why(why);
            let answer = answer.body(MOVED).header("etag", "W/\"x\"").no_header("content-md5");
            let answer = answer.header("content-security-policy", "img-src 'self' https://cdn.example");
            answer
                .header("link", "<https://cdn.example/a.css>; rel=preload; as=style")
                .header_has("vary", "X-Theme");
        }
        c.get("/").host("any.example").header("If-None-Match", "W/\"x\"").expect(304);
    });
    play.origin_saw(1);
}

#[test]
fn what_is_confirmed_stays_what_it_was() {
    let mut play = rewriting();
    play.origin(|o| {
        let reply = o.get("/").header("Content-Type", "text/html").header("Cache-Control", "max-age=60");
        reply.header("ETag", "\"x\"").body(PAGE);
        let confirmed = o.get("/").expecting("If-None-Match", "W/\"x\"").reply(304).header("ETag", "\"x\"");
        confirmed.header("Cache-Control", "max-age=60").header("Content-Security-Policy", "img-src 'self'");
    });
    play.client(|c| drop(c.get("/").host("any.example").expect(200).body(MOVED)));
    play.pass_secs(61);
    play.client(|c| {
        let answer = c.get("/").host("any.example").expect(200).body(MOVED).header("etag", "W/\"x\"");
        answer.header("content-security-policy", "img-src 'self' https://cdn.example");
    });
    play.origin_saw(2);
}

#[test]
fn a_style_sheet_that_does_not_move_itself_is_rewritten_too() {
    let mut play = play();
    play.site("rewrite = { host = \"cdn.example\", paths = [\"/img/*\"] }");
    play.origin(|o| {
        o.get("/a.css").header("Content-Type", "text/css; charset=utf-8").body("a{b:url(/img/c.png)}")
    });
    play.client(|c| {
        drop(c.get("/a.css").expect(200).body("a{b:url(https://cdn.example/img/c.png)}"));
    });
}

#[test]
fn what_is_no_page_or_may_not_be_changed_passes_as_it_is() {
    for (name, value, status, kind) in [
        ("X-None", "", 200, "text/plain"),
        ("X-None", "", 200, "text/html; charset=utf-16le"),
        ("X-None", "", 404, "text/html"),
        ("Content-Encoding", "gzip", 200, "text/html"),
        ("Cache-Control", "no-transform", 200, "text/html"),
    ] {
        let mut play = rewriting();
        play.origin(|o| {
            o.get("/")
                .reply(status)
                .header("Content-Type", kind)
                .header("ETag", "\"x\"")
                .header(name, value)
                .body(PAGE)
        });
        play.client(|c| {
            drop(c.get("/").host("any.example").expect(status).body(PAGE).header("etag", "\"x\""))
        });
    }
    let mut play = rewriting();
    play.origin(|o| o.post("/").header("Content-Type", "text/html").body(PAGE));
    play.client(|c| drop(c.post("/").host("any.example").with_body("x").expect(200).body(PAGE)));
}

#[test]
fn a_private_page_is_rewritten_for_its_visitor() {
    let mut play = rewriting();
    play.origin(|o| {
        for _ in 0..2 {
            let reply = o.get("/").header("Content-Type", "text/html").header("Cache-Control", "private");
            reply.header("ETag", "\"x\"").body(PAGE);
        }
    });
    play.client(|c| {
        for _ in 0..2 {
            c.get("/").host("any.example").expect(200).body(MOVED).header("etag", "W/\"x\"");
        }
    });
}

#[test]
fn a_range_of_a_page_is_one_of_what_it_has_become() {
    let mut play = rewriting();
    play.origin(|o| {
        o.get("/").header("Content-Type", "text/html").header("Cache-Control", "max-age=60").file(PAGE);
        o.get("/")
            .header("Content-Type", "text/html")
            .header("Cache-Control", "max-age=60")
            .header("ETag", "\"x\"")
            .body(PAGE);
    });
    play.client(|c| {
        let answer = c.get("/").host("any.example").header("Range", "bytes=0-9").expect_any();
        let status = answer.response().head.status();
        let body = if status == 206 { &MOVED[..10] } else { MOVED };
        answer.body(body);
        c.get("/").host("any.example").expect(200).body(MOVED).why("fresh");
    });
}

#[test]
fn a_part_of_what_was_not_rewritten_is_never_sent() {
    let mut play = rewriting();
    play.origin(|o| {
        for (path, kind, content) in [("/", "text/html", PAGE), ("/b.png", "image/png", "0123456789")] {
            o.get(path)
                .header("Content-Type", kind)
                .header("Cache-Control", "private")
                .always()
                .file(content);
        }
    });
    play.client(|c| {
        let get = |path| c.get(path).host("any.example");
        get("/").expect(200).body(MOVED);
        // Whoever asks for one now is passed on: nobody waits for others.
        for range in ["bytes=0-9", "bytes=50-", "bytes=0-1,5-6"] {
            get("/").header("Range", range).expect(200).body(MOVED).no_header("content-range");
        }
        get("/b.png").expect(200);
        get("/b.png").header("Range", "bytes=2-4").expect(206).body("234");
    });
}

#[test]
fn what_changes_something_is_asked_once() {
    let mut play = rewriting();
    play.origin(|o| {
        let part =
            |head: &str| format!("HTTP/1.1 206 Partial Content\r\nContent-Type: text/html\r\n{head}\r\nab");
        o.post("/")
            .expecting("range", "bytes=0-1")
            .raw(part("Content-Range: bytes 0-1/9\r\nContent-Length: 2\r\n"));
    });
    play.client(|c| {
        c.post("/").host("any.example").header("Range", "bytes=0-1").expect(206).body("ab");
    });
}

#[test]
fn with_other_settings_what_was_stored_is_not_served() {
    let mut play = rewriting();
    play.origin(|o| {
        for _ in 0..2 {
            o.get("/").header("Content-Type", "text/html").header("Cache-Control", "max-age=60").body(PAGE);
        }
    });
    play.client(|c| drop(c.get("/").host("any.example").expect(200).body(MOVED)));
    let other = play.config_text().replace("cdn.example", "other.example");
    play.reconfigure(&other);
    let moved = MOVED.replace("cdn.example", "other.example");
    play.client(|c| drop(c.get("/").host("any.example").expect(200).body(&moved).why("absent")));
    // A purge by URL finds it under the new settings too.
    play.purge("url http://any.example/");
    play.origin(|o| {
        o.get("/").header("Content-Type", "text/html").header("Cache-Control", "max-age=60").body("new")
    });
    play.client(|c| drop(c.get("/").host("any.example").expect(200).body("new")));
}

/// What is stored for all is the same whoever has asked first, and by whichever spelling.
#[test]
fn nobody_puts_anything_into_a_page_by_the_path_that_is_asked_for() {
    const RELATIVE: &str = "<p><img src='logo.png'>";
    let mut play = play();
    play.site("rewrite = { host = \"cdn.example\", paths = [\"/static/*\", \"/index.php/*\"] }");
    let target = "/index.php/'onerror=alert(document.domain)//x";
    play.origin(|o| {
        for target in [target, "/static/x"] {
            let reply = o.get(target).header("Content-Type", "text/html");
            reply.header("Cache-Control", "max-age=60").body(RELATIVE);
        }
    });
    play.client(|c| {
        for why in ["absent", "fresh"] {
            c.get(target).expect(200).why(why).body(RELATIVE);
        }
        for (target, why) in [("/%73tatic/x", "absent"), ("/static/x", "fresh")] {
            c.get(target).expect(200).why(why).body("<p><img src='https://cdn.example/static/logo.png'>");
        }
    });
}

#[test]
fn a_body_that_breaks_off_does_not_end_cleanly() {
    let mut play = rewriting();
    play.origin(|o| {
        let reply = o.get("/").header("Content-Type", "text/html").header("Cache-Control", "max-age=60");
        reply.header("Content-Length", "1000").part(PAGE).close();
    });
    play.client(|c| drop(c.get("/").host("any.example").expect_any().cut()));
}

#[test]
fn what_becomes_of_pages_is_counted() {
    let mut play = rewriting();
    play.origin(|o| {
        o.get("/").header("Content-Type", "text/html").body(PAGE);
        o.get("/b").header("Content-Type", "text/html").header("Content-Encoding", "gzip").body(PAGE);
    });
    play.client(|c| {
        c.get("/").expect(200);
        c.get("/b").expect(200);
    });
    let metrics = play.handle().registry().render();
    for line in ["perigee_rewrites_total{outcome=\"whole\"} 1", "perigee_rewrites_total{outcome=\"left\"} 1"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
}
