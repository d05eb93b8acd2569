use std::fs;
use std::sync::Arc;

use control::{Control, Options};
use journal::sqlite::Sqlite;
use journal::{Commit, Journal};
use serde_json::json;

use super::stage::{DOCUMENT, SITES, Stage, directory, loopback};

#[tokio::test(flavor = "multi_thread")]
async fn a_control_without_the_clusters_secret_says_where_to_get_it() {
    let stage = Stage::start().await;
    let state = stage.state("c2");
    let start = async || {
        let options = Options::new("c2", loopback(), state.clone(), Arc::clone(&stage.journal));
        Control::start(options).await.map(|_| ()).unwrap_err()
    };
    let error = start().await;
    assert!(
        error.contains("cluster-secret")
            && error.contains("copy it from the state directory of another control"),
        "{error}"
    );
    fs::write(state.join("cluster-secret"), "0".repeat(64)).unwrap();
    let error = start().await;
    assert!(error.contains("the secret of another cluster"), "{error}");
    fs::write(state.join("cluster-secret"), "x").unwrap();
    let error = start().await;
    assert!(error.contains("wanted 64 hex digits"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cluster_is_begun_in_the_state_directory_of_another() {
    let stage = Stage::start().await;
    let state = stage.state("c1");
    let files =
        || ["admin-token", "cluster-secret", "ca.pem"].map(|file| fs::read(state.join(file)).unwrap());
    let before = files();
    // As with a slip of the pen where the journal is named.
    let empty: Arc<dyn Journal> = Arc::new(journal::memory::Memory::new("another", 1));
    let options = Options::new("c1", loopback(), state.clone(), Arc::clone(&empty));
    let error = Control::start(options).await.map(|_| ()).unwrap_err();
    assert!(
        error.contains("ca.pem: this state directory is of a cluster, and the journal is empty"),
        "{error}"
    );
    assert!(files() == before && empty.cells("").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_controls_of_a_cluster_know_the_same() {
    let stage = Stage::start().await;
    stage.configure().await;
    let other = stage.another("c2").await;
    let token = stage.token("ci", "purger", None).await;
    stage
        .wait("the token at the other control", async |stage| {
            stage.call_at(other.address(), "GET", "/v1/purges", &token, &[], None).await.status == 200
        })
        .await;
    let body = Some(json!({ "site": "shop" }));
    let purged = stage.call_at(other.address(), "POST", "/v1/purges", &token, &[], body).await;
    assert_eq!(purged.status, 202, "{purged:?}");
    let path = purged.body["receipts"].as_str().unwrap();
    assert_eq!(stage.get(&format!("{path}?wait=5s")).await.status, 200, "known here as well");

    // What nodes say to one, the other knows.
    let _node = stage.node("fra-1", "fra").await;
    stage
        .wait("the receipt at the other control", async |stage| {
            let answer = stage.call_at(other.address(), "GET", path, &stage.admin, &[], None).await;
            answer.body["state"] == "done"
        })
        .await;

    // Of two who add at the same time, each gets a number of its own.
    let (a, b) = (format!("{SITES}# a\n"), format!("{SITES}# b\n"));
    let add = |text: String| Some(json!({ "text": text, "reason": "race" }));
    let (a, b) = tokio::join!(
        stage.call("POST", "/v1/configurations", &stage.admin, &[], add(a)),
        stage.call_at(other.address(), "POST", "/v1/configurations", &stage.admin, &[], add(b)),
    );
    let mut numbers = [a.body["version"].as_u64().unwrap(), b.body["version"].as_u64().unwrap()];
    numbers.sort_unstable();
    assert_eq!((a.status, b.status, numbers), (201, 201, [2, 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_everything_is_there_after_a_new_start() {
    let directory = directory();
    fs::create_dir_all(&directory).unwrap();
    let open = || {
        let chance: journal::Chance = Arc::new(|| u128::from(std::process::id()) << 64 | 7);
        Sqlite::open(&directory.join("journal.sqlite"), &chance)
            .map(|journal| Arc::new(journal) as Arc<dyn Journal>)
    };
    let start = async |journal| {
        Control::start(Options::new("c1", loopback(), directory.join("c1"), journal)).await.unwrap()
    };
    let journal = open().unwrap();
    let control = start(Arc::clone(&journal)).await;
    let admin = fs::read_to_string(directory.join("c1/admin-token")).unwrap().trim().to_owned();
    let fingerprint = {
        use rustls::pki_types::pem::PemObject;
        let pem = fs::read(directory.join("c1/ca.pem")).unwrap();
        trust::fingerprint(&rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap())
    };
    let call = async |address, method: &str, path: &str, body| {
        let tls = trust::pinned_client_config(&fingerprint, &[b"http/1.1"]).unwrap();
        super::stage::ask(address, tls, method, path, &admin, &[], body).await
    };
    let added = call(
        control.address(),
        "POST",
        "/v1/configurations",
        Some(json!({ "text": SITES, "reason": "begin" })),
    )
    .await;
    assert_eq!(added.status, 201, "{added:?}");
    let purged = call(control.address(), "POST", "/v1/purges", Some(json!({ "everything": true }))).await;
    assert_eq!(purged.status, 202, "{purged:?}");
    control.stop().await;
    drop(journal);

    let until = std::time::Instant::now() + super::stage::PATIENCE;
    let journal = loop {
        // What follows it lets it go within some seconds.
        match open() {
            Ok(journal) => break journal,
            Err(error) => assert!(std::time::Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let control = start(journal).await;
    let versions = call(control.address(), "GET", "/v1/configurations", None).await;
    assert_eq!(versions.body["versions"][0]["reason"], "begin");
    loop {
        let listed = call(control.address(), "GET", "/v1/purges", None).await;
        if listed.body["purges"][0]["position"] == purged.body["position"] {
            break;
        }
        assert!(std::time::Instant::now() < until, "{listed:?}");
    }
    control.stop().await;
    fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_is_in_the_document_and_says_what_it_takes() {
    let stage = Stage::start().await;
    let served = stage.get("/v1/openapi.json").await.body;
    assert_eq!(served, *DOCUMENT);
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1"), "{}", served["openapi"]);
    let paths = served["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{}", paths.len());
    for (path, item) in paths {
        for method in ["get", "post", "put", "delete", "patch"] {
            // What is documented is served, and what is not is refused as such: with 405, or 404 for the path.
            let target = path
                .replace("{position}", "1")
                .replace("{number}", "1")
                .replace("{name}", "x")
                .replace("{id}", "x")
                .replace("{hash}", "x");
            let body = (method == "post").then(|| json!({ "dry_run": 1 }));
            let answer = stage.call(&method.to_uppercase(), &target, &stage.admin, &[], body).await;
            assert_eq!(answer.status == 405, item.get(method).is_none(), "{method} {path}: {answer:?}");
        }
        let operations =
            item.as_object().unwrap().values().filter(|operation| operation.get("responses").is_some());
        for operation in operations {
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{path}");
            assert!(operation["responses"]["default"].is_object(), "{path}");
        }
    }
    let unknown = stage.get("/v1/purge").await;
    assert_eq!((unknown.status, unknown.body["error"].as_str()), (404, Some("control has no such path")));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_are_taken_away_and_the_newest_stays() {
    let journal: Arc<dyn Journal> = Arc::new(journal::memory::Memory::new("test", 1));
    let old = super::stage::now_ms() - control::limits::RECORDS_KEPT.as_millis() as i64 - 1;
    let mut positions = Vec::new();
    for at_ms in [old, old, super::stage::now_ms()] {
        let change = model::change::Change::Purge(Vec::new());
        let written = model::change::Written { by: "test".into(), at_ms, change };
        let record = Some(serde_json::to_string(&written).unwrap());
        positions.push(journal.commit(journal::Commit { record, ..Default::default() }).await.unwrap());
    }
    let stage = Stage::on(Arc::clone(&journal)).await;
    let other = stage.another("c2").await;
    stage
        .wait("the trimming", async |_| {
            matches!(journal.read(0, 10).await, Err(journal::Error::Trimmed(floor)) if floor.position == positions[1])
        })
        .await;
    let page = journal.read(positions[1], 10).await.unwrap();
    assert_eq!(page.records[0].position, positions[2]);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_controls_that_drive_a_rollout_each_step_is_written_once() {
    let stage = Stage::start().await;
    let others = [stage.another("c2").await, stage.another("c3").await];
    let added = stage.post("/v1/configurations", json!({ "text": SITES, "reason": "begin" })).await;
    assert_eq!(added.status, 201);
    let nodes = [stage.node("fra-1", "fra").await, stage.node("nyc-1", "nyc").await];
    super::purges::in_service(&stage, 2).await;
    for other in &others {
        stage
            .wait("the nodes at the other controls", async |stage| {
                let status =
                    stage.call_at(other.address(), "GET", "/v1/status", &stage.admin, &[], None).await;
                status.body["nodes_in_contact"] == 2
            })
            .await;
    }
    assert_eq!(stage.post("/v1/rollouts", json!({ "version": 1 })).await.status, 202);
    for address in [stage.control.address(), others[0].address(), others[1].address()] {
        stage
            .wait("all controls at the first stage", async |stage| {
                let current =
                    stage.call_at(address, "GET", "/v1/rollouts/current", &stage.admin, &[], None).await.body;
                current["stage"] == "edge" && current["waiting_for"].is_string()
            })
            .await;
    }
    let page = stage.journal.read(0, 500).await.unwrap();
    let plans = page.records.iter().filter(|record| record.text.contains("\"plan\""));
    assert_eq!(plans.count(), 1, "{page:?}");
    assert_eq!(nodes.iter().filter(|node| node.running() == Some(1)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_that_runs_and_is_not_heard_is_named() {
    let stage = Stage::start().await;
    let running = json!({ "name": "c9", "urls": ["https://127.0.0.1:1"], "at_ms": 0 }).to_string();
    let cells = vec![("controls/c9".to_owned(), Some(running.into_bytes()))];
    stage.journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
    stage
        .wait("the control that is not heard", async |stage| {
            stage.get("/v1/status").await.body["controls_unheard"] == json!(["c9"])
        })
        .await;
    // The one that is heard isn't.
    let other = stage.another("c2").await;
    stage
        .wait("both controls to know", async |stage| {
            let there = stage.call_at(other.address(), "GET", "/v1/status", &stage.admin, &[], None).await;
            let here = stage.get("/v1/status").await;
            [here, there].iter().all(|answer| answer.body["controls_unheard"] == json!(["c9"]))
        })
        .await;
}

/// Each sees but its own half of the nodes, and would take the others for gone.
#[tokio::test(flavor = "multi_thread")]
async fn another_control_of_the_same_name_is_named() {
    let stage = Stage::start().await;
    let unheard = async |stage: &Stage| stage.get("/v1/status").await.body["controls_unheard"].clone();
    stage
        .wait("its own note", async |stage| stage.journal.cell("controls/c1").await.unwrap().is_some())
        .await;
    assert_eq!(unheard(&stage).await, json!([]));
    let note = json!({ "name": "c1", "urls": ["https://127.0.0.1:1"], "at_ms": 1 }).to_string();
    let cells = vec![("controls/c1".to_owned(), Some(note.into_bytes()))];
    stage.journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
    stage.wait("the other one of its name", async |stage| unheard(stage).await == json!(["c1"])).await;
}

/// A newer control may write what this one cannot read.
#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_cannot_be_read_hides_no_other_one() {
    let stage = Stage::start().await;
    stage.configure().await;
    let _node = stage.node("fra-1", "fra").await;
    let strange = |name: &str| (name.to_owned(), Some(b"{\"strange\":1}".to_vec()));
    let cells = vec![strange("tokens/strange"), strange("nodes/strange")];
    stage.journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
    let token = stage.token("late", "viewer", None).await;
    stage
        .wait("what was made afterwards", async |stage| {
            let answer = stage.call("GET", "/v1/status", &token, &[], None).await;
            answer.status == 200
                && answer.body["journal_error"].as_str().is_some_and(|why| why.contains("strange"))
        })
        .await;
    // What a node has stored that nobody here knows of, nobody here can call purged.
    let purged = stage.call("POST", "/v1/purges", &stage.admin, &[], Some(json!({ "site": "shop" }))).await;
    assert_eq!(purged.status, 202, "{purged:?}");
    let path = purged.body["receipts"].as_str().unwrap();
    stage
        .wait("the receipt of the node that is known", async |stage| {
            !stage.get(path).await.body["receipts"].as_array().unwrap().is_empty()
        })
        .await;
    let proof = stage.get(path).await.body;
    assert_eq!((&proof["state"], &proof["laggards"][0]["node"]), (&json!("waiting"), &json!("strange")));
}
