//! Certificates by themselves over months, with time in the test's hand: renewed in time, and kept in force until their end
//! while the authority is down. Skipped, with a word, where pebble is not installed.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use acme::{Event, Kind, Node, Service, Settings, Store, Stored};
use edge::tls::{Certificate, Challenge, ChallengeCertificate};
use edge::{Clock, Edge, Handle, Options};
use model::Snapshot;
use semantics::Wall;
use world::authority::{Authority, PATIENCE, Ports, Shown, shown, wait_for};
use world::edges::{any_port, options};

const DOMAIN: &str = "www.shop.example";
const DAY: Duration = Duration::from_secs(86_400);

/// An edge with a clock that only the test moves, and the service that orders for it.
struct Stage {
    edge: Arc<Hands>,
    service: Service,
    directory: PathBuf,
}

/// What the service does to the edge.
struct Hands {
    handle: Handle,
    events: Mutex<Vec<Event>>,
}

impl Node for Hands {
    fn now(&self) -> Wall {
        self.handle.clock().wall()
    }

    fn serve(&self, stored: Vec<Stored>) {
        let certificate = |one: &Stored| Certificate::from_pem(&one.pem, &one.pem).expect("it was issued");
        self.handle.replace_certificates(stored.iter().map(certificate).collect()).expect("it is sound");
    }

    fn answer(&self, challenges: Vec<acme::Challenge>) {
        let answer = |one: acme::Challenge| {
            let (certificate, key) = &one.certificate;
            let certificate = ChallengeCertificate::from_pem(certificate.as_bytes(), key.as_bytes());
            let acme::Challenge { domain, token, key_authorization, .. } = one;
            Challenge { domain, token, key_authorization, certificate: certificate.expect("it was made") }
        };
        self.handle.replace_challenges(challenges.into_iter().map(answer).collect()).expect("they are sound");
    }

