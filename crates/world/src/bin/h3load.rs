//! Loads a server over HTTP/3 and checks every answer: `h3load ADDRESS HOST PATH CONNECTIONS STREAMS SECONDS`.
//!
//! Each of `CONNECTIONS` has `STREAMS` requests under way, for `SECONDS`. The first answer says how many bytes there must be each
//! time. Certificates are not checked. Prints one line: `RESULT requests= bytes= errors= seconds=`; exits with 1 if anything
//! failed.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use quinn::Endpoint;

/// After so many it is no measurement any more.
const ERRORS_MAX: u64 = 100;

const USAGE: &str = "h3load ADDRESS HOST PATH CONNECTIONS STREAMS SECONDS";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, host, path, connections, streams, seconds] = &arguments[..] else {
        eprintln!("usage: {USAGE}");
        std::process::exit(2);
    };
    let number =
        |text: &String| text.parse::<u64>().unwrap_or_else(|error| panic!("{text}: {error}; {USAGE}"));
    let plan = Rc::new(Plan {
        address: address.parse().unwrap_or_else(|error| panic!("{address}: {error}; {USAGE}")),
        host: host.clone(),
        uri: format!("https://{host}{path}"),
        time: Duration::from_secs(number(seconds)),
        answered: Cell::new(0),
        errors: Cell::new(0),
        bytes: Cell::new(None),
        bytes_total: Cell::new(0),
    });
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let local = tokio::task::LocalSet::new();
    let seconds = local.block_on(&runtime, load(plan.clone(), number(connections), number(streams)));
    let (answered, errors, bytes) = (plan.answered.get(), plan.errors.get(), plan.bytes_total.get());
    println!("RESULT requests={answered} bytes={bytes} errors={errors} seconds={seconds:.2}");
    std::process::exit(i32::from(errors > 0 || answered == 0));
}

struct Plan {
    address: SocketAddr,
    host: String,
    uri: String,
    /// For how long requests are begun.
    time: Duration,
    answered: Cell<u64>,
    errors: Cell<u64>,
    /// What the first answer had.
    bytes: Cell<Option<u64>>,
    bytes_total: Cell<u64>,
}

/// Seconds from the moment when all connections stand.
async fn load(plan: Rc<Plan>, connections: u64, streams: u64) -> f64 {
    let mut clients = Vec::new();
    let mut endpoints = Vec::new();
    for _ in 0..connections {
        // A socket each, so that the server's workers share them.
        let endpoint = Endpoint::client((unspecified(plan.address), 0).into()).expect("a socket opens");
        let connecting = endpoint
            .connect_with(world::trusting::quic(), plan.address, &plan.host)
            .expect("a handshake begins");
        let connection = connecting.await.expect("a handshake ends");
        let (mut driver, requests) =
            h3::client::new(h3_quinn::Connection::new(connection)).await.expect("HTTP/3 begins");
        tokio::task::spawn_local(async move { poll_fn(|context| driver.poll_close(context)).await });
        clients.push(requests);
        endpoints.push(endpoint);
    }
    let begin = Instant::now();
    let tasks: Vec<_> = clients
        .iter()
        .flat_map(|client| (0..streams).map(move |_| client.clone()))
        .map(|client| tokio::task::spawn_local(ask(plan.clone(), client, begin + plan.time)))
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    begin.elapsed().as_secs_f64()
}

async fn ask(
    plan: Rc<Plan>,
    mut client: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    deadline: Instant,
) {
    // A server that is gone fails each at once.
    while Instant::now() < deadline && plan.errors.get() < ERRORS_MAX {
        match one(&plan, &mut client).await {
            Ok(bytes) if plan.bytes.get().is_none_or(|wanted| wanted == bytes) => {
                plan.bytes.set(Some(bytes));
                plan.answered.set(plan.answered.get() + 1);
                plan.bytes_total.set(plan.bytes_total.get() + bytes);
            }
            Ok(bytes) => fail(&plan, &format!("{bytes} bytes instead of {:?}", plan.bytes.get())),
            Err(error) => fail(&plan, &error),
        }
    }
}

fn fail(plan: &Plan, error: &str) {
    if plan.errors.get() == 0 {
        eprintln!("h3load: {error}");
    }
    plan.errors.set(plan.errors.get() + 1);
}

/// One request; the bytes of its answer.
async fn one(
    plan: &Plan,
    client: &mut h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
) -> Result<u64, String> {
    let request = http::Request::get(&plan.uri).body(()).map_err(|error| error.to_string())?;
    let mut stream = client.send_request(request).await.map_err(|error| error.to_string())?;
    stream.finish().await.map_err(|error| error.to_string())?;
    let head = stream.recv_response().await.map_err(|error| error.to_string())?;
    if head.status() != 200 {
        return Err(format!("status {}", head.status()));
    }
    let mut bytes = 0;
    while let Some(part) = stream.recv_data().await.map_err(|error| error.to_string())? {
        bytes += part.remaining() as u64;
    }
    Ok(bytes)
}

fn unspecified(address: SocketAddr) -> std::net::IpAddr {
    match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
