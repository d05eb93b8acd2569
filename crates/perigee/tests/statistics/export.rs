//! Statistics for other systems: what clients and the origin have counted is what Prometheus says, asked by its own API, and what a
//! collector of OTLP was told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::read::GzDecoder;
use prost::Message;
use serde_json::Value;
use stats::otlp::{Data, Metrics, Value as Text};
use world::authority::free_address;
use world::cluster::{Cluster, Shape};

use super::{Counted, Origin, PERIGEE};

/// Debian's, with a directory of its own.
struct Prometheus {
    address: SocketAddr,
    command: Vec<String>,
    child: Child,
}

impl Prometheus {
    /// `None`: there is none, which is said.
    fn start(directory: &Path) -> Option<Prometheus> {
        let Ok(help) = Command::new("prometheus").arg("--help").output() else {
            eprintln!("skipped: Prometheus is not installed (Debian's package prometheus)");
            return None;
        };
        let help = [help.stdout, help.stderr].concat();
        let has = |flag: &str| String::from_utf8_lossy(&help).contains(flag);
        if !has("--web.enable-remote-write-receiver") {
            eprintln!("skipped: this Prometheus takes no remote-write; wanted 2.33 or newer");
            return None;
        }
        let (address, data) = (free_address(), directory.join("prometheus"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("prometheus.yml"), "").unwrap();
        let mut command = vec![
            format!("--config.file={}", data.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={address}"),
            "--web.enable-remote-write-receiver".to_owned(),
            "--log.level=error".to_owned(),
        ];
        if has("--web.enable-otlp-receiver") {
            command.push("--web.enable-otlp-receiver".to_owned());
        }
        let child = run(&command);
        Some(Prometheus { address, command, child })
    }

    fn takes_otlp(&self) -> bool {
        self.command.iter().any(|flag| flag == "--web.enable-otlp-receiver")
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn restart(&mut self) {
        self.child = run(&self.command);
    }

    /// What a query finds: by the value of a label, or under nothing without one. `None`: it does not answer yet.
    fn query(&self, query: &str, label: &str) -> Option<Vec<(String, f64)>> {
        let query: String = form(query);
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(stream, "GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let value: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        let found = value["data"]["result"].as_array()?.iter().map(|item| {
            let key = item["metric"][label].as_str().unwrap_or_default().to_owned();
            (key, item["value"][1].as_str().unwrap().parse().unwrap())
        });
        let mut found: Vec<(String, f64)> = found.collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Some(found)
    }

    /// The one number that a query finds; 0 where there is none.
    fn number(&self, query: &str) -> u64 {
        self.query(query, "").and_then(|found| found.first().map(|(_, number)| *number as u64)).unwrap_or(0)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(command: &[String]) -> Child {
    let mut program = Command::new("prometheus");
    program.args(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn form(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A collector of OTLP that asks for patience at first; what it was told last, and what was said as Authorization.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<(Option<Metrics>, String, u64)>>);

impl Told {
    fn collect(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, told) = (listener.local_addr().unwrap(), self.clone());
        std::thread::spawn(move || {
            for (stream, turn) in listener.incoming().flatten().zip(0..) {
                told.take(stream, turn);
            }
        });
        address
    }

    fn take(&self, stream: TcpStream, turn: u64) {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() <= 2 {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            head.push_str(&line);
        }
        assert!(head.starts_with("POST /v1/metrics HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Content-Type: application/x-protobuf\r\n"), "{head}");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut stream = reader.into_inner();
        if turn == 0 {
            return write!(stream, "HTTP/1.1 429 Later\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        let metrics = Metrics::decode(&plain[..]).unwrap();
        let authorization = head.lines().find_map(|line| line.strip_prefix("Authorization: "));
        let mut told = self.0.lock().unwrap();
        *told = (Some(metrics), authorization.unwrap_or_default().to_owned(), told.2 + 1);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }

    /// The sum of a metric over all points in which an attribute is so.
    fn sum(&self, name: &str, key: &str, value: &str) -> i64 {
        let told = self.0.lock().unwrap();
        let metrics = told.0.iter().flat_map(|metrics| &metrics.resources[0].scopes[0].metrics);
        let points = metrics.filter(|metric| metric.name == name).flat_map(|metric| match &metric.data {
            Some(Data::Sum(sum)) => sum.points.as_slice(),
            _ => &[],
        });
        let is_so = |attribute: &stats::otlp::KeyValue| {
            let text = attribute.value.as_ref().and_then(|value| value.value.clone());
            attribute.key == key && text == Some(Text::Text(value.to_owned()))
        };
        points.filter(|point| point.attributes.iter().any(is_so)).filter_map(|point| point.value).sum()
    }
}

fn visit(cluster: &Cluster, counted: &mut Counted, list: &[(&str, usize)]) {
    let edges: Vec<SocketAddr> = cluster.edges().iter().map(|edge| edge.address).collect();
    for (path, times) in list {
        (0..*times).for_each(|turn| counted.get(edges[turn % edges.len()], path));
    }
}

#[test]
fn what_clients_and_the_origin_have_counted_is_what_prometheus_says() {
    let shape = Shape { etcd: 0, controls: 1, edges: 2, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    let Some(mut prometheus) = Prometheus::start(cluster.directory()) else { return };
    let address = prometheus.address;
    let mut export = format!(
        "\n[[export]]\nto = \"http://{address}/api/v1/write\"\nform = \"remote-write\"\nevery = \"1s\"\n\
         by = [\"site\", \"pop\", \"status\", \"why\"]\nlabels = {{ cluster = \"test\" }}\n"
    );
    if prometheus.takes_otlp() {
        export.push_str(&format!(
            "[[export]]\nto = \"http://{address}/api/v1/otlp/v1/metrics\"\nform = \"otlp\"\nevery = \"1s\"\n"
        ));
    } else {
        eprintln!("skipped in part: this Prometheus takes no OTLP; wanted 3.0 or newer");
    }
    cluster.add_to_control(0, &export);
    let origin = Origin::start();
    cluster.apply(&origin.configuration());
    let mut counted = Counted::default();
    let list = [("/a.css", 9), ("/b.css?v=2", 4), ("/private", 5), ("/broken", 3), ("/missing", 2)];
    visit(&cluster, &mut counted, &list);
    let is_so = |prometheus: &Prometheus, counted: &Counted| {
        let sum = |name: &str| prometheus.number(&format!("sum({name}{{cluster=\"test\",control=\"c1\"}})"));
        cluster.wait("Prometheus knows of all requests", || {
            sum("perigee_cluster_requests_total") >= counted.requests
                && sum("perigee_cluster_origin_requests_total")
                    >= origin.requests.load(std::sync::atomic::Ordering::SeqCst)
        });
        for (name, wanted) in [
            ("requests_total{", counted.requests),
            ("hits_total{", counted.hits),
            ("errors_total{", counted.errors),
            ("sent_bytes_total{", counted.bytes),
            ("hit_sent_bytes_total{", counted.hit_bytes),
            ("origin_requests_total{", origin.requests.load(std::sync::atomic::Ordering::SeqCst)),
            ("origin_received_bytes_total{", origin.bytes.load(std::sync::atomic::Ordering::SeqCst)),
            ("first_byte_seconds_count{", counted.requests),
            ("first_byte_seconds_bucket{le=\"+Inf\",", counted.requests),
        ] {
            assert_eq!(
                prometheus.number(&format!("sum(perigee_cluster_{name}cluster=\"test\"}})")),
                wanted,
                "{name}"
            );
        }
        let by_why =
            prometheus.query("sum by (why) (perigee_cluster_requests_total{cluster=\"test\"}) > 0", "why");
        let by_why = by_why.unwrap().into_iter().map(|(why, number)| (why, number as u64));
        assert_eq!(by_why.collect::<std::collections::BTreeMap<_, _>>(), counted.by_why);
    };
    is_so(&prometheus, &counted);
    // Each series began at zero, so that what is in its first sample counts as an increase.
    assert_eq!(
        prometheus.number("sum(min_over_time(perigee_cluster_requests_total{cluster=\"test\"}[1h]))"),
        0
    );
    // What was counted while Prometheus was away is told when it is back.
    prometheus.kill();
    visit(&cluster, &mut counted, &[("/a.css", 6), ("/private", 1)]);
    prometheus.restart();
    is_so(&prometheus, &counted);
    if prometheus.takes_otlp() {
        cluster.wait("Prometheus knows of all requests by OTLP", || {
            prometheus.number("sum(perigee_cluster_requests_total{job=\"perigee\",instance=\"c1\"})")
                == counted.requests
        });
    }
}

#[test]
fn what_clients_have_counted_is_what_a_collector_of_otlp_is_told() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    let told = Told::default();
    let address = told.collect();
    let secret = cluster.directory().join("authorization");
    std::fs::write(&secret, "Bearer secret\n").unwrap();
    let export = format!(
        "\n[[export]]\nto = \"http://{address}/v1/metrics\"\nform = \"otlp\"\nevery = \"1s\"\n\
         authorization_file = {secret:?}\n"
    );
    cluster.add_to_control(0, &export);
    let origin = Origin::start();
    cluster.apply(&origin.configuration());
    let mut counted = Counted::default();
    visit(&cluster, &mut counted, &[("/a.css", 9), ("/private", 5), ("/broken", 3)]);
    let requests = |value: &str| told.sum("perigee.cluster.requests", "status", value) as u64;
    cluster.wait("the collector knows of all requests", || {
        requests("2xx") + requests("5xx") == counted.requests
    });
    assert_eq!(requests("5xx"), counted.errors);
    assert_eq!(told.sum("perigee.cluster.sent", "site", "shop") as u64, counted.bytes);
    assert_eq!(told.sum("perigee.cluster.hits", "pop", "one") as u64, counted.hits);
    assert_eq!(told.0.lock().unwrap().1, "Bearer secret");
}
