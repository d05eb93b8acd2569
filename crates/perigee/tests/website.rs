//! The tools that put a website behind the edge, as commands: `rewrite`, `integrate`, `doctor`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use world::scratch::Scratch;

fn perigee(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perigee")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

const PAGE: &str = "<p><img src=/a.png><img src=b.png><a href=/c>c</a><svg><use href=/d.svg#e /></svg>";

fn site(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    scratch.file("public/index.html", PAGE);
    scratch.file("public/lamps/index.html", PAGE);
    scratch.file("public/lamps/plain.htm", "<p>nothing</p>\r\n");
    scratch.file("public/site.css", "a{b:url(/x.png)} c{d:url(https://www.shop.example/y.png)}");
    scratch.file("public/a.png", [0, 1, 2]);
    scratch
}

const TO: [&str; 4] = ["--cdn", "cdn.shop.example", "--site", "https://www.shop.example"];

/// All files below a directory, with their content.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(root: &Path, at: &Path, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(root, &path, found),
                false => {
                    let name = path.strip_prefix(root).unwrap().display().to_string();
                    found.push((name, fs::read(&path).unwrap()));
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, directory, &mut found);
    found.sort();
    found
}

fn rewrite(path: &Path, more: &[&str]) -> Output {
    let path = path.to_str().unwrap();
    perigee(&[&["rewrite", path], &TO[..], more].concat())
}

#[test]
fn a_directory_is_rewritten_in_its_place_and_a_second_time_changes_nothing() {
    let scratch = site("place");
    let before = files(&scratch.0.join("public"));
    let dry = rewrite(&scratch.0.join("public"), &["--dry-run"]);
    assert!(
        dry.status.success() && text(&dry.stdout).contains("nothing was written"),
        "{}",
        text(&dry.stderr)
    );
    assert_eq!(files(&scratch.0.join("public")), before);
    let done = rewrite(&scratch.0.join("public"), &[]);
    let said = text(&done.stdout);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(said.contains("5 URLs in 3 of 4 pages and style sheets"), "{said}");
    assert!(
        said.contains("browsers refuse this use of a file from another host:\n  /d.svg#e  <use href>"),
        "{said}"
    );
    let after = files(&scratch.0.join("public"));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "nothing is left lying about");
    let lamps = text(&fs::read(scratch.0.join("public/lamps/index.html")).unwrap());
    assert!(lamps.contains("src=https://cdn.shop.example/a.png"), "{lamps}");
    assert!(lamps.contains("src=https://cdn.shop.example/lamps/b.png"), "{lamps}");
    // A sheet that moves takes along what is relative to it.
    let css = text(&fs::read(scratch.0.join("public/site.css")).unwrap());
    assert_eq!(css, "a{b:url(/x.png)} c{d:url(https://cdn.shop.example/y.png)}");
    let again = rewrite(&scratch.0.join("public"), &["--json"]);
    assert_eq!((json(&again)["changed"].as_u64(), files(&scratch.0.join("public"))), (Some(0), after));
}

