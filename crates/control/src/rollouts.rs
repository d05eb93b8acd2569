//! Roll-outs: a configuration comes into force node by node, watched, and is undone by itself when it does harm
//! (`model::rollout`).
//!
//! Every control steps the same machine each second with what it has heard of the nodes. Whatever a step decides is written as
//! one commit of roll-out, plan and record that expects the roll-out to be what it was; of several controls that decide the
//! same, one wins, and the others read what it has written. So nobody has to be elected, and none is missed when it is gone.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use journal::feed::{PLAN_CELL, Seen};
use journal::{Commit, Error, Journal};
use model::change::{Audience, Change, Plan, Written};
use model::rollout::{Decision, Gates, NodeView, Pace, Rollout, Stage};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

use crate::Shared;
use crate::api::{answer, read_json};
use crate::audit;
use crate::cells;
use crate::clock::now_ms;
use crate::configurations;
use crate::idempotency::Keyed;
use crate::limits::BODY_BYTES_MAX;
use crate::nodes::{Node, NodeRole};
use crate::problem::Problem;
use crate::purges::check_reason;
use crate::tokens::{Caller, Role};

const ROLLOUT_CELL: &str = "rollout";
/// The numbers of the configurations that have been stable, the newest last.
const STABLES_CELL: &str = "stables";

/// How many of them are kept.
const STABLES_MAX: usize = 100;

/// How often the machine is stepped.
const STEP: Duration = Duration::from_secs(1);

/// What the roll-outs' driver knows beside what is written.
#[derive(Default)]
pub(crate) struct Driver {
    /// What the last step has found, and the cell's version that this was about.
    found: Mutex<(u64, Found)>,
}

/// What a step has found.
#[derive(Clone, Default)]
struct Found {
    waiting_for: Option<String>,
    measures: Vec<MeasureShown>,
}

/// Steps the roll-out, for ever.
pub(crate) async fn drive(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: Option<(Rollout, u64)> = None;
    loop {
        ticks.tick().await;
        match step(&shared, known.clone()).await {
            Ok(next) => known = next,
            // Somebody has written it at the same moment: that is read next.
            Err(Error::Conflict(_)) => {}
            // The step is taken again on what was.
            Err(error) => eprintln!("perigee: the roll-out cannot go on: {error}"),
        }
    }
}

/// One step of the roll-out that is written, with what has been watched so far if it is still the same.
async fn step(shared: &Shared, known: Option<(Rollout, u64)>) -> Result<Option<(Rollout, u64)>, Error> {
    let Some((written, version)) = cells::load::<Rollout>(&*shared.journal, ROLLOUT_CELL).await? else {
        return Ok(None);
    };
    let mut rollout = match known {
        Some((known, watched)) if watched == version => known,
        Some((mut known, _)) => {
            known.go_on_from(written);
            known
        }
        None => written,
    };
    let nodes = views(shared);
    let action = match rollout.step(now_ms(), &nodes) {
        None => return Ok(None),
        Some(Decision::Wait(what)) => {
            let measures = nodes.iter().filter_map(|node| measured(&rollout, node)).collect();
            *shared.driver.found.lock() = (version, Found { waiting_for: Some(what), measures });
            return Ok(Some((rollout, version)));
        }
        Some(Decision::Widen(_)) => "rollout.widen",
        Some(Decision::Admit(_)) => "rollout.admit",
        Some(Decision::Promote) => "rollout.promote",
        Some(Decision::Undo(_)) => "rollout.undo",
    };
    let why = rollout.harm.as_ref().map(ToString::to_string);
    let mut commit = Commit::default();
    audit::note(&mut commit, "control", action, subject(&rollout), why.as_deref())?;
    write(shared, &rollout, version, "roll-out", commit).await?;
    eprintln!("perigee: roll-out: configuration {}", subject(&rollout));
    // What has been watched stays good, if nobody has changed the roll-out since.
    let found =
        load(shared).await?.filter(|(found, _)| cells::value(found).ok() == cells::value(&rollout).ok());
    Ok(found.map(|(_, version)| (rollout, version)))
}

