//! Where a client is sent, as programs read it: the answer of `GET /v1/route` and of `perigee route --json`.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::location::UNKNOWN;
use crate::table::{Ranking, World};

/// PoPs that are named at most.
const SHOWN_MAX: usize = 16;

/// A ranking in full: the client's cell, each PoP with what speaks for it, whose address is `spare` in the answer, and on what data.
pub fn ranking(world: &World, ip: IpAddr, ranking: &Ranking, spare: Option<u16>) -> Value {
    let cell = world.location.cells()[usize::from(ranking.cell)];
    let known = ranking.cell != UNKNOWN;
    let shown = ranking.order.iter().take(SHOWN_MAX);
    let order: Vec<Value> = shown
        .map(|one| {
            let pop = &world.pops[usize::from(one.pop)];
            json!({
                "pop": pop.name, "edges": pop.edges, "cname": pop.cname, "share": pop.share, "line": pop.line,
                "km": (known && pop.location.is_some()).then_some(one.km.round()),
                "prior_ms": one.estimate.prior_ms, "residual_ms": one.estimate.residual_ms,
                "samples": one.estimate.samples, "bias_ms": one.extra_ms, "score_ms": one.score_ms(),
            })
        })
        .collect();
    let spare = ranking.order.first().zip(spare).map(|(first, spare)| {
        let ms = world.spare_ms(first.pop, spare, f64::INFINITY);
        json!({ "pop": world.pops[usize::from(spare)].name, "farther_ms": ms })
    });
    json!({
        "ip": ip,
        "cell": known.then_some(ranking.cell),
        "latitude": known.then_some(cell.point.latitude),
        "longitude": known.then_some(cell.point.longitude),
        "country": std::str::from_utf8(&cell.country).ok().filter(|_| cell.country != [0; 2]),
        "why": ranking.why.as_str(),
        "order": order,
        "spare": spare,
        "attribution": world.location.attribution,
    })
}
