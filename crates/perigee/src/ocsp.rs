//! OCSP responses by themselves: fetched from the responder that a certificate names, off every request's way, renewed at
//! half of their life, and kept on disk, so that a restart has them while the responder is down. A failure costs nothing but
//! a word and a count: the response that is there is shown until it ends, and the certificate is served in any case.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use edge::tls::{Certificate, Responder, STAPLE_BYTES_MAX};
use parking_lot::{Condvar, Mutex};
use semantics::Wall;

use crate::certificates::{Certificates, text};
use client::http;

/// Time for one exchange with a responder.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Room for the head of an answer beside the response.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The least time between two fetches for one certificate: responders hand out what they have made hours or days before.
const INTERVAL_MIN: Duration = Duration::from_secs(3600);

/// After the first failure; after each further one four times as long, up to [`RETRY_MAX`], as with orders.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(4 * 3600);

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(10);

/// How long a file is kept that is not written any more: no authority's responses hold that long.
const KEPT_FOR: Duration = Duration::from_secs(90 * 86_400);

/// The OCSP responses of all certificates that want one fetched.
pub(crate) struct Staples {
    directory: PathBuf,
    known: Mutex<Known>,
    /// Something has changed, or it is over.
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    is_over: bool,
    /// By the certificate's fingerprint.
    wanted: HashMap<String, Wanted>,
}

/// One certificate that wants one.
struct Wanted {
    certificate: Certificate,
    responder: Responder,
    /// When to ask next.
    due: Wall,
    failures: u32,
}

impl Staples {
    /// None yet. `directory` is where they are kept; it is made when the first one comes.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Staples { directory, known: Mutex::default(), changed: Condvar::new() }
    }

    /// Goes by these certificates from now on; returns them with what is known of each.
    pub(crate) fn follow(&self, mut certificates: Vec<Certificate>) -> Vec<Certificate> {
        let mut known = self.known.lock();
        let mut before = std::mem::take(&mut known.wanted);
        for certificate in &mut certificates {
            let Some(responder) = certificate.responder() else { continue };
            let name = certificate.fingerprint();
            let wanted = before.remove(&name).unwrap_or_else(|| self.remember(&name, certificate, responder));
            if let Some(staple) = wanted.certificate.staple() {
                // It was read for this certificate before.
                let _ = certificate.take_staple(staple.der());
            }
            known.wanted.insert(name, wanted);
        }
        self.changed.notify_all();
        certificates
    }

    /// What the disk has.
    fn remember(&self, name: &str, certificate: &Certificate, responder: Responder) -> Wanted {
        let mut certificate = certificate.clone();
        let kept = fs::read(self.directory.join(format!("{name}.der"))).ok();
        let due = kept.and_then(|der| Some(certificate.take_staple(&der).ok()?.half_life()));
        Wanted { certificate, responder, due: due.unwrap_or(Wall(i64::MIN)), failures: 0 }
    }

    /// Begins to fetch, and puts in force what comes.
    pub(crate) fn start(self: &Arc<Self>, certificates: Weak<Certificates>) -> io::Result<()> {
        let staples = self.clone();
        std::thread::Builder::new().name("ocsp".into()).spawn(move || staples.run(&certificates)).map(drop)
    }

    /// Ends fetching.
    pub(crate) fn stop(&self) {
        self.known.lock().is_over = true;
        self.changed.notify_all();
    }

    fn run(&self, certificates: &Weak<Certificates>) {
        let chance = RandomState::new();
        for turn in 0_u64.. {
            let Some(certificates) = certificates.upgrade() else { return };
            let Some(handle) = certificates.handle() else { return };
            let now = handle.clock().wall();
            let due = {
                let mut known = self.known.lock();
                if known.is_over {
                    return;
                }
                let due = known.wanted.iter().find(|(_, wanted)| wanted.due <= now);
                let due = due.map(|(name, wanted)| (name.clone(), wanted.responder.clone()));
                if due.is_none() {
                    self.changed.wait_for(&mut known, LOOK);
                }
                due
            };
            let Some((name, responder)) = due else { continue };
            let fetched = fetch(&responder);
            let registry = handle.registry();
            match self.take(&name, fetched, handle.clock().wall(), chance.hash_one(turn)) {
                None => {}
                Some(Ok(der)) => {
                    registry.count_fetched_staple();
                    if let Err(error) = self.keep(&name, &der) {
                        eprintln!("perigee: {}: cannot be written: {error}", self.directory.display());
                    }
                    certificates.publish().iter().for_each(|trouble| eprintln!("perigee: {trouble}"));
                }
                Some(Err(told)) => {
                    registry.count_failed_staple();
                    eprintln!("perigee: {told}");
                }
            }
        }
    }

    /// Notes what has come for a certificate, and when to ask again; `None` when nobody wants it any more.
    fn take(
        &self,
        name: &str,
        fetched: Result<Vec<u8>, String>,
        now: Wall,
        chance: u64,
    ) -> Option<Result<Vec<u8>, String>> {
        let mut known = self.known.lock();
        let wanted = known.wanted.get_mut(name)?;
        let taken = fetched.and_then(|der| {
            let staple = wanted.certificate.clone().take_staple(&der)?.clone();
            if !staple.is_fresh(now) {
                return Err(format!("has answered with what ended on {}", text(staple.next_update)));
            }
            wanted.due = after_success((staple.half_life(), staple.next_update), now, chance);
            wanted.failures = 0;
            let _ = wanted.certificate.take_staple(&der);
            Ok(der)
        });
        Some(taken.map_err(|what| {
            wanted.failures = wanted.failures.saturating_add(1);
            wanted.due = after_failure(wanted.failures, now, chance);
            format!(
                "no OCSP response for {}: {} {what}; attempt {} not before {}",
                wanted.certificate.names.join(", "),
                wanted.responder.url,
                wanted.failures + 1,
                text(wanted.due)
            )
        }))
    }

    fn keep(&self, name: &str, der: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        trust::write_private(&self.directory.join(format!("{name}.der")), der)?;
        // What nobody has asked for in months is of a certificate that is gone.
        for entry in fs::read_dir(&self.directory)?.flatten() {
            let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > KEPT_FOR) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// When to ask again: from half of its life on, spread over a tenth of it, so that certificates of one day do not all ask at
/// once.
fn after_success((half, end): (Wall, Wall), now: Wall, chance: u64) -> Wall {
    let tenth = end.0.saturating_sub(half.0).max(0) as u64 / 5;
    let next = Wall(half.0.saturating_add((chance % (tenth + 1)) as i64));
    next.max(Wall(now.0.saturating_add(INTERVAL_MIN.as_millis() as i64)))
}

/// When to try again after so many failures in a row: up to half as much later than [`RETRY`] says.
fn after_failure(failures: u32, now: Wall, chance: u64) -> Wall {
    let factor = 4_u32.saturating_pow(failures.saturating_sub(1).min(8));
    let wait = RETRY.saturating_mul(factor).min(RETRY_MAX).as_millis() as u64;
    Wall(now.0.saturating_add((wait + chance % (wait / 2 + 1)) as i64))
}

// --- Fetching ---

/// Asks a responder (RFC 6960 appendix A.1). The error is a sentence part that follows its URL.
fn fetch(responder: &Responder) -> Result<Vec<u8>, String> {
    let (authority, path) = split(&responder.url).ok_or("is no URL that can be asked")?;
    let named = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/ocsp-request\r\n\
         Accept: application/ocsp-response\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        responder.request.len()
    );
    let request = [head.as_bytes(), &responder.request].concat();
    let bytes_max = (STAPLE_BYTES_MAX + HEAD_BYTES_MAX) as u64;
    let answer = http::send(named, &request, bytes_max, TIME_MAX)
        .map_err(|error| format!("cannot be asked: {error}"))?;
    let (status, body) = http::parse_answer(&answer).map_err(|what| format!("has answered what {what}"))?;
    match status {
        200 => Ok(body.to_vec()),
        status => Err(format!("has answered with status {status}")),
    }
}