/// What the gates judge a node by.
fn measured(rollout: &Rollout, node: &NodeView) -> Option<MeasureShown> {
    let counted = rollout.counted(&node.name)?;
    Some(MeasureShown {
        node: node.name.clone(),
        is_candidate: rollout.is_for(node),
        requests: counted.requests,
        errors: counted.errors,
        misses: if node.is_router { 0 } else { counted.requests.saturating_sub(counted.hits) },
        starts: node.starts,
        memory_bytes: node.vitals.memory_bytes,
    })
}

fn subject(rollout: &Rollout) -> String {
    let to = match &rollout.audience {
        Audience::Nodes(nodes) => format!("on {}", nodes.join(", ")),
        Audience::Pops(pops) => format!("in {}", pops.join(", ")),
        Audience::All => match rollout.admitted() {
            Some(router) => format!("on {router} as well"),
            None => "everywhere".to_owned(),
        },
    };
    match rollout.stage {
        Stage::Promoted => format!("{} is stable", rollout.version.number),
        Stage::Undone => format!("{} is taken back", rollout.version.number),
        _ => format!("{} {to}", rollout.version.number),
    }
}

/// The nodes that configurations are for, with what was heard of them last.
fn nodes(shared: &Shared) -> impl Iterator<Item = (Arc<Node>, Option<Seen>)> {
    let has_one = |role| matches!(role, NodeRole::Edge | NodeRole::Router);
    shared.nodes_heard().into_iter().filter(move |(node, _)| has_one(node.role))
}

fn views(shared: &Shared) -> Vec<NodeView> {
    let view = nodes(shared).map(|(node, heard)| {
        let (reported_ms, report) = match heard {
            Some(seen) => (seen.heard_ms, Some(seen.report)),
            None => (0, None),
        };
        let refused = report.as_ref().and_then(|report| report.refused.as_ref());
        NodeView {
            name: node.name.clone(),
            pop: node.pop.clone(),
            is_router: node.role == NodeRole::Router,
            reported_ms,
            running: report.as_ref().and_then(|report| report.running),
            refused: refused.map(|refusal| (refusal.version.number, refusal.why.clone())),
            unwell: report.as_ref().and_then(|report| report.unwell.clone()),
            starts: report.as_ref().map_or(0, |report| report.starts),
            vitals: report.map(|report| report.vitals).unwrap_or_default(),
        }
    });
    view.collect()
}

/// Writes a roll-out where the one with this version is, with the plan that follows from it.
async fn write(
    shared: &Shared,
    rollout: &Rollout,
    version: u64,
    by: &str,
    mut commit: Commit,
) -> Result<(), Error> {
    let plan = rollout.plan();
    let (before, plan_version) = cells::load::<Plan>(&*shared.journal, PLAN_CELL).await?.unwrap_or_default();
    commit.expect.push((ROLLOUT_CELL.to_owned(), version));
    commit.cells.push((ROLLOUT_CELL.to_owned(), Some(cells::value(rollout)?)));
    if plan != before {
        commit.expect.push((PLAN_CELL.to_owned(), plan_version));
        commit.cells.push((PLAN_CELL.to_owned(), Some(cells::value(&plan)?)));
        let written = Written { by: by.to_owned(), at_ms: now_ms(), change: Change::Plan(plan.clone()) };
        commit.record =
            Some(serde_json::to_string(&written).map_err(|error| Error::Broken(error.to_string()))?);
    }
    if rollout.stage == Stage::Promoted {
        let found = cells::load::<Vec<u64>>(&*shared.journal, STABLES_CELL).await?;
        let (stables, stables_version) = found.unwrap_or_default();
        commit.expect.push((STABLES_CELL.to_owned(), stables_version));
        commit.cells.push((STABLES_CELL.to_owned(), Some(cells::value(&with_stable(stables, rollout))?)));
    }
    let position = cells::commit(&*shared.journal, commit).await?;
    shared.tail.advance(position);
    // It is written, whether it can be read just now or not.
    let _noted_and_shown = shared.refresh_view().await;
    Ok(())
}

/// What is stable, added to what has been. What a rollback has left is not gone back to.
fn with_stable(mut stables: Vec<u64>, rollout: &Rollout) -> Vec<u64> {
    if rollout.is_rollback {
        stables.retain(|number| rollout.stable.as_ref().is_none_or(|left| left.number != *number));
    }
    stables.push(rollout.version.number);
    let surplus = stables.len().saturating_sub(STABLES_MAX);
    stables.drain(..surplus);
    stables
}

