//! The sites of the configuration in force, as far as somebody who chooses one has to know them.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Shared;
use crate::problem::Problem;
use crate::tokens::{Caller, Role};

/// A site.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SiteShown {
    name: String,
    /// As the configuration writes them: `*.shop.example` is one of them.
    domains: Vec<String>,
    /// How many rules it has.
    rules: usize,
    /// The line of the configuration where it begins.
    line: u32,
}

/// All sites.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sites {
    /// The configuration in force; `null` before the first.
    configuration: Option<u64>,
    /// In the order of the file; those that the token is for, where it is for some only.
    sites: Vec<SiteShown>,
}

/// The sites there are
#[utoipa::path(get, path = "/v1/sites", tag = "configurations",
    responses((status = 200, body = Sites), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Sites>, Problem> {
    caller.may(Role::Viewer)?;
    let view = shared.view.get();
    let found = view.in_force();
    let sites = found.into_iter().flat_map(|(_, snapshot)| &snapshot.sites);
    let sites = sites.filter(|site| caller.is_for(&site.name)).map(|site| SiteShown {
        name: site.name.to_string(),
        domains: site.domains.iter().map(ToString::to_string).collect(),
        rules: site.rules.len(),
        line: site.line,
    });
    Ok(Json(Sites { configuration: found.map(|(number, _)| number), sites: sites.collect() }))
}
