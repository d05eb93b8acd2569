//! Which certificates the edge serves: those of the operator's files, and behind them those that it orders by itself.
//! Wires `acme`, which knows no edge, to the edge, which knows of no ordering; `serve` starts it, a reload configures it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use acme::{Event, Kind, Service, Store, Stored};
use edge::Handle;
use edge::admin::CertificateStatus;
use edge::tls::{BadCertificate, Certificate, Challenge, ChallengeCertificate};
use model::Snapshot;
use model::settings::{AcmeChallenge, AcmeSettings};
use parking_lot::Mutex;
use semantics::Wall;
use semantics::date;

use crate::ocsp::Staples;

/// How long other edges may take to notice a challenge: the store is looked at once a second, and a network file system
/// believes what it knows of a directory for a while (the NFS mount option `acdirmin`, which should be `1`).
const SETTLE: Duration = Duration::from_secs(4);

/// From when on before its end a certificate is warned of. Let's Encrypt's are renewed a month before theirs.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);
/// How often it is.
const WARNING_INTERVAL: Duration = Duration::from_secs(86_400);

/// All certificates of a running edge.
pub(crate) struct Certificates {
    /// Where certificates are kept when the configuration names no place.
    state: PathBuf,
    /// Names this process among those that share a store.
    holder: String,
    handle: OnceLock<Arc<Handle>>,
    parts: Mutex<Parts>,
    running: Mutex<Option<Running>>,
    staples: Arc<Staples>,
    next_warning: Mutex<Wall>,
}

#[derive(Default)]
struct Parts {
    own: Vec<Certificate>,
    ordered: Vec<Certificate>,
}

/// The service that orders, as it was configured.
struct Running {
    settings: AcmeSettings,
    service: Service,
}

impl Certificates {
    /// None yet. `state` is the state directory.
    pub(crate) fn new(state: &Path) -> Arc<Self> {
        Arc::new(Certificates {
            state: state.to_owned(),
            holder: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            handle: OnceLock::new(),
            parts: Mutex::default(),
            running: Mutex::new(None),
            staples: Arc::new(Staples::new(state.join("ocsp"))),
            next_warning: Mutex::new(Wall(i64::MIN)),
        })
    }

    /// What an edge that starts with this configuration serves at once: its files, and what has been ordered before.
    pub(crate) fn at_start(&self, snapshot: &Snapshot, own: &[Certificate]) -> Vec<Certificate> {
        let stored = snapshot.edge.acme.iter().flat_map(|settings| {
            let store = self.store(settings);
            let domains = domains(settings, snapshot, own).0;
            domains.into_iter().filter_map(move |domain| store.certificate(&domain).ok().flatten())
        });
        let ordered = stored.filter_map(|stored| usable(&stored).ok()).collect();
        let mut parts = self.parts.lock();
        *parts = Parts { own: own.to_vec(), ordered };
        self.staples.follow(parts.all())
    }

    /// Says which edge it is that runs, and begins to order for it.
    pub(crate) fn attach(self: &Arc<Self>, handle: Arc<Handle>) {
        // It is attached once, when it has started.
        let _ = self.handle.set(handle);
        let own = self.parts.lock().own.clone();
        let mut troubles = self.configure(own);
        if let Err(error) = self.staples.start(Arc::downgrade(self)) {
            troubles.push(format!("OCSP responses cannot be fetched: {error}"));
        }
        troubles.iter().for_each(|trouble| eprintln!("perigee: {trouble}"));
    }

    /// Serves and orders as the configuration in force says; `own` are the certificates of its files. Returns what is
    /// doubtful, for the operator.
    pub(crate) fn configure(self: &Arc<Self>, own: Vec<Certificate>) -> Vec<String> {
        let Some(handle) = self.handle.get() else { return Vec::new() };
        handle.with_snapshot(|snapshot| self.follow(snapshot, own))
    }

