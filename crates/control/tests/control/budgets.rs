use model::budget::Amount;
use serde_json::json;
use trust::EnrolmentToken;

use super::stage::{SITES, Stage, TestNode};

/// One site, with a budget for so many nodes: 4 a second and 2 in flight for each, 40 and 20 to be leased.
fn sites(nodes: u32) -> String {
    let (rate, in_flight) = (40 + 4 * nodes, 20 + 2 * nodes);
    // Of what is reserved, each node gets its part and nothing is left over.
    let percent = (4 * nodes * 100).div_ceil(rate).max((2 * nodes * 100).div_ceil(in_flight));
    let budget = format!(
        "requests_per_second = {rate}, in_flight = {in_flight}, reserve_percent = {percent}, nodes = {nodes}"
    );
    SITES.replacen(
        "origin = \"http://127.0.0.1:8000\"",
        &format!("origin = \"http://127.0.0.1:8000\"\norigin_options = {{ budget = {{ {budget} }} }}"),
        1,
    )
}

async fn configure(stage: &Stage, text: &str) -> u16 {
    let added = stage.post("/v1/configurations", json!({ "text": text, "reason": "a test" })).await;
    if added.status == 201 {
        let version = &added.body["version"];
        let begun = stage.post("/v1/rollouts", json!({ "version": version, "stage": "all" })).await;
        assert!(begun.status < 300, "{begun:?}");
    }
    added.status
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controls_lease_one_budget_and_never_more_than_it() {
    let stage = Stage::start().await;
    let second = stage.another("c2").await;
    assert_eq!(configure(&stage, &sites(3)).await, 201);
    let near = stage.node("fra-1", "fra").await;
    let other = stage.node("ams-1", "ams").await;
    let (identity, pop) = (other.identity.clone(), "ams");
    other.stop();
    let far = TestNode::follow(second.address(), identity, pop);
    let budget = "shop http://127.0.0.1:8000";
    let policy = model::Snapshot::parse_cluster(&sites(3), "sites").snapshot.unwrap();
    let leasable = policy.sites[0].defaults.origin.budget.as_ref().unwrap().leasable();
    let check = || {
        let sum = near.granted().plus(far.granted());
        assert!(sum.is_within(leasable), "{sum:?} of {leasable:?}");
    };
    near.want(budget, Amount { requests_per_second: 5, in_flight: 1 });
    stage
        .wait("all of it for the only one that asks", async |_| {
            check();
            near.granted() == leasable
        })
        .await;
    let half =
        Amount { requests_per_second: leasable.requests_per_second / 2, in_flight: leasable.in_flight / 2 };
    let much = Amount { requests_per_second: 900, in_flight: 900 };
    near.want(budget, much);
    far.want(budget, much);
    stage
        .wait("half of it for each", async |_| {
            check();
            half.is_within(near.granted()) && half.is_within(far.granted())
        })
        .await;
    second.stop().await;
    stage
        .wait("who hears of no control to have nothing", async |_| {
            check();
            far.granted() == Amount::default() && half.is_within(near.granted())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_edges_are_enrolled_than_a_budget_has_floors_for() {
    let stage = Stage::start().await;
    assert_eq!(configure(&stage, &sites(1)).await, 201);
    let _first = stage.node("fra-1", "fra").await;
    let made = stage.post("/v1/enrolment-tokens", json!({ "role": "edge", "pop": "fra", "uses": 9 })).await;
    let token: EnrolmentToken = made.body["token"].as_str().unwrap().parse().unwrap();
    let refused = stage.join(&token, Some("fra-2")).await;
    let found = "the budget of site shop for http://127.0.0.1:8000 is for 1 edges";
    assert_eq!((refused.status, refused.body["found"].as_str()), (409, Some(found)));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_configuration_is_taken_whose_budget_has_no_floor_for_each_edge() {
    let stage = Stage::start().await;
    let _nodes = (stage.node("fra-1", "fra").await, stage.node("fra-2", "fra").await);
    let add = async |nodes| {
        stage.post("/v1/configurations", json!({ "text": sites(nodes), "reason": "a test" })).await
    };
    let refused = add(1).await;
    let error = "the cluster has more edges than a budget is for";
    assert_eq!((refused.status, refused.body["error"].as_str()), (409, Some(error)));
    assert_eq!(add(2).await.status, 201);
}
