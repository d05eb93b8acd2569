//! Several edges as tiers: the edges of a PoP are one cache, a shield is one fetch, and what is passed over costs nobody
//! anything.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use model::change::{Order, What};
use world::edges::{Asked, CountingOrigin, Edges, Got, Hold, Place, ask, crowd, get, reply, wait_until};
use world::play::wait_for_copy;

/// Two edges that are the shield, and three that are one PoP.
const FIVE: [Place; 5] =
    [("ams", "ams-1"), ("ams", "ams-2"), ("fra", "fra-1"), ("fra", "fra-2"), ("fra", "fra-3")];

fn site(origin: &CountingOrigin, more: &str) -> String {
    format!("origin = \"{}\"\n{more}", origin.url())
}

fn text_origin(head: &'static str, body: &'static str) -> CountingOrigin {
    CountingOrigin::start(move |_, stream| reply(stream, head, body.as_bytes()))
}

fn addresses(edges: &Edges, nodes: &[Place]) -> Vec<std::net::SocketAddr> {
    nodes.iter().map(|(_, node)| edges.address(node)).collect()
}

/// An origin that gives parts of a body out.
fn ranged_origin(body: Arc<Vec<u8>>) -> CountingOrigin {
    CountingOrigin::start(move |asked, stream| {
        let (first, last) = asked_range(asked).unwrap_or((0, usize::MAX));
        let last = last.min(body.len() - 1);
        let part = &body[first..=last];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\
             ETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n",
            part.len(),
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(part)
    })
}

/// The first and the last byte of a request's range.
fn asked_range(asked: &Asked) -> Option<(usize, usize)> {
    let (first, last) = asked.field("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().unwrap_or(usize::MAX)))
}

#[track_caller]
fn all_got(answers: &[Got], body: &[u8]) {
    for got in answers {
        assert!(got.status == 200 || got.status == 206, "{}: {}", got.status, got.head);
        assert!(got.is_whole && got.body == body, "{} bytes of {}: {}", got.body.len(), body.len(), got.head);
    }
}

/// The node that owns a key within a PoP: the one whose answer was asked of nobody in it.
fn owner_of(edges: &Edges, nodes: &[&'static str], target: &str) -> &'static str {
    let is_owner = |node: &&&str| {
        let before = edges.metric(node, "perigee_tier_requests_total{hop=\"peer\",end=\"answered\"}");
        edges.get(node, target);
        edges.metric(node, "perigee_tier_requests_total{hop=\"peer\",end=\"answered\"}") == before
    };
    nodes.iter().find(is_owner).copied().expect("one is")
}

#[test]
fn a_cold_object_is_fetched_once_for_all_edges() {
    let hold = Hold::default();
    let held = hold.clone();
    let origin = CountingOrigin::start(move |_, stream| {
        held.wait();
        reply(stream, "Cache-Control: max-age=60\r\n", b"one")
    });
    let edges = Edges::start(&FIVE, &site(&origin, "shield = \"ams\""));
    let addresses = addresses(&edges, &FIVE);
    let answers = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd(&addresses, 300, "/cold", ""));
        wait_until("the origin is asked", || !origin.asked("/cold").is_empty());
        hold.open();
        crowd.join().unwrap()
    });
    all_got(&answers, b"one");
    assert_eq!(origin.asked("/cold").len(), 1, "one fetch for 300 visitors of five edges");
    let asked = &origin.asked("/cold")[0];
    assert!(!asked.head.to_ascii_lowercase().contains("perigee-tier-"), "{}", asked.head);
    assert!(asked.field("cdn-loop").is_some_and(|nodes| nodes.contains("ams-")), "{}", asked.head);
}

#[test]
fn a_range_of_a_large_object_is_fetched_once_for_all_edges() {
    let body: Arc<Vec<u8>> = Arc::new((0..6 << 20).map(|byte: u32| (byte % 251) as u8).collect());
    let origin = ranged_origin(body.clone());
    let edges = Edges::start_with_disks(&FIVE, &site(&origin, "shield = \"ams\""));
    let range = "Range: bytes=1500000-1700000\r\n";
    let answers = crowd(&addresses(&edges, &FIVE), 100, "/large", range);
    all_got(&answers, &body[1_500_000..=1_700_000]);
    assert_eq!(origin.asked("/large").len(), 1);
    // And once more when all have it.
    all_got(&crowd(&addresses(&edges, &FIVE), 20, "/large", range), &body[1_500_000..=1_700_000]);
    assert_eq!(origin.asked("/large").len(), 1);
}

