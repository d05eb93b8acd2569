//! Active health: asks each origin that has a probe configured, at its interval, and tells what came of it to the
//! shared state. One task in the process runs it; visitors' requests never wait for it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use model::origin::Probe;
use observe::Slot;
use semantics::Fields;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::body::{RequestBody, Upload};
use super::connect::Names;
use super::exchange::exchange;
use super::pool::Pool;
use super::shared::{OriginState, OriginsShared};
use super::{Askers, OriginRequest};

/// Probes all origins that the configuration names, now and after each [`OriginsShared::configure`]; never ends. Run
/// it once in the process, on a runtime on which `spawn_local` works. Dropping it stops all probes.
pub(crate) async fn probe_origins(shared: Arc<OriginsShared>) {
    let names = Rc::new(Names::default());
    let mut tasks = JoinSet::new();
    let mut running: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        // Listens before it looks, so that no change falls in between.
        let mut changed = std::pin::pin!(shared.changed.notified());
        changed.as_mut().enable();
        let states = shared.all();
        running.retain(|id, task| {
            let keep = states.iter().any(|state| state.id == *id);
            if !keep {
                task.abort();
            }
            keep
        });
        for state in states {
            let Some(probe) = state.probe.clone() else { continue };
            running.entry(state.id).or_insert_with(|| {
                tasks.spawn_local(repeat(shared.clone(), names.clone(), state.clone(), probe))
            });
        }
        changed.await;
        while tasks.try_join_next().is_some() {}
    }
}

/// One origin's probes, the first at once.
async fn repeat(shared: Arc<OriginsShared>, names: Rc<Names>, state: Arc<OriginState>, probe: Probe) {
    let mut ticks = interval(probe.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let well = is_well(&names, &state, &probe).await;
        state.probed(well, shared.now());
    }
}

/// Whether the origin answers, on a new connection and in time, with a status that means well.
async fn is_well(names: &Names, state: &Arc<OriginState>, probe: &Probe) -> bool {
    let deadline = Instant::now() + probe.timeout;
    let settings = &state.settings;
    let request = OriginRequest {
        method: "GET".into(),
        target: probe.path.clone(),
        host: settings.authority().into(),
        fields: Fields::from_iter([("User-Agent", "Perigee")]),
        body: RequestBody::Empty,
        retry_safe: false,
        takes_trailers: false,
        on_behalf_of: Some((Slot::NONE, 0)),
        upgrade: None,
        patience: None,
        askers: Askers::default(),
    };
    let pool = Rc::new(Pool::new(state.clone()));
    let Ok(Ok(mut lease)) = timeout_at(deadline, pool.open(names, true)).await else { return false };
    let upload = Upload::new(RequestBody::Empty);
    let answer = exchange(settings, &request, upload, &mut lease, Some(deadline), &|_, _| {}).await;
    answer.is_ok_and(|response| {
        let status = response.status().as_u16();
        probe.statuses.iter().any(|range| range.contains(&status))
    })
}