/// The configurations that are on their way, or that may be gone back to; and the roll-out's cell with the version at which that is so.
pub(crate) async fn needed(journal: &dyn Journal) -> Result<(Vec<u64>, (String, u64)), Error> {
    let found = cells::load::<Rollout>(journal, ROLLOUT_CELL).await?;
    let (mut numbers, _) = cells::load::<Vec<u64>>(journal, STABLES_CELL).await?.unwrap_or_default();
    let version = found.as_ref().map_or(0, |(_, version)| *version);
    let rollout = found.into_iter().flat_map(|(rollout, _)| [Some(rollout.version), rollout.stable]);
    numbers.extend(rollout.flatten().map(|version| version.number));
    Ok((numbers, (ROLLOUT_CELL.to_owned(), version)))
}

// --- API ---

/// Where a roll-out begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BeginAt {
    /// At one node; then its PoP, then all.
    #[default]
    Edge,
    /// In one PoP; then all.
    Pop,
    /// At all edges at once; then at routers, one at a time.
    All,
}

/// A roll-out to begin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RolloutWanted {
    /// Which configuration.
    version: u64,
    /// Where it begins.
    #[serde(default)]
    stage: BeginAt,
    /// The node or the PoP where it begins; control chooses without.
    #[serde(default)]
    first: Option<String>,
    /// Why; the configuration's reason without.
    #[serde(default)]
    reason: Option<String>,
    /// What the candidate may be worse by, where it is not to be the default: `{"errors_factor": 3}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    gates: Option<Gates>,
    /// Whether stages take their least time however few requests there are.
    #[serde(default)]
    without_traffic: bool,
}

/// How a roll-out stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RolloutState {
    /// There has never been one.
    None,
    Running,
    /// An operator has paused it: it goes no further, and is undone all the same when it does harm.
    Paused,
    /// It is what is stable.
    Promoted,
    /// It was taken back.
    Undone,
}

/// When a stage began.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StageBegun {
    /// `measure`, `edge`, `pop`, `all`, `promoted` or `undone`.
    #[schema(value_type = String)]
    stage: Stage,
    /// In ms since 1970.
    at_ms: i64,
}

/// Who runs the candidate.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct AudienceShown {
    all: bool,
    pops: Vec<String>,
    nodes: Vec<String>,
}

/// What a candidate did harm by.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HarmShown {
    node: String,
    /// In what.
    #[schema(value_type = String)]
    measure: model::rollout::Measure,
    /// The value, and what was allowed.
    told: String,
}

/// What the gates judge a node by, counted since this stage began or since it runs the candidate.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MeasureShown {
    node: String,
    /// Whether it is to run the candidate; the others are what it is compared with.
    is_candidate: bool,
    /// Of a router, queries.
    requests: u64,
    /// Of these with a status of 500 to 599; of a router, for names that it does not know.
    errors: u64,
    /// Of these not from the cache.
    misses: u64,
    /// Starts of its program since it was enrolled.
    starts: u64,
    /// Resident memory now.
    memory_bytes: u64,
}

/// A roll-out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RolloutShown {
    state: RolloutState,
    /// The configuration; `null` when there has never been a roll-out.
    version: Option<u64>,
    /// What ran before, and is gone back to.
    stable: Option<u64>,
    by: Option<String>,
    reason: Option<String>,
    #[schema(value_type = Option<String>)]
    stage: Option<Stage>,
    audience: AudienceShown,
    /// Routers that do not run it yet: once all edges do, they take it one at a time.
    waiting: Vec<String>,
    /// Nodes in service that run it, and that are in service.
    running: usize,
    nodes: usize,
    /// What it waits for.
    waiting_for: Option<String>,
    /// What the gates judge by; empty once it is over, and in the first second of a stage.
    measures: Vec<MeasureShown>,
    /// When each stage began.
    began: Vec<StageBegun>,
    /// Why it was undone; `null` as well when somebody has taken it back.
    harm: Option<HarmShown>,
    /// Whether a stage went by with too few requests to judge.
    judged_on_few: bool,
    /// What it may be worse by.
    #[schema(value_type = Option<Object>)]
    gates: Option<Gates>,
}