#[test]
fn parts_of_what_is_hot_are_fetched_once_however_busy_their_owner_is() {
    const SLICE: usize = 1 << 20;
    let body: Arc<Vec<u8>> = Arc::new((0..16 * SLICE).map(|byte| (byte % 239) as u8).collect());
    let origin = ranged_origin(body.clone());
    let nodes: [Place; 3] = [("fra", "fra-1"), ("fra", "fra-2"), ("fra", "fra-3")];
    let edges = Edges::start_with_disks(&nodes, &site(&origin, ""));
    let addresses = addresses(&edges, &nodes);
    // Hot on each edge, by parts of one slice that it does not have yet.
    for at in &addresses {
        (0..20).for_each(|_| all_got(&[get(*at, "/large", "Range: bytes=0-9\r\n")], &body[..10]));
    }
    std::thread::scope(|scope| {
        for slice in 0..16 {
            let (addresses, body) = (&addresses, &body);
            scope.spawn(move || {
                let (first, last) = (slice * SLICE + 1000, slice * SLICE + 2000);
                let got = crowd(addresses, 12, "/large", &format!("Range: bytes={first}-{last}\r\n"));
                all_got(&got, &body[first..=last]);
            });
        }
    });
    let mut asked: Vec<_> = origin.asked("/large").iter().filter_map(asked_range).collect();
    asked.sort_unstable();
    assert!(asked.windows(2).all(|pair| pair[0].1 < pair[1].0), "the origin was asked twice: {asked:?}");
}

#[test]
fn a_shield_that_dies_in_the_middle_of_a_body_costs_one_more_fetch_and_no_visitor_anything() {
    let body: Arc<Vec<u8>> = Arc::new((0..1 << 20).map(|byte: u32| (byte % 241) as u8).collect());
    let (content, hold, fetches) = (body.clone(), Hold::default(), AtomicUsize::new(0));
    let held = hold.clone();
    let origin = CountingOrigin::start(move |asked, stream| {
        let first = asked.field("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let first: usize = first.map_or(0, |(first, _)| first.parse().unwrap());
        let part = &content[first..];
        let (status, range) = match first {
            0 => ("200 OK", String::new()),
            _ => {
                let range =
                    format!("Content-Range: bytes {first}-{}/{}\r\n", content.len() - 1, content.len());
                ("206 Partial Content", range)
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}ETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n",
            part.len()
        );
        stream.write_all(head.as_bytes())?;
        let half = part.len() / 2;
        stream.write_all(&part[..half])?;
        // The first never gets to its end in time.
        if fetches.fetch_add(1, Ordering::SeqCst) == 0 {
            held.wait();
        }
        stream.write_all(&part[half..])
    });
    let mut edges = Edges::start(&FIVE, &site(&origin, "shield = \"ams\""));
    let addresses = addresses(&edges, &FIVE[2..]);
    let owner = ["ams-1", "ams-2"];
    let answers = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd(&addresses, 30, "/large", ""));
        wait_until("the shield is asked", || !origin.asked("/large").is_empty());
        let counts = |node: &str| {
            edges
                .edge(node)
                .status()
                .origins
                .iter()
                .any(|at| at.name.starts_with("http") && at.counts.attempts > 0)
        };
        wait_until("the shield has asked", || owner.iter().any(|node| counts(node)));
        let dies = if counts(owner[0]) { owner[0] } else { owner[1] };
        edges.kill(dies);
        let answers = crowd.join().unwrap();
        hold.open();
        answers
    });
    all_got(&answers, &body);
    let asked = origin.asked("/large").len();
    assert!((1..=2).contains(&asked), "{asked} fetches");
}