    fn follow(self: &Arc<Self>, snapshot: &Snapshot, own: Vec<Certificate>) -> Vec<String> {
        let mut troubles = Vec::new();
        let mut running = self.running.lock();
        let settings = snapshot.edge.acme.as_ref();
        let (domains, warnings) =
            settings.map(|settings| domains(settings, snapshot, &own)).unwrap_or_default();
        troubles.extend(warnings);
        if running.as_ref().map(|running| &running.settings) != settings
            && let Some(old) = running.take()
        {
            old.service.stop();
        }
        {
            // What is still asked for is served on, also while a new service has not read its store, which may be away or empty.
            let asked: HashSet<_> = domains.iter().collect();
            let is_asked = |one: &Certificate| one.names.iter().any(|name| asked.contains(name));
            self.parts.lock().ordered.retain(is_asked);
        }
        if let Some(settings) = settings {
            match &*running {
                Some(running) => running.service.replace_domains(domains),
                None => match self.start(settings, domains) {
                    Ok(service) => *running = Some(Running { settings: settings.clone(), service }),
                    Err(error) => troubles.push(format!("certificates cannot be ordered: {error}")),
                },
            }
        }
        self.parts.lock().own = own;
        troubles.extend(self.publish());
        troubles
    }

    /// How it stands with each: the operator's files, then what is ordered.
    pub(crate) fn status(&self) -> Vec<CertificateStatus> {
        let own = self.parts.lock().own.clone();
        let files = own.into_iter().map(|certificate| CertificateStatus {
            names: certificate.names.iter().map(ToString::to_string).collect(),
            source: certificate.source.to_string(),
            issuer: Some(certificate.issuer.to_string()),
            not_after_ms: Some(certificate.not_after.0),
            ..CertificateStatus::default()
        });
        let states = self.running.lock().as_ref().map(|running| running.service.states()).unwrap_or_default();
        let ordered = states.into_iter().map(|state| CertificateStatus {
            names: vec![state.domain.to_string()],
            source: "acme".to_owned(),
            issuer: state.issuer,
            not_after_ms: state.validity.map(|validity| validity.not_after.0),
            next_order_ms: (state.due.0 > 0).then_some(state.due.0),
            failures: state.failures.as_ref().map_or(0, |failures| failures.count),
            last_error: state.failures.map(|failures| failures.reason),
        });
        files.chain(ordered).collect()
    }

    /// Warns of certificates that end soon, once a day; for whoever calls it often.
    pub(crate) fn warn(&self) {
        let Some(handle) = self.handle.get() else { return };
        let now = handle.clock().wall();
        let mut next = self.next_warning.lock();
        if now < *next {
            return;
        }
        *next = Wall(now.0.saturating_add(WARNING_INTERVAL.as_millis() as i64));
        for certificate in handle.certificates() {
            let warnings = [warning_of_end(&certificate, now), warning_of_staple(&certificate, now)];
            warnings.iter().flatten().for_each(|warning| eprintln!("perigee: {warning}"));
        }
    }

    /// The edge, once it runs.
    pub(crate) fn handle(&self) -> Option<&Arc<Handle>> {
        self.handle.get()
    }

    /// Ends ordering and fetching; what is served stays.
    pub(crate) fn stop(&self) {
        self.staples.stop();
        if let Some(running) = self.running.lock().take() {
            running.service.stop();
        }
    }

    fn start(self: &Arc<Self>, settings: &AcmeSettings, domains: Vec<Box<str>>) -> std::io::Result<Service> {
        let kind = |challenge: &AcmeChallenge| match challenge {
            AcmeChallenge::Http01 => Kind::Http01,
            AcmeChallenge::TlsAlpn01 => Kind::TlsAlpn01,
        };
        let ordered_by = acme::Settings {
            directory: settings.directory.clone(),
            email: settings.email.clone(),
            ca_file: settings.ca_file.clone(),
            challenges: settings.challenges.iter().map(kind).collect(),
            settle: if settings.store.is_some() { SETTLE } else { Duration::ZERO },
        };
        Service::start(ordered_by, self.store(settings), domains, Arc::new(Node(Arc::downgrade(self))))
    }

    fn store(&self, settings: &AcmeSettings) -> Store {
        let place = settings.store.clone().unwrap_or_else(|| self.state.join("acme"));
        Store::new(&place, &settings.directory, self.holder.clone())
    }