fn shown(shared: &Shared, found: Option<(Rollout, u64)>) -> RolloutShown {
    let nodes = nodes(shared).filter(|(_, heard)| shared.is_in_service(heard.as_ref()));
    let running: Vec<Option<u64>> = nodes.map(|(_, heard)| heard?.report.running).collect();
    let Some((rollout, cell)) = found else {
        return RolloutShown {
            state: RolloutState::None,
            version: None,
            stable: None,
            by: None,
            reason: None,
            stage: None,
            audience: AudienceShown::default(),
            waiting: Vec::new(),
            running: 0,
            nodes: running.len(),
            waiting_for: None,
            measures: Vec::new(),
            began: Vec::new(),
            harm: None,
            judged_on_few: false,
            gates: None,
        };
    };
    let audience = match &rollout.audience {
        Audience::All => AudienceShown { all: true, ..AudienceShown::default() },
        Audience::Pops(pops) => AudienceShown { pops: pops.clone(), ..AudienceShown::default() },
        Audience::Nodes(nodes) => AudienceShown { nodes: nodes.clone(), ..AudienceShown::default() },
    };
    let state = match rollout.stage {
        Stage::Promoted => RolloutState::Promoted,
        Stage::Undone => RolloutState::Undone,
        _ if rollout.is_paused => RolloutState::Paused,
        _ => RolloutState::Running,
    };
    let (about, found) = shared.driver.found.lock().clone();
    let found = if about == cell && !rollout.is_over() { found } else { Found::default() };
    RolloutShown {
        state,
        version: Some(rollout.version.number),
        stable: rollout.stable.as_ref().map(|version| version.number),
        stage: Some(rollout.stage),
        audience,
        waiting: if rollout.is_over() { Vec::new() } else { rollout.waiting.clone() },
        running: running.iter().filter(|number| **number == Some(rollout.version.number)).count(),
        nodes: running.len(),
        waiting_for: found.waiting_for,
        measures: found.measures,
        began: rollout
            .began_ms
            .iter()
            .map(|(stage, at_ms)| StageBegun { stage: *stage, at_ms: *at_ms })
            .collect(),
        harm: rollout.harm.as_ref().map(|harm| HarmShown {
            node: harm.node.clone(),
            measure: harm.measure,
            told: harm.told.clone(),
        }),
        judged_on_few: rollout.judged_on_few,
        gates: Some(rollout.gates),
        by: Some(rollout.by),
        reason: Some(rollout.reason),
    }
}

async fn load(shared: &Shared) -> Result<Option<(Rollout, u64)>, Error> {
    cells::load::<Rollout>(&*shared.journal, ROLLOUT_CELL).await
}

/// The roll-out that is under way, or the last one
#[utoipa::path(get, path = "/v1/rollouts/current", tag = "configurations",
    responses((status = 200, body = RolloutShown), (status = "default", body = Problem)))]
pub(crate) async fn current(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<RolloutShown>, Problem> {
    caller.may(Role::Viewer)?;
    Ok(Json(shown(&shared, load(&shared).await?)))
}

/// Roll a configuration out
#[utoipa::path(post, path = "/v1/rollouts", tag = "configurations", request_body = RolloutWanted,
    params(("Idempotency-Key" = Option<String>, Header, description = "see POST /v1/purges")),
    responses((status = 202, body = RolloutShown), (status = "default", body = Problem)))]
pub(crate) async fn start(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Role::Editor)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let keyed = Keyed::of(&caller, "POST /v1/rollouts", &headers, &body)?;
    if let Some(replayed) = shared.replay(keyed.as_ref()).await? {
        return Ok(replayed);
    }
    let wanted: RolloutWanted = read_json(&headers, &body, r#"{"version": 4, "stage": "edge"}"#)?;
    begin(&shared, &caller, wanted, "rollout.start", keyed.as_ref()).await
}

