//! A node's certificate: had by joining, and renewed for as long as the node runs.

use std::sync::Arc;
use std::time::Duration;

use journal::feed::Dialer;
use parking_lot::RwLock;
use trust::{EnrolmentToken, Identity};

use super::join::{self, enroll};
use super::keep::Keep;
use super::{FETCH_RETRY_WITHIN, Who, chance_below, sleep_ms};
use crate::failure::Failure;
use crate::now_ms;

/// How long a certificate's renewal waits after a failure, at most: a part of its life, and not longer than this. And how long
/// after one that brought a certificate which is due already.
const RENEWAL_RETRY_MAX: Duration = Duration::from_secs(600);

/// How often it is looked whether the certificate is to be renewed, at least: clocks are set.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);

const DAY_SECS: i64 = 24 * 60 * 60;

/// What shows who a node is.
pub(crate) struct Certified {
    identity: RwLock<Arc<Identity>>,
}

impl Certified {
    /// What is kept; joins first, if there is nothing. `token`: reads the enrolment token.
    ///
    /// # Errors
    /// It has not joined and cannot; what is kept is of no use, or another node's.
    pub(crate) fn new(
        keep: &Keep,
        who: &Who,
        token: impl FnOnce() -> Result<Option<EnrolmentToken>, Failure>,
    ) -> Result<Self, Failure> {
        let known = Identity::load(keep.path()).map_err(|error| {
            Failure::new(error, "restore it, or remove the directory \"cluster\" and join anew with --token")
        })?;
        let identity = match known {
            Some(identity) => identity,
            None => join(keep, token()?, who)?,
        };
        let peer = identity.peer();
        let [joined, wanted] = [(peer.role, &peer.name), (who.role, &who.name)];
        if joined != wanted {
            let [joined, wanted] = [joined, wanted].map(|(role, name)| format!("{} {name:?}", role.as_str()));
            return Err(Failure::new(
                format!("this node has joined as {joined}, and {} makes it {wanted}", who.file),
                format!(
                    "give it that name in its file and start it as what it was; or name another state directory, and join anew with a token \
                     for {wanted}"
                ),
            ));
        }
        Ok(Certified { identity: RwLock::new(Arc::new(identity)) })
    }

    /// The newest.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.identity.read().clone()
    }

    /// Has the certificate renewed at two thirds of its life and a bit, drawn by chance, and tells of it. Ends never. By a clock
    /// that is days ahead each new one is due at once: then there is a pause, as each costs control a signature.
    pub(crate) async fn keep_renewed(&self, keep: &Keep, dialer: &Dialer, renewed_to: impl Fn(&Identity)) {
        let share = chance_below(1000) as i64;
        let (mut is_new, mut is_told) = (false, false);
        loop {
            let (begin, end) = self.identity().peer().valid;
            let life_ms = end.saturating_sub(begin).max(1).saturating_mul(1000);
            let due_ms = begin.saturating_mul(1000) + life_ms / 3 * 2 + life_ms / 12 / 1000 * share;
            let left_ms = due_ms.saturating_sub(now_ms());
            if left_ms > 0 {
                is_new = false;
                sleep_ms((left_ms as u64).min(RENEWAL_LOOK.as_millis() as u64)).await;
                continue;
            }
            if std::mem::take(&mut is_new) {
                if !is_told {
                    is_told = true;
                    eprintln!(
                        "perigee: the new certificate is due for renewal already: this machine's clock is {} days ahead of control's; set it (timedatectl)",
                        (now_ms() / 1000 - begin) / DAY_SECS
                    );
                }
                sleep_ms(RENEWAL_RETRY_MAX.as_millis() as u64).await;
                continue;
            }
            let identity = self.identity();
            match join::renew(keep, dialer, &identity).await {
                Ok(renewed) => {
                    renewed_to(&renewed);
                    *self.identity.write() = Arc::new(renewed);
                    eprintln!("perigee: this node's certificate was renewed");
                    is_new = true;
                }
                Err(why) => {
                    eprintln!("perigee: this node's certificate cannot be renewed: {why}; trying again");
                    // One that has ended is good for nothing else than this.
                    let most = if now_ms() > end.saturating_mul(1000) {
                        FETCH_RETRY_WITHIN
                    } else {
                        RENEWAL_RETRY_MAX
                    };
                    let within = (life_ms as u64 / 20).min(most.as_millis() as u64);
                    sleep_ms(within / 10 + chance_below(within.max(1))).await;
                }
            }
        }
    }
}

fn join(keep: &Keep, token: Option<EnrolmentToken>, who: &Who) -> Result<Identity, Failure> {
    let Some(token) = token else {
        return Err(Failure::new(
            format!("{}: this node has not joined its cluster", keep.path().display()),
            "have a token made by `perigee enroll` where control is, and start once with --token FILE",
        ));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("no runtime can be made: {error}"), ""))?;
    let identity = runtime.block_on(enroll(keep, &token, who))?;
    eprintln!("perigee: this node has joined as {}", who.name);
    Ok(identity)
}