    fn tell(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// When an order that has failed three times is tried again, at the latest.
const AFTER_FAILURE: Duration = Duration::from_secs(16 * 60);

impl Stage {
    /// `domains` are ordered for; `kind` is how they are shown to be ours. The authority is told where to look.
    fn start(name: &str, kind: Kind, domains: &[&str]) -> Option<(Stage, Authority)> {
        let directory = std::env::temp_dir().join(format!("perigee-world-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let config = "[[site]]\nname = \"shop\"\ndomains = \"*\"\norigin = \"http://127.0.0.1:9\"\n";
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let clock = Clock::manual(Wall(since.as_millis() as i64));
        let options = Options { listen_tls: Some(vec![any_port()]), ..options(clock) };
        let handle = Edge::start(Snapshot::parse(config, "play.toml").snapshot.unwrap(), options).unwrap();
        let ports = Ports { http: handle.addresses()[0].port(), tls: handle.addresses_tls()[0].port() };
        let authority = Authority::start(&directory.join("authority"), ports)?;
        let edge = Arc::new(Hands { handle, events: Mutex::default() });
        let service = serve(&authority, &directory, kind, domains, &edge);
        Some((Stage { edge, service, directory }, authority))
    }

    fn tls(&self) -> SocketAddr {
        self.edge.handle.addresses_tls()[0]
    }

    fn pass(&self, time: Duration) {
        assert!(self.edge.handle.clock().advance(time));
    }

    fn now_s(&self) -> i64 {
        self.edge.handle.clock().wall().0 / 1000
    }

    fn wait_until_shown(&self, what: &str, is_wanted: impl Fn(&Shown) -> bool) -> Shown {
        let (mut found, mut failed) = (None, self.failed(DOMAIN));
        let deadline = Instant::now() + PATIENCE;
        while found.is_none() {
            // On a busy machine the authority's own questions come to nothing; then the next attempt's time comes at once.
            if std::mem::replace(&mut failed, self.failed(DOMAIN)) < self.failed(DOMAIN) {
                self.pass(AFTER_FAILURE);
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: {:?}",
                self.edge.events.lock().unwrap().last()
            );
            std::thread::sleep(Duration::from_millis(20));
            found = shown(self.tls(), DOMAIN).ok().filter(&is_wanted);
        }
        found.unwrap()
    }

    /// How many orders of the domain have failed.
    fn failed(&self, domain: &str) -> usize {
        let events = self.edge.events.lock().unwrap();
        events
            .iter()
            .filter(|event| matches!(event, Event::Failed { domain: one, .. } if **one == *domain))
            .count()
    }

    fn end(self) {
        self.service.stop();
        self.edge.handle.stop(Duration::ZERO);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn serve(
    authority: &Authority,
    directory: &Path,
    kind: Kind,
    domains: &[&str],
    edge: &Arc<Hands>,
) -> Service {
    let settings = Settings {
        directory: authority.url(),
        email: None,
        ca_file: Some(authority.ca_file()),
        challenges: vec![kind],
        settle: Duration::ZERO,
    };
    let store = Store::new(&directory.join("acme"), &settings.directory, "stage");
    let domains = domains.iter().map(|domain| (*domain).into()).collect();
    Service::start(settings, store, domains, edge.clone()).unwrap()
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_of_its_life_and_not_before() {
    let Some((stage, _authority)) = Stage::start("renewal", Kind::Http01, &[DOMAIN]) else { return };
    let first = stage.wait_until_shown("a certificate", |_| true);
    let life = first.not_after - stage.now_s();
    let two_thirds = Duration::from_secs(life as u64 / 3 * 2);
    stage.pass(two_thirds.saturating_sub(DAY));
    wait_for("a look at the new time", || {
        let states = stage.service.states();
        states.iter().any(|state| state.due.0 / 1000 - stage.now_s() < life / 20)
    });
    assert_eq!(stage.wait_until_shown("the first one", |_| true), first, "not before");
    // All renewals are spread over a thirtieth of the life.
    stage.pass(Duration::from_secs(life as u64 / 30) + DAY);
    stage.wait_until_shown("another certificate", |shown| shown.serial != first.serial);
    stage.end();
}

#[test]
fn an_authority_that_is_down_for_thirty_days_changes_nothing() {
    let Some((stage, mut authority)) = Stage::start("down", Kind::TlsAlpn01, &[DOMAIN]) else { return };
    let first = stage.wait_until_shown("a certificate", |_| true);
    authority.halt();
    let life = (first.not_after - stage.now_s()) as u64;
    stage.pass(Duration::from_secs(life / 3 * 2 + life / 30));
    for day in 1..=30 {
        wait_for("an attempt that fails", || stage.failed(DOMAIN) >= day);
        assert_eq!(shown(stage.tls(), DOMAIN).unwrap(), first, "after {day} days");
        stage.pass(DAY);
    }
    let reason = stage.service.states()[0].failures.clone().map(|failures| failures.reason);
    assert!(reason.is_some_and(|reason| reason.contains("cannot be reached")), "the operator is told why");
    // Until its end, and behind it: it is still the best that there is.
    stage.pass(Duration::from_secs(life));
    assert_eq!(shown(stage.tls(), DOMAIN).unwrap(), first);
    // The account is unknown to an authority that has lost its memory: a new store is begun.
    let account = std::fs::read_dir(stage.directory.join("acme")).unwrap().next().unwrap().unwrap();
    std::fs::remove_file(account.path().join("account.json")).unwrap();
    authority.resume();
    stage.pass(DAY);
    stage.wait_until_shown("another certificate", |shown| shown.serial != first.serial);
    stage.end();
}

#[test]
fn a_domain_that_fails_keeps_no_other_from_its_certificate() {
    // The authority refuses an underscore at once, each time, and no file has a name of 300 letters.
    let hopeless: Vec<String> = (0..6).map(|number| format!("{number}_.shop.example")).collect();
    let nameless: Vec<String> = (0..6).map(|number| format!("{number}.{}", "a.".repeat(150))).collect();
    let mut domains: Vec<&str> = hopeless.iter().chain(&nameless).map(String::as_str).collect();
    domains.push(DOMAIN);
    let Some((stage, _authority)) = Stage::start("others", Kind::Http01, &domains) else { return };
    stage.wait_until_shown("a certificate", |_| true);
    wait_for("the failures", || hopeless.iter().all(|domain| stage.failed(domain) == 1));
    assert!(shown(stage.tls(), "nobody.example").is_err(), "nothing is ordered for what was not asked for");
    stage.end();
}
