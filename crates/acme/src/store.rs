//! The directory that one or several edges keep their certificates in, and by which they answer each other's challenges.
//! Whoever shares it (a network file system, say) shares everything: which edge orders, and which one is asked by the
//! authority, does not matter.
//!
//! ```text
//! DIR/AUTHORITY/                    0700   one for each directory URL, so that a trial's certificates stay apart
//!   account.json                    0600   the account's key and address
//!   certificates/DOMAIN.pem         0600   chain and key in one file, so that they change together
//!   challenges/TOKEN.json           0600   what the authority may ask for now
//!   orders/DOMAIN.json              0600   attempts that failed, and when the next may begin
//!   orders/DOMAIN.lock              0600   who orders, and until when others wait
//! ```
//!
//! Each file is written by `trust`: a reader sees the old one or the new one, also after a loss of power.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use semantics::Wall;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trust::{beside, make_private_directory, write_new, write_private};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::plan::{Failures, Validity};

/// How long others wait for an edge that orders. Longer than an order may take.
const ORDER_MAX: Duration = Duration::from_secs(15 * 60);

/// Bytes of a file that are read; a larger one is none of ours.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A store of certificates. Cheap to clone; nothing is held open.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    /// Names this process among those that share the directory.
    holder: String,
}

/// A certificate that was ordered, as it lies in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What it was ordered for.
    pub domain: Box<str>,
    /// The chain, the certificate first, and its private key, as PEM.
    pub pem: Vec<u8>,
    /// Its dates.
    pub validity: Validity,
    /// Who issued it, as text.
    pub issuer: String,
    /// The certificate itself.
    pub(crate) der: CertificateDer<'static>,
}

/// Something that the authority may ask for, to see whose a domain is (RFC 8555 §8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Whose ownership is shown.
    pub domain: Box<str>,
    /// How the authority names the challenge.
    pub token: Box<str>,
    /// The answer.
    pub key_authorization: Box<str>,
    /// From when on nobody asks any more, in ms since the epoch.
    pub until_ms: i64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LockNote {
    holder: String,
    until_ms: i64,
}

/// The right to order for one domain. Dropping it lets others.
#[derive(Debug)]
pub(crate) struct OrderLock {
    path: PathBuf,
    note: LockNote,
}

impl Store {
    /// The store in `directory` for the authority at the URL `authority`. Touches nothing yet.
    pub fn new(directory: &Path, authority: &str, holder: impl Into<String>) -> Store {
        let place = authority.split_once("://").map_or(authority, |(_, rest)| rest);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let name: String = place.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        Store { root: directory.join(name.trim_start_matches('.')), holder: holder.into() }
    }

    /// Makes the directories that are missing.
    pub(crate) fn create(&self) -> io::Result<()> {
        ["certificates", "challenges", "orders"]
            .iter()
            .try_for_each(|name| make_private_directory(&self.root.join(name)))
    }

    /// When something was last put in or taken out; a change of it says that it is worth while to read again.
    pub(crate) fn changed(&self) -> [Option<SystemTime>; 3] {
        ["certificates", "challenges", "orders"]
            .map(|name| fs::metadata(self.root.join(name)).and_then(|found| found.modified()).ok())
    }

    /// The certificate for `domain`; `None` when there is none.
    ///
    /// # Errors
    /// `InvalidData` where the file holds none, otherwise of the file system. The text names the file.
    pub fn certificate(&self, domain: &str) -> io::Result<Option<Stored>> {
        let path = self.certificate_path(domain);
        let wrong = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let Some(pem) = read(&path).map_err(wrong)? else { return Ok(None) };
        Stored::from_pem(domain, pem).map(Some).map_err(|what| wrong(damaged(what)))
    }

    pub(crate) fn put_certificate(&self, stored: &Stored) -> io::Result<()> {
        write_private(&self.certificate_path(&stored.domain), &stored.pem)
    }

    /// What the authority may ask for at `now`. What is over by an hour is taken away: its edge has died.
    pub(crate) fn challenges(&self, now: Wall) -> io::Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for entry in fs::read_dir(self.root.join("challenges"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_json::<Asked>(&path) {
                Ok(Some(one)) if one.until_ms > now.0 => asked.push(one),
                Ok(Some(one)) if one.until_ms.saturating_add(3_600_000) < now.0 => _ = fs::remove_file(&path),
                _ => {}
            }
        }
        asked.sort_by(|one, other| one.token.cmp(&other.token));
        Ok(asked)
    }

    pub(crate) fn put_challenge(&self, asked: &Asked) -> io::Result<()> {
        write_json(&self.challenge_path(&asked.token)?, asked)
    }

    /// Takes a challenge away that is over. One that cannot be taken away ends by itself.
    pub(crate) fn remove_challenge(&self, token: &str) {
        if let Ok(path) = self.challenge_path(token) {
            let _ = fs::remove_file(path);
        }
    }

    /// What is known of failed attempts.
    pub(crate) fn failures(&self, domain: &str) -> Option<Failures> {
        read_json(&self.order_path(domain, "json")).ok().flatten()
    }

    pub(crate) fn put_failures(&self, domain: &str, failures: &Failures) -> io::Result<()> {
        write_json(&self.order_path(domain, "json"), failures)
    }

    pub(crate) fn forget_failures(&self, domain: &str) {
        let _ = fs::remove_file(self.order_path(domain, "json"));
    }

    /// The account, as it was put; `None` when there is none yet.
    pub(crate) fn account<T: DeserializeOwned>(&self) -> Result<Option<T>, String> {
        let path = self.root.join("account.json");
        read_json(&path).map_err(|what| format!("{}: {what}", path.display()))
    }

