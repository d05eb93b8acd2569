//! Page views, from browsers to what control says of them: what a real one has measured itself is what is kept, to the millisecond, and
//! what nobody can have measured changes nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::{sleep, spawn};
use std::time::Duration;

use browser::{Browser, Options};
use serde_json::Value;
use world::cluster::{Cluster, Shape};

const PERIGEE: &str = env!("CARGO_BIN_EXE_perigee");

const ONE: Shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };

const PAGE: &str = "<!doctype html><html><head><meta charset=utf-8><title>Tea</title></head><body><h1>Tea</h1>\
    <img src=/tea.svg width=600 height=400 alt=tea></body></html>";
const PICTURE: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\" height=\"400\">\
    <rect width=\"600\" height=\"400\" fill=\"green\"/><circle cx=\"300\" cy=\"200\" r=\"150\" fill=\"teal\"/></svg>";

/// An origin of pages with a picture each.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for mut stream in listener.incoming().flatten() {
            spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let is_picture = String::from_utf8_lossy(&head).contains(".svg ");
                    let (kind, body) =
                        if is_picture { ("image/svg+xml", PICTURE) } else { ("text/html", PAGE) };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: max-age=600\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    head.clear();
                }
            });
        }
    });
    address
}

/// Passes on to `target`; what comes back comes so much later.
fn far(target: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pass = |mut from: TcpStream, mut to: TcpStream, delay: Duration| {
        let mut piece = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            sleep(delay);
            if to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(target) else { return };
            let (from, to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            spawn(move || pass(from, to, Duration::ZERO));
            spawn(move || pass(far, near, delay));
        }
    });
    address
}

