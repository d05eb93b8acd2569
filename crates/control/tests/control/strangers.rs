//! Who shows nothing that the cluster has given out: connections, and bodies that are begun. And a node with too many connections.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use control::limits::CONNECTIONS_PER_NODE_MAX;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::stage::{PATIENCE, Stage, TestNode, by_http2, by_http2_of};

/// A body that stops after its first piece, and does not end.
struct Stopped(Option<Bytes>);

impl Body for Stopped {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(Frame::data(piece)))))
    }
}

/// The status of a POST whose body stops after so many bytes.
async fn begin(
    sender: &mut hyper::client::conn::http2::SendRequest<Stopped>,
    path: &str,
    token: &str,
    bytes: usize,
) -> u16 {
    let request = http::Request::post(format!("https://localhost{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Stopped(Some(vec![b' '; bytes].into())));
    sender.ready().await.unwrap();
    let answer = timeout(PATIENCE, sender.send_request(request.unwrap())).await;
    answer.expect("an answer").unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_come_are_given_up_and_many_at_a_time_are_refused() {
    let stage = Stage::start().await;
    let sender = by_http2(&stage).await;
    let mut answers = JoinSet::new();
    for _ in 0..60 {
        let mut sender = sender.clone();
        answers.spawn(async move { begin(&mut sender, "/v1/enroll", "", 9 << 10).await });
    }
    let mut statuses = answers.join_all().await;
    statuses.sort_unstable();
    // There is room for one of them.
    assert_eq!((statuses[0], &statuses[1..]), (408, &[503; 59][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_add_configurations_is_refused_before_the_body_has_come() {
    let stage = Stage::start().await;
    let viewer = stage.token("viewer", "viewer", None).await;
    let mut sender = by_http2(&stage).await;
    let asked = Instant::now();
    assert_eq!(begin(&mut sender, "/v1/configurations", &viewer, 1 << 20).await, 403);
    assert!(asked.elapsed() < Duration::from_secs(5));
    // What is too long is told, too, and in the form of all errors.
    assert_eq!(begin(&mut sender, "/v1/purges", &stage.admin, 3 << 20).await, 413);
    let long = stage.post("/v1/purges", json!({ "tags": ["x".repeat(3 << 20)] })).await;
    assert_eq!((long.status, long.body["error"].as_str()), (413, Some("the body is too long")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_good_token_is_closed_and_one_with_it_stays() {
    let stage = Stage::start().await;
    let mut stranger = by_http2(&stage).await;
    assert_eq!(begin(&mut stranger, "/v1/purges", "pgt_0", 1).await, 401);
    let mut operator = by_http2(&stage).await;
    assert_eq!(begin(&mut operator, "/v1/purges", &stage.admin, 3 << 20).await, 413);
    stage.wait("its end", async |_| stranger.is_closed()).await;
    assert!(!operator.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_takes_its_part_of_the_connections_alone() {
    let stage = Stage::start().await;
    let (greedy, other) = (stage.node("fra-1", "fra").await, stage.node("fra-2", "fra").await);
    // Their feeds would count, too.
    greedy.stop();
    other.stop();
    let ask = async |node: &TestNode| {
        let mut sender =
            by_http2_of::<Full<Bytes>>(&stage, node.identity.client_config(b"h2").unwrap()).await;
        let request =
            http::Request::get("https://localhost/v1/journal?after=0&limit=1").body(Full::default()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        (sender, status, answer.into_body().collect().await.unwrap().to_bytes())
    };
    let mut held = Vec::new();
    let refused = loop {
        match ask(&greedy).await {
            (sender, 200, _) => held.push(sender),
            (_, 503, body) => break String::from_utf8(body.to_vec()).unwrap(),
            (_, status, _) => panic!("{status}"),
        }
        assert!(held.len() <= CONNECTIONS_PER_NODE_MAX);
    };
    assert!(refused.contains("edge \\\"fra-1\\\"") && refused.contains("at most 32 at a time"), "{refused}");
    assert_eq!(ask(&other).await.1, 200);
    let metrics = stage.get("/metrics").await.body.to_string();
    assert!(metrics.contains("limit=\\\"connections_per_node\\\"} 1"), "{metrics}");
    // Who leaves makes room.
    drop(held);
    stage.wait("room", async |_| ask(&greedy).await.1 == 200).await;
}