    /// Puts what is known in force.
    pub(crate) fn publish(&self) -> Option<String> {
        let handle = self.handle.get()?;
        // Held until it is in force: two at once could put the older ones into force last.
        let parts = self.parts.lock();
        let error = handle.replace_certificates(self.staples.follow(parts.all())).err()?;
        Some(format!("the certificates cannot be put in force: {error}; the old ones stay"))
    }
}

impl Parts {
    fn all(&self) -> Vec<Certificate> {
        self.own.iter().chain(&self.ordered).cloned().collect()
    }
}

/// What is said of an OCSP response that is missing, or has half of its life behind it. Of those that are fetched, each
/// failure is told at once.
fn warning_of_staple(certificate: &Certificate, now: Wall) -> Option<String> {
    if certificate.responder().is_some() {
        return None;
    }
    let names = certificate.names.join(", ");
    let next = "put a new one into the file that its [[certificate]] names; it comes into force by itself";
    match certificate.staple() {
        Some(staple) if !staple.is_fresh(now) => Some(format!(
            "the OCSP response for {names} has ended on {}, and is not shown; {next}",
            text(staple.next_update)
        )),
        Some(staple) if now >= staple.half_life() => {
            Some(format!("the OCSP response for {names} ends on {}; {next}", text(staple.next_update)))
        }
        None if certificate.lacks_staple(now) => Some(format!(
            "the certificate for {names} demands an OCSP response beside it (must-staple), and there is none: some browsers \
             refuse it; name one with ocsp = \"….der\" in its [[certificate]], or get a certificate without that"
        )),
        _ => None,
    }
}

/// What is said of a certificate that ends soon, or has ended.
fn warning_of_end(certificate: &Certificate, now: Wall) -> Option<String> {
    let left = certificate.not_after.0.saturating_sub(now.0);
    if left > WARN_BEFORE.as_millis() as i64 {
        return None;
    }
    let names = certificate.names.join(", ");
    let ends = match left {
        ..=0 => "has ended",
        _ => "ends",
    };
    let next = match &*certificate.source {
        "" => "it is ordered anew by itself; `perigee certificates` says what is in the way".to_owned(),
        file => format!("put a new one into {file}; it comes into force by itself"),
    };
    Some(format!("the certificate for {names} {ends} on {}; {next}", text(certificate.not_after)))
}

/// For which domains certificates are ordered; and of which none can be had, in words for the operator.
fn domains(
    settings: &AcmeSettings,
    snapshot: &Snapshot,
    own: &[Certificate],
) -> (Vec<Box<str>>, Vec<String>) {
    if let Some(domains) = &settings.domains {
        return (domains.clone(), Vec::new());
    }
    let all = snapshot.sites.iter().flat_map(|site| &site.domains);
    let missing = all.filter(|domain| !own.iter().any(|certificate| certificate.is_for(domain)));
    let (wildcards, exact): (Vec<_>, Vec<_>) = missing.cloned().partition(|domain| domain.contains('*'));
    let warnings = wildcards.iter().map(|domain| {
        format!(
            "no certificate can be ordered for {domain}: wildcards take DNS-01, which is not spoken yet; name hosts in \
             the site's domains or in acme.domains, or get one elsewhere and name it in [[certificate]]"
        )
    });
    (exact, warnings.collect())
}

fn usable(stored: &Stored) -> Result<Certificate, String> {
    let wrong = |bad| format!("the certificate that was issued for {}: {}", stored.domain, reason(bad));
    Certificate::from_pem(&stored.pem, &stored.pem).map_err(wrong)
}

fn answer_to(challenge: acme::Challenge) -> Result<Challenge, String> {
    let acme::Challenge { domain, token, key_authorization, certificate: (certificate, key) } = challenge;
    let certificate = ChallengeCertificate::from_pem(certificate.as_bytes(), key.as_bytes())
        .map_err(|bad| format!("the challenge for {domain} cannot be answered: {}", reason(bad)))?;
    Ok(Challenge { domain, token, key_authorization, certificate })
}

fn reason(bad: BadCertificate) -> String {
    match bad {
        BadCertificate::Chain(what) | BadCertificate::Key(what) => what,
    }
}