fn http(edge: SocketAddr, method: &str, target: &str, more: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(edge).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{more}\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn rum(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = cluster.try_perigee(0, &[&["stats", "rum"], arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn by_key<'a>(answer: &'a Value, key: &str) -> &'a Value {
    let mut items = answer["items"].as_array().unwrap().iter();
    items.find(|item| item["key"] == key).unwrap_or_else(|| panic!("no {key} in {answer}"))
}

fn configuration(origin: SocketAddr, rum: &str) -> String {
    format!(
        "[[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://{origin}\"\n{rum}\n\
         [[site.rule]]\npath = \"/pay/*\"\nrum = {{ group = \"checkout\" }}\n\
         [[site.rule]]\npath = \"/private/*\"\nrum = false\n"
    )
}

/// A token for a page view, as the script has it.
fn token(edge: SocketAddr) -> String {
    let (status, script) = http(edge, "GET", "/.perigee/beacon.js", "");
    assert_eq!(status, 200, "{script}");
    script.split_once("?v=").unwrap_or_else(|| panic!("no token in {script}")).1[..58].to_owned()
}

#[test]
fn what_nobody_can_have_measured_changes_nothing() {
    let mut cluster = Cluster::start(Path::new(PERIGEE), ONE);
    let origin = origin();
    cluster.apply(&configuration(origin, "rum = true"));
    let edge = cluster.edges_mut()[0].address;
    let tell = |told: &str| http(edge, "POST", &format!("/.perigee/beacon?v={told}"), "").0;

    // Two that are true.
    let good = token(edge);
    assert_eq!(
        tell(&format!("{good}&ttfb=48.1&fcp=80&lcp=612.4&cls=0.02&load=700&wait=30&p=/tea/green")),
        204
    );
    assert_eq!(tell(&format!("{}&ttfb=52&lcp=640&p=/pay/now", token(edge))), 204);

    let huge = "9".repeat(6_000);
    for (told, status) in [
        // Again, from elsewhere, made up.
        (format!("{good}&ttfb=9000&lcp=9500&p=/tea/green"), 403),
        (format!("{}&ttfb=9000&p=/", "0".repeat(58)), 403),
        (format!("{:058x}&ttfb=9000&p=/", 77), 403),
        ("&ttfb=9000&p=/".to_owned(), 400),
        // Absurd.
        (format!("{}&ttfb=-5&p=/", token(edge)), 400),
        (format!("{}&ttfb=NaN&p=/", token(edge)), 400),
        (format!("{}&ttfb=1e9&p=/", token(edge)), 400),
        (format!("{}&ttfb=99999999&p=/", token(edge)), 400),
        (format!("{}&ttfb=900&lcp=100&p=/", token(edge)), 400),
        (format!("{}&ttfb=100&lcp=59000&p=/", token(edge)), 400),
        (format!("{}&ttfb=100&cls=400&p=/", token(edge)), 400),
        (format!("{}&lcp=400&p=/", token(edge)), 400),
        // Of pages that are not told of, and of none.
        (format!("{}&ttfb=100&p=/private/a", token(edge)), 400),
        (format!("{}&ttfb=100&p=x", token(edge)), 400),
        // Huge.
        (format!("{}&ttfb={huge}&p=/", token(edge)), 400),
        (format!("{}&ttfb=1&p=/{huge}", token(edge)), 400),
    ] {
        assert_eq!(tell(&told), status, "{}", &told[..told.len().min(120)]);
    }
    let content = format!("{}&ttfb=1&lcp=1&p=/", token(edge));
    let (status, _) = http(edge, "GET", &format!("/.perigee/beacon?v={content}"), "");
    assert_eq!(status, 204, "a GET is timed, and not read");

    // One network, again and again: what it says beyond its share is not counted.
    let mut counted = 0;
    let refused = loop {
        match tell(&format!("{}&ttfb=20000&p=/tea/green", token(edge))) {
            204 if counted < 200 => counted += 1,
            status => break status,
        }
    };
    // 64 in two minutes, and as many again where those end meanwhile.
    assert!(refused == 429 && counted <= 126, "{counted} and then {refused}");

    cluster.wait("they are counted", || rum(&cluster, &[])["total"]["views"] == 2 + counted);
    let groups = rum(&cluster, &["--by", "group"]);
    let checkout = by_key(&groups, "checkout");
    assert_eq!(
        (&checkout["views"], &checkout["metrics"]["lcp"]["p75"]),
        (&1.into(), &640.0.into()),
        "{groups}"
    );
    let tea = by_key(&groups, "/tea/");
    assert_eq!(tea["metrics"]["lcp"]["p75"], 612.0, "{groups}");
    assert_eq!(tea["metrics"]["cls"]["p75"], 0.02, "{groups}");
    assert_eq!(groups["items"].as_array().unwrap().len(), 2, "{groups}");
}

#[test]
fn a_script_is_there_for_pages_that_are_told_of_and_waits_for_consent() {
    let mut cluster = Cluster::start(Path::new(PERIGEE), ONE);
    let origin = origin();
    let edge = cluster.edges_mut()[0].address;
    cluster.apply(&configuration(origin, ""));
    let (status, page) = http(edge, "GET", "/tea", "");
    assert!(status == 200 && !page.contains("beacon.js"), "{page}");

    cluster.perigee(&["rollout", "undo"]);
    cluster.apply(&configuration(origin, "rum = { inject = true, consent = true }"));
    let tag = "<title>Tea</title></head><script async src=\"/.perigee/beacon.js\"></script><body>";
    cluster.wait("it is in pages", || http(edge, "GET", "/tea", "").1.contains(tag));
    assert!(http(edge, "GET", "/pay/now", "").1.contains(tag));
    assert!(!http(edge, "GET", "/private/a", "").1.contains("beacon.js"));
    let script = |referer: &str| http(edge, "GET", "/.perigee/beacon.js", referer).1;
    assert!(script("").contains("perigee-consent"));
    assert!(script("Referer: http://shop.example/tea?x=1\r\n").contains("?v="));
    assert_eq!(script("Referer: http://shop.example/private/a\r\n"), "");
}

#[test]
fn what_a_browser_has_measured_at_three_pops_is_what_is_kept() {
    if browser::find().is_none() {
        eprintln!("no Chromium is installed: nothing was tested");
        return;
    }
    const VISITS: usize = 4;
    let mut cluster = Cluster::start(Path::new(PERIGEE), ONE);
    for pop in ["two", "three"] {
        cluster.start_edge_in(pop);
    }
    cluster.apply(&configuration(origin(), "rum = { inject = true }"));
    let edges: Vec<SocketAddr> = cluster.edges().iter().map(|edge| edge.address).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut seen: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for ((pop, edge), delay_ms) in ["one", "two", "three"].into_iter().zip(edges).zip([0, 40, 120]) {
        cluster.wait("the script is in pages", || http(edge, "GET", "/tea", "").1.contains("beacon.js"));
        let relay = far(edge, Duration::from_millis(delay_ms));
        let options = Options { hosts: vec![("shop.example".to_owned(), relay)], ..Options::default() };
        runtime.block_on(async {
            let browser = Browser::launch(&options).await.unwrap();
            for _ in 0..VISITS {
                let mut page = browser.new_page().await.unwrap();
                let visit = page.visit("http://shop.example/tea", Duration::from_secs(60)).await.unwrap();
                assert!(visit.is_complete);
                seen.entry(pop).or_default().push((visit.ttfb_ms.unwrap(), visit.lcp.unwrap().at_ms));
                // The page goes, and tells.
                page.visit("http://shop.example/private/a", Duration::from_secs(60)).await.unwrap();
                page.close().await.unwrap();
            }
            browser.close().await;
        });
    }
    cluster.wait("all are counted", || rum(&cluster, &[])["total"]["views"] == 3 * VISITS);
    let kept = rum(&cluster, &["--by", "pop"]);
    for (pop, visits) in &seen {
        for (metric, mut values) in [
            ("ttfb", visits.iter().map(|visit| visit.0).collect::<Vec<_>>()),
            ("lcp", visits.iter().map(|visit| visit.1).collect::<Vec<_>>()),
        ] {
            values.sort_by(f64::total_cmp);
            let wanted = values[(values.len() * 3).div_ceil(4) - 1];
            let shown = &by_key(&kept, pop)["metrics"][metric];
            let found = shown["p75"].as_f64().unwrap();
            assert!(
                (found - wanted).abs() <= 1.0,
                "{metric} at {pop}: {found} is kept, {wanted} was measured"
            );
            assert_eq!(shown["resolution"], 1.0);
            eprintln!(
                "{metric} at {pop}: {found} ms is kept, the browser's own p75 of {VISITS} is {wanted} ms"
            );
        }
    }
    // And what the dashboard shows.
    let shown = runtime.block_on(async {
        let options = Options { takes_any_certificate: true, ..Options::default() };
        let browser = Browser::launch(&options).await.unwrap();
        let mut page = browser.new_page().await.unwrap();
        let url = format!("{}/dashboard/speed#token={}", cluster.control_urls()[0], cluster.access().1);
        // It asks again and again, so it is never at rest.
        page.visit(&url, Duration::from_secs(4)).await.unwrap();
        let script = "JSON.stringify([...document.querySelectorAll('#speed-by-key tbody tr')].map(row =>
            [row.querySelector('a').textContent, Number(row.querySelector('.speed-lcp').value)]))";
        let mut shown = Vec::new();
        for _ in 0..200 {
            let found = page.evaluate(script).await.unwrap();
            shown = serde_json::from_str::<Vec<(String, f64)>>(found.as_str().unwrap()).unwrap();
            if shown.len() == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        browser.close().await;
        shown
    });
    let lcp = |pop: &str| by_key(&kept, pop)["metrics"]["lcp"]["p75"].as_f64().unwrap();
    for pop in ["one", "two", "three"] {
        assert!(shown.contains(&(pop.to_owned(), lcp(pop))), "{pop} is not in {shown:?}");
    }
}
