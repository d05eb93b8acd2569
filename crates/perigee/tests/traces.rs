//! Traces of a cluster of real processes, as a collector of OTLP gets them over a real socket: an edge, its shield and the origin are
//! one tree, whatever visitors say.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use prost::Message;
use stats::otlp::{KIND_CLIENT, KIND_INTERNAL, KIND_SERVER, KeyValue, Span, Traces, Value};
use world::cluster::{Cluster, Shape};
use world::edges::{CountingOrigin, get, reply};

const PERIGEE: &str = env!("CARGO_BIN_EXE_perigee");

/// A collector; the spans that it was sent, each with the node that it is of.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, collector) = (listener.local_addr().unwrap(), self.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let collector = collector.clone();
                std::thread::spawn(move || collector.take(stream));
            }
        });
        address
    }

    fn take(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).unwrap() > 2 {
            head.push_str(&line);
            line.clear();
        }
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        for resource in Traces::decode(&plain[..]).unwrap().resources {
            let node = text(&resource.resource.as_ref().unwrap().attributes, "service.instance.id");
            let spans = resource.scopes.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (node.clone(), span)));
        }
        write!(reader.into_inner(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }

    /// The spans of a trace.
    fn trace(&self, id: &str) -> Vec<(String, Span)> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(_, span)| hex(&span.trace_id) == id).cloned().collect()
    }

    /// The trace in which a node has answered a path.
    fn trace_of(&self, node: &str, path: &str) -> Option<String> {
        let all = self.0.lock().unwrap();
        let found = all.iter().find(|(of, span)| of == node && text(&span.attributes, "url.path") == path);
        found.map(|(_, span)| hex(&span.trace_id))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.clone()) {
        Some(Value::Text(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(is_so)) => is_so.to_string(),
        None => String::new(),
    }
}

fn configuration(cluster: &Cluster, origin: &CountingOrigin) -> String {
    let mut text = String::new();
    for (pop, edge) in [("ams", &cluster.edges()[0]), ("fra", &cluster.edges()[1])] {
        let tier = edge.tier.expect("an edge has an address for the others");
        text.push_str(&format!(
            "[[pop]]\nname = \"{pop}\"\nlocation = \"{}\"\nedges = \"192.0.2.{}\"\n\
             [[pop.node]]\nname = \"{}\"\ntier = \"{tier}\"\n",
            pop.to_uppercase(),
            text.len() % 250 + 1,
            edge.name
        ));
    }
    let site = "[[site]]\nname = \"shop\"\ndomains = [\"site.example\"]\nshield = \"ams\"\nttl = \"1h\"\n";
    format!("{text}{site}origin = \"{}\"\n", origin.url())
}

/// One span of a trace, by its name and node.
#[track_caller]
fn one<'a>(spans: &'a [(String, Span)], node: &str, name: &str) -> &'a Span {
    let found: Vec<&Span> =
        spans.iter().filter(|(of, span)| of == node && span.name == name).map(|(_, span)| span).collect();
    assert_eq!(found.len(), 1, "{name} of {node} in {spans:#?}");
    found[0]
}