async fn begin(
    shared: &Shared,
    caller: &Caller,
    wanted: RolloutWanted,
    action: &str,
    keyed: Option<&Keyed>,
) -> Result<Response, Problem> {
    let info = configurations::load(&*shared.journal, wanted.version).await?;
    let found = load(shared).await?;
    let (plan, _) = cells::load::<Plan>(&*shared.journal, PLAN_CELL).await?.unwrap_or_default();
    if let Some((running, _)) = found.as_ref().filter(|(rollout, _)| !rollout.is_over()) {
        return Err(Problem::new(StatusCode::CONFLICT, "another roll-out is under way")
            .found(format!("configuration {}, begun by {}", running.version.number, running.by))
            .next("wait for its end, or take it back first: perigee rollout undo"));
    }
    if plan.stable.as_ref().is_some_and(|stable| stable.number == info.number) {
        return Err(Problem::new(StatusCode::CONFLICT, "this configuration is the stable one already")
            .found(info.number.to_string()));
    }
    let reason = match &wanted.reason {
        Some(reason) => check_reason(reason)?.to_owned(),
        None => info.reason.clone(),
    };
    if let Some(gates) = &wanted.gates {
        gates.check().map_err(|error| Problem::bad(format!("gates: {error}")))?;
    }
    let (routers, nodes): (Vec<NodeView>, Vec<NodeView>) =
        views(shared).into_iter().partition(|node| node.is_router);
    let pace = if wanted.stage == BeginAt::All { Pace::AtOnce } else { Pace::Staged };
    let mut rollout =
        Rollout::begin(info.version(), plan.stable.clone(), pace, caller.name(), &reason, now_ms());
    rollout.gates = wanted.gates.unwrap_or_default();
    rollout.without_traffic = wanted.without_traffic;
    // To put a newer one in force is asked for by this name too.
    rollout.is_rollback =
        action == "rollback" && plan.stable.as_ref().is_some_and(|stable| info.number < stable.number);
    rollout.have_wait(routers.into_iter().map(|router| router.name));
    let stable = plan.stable.as_ref().map(|stable| stable.number);
    rollout.is_cold = configurations::difference(shared, stable, info.number).await?.is_cold;
    match (wanted.stage, wanted.first) {
        (BeginAt::All, Some(first)) => {
            return Err(
                Problem::bad("first: a roll-out to all at once has no first").found(format!("{first:?}"))
            );
        }
        (BeginAt::Edge, Some(first)) if !nodes.iter().any(|node| node.name == first) => {
            return Err(Problem::unknown(
                "first: there is no edge of this name",
                &first,
                nodes.iter().map(|node| &*node.name),
                "perigee nodes lists them",
            ));
        }
        (BeginAt::Edge, first) => rollout.canary = first,
        (BeginAt::Pop, first) => {
            let pop = match first {
                Some(first) if nodes.iter().any(|node| node.pop == first) => first,
                Some(first) => {
                    return Err(Problem::unknown(
                        "first: no edge stands in a PoP of this name",
                        &first,
                        nodes.iter().map(|node| &*node.pop),
                        "perigee nodes lists edges and their PoPs",
                    ));
                }
                None => smallest_pop(&nodes).ok_or_else(|| {
                    Problem::new(StatusCode::CONFLICT, "there is no edge, so there is no PoP to begin with")
                        .next("enrol an edge first: perigee enroll; or begin everywhere: stage \"all\"")
                })?,
            };
            rollout.begin_in_pop(&pop, now_ms());
        }
        (BeginAt::All, None) => {}
    }
    let version = found.as_ref().map_or(0, |(_, version)| *version);
    let text = configurations::needed_text(&*shared.journal, &info).await?;
    let mut commit = Commit { expect: vec![text], ..Commit::default() };
    audit::note(&mut commit, caller.name(), action, info.number.to_string(), Some(&reason))?;
    let answered = shown(shared, Some((rollout.clone(), version)));
    if let Some(keyed) = keyed {
        keyed.add_answer(&mut commit, &shared.vault, StatusCode::ACCEPTED, &answered)?;
    }
    match write(shared, &rollout, version, caller.name(), commit).await {
        Ok(()) => Ok(answer(StatusCode::ACCEPTED, &answered)),
        Err(Error::Conflict(_)) => shared.replay_now(keyed).await,
        Err(error) => Err(error.into()),
    }
}

fn smallest_pop(nodes: &[NodeView]) -> Option<String> {
    let size = |pop: &str| nodes.iter().filter(|node| node.pop == pop).count();
    nodes.iter().min_by_key(|node| (size(&node.pop), &node.pop)).map(|node| node.pop.clone())
}

