use std::collections::BTreeSet;

use serde_json::json;

use super::stage::{SITES, Stage};

async fn bare(stage: &Stage, path: &str, headers: &[(&str, &str)]) -> super::stage::Answer {
    stage.call("GET", path, "", headers, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_is_whole_needs_no_token_and_runs_nothing_but_its_own_files() {
    let stage = Stage::start().await;
    let moved = bare(&stage, "/", &[]).await;
    assert_eq!((moved.status, moved.headers["location"].to_str().unwrap()), (307, "/dashboard/"));

    let page = bare(&stage, "/dashboard/", &[]).await;
    assert_eq!(
        (page.status, page.headers["content-type"].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    assert_eq!(page.headers["cache-control"], "no-cache");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = page.body.as_str().unwrap();
    assert!(!text.contains("style=") && !text.contains("<style") && !text.contains("onclick"), "{text}");

    // All that the document names, and all that this names in turn.
    let base = text.split('"').find(|part| part.starts_with("/dashboard/-/")).unwrap();
    let base = base[.."/dashboard/-/".len() + 17].to_owned();
    let named: BTreeSet<String> =
        text.split('"').filter_map(|part| part.strip_prefix(&*base)).map(str::to_owned).collect();
    let (mut known, mut waiting) = (named.clone(), named.into_iter().collect::<Vec<_>>());
    assert!(known.contains("main.js") && known.contains("style.css"), "{known:?}");
    while let Some(name) = waiting.pop() {
        let file = bare(&stage, &format!("{base}{name}"), &[]).await;
        assert_eq!(file.status, 200, "{name}: {file:?}");
        assert_eq!(file.headers["cache-control"], "public, max-age=31536000, immutable", "{name}");
        assert_eq!(file.headers["x-content-type-options"], "nosniff", "{name}");
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for import in file.body.as_str().unwrap().split("from \"").skip(1) {
            let path = import.split('"').next().unwrap();
            let path = match path.strip_prefix("../") {
                Some(path) => path.to_owned(),
                None if folder.is_empty() => path.trim_start_matches("./").to_owned(),
                None => format!("{folder}/{}", path.trim_start_matches("./")),
            };
            if known.insert(path.clone()) {
                waiting.push(path);
            }
        }
    }
    assert!(known.len() > 20, "{known:?}");
    let tag = page.headers["etag"].to_str().unwrap();
    let again = bare(&stage, "/dashboard/nodes", &[("if-none-match", &format!("\"other\", {tag}"))]).await;
    assert_eq!((again.status, again.body.as_str()), (304, Some("")));
    let other = bare(&stage, "/dashboard/-/0000000000000000/main.js", &[]).await;
    assert_eq!(other.status, 404, "the files of another version");
    assert_eq!(bare(&stage, "/v1/status", &[]).await.headers["cache-control"], "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_a_token_is_and_what_it_may_do_is_said_to_who_has_it() {
    let stage = Stage::start().await;
    stage.configure().await;
    let secret = stage.token("shop-team", "purger", Some(&["shop"])).await;
    let mine = stage.call("GET", "/v1/whoami", &secret, &[], None).await;
    assert_eq!(mine.status, 200, "{mine:?}");
    let found = (&mine.body["name"], &mine.body["role"], &mine.body["sites"]);
    assert_eq!(found, (&json!("shop-team"), &json!("purger"), &json!(["shop"])));
    assert!(!mine.body.to_string().contains(&secret), "the secret is said to nobody");
    assert_eq!(stage.call("GET", "/v1/whoami", "pgt_wrong", &[], None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_explained_by_what_is_in_force() {
    let stage = Stage::start().await;
    let early = stage.get("/v1/explain?url=http%3A%2F%2Fblog.example%2F").await;
    assert_eq!(early.status, 409, "{early:?}");
    stage.configure().await;
    let viewer = stage.token("look", "viewer", None).await;
    let path = "/v1/explain?url=https%3A%2F%2Fwww.shop.example%2Fa%3Fb%3D1&header=Accept%3A+text%2Fhtml";
    let explained = stage.call("GET", path, &viewer, &[], None).await;
    assert_eq!(explained.status, 200, "{explained:?}");
    assert_eq!(explained.body["site"]["name"], "shop");
    assert_eq!(explained.body["course"], "cache");
    assert_eq!(
        explained.body["key"],
        json!(["site 4:shop", "host 16:www.shop.example", "path 2:/a", "query 3:b=1", "scheme https"])
    );
    for (path, status, error) in [
        ("/v1/explain", 400, "url is not an absolute URL"),
        (
            "/v1/explain?url=http%3A%2F%2Fnobody.example%2F",
            404,
            "no site of the configuration serves this host",
        ),
        ("/v1/explain?url=http%3A%2F%2Fblog.example%2F&method=GE+T", 400, "this is not a method"),
        ("/v1/explain?url=http%3A%2F%2Fblog.example%2F&header=x", 400, "this is not a header line"),
        ("/v1/explain?url=http%3A%2F%2Fblog.example%2F&heder=x", 400, "unknown parameter"),
    ] {
        let refused = stage.get(path).await;
        assert_eq!((refused.status, refused.body["error"].as_str()), (status, Some(error)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_are_listed_for_those_whose_they_are() {
    let stage = Stage::start().await;
    let none = stage.get("/v1/sites").await;
    assert_eq!((&none.body["configuration"], &none.body["sites"]), (&json!(null), &json!([])));
    stage.configure().await;
    let names = |answer: &super::stage::Answer| {
        let sites = answer.body["sites"].as_array().unwrap().iter();
        sites.map(|site| site["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = stage.get("/v1/sites").await;
    assert_eq!(
        (all.body["configuration"].as_u64(), names(&all)),
        (Some(1), vec!["shop".into(), "blog".into()])
    );
    assert_eq!(all.body["sites"][0]["domains"], json!(["www.shop.example", "cdn.shop.example"]));
    let blogger = stage.token("blogger", "viewer", Some(&["blog"])).await;
    assert_eq!(names(&stage.call("GET", "/v1/sites", &blogger, &[], None).await), ["blog"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pops_have_their_places_from_the_configuration_and_their_edges_from_the_nodes() {
    let stage = Stage::start().await;
    let text =
        format!("{SITES}\n[[pop]]\nname = \"fra\"\nlocation = [50.11, 8.68]\nedges = [\"203.0.113.10\"]\n");
    let added = stage.post("/v1/configurations", json!({ "text": text, "reason": "begin" })).await;
    assert_eq!(added.status, 201, "{added:?}");
    stage.post("/v1/rollouts", json!({ "version": 1, "stage": "all" })).await;
    let (fra, _oslo) = (stage.node("fra-1", "fra").await, stage.node("osl-1", "osl").await);
    stage
        .wait("both PoPs", async |stage| {
            let pops = stage.get("/v1/pops").await.body;
            let [fra, osl] = &pops["pops"].as_array().unwrap()[..] else { return false };
            fra["latitude"] == 50.11
                && fra["edges"] == json!(["fra-1"])
                && fra["in_service"] == 1
                && osl["name"] == "osl"
                && osl["latitude"].is_null()
                && osl["edges"] == json!(["osl-1"])
        })
        .await;
    let nodes = stage.get("/v1/nodes").await.body;
    let silent = nodes["at_ms"].as_i64().unwrap() - nodes["nodes"][0]["heard_ms"].as_i64().unwrap();
    assert!(silent >= 0, "{nodes}");
    fra.stop();
}