    pub(crate) fn put_account(&self, account: &impl Serialize) -> io::Result<()> {
        write_json(&self.root.join("account.json"), account)
    }

    /// Takes the right to order for `what`; `None` while another has it. One whose holder has not given it back in time
    /// is taken over, as is one that was taken by a clock more than [`ORDER_MAX`] ahead: it would be long until its time is over.
    pub(crate) fn lock(&self, what: &str, now: Wall) -> io::Result<Option<OrderLock>> {
        let path = self.order_path(what, "lock");
        let order_max = ORDER_MAX.as_millis() as i64;
        let until_ms = now.0.saturating_add(order_max);
        let note = LockNote { holder: self.holder.clone(), until_ms };
        // Of several that find an old one, one gets it out of the way.
        if let Ok(Some(old)) = read_json::<LockNote>(&path)
            && (old.until_ms <= now.0 || old.until_ms > until_ms.saturating_add(order_max))
        {
            let aside = beside(&path)?;
            if fs::rename(&path, &aside).is_ok() {
                if read_json::<LockNote>(&aside).ok().flatten().as_ref() != Some(&old) {
                    // A new one has come in between: it stays.
                    let _ = fs::hard_link(&aside, &path);
                }
                let _ = fs::remove_file(&aside);
            }
        }
        match write_new(&path, &serde_json::to_vec(&note)?) {
            Ok(()) => Ok(Some(OrderLock { path, note })),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => {
                // It may be there all the same, and others would wait for nobody.
                drop(OrderLock { path, note });
                Err(error)
            }
        }
    }

    fn certificate_path(&self, domain: &str) -> PathBuf {
        self.root.join("certificates").join(format!("{domain}.pem"))
    }

    fn order_path(&self, domain: &str, kind: &str) -> PathBuf {
        self.root.join("orders").join(format!("{domain}.{kind}"))
    }

    /// The authority chooses tokens, of letters that may stand in a URL (RFC 8555 §8.3); others would leave the directory.
    fn challenge_path(&self, token: &str) -> io::Result<PathBuf> {
        let is_sound = (1..=200).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        match is_sound {
            true => Ok(self.root.join("challenges").join(format!("{token}.json"))),
            false => {
                Err(io::Error::new(ErrorKind::InvalidInput, format!("the token {token:?} is not base64url")))
            }
        }
    }
}

impl Drop for OrderLock {
    fn drop(&mut self) {
        // One that was taken over is another's.
        if read_json::<LockNote>(&self.path).ok().flatten().as_ref() == Some(&self.note) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Stored {
    /// From chain and key as PEM in one text.
    pub(crate) fn from_pem(domain: &str, pem: Vec<u8>) -> Result<Stored, String> {
        let first = CertificateDer::pem_slice_iter(&pem)
            .next()
            .ok_or("there is no certificate in it")?
            .map_err(|error| error.to_string())?
            .into_owned();
        let (_, parsed) =
            X509Certificate::from_der(&first).map_err(|error| format!("it cannot be read: {error}"))?;
        let wall = |time: x509_parser::time::ASN1Time| Wall(time.timestamp().saturating_mul(1000));
        let validity = Validity {
            not_before: wall(parsed.validity().not_before),
            not_after: wall(parsed.validity().not_after),
        };
        let issuer = parsed.issuer().to_string();
        Ok(Stored { domain: domain.into(), pem, validity, issuer, der: first })
    }
}

/// The file's bytes; `None` when it is not there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let read = fs::metadata(path).and_then(|found| match found.len() {
        bytes if bytes > FILE_BYTES_MAX => {
            Err(damaged(format!("has {bytes} bytes; wanted at most {FILE_BYTES_MAX}")))
        }
        _ => fs::read(path),
    });
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes)?))
}

fn damaged(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_private(path, &serde_json::to_vec_pretty(value)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    use super::*;

    #[test]
    fn the_right_to_order_is_taken_from_who_has_it_when_its_time_is_over_or_was_never_meant() {
        let directory = std::env::temp_dir().join(format!("perigee-acme-lock-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let edge = |name: &str| Store::new(&directory, "https://authority.example", name);
        edge("one").create().unwrap();
        let at = |minutes: i64| Wall(1_000_000_000_000 + minutes * 60_000);
        for (minutes, is_free) in
            [(0, false), (-1, false), (-14, false), (14, false), (15, true), (-16, true)]
        {
            let held = edge("one").lock("a.example", at(0)).unwrap();
            assert!(held.is_some());
            let taken = edge("other").lock("a.example", at(minutes)).unwrap();
            assert_eq!(taken.is_some(), is_free, "by a clock that differs by {minutes} minutes");
            drop(held);
            assert_eq!(directory.join("authority.example/orders/a.example.lock").exists(), is_free);
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_right_to_order_that_could_not_be_made_safe_keeps_nobody_waiting() {
        let directory = std::env::temp_dir().join(format!("perigee-acme-unsafe-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let store = Store::new(&directory, "https://authority.example", "one");
        store.create().unwrap();
        let orders = directory.join("authority.example/orders");
        // Files can be put into it, and it cannot be opened to sync it: by none but root, whose thread gives that right up.
        fs::set_permissions(&orders, PermissionsExt::from_mode(0o300)).unwrap();
        let refused = std::thread::scope(|scope| {
            let lock = || {
                let none = CapabilitySet::empty();
                let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
                set_capabilities(None, sets).unwrap();
                store.lock("a.example", Wall(0)).map(drop)
            };
            scope.spawn(lock).join().unwrap()
        });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
        fs::set_permissions(&orders, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(fs::read_dir(&orders).unwrap().count(), 0);
        fs::remove_dir_all(&directory).unwrap();
    }
}