#[test]
fn an_owner_that_is_gone_is_passed_over_and_no_request_fails() {
    let origin = text_origin("Cache-Control: max-age=60\r\n", "here");
    let nodes: [Place; 4] = [("fra", "fra-1"), ("fra", "fra-2"), ("fra", "fra-3"), ("fra", "fra-4")];
    let mut edges = Edges::start(&nodes, &site(&origin, ""));
    for number in 0..40 {
        edges.get(["fra-1", "fra-2", "fra-3", "fra-4"][number % 4], &format!("/{number}"));
    }
    edges.kill("fra-4");
    for round in 0..3 {
        for number in 0..40 {
            let node = ["fra-1", "fra-2", "fra-3"][(number + round) % 3];
            all_got(&[edges.get(node, &format!("/{number}"))], b"here");
        }
    }
    // Its share was asked for again, and nothing else; once for all.
    let again = (0..40).filter(|number| origin.asked(&format!("/{number}")).len() > 1).count();
    assert!((1..=22).contains(&again), "{again} of 40 were fetched again");
    assert!((0..40).all(|number| origin.asked(&format!("/{number}")).len() <= 2));
}

#[test]
fn an_owner_of_the_shield_that_one_edge_cannot_reach_is_asked_by_the_other_one_of_the_shield() {
    let origin = text_origin("Cache-Control: max-age=60\r\n", "here");
    let nodes: [Place; 4] = [("ams", "ams-1"), ("ams", "ams-2"), ("fra", "fra-1"), ("cdg", "cdg-1")];
    let edges = Edges::start(&nodes, &site(&origin, "shield = \"ams\""));
    let owner = owner_of(&edges, &["ams-1", "ams-2"], "/kept");
    let way = edges.tier_address(owner).to_string();
    // Nobody listens there.
    edges.reconfigure("fra-1", |text| text.replace(&way, "127.0.0.1:1"));
    all_got(&[edges.get("fra-1", "/kept"), edges.get("cdg-1", "/kept")], b"here");
    assert_eq!(origin.asked("/kept").len(), 1);
    // Nor does it matter who asks first.
    for number in 0..20 {
        let target = format!("/{number}");
        all_got(&[edges.get("fra-1", &target), edges.get("cdg-1", &target)], b"here");
        assert_eq!(origin.asked(&target).len(), 1, "{target}");
    }
    let passed_over = edges.metric("fra-1", "perigee_tier_requests_total{hop=\"shield\",end=\"gone\"}");
    assert!(passed_over > 0, "the way was cut");
}

#[test]
fn what_one_edge_owns_is_kept_by_it_for_all() {
    let origin = text_origin("Cache-Control: max-age=60\r\n", "mine");
    let nodes: [Place; 3] = [("fra", "fra-1"), ("fra", "fra-2"), ("fra", "fra-3")];
    let edges = Edges::start(&nodes, &site(&origin, ""));
    let names = ["fra-1", "fra-2", "fra-3"];
    for target in 0..30 {
        names.iter().for_each(|node| drop(edges.get(node, &format!("/{target}"))));
    }
    let held = names.map(|node| edges.edge(node).status().memory.entries);
    assert_eq!(held.iter().sum::<u64>(), 30, "each object once: {held:?}");
    assert!((0..30).all(|target| origin.asked(&format!("/{target}")).len() == 1));
    // What many ask for is kept where they ask.
    let owner = owner_of(&edges, &names, "/hot");
    let other = *names.iter().find(|node| **node != owner).unwrap();
    (0..40).for_each(|_| drop(edges.get(other, "/hot")));
    assert!(
        edges.get(other, "/hot").cache_status().ends_with("detail=fresh"),
        "{}",
        edges.get(other, "/hot").head
    );
    assert_eq!(origin.asked("/hot").len(), 1);
}

