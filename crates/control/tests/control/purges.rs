use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use journal::memory::{Faults, Memory};
use model::change::receipt_signed;
use serde_json::{Value, json};
use trust::verify;

use super::stage::{Failing, Stage, TestNode};

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_is_done_when_every_node_in_service_has_signed_for_it() {
    let stage = Stage::start().await;
    stage.configure().await;
    let empty = stage.post("/v1/purges", json!({ "everything": true })).await;
    assert_eq!(
        (empty.status, empty.body["state"].as_str()),
        (202, Some("waiting")),
        "nobody has proven anything"
    );

    let (one, two) = (stage.node("fra-1", "fra").await, stage.node("fra-2", "fra").await);
    in_service(&stage, 2).await;
    two.is_held.store(true, Ordering::Relaxed);
    let purged = stage
        .post("/v1/purges", json!({ "tags": ["shoes", "sale"], "site": "shop", "reason": "price" }))
        .await;
    assert_eq!(purged.status, 202, "{purged:?}");
    assert_eq!((&purged.body["purges"], &purged.body["nodes"]), (&json!(2), &json!(2)));
    let path = purged.body["receipts"].as_str().unwrap().to_owned();
    let position = purged.body["position"].as_u64().unwrap();
    assert_eq!(path, format!("/v1/purges/{position}"));
    stage
        .wait("the first receipt", async |stage| names(&stage.get(&path).await.body, "receipts") == ["fra-1"])
        .await;
    let waiting = stage.get(&path).await.body;
    assert_eq!(
        (&waiting["state"], names(&waiting, "laggards")),
        (&json!("waiting"), vec!["fra-2".to_owned()])
    );
    assert!(one.told_text().contains("shoes"));

    two.is_held.store(false, Ordering::Relaxed);
    let done = stage.get(&format!("{path}?wait=30s")).await.body;
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(names(&done, "receipts"), ["fra-1", "fra-2"]);
    for (receipt, node) in done["receipts"].as_array().unwrap().iter().zip([&one, &two]) {
        let at = receipt["position"].as_u64().unwrap();
        assert!(at >= position);
        let digest = receipt["digest"].as_str().unwrap();
        let signed = receipt_signed("test", node.name(), at, &digest, receipt["at_ms"].as_i64().unwrap());
        assert!(verify(&node.identity.peer().public_key, &signed, receipt["signature"].as_str().unwrap()));
    }
    let listed = stage.get("/v1/purges").await.body;
    let newest = &listed["purges"][0];
    assert_eq!(
        (&newest["position"], &newest["by"], &newest["reason"]),
        (&json!(position), &json!("admin"), &json!("price"))
    );
    assert_eq!(newest["matches"][0], "every object of site \"shop\" with the surrogate key \"shoes\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_out_of_contact_is_named_and_does_not_hold_a_purge_up() {
    let stage = Stage::start().await;
    stage.configure().await;
    let (_one, two) = (stage.node("fra-1", "fra").await, stage.node("fra-2", "fra").await);
    in_service(&stage, 2).await;
    two.stop();
    let purged = stage.post("/v1/purges", json!({ "site": "shop" })).await;
    let path = purged.body["receipts"].as_str().unwrap().to_owned();
    let done = stage.get(&format!("{path}?wait=40s")).await.body;
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(
        (names(&done, "receipts"), names(&done, "out_of_contact")),
        (vec!["fra-1".to_owned()], vec!["fra-2".to_owned()])
    );
    let nodes = stage.get("/v1/nodes").await.body;
    let away =
        nodes["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "fra-2").unwrap().clone();
    assert_eq!(away["in_service"], false, "{away}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_clear_purge_is_refused_with_the_place_and_purges_nothing() {
    let stage = Stage::start().await;
    stage.configure().await;
    let shop = stage.token("shop", "purger", Some(&["shop"])).await;
    let head = stage.get("/v1/status").await.body["head"].clone();
    let many: Vec<String> = (0..501).map(|number| number.to_string()).collect();
    for (token, body, status, error, next) in [
        (&stage.admin, json!({}), 400, "the body names nothing to purge", ""),
        (&stage.admin, json!({ "everthing": true }), 400, "the body is not what this path takes", ""),
        (
            &stage.admin,
            json!({ "everything": true, "tag": "a" }),
            400,
            "everything is all there is, and stands alone",
            "",
        ),
        (&stage.admin, json!({ "url": "/a.css" }), 400, "url is not an absolute URL", ""),
        (
            &stage.admin,
            json!({ "urls": ["https://www.shop.example/", "https://www.shp.example/"] }),
            404,
            "urls[1]: no site of the configuration serves this host",
            "did you mean \"www.shop.example\"?",
        ),
        (
            &stage.admin,
            json!({ "url": "https://elsewhere.test/" }),
            404,
            "url: no site of the configuration serves this host",
            "nothing was purged; correct it and purge again",
        ),
        (
            &stage.admin,
            json!({ "site": "shoop" }),
            404,
            "site: no site of the configuration is called so",
            "did you mean \"shop\"?",
        ),
        (
            &stage.admin,
            json!({ "prefix": "https://www.shop.example/?a" }),
            400,
            "prefix has a query, and prefixes match paths",
            "",
        ),
        (&stage.admin, json!({ "tags": ["a", "b c"] }), 400, "tags[1] is not one surrogate key", ""),
        (&stage.admin, json!({ "tags": many }), 413, "too many purges in one request", ""),
        (
            &stage.admin,
            json!({ "site": "blog", "url": "https://www.shop.example/" }),
            400,
            "url is of another site than the one named",
            "",
        ),
        (
            &stage.admin,
            json!({ "everything": true, "reason": "a\nb" }),
            400,
            "the reason is not one line",
            "",
        ),
        (&shop, json!({ "everything": true }), 403, "the token may not purge this", ""),
        (&shop, json!({ "tag": "a" }), 403, "the token may not purge this", ""),
        (&shop, json!({ "site": "blog" }), 403, "the token may not purge this", ""),
        (&shop, json!({ "url": "https://blog.example/" }), 403, "the token may not purge this", ""),
    ] {
        let answer = stage.call("POST", "/v1/purges", token, &[], Some(body.clone())).await;
        assert_eq!(
            (answer.status, answer.body["error"].as_str()),
            (status, Some(error)),
            "{body}: {answer:?}"
        );
        if !next.is_empty() {
            assert_eq!(answer.body["next"], next);
        }
    }
    assert_eq!(stage.get("/v1/status").await.body["head"], head, "nothing was written");
    let allowed = [
        json!({ "site": "shop" }),
        json!({ "tag": "a", "site": "shop" }),
        json!({ "url": "https://CDN.shop.example:443/x" }),
    ];
    for body in allowed {
        let answer = stage.call("POST", "/v1/purges", &shop, &[], Some(body.clone())).await;
        assert_eq!(answer.status, 202, "{body}: {answer:?}");
    }
    for (path, status) in [
        ("/v1/purges/x", 400),
        ("/v1/purges/0", 404),
        ("/v1/purges/9999999", 404),
        ("/v1/purges/1?wait=2h", 400),
        ("/v1/purges/1?wat=1", 400),
    ] {
        assert_eq!(stage.get(path).await.status, status, "{path}");
    }
    let text = stage.call("POST", "/v1/purges", &stage.admin, &[("content-type", "text/plain")], None).await;
    assert_eq!(text.status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_with_a_key_is_done_once_however_often_and_wherever_it_is_sent() {
    let stage = Stage::start().await;
    stage.configure().await;
    let other = stage.another("c2").await;
    let key = [("idempotency-key", "order 66")];
    let body = json!({ "url": "https://www.shop.example/a", "reason": "x" });
    let first = stage.call("POST", "/v1/purges", &stage.admin, &key, Some(body.clone())).await;
    assert_eq!(first.status, 202, "{first:?}");
    for address in [stage.control.address(), other.address()] {
        let again =
            stage.call_at(address, "POST", "/v1/purges", &stage.admin, &key, Some(body.clone())).await;
        assert_eq!((again.status, &again.body["position"]), (202, &first.body["position"]), "{again:?}");
    }
    let changed =
        stage.call("POST", "/v1/purges", &stage.admin, &key, Some(json!({ "everything": true }))).await;
    assert_eq!(changed.status, 422, "{changed:?}");

    // At the same time, at both: one record, and one answer for all.
    let key = [("idempotency-key", "at once")];
    let calls = (0..8).map(|index| {
        let address = if index % 2 == 0 { stage.control.address() } else { other.address() };
        stage.call_at(address, "POST", "/v1/purges", &stage.admin, &key, Some(body.clone()))
    });
    let mut positions = Vec::new();
    for answer in all(calls).await {
        assert_eq!(answer.status, 202, "{answer:?}");
        positions.push(answer.body["position"].as_u64().unwrap());
    }
    positions.dedup();
    assert_eq!(positions.len(), 1, "{positions:?}");

    let token = json!({ "name": "once", "role": "viewer" });
    let key = [("idempotency-key", "token")];
    let made = stage.call("POST", "/v1/tokens", &stage.admin, &key, Some(token.clone())).await;
    let again = stage.call("POST", "/v1/tokens", &stage.admin, &key, Some(token)).await;
    assert_eq!((made.status, &made.body), (again.status, &again.body), "the secret, too");
}

/// All of them, at the same time.
async fn all<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (call, done) in calls.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = call.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_that_come_together_are_written_together() {
    let stage = Stage::start().await;
    stage.configure().await;
    let body = |number: usize| Some(json!({ "tag": format!("tag-{number}") }));
    let calls = (0..200).map(|number| stage.call("POST", "/v1/purges", &stage.admin, &[], body(number)));
    let mut positions: Vec<u64> = Vec::new();
    for answer in all(calls).await {
        assert_eq!(answer.status, 202);
        positions.push(answer.body["position"].as_u64().unwrap());
    }
    positions.sort_unstable();
    positions.dedup();
    assert!(positions.len() < 200, "some share a record");
    let page = stage.journal.read(positions[0] - 1, 500).await.unwrap();
    let text: String = page.records.iter().map(|record| record.text.to_string()).collect();
    for number in 0..200 {
        assert!(text.contains(&format!("\"tag-{number}\"")), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_journal_nothing_is_called_a_success() {
    let journal = Arc::new(Memory::new("test", 7));
    let stage = Stage::on(Arc::clone(&journal) as _).await;
    stage.configure().await;
    journal.set_faults(Faults { unavailable: 1000, ..Faults::default() });
    for (method, path, body) in [
        ("POST", "/v1/purges", json!({ "everything": true })),
        ("POST", "/v1/tokens", json!({ "name": "x", "role": "viewer" })),
        ("POST", "/v1/enrolment-tokens", json!({ "role": "relay" })),
    ] {
        let answer = stage.call(method, path, &stage.admin, &[], Some(body)).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{path}");
        assert!(answer.body["error"].as_str().unwrap().contains("cannot be reached"), "{path}: {answer:?}");
    }
    // Who is known may still look.
    stage
        .wait("the news", async |stage| {
            stage.get("/v1/status").await.body["journal_error"]
                .as_str()
                .is_some_and(|error| error.contains("cannot be reached"))
        })
        .await;
    journal.set_faults(Faults::default());
    assert_eq!(stage.post("/v1/purges", json!({ "everything": true })).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_gets_lost_costs_a_second_purge_and_never_one() {
    let journal = Arc::new(Memory::new("test", 9));
    let stage = Stage::on(Arc::clone(&journal) as _).await;
    stage.configure().await;
    journal.set_faults(Faults { unknown: 500, ..Faults::default() });
    let mut accepted = Vec::new();
    for number in 0..30 {
        let tag = format!("tag-{number}");
        let key = [("idempotency-key", tag.as_str())];
        let answer = stage.call("POST", "/v1/purges", &stage.admin, &key, Some(json!({ "tag": tag }))).await;
        assert!(matches!(answer.status, 202 | 503), "{answer:?}");
        if answer.status == 202 {
            accepted.push((tag.clone(), answer.body["position"].as_u64().unwrap()));
        }
    }
    journal.set_faults(Faults::default());
    assert!(!accepted.is_empty());
    let page = journal::Journal::read(&*journal, 0, 500).await.unwrap();
    for (tag, position) in accepted {
        let record = page.records.iter().find(|record| record.position == position).unwrap();
        assert!(record.text.contains(&format!("\"{tag}\"")), "{tag} at {position}: {}", record.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_may_have_been_written_is_not_said_not_to_be() {
    let journal = Failing::new();
    let stage = Stage::on(Arc::clone(&journal) as _).await;
    *journal.unwritable_from.lock() = Some(Instant::now());
    let answer = stage.post("/v1/purges", json!({ "everything": true })).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body["next"].as_str().unwrap().starts_with("it may be in force or not"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_purge_is_measured_and_alarms_when_a_node_lags() {
    let stage = Stage::start().await;
    let node: Arc<TestNode> = stage.node("fra-1", "fra").await;
    stage
        .wait("a canary", async |stage| {
            let canary = stage.get("/v1/status").await.body["canary"].clone();
            canary["took_ms"].is_u64() && canary["alarm"] == false
        })
        .await;
    assert_eq!(stage.get("/v1/purges").await.body["purges"], json!([]), "canaries are not listed");
    node.is_held.store(true, Ordering::Relaxed);
    stage
        .wait("the alarm", async |stage| {
            let canary = stage.get("/v1/status").await.body["canary"].clone();
            canary["alarm"] == true && canary["why"].as_str().is_some_and(|why| why.contains("fra-1"))
        })
        .await;
    let metrics = stage.call("GET", "/metrics", "", &[], None).await.body.to_string();
    assert!(metrics.contains("perigee_control_canary_alarm 1"), "{metrics}");
    node.is_held.store(false, Ordering::Relaxed);
    stage
        .wait("the all-clear", async |stage| stage.get("/v1/status").await.body["canary"]["alarm"] == false)
        .await;
    tokio::time::timeout(Duration::from_secs(10), stage.get("/healthz")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_is_sent_before_there_is_an_edge_to_prove_it() {
    let stage = Stage::start().await;
    let _router = stage.router("ns1").await;
    in_service(&stage, 1).await;
    let since_ms = super::stage::now_ms();
    let _edge = stage.node("fra-1", "fra").await;
    stage
        .wait("a canary", async |stage| stage.get("/v1/status").await.body["canary"]["took_ms"].is_u64())
        .await;
    let records = stage.journal.read(0, 100).await.unwrap().records;
    let first = records.iter().find(|record| record.text.contains("perigee-canary")).unwrap();
    let first: Value = serde_json::from_str(&first.text).unwrap();
    assert!(first["at_ms"].as_i64().unwrap() >= since_ms, "nobody could prove {first}");
}

pub(crate) async fn in_service(stage: &Stage, count: usize) {
    stage
        .wait("the nodes", async |stage| stage.get("/v1/status").await.body["nodes_in_contact"] == count)
        .await;
}

fn names(body: &Value, list: &str) -> Vec<String> {
    body[list].as_array().unwrap().iter().map(|entry| entry["node"].as_str().unwrap().to_owned()).collect()
}

/// Who works for one shop does not read what another one purges, nor how it is set up.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_some_sites_sees_nothing_of_others() {
    let stage = Stage::start().await;
    stage.configure().await;
    for site in ["shop", "blog"] {
        let body = Some(json!({ "site": site, "tag": format!("secret-of-{site}") }));
        let purged = stage.call("POST", "/v1/purges", &stage.admin, &[], body).await;
        assert_eq!(purged.status, 202, "{purged:?}");
    }
    let token = stage.token("shops", "viewer", Some(&["shop"])).await;
    for path in ["/v1/purges", "/v1/markers"] {
        stage
            .wait("the purge of its own", async |stage| {
                let seen = stage.call("GET", path, &token, &[], None).await.body.to_string();
                assert!(!seen.contains("secret-of-blog"), "{path}: {seen}");
                seen.contains("secret-of-shop")
            })
            .await;
    }
    let explain = "/v1/explain?url=http://blog.example/";
    let refused = stage.call("GET", explain, &token, &[], None).await;
    assert!(refused.status >= 400 && !refused.body.to_string().contains("8001"), "{refused:?}");
    assert_eq!(stage.get(explain).await.status, 200);
}
