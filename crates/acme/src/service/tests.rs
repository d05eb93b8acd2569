//! One thread, no sleeping, and an authority that nobody answers for.

use std::path::PathBuf;

use super::*;
use crate::Kind;

const DAY: i64 = 86_400_000;
const NOW: Wall = Wall(20_000 * DAY);

/// What an edge was told.
#[derive(Default)]
struct Told {
    served: Mutex<Vec<Stored>>,
    events: Mutex<Vec<Event>>,
}

impl Node for Told {
    fn now(&self) -> Wall {
        NOW
    }

    fn serve(&self, certificates: Vec<Stored>) {
        *self.served.lock() = certificates;
    }

    fn answer(&self, _: Vec<Challenge>) {}

    fn tell(&self, event: Event) {
        self.events.lock().push(event);
    }
}

struct Stage {
    work: Rc<Work>,
    told: Arc<Told>,
    directory: PathBuf,
}

impl Stage {
    fn new(name: &str, domains: &[&str]) -> Stage {
        let directory = std::env::temp_dir().join(format!("perigee-acme-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let settings = Settings {
            directory: "https://127.0.0.1:9/dir".into(),
            email: None,
            ca_file: None,
            challenges: vec![Kind::Http01],
            settle: Duration::ZERO,
        };
        let store = Store::new(&directory, &settings.directory, "stage");
        store.create().unwrap();
        let shared = Arc::new(Shared {
            domains: Mutex::new(domains.iter().map(|domain| (*domain).into()).collect()),
            states: Mutex::default(),
            woken: Notify::new(),
            stopping: false.into(),
        });
        let told = Arc::new(Told::default());
        let node = told.clone();
        let work = Rc::new(Work { shared, settings, store, node, known: RefCell::default() });
        Stage { work, told, directory }
    }

    /// The directory of its authority.
    fn root(&self) -> PathBuf {
        self.directory.join("127.0.0.1_9_dir")
    }

    fn file(&self, domain: &str) -> PathBuf {
        self.root().join(format!("certificates/{domain}.pem"))
    }

    /// Puts a certificate of 90 days into the store that began so many days ago.
    fn put(&self, domain: &str, days_ago: i64) -> Stored {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut wanted = rcgen::CertificateParams::new([domain.to_owned()]).unwrap();
        let at = |ms: i64| std::time::UNIX_EPOCH + Duration::from_millis(ms as u64);
        wanted.not_before = at(NOW.0 - days_ago * DAY).into();
        wanted.not_after = at(NOW.0 + (90 - days_ago) * DAY).into();
        let pem = format!("{}{}", wanted.self_signed(&key).unwrap().pem(), key.serialize_pem());
        let stored = Stored::from_pem(domain, pem.into()).unwrap();
        self.work.store.put_certificate(&stored).unwrap();
        stored
    }

    /// Reads the store, and says what is served then.
    fn look(&self) -> Vec<Stored> {
        self.work.known.borrow_mut().read = None;
        self.work.look();
        self.told.served.lock().clone()
    }

    /// Orders, if that is due, and says what was told then.
    fn order(&self, domain: &str) -> Vec<Event> {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(self.work.order(domain));
        std::mem::take(&mut *self.told.events.lock())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn pems(certificates: &[Stored]) -> Vec<&[u8]> {
    certificates.iter().map(|stored| &*stored.pem).collect()
}

#[test]
fn what_the_store_does_not_give_any_more_is_served_on() {
    let stage = Stage::new("served-on", &["a.example", "b.example"]);
    let known = [stage.put("a.example", 30), stage.put("b.example", 30)];
    assert_eq!(pems(&stage.look()), pems(&known));
    let (root, file, away) = (stage.root(), stage.file("a.example"), stage.directory.join("away"));
    std::fs::rename(&root, &away).unwrap();
    assert_eq!(pems(&stage.look()), pems(&known), "the file system is not there");
    std::fs::rename(&away, &root).unwrap();
    for damaged in ["", "no certificate", &"a".repeat(300_000)] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(pems(&stage.look()), pems(&known), "a file of {} bytes", damaged.len());
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(pems(&stage.look()), pems(&known), "a file is not there");
    std::fs::create_dir(&file).unwrap();
    assert_eq!(pems(&stage.look()), pems(&known), "a file cannot be read");
    assert!(stage.work.shared.states.lock().iter().all(|state| state.due > NOW), "none is due");
    std::fs::remove_dir(&file).unwrap();
    let renewed = [stage.put("a.example", 0), known[1].clone()];
    assert_eq!(pems(&stage.look()), pems(&renewed));
    *stage.work.shared.domains.lock() = vec!["b.example".into()];
    assert_eq!(pems(&stage.look()), pems(&known[1..]), "what is not asked for any more");
}

#[test]
fn a_certificate_that_cannot_be_read_is_not_ordered_anew_and_a_damaged_one_is() {
    let stage = Stage::new("unreadable", &["a.example"]);
    let file = stage.file("a.example");
    std::fs::create_dir(&file).unwrap();
    let events = stage.order("a.example");
    let is_told = |what: &str| what.starts_with(&format!("{}: ", file.display()));
    assert!(matches!(&events[..], [Event::Trouble(what)] if is_told(what)), "{events:?}");
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, "no certificate").unwrap();
    let events = stage.order("a.example");
    assert!(matches!(&events[..], [Event::Failed { .. }]), "nobody answers for the authority: {events:?}");
}

#[test]
fn what_the_authority_suggests_is_for_the_certificate_that_it_was_asked_about() {
    let stage = Stage::new("suggestion", &["a.example"]);
    let old = stage.put("a.example", 30);
    let begun = Wall(NOW.0 - DAY);
    let suggestion = Suggestion {
        window: Some(Window { start: begun, end: begun }),
        not_after: old.validity.not_after,
        until: Wall(NOW.0 + DAY),
    };
    stage.work.known.borrow_mut().windows.insert("a.example".into(), suggestion);
    stage.look();
    let due = || stage.work.shared.states.lock()[0].due;
    assert_eq!(due(), begun);
    // Another edge has renewed it, and this one has not looked yet.
    stage.put("a.example", 0);
    assert_eq!(stage.order("a.example"), []);
    stage.look();
    assert!(due() > NOW);
}

#[test]
fn the_authority_is_asked_about_each_certificate_in_turn() {
    let domains = ["a.example", "b.example", "c.example"];
    let stage = Stage::new("turns", &domains);
    domains.iter().for_each(|domain| _ = stage.put(domain, 30));
    stage.look();
    let ask = || {
        let before: Vec<Wall> = domains.map(|domain| until(&stage, domain)).into();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async { stage.work.ask_for_suggestions() });
        domains
            .into_iter()
            .zip(before)
            .filter(|(domain, before)| until(&stage, domain) != *before)
            .map(|it| it.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        [ask(), ask(), ask(), ask()],
        [vec!["a.example"], vec!["b.example"], vec!["c.example"], vec![]]
    );
    for (domain, over) in [("a.example", 1), ("b.example", 3), ("c.example", 2)] {
        stage.work.known.borrow_mut().windows.get_mut(domain).unwrap().until = Wall(NOW.0 - over);
    }
    assert_eq!(
        [ask(), ask(), ask(), ask()],
        [vec!["b.example"], vec!["c.example"], vec!["a.example"], vec![]]
    );
}

fn until(stage: &Stage, domain: &str) -> Wall {
    stage.work.known.borrow().windows.get(domain).map_or(Wall(i64::MIN), |suggestion| suggestion.until)
}
