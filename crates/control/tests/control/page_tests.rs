use serde_json::{Value, json};

use super::stage::Stage;

/// A result, with these times to the largest paint by way of the edge.
fn result(name: &str, lcp: &[f64]) -> Value {
    let series = |way: &str, is_edge: bool, lcp: &[f64]| json!({ "place": "sydney", "emulated_by": "packets", "line": "280 ms to the origin, 12 ms to the edges", "way": way, "is_edge": is_edge, "view": "first view", "values": { "lcp": lcp } });
    json!({
        "name": name, "url": "https://www.shop.example/", "browser": "Chrome/126", "over_budget": ["lcp: too slow"],
        "series": [series("origin", false, &[900.0]), series("CDN", true, lcp)],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_is_kept_in_its_order_and_shown_with_medians() {
    let stage = Stage::start().await;
    assert_eq!(stage.get("/v1/page-tests").await.body, json!({ "items": [], "unread": 0 }));
    assert_eq!(stage.get("/v1/page-tests/home").await.status, 404);
    for lcp in [&[300.0, 500.0, 400.0][..], &[200.0, 100.0]] {
        let kept = stage.post("/v1/page-tests", result("home", lcp)).await;
        assert_eq!((kept.status, &kept.body["name"]), (201, &json!("home")), "{kept:?}");
    }
    assert_eq!(stage.post("/v1/page-tests", result("list", &[])).await.status, 201);
    let listed = stage.get("/v1/page-tests").await.body;
    let names: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["home", "list"]);
    assert_eq!(listed["items"][0]["over_budget"], json!(["lcp: too slow"]));
    let counts = ["over_budget_count", "results"].map(|count| listed["items"][0][count].as_u64());
    assert_eq!(counts, [Some(1), Some(2)]);

    let shown = stage.get("/v1/page-tests/home").await.body;
    let medians: Vec<&Value> =
        shown["items"].as_array().unwrap().iter().map(|one| &one["series"][1]["medians"]["lcp"]).collect();
    assert_eq!(medians, [400.0, 150.0]);
    let series = &shown["items"][0]["series"][1];
    assert_eq!(series["line"], "280 ms to the origin, 12 ms to the edges");
    assert_eq!(series["values"], Value::Null, "not asked for");
    let whole = stage.get("/v1/page-tests/home?values=true").await.body;
    assert_eq!(whole["items"][0]["series"][1]["values"]["lcp"], json!([300.0, 500.0, 400.0]));
    let first = shown["items"][0]["at_ms"].as_i64().unwrap();
    let before = stage.get(&format!("/v1/page-tests/home?from=0&to={}", first - 1)).await.body;
    assert_eq!(before["items"], json!([]));
    assert_eq!(stage.get("/v1/page-tests/list").await.body["items"][0]["series"][1]["medians"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_control_shows_the_same() {
    let stage = Stage::start().await;
    assert_eq!(stage.post("/v1/page-tests", result("home", &[300.0])).await.status, 201);
    let other = stage.another("c2").await;
    let shown = stage.call_at(other.address(), "GET", "/v1/page-tests/home", &stage.admin, &[], None).await;
    assert_eq!(shown.body["items"][0]["series"][0]["medians"]["lcp"], 900.0, "{shown:?}");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_test_is_gone_with_its_results_and_the_audit_log_says_by_whom() {
    let stage = Stage::start().await;
    for name in ["home", "home", "list"] {
        assert_eq!(stage.post("/v1/page-tests", result(name, &[300.0])).await.status, 201);
    }
    let ci = stage.token("ci", "purger", None).await;
    assert_eq!(stage.call("DELETE", "/v1/page-tests/home", &ci, &[], None).await.status, 403);
    assert_eq!(stage.delete("/v1/page-tests/a%2Fb").await.status, 400);
    assert_eq!(stage.delete("/v1/page-tests/home").await.body, json!({ "name": "home", "gone": true }));
    assert_eq!(stage.delete("/v1/page-tests/home").await.status, 404);
    assert_eq!(stage.get("/v1/page-tests/home").await.status, 404);
    let listed = stage.get("/v1/page-tests").await.body;
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["name"]), (1, &json!("list")));
    let audit = stage.get("/v1/audit?without_purges=true").await.body;
    let entries = audit["entries"].as_array().unwrap();
    assert!(entries.iter().any(|one| one["action"] == "page-test.forget" && one["subject"] == "home"));
    // The name may be taken again, and begins anew.
    assert_eq!(stage.post("/v1/page-tests", result("home", &[300.0])).await.body["results"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_purge_all_may_keep_results_and_bad_ones_are_refused() {
    let stage = Stage::start().await;
    stage.configure().await;
    let good = result("home", &[300.0]);
    let viewer = stage.token("looks", "viewer", None).await;
    let shop = stage.token("shop", "purger", Some(&["shop"])).await;
    let ci = stage.token("ci", "purger", None).await;
    for (token, status) in [(&viewer, 403), (&shop, 403), (&ci, 201)] {
        let kept = stage.call("POST", "/v1/page-tests", token, &[], Some(good.clone())).await;
        assert_eq!(kept.status, status, "{kept:?}");
    }
    assert_eq!(stage.call("GET", "/v1/page-tests/home", &viewer, &[], None).await.status, 200);
    assert_eq!(
        stage.call("GET", "/v1/page-tests", &shop, &[], None).await.body,
        json!({ "items": [], "unread": 0 })
    );
    assert_eq!(stage.call("GET", "/v1/page-tests/home", &shop, &[], None).await.status, 404);

    let with = |change: &dyn Fn(&mut Value)| {
        let mut one = good.clone();
        change(&mut one);
        one
    };
    let wrong = [
        (with(&|one| one["name"] = json!("a/b")), 400, "no name"),
        (with(&|one| one["name"] = json!("")), 400, "no name"),
        (with(&|one| one["name"] = json!("..")), 400, "no name"),
        (with(&|one| one["colour"] = json!(1)), 400, "unknown field"),
        (with(&|one| one["series"][0]["colour"] = json!(1)), 400, "unknown field"),
        (with(&|one| one["series"][0]["values"] = json!({ "speed": [1.0] })), 400, "not measured"),
        (with(&|one| one["series"][0]["values"] = json!({ "lcp": [-1.0] })), 400, "below zero"),
        (with(&|one| one["series"][0]["values"] = json!({ "lcp": vec![1.0; 201] })), 400, "too many"),
        (with(&|one| one["series"] = json!(vec![one["series"][0].clone(); 65])), 400, "too many"),
        (with(&|one| one["browser"] = json!("x".repeat(70_000))), 413, "too long"),
    ];
    for (body, status, words) in wrong {
        let refused = stage.post("/v1/page-tests", body).await;
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(refused.body.to_string().contains(words), "{words}: {refused:?}");
    }
    assert_eq!(stage.get("/v1/page-tests/a%2Fb").await.status, 400);
    assert_eq!(stage.get("/v1/page-tests/home?since=1").await.status, 400);
}
