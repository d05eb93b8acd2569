use journal::feed::Dialer;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use trust::EnrolmentToken;

use super::purges::in_service;
use super::stage::{Failing, SITES, Stage, TestNode, ask_by_http2, by_http2};

async fn token(stage: &Stage, wish: serde_json::Value) -> EnrolmentToken {
    let made = stage.post("/v1/enrolment-tokens", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["token"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_so_many_nodes_in_as_it_says() {
    let stage = Stage::start().await;
    let twice = token(&stage, json!({ "role": "edge", "pop": "fra", "uses": 2 })).await;
    let first = stage.join(&twice, Some("fra-1")).await;
    assert_eq!((first.status, first.body["pop"].as_str()), (201, Some("fra")));
    let identity = first.identity.unwrap();
    assert_eq!((identity.peer().name.as_str(), identity.peer().role.as_str()), ("fra-1", "edge"));
    assert_eq!(identity.peer().pop.as_deref(), Some("fra"));
    let week = identity.peer().valid.1 - super::stage::now_ms() / 1000;
    assert!((6 * 86_400..=7 * 86_400).contains(&week), "{week}");

    let same = stage.join(&twice, Some("fra-1")).await;
    assert_eq!(
        (same.status, same.body["error"].as_str()),
        (409, Some("there is a node of this name already"))
    );
    assert_eq!(stage.join(&twice, None).await.status, 400, "nobody says a name");
    assert_eq!(stage.join(&twice, Some("fra-2")).await.status, 201, "what was refused has used nothing up");
    let third = stage.join(&twice, Some("fra-3")).await;
    assert_eq!(
        (third.status, third.body["error"].as_str()),
        (403, Some("the enrolment token has been used up"))
    );
    let (once, key) =
        (token(&stage, json!({ "role": "edge", "pop": "fra" })).await, rcgen::KeyPair::generate().unwrap());
    for _ in 0..2 {
        let joined = stage.join_with(&key, &once, Some("fra-4")).await;
        assert_eq!(joined.status, 201, "an answer that got lost is given again: {joined:?}");
    }
    let listed = stage.get("/v1/enrolment-tokens").await.body;
    for enrolment in listed["enrolments"].as_array().unwrap() {
        assert_eq!(enrolment["uses_left"], 0, "{enrolment}");
    }
    assert!(!listed.to_string().contains(&twice.secret));

    let brief = token(&stage, json!({ "role": "edge", "pop": "fra", "ttl": "1s", "uses": 1000 })).await;
    stage
        .wait("its end", async |stage| {
            let joined = stage.join(&brief, Some("late")).await;
            joined.body["error"] == "the enrolment token has expired"
        })
        .await;
    let revoked = token(&stage, json!({ "role": "relay" })).await;
    assert_eq!(stage.delete(&format!("/v1/enrolment-tokens/{}", revoked.id)).await.status, 200);
    assert_eq!(stage.join(&revoked, Some("r1")).await.status, 401);
    let mut guessed = token(&stage, json!({ "role": "relay" })).await;
    guessed.secret = "0".repeat(64);
    assert_eq!(stage.join(&guessed, Some("r1")).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_tokens_are_forgotten_a_month_after_their_end() {
    let stage = Stage::start().await;
    stage.first_sweep().await;
    let mut ids = Vec::new();
    for days_ago in [31, 29, -1] {
        ids.push(stage.ended_token(days_ago).await);
    }
    let listed = async || -> Vec<String> {
        let listed = stage.get("/v1/enrolment-tokens").await.body;
        let enrolments = listed["enrolments"].as_array().unwrap().iter();
        enrolments.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed().await.len(), 3);
    let other = stage.another("c2").await;
    stage.wait("the sweep", async |_| !listed().await.contains(&ids[0])).await;
    let left = listed().await;
    assert!(left.len() == 2 && ids[1..].iter().all(|id| left.contains(id)), "{left:?}");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_counts_those_in_service_as_the_list_of_nodes_does() {
    let stage = Stage::start().await;
    // It has joined and is not heard of yet: a control that has just begun takes nobody for gone.
    let joined = token(&stage, json!({ "role": "edge", "pop": "fra" })).await;
    assert_eq!(stage.join(&joined, Some("fra-1")).await.status, 201);
    assert_eq!(stage.get("/v1/nodes").await.body["nodes"][0]["in_service"], true);
    assert_eq!(stage.get("/v1/rollouts/current").await.body["nodes"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_wishes_for_enrolment_are_refused() {
    let stage = Stage::start().await;
    for (wish, error) in [
        (json!({ "role": "edge" }), "pop is not a name"),
        (json!({ "role": "control" }), "the body is not what this path takes"),
        (json!({ "role": "edge", "pop": "fra", "name": "a", "uses": 2 }), "uses is out of range"),
        (json!({ "role": "edge", "pop": "fra", "ttl": "60d" }), "ttl is too long"),
        (json!({ "role": "relay", "controls": ["http://c1"] }), "controls: this is no address of a control"),
        (json!({ "role": "relay", "controls": ["https://"] }), "controls: this is no address of a control"),
    ] {
        let answer = stage.post("/v1/enrolment-tokens", wish.clone()).await;
        assert_eq!((answer.status, answer.body["error"].as_str()), (400, Some(error)), "{wish}");
    }
    let good = token(&stage, json!({ "role": "relay" })).await;
    let body = json!({ "id": good.id, "secret": good.secret, "name": "r1", "request": "nothing" });
    let answer = stage.call("POST", "/v1/enroll", "", &[], Some(body)).await;
    assert_eq!(
        (answer.status, answer.body["error"].as_str()),
        (400, Some("request is no certificate request in PEM"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_pop_role_or_name_than_its_token_is_refused_before_it_uses_anything_up() {
    let stage = Stage::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let enroll = async |token: &EnrolmentToken, node: &serde_json::Value| {
        let mut body = json!({ "id": token.id, "secret": token.secret, "request": request });
        body.as_object_mut().unwrap().extend(node.as_object().unwrap().clone());
        stage.call("POST", "/v1/enroll", "", &[], Some(body)).await
    };
    for (wish, other, error, next, right) in [
        (
            json!({ "role": "edge", "pop": "fra" }),
            json!({ "name": "a", "role": "edge", "pop": "iad" }),
            "the token is for PoP \"fra\", and this node's file says pop = \"iad\"",
            "write pop = \"fra\" in [cluster]; or",
            json!({ "name": "a", "role": "edge", "pop": "fra" }),
        ),
        (
            json!({ "role": "router" }),
            json!({ "name": "b", "role": "edge", "pop": "fra" }),
            "the token is for a node of role \"router\", and this one's role is \"edge\"",
            "have a token made for this one: perigee enroll --role edge --pop NAME; or start what the token is for: perigee router",
            json!({ "name": "b", "role": "router" }),
        ),
        (
            json!({ "role": "edge", "pop": "fra" }),
            json!({ "name": "c", "role": "relay" }),
            "the token is for a node of role \"edge\", and this one's role is \"relay\"",
            "have a token made for this one: perigee enroll --role relay; or",
            // As older nodes do, which say neither.
            json!({ "name": "c" }),
        ),
        (
            json!({ "role": "relay", "name": "d" }),
            json!({ "name": "e", "role": "relay" }),
            "the token is for the name \"d\", and this node's file says \"e\"",
            "give it the name \"d\" in its file; or have",
            json!({ "name": "d", "role": "relay" }),
        ),
    ] {
        let nodes = stage.get("/v1/nodes").await.body["nodes"].as_array().unwrap().len();
        let token = token(&stage, wish).await;
        let refused = enroll(&token, &other).await;
        assert_eq!((refused.status, refused.body["error"].as_str()), (409, Some(error)));
        assert!(refused.body["next"].as_str().unwrap().starts_with(next), "{refused:?}");
        assert_eq!(stage.get("/v1/nodes").await.body["nodes"].as_array().unwrap().len(), nodes);
        // Neither the name nor the token is used up.
        assert_eq!(enroll(&token, &right).await.status, 201, "{right}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_node_is_not_believed_any_more_and_its_name_is_free() {
    let stage = Stage::start().await;
    let added = stage.post("/v1/configurations", json!({ "text": SITES, "reason": "begin" })).await;
    let hash = added.body["hash"].as_str().unwrap().to_owned();
    let node = stage.node("fra-1", "fra").await;
    in_service(&stage, 1).await;
    let identity = Arc::clone(&node.identity);
    let dialer =
        Dialer::new(vec![format!("https://{}", stage.control.address())], move || Arc::clone(&identity));
    let blob = format!("/v1/blobs/{hash}");
    assert_eq!(dialer.get(&blob, 1 << 20).await.unwrap(), SITES);
    assert!(dialer.get(&format!("/v1/blobs/{}", "0".repeat(64)), 1 << 20).await.unwrap_err().contains("404"));
    assert!(dialer.get("/v1/journal?after=0&limit=10", 1 << 20).await.unwrap().starts_with(b"{\"records\""));

    assert_eq!(stage.delete("/v1/nodes/fra-1").await.status, 200);
    assert!(dialer.get(&blob, 1 << 20).await.unwrap_err().contains("has been retired"));
    stage
        .wait("the end of its feed", async |_| node.last_down().is_some_and(|why| why.contains("retired")))
        .await;
    assert_eq!(stage.get("/v1/nodes").await.body["nodes"], json!([]));
    let unknown = stage.delete("/v1/nodes/fra-1").await;
    let none_yet = "an existing one; there is none yet";
    assert_eq!((unknown.status, unknown.body["wanted"].as_str()), (404, Some(none_yet)));
    assert_eq!(unknown.body["next"], "perigee nodes lists them");

    let again: Arc<TestNode> = stage.node("fra-1", "fra").await;
    in_service(&stage, 1).await;
    assert_ne!(again.identity.peer().public_key, node.identity.peer().public_key);
    assert!(
        dialer.get(&blob, 1 << 20).await.unwrap_err().contains("has been retired"),
        "the old key stays out"
    );
}

/// It says nothing that could be refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_retired_node_that_only_beats_is_told_nothing_more() {
    let journal = Failing::new();
    let stage = Stage::on(Arc::clone(&journal) as Arc<_>).await;
    let node = stage.node("fra-1", "fra").await;
    in_service(&stage, 1).await;
    node.is_mute.store(true, Ordering::Relaxed);
    // Nor does it matter that the journal cannot be read just now.
    journal.is_unlisted.store(true, Ordering::Relaxed);
    let retired = stage.delete("/v1/nodes/fra-1").await;
    assert_eq!(retired.status, 200, "{retired:?}");
    stage.wait("the end of its feed", async |_| node.last_down().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_at_enrolment_tokens_is_refused_before_anything_is_looked_for() {
    let journal = Failing::new();
    let stage = Stage::on(Arc::clone(&journal) as Arc<_>).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let guess = json!({ "id": "abcdef", "secret": "0", "name": "r1", "request": request });
    let mut sender = by_http2(&stage).await;
    // With a good token shown once, the connection stays for as long as this takes.
    assert_eq!(ask_by_http2(&stage, &mut sender, "/v1/tokens", &json!({})).await.0, 400);
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        statuses.push(ask_by_http2(&stage, &mut sender, "/v1/enroll", &guess).await.0);
        assert!(statuses.len() < 500);
    }
    assert!(statuses.len() > 100, "so many at once: {}", statuses.len());
    for _ in 0..100 {
        statuses.push(ask_by_http2(&stage, &mut sender, "/v1/enroll", &guess).await.0);
    }
    let looked = statuses.iter().filter(|status| **status == 401).count();
    assert_eq!(journal.enrolments.load(Ordering::Relaxed), looked as u64, "{statuses:?}");
    // Nor are they listed for each.
    let listed = journal.lists.load(Ordering::Relaxed);
    assert!((1..=30).contains(&listed), "{listed}");

    // Behind the same address (NAT) there is one who has a token.
    let good = token(&stage, json!({ "role": "edge", "pop": "fra", "uses": 12 })).await;
    let listed = journal.lists.load(Ordering::Relaxed);
    // Little work, so that its address fails faster than it may.
    let no_id = json!({ "id": "none", "secret": "", "request": "" });
    let mut join = async |secret: &str, name: String| {
        let node = json!({ "id": good.id, "secret": secret, "name": name, "request": request });
        while ask_by_http2(&stage, &mut sender, "/v1/enroll", &no_id).await.0 != 429 {}
        ask_by_http2(&stage, &mut sender, "/v1/enroll", &node).await.0
    };
    // From the next reading of the tokens on, each at once.
    // One may be that of the sweep.
    while journal.lists.load(Ordering::Relaxed) < listed + 2 {
        join("0", "fra".into()).await;
    }
    for number in 0..10 {
        assert_eq!(join(&good.secret, format!("fra-{number}")).await, 201);
    }
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(join(&"0".repeat(64), "fra-x".into()).await);
    }
    // Others came when there was room for another failure.
    assert!(statuses.iter().filter(|status| **status == 429).count() > 5, "{statuses:?}");
    assert_eq!(stage.delete(&format!("/v1/enrolment-tokens/{}", good.id)).await.status, 200);
    assert!(matches!(join(&good.secret, "fra-y".into()).await, 401 | 429));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_http_2_an_enrolment_token_names_the_control_that_was_asked_too() {
    let stage = Stage::start().await;
    let address = stage.control.address();
    let wish = json!({ "role": "relay" });
    let made = ask_by_http2(&stage, &mut by_http2(&stage).await, "/v1/enrolment-tokens", &wish).await;
    assert_eq!(made.0, 201, "{made:?}");
    let token: EnrolmentToken = made.1["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.controls, [format!("https://{address}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_for_the_same_key_only() {
    let stage = Stage::start().await;
    let node = stage.node("fra-1", "fra").await;
    let identity = Arc::clone(&node.identity);
    let dialer =
        Dialer::new(vec![format!("https://{}", stage.control.address())], move || Arc::clone(&identity));
    let renew = async |key: &rcgen::KeyPair| {
        let request = rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
        let body = json!({ "request": request }).to_string();
        dialer.ask(http::Method::POST, "/v1/renew", Some(body.into()), 1 << 20).await.unwrap()
    };
    let key = rcgen::KeyPair::try_from(node.identity.key()).unwrap();
    let (status, body) = renew(&key).await;
    assert_eq!(status, 200, "{body:?}");
    let renewed: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let [authority, certificate] = ["authority", "certificate"].map(|pem| renewed[pem].as_str().unwrap());
    let identity = trust::Identity::from_pem(authority, certificate, &key.serialize_pem()).unwrap();
    assert_eq!((&*identity.peer().name, identity.peer().pop.as_deref()), ("fra-1", Some("fra")));
    let (status, body) = renew(&rcgen::KeyPair::generate().unwrap()).await;
    assert_eq!(status, 400, "{body:?}");
    // Without a certificate, nobody is anybody.
    for path in ["/v1/renew", "/v1/feed"] {
        assert_eq!(
            stage.call("POST", path, &stage.admin, &[], Some(json!({ "request": "x" }))).await.status,
            401
        );
    }
}
