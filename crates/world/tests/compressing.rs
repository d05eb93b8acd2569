//! Encoded copies: made behind visitors' backs, byte-exact after decoding, told apart from identity by tag and Vary, never of
//! content that has been replaced. RFC 9110 §8.8.3, §12.5.3, §13, §14; RFC 9111 §4.1, §5.2.2.6.

use std::io::Read;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use world::play;
use world::play::{Answer, Client, DISK_EVERYWHERE, Play, content, wait_for_copy, wait_until};

/// What browsers send.
const BROWSER: &str = "gzip, deflate, br, zstd";

/// A style sheet that is unlike that of another `seed`.
fn css(seed: u64, rules: u64) -> String {
    let rule = |at: u64| {
        let hue = (at * 7919 + seed * 104_729) % 360;
        format!(".box-{at}-{seed} > a:hover {{ color: hsl({hue}, 50%, 40%); margin: {}px auto; }}\n", at % 97)
    };
    (0..rules).map(rule).collect()
}

/// A play whose origin has answered once with `body` as a style sheet under `/a.css`, and what else it says.
fn stored(lines: &[(&str, &str)], body: &str) -> Play {
    let mut play = play();
    play.origin(|o| {
        let mut reply = o.get("/a.css").header("Content-Type", "text/css");
        for (name, value) in lines {
            reply = reply.header(name, value);
        }
        reply.body(body);
    });
    play.client(|c| drop(c.get("/a.css").header("Accept-Encoding", BROWSER).expect(200).body(body)));
    play
}

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=600"), ("ETag", "\"abc\"")];

fn field(answer: &Answer, name: &str) -> Option<String> {
    answer.response().head.field(name)
}

/// The body as it is without its coding.
fn decoded(answer: &Answer) -> Vec<u8> {
    let bytes = &answer.response().body.bytes[..];
    let mut content = Vec::new();
    let read = match field(answer, "content-encoding").as_deref() {
        None => return bytes.to_vec(),
        Some("gzip") => flate2::read::GzDecoder::new(bytes).read_to_end(&mut content),
        Some("br") => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut content),
        Some("zstd") => zstd::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut content)),
        Some(other) => panic!("nobody asked for {other}"),
    };
    read.expect("the body can be decoded");
    content
}

/// Asks until the answer has this entity tag.
#[track_caller]
fn ask_for_tag(client: &Client, target: &str, accept: &str, tag: &str) -> Answer {
    let mut found = None;
    wait_for_copy(&format!("{target} with {tag}"), || {
        let answer = client.get(target).header("Accept-Encoding", accept).expect_any();
        let is_it = field(&answer, "etag").as_deref() == Some(tag);
        found = Some(answer);
        is_it
    });
    found.expect("it was asked")
}

