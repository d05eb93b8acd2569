use serde_json::json;

use super::purges::in_service;
use super::stage::{SITES, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_checked_kept_and_never_changed() {
    let stage = Stage::start().await;
    let wrong = SITES.replace("origin", "orgin");
    let refused = stage
        .post("/v1/configurations", json!({ "text": wrong, "reason": "x", "source": "sites.toml" }))
        .await;
    assert_eq!(
        (refused.status, refused.body["error"].as_str()),
        (422, Some("the configuration cannot be used"))
    );
    let findings = refused.body["diagnostics"].as_array().unwrap();
    assert!(findings.len() >= 2, "all of them: {refused:?}");
    let first = findings.iter().find(|finding| finding["help"] == "did you mean \"origin\"?").unwrap();
    assert_eq!((&first["source"], &first["line"]), (&json!("sites.toml"), &json!(5)));
    assert_eq!(stage.get("/v1/configurations").await.body["versions"], json!([]));

    let dry = stage.post("/v1/configurations", json!({ "text": SITES, "dry_run": true })).await;
    assert_eq!((dry.status, &dry.body["version"]), (200, &json!(null)));
    let reasonless = stage.post("/v1/configurations", json!({ "text": SITES })).await;
    assert_eq!((reasonless.status, reasonless.body["error"].as_str()), (400, Some("reason is empty")));

    let added = stage.post("/v1/configurations", json!({ "text": SITES, "reason": "begin" })).await;
    assert_eq!(
        (added.status, &added.body["version"], &added.body["created"]),
        (201, &json!(1), &json!(true))
    );
    let again = stage.post("/v1/configurations", json!({ "text": SITES, "reason": "again" })).await;
    assert_eq!(
        (again.status, &again.body["version"], &again.body["created"]),
        (200, &json!(1), &json!(false))
    );

    let one = stage.get("/v1/configurations/1").await.body;
    assert_eq!(
        (one["text"].as_str(), one["author"].as_str(), one["reason"].as_str()),
        (Some(SITES), Some("admin"), Some("begin"))
    );
    let absent = stage.get("/v1/configurations/2").await;
    assert_eq!((absent.status, absent.body["wanted"].as_str()), (404, Some("1 to 1")));
    assert_eq!(stage.get("/v1/configurations/x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_test_of_a_site_refuses_the_configuration() {
    let stage = Stage::start().await;
    let text = format!("{SITES}[[site.test]]\nget = \"/a\"\nexpect = {{ ttl = \"30d\" }}\n");
    let refused = stage.post("/v1/configurations", json!({ "text": text, "reason": "x" })).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.body["diagnostics"][0]["message"].as_str().unwrap().starts_with("test failed"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_configuration_is_kept_in_pieces() {
    let stage = Stage::start().await;
    let text = format!("{SITES}# {}\n", "x".repeat(1_300_000));
    let added = stage.post("/v1/configurations", json!({ "text": text, "reason": "long" })).await;
    assert_eq!(added.status, 201, "{:?}", added.body["error"]);
    assert_eq!(stage.journal.cells("blobs/").await.unwrap().len(), 3);
    assert_eq!(stage.get("/v1/configurations/1").await.body["text"], text);
    let longer = json!({ "text": "#".repeat(9 << 20), "reason": "x" });
    assert_eq!(stage.post("/v1/configurations", longer).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_to_all_is_in_force_everywhere_at_once_and_can_be_taken_back() {
    let stage = Stage::start().await;
    let nodes = [stage.node("fra-1", "fra").await, stage.node("nyc-1", "nyc").await];
    in_service(&stage, 2).await;
    stage.configure().await;
    let run = async |wanted: Option<u64>| {
        stage
            .wait("the configuration at all nodes", async |_| {
                nodes.iter().all(|node| node.running() == wanted)
            })
            .await;
    };
    run(Some(1)).await;
    let listed = stage.get("/v1/nodes").await.body;
    assert!(listed["nodes"].as_array().unwrap().iter().all(|node| node["wanted"] == 1), "{listed}");

    let busy = stage.post("/v1/rollouts", json!({ "version": 1 })).await;
    assert_eq!((busy.status, busy.body["error"].as_str()), (409, Some("another roll-out is under way")));
    let undone = stage.call("POST", "/v1/rollouts/current/undo", &stage.admin, &[], None).await;
    assert_eq!((undone.status, undone.body["state"].as_str()), (200, Some("undone")));
    run(None).await;
    let none = stage.call("POST", "/v1/rollouts/current/pause", &stage.admin, &[], None).await;
    assert_eq!((none.status, none.body["error"].as_str()), (409, Some("no roll-out is under way")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_rollout_begins_at_one_node_and_says_what_it_waits_for() {
    let stage = Stage::start().await;
    let nodes = [
        stage.node("fra-1", "fra").await,
        stage.node("fra-2", "fra").await,
        stage.node("nyc-1", "nyc").await,
    ];
    in_service(&stage, 3).await;
    let added = stage.post("/v1/configurations", json!({ "text": SITES, "reason": "begin" })).await;
    assert_eq!(added.status, 201);
    for (wish, status, error) in [
        (json!({ "version": 2 }), 404, "there is no configuration of this number"),
        (json!({ "version": 1, "first": "fra-9" }), 404, "first: there is no edge of this name"),
        (
            json!({ "version": 1, "stage": "pop", "first": "lon" }),
            404,
            "first: no edge stands in a PoP of this name",
        ),
        (
            json!({ "version": 1, "gates": { "errors_factor": 0.5 } }),
            400,
            "gates: errors_factor is 0.5; it may be 1 to 100",
        ),
    ] {
        let answer = stage.post("/v1/rollouts", wish.clone()).await;
        assert_eq!((answer.status, answer.body["error"].as_str()), (status, Some(error)), "{wish}");
    }
    let begun = stage.post("/v1/rollouts", json!({ "version": 1, "first": "fra-2" })).await;
    assert_eq!((begun.status, begun.body["state"].as_str()), (202, Some("running")), "{begun:?}");
    let running = || nodes.iter().map(|node| node.running()).collect::<Vec<_>>();
    stage.wait("the first node", async |_| running() == [None, Some(1), None]).await;
    stage
        .wait("the stage", async |stage| {
            let current = stage.get("/v1/rollouts/current").await.body;
            current["stage"] == "edge" && current["running"] == 1 && current["waiting_for"].is_string()
        })
        .await;
    stage
        .wait("the measures", async |stage| {
            let measures = stage.get("/v1/rollouts/current").await.body["measures"].clone();
            let of =
                |name: &str| measures.as_array().unwrap().iter().find(|one| one["node"] == name).cloned();
            let is_measured =
                |one: &serde_json::Value| one["requests"].as_u64().is_some_and(|count| count > 0);
            of("fra-2").is_some_and(|one| one["is_candidate"] == true && is_measured(&one))
                && of("nyc-1").is_some_and(|one| one["is_candidate"] == false && is_measured(&one))
        })
        .await;
    let paused = stage.call("POST", "/v1/rollouts/current/pause", &stage.admin, &[], None).await;
    assert_eq!(paused.body["state"], "paused");
    stage
        .wait("the word", async |stage| {
            let waiting = stage.get("/v1/rollouts/current").await.body["waiting_for"].clone();
            waiting.as_str().is_some_and(|waiting| waiting.contains("paused"))
        })
        .await;
    let resumed = stage.call("POST", "/v1/rollouts/current/resume", &stage.admin, &[], None).await;
    assert_eq!(resumed.body["state"], "running");
    let rolled_back = stage.call("POST", "/v1/rollback", &stage.admin, &[], None).await;
    assert_eq!((rolled_back.status, rolled_back.body["state"].as_str()), (200, Some("undone")));
    stage.wait("the old state", async |_| running() == [None, None, None]).await;
    let nothing = stage.call("POST", "/v1/rollback", &stage.admin, &[], None).await;
    assert_eq!(
        (nothing.status, nothing.body["error"].as_str()),
        (409, Some("nothing was stable before what is now"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_configurations_are_compared_key_by_key() {
    let stage = Stage::start().await;
    let other = SITES.replacen("127.0.0.1:8000", "127.0.0.1:8002", 1);
    for text in [SITES, &other] {
        assert_eq!(
            stage.post("/v1/configurations", json!({ "text": text, "reason": "x" })).await.status,
            201
        );
    }
    let diff = stage.get("/v1/diff?from=1&to=2").await;
    assert_eq!(diff.status, 200, "{diff:?}");
    let change = &diff.body["changes"][0];
    assert_eq!((&change["site"], &change["key"]), (&json!("shop"), &json!("origin")));
    assert!(change["line"].as_str().unwrap().starts_with("site shop: origin: "), "{change}");
    assert_eq!(
        stage.get("/v1/diff").await.body["changes"],
        json!([]),
        "from nothing there is nothing to compare"
    );
    for (path, status) in [("/v1/diff?from=1&to=9", 404), ("/v1/diff?form=1", 400)] {
        assert_eq!(stage.get(path).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_goes_to_what_was_stable_before() {
    let stage = Stage::start().await;
    for text in [SITES, &format!("{SITES}# 2\n"), &format!("{SITES}# 3\n")] {
        assert_eq!(
            stage.post("/v1/configurations", json!({ "text": text, "reason": "x" })).await.status,
            201
        );
    }
    // As after roll-outs of 1, 3 and 1, each with its bake time.
    let cells = vec![("stables".to_owned(), Some(b"[1,3,1]".to_vec()))];
    stage.journal.commit(journal::Commit { cells, ..Default::default() }).await.unwrap();
    let back = stage.call("POST", "/v1/rollback", &stage.admin, &[], None).await;
    assert_eq!(
        (back.status, &back.body["version"], &back.body["stage"]),
        (202, &json!(3), &json!("all")),
        "{back:?}"
    );
    assert_eq!(back.body["reason"], "back to 3");
    let other = stage.post("/v1/rollback", json!({ "version": 2, "reason": "3 is bad" })).await;
    assert_eq!(
        (other.status, &other.body["version"]),
        (202, &json!(2)),
        "what was under way is taken back first"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rollback_neither_takes_the_first_one_back_nor_goes_further_unasked() {
    let stage = Stage::start().await;
    for text in [SITES, &format!("{SITES}# 2\n"), &format!("{SITES}# 3\n")] {
        let stored = stage.post("/v1/configurations", json!({ "text": text, "reason": "x" })).await;
        assert_eq!(stored.status, 201);
    }
    let stables = async |stables: &str| {
        let cells = vec![("stables".to_owned(), Some(stables.as_bytes().to_vec()))];
        stage.journal.commit(journal::Commit { cells, ..Default::default() }).await.unwrap();
    };
    assert_eq!(stage.post("/v1/rollouts", json!({ "version": 3, "stage": "all" })).await.status, 202);
    stage.make_stable().await;
    stables("[1,2,3]").await;
    let first = stage.call("POST", "/v1/rollback", &stage.admin, &[], None).await;
    assert_eq!((first.status, &first.body["version"]), (202, &json!(2)), "{first:?}");
    for again in [None, Some(json!({ "version": 2 }))] {
        let second = stage.call("POST", "/v1/rollback", &stage.admin, &[], again).await;
        assert_eq!(
            (second.status, &second.body["version"], &second.body["state"]),
            (200, &json!(2), &json!("running")),
            "{second:?}"
        );
    }
    let log = stage.get("/v1/audit").await.body;
    assert_eq!(log["entries"][0]["action"], "rollback", "nothing was done since: {log}");

    stage.make_stable().await;
    stables("[1,2,2]").await;
    let late = stage.call("POST", "/v1/rollback", &stage.admin, &[], None).await;
    assert_eq!(
        (late.status, late.body["found"].as_str(), late.body["next"].as_str()),
        (
            409,
            Some("to configuration 2, by admin"),
            Some("to go further back, name the version: perigee rollback --version 1")
        ),
        "{late:?}"
    );
    let further = stage.post("/v1/rollback", json!({ "version": 1 })).await;
    assert_eq!((further.status, &further.body["version"]), (202, &json!(1)), "{further:?}");
    let undone = stage.call("POST", "/v1/rollouts/current/undo", &stage.admin, &[], None).await;
    assert_eq!((undone.status, &undone.body["state"]), (200, &json!("undone")), "by that name it may be");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_texts_are_forgotten_and_what_is_known_of_them_is_not() {
    let stage = Stage::start().await;
    stage.first_sweep().await;
    let newest = control::limits::TEXTS_KEPT_MAX + 3;
    let add = async |number: usize| {
        let text = format!("{SITES}# {number}\n");
        let added = stage.post("/v1/configurations", json!({ "text": text, "reason": "x" })).await;
        assert_eq!(added.status, 201, "{added:?}");
    };
    for number in 1..newest {
        add(number).await;
    }
    // The very text of the first one.
    add(1).await;
    let cells = vec![("stables".to_owned(), Some(b"[3]".to_vec()))];
    stage.journal.commit(journal::Commit { cells, ..Default::default() }).await.unwrap();
    let texts = async || stage.journal.cells("blobs/").await.unwrap().len();
    assert_eq!(texts().await, newest - 1);
    let other = stage.another("c2").await;
    stage.wait("the sweep", async |_| texts().await == newest - 2).await;
    for number in [1, 3, 4, newest] {
        let kept = stage.get(&format!("/v1/configurations/{number}")).await;
        assert_eq!((kept.status, &kept.body["forgotten"]), (200, &json!(false)), "{kept:?}");
    }
    let gone = stage.get("/v1/configurations/2").await;
    assert_eq!(
        (gone.status, gone.body["error"].as_str()),
        (410, Some("the text of this configuration is not kept any more"))
    );
    assert_eq!(gone.body["found"], "configuration 2, added by admin");
    let next = Some("take the text from where you keep it, and add it again: perigee apply FILE");
    assert_eq!(gone.body["next"].as_str(), next);
    for (method, path, body) in [
        ("GET", "/v1/diff?from=2&to=3", None),
        ("POST", "/v1/rollouts", Some(json!({ "version": 2 }))),
        ("POST", "/v1/rollback", Some(json!({ "version": 2 }))),
    ] {
        let answer = stage.call(method, path, &stage.admin, &[], body).await;
        assert_eq!((answer.status, answer.body["next"].as_str()), (410, next), "{method} {path}");
    }
    let listed = stage.get("/v1/configurations").await.body;
    let forgotten = listed["versions"].as_array().unwrap().iter().filter(|one| one["forgotten"] == true);
    assert_eq!(forgotten.map(|one| &one["number"]).collect::<Vec<_>>(), [&json!(2)]);
    // Added again, it is there again.
    add(2).await;
    assert_eq!(stage.get("/v1/configurations/2").await.body["text"], format!("{SITES}# 2\n"));
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_with_a_key_that_takes_a_rollout_back_goes_back_no_further_when_it_is_sent_again() {
    let stage = Stage::start().await;
    for text in [SITES, &format!("{SITES}# 2\n"), &format!("{SITES}# 3\n")] {
        let stored = stage.post("/v1/configurations", json!({ "text": text, "reason": "x" })).await;
        assert_eq!(stored.status, 201);
    }
    let cells = vec![("stables".to_owned(), Some(b"[1,2]".to_vec()))];
    stage.journal.commit(journal::Commit { cells, ..Default::default() }).await.unwrap();
    assert_eq!(stage.post("/v1/rollouts", json!({ "version": 3, "stage": "all" })).await.status, 202);
    let key = [("idempotency-key", "3 is bad")];
    let first = stage.call("POST", "/v1/rollback", &stage.admin, &key, None).await;
    assert_eq!((first.status, &first.body["state"]), (200, &json!("undone")), "{first:?}");
    let again = stage.call("POST", "/v1/rollback", &stage.admin, &key, None).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    let current = stage.get("/v1/rollouts/current").await.body;
    assert_eq!((&current["version"], &current["state"]), (&json!(3), &json!("undone")));
    let other = stage.call("POST", "/v1/rollback", &stage.admin, &key, Some(json!({ "version": 1 }))).await;
    assert_eq!(other.status, 422, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nameservers_take_a_configuration_one_after_the_other_and_give_it_back_together() {
    let stage = Stage::start().await;
    let edge = stage.node("fra-1", "fra").await;
    let routers = [stage.router("ns1").await, stage.router("ns2").await];
    in_service(&stage, 3).await;
    stage.configure().await;
    let run = async |wanted: u64| {
        let run = || routers.iter().chain([&edge]).all(|node| node.running() == Some(wanted));
        stage.wait("the configuration at all nodes", async |_| run()).await;
    };
    run(1).await;
    stage.make_stable().await;
    let text = format!("{SITES}# 2\n");
    assert_eq!(stage.post("/v1/configurations", json!({ "text": text, "reason": "x" })).await.status, 201);
    let begun = stage.post("/v1/rollouts", json!({ "version": 2, "stage": "all" })).await;
    assert_eq!((begun.status, &begun.body["waiting"]), (202, &json!(["ns1", "ns2"])), "{begun:?}");
    run(2).await;
    // The order in which plans were told.
    let told = edge.told_text();
    let waited: Vec<usize> = told
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["change"]["plan"].clone())
        .filter(|plan| plan["candidate"]["version"]["number"] == 2)
        .map(|plan| plan["candidate"]["waiting"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(waited, [2, 1, 0], "{told}");
    let admitted = stage.get("/v1/audit").await.body;
    let count =
        admitted["entries"].as_array().unwrap().iter().filter(|one| one["action"] == "rollout.admit").count();
    assert_eq!(count, 2, "{admitted}");

    // The second one answers for nothing that it is asked for, which the first has not shown.
    routers[1].is_ill.store(true, std::sync::atomic::Ordering::Relaxed);
    run(1).await;
    let undone = stage.get("/v1/rollouts/current").await.body;
    assert_eq!((&undone["state"], &undone["harm"]["node"]), (&json!("undone"), &json!("ns2")), "{undone}");
    assert_eq!(undone["waiting"], json!([]));
}