#[test]
fn each_hop_says_in_order_what_it_did_and_how_long_it_took() {
    let origin = text_origin("Cache-Control: max-age=60\r\n", "one");
    let edges = Edges::start(&FIVE, &site(&origin, "shield = \"ams\""));
    let names = ["fra-1", "fra-2", "fra-3"];
    let owner = owner_of(&edges, &names, "/a");
    edges.pass(Duration::from_secs(61));
    let other = names.iter().find(|node| **node != owner).unwrap();
    let got = edges.get(other, "/a");
    let status = got.cache_status();
    let places: Vec<_> = ["ams-", &format!("{owner}; "), &format!("{other}; ")]
        .iter()
        .map(|node| status.find(*node).unwrap_or_else(|| panic!("{node} in {status}")))
        .collect();
    assert!(places.is_sorted(), "the origin's side first: {status}");
    let timing = got.field("server-timing").unwrap();
    let hops: Vec<_> = timing.split(", ").map(|hop| hop.split(';').next().unwrap()).collect();
    assert_eq!(hops, ["edge", "peer", "shield", "origin"], "{timing}");
    assert!(!got.head.to_ascii_lowercase().contains("perigee-tier-"), "{}", got.head);
    assert_eq!(got.head.to_ascii_lowercase().matches("x-request-id").count(), 1, "{}", got.head);
}

#[test]
fn nothing_private_is_shared_by_way_of_a_hop() {
    let origin = CountingOrigin::start(|asked, stream| {
        let who = asked.field("cookie").or(asked.field("authorization")).unwrap_or("nobody").to_owned();
        let head = match &*asked.target {
            "/private" => "Cache-Control: private, max-age=60\r\n",
            "/cookie" => "Cache-Control: max-age=60\r\nSet-Cookie: session=theirs\r\n",
            _ => "Cache-Control: max-age=60\r\n",
        };
        reply(stream, head, who.as_bytes())
    });
    let edges = Edges::start(&FIVE, &site(&origin, "shield = \"ams\""));
    for (target, line) in [("/private", "Cookie"), ("/authorized", "Authorization")] {
        for node in ["fra-1", "fra-2", "fra-3", "ams-1"] {
            for who in ["anna", "bert"] {
                let got = edges.get_with(node, target, &format!("{line}: {who}\r\n"));
                assert_eq!(String::from_utf8_lossy(&got.body), who, "{target} at {node}: {}", got.head);
            }
        }
    }
    let cookies: usize = ["fra-1", "fra-2", "fra-3", "ams-1", "ams-2"]
        .iter()
        .map(|node| edges.get(node, "/cookie").head.to_ascii_lowercase().matches("set-cookie").count())
        .sum();
    assert!(
        cookies <= origin.asked("/cookie").len(),
        "{cookies} cookies of {} answers",
        origin.asked("/cookie").len()
    );
}

#[test]
fn freshness_is_counted_from_the_origin_and_not_from_the_last_hop() {
    let origin = text_origin("ETag: \"a\"\r\n", "one");
    let edges = Edges::start(&FIVE, &site(&origin, "ttl = \"60s\"\nshield = \"ams\""));
    edges.get("ams-1", "/a");
    edges.get("ams-2", "/a");
    edges.pass(Duration::from_secs(50));
    let asked = origin.asked("/a").len();
    for node in ["fra-1", "fra-2", "fra-3"] {
        let got = edges.get(node, "/a");
        assert_eq!(got.field("age"), Some("50"), "{}", got.head);
    }
    assert_eq!(origin.asked("/a").len(), asked, "the shield has it");
    edges.pass(Duration::from_secs(11));
    crowd(&addresses(&edges, &FIVE), 50, "/a", "");
    assert_eq!(origin.asked("/a").len(), asked + 1, "60 s are over everywhere, and one asks for all");
}

#[test]
fn an_edge_takes_no_copy_that_is_older_than_a_purge_it_knows() {
    let origin = CountingOrigin::start(|asked, stream| {
        let tag = if asked.target.starts_with("/tagged") { "Surrogate-Key: news\r\n" } else { "" };
        reply(stream, &format!("Cache-Control: max-age=600\r\n{tag}"), b"one")
    });
    let nodes: [Place; 2] = [("ams", "ams-1"), ("fra", "fra-1")];
    let edges = Edges::start(&nodes, &site(&origin, "shield = \"ams\""));
    ["ams-1", "fra-1"].iter().for_each(|node| edges.edge(node).begins_at(10));
    let url = |path: &str| What::Url { site: "site".to_owned(), url: format!("http://site.example{path}") };
    let tag = || What::Tag { tag: "news".to_owned(), site: None };
    for (path, what) in [("/a", url("/a")), ("/tagged", tag())] {
        let asked = |edges: &Edges| {
            edges.get("fra-1", path);
            origin.asked(path).len()
        };
        assert_eq!(asked(&edges), 1, "{path}");
        let at = if path == "/a" { 11 } else { 12 };
        // The shield has not heard of it, and has a copy.
        edges.purge("fra-1", at, what.clone(), false);
        assert_eq!(asked(&edges), 2, "{path}: validated by way of the shield, which is asked to");
        assert_eq!(asked(&edges), 2, "{path}: and kept");
        edges.purge("ams-1", at, what, false);
        edges.get("ams-1", path);
        let now = origin.asked(path).len();
        assert!(now <= 3, "{path}: {now}");
        // From now on both know.
        edges.pass(Duration::from_secs(1));
        assert_eq!(asked(&edges), now, "{path}");
    }
}

