//! The PoPs of a cluster: where the configuration says that they are, and which nodes stand in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Shared;
use crate::clock::now_ms;
use crate::nodes::NodeRole;
use crate::problem::Problem;
use crate::tokens::{Caller, Role};

/// A PoP.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct PopShown {
    name: String,
    /// Degrees north; `null` when the configuration has no `[[pop]]` of this name.
    latitude: Option<f64>,
    /// Degrees east.
    longitude: Option<f64>,
    /// The operator's names for groups that it is in.
    regions: Vec<String>,
    /// Whether nobody new is sent there.
    drain: bool,
    /// Names of its edges.
    edges: Vec<String>,
    /// Of these, how many have been heard of in the last 30 seconds.
    in_service: usize,
    /// Requests that they have answered since their programs started.
    requests: u64,
}

/// All PoPs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pops {
    /// When it was so, in ms since 1970 by this control's clock.
    at_ms: i64,
    /// By name: those of the configuration in force, and those that only nodes name.
    pops: Vec<PopShown>,
}

/// The PoPs there are
#[utoipa::path(get, path = "/v1/pops", tag = "nodes",
    responses((status = 200, body = Pops), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Pops>, Problem> {
    caller.may(Role::Viewer)?;
    let view = shared.view.get();
    let mut pops: BTreeMap<String, PopShown> = BTreeMap::new();
    for pop in view.in_force().into_iter().flat_map(|(_, snapshot)| &snapshot.routing.pops) {
        let shown = PopShown {
            name: pop.name.to_string(),
            latitude: pop.location.map(|point| point.latitude),
            longitude: pop.location.map(|point| point.longitude),
            regions: pop.regions.iter().map(ToString::to_string).collect(),
            drain: pop.drain,
            ..PopShown::default()
        };
        pops.insert(shown.name.clone(), shown);
    }
    for (node, heard) in shared.nodes_heard().into_iter().filter(|(node, _)| node.role == NodeRole::Edge) {
        let pop = pops
            .entry(node.pop.clone())
            .or_insert_with(|| PopShown { name: node.pop.clone(), ..PopShown::default() });
        pop.edges.push(node.name.clone());
        pop.in_service += usize::from(shared.is_in_service(heard.as_ref()));
        pop.requests += heard.map_or(0, |heard| heard.report.vitals.requests);
    }
    Ok(Json(Pops { at_ms: now_ms(), pops: pops.into_values().collect() }))
}
