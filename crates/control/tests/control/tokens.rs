use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::stage::{Failing, SITES, Stage, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_nothing_is_told() {
    let stage = Stage::start().await;
    for token in ["", "pgt_0000", "x y"] {
        for (method, path) in
            [("GET", "/v1/status"), ("POST", "/v1/purges"), ("GET", "/v1/nodes"), ("GET", "/v1/audit")]
        {
            let body = (method == "POST").then(|| json!({ "everything": true }));
            let answer = stage.call(method, path, token, &[], body).await;
            assert_eq!(answer.status, 401, "{method} {path} {token:?}: {answer:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"perigee control\"");
        }
    }
    assert_eq!(stage.get("/v1/status").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_says_and_no_more() {
    let stage = Stage::start().await;
    let mut tokens = Vec::new();
    for role in ["viewer", "purger", "editor", "admin"] {
        tokens.push(stage.token(&format!("one-{role}"), role, None).await);
    }
    let dry = json!({ "text": SITES, "dry_run": true });
    for (method, path, body, from) in [
        ("GET", "/v1/nodes", None, 0),
        ("GET", "/v1/purges", None, 0),
        ("GET", "/v1/configurations", None, 0),
        ("POST", "/v1/purges", Some(json!({ "everything": true })), 1),
        ("POST", "/v1/configurations", Some(dry), 2),
        ("POST", "/v1/rollouts/current/undo", Some(json!({})), 2),
        ("GET", "/v1/tokens", None, 3),
        ("GET", "/v1/audit", None, 3),
        ("GET", "/v1/enrolment-tokens", None, 3),
        ("DELETE", "/v1/nodes/none", None, 3),
    ] {
        for (index, token) in tokens.iter().enumerate() {
            let answer = stage.call(method, path, token, &[], body.clone()).await;
            assert_eq!(answer.status == 403, index < from, "{method} {path} as {index}: {answer:?}");
            assert_ne!(answer.status, 401);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_gone_once_it_is_revoked_or_has_expired() {
    let stage = Stage::start().await;
    let ci = stage.token("ci", "purger", None).await;
    assert!(ci.starts_with("pgt_"), "{ci}");
    let listed = stage.get("/v1/tokens").await.body.to_string();
    assert!(listed.contains("\"ci\"") && !listed.contains(&ci), "{listed}");
    let cells = stage.journal.cells("").await.unwrap();
    assert!(
        !cells.iter().any(|cell| String::from_utf8_lossy(&cell.value).contains(&ci)),
        "kept as a hash only"
    );
    assert_eq!(stage.call("GET", "/v1/purges", &ci, &[], None).await.status, 200);

    let again = stage.post("/v1/tokens", json!({ "name": "ci", "role": "viewer" })).await;
    assert_eq!(
        (again.status, again.body["error"].as_str()),
        (409, Some("there is a token of this name already"))
    );

    assert_eq!(stage.delete("/v1/tokens/ci").await.status, 200);
    assert_eq!(stage.call("GET", "/v1/purges", &ci, &[], None).await.status, 401);
    let unknown = stage.delete("/v1/tokens/amdin").await;
    assert_eq!((unknown.status, unknown.body["next"].as_str()), (404, Some("did you mean \"admin\"?")));

    let brief = stage.post("/v1/tokens", json!({ "name": "brief", "role": "viewer", "ttl": "1s" })).await;
    assert!(brief.body["expires_ms"].as_i64().unwrap() > now_ms() - 1000);
    let secret = brief.body["secret"].as_str().unwrap().to_owned();
    stage
        .wait("the token's end", async |stage| {
            let answer = stage.call("GET", "/v1/status", &secret, &[], None).await;
            answer.status == 401 && answer.body["error"] == "the token has expired"
        })
        .await;
    let last = stage.delete("/v1/tokens/admin").await;
    assert_eq!(last.status, 409, "{last:?}");
}

/// An election of etcd takes a second or two: the commit waits for its end, and may find the next one begun.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_answered_as_done_though_it_cannot_be_read() {
    let journal = Failing::new();
    let stage = Stage::on(Arc::clone(&journal) as Arc<_>).await;
    let ci = stage.token("ci", "viewer", None).await;
    journal.is_unlisted.store(true, Ordering::Relaxed);
    let made = stage.post("/v1/tokens", json!({ "name": "late", "role": "viewer" })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let late = made.body["secret"].as_str().unwrap();
    assert_eq!(stage.call("GET", "/v1/status", &ci, &[], None).await.status, 200);
    let revoked = stage.delete("/v1/tokens/ci").await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(stage.call("GET", "/v1/status", &ci, &[], None).await.status, 401);
    journal.is_unlisted.store(false, Ordering::Relaxed);
    stage
        .wait("the new token", async |stage| {
            stage.call("GET", "/v1/status", late, &[], None).await.status == 200
        })
        .await;
    assert_eq!(stage.call("GET", "/v1/status", &ci, &[], None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_last_two_admins_one_stays_whichever_controls_are_asked() {
    let stage = Stage::start().await;
    let second = stage.token("second", "admin", None).await;
    let other = stage.another("c2").await;
    let (first, other) = tokio::join!(
        stage.call("DELETE", "/v1/tokens/second", &stage.admin, &[], None),
        stage.call_at(other.address(), "DELETE", "/v1/tokens/admin", &second, &[], None),
    );
    let mut statuses = [first.status, other.status];
    statuses.sort_unstable();
    assert_ne!(statuses, [200, 200]);
    let mut lasting = 0;
    for cell in stage.journal.cells("tokens/").await.unwrap() {
        let token: serde_json::Value = serde_json::from_slice(&cell.value).unwrap();
        lasting += u32::from(token["role"] == "admin");
    }
    assert_eq!(lasting, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_wishes_for_tokens_are_refused_with_the_place() {
    let stage = Stage::start().await;
    stage.configure().await;
    for (wish, status, error) in [
        (json!({ "name": "a/b", "role": "viewer" }), 400, "name is not a name"),
        (json!({ "name": "a", "role": "boss" }), 400, "the body is not what this path takes"),
        (json!({ "name": "a", "role": "viewer", "ttl": "soon" }), 400, "ttl is not a duration"),
        (
            json!({ "name": "a", "role": "editor", "sites": ["shop"] }),
            400,
            "a configuration is of all sites, so who may change it has no scope",
        ),
        (
            json!({ "name": "a", "role": "purger", "sites": ["shoop"] }),
            404,
            "sites: no site of the configuration is called so",
        ),
        (
            json!({ "name": "a", "role": "viewer", "requests_per_second": 0 }),
            400,
            "requests_per_second is out of range",
        ),
        (json!({ "name": "a", "role": "viewer", "scope": 1 }), 400, "the body is not what this path takes"),
    ] {
        let answer = stage.post("/v1/tokens", wish.clone()).await;
        assert_eq!((answer.status, answer.body["error"].as_str()), (status, Some(error)), "{wish}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_used_too_often_has_to_wait_and_others_have_not() {
    let stage = Stage::start().await;
    let made =
        stage.post("/v1/tokens", json!({ "name": "slow", "role": "viewer", "requests_per_second": 1 })).await;
    let slow = made.body["secret"].as_str().unwrap().to_owned();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let answer = stage.call("GET", "/v1/status", &slow, &[], None).await;
        if answer.status == 429 {
            let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!(wait >= 1);
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..2], [200, 200], "twice its rate at once");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(stage.get("/v1/status").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what() {
    let stage = Stage::start().await;
    let ci = stage.token("ci", "purger", None).await;
    let body = json!({ "everything": true, "reason": "new prices" });
    assert_eq!(stage.call("POST", "/v1/purges", &ci, &[], Some(body)).await.status, 202);
    stage
        .wait("the entries", async |stage| {
            let log = stage.get("/v1/audit").await.body;
            let has = |by: &str, action: &str, reason: Option<&str>| {
                log["entries"].as_array().unwrap().iter().any(|entry| {
                    entry["by"] == by
                        && entry["action"] == action
                        && reason.is_none_or(|reason| entry["reason"] == reason)
                })
            };
            has("control", "cluster.begin", None)
                && has("admin", "token.add", Some("purger"))
                && has("ci", "purge", Some("new prices"))
        })
        .await;
    let wrong = stage.get("/v1/audit?days=0").await;
    assert_eq!((wrong.status, wrong.body["wanted"].as_str()), (400, Some("1 to 400")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_control_whose_clock_is_ahead_has_answered_tomorrow_is_known_today() {
    let stage = Stage::start().await;
    let key = [("idempotency-key", "once")];
    let make = async || {
        let wish = Some(json!({ "role": "relay" }));
        stage.call("POST", "/v1/enrolment-tokens", &stage.admin, &key, wish).await
    };
    let first = make().await;
    assert_eq!(first.status, 201, "{first:?}");
    let cell = stage.journal.cells("idempotency/").await.unwrap().remove(0);
    let (day, name) = cell.name.trim_start_matches("idempotency/").split_once('/').unwrap();
    let tomorrow = format!("idempotency/{}/{name}", day.parse::<i64>().unwrap() + 1);
    let cells = vec![(tomorrow, Some(cell.value)), (cell.name, None)];
    stage.journal.commit(journal::Commit { cells, ..Default::default() }).await.unwrap();
    let again = make().await;
    assert_eq!((again.status, &again.body), (201, &first.body), "it was done twice");
}