#[test]
fn each_coding_is_byte_exact_and_the_first_request_is_answered_at_once_with_identity() {
    let body = css(1, 400);
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a.css").header("Content-Type", "text/css").header("Content-MD5", "x");
        reply.header("Cache-Control", "max-age=600").header("ETag", "\"abc\"").body(&body);
    });
    let client = play.visitor();
    for why in ["absent", "fresh"] {
        let answer = client.get("/a.css").header("Accept-Encoding", "gzip").expect(200).why(why);
        answer.body(&body).header("etag", "\"abc\"").header("vary", "Accept-Encoding");
    }
    for (accept, coding) in
        [("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("GZIP;q=0.5, deflate", "gzip")]
    {
        let answer = ask_for_tag(&client, "/a.css", accept, &format!("\"abc--{coding}\""));
        let answer = answer.header("content-encoding", coding).header("vary", "Accept-Encoding").whole();
        let answer =
            answer.no_header("content-md5").no_header("accept-ranges").header("content-type", "text/css");
        assert_eq!(decoded(&answer), body.as_bytes());
        let length = answer.response().body.bytes.len();
        assert!(length * 3 < body.len(), "{coding} took {length} bytes");
        let head = client.head("/a.css").header("Accept-Encoding", accept).expect(200);
        head.header("content-length", &length.to_string()).header("etag", &format!("\"abc--{coding}\""));
    }
    for accept in ["identity", "gzip;q=0, br;q=0", "deflate", "gzip;q=0.1, identity"] {
        let answer = client.get("/a.css").header("Accept-Encoding", accept).expect(200).body(&body);
        answer.no_header("content-encoding").header("vary", "Accept-Encoding").header("content-md5", "x");
    }
    client.get("/a.css").expect(200).body(&body).header("vary", "Accept-Encoding").header("etag", "\"abc\"");
    play.origin_saw(1);
}

#[test]
fn what_proves_to_be_hot_is_made_smaller_under_a_tag_of_its_own() {
    let body = css(2, 300);
    let mut play = stored(FRESH, &body);
    let client = play.visitor();
    let quick = ask_for_tag(&client, "/a.css", BROWSER, "\"abc--zstd\"");
    let thorough = ask_for_tag(&client, "/a.css", BROWSER, "\"abc--br2\"");
    assert_eq!(decoded(&thorough), body.as_bytes());
    assert!(thorough.response().body.bytes.len() < quick.response().body.bytes.len());
    let zstd = ask_for_tag(&client, "/a.css", "zstd", "\"abc--zstd2\"");
    assert_eq!(decoded(&zstd), body.as_bytes());
    // What has a quick copy only in a coding that he likes better gets it.
    let gzip = ask_for_tag(&client, "/a.css", "br;q=0.5, gzip", "\"abc--gzip\"");
    assert_eq!(decoded(&gzip), body.as_bytes());
    play.origin_saw(1);
}

#[test]
fn a_tag_of_either_representation_is_confirmed_and_leads_back_to_it() {
    let body = css(3, 100);
    let mut play = stored(FRESH, &body);
    let client = play.visitor();
    ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    for (accept, listed, status, tag) in [
        ("br", "\"abc--br\"", 304, Some("\"abc--br\"")),
        ("br", "\"abc\"", 304, Some("\"abc\"")),
        ("br", "\"x\", \"abc--br\"", 304, Some("\"abc--br\"")),
        ("br", "*", 304, Some("\"abc--br\"")),
        ("identity", "\"abc\"", 304, Some("\"abc\"")),
        // Who cannot decode it must not be told that it is good.
        ("identity", "\"abc--br\"", 200, Some("\"abc\"")),
        ("br", "\"abd--br\"", 200, Some("\"abc--br\"")),
    ] {
        let asking = client.get("/a.css").header("Accept-Encoding", accept).header("If-None-Match", listed);
        let answer = asking.expect(status).header("vary", "Accept-Encoding");
        assert_eq!(field(&answer, "etag").as_deref(), tag, "{accept}, {listed}");
    }
    let asking = client.get("/a.css").header("Accept-Encoding", "br").header("If-Match", "\"abc--br\"");
    asking.expect(200).header("etag", "\"abc--br\"");
    let asking = client.get("/a.css").header("Accept-Encoding", "br").header("If-Match", "\"abd--br\"");
    asking.expect(412);
    play.origin_saw(1);
}

#[test]
fn a_weak_tag_stays_weak_and_no_tag_stays_none() {
    let body = css(4, 100);
    let mut play = stored(&[("Cache-Control", "max-age=600"), ("ETag", "W/\"abc\"")], &body);
    let client = play.visitor();
    ask_for_tag(&client, "/a.css", "gzip", "W/\"abc--gzip\"");
    let asking =
        client.get("/a.css").header("Accept-Encoding", "gzip").header("If-None-Match", "W/\"abc--gzip\"");
    asking.expect(304).header("etag", "W/\"abc--gzip\"");

    let mut play = stored(&[("Cache-Control", "max-age=600")], &body);
    let client = play.visitor();
    wait_for_copy("a copy", || {
        let answer = client.get("/a.css").header("Accept-Encoding", "gzip").expect(200).no_header("etag");
        field(&answer, "content-encoding").is_some()
    });
}

#[test]
fn who_changes_what_he_has_read_as_a_copy_names_it_to_the_origin_by_the_origins_tag() {
    let mut play = stored(FRESH, &css(5, 100));
    play.origin(|o| o.on("PUT", "/a.css").reply(204));
    let client = play.visitor();
    ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    client.ask("PUT", "/a.css").header("If-Match", "\"abc--br\"").with_body("x").expect(204);
    play.origin_last_saw(|seen| assert_eq!(seen.head.field("if-match").as_deref(), Some("\"abc\"")));
}

// --- Ranges ---

#[test]
fn a_range_is_of_identity_and_no_download_goes_on_in_another_coding() {
    let body = css(6, 200);
    let modified = ("Last-Modified", "Fri, 15 Jan 2027 07:00:00 GMT");
    let mut play = stored(&[FRESH[0], FRESH[1], modified], &body);
    let client = play.visitor();
    let copy = ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    let ranged = |if_range: &str| {
        let asking = client.get("/a.css").header("Accept-Encoding", "br").header("Range", "bytes=10-19");
        if if_range.is_empty() { asking } else { asking.header("If-Range", if_range) }
    };
    for if_range in ["", "\"abc\""] {
        let part = ranged(if_range).expect(206).body(&body[10..20]).no_header("content-encoding");
        part.header("etag", "\"abc\"").header("vary", "Accept-Encoding");
    }
    // What begins as the copy is not gone on with, by tag or by date: the whole comes anew.
    for if_range in ["\"abc--br\"", modified.1] {
        let whole = ranged(if_range).expect(200).no_header("content-range");
        assert_eq!(decoded(&whole), body.as_bytes());
    }
    let asking = client.get("/a.css").header("Range", "bytes=10-19").header("If-Range", modified.1);
    asking.expect(206).body(&body[10..20]);
    assert!(copy.response().body.bytes.len() < body.len());
    let asking = client.get("/a.css").header("Accept-Encoding", "br").header("Range", "bytes=0-1,500-501");
    asking.expect(206).header_has("content-type", "multipart/byteranges").header("vary", "Accept-Encoding");
    play.origin_saw(1);
}

// --- New content ---

#[test]
fn a_copy_outlives_a_304_and_not_its_content() {
    let (first, second) = (css(7, 100), css(8, 100));
    let mut play = stored(FRESH, &first);
    let client = play.visitor();
    ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    play.pass_secs(601);
    play.origin(|o| {
        let reply = o.get("/a.css").expecting("If-None-Match", "\"abc\"").reply(304);
        reply.header("Cache-Control", "max-age=600").header("ETag", "\"abc\"").header("X-New", "1");
    });
    let asking = client.get("/a.css").header("Accept-Encoding", "br").header("If-None-Match", "\"abc--br\"");
    asking.expect(304).why("revalidated").header("etag", "\"abc--br\"");
    // At once, without being made again.
    let answer = client.get("/a.css").header("Accept-Encoding", "br").expect(200).header("x-new", "1");
    assert_eq!(decoded(&answer.header("content-encoding", "br").age(0)), first.as_bytes());
    play.pass_secs(601);
    play.origin(|o| {
        let reply = o.get("/a.css").header("Content-Type", "text/css").header("ETag", "\"def\"");
        reply.header("Cache-Control", "max-age=600").body(&second);
    });
    client.get("/a.css").header("Accept-Encoding", "br").expect(200).body(&second).header("etag", "\"def\"");
    let answer = client.get("/a.css").header("Accept-Encoding", "br").expect(200);
    assert_eq!(decoded(&answer), second.as_bytes());
    let answer = ask_for_tag(&client, "/a.css", "br", "\"def--br\"");
    assert_eq!(decoded(&answer), second.as_bytes());
    play.origin_saw(3);
}

#[test]
fn no_copy_of_what_was_purged_is_ever_sent() {
    let mut play = play();
    // Some are purged while they are being encoded, some after; the smallest brotli is never far behind.
    for version in 0..40 {
        let body = css(version, 100);
        play.origin(|o| {
            let reply = o.get("/a.css").header("Content-Type", "text/css").header("ETag", "\"same\"");
            reply.header("Cache-Control", "max-age=600").header("Surrogate-Key", "styles").body(&body);
        });
        let client = play.visitor();
        for ask in 0..(version % 7 * 10 + 2) {
            let accept = ["br", "gzip", BROWSER, "identity"][ask as usize % 4];
            let answer = client.get("/a.css").header("Accept-Encoding", accept).expect(200);
            assert_eq!(String::from_utf8_lossy(&decoded(&answer)), body, "version {version}, request {ask}");
        }
        if version % 2 == 0 {
            play.purge("tag styles");
        } else {
            play.purge("url http://site.example/a.css");
        }
    }
    play.origin_saw(40);
}

#[test]
fn what_is_being_encoded_while_it_is_purged_reaches_no_visitor() {
    const VERSIONS: u64 = 25;
    let body = |version: u64| format!("/* {version} */\n{}", css(version, 60));
    let mut play = play();
    let client = play.visitor();
    // What visitors may get: a purge that overtakes a fetch would make the origin be asked once more than it foresaw.
    let (current, is_over) = (RwLock::new(0), AtomicBool::new(false));
    let script = |play: &mut Play, version: u64| {
        play.origin(|o| {
            let reply = o.get("/a.css").header("Content-Type", "text/css").header("ETag", "\"same\"");
            reply.header("Cache-Control", "max-age=600").body(body(version));
        });
    };
    let ask = |accept: &str| {
        let current = current.read().expect("no visitor fails");
        let answer = client.get("/a.css").header("Accept-Encoding", accept).expect(200);
        let text = String::from_utf8(decoded(&answer)).expect("text");
        let version = text[3..].split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        assert!(text == body(version) && version == *current, "{version} instead of {current}, {accept}");
        (version, field(&answer, "content-encoding").is_some())
    };
    script(&mut play, 0);
    ask("identity");
    std::thread::scope(|scope| {
        for accept in ["gzip", "br", BROWSER] {
            let (ask, is_over) = (&ask, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    ask(accept);
                }
            });
        }
        // Whatever fails must end the others.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for version in 1..=VERSIONS {
                // Every other time, not before there is a copy to be forgotten.
                wait_for_copy("the version, or its copy", || {
                    let (seen, is_copy) = ask("br");
                    seen == version - 1 && (is_copy || version % 2 == 1)
                });
                let mut current = current.write().expect("no visitor fails");
                script(&mut play, version);
                play.purge("url http://site.example/a.css");
                *current = version;
            }
        }));
        is_over.store(true, Ordering::SeqCst);
        done.expect("all versions come");
    });
    play.origin_is_asked(VERSIONS as usize + 1);
}