#[test]
fn without_a_journal_what_was_purged_here_is_validated_at_the_origin() {
    let origin = text_origin("Cache-Control: max-age=600\r\n", "one");
    let nodes: [Place; 2] = [("ams", "ams-1"), ("fra", "fra-1")];
    let edges = Edges::start(&nodes, &site(&origin, "shield = \"ams\""));
    edges.get("fra-1", "/a");
    edges.get("fra-1", "/b");
    let what = What::Url { site: "site".to_owned(), url: "http://site.example/a".to_owned() };
    edges.edge("fra-1").purge(&[Order { what, soft: false }]).unwrap();
    edges.get("fra-1", "/a");
    assert_eq!(origin.asked("/a").len(), 2, "the shield's copy may be older than the purge");
    edges.get("fra-1", "/b");
    assert_eq!(origin.asked("/b").len(), 1);
}

#[test]
fn what_a_visitor_has_changed_is_validated_at_the_origin() {
    let origin = text_origin("Cache-Control: max-age=600\r\n", "one");
    let nodes: [Place; 2] = [("ams", "ams-1"), ("fra", "fra-1")];
    let edges = Edges::start(&nodes, &site(&origin, "shield = \"ams\""));
    edges.get("fra-1", "/a");
    ask(edges.address("fra-1"), "POST", "/a", "Content-Length: 0\r\n").unwrap();
    edges.get("fra-1", "/a");
    assert_eq!(origin.asked("/a").len(), 3, "GET, POST, GET");
}

#[test]
fn only_edges_of_the_configuration_are_let_in() {
    use std::io::Read;
    use std::net::TcpStream;

    let origin = text_origin("Cache-Control: max-age=600\r\n", "one");
    let nodes: [Place; 2] = [("ams", "ams-1"), ("fra", "fra-1")];
    let edges = Edges::start(&nodes, &site(&origin, "shield = \"ams\""));
    let stranger = world::edges::Authority::default();
    let own = edges.authority();
    for (uri, authority, is_let_in) in [
        ("perigee://edge/fra-1", own, true),
        ("perigee://edge/fra-9", own, false),
        ("perigee://router/fra-1", own, false),
        ("perigee://edge/fra-1", &stranger, false),
    ] {
        let (certificate, key) = authority.sign(uri);
        let tls = world::trusting::client(b"h2");
        let provider = tls.crypto_provider().clone();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(world::authority::any_certificate())
            .with_client_auth_cert(vec![certificate], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let name = rustls::pki_types::ServerName::try_from("ams-1").unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(tls), name).unwrap();
        let socket = TcpStream::connect(edges.tier_address("ams-1")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        let answered = matches!(stream.read(&mut [0; 16]), Ok(count) if count > 0);
        assert_eq!(answered, is_let_in, "{uri}");
    }
}

#[test]
fn a_node_that_is_taken_out_is_answered_nothing_more_on_the_connection_that_it_has() {
    let origin = text_origin("Cache-Control: max-age=600\r\n", "one");
    let nodes: [Place; 2] = [("ams", "ams-1"), ("fra", "fra-1")];
    let edges = Edges::start(&nodes, &site(&origin, "shield = \"ams\""));
    edges.get("fra-1", "/a");
    let answered = "perigee_tier_requests_total{hop=\"shield\",end=\"answered\"}";
    assert_eq!(edges.metric("fra-1", answered), 1);
    edges.reconfigure("ams-1", |text| text.replace("fra-1", "fra-2"));
    all_got(&[edges.get("fra-1", "/b")], b"one");
    assert_eq!(edges.metric("fra-1", answered), 1, "passed over, and the origin asked");
    assert_eq!(edges.metric("fra-1", "perigee_tier_requests_total{hop=\"shield\",end=\"refused\"}"), 1);
}

#[test]
fn a_visitor_cannot_speak_as_an_edge() {
    let origin = text_origin(
        "Cache-Control: max-age=600\r\nPerigee-Tier-Position: 99\r\nPerigee-Tier-Ttl: 9\r\n",
        "one",
    );
    let nodes: [Place; 2] = [("ams", "ams-1"), ("fra", "fra-1")];
    let edges = Edges::start(&nodes, &site(&origin, "shield = \"ams\""));
    let lines = "Perigee-Tier-Hop: shield\r\nPerigee-Tier-Position: now\r\nX-Forwarded-For: 6.6.6.6\r\n";
    for _ in 0..2 {
        let got = edges.get_with("fra-1", "/a", lines);
        assert!(
            got.status == 200 && !got.head.to_ascii_lowercase().contains("perigee-tier-"),
            "{}",
            got.head
        );
    }
    let asked = origin.asked("/a");
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].head.to_ascii_lowercase().contains("perigee-tier-"), "{}", asked[0].head);
    assert_eq!(asked[0].field("x-forwarded-for"), Some("127.0.0.1"));
    let _ = get(edges.address("ams-1"), "/a", lines);
    assert_eq!(origin.asked("/a").len(), 1);
}