#[test]
fn a_new_directory_is_whole_or_not_there() {
    let scratch = site("out");
    let before = files(&scratch.0.join("public"));
    let out = scratch.0.join("moved");
    let done = rewrite(&scratch.0.join("public"), &["--out", out.to_str().unwrap(), "--json"]);
    assert_eq!(json(&done)["changed"], 5);
    assert_eq!(files(&scratch.0.join("public")), before);
    let moved = files(&out);
    assert_eq!(moved.len(), before.len());
    assert_eq!(moved[0], before[0], "a.png is copied");
    // What is there already is not written into.
    let refused = rewrite(&scratch.0.join("public"), &["--out", out.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is there already"));
    assert_eq!(files(&out), moved);
    // What cannot be read leaves nothing behind.
    fs::write(scratch.0.join("public/x.html"), "x").unwrap();
    fs::remove_file(scratch.0.join("public/x.html")).unwrap();
    std::os::unix::fs::symlink("nowhere", scratch.0.join("public/x.html")).unwrap();
    let left = rewrite(&scratch.0.join("public"), &["--dry-run"]);
    assert!(left.status.success() && text(&left.stderr).contains("is no file and is left"));
}

/// Names of files are no URLs: what means something else there is encoded.
#[test]
fn directories_may_have_any_name() {
    let scratch = Scratch::new("names");
    let names = ["C#", "100%", "Tom's", "My Photos", "a?b", "a(b)", "R&D", "\u{e9}", "a\\b"];
    for name in names {
        scratch.file(&format!("public/{name}/index.html"), "<p><img srcset='b.png 1x'>");
    }
    let done = rewrite(&scratch.0.join("public"), &[]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    for (name, written) in names.into_iter().zip([
        "C%23",
        "100%25",
        "Tom%27s",
        "My%20Photos",
        "a%3Fb",
        "a%28b%29",
        "R%26D",
        "%C3%A9",
        "a%5Cb",
    ]) {
        let page = text(&fs::read(scratch.0.join(format!("public/{name}/index.html"))).unwrap());
        assert_eq!(page, format!("<p><img srcset='https://cdn.shop.example/{written}/b.png 1x'>"));
    }
}

/// Whoever runs this as root leaves the files to those that they belong to.
#[test]
fn files_stay_with_their_owner() {
    let scratch = site("owner");
    let page = scratch.0.join("public/index.html");
    if std::os::unix::fs::chown(&page, Some(12_345), Some(23_456)).is_err() {
        // Only root may give files away.
        return;
    }
    fs::set_permissions(&page, fs::Permissions::from_mode(0o640)).unwrap();
    let done = rewrite(&scratch.0.join("public"), &[]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let after = fs::metadata(&page).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (12_345, 23_456, 0o640));
}

#[test]
fn what_is_interrupted_leaves_nothing_in_the_site() {
    for out in [false, true] {
        let scratch = Scratch::new("interrupted");
        let page = PAGE.repeat(500);
        for index in 0..300 {
            scratch.file(&format!("public/{index}.html"), &page);
        }
        let (public, moved) = (scratch.0.join("public"), scratch.0.join("moved"));
        let waits_in = if out { &scratch.0 } else { &public };
        let mut command = Command::new(env!("CARGO_BIN_EXE_perigee"));
        command.arg("rewrite").arg(&public).args(TO).stdout(Stdio::null());
        if out {
            command.arg("--out").arg(&moved);
        }
        let mut child = command.spawn().unwrap();
        let is_unfinished = || {
            let names = fs::read_dir(waits_in).unwrap().map(|entry| entry.unwrap().file_name());
            names.into_iter().any(|name| name.to_string_lossy().contains(".perigee-"))
        };
        while !is_unfinished() {
            assert!(child.try_wait().unwrap().is_none(), "it has ended before it was interrupted");
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(!is_unfinished() && !moved.exists());
        let is_old = |(_, content): &(String, Vec<u8>)| content == page.as_bytes();
        assert!(files(&public).iter().all(is_old), "none is replaced");
    }
}

#[test]
fn a_page_by_itself_stands_where_the_site_says() {
    let scratch = Scratch::new("file");
    let page = scratch.file("page.html", PAGE);
    let arguments = ["rewrite", &page, "--cdn", "cdn.shop.example", "--site", "www.shop.example/lamps/"];
    let done = perigee(&[&arguments[..], &["--json"]].concat());
    let urls = json(&done)["files"][0]["urls"].clone();
    assert_eq!(urls[1]["to"], "https://cdn.shop.example/lamps/b.png");
    assert_eq!(urls[2]["left"], "browsers refuse this use of a file from another host");
    for (arguments, message) in [
        (vec!["rewrite", "/nowhere", "--cdn", "a", "--site", "b"], "cannot read /nowhere"),
        (vec!["rewrite", &page, "--cdn", "a/b", "--site", "b"], "no host"),
        (
            vec!["rewrite", env!("CARGO_BIN_EXE_perigee"), "--cdn", "a", "--site", "b"],
            "neither a page nor a style sheet",
        ),
    ] {
        let failed = perigee(&arguments);
        assert_eq!(failed.status.code(), Some(1));
        assert!(text(&failed.stderr).contains(message), "{}", text(&failed.stderr));
    }
}

#[test]
fn the_rules_that_integrate_prints_pass_check() {
    let scratch = Scratch::new("integrate");
    for stack in [
        "django",
        "rails",
        "spree",
        "next",
        "laravel",
        "magento",
        "woocommerce",
        "wordpress",
        "nginx",
        "static",
    ] {
        for cdn in [None, Some("cdn.shop.example")] {
            let mut arguments = vec!["integrate", "--stack", stack, "--site", "www.shop.example", "--rules"];
            arguments.extend(cdn.iter().flat_map(|cdn| ["--cdn", cdn]));
            let rules = perigee(&arguments);
            assert!(rules.status.success(), "{stack}: {}", text(&rules.stderr));
            let file = scratch.file("rules.toml", &rules.stdout);
            let checked = perigee(&["check", &file]);
            let said = text(&checked.stdout);
            assert!(checked.status.success() && said.contains("is good:"), "{stack}: {said}");
        }
    }
    let shown = text(&perigee(&["integrate", "--stack", "django", "--cdn", "cdn.shop.example"]).stdout);
    assert!(shown.contains("STATIC_URL = \"https://cdn.shop.example/static/\""), "{shown}");
    let unknown = perigee(&["integrate", "--stack", "cobol"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("known are django"), "{}", text(&unknown.stderr));
}

/// A site in a thread: answers each request by what `answer` makes of host and path, until the test ends.
fn serve(answer: impl Fn(&str, &str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut head, mut part) = (Vec::new(), [0; 4096]);
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => head.extend_from_slice(&part[..count]),
                }
            }
            let head = text(&head);
            let path = head.split(' ').nth(1).unwrap_or("/");
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
            let _ = stream.write_all(answer(host, path).as_bytes());
        }
    });
    address
}