#[test]
fn edge_shield_and_origin_are_one_tree_whatever_visitors_say() {
    let origin = CountingOrigin::start(|_, stream| reply(stream, "", b"one"));
    let collector = Collector::default();
    let url = format!("http://{}/v1/traces", collector.start());
    let shape = Shape { etcd: 0, controls: 1, edges: 2, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    let log = cluster.directory().join("access.log");
    for (index, believes) in [(0, false), (1, true)] {
        let (url, log) = (url.clone(), log.clone());
        cluster.configure_edge(index, move |text| {
            let log =
                if believes { format!("[edge]\naccess_log = {log:?}\n") } else { "[edge]\n".to_owned() };
            let traces = format!("[edge.traces]\nto = {url:?}\none_in = 1\nbelieve_visitors = {believes}\n");
            format!("{}{traces}", text.replace("[edge]\n", &log))
        });
    }
    cluster.apply(&configuration(&cluster, &origin));
    let [shield, edge] = [0, 1].map(|index: usize| cluster.edges()[index].address);
    let answered = |address: SocketAddr, path: &str, fields: &str| {
        let got = get(address, path, fields);
        assert_eq!((got.status, got.body.as_slice()), (200, &b"one"[..]), "{path}: {}", got.head);
    };
    let came = |what: &str, id: &str, count: usize| {
        cluster.wait(what, || collector.trace(id).len() >= count);
        collector.trace(id)
    };
    let asked = |path: &str| origin.asked(path)[0].field("traceparent").unwrap_or_default().to_owned();

    // A visitor's trace goes through the edge, its shield and the origin.
    let (trace, visitor) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let said = format!("traceparent: 00-{trace}-{visitor}-01\r\ntracestate: shop=1\r\n");
    answered(edge, "/miss", &said);
    let spans = came("all spans of a miss have come", trace, 6);
    assert_eq!(spans.len(), 6, "{spans:#?}");
    let answer = one(&spans, "edge-2", "GET");
    assert_eq!((hex(&answer.parent_span_id).as_str(), answer.kind), (visitor, KIND_SERVER));
    for (key, wanted) in [
        ("url.path", "/miss"),
        ("http.response.status_code", "200"),
        ("perigee.site", "shop"),
        ("perigee.outcome", "miss"),
        ("perigee.why", "absent"),
    ] {
        assert_eq!(text(&answer.attributes, key), wanted, "{key}");
    }
    let hop = one(&spans, "edge-2", "shield");
    assert_eq!((&hop.parent_span_id, hop.kind), (&answer.span_id, KIND_CLIENT));
    assert_eq!(text(&hop.attributes, "perigee.node"), "edge-1");
    let behind = one(&spans, "edge-1", "GET");
    assert_eq!((&behind.parent_span_id, behind.kind), (&hop.span_id, KIND_SERVER));
    assert_eq!(text(&behind.attributes, "perigee.asked_as"), "shield");
    let fetch = one(&spans, "edge-1", "origin fetch");
    assert_eq!((&fetch.parent_span_id, fetch.kind), (&behind.span_id, KIND_CLIENT));
    assert_eq!(text(&fetch.attributes, "perigee.why"), "absent");
    assert_eq!(asked("/miss"), format!("00-{trace}-{}-01", hex(&fetch.span_id)));
    assert_eq!(origin.asked("/miss")[0].field("tracestate"), Some("shop=1"));
    for (node, answer) in [("edge-2", answer), ("edge-1", behind)] {
        let lookup = one(&spans, node, "lookup");
        assert_eq!((&lookup.parent_span_id, lookup.kind), (&answer.span_id, KIND_INTERNAL));
    }
    for (_, span) in &spans {
        assert!(span.start_ns > 0 && span.start_ns <= span.end_ns, "{span:?}");
    }
    cluster.wait("the access log has the trace", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.lines().any(|line| line.contains("/miss") && line.contains(&format!("\"trace\":\"{trace}\"")))
    });

    // A hit is a request and a look, and no more.
    let hit = "1af7651916cd43dd8448eb211c80319c";
    answered(edge, "/miss", &format!("traceparent: 00-{hit}-{visitor}-01\r\n"));
    let spans = came("all spans of a hit have come", hit, 2);
    assert_eq!(text(&one(&spans, "edge-2", "GET").attributes, "perigee.outcome"), "hit");
    assert_eq!(one(&spans, "edge-2", "lookup").parent_span_id, one(&spans, "edge-2", "GET").span_id);

    // One that is not recorded goes on as that.
    let quiet = "2af7651916cd43dd8448eb211c80319c";
    answered(edge, "/quiet", &format!("traceparent: 00-{quiet}-{visitor}-00\r\n"));
    let said = asked("/quiet");
    assert!(said.starts_with(&format!("00-{quiet}-")) && said.ends_with("-00"), "{said}");
    assert!(!said.contains(visitor), "{said}");

    // What is no traceparent begins anew, and so does one that is not believed; the origin hears of neither.
    let good = format!("00-{trace}-{visitor}-01");
    let hostile = [
        ("empty", edge, "traceparent: \r\n".to_owned()),
        ("upper", edge, format!("traceparent: {}\r\n", good.to_uppercase())),
        ("zeros", edge, format!("traceparent: 00-{}-{visitor}-01\r\n", "0".repeat(32))),
        ("future", edge, format!("traceparent: ff-{}\r\n", &good[3..])),
        ("long", edge, format!("traceparent: {good}-{}\r\n", "a".repeat(4000))),
        ("twice", edge, format!("traceparent: {good}\r\ntraceparent: {good}\r\n")),
        ("bytes", edge, "traceparent: 00-\u{e9}\u{1f600}-01\r\n".to_owned()),
        ("stranger", shield, format!("traceparent: {good}\r\ntracestate: shop=1\r\n")),
    ];
    for (name, address, fields) in hostile {
        let path = format!("/{name}");
        answered(address, &path, &fields);
        let said = asked(&path);
        assert!(said.len() == 55 && said.ends_with("-01") && !said.contains(trace), "{name}: {said}");
        assert_eq!(origin.asked(&path)[0].field("tracestate"), None, "{name}");
        let node = if address == edge { "edge-2" } else { "edge-1" };
        cluster.wait("a trace of its own has come", || collector.trace_of(node, &path).is_some());
        assert_eq!(collector.trace_of(node, &path).as_deref(), Some(&said[3..35]), "{name}");
    }
    assert!(collector.trace(quiet).is_empty(), "what is not recorded is not told");
}
