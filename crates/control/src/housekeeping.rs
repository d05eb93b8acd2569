//! What has to be done from time to time: the view, trimming, sweeping, control's own certificate.

use std::sync::Arc;
use std::time::Duration;

use journal::{Commit, Error};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};

use crate::Shared;
use crate::cells;
use crate::clock::now_ms;
use crate::limits::{TRIM_INTERVAL, VIEW_INTERVAL};
use crate::tls::Certificates;
use crate::{audit, configurations, idempotency, nodes, page_tests};

const TRIMMED_CELL: &str = "trimmed";

/// How often old audit entries, idempotency keys, texts and enrolment tokens are swept away.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// Up to where records have been taken away, and who decided it.
#[derive(Serialize, Deserialize)]
struct Trimmed {
    through: u64,
    by: String,
    at_ms: i64,
}

/// Reads the view again and again.
pub(crate) async fn keep_view(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(VIEW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What is wrong is noted and shown; the last picture stays.
        if shared.refresh_view().await.is_ok() {
            shared.forget_retired();
        }
    }
}

/// Trims and sweeps, and has control's certificate made anew.
pub(crate) async fn keep_house(shared: Arc<Shared>, certificates: Arc<Certificates>) {
    // The first time once the journal has probably been read.
    let mut ticks = tokio::time::interval_at(Instant::now() + Duration::from_secs(1), TRIM_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut daily = Instant::now();
    loop {
        ticks.tick().await;
        if let Err(error) = certificates.renew_when_due(&shared.authority, now_ms()) {
            eprintln!("perigee: control's certificate cannot be made anew: {error}");
        }
        let mut done = trim(&shared).await;
        if daily <= Instant::now() {
            daily = Instant::now() + DAILY;
            done = done.and(audit::sweep(&*shared.journal).await);
            done = done.and(idempotency::sweep(&shared.journal).await);
            done = done.and(page_tests::sweep(&*shared.journal).await);
            done = done.and(configurations::sweep(&*shared.journal).await);
            done = done.and(nodes::sweep(&*shared.journal).await);
        }
        if let Err(error) = done {
            eprintln!("perigee: old records cannot be taken away: {error}");
        }
    }
}

/// Takes old records away. Of several controls, one decides; all see to it that it is done.
pub(crate) async fn trim(shared: &Shared) -> Result<(), Error> {
    let found = cells::load::<Trimmed>(&*shared.journal, TRIMMED_CELL).await?;
    let (mut through, version) = found.map_or((0, 0), |(trimmed, version)| (trimmed.through, version));
    if let Some(wanted) = shared.tail.trim_through(now_ms()).filter(|wanted| *wanted > through) {
        let trimmed = Trimmed { through: wanted, by: shared.name.clone(), at_ms: now_ms() };
        let commit = Commit::swap(TRIMMED_CELL, version, Some(cells::value(&trimmed)?));
        match cells::commit(&*shared.journal, commit).await {
            Ok(_) => through = wanted,
            // Another control has just decided, and trims.
            Err(Error::Conflict(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    match through {
        0 => Ok(()),
        through => {
            shared.tail.trimmed(through);
            cells::bounded(shared.journal.trim(through)).await
        }
    }
}