pub(crate) fn text(moment: Wall) -> String {
    date::format(moment).as_str().to_owned()
}

/// The edge, as the service that orders sees it.
struct Node(Weak<Certificates>);

impl Node {
    fn edge(&self) -> Option<(Arc<Certificates>, Arc<Handle>)> {
        let certificates = self.0.upgrade()?;
        let handle = certificates.handle.get()?.clone();
        Some((certificates, handle))
    }
}

impl acme::Node for Node {
    fn now(&self) -> Wall {
        self.edge().map_or(Wall(0), |(_, handle)| handle.clock().wall())
    }

    fn serve(&self, stored: Vec<Stored>) {
        let Some((certificates, _)) = self.edge() else { return };
        let (usable, wrong): (Vec<_>, Vec<_>) = stored.iter().map(usable).partition(Result::is_ok);
        wrong.into_iter().filter_map(Result::err).for_each(|what| eprintln!("perigee: {what}"));
        let mut stored: Vec<Certificate> = usable.into_iter().flatten().collect();
        {
            // What an earlier store had is served on until this one has it: a new one fills one by one.
            let mut parts = certificates.parts.lock();
            let is_had = |one: &Certificate| {
                stored.iter().any(|new| new.names.iter().any(|name| one.names.contains(name)))
            };
            parts.ordered.retain(|one| !is_had(one));
            parts.ordered.append(&mut stored);
        }
        certificates.publish().into_iter().for_each(|trouble| eprintln!("perigee: {trouble}"));
    }

    fn answer(&self, challenges: Vec<acme::Challenge>) {
        let Some((_, handle)) = self.edge() else { return };
        let (answers, wrong): (Vec<_>, Vec<_>) =
            challenges.into_iter().map(answer_to).partition(Result::is_ok);
        wrong.into_iter().filter_map(Result::err).for_each(|what| eprintln!("perigee: {what}"));
        if let Err(error) = handle.replace_challenges(answers.into_iter().flatten().collect()) {
            eprintln!("perigee: challenges of the certificate authority cannot be answered: {error}");
        }
    }

    fn tell(&self, event: Event) {
        let registry = self.edge().map(|(_, handle)| handle.registry().clone());
        match (&event, registry) {
            (Event::Issued { .. }, Some(registry)) => registry.count_issued_certificate(),
            (Event::Failed { .. }, Some(registry)) => registry.count_failed_order(),
            _ => {}
        }
        match event {
            Event::Issued { domain, not_after, renewal } => eprintln!(
                "perigee: {domain}: a certificate was issued; it holds until {}, and is renewed from {} on",
                text(not_after),
                text(renewal)
            ),
            Event::Failed { domain, reason, count, next } => eprintln!(
                "perigee: {domain}: no certificate: {reason}; attempt {} not before {}",
                count.saturating_add(1),
                text(next)
            ),
            Event::Trouble(what) => eprintln!("perigee: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use edge::tls::Certificate;
    use model::settings::{CertificateFiles, Ocsp};
    use world::responder::Responder;

    use super::*;

    #[test]
    fn an_ocsp_response_of_a_file_is_warned_of_from_half_of_its_life_on() {
        let directory = std::env::temp_dir().join(format!("perigee-staple-warning-{}", std::process::id()));
        let Some(responder) = Responder::new(&directory, "shop.example") else { return };
        let ocsp = Some(Ocsp::File(responder.answer(600)));
        let (chain, key) = (directory.join("chain.pem"), directory.join("key.pem"));
        let certificate = Certificate::read(&CertificateFiles { chain, key, ocsp }).unwrap();
        let begin = certificate.staple().unwrap().this_update;
        let warned = |minutes: i64| warning_of_staple(&certificate, Wall(begin.0 + minutes * 60_000));
        assert_eq!(warned(299), None);
        let warning = warned(300).unwrap();
        assert!(warning.starts_with("the OCSP response for shop.example ends on "), "{warning}");
        let warning = warned(600).unwrap();
        assert!(warning.starts_with("the OCSP response for shop.example has ended on "), "{warning}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
