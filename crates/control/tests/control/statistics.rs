use serde_json::json;

use super::stage::{SITES, Stage};

/// The paths that take a site and a PoP.
const PATHS: [&str; 5] = ["/v1/stats", "/v1/stats/export", "/v1/stats/top", "/v1/stats/why", "/v1/stats/rum"];

#[tokio::test(flavor = "multi_thread")]
async fn a_site_or_pop_of_which_there_is_nothing_is_refused_by_each_path() {
    let stage = Stage::start().await;
    stage.configure().await;
    let _node = stage.node("fra-1", "fra").await;
    for path in PATHS {
        for (query, wanted) in [
            ("site=shop", None),
            ("site=shop&site=blog&pop=fra", None),
            ("site=-&pop=-", None),
            ("site=(others)", None),
            ("site=shpo", Some(("\"shpo\"", "blog or shop", "did you mean \"shop\"?"))),
            (
                "site=blog&site=mars&pop=fra",
                Some(("\"mars\"", "blog or shop", "name another; perigee stats --by site")),
            ),
            ("pop=syd", Some(("\"syd\"", "fra", "name another; perigee stats --by pop"))),
        ] {
            let answer = stage.get(&format!("{path}?{query}")).await;
            let Some((found, names, next)) = wanted else {
                assert_eq!(answer.status, 200, "{path}?{query}: {answer:?}");
                continue;
            };
            let text = |key: &str| answer.body[key].as_str().unwrap().to_owned();
            assert_eq!(
                (answer.status, text("found"), text("wanted")),
                (404, found.into(), names.into()),
                "{path}?{query}"
            );
            assert!(text("next").starts_with(next), "{path}?{query}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_for_some_sites_learns_nothing_of_others() {
    let stage = Stage::start().await;
    stage.configure().await;
    let token = stage.token("shop-only", "viewer", Some(&["shop"])).await;
    for path in PATHS {
        let ask =
            async |site: &str| stage.call("GET", &format!("{path}?site={site}"), &token, &[], None).await;
        assert_eq!(ask("shop").await.status, 200);
        let (of_another, unknown) = (ask("blog").await, ask("nosite").await);
        assert_eq!((of_another.status, unknown.status), (404, 404), "{path}");
        for key in ["error", "wanted", "next"] {
            assert_eq!(of_another.body[key], unknown.body[key], "{path}");
        }
        assert_eq!(unknown.body["wanted"], "shop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_known_as_soon_as_its_configuration_is_rolled_out_by_any_control() {
    let stage = Stage::start().await;
    let unknown = stage.get("/v1/stats?site=store").await;
    assert_eq!(
        (unknown.status, unknown.body["wanted"].as_str()),
        (404, Some("an existing one; there is none yet"))
    );
    stage.configure().await;
    stage.make_stable().await;
    let _node = stage.node("fra-1", "fra").await;
    let second = stage.another("c2").await;
    let text = SITES.replace("name = \"shop\"", "name = \"store\"")
        + "[[pop]]\nname = \"syd\"\nlocation = \"SYD\"\nedges = \"192.0.2.1\"\n";
    assert_eq!(
        stage.post("/v1/configurations", json!({ "text": text, "reason": "a test" })).await.status,
        201
    );
    assert_eq!(stage.get("/v1/stats?site=store").await.status, 404, "nobody may run it yet");
    let begun = stage.post("/v1/rollouts", json!({ "version": 2, "stage": "all" })).await;
    assert!(begun.status < 300, "{begun:?}");
    stage
        .wait("the roll-out", async |stage| stage.get("/v1/configurations").await.body["candidate"] == 2)
        .await;
    let path = "/v1/stats?site=store&site=shop&pop=syd&pop=fra";
    for address in [second.address(), stage.control.address()] {
        let answer = stage.call_at(address, "GET", path, &stage.admin, &[], None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    second.stop().await;
}
