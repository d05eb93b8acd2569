//! The built binary and a certificate authority that nobody here wrote: from an empty directory to a served certificate
//! without a hand, restarts, and several edges with one store. Skipped, with a word, where pebble is not installed.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use world::authority::{Authority, Ports, Shown, free_address, shown, wait_for};
use world::scratch::Scratch;

const DOMAIN: &str = "www.shop.example";

/// An edge with its own state directory; killed when dropped.
struct Edge {
    child: Child,
    tls: SocketAddr,
    errors: PathBuf,
}

impl Edge {
    fn start(scratch: &Scratch, name: &str, at: (SocketAddr, SocketAddr), acme: &str) -> Edge {
        let errors = scratch.0.join(format!("{name}.log"));
        let file = configure(scratch, name, at, acme);
        let child = Command::new(env!("CARGO_BIN_EXE_perigee"))
            .args(["serve", "--config", file.to_str().unwrap()])
            .args(["--state", scratch.0.join(name).to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let mut edge = Edge { child, tls: at.1, errors };
        wait_for("the edge", || {
            assert!(edge.child.try_wait().unwrap().is_none(), "it ended: {}", edge.said());
            edge.said().contains("Ctrl-C")
        });
        edge
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    /// What it shows once it shows something.
    fn wait_until_shown(&self) -> Shown {
        let mut found = None;
        let mut is_shown = || {
            found = shown(self.tls, DOMAIN).ok();
            found.is_some()
        };
        let deadline = std::time::Instant::now() + world::authority::PATIENCE;
        while !is_shown() {
            assert!(std::time::Instant::now() < deadline, "no certificate: {}", self.said());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        found.unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes an edge's file.
fn configure(scratch: &Scratch, name: &str, (plain, tls): (SocketAddr, SocketAddr), acme: &str) -> PathBuf {
    let text = format!(
        "[edge]\nlisten = \"{plain}\"\nlisten_tls = \"{tls}\"\nadmin = \"127.0.0.1:0\"\n{acme}\n\
         [[site]]\nname = \"shop\"\ndomains = [\"{DOMAIN}\", \"*.wild.example\"]\norigin = \"http://127.0.0.1:9\"\n"
    );
    let file = scratch.0.join(format!("{name}.toml"));
    fs::write(&file, text).unwrap();
    file
}

fn acme(authority: &Authority, more: &str) -> String {
    let (url, ca) = (authority.url(), authority.ca_file());
    format!(
        "[acme]\naccept_terms = true\nemail = \"admin@shop.example\"\ndirectory = \"{url}\"\nca_file = {:?}\n{more}",
        ca.display().to_string()
    )
}

fn addresses() -> (SocketAddr, SocketAddr) {
    (free_address(), free_address())
}

fn ports(addresses: (SocketAddr, SocketAddr)) -> Ports {
    Ports { http: addresses.0.port(), tls: addresses.1.port() }
}

/// Every file below `directory`, with its mode.
fn files(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::metadata(&path).unwrap().permissions().mode() & 0o777)),
        }
    }
    found
}

#[test]
fn an_empty_directory_becomes_a_served_certificate_that_a_restart_serves_at_once() {
    for kind in ["http-01", "tls-alpn-01"] {
        let scratch = Scratch::new(kind);
        let at = addresses();
        let Some(mut authority) = Authority::start(&scratch.0.join("authority"), ports(at)) else { return };
        let acme = acme(&authority, &format!("challenges = [\"{kind}\"]"));
        let edge = Edge::start(&scratch, "edge", at, &acme);
        assert!(
            shown(edge.tls, DOMAIN).is_err() || edge.said().contains("was issued"),
            "nothing is there yet"
        );
        let first = edge.wait_until_shown();
        assert!(first.issuer.contains("Pebble"), "{first:?}");
        wait_for("the word of it", || edge.said().contains(&format!("{DOMAIN}: a certificate was issued")));
        assert!(edge.said().contains("*.wild.example: wildcards take DNS-01"), "{}", edge.said());
        let listed = Command::new(env!("CARGO_BIN_EXE_perigee"))
            .args(["certificates", "--state", scratch.0.join("edge").to_str().unwrap()])
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let line = listed.lines().find(|line| line.starts_with(DOMAIN));
        assert!(line.is_some_and(|line| line.contains("  acme  ") && line.contains("Pebble")), "{listed}");
        for (path, mode) in files(&scratch.0.join("edge/acme")) {
            assert_eq!(mode, 0o600, "{}", path.display());
            assert!(
                !path.to_string_lossy().contains("challenges/"),
                "no challenge is left: {}",
                path.display()
            );
        }
        assert!(shown(edge.tls, "other.example").is_err(), "only configured domains are ordered for");
        drop(edge);
        authority.halt();
        let edge = Edge::start(&scratch, "edge", at, &acme);
        assert_eq!(shown(edge.tls, DOMAIN).unwrap(), first, "at once, without the authority");
    }
}

#[test]
fn a_challenge_is_answered_by_an_edge_that_did_not_order_it() {
    for kind in ["http-01", "tls-alpn-01"] {
        let scratch = Scratch::new(&format!("other-{kind}"));
        let (one, other) = (addresses(), addresses());
        // The authority reaches the other one only.
        let Some(authority) = Authority::start(&scratch.0.join("authority"), ports(other)) else { return };
        let store = scratch.0.join("store");
        let shared = format!("challenges = [\"{kind}\"]\nstore = {:?}\n", store.display().to_string());
        let answers =
            Edge::start(&scratch, "other", other, &acme(&authority, &format!("{shared}domains = []")));
        let orders = Edge::start(&scratch, "one", one, &acme(&authority, &shared));
        let first = orders.wait_until_shown();
        assert!(first.issuer.contains("Pebble"), "{first:?}");
        assert!(!answers.said().contains("was issued"), "{}", answers.said());
        // A third one finds the certificate in the store, and orders nothing.
        let third = Edge::start(&scratch, "third", addresses(), &acme(&authority, &shared));
        assert_eq!(shown(third.tls, DOMAIN).unwrap(), first);
    }
}

#[test]
fn a_store_that_is_away_takes_no_certificate_out_of_service() {
    let scratch = Scratch::new("away");
    let (at, store) = (addresses(), scratch.0.join("store"));
    let Some(mut authority) = Authority::start(&scratch.0.join("authority"), ports(at)) else { return };
    let settings = acme(&authority, &format!("store = {:?}\n", store.display().to_string()));
    let edge = Edge::start(&scratch, "edge", at, &settings);
    let first = edge.wait_until_shown();
    authority.halt();
    fs::rename(&store, scratch.0.join("elsewhere")).unwrap();
    wait_for("the word of it", || edge.said().contains("the store of certificates cannot be read"));
    assert_eq!(shown(edge.tls, DOMAIN).unwrap(), first);
    configure(&scratch, "edge", at, &settings.replace("admin@", "webmaster@"));
    wait_for("the new configuration", || edge.said().contains("is in force"));
    wait_for("a look at what is there", || edge.said().contains("cannot be reached"));
    assert_eq!(shown(edge.tls, DOMAIN).unwrap(), first);
}

/// A new one fills one by one.
#[test]
fn what_a_new_store_does_not_have_yet_is_served_on() {
    let scratch = Scratch::new("new-store");
    let (at, other) = (addresses(), "img.wild.example");
    let put = |store: &str, domain: &str| {
        let directory = scratch.0.join(store).join("127.0.0.1_9/certificates");
        fs::create_dir_all(&directory).unwrap();
        let made = rcgen::generate_simple_self_signed([domain.to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        fs::write(directory.join(format!("{domain}.pem")), pem).unwrap();
    };
    let settings = |store: &str| {
        format!(
            "[acme]\naccept_terms = true\nemail = \"admin@shop.example\"\ndirectory = \"https://127.0.0.1:9\"\n\
             domains = [\"{DOMAIN}\", \"{other}\"]\nstore = {:?}\n",
            scratch.0.join(store).display().to_string()
        )
    };
    [DOMAIN, other].iter().for_each(|domain| put("old", domain));
    let edge = Edge::start(&scratch, "edge", at, &settings("old"));
    let before = [DOMAIN, other].map(|domain| shown(edge.tls, domain).unwrap());
    put("new", DOMAIN);
    configure(&scratch, "edge", at, &settings("new"));
    wait_for("the certificate of the new store", || shown(edge.tls, DOMAIN).unwrap() != before[0]);
    assert_eq!(shown(edge.tls, other).unwrap(), before[1]);
    put("new", other);
    wait_for("the other one of the new store", || shown(edge.tls, other).unwrap() != before[1]);
}