#[test]
fn a_softly_purged_copy_answers_like_what_it_was_made_of() {
    let body = css(9, 100);
    let mut play = stored(FRESH, &body);
    let client = play.visitor();
    ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    play.soft_purge("everything");
    play.origin(|o| {
        o.get("/a.css").reply(304).header("Cache-Control", "max-age=600").header("ETag", "\"abc\"");
    });
    let stale =
        client.get("/a.css").header("Accept-Encoding", "br").expect(200).why("stale-while-revalidate");
    assert_eq!(decoded(&stale.header("content-encoding", "br")), body.as_bytes());
    play.origin_is_asked(2);
}

// --- What is left alone ---

/// That nothing is encoded, however often it is asked for.
#[track_caller]
fn check_untouched(
    site: &str,
    request: &[(&str, &str)],
    response: &[(&str, &str)],
    body: &[u8],
    varies: bool,
) {
    let mut play = play();
    play.site(site).origin(|o| {
        let mut reply = o.get("/a").always().header("Cache-Control", "max-age=600");
        for (name, value) in response {
            reply = reply.header(name, value);
        }
        reply.body(body);
        let reply = o.get("/probe").header("Content-Type", "text/css").header("Cache-Control", "max-age=600");
        reply.header("ETag", "\"p\"").body(css(10, 50));
    });
    let client = play.visitor();
    for _ in 0..3 {
        let mut asking = client.get("/a").header("Accept-Encoding", BROWSER);
        for (name, value) in request {
            asking = asking.header(name, value);
        }
        let answer = asking.expect_any().body(body);
        let told = field(&answer, "vary").unwrap_or_default().contains("Accept-Encoding");
        assert_eq!(told, varies, "{site} {request:?} {response:?}");
        let coding = response.iter().find(|(name, _)| *name == "Content-Encoding").map(|(_, value)| *value);
        assert_eq!(field(&answer, "content-encoding").as_deref(), coding, "{site} {request:?} {response:?}");
        if !site.contains("compress") && !site.contains("cache") {
            // What had been asked for before this would be there by now.
            ask_for_tag(&client, "/probe", "gzip", "\"p--gzip\"");
        }
    }
    if site.contains("compress") || site.contains("cache") {
        client.get("/probe").expect(200);
    }
}