fn reply(status: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n\r\n{body}")
}

/// What is not good, as `check: about`.
fn findings(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let others = findings.filter(|finding| finding["verdict"] != "good" && finding["verdict"] != "skipped");
    others
        .map(|finding| {
            format!("{} {}", finding["verdict"].as_str().unwrap(), finding["check"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn a_good_page_is_called_good_and_a_bad_one_bad() {
    let good = serve(|_, path| match path {
        "/" => reply("200 OK", "Content-Type: text/html", "<link rel=stylesheet href=/a.css>"),
        "/a.css" => reply("200 OK", "Content-Type: text/css\r\nCache-Control: max-age=600", "a{}"),
        _ => reply("404 Not Found", "", ""),
    });
    let url = format!("http://{good}/");
    let done = perigee(&["doctor", &url, "--no-browser", "--json"]);
    let report = json(&done);
    assert_eq!(findings(&report), Vec::<String>::new(), "{report:#}");
    assert_eq!((done.status.code(), &report["good"]), (Some(0), &Value::Bool(true)));

    let bad = serve(|_, path| match path {
        "/" => reply("302 Found", "Location: /home", ""),
        "/home" => {
            reply("200 OK", "Content-Type: text/html", "<link rel=stylesheet href=/a.css><img src=/none.png>")
        }
        "/a.css" => {
            let lines =
                "Content-Type: text/css\r\nSet-Cookie: a=b\r\nVary: Cookie\r\nCache-Control: no-store";
            reply("200 OK", lines, &"a{b:c}\n".repeat(1000))
        }
        _ => reply("404 Not Found", "", ""),
    });
    let scratch = Scratch::new("doctor");
    let html = scratch.0.join("report.html");
    let url = format!("http://{bad}/");
    let done = perigee(&["doctor", &url, "--no-browser", "--json", "--html", html.to_str().unwrap()]);
    let mut found = findings(&json(&done));
    found.sort();
    assert_eq!(found, ["bad cookies", "bad file", "bad lifetime", "bad vary", "warning compression"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&fs::read(html).unwrap()).contains("<td class=bad>"));
}

#[test]
fn redirects_that_go_round_and_a_host_that_is_refused_are_found() {
    let round = serve(|_, path| {
        let to = if path == "/" { "/a" } else { "/" };
        reply("302 Found", &format!("Location: {to}"), "")
    });
    let done = perigee(&["doctor", &format!("http://{round}/"), "--no-browser", "--json"]);
    assert_eq!(findings(&json(&done)), ["bad redirects"]);

    let direct = serve(|_, _| reply("200 OK", "Content-Type: text/html", "x"));
    let refusing = serve(|_, _| reply("400 Bad Request", "Content-Type: text/html", "DisallowedHost"));
    let (direct, refusing) = (direct.to_string(), refusing.to_string());
    let arguments = ["doctor", "http://www.shop.test/", "--direct", &direct, "--through", &refusing];
    let done = perigee(&[&arguments[..], &["--no-browser"]].concat());
    let said = text(&done.stdout);
    assert!(
        said.contains("400 through the edge, and 200 directly") && said.contains("origin_options"),
        "{said}"
    );
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn a_page_is_looked_at_where_it_is_and_not_where_it_was_asked_for() {
    let moved = serve(|_, path| match path {
        "/" => reply("302 Found", "Location: /en/", ""),
        "/en/" => {
            let page = "<base href=b/><img src=a.png><img src=gone.png><a href=/en/>home</a>";
            reply("200 OK", "Content-Type: text/html", page)
        }
        "/en/b/a.png" => reply("200 OK", "Content-Type: image/png\r\nCache-Control: max-age=600", "a"),
        "/en/b/gone.png" => reply("301 Moved Permanently", "Location: /en/b/a.png", ""),
        _ => reply("404 Not Found", "", ""),
    });
    let done = perigee(&["doctor", &format!("http://{moved}/"), "--no-browser", "--json", "--crawl", "3"]);
    let report = json(&done);
    // What leads on has not been looked at, and counts for nothing.
    assert_eq!(findings(&report), ["warning file"], "{report:#}");
    let said = text(&done.stdout);
    assert!(said.contains("it leads to") && said.contains("nothing is wrong with 1 file\""), "{said}");
    assert_eq!(done.status.code(), Some(0));
}

#[test]
fn only_pages_are_taken_for_pages() {
    let site = serve(|_, path| match path {
        "/" => reply("200 OK", "Content-Type: text/html", "<a href=/a.pdf>a</a><a href=/b>b</a>"),
        "/a.pdf" => reply("200 OK", "Content-Type: application/pdf", "%PDF <img src=/gone.png>"),
        "/b" => reply("200 OK", "Content-Type: text/html; charset=utf-8", "<img src=/gone.png>"),
        _ => reply("404 Not Found", "", ""),
    });
    let done = perigee(&["doctor", &format!("http://{site}/"), "--no-browser", "--json", "--crawl", "2"]);
    let report = json(&done);
    assert_eq!(findings(&report), ["bad file"], "{report:#}");
    let about = |check: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["check"] == check).count()
    };
    assert_eq!(about("mixed-content"), 2, "{report:#}");
    let none = perigee(&["doctor", &format!("http://{site}/a.pdf"), "--no-browser", "--json"]);
    let report = json(&none);
    assert_eq!(findings(&report), ["bad reach"], "{report:#}");
}

#[test]
fn how_many_files_of_a_long_page_are_left_out_is_said() {
    let site = serve(|_, path| match path {
        "/" => {
            let images: String = (1..60).map(|n| format!("<img src=/{n}.png>")).collect();
            let others = "<img src=http://other.test/1.png>".repeat(2);
            reply(
                "200 OK",
                "Content-Type: text/html",
                &format!("<link rel=stylesheet href=/a.css>{images}{others}"),
            )
        }
        "/a.css" => {
            let css = "a{background:url(/1.png)} b{background:url(/more.png)} c{background:url(/more.png)}";
            reply("200 OK", "Content-Type: text/css\r\nCache-Control: max-age=600", css)
        }
        _ => reply("200 OK", "Content-Type: image/png\r\nCache-Control: max-age=600", "x"),
    });
    let report = json(&perigee(&["doctor", &format!("http://{site}/"), "--no-browser", "--json"]));
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == "file");
    let said: Vec<_> = findings.map(|finding| (&finding["verdict"], &finding["found"])).collect();
    let left_out = "its first 60 files are looked at; left out: 1";
    assert!(said.contains(&(&"skipped".into(), &left_out.into())), "{report:#}");
    assert!(said.contains(&(&"good".into(), &"nothing is wrong with 60 files".into())), "{report:#}");
}

#[test]
fn without_a_browser_that_part_is_skipped_by_name() {
    let site = serve(|_, _| reply("200 OK", "Content-Type: text/html", "x"));
    let url = format!("http://{site}/");
    let done = perigee(&["doctor", &url, "--chromium", "/nowhere/chromium"]);
    let said = text(&done.stdout);
    assert!(said.contains("skipped browser") && said.contains("Chromium is not installed"), "{said}");
    assert_eq!(done.status.code(), Some(0));
}

#[test]
fn integrate_looks_at_the_live_page_when_asked() {
    let site = serve(|_, path| match path {
        "/" => reply(
            "200 OK",
            "Content-Type: text/html\r\nContent-Security-Policy: img-src 'self'",
            "<img src=/a.png>",
        ),
        "/a.png" => reply("200 OK", "Content-Type: image/png\r\nCache-Control: max-age=600", "a"),
        _ => reply("404 Not Found", "", ""),
    });
    let url = format!("http://{site}/");
    let done = perigee(&["integrate", "--stack", "rails", "--cdn", "cdn.shop.example", "--check", &url]);
    let said = text(&done.stdout);
    assert!(
        said.contains("config.asset_host") && said.contains("does not allow https://cdn.shop.example"),
        "{said}"
    );
    assert_eq!(done.status.code(), Some(1));
}