/// Pause the roll-out
///
/// It goes no further, and is undone all the same when it does harm.
#[utoipa::path(post, path = "/v1/rollouts/current/pause", tag = "configurations",
    responses((status = 200, body = RolloutShown), (status = "default", body = Problem)))]
pub(crate) async fn pause(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<RolloutShown>, Problem> {
    let pause = |rollout: &mut Rollout| {
        rollout.is_paused = true;
        None
    };
    change(&shared, &caller, "rollout.pause", pause).await
}

/// How a roll-out goes on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeWanted {
    /// Whether stages take their least time from now on, however few requests there are.
    #[serde(default)]
    without_traffic: bool,
}

/// Let the roll-out go on
#[utoipa::path(post, path = "/v1/rollouts/current/resume", tag = "configurations", request_body = Option<ResumeWanted>,
    responses((status = 200, body = RolloutShown), (status = "default", body = Problem)))]
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<RolloutShown>, Problem> {
    caller.may(Role::Editor)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let wanted = match body.is_empty() {
        true => ResumeWanted::default(),
        false => read_json(&headers, &body, r#"{"without_traffic": true}"#)?,
    };
    let resume = |rollout: &mut Rollout| {
        rollout.is_paused = false;
        rollout.without_traffic |= wanted.without_traffic;
        None
    };
    change(&shared, &caller, "rollout.resume", resume).await
}

/// Take the roll-out back
#[utoipa::path(post, path = "/v1/rollouts/current/undo", tag = "configurations",
    responses((status = 200, body = RolloutShown), (status = "default", body = Problem)))]
pub(crate) async fn undo(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<RolloutShown>, Problem> {
    let undo = |rollout: &mut Rollout| {
        rollout.take_back(now_ms());
        None
    };
    change(&shared, &caller, "rollout.undo", undo).await
}

/// `change` says, too, under which key the answer is to be found from now on, if under one. Where it changes nothing, nothing is written.
async fn change<'k>(
    shared: &Shared,
    caller: &Caller,
    action: &str,
    change: impl Fn(&mut Rollout) -> Option<&'k Keyed>,
) -> Result<Json<RolloutShown>, Problem> {
    /// While the drivers write, too.
    const ATTEMPTS_MAX: usize = 5;
    caller.may(Role::Editor)?;
    for _ in 0..ATTEMPTS_MAX {
        let Some((mut rollout, version)) = load(shared).await?.filter(|(rollout, _)| !rollout.is_over())
        else {
            return Err(Problem::new(StatusCode::CONFLICT, "no roll-out is under way")
                .next("begin one: perigee apply; to go back to an older configuration: perigee rollback"));
        };
        let before = cells::value(&rollout)?;
        let keyed = change(&mut rollout);
        if cells::value(&rollout)? == before {
            return Ok(Json(shown(shared, Some((rollout, version)))));
        }
        let mut commit = Commit::default();
        audit::note(&mut commit, caller.name(), action, rollout.version.number.to_string(), None)?;
        // Nothing has been found yet about what it is from now on.
        let answered = shown(shared, Some((rollout.clone(), 0)));
        if let Some(keyed) = keyed {
            keyed.add_answer(&mut commit, &shared.vault, StatusCode::OK, &answered)?;
        }
        match write(shared, &rollout, version, caller.name(), commit).await {
            Ok(()) => return Ok(Json(answered)),
            Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Conflict(ROLLOUT_CELL.to_owned()).into())
}

/// A configuration to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackWanted {
    /// Which; without, what was stable before.
    #[serde(default)]
    version: Option<u64>,
    /// Why.
    #[serde(default)]
    reason: Option<String>,
}

/// Go back to an older configuration, at all edges at once
///
/// Routers take it after them, one at a time. A roll-out that is under way is taken back first, and that is all when no version is named.
/// One that goes back itself is left as it is: it takes another version, or `undo`, to change its way.
#[utoipa::path(post, path = "/v1/rollback", tag = "configurations", request_body = Option<RollbackWanted>,
    params(("Idempotency-Key" = Option<String>, Header, description = "see POST /v1/purges")),
    responses((status = 200, body = RolloutShown, description = "the roll-out under way was taken back, or goes back already"),
        (status = 202, body = RolloutShown), (status = "default", body = Problem)))]