#[test]
fn what_is_encoded_or_private_or_not_worth_it_is_left_alone() {
    let text = css(11, 50).into_bytes();
    let css = ("Content-Type", "text/css");
    for (site, request, response, body, varies) in [
        ("compress = false", &[][..], &[css][..], &text[..], false),
        ("compress = { types = [\"text/html\"] }", &[], &[css], &text, false),
        ("cache = false", &[], &[css], &text, false),
        ("", &[], &[("Content-Type", "image/png")], &text, false),
        ("", &[], &[], &text, false),
        ("", &[], &[css], &text[..1023], false),
        ("", &[], &[css, ("Content-Encoding", "br")], &text, false),
        ("", &[], &[css, ("Cache-Control", "no-transform")], &text, false),
        ("", &[], &[css, ("Cache-Control", "private")], &text, false),
        ("", &[("Cache-Control", "no-transform")], &[css], &text, true),
        // Noise: no coding makes it smaller.
        ("", &[], &[css], &content(1, 4096), true),
    ] {
        check_untouched(site, request, response, body, varies);
    }
}

#[test]
fn an_origin_that_compresses_goes_on_doing_so() {
    let body = css(12, 100);
    let mut zipped = Vec::new();
    flate2::read::GzEncoder::new(body.as_bytes(), flate2::Compression::fast())
        .read_to_end(&mut zipped)
        .unwrap();
    let mut play = play();
    play.origin(|o| {
        for (accept, coding, content) in
            [("zstd, br, gzip", Some("gzip"), &zipped[..]), ("identity", None, body.as_bytes())]
        {
            let reply = o.get("/a.css").expecting("Accept-Encoding", accept).header("ETag", "\"abc\"");
            let reply = reply.header("Cache-Control", "max-age=600").header("Content-Type", "text/css");
            let reply = reply.header("Vary", "Accept-Encoding");
            match coding {
                Some(coding) => reply.header("Content-Encoding", coding).body(content),
                None => reply.body(content),
            };
        }
    });
    let client = play.visitor();
    for accept in [BROWSER, "identity", BROWSER, "identity"] {
        let answer = client.get("/a.css").header("Accept-Encoding", accept).expect(200);
        let answer = answer.header("vary", "Accept-Encoding").header("etag", "\"abc\"");
        assert_eq!(field(&answer, "content-encoding").is_some(), accept == BROWSER);
        assert_eq!(decoded(&answer), body.as_bytes());
    }
    play.origin_saw(2);
}