/// Authority and path of an `http://` URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let is_sound = !authority.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic());
    is_sound.then_some((authority, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_new_one_is_fetched_in_the_tenth_behind_the_middle_of_its_life_and_not_at_once() {
        let (half, end) = (Wall(50 * HOUR), Wall(100 * HOUR));
        assert_eq!(after_success((half, end), Wall(HOUR), 0), half);
        for chance in [1, 7_777_777_777, u64::MAX] {
            let next = after_success((half, end), Wall(HOUR), chance).0;
            assert!((50 * HOUR..=60 * HOUR).contains(&next), "{next}");
        }
        assert_eq!(after_success((half, end), Wall(70 * HOUR), 0), Wall(71 * HOUR), "it came half used up");
    }

    #[test]
    fn after_failures_it_takes_longer_each_time_up_to_six_hours() {
        let waits =
            |chance| [1, 2, 3, 4, 5, 6, 1000].map(|failures| after_failure(failures, Wall(0), chance).0);
        assert_eq!(waits(0), [1, 4, 16, 64, 240, 240, 240].map(|minutes| minutes * 60_000));
        for (least, some) in waits(0).into_iter().zip(waits(u64::MAX)) {
            assert!((least..=least * 3 / 2).contains(&some), "{least} {some}");
        }
    }

    #[test]
    fn a_url_is_taken_apart_or_refused() {
        assert_eq!(split("http://o.example"), Some(("o.example", "/")));
        assert_eq!(split("http://o.example:81/a/b"), Some(("o.example:81", "/a/b")));
        for bad in
            ["https://o.example/", "http:///a", "http://o.example/a\r\nHost: b", "http://o.example/a b", ""]
        {
            assert_eq!(split(bad), None, "{bad:?}");
        }
    }
}