#[test]
fn when_all_others_are_gone_the_origin_is_asked() {
    let origin = text_origin("Cache-Control: max-age=600\r\n", "one");
    let mut edges = Edges::start(&FIVE, &site(&origin, "shield = [\"ams\"]"));
    ["ams-1", "ams-2", "fra-2", "fra-3"].iter().for_each(|node| edges.kill(node));
    for number in 0..12 {
        all_got(&[edges.get("fra-1", &format!("/{number}"))], b"one");
    }
    assert!(edges.metric("fra-1", "perigee_tier_requests_total{hop=\"shield\",end=\"gone\"}") > 0);
}

#[test]
fn what_the_origin_refuses_a_hop_is_not_asked_again_by_all() {
    let origin = CountingOrigin::start(|_, _| Err(std::io::ErrorKind::ConnectionReset.into()));
    let edges = Edges::start(&FIVE, &site(&origin, "shield = \"ams\""));
    let got = edges.get_with("fra-1", "/a", "");
    assert_eq!(got.status, 502, "{}", got.head);
    assert!(origin.asked("/a").len() <= 2, "asked {} times", origin.asked("/a").len());
    assert!(!String::from_utf8_lossy(&got.body).contains("ams"), "visitors see less");
}

#[test]
fn when_one_of_four_edges_is_killed_its_share_is_fetched_again_and_no_request_fails() {
    const OBJECTS: usize = 400;
    let origin = text_origin("Cache-Control: max-age=600\r\n", "one");
    let places = [("fra", "fra-1"), ("fra", "fra-2"), ("fra", "fra-3"), ("fra", "fra-4")];
    let mut edges = Edges::start(&places, &site(&origin, ""));
    let all = addresses(&edges, &places);
    // Ranks by Zipf's law with the exponent 0.9.
    let mut sum = 0.0;
    let sums = (1..=OBJECTS).map(|rank| {
        sum += (rank as f64).powf(-0.9);
        sum
    });
    let sums: Vec<f64> = sums.collect();
    let ask_all = |addresses: &[std::net::SocketAddr]| {
        (0..OBJECTS).for_each(|object| {
            let got = get(addresses[object % addresses.len()], &format!("/{object}"), "");
            assert_eq!(got.status, 200, "{object}: {}", got.head);
        });
    };
    ask_all(&all);
    let (asked, is_killed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..6_u64)
            .map(|visitor| {
                let (asked, is_killed, sums, left) = (&asked, &is_killed, &sums, &all[..3]);
                scope.spawn(move || {
                    let mut random = visitor + 1;
                    // A while before, and a while after.
                    let mut after = 0;
                    while after < 200 {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let drawn = (random >> 11) as f64 / (1_u64 << 53) as f64 * sums[OBJECTS - 1];
                        let object = sums.partition_point(|sum| *sum < drawn);
                        let got = get(left[(random >> 7) as usize % 3], &format!("/{object}"), "");
                        assert!(got.status == 200 && got.is_whole, "{object}: {}", got.head);
                        asked.fetch_add(1, Ordering::SeqCst);
                        after += usize::from(is_killed.load(Ordering::SeqCst));
                    }
                })
            })
            .collect();
        wait_until("visitors ask", || {
            asked.load(Ordering::SeqCst) > 300 || visitors.iter().any(|v| v.is_finished())
        });
        edges.kill("fra-4");
        is_killed.store(true, Ordering::SeqCst);
        visitors.into_iter().for_each(|visitor| visitor.join().expect("each is answered"));
    });
    ask_all(&all[..3]);
    let counts: Vec<usize> = (0..OBJECTS).map(|object| origin.asked(&format!("/{object}")).len()).collect();
    let again = counts.iter().filter(|count| **count > 1).count();
    assert!(counts.iter().all(|count| *count <= 3), "{counts:?}");
    // A quarter of them was its own; the rest is where it was.
    assert!((OBJECTS / 8..OBJECTS * 3 / 8).contains(&again), "{again} of {OBJECTS} were fetched again");
}