#[test]
fn error_pages_are_compressed_like_others() {
    let body = css(13, 50);
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/gone").reply(404).header("Content-Type", "text/html").header("ETag", "\"e\"");
        reply.header("Cache-Control", "max-age=600").body(&body);
    });
    let client = play.visitor();
    let answer = ask_for_tag(&client, "/gone", "br", "\"e--br\"").status(404);
    assert_eq!(decoded(&answer), body.as_bytes());
    play.origin_saw(1);
}

#[test]
fn a_new_configuration_decides_anew_what_is_compressed() {
    let body = css(14, 50);
    let mut play = stored(FRESH, &body);
    let client = play.visitor();
    ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    let config = play.config_text();
    play.reconfigure(&format!("{config}compress = false\n"));
    wait_until("the new configuration", || {
        let answer = client.get("/a.css").header("Accept-Encoding", "br").expect(200);
        field(&answer, "vary").is_none() && decoded(&answer) == body.as_bytes()
    });
    play.reconfigure(&format!("{config}compress = {{ encodings = [\"gzip\"] }}\n"));
    let answer = ask_for_tag(&client, "/a.css", BROWSER, "\"abc--gzip\"");
    assert_eq!(decoded(&answer), body.as_bytes());
    play.origin_saw(1);
}

// --- Bodies and disks ---