pub(crate) async fn roll_back(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Role::Editor)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let keyed = Keyed::of(&caller, "POST /v1/rollback", &headers, &body)?;
    if let Some(replayed) = shared.replay(keyed.as_ref()).await? {
        return Ok(replayed);
    }
    let wanted = match body.is_empty() {
        true => RollbackWanted::default(),
        false => read_json(&headers, &body, r#"{"version": 3}"#)?,
    };
    let last = load(&shared).await?.map(|(rollout, _)| rollout);
    if last.as_ref().is_some_and(|rollout| !rollout.is_over()) {
        let is_all = |stable: Option<u64>| wanted.version.is_none() || wanted.version == stable;
        let undo = |rollout: &mut Rollout| {
            let is_wanted = wanted.version.is_none_or(|wanted| wanted == rollout.version.number);
            if rollout.is_rollback && is_wanted {
                return None;
            }
            rollout.take_back(now_ms());
            keyed.as_ref().filter(|_| is_all(rollout.stable.as_ref().map(|stable| stable.number)))
        };
        match change(&shared, &caller, "rollout.undo", undo).await {
            Ok(stands) if stands.state != RolloutState::Undone || is_all(stands.stable) => {
                return Ok(answer(StatusCode::OK, &stands.0));
            }
            Ok(_) => {}
            // The same request may have just done it.
            Err(problem) => return shared.replay(keyed.as_ref()).await?.ok_or(problem),
        }
    }
    let version = match wanted.version {
        Some(version) => version,
        None => before(&shared, last.as_ref()).await?,
    };
    let wanted = RolloutWanted {
        version,
        stage: BeginAt::All,
        first: None,
        reason: Some(wanted.reason.unwrap_or_else(|| format!("back to {version}"))),
        gates: None,
        without_traffic: false,
    };
    begin(&shared, &caller, wanted, "rollback", keyed.as_ref()).await
}

/// What was stable before what is stable now. Not when the last roll-out has gone back: whoever says it again may mean what that one has
/// left.
async fn before(shared: &Shared, last: Option<&Rollout>) -> Result<u64, Problem> {
    let (stables, _) = cells::load::<Vec<u64>>(&*shared.journal, STABLES_CELL).await?.unwrap_or_default();
    let now = stables.last();
    let before = stables.iter().rev().find(|number| Some(*number) != now).ok_or_else(|| {
        Problem::new(StatusCode::CONFLICT, "nothing was stable before what is now")
            .next("name the version: perigee rollback --version N; perigee versions lists them")
    })?;
    match last.filter(|last| last.is_rollback && last.stage == Stage::Promoted) {
        None => Ok(*before),
        Some(last) => Err(Problem::new(StatusCode::CONFLICT, "the last roll-out has gone back already")
            .found(format!("to configuration {}, by {}", last.version.number, last.by))
            .next(match stables.iter().rev().find(|number| **number < last.version.number) {
                Some(older) => format!("to go further back, name the version: perigee rollback --version {older}"),
                None => "nothing before it was stable; perigee versions lists all, perigee rollback --version N takes any".to_owned(),
            })),
    }
}

#[cfg(test)]
mod tests {
    use model::change::Version;

    use super::*;

    #[test]
    fn what_a_rollback_has_left_is_not_gone_back_to() {
        let version = |number| Version { number, hash: String::new(), signature: String::new() };
        for (stables, from, to, is_rollback, wanted) in [
            (&[1, 2, 3][..], 3, 4, false, &[1, 2, 3, 4][..]),
            (&[1, 2, 3], 3, 2, false, &[1, 2, 3, 2]),
            (&[1, 2, 3], 3, 2, true, &[1, 2, 2]),
            (&[1, 3, 2, 3], 3, 1, true, &[1, 2, 1]),
        ] {
            let (to, from) = (version(to), Some(version(from)));
            let mut rollout = Rollout::begin(to, from, Pace::AtOnce, "anna", "", 0);
            rollout.is_rollback = is_rollback;
            assert_eq!(with_stable(stables.to_vec(), &rollout), wanted);
        }
    }
}