/// The same text again and again: what encoding makes small.
fn style() -> String {
    "body { color: #204060; margin: 0 auto } ".repeat(600)
}

#[test]
fn who_passes_an_answer_on_passes_on_the_encoded_copy_that_its_owner_has() {
    let origin = CountingOrigin::start(move |_, stream| {
        let head = "Cache-Control: max-age=60\r\nContent-Type: text/css\r\nETag: \"one\"\r\n";
        reply(stream, head, style().as_bytes())
    });
    let places = [("fra", "fra-1"), ("fra", "fra-2")];
    let edges = Edges::start(&places, &site(&origin, ""));
    let owner = owner_of(&edges, &["fra-1", "fra-2"], "/style.css");
    let other = if owner == "fra-1" { "fra-2" } else { "fra-1" };
    let from = |node: &str, lines: &str| edges.get_with(node, "/style.css", lines);
    let zstd = "Accept-Encoding: zstd\r\n";
    // Until its owner has the copy, identity is passed on.
    let first = from(other, zstd);
    assert!(first.field("content-encoding").is_none() && first.body == style().as_bytes(), "{}", first.head);
    wait_for_copy("the owner has a copy", || from(owner, zstd).field("content-encoding") == Some("zstd"));
    let of_owner = from(owner, zstd);
    assert!(of_owner.body.len() < style().len() / 10);
    for _ in 0..3 {
        let got = from(other, zstd);
        assert_eq!((got.status, got.field("content-encoding")), (200, Some("zstd")), "{}", got.head);
        assert_eq!(got.body, of_owner.body);
        assert_eq!(got.field("etag"), of_owner.field("etag"));
        assert!(
            got.field("vary").is_some_and(|names| names.eq_ignore_ascii_case("accept-encoding")),
            "{}",
            got.head
        );
    }
    // Who reads no zstd gets none, also behind somebody who does.
    let plain = from(other, "");
    assert!(plain.field("content-encoding").is_none() && plain.body == style().as_bytes(), "{}", plain.head);
    // Parts are of identity, under its own tag.
    let part = from(other, &format!("{zstd}Range: bytes=5-9\r\n"));
    assert_eq!(
        (part.status, &*part.body, part.field("etag")),
        (206, &b"{ col"[..], Some("\"one\"")),
        "{}",
        part.head
    );
    // Whoever has any of them and asks whether it is still so is told.
    for tag in [of_owner.field("etag").unwrap(), "\"one\""] {
        let got = from(other, &format!("{zstd}If-None-Match: {tag}\r\n"));
        assert_eq!(got.status, 304, "{tag}: {}", got.head);
    }
    assert_eq!(origin.asked("/style.css").len(), 1);
}