#[test]
fn long_bodies_are_encoded_whole_wherever_they_lie() {
    // Contiguous, in pages, in several blocks.
    for rules in [100, 5_000, 30_000] {
        let body = css(15, rules);
        let mut play = play();
        play.origin(|o| {
            let reply = o.get("/a.css").header("Content-Type", "text/css").header("ETag", "\"abc\"");
            reply.header("Cache-Control", "max-age=600").body(&body);
        });
        let client = play.visitor();
        let answer = client.get("/a.css").header("Accept-Encoding", "zstd").expect(200).body(&body);
        if std::env::var_os(DISK_EVERYWHERE).is_some() && body.len() > 1 << 20 {
            // In slices.
            continue;
        }
        drop(answer.header("vary", "Accept-Encoding"));
        for coding in ["zstd", "gzip"] {
            let answer = ask_for_tag(&client, "/a.css", coding, &format!("\"abc--{coding}\""));
            assert_eq!(decoded(&answer), body.as_bytes());
        }
    }
}

/// The value of a series of the metrics.
fn metric(play: &mut Play, series: &str) -> f64 {
    let text = play.handle().registry().render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn copies_outlive_a_restart_with_a_disk() {
    let body = css(16, 200);
    let mut play = play();
    play.disk("16MiB").origin(|o| {
        let reply = o.get("/a.css").header("Content-Type", "text/css").header("ETag", "\"abc\"");
        reply.header("Cache-Control", "max-age=600").body(&body);
    });
    let client = play.visitor();
    ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    let made = "perigee_copies_made_total{coding=\"br\",effort=\"quick\"}";
    assert_eq!(metric(&mut play, made), 1.0);
    play.written().restart();
    let client = play.visitor();
    let answer = ask_for_tag(&client, "/a.css", "br", "\"abc--br\"");
    assert_eq!(decoded(&answer), body.as_bytes());
    play.origin_saw(1);
    assert_eq!(metric(&mut play, made), 0.0, "it was read from disk");
}

#[test]
fn the_same_content_under_several_keys_is_encoded_once() {
    let body = css(17, 200);
    let mut play = play();
    play.origin(|o| {
        for target in ["/a.css", "/a.css?v=2"] {
            let reply = o.get(target).header("Content-Type", "text/css").header("ETag", "\"abc\"");
            reply.header("Cache-Control", "max-age=600").body(&body);
        }
    });
    let client = play.visitor();
    for target in ["/a.css", "/a.css?v=2"] {
        let answer = ask_for_tag(&client, target, "br", "\"abc--br\"");
        assert_eq!(decoded(&answer), body.as_bytes());
    }
    assert_eq!(metric(&mut play, "perigee_copies_made_total{coding=\"br\",effort=\"quick\"}"), 1.0);
    wait_until("both to be counted", || {
        metric(&mut play, "perigee_encoded_responses_total{site=\"site\",coding=\"br\"}") == 2.0
    });
    let saved = metric(&mut play, "perigee_saved_body_bytes_total{site=\"site\"}");
    assert!(saved > body.len() as f64, "{saved}");
}
