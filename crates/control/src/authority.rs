//! The cluster's certificate authority: made at the first start, kept in one cell, its key sealed. It signs certificates, which say
//! who is who (`trust`), and configurations, as nodes run nothing else.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use journal::{Commit, Error, Journal};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use trust::{Identity, Peer, write_private};

use crate::audit;
use crate::cells;
use crate::clock::{ms, now_ms};
use crate::idempotency;
use crate::limits::{NODE_CERTIFICATE, SERVER_CERTIFICATE};
use crate::tls::AUTHORITY_FILE;
use crate::tokens::{Role, Token};
use crate::vault::{SECRET_FILE, TOKEN_FILE, Vault};

const CELL: &str = "authority";
const KEY: &str = "authority key";

/// A certificate is good this long before it is made, for the sake of clocks that are late.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Signs for the cluster.
pub(crate) struct Authority {
    pem: String,
    fingerprint: String,
    issuer: Issuer<'static, KeyPair>,
    signer: EcdsaKeyPair,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// PEM.
    certificate: String,
    /// PKCS #8, sealed, base64.
    key: String,
}

/// The cluster's authority: the one in the journal, or a new one with a first token.
///
/// # Errors
/// What to do when the journal cannot be reached, or the state directory is of another cluster.
pub(crate) async fn open(journal: &dyn Journal, state: &Path) -> Result<(Authority, Vault), String> {
    if let Some((kept, _)) = cells::load::<Kept>(journal, CELL).await.map_err(|error| error.to_string())? {
        let vault = Vault::open_in(state, false)?;
        return Ok((Authority::unseal(&kept, &vault, state)?, vault));
    }
    let authority = state.join(AUTHORITY_FILE);
    if authority.exists() {
        return Err(format!(
            "{}: this state directory is of a cluster, and the journal is empty; name the journal of that cluster, or \
             another state directory to begin a new one",
            authority.display()
        ));
    }
    let made = match state.join(SECRET_FILE).exists() {
        true => &[TOKEN_FILE][..],
        false => &[TOKEN_FILE, SECRET_FILE],
    };
    let vault = Vault::open_in(state, true)?;
    let kept = Authority::make(&vault)?;
    let (token, secret) = Token::make("admin", Role::Admin, "control")?;
    // Before the commit: a token that is in force and that nobody knows is of no use.
    write_private(&state.join(TOKEN_FILE), format!("{secret}\n").as_bytes())
        .map_err(|error| format!("{}: {error}", state.join(TOKEN_FILE).display()))?;
    let commit = || -> Result<Commit, Error> {
        let mut commit = Commit {
            expect: vec![(CELL.to_owned(), 0)],
            cells: vec![
                (CELL.to_owned(), Some(cells::value(&kept)?)),
                (Token::cell(&token.name), Some(cells::value(&token)?)),
                idempotency::first_cell()?,
            ],
            record: None,
        };
        audit::note(&mut commit, "control", "cluster.begin", journal.id(), None)?;
        Ok(commit)
    };
    let commit = commit().map_err(|error| error.to_string())?;
    match cells::commit(journal, commit).await {
        Ok(_) => Ok((Authority::unseal(&kept, &vault, state)?, vault)),
        Err(Error::Conflict(_)) => {
            for file in made {
                // What is left is found by the next start, and overwritten or refused then.
                let _left = std::fs::remove_file(state.join(file));
            }
            Err(format!(
                "another control has begun this cluster at the same moment; copy {SECRET_FILE} from its state \
                 directory to {} and start again",
                state.display()
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

impl Authority {
    fn make(vault: &Vault) -> Result<Kept, String> {
        let key = KeyPair::generate().map_err(broken)?;
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = named("Perigee cluster");
        wanted.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // As long as its cluster, as nobody would be there to replace it, and whatever the clock of a first start says. Its end is the
        // one that means none (RFC 5280 §4.1.2.5).
        wanted.not_before = date_time_ymd(1970, 1, 1);
        wanted.not_after = date_time_ymd(9999, 12, 31) + Duration::from_secs(24 * 3600 - 1);
        let certificate = wanted.self_signed(&key).map_err(broken)?;
        let sealed = vault.seal(KEY, key.serialized_der())?;
        Ok(Kept { certificate: certificate.pem(), key: BASE64_STANDARD.encode(sealed) })
    }

    fn unseal(kept: &Kept, vault: &Vault, state: &Path) -> Result<Authority, String> {
        let sealed = BASE64_STANDARD.decode(&kept.key).map_err(broken)?;
        let key = vault.open(KEY, &sealed).ok_or_else(|| {
            format!(
                "{}: this is the secret of another cluster than the journal's; copy it from the state directory of another \
                 control of the cluster",
                state.join(SECRET_FILE).display()
            )
        })?;
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key).map_err(broken)?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).map_err(broken)?;
        let certificate = CertificateDer::from_pem_slice(kept.certificate.as_bytes()).map_err(broken)?;
        Ok(Authority {
            issuer: Issuer::from_ca_cert_der(&certificate, key).map_err(broken)?,
            fingerprint: trust::fingerprint(&certificate),
            pem: kept.certificate.clone(),
            signer,
        })
    }

    /// What whoever talks to the cluster has to trust.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// What tokens and profiles pin it by.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The signature of the cluster, base64.
    pub(crate) fn sign(&self, text: &str) -> String {
        trust::sign(&self.signer, text)
    }

    /// A certificate for control itself: for nodes, who go by its role, and for operators' own programs, who go by its names.
    pub(crate) fn identity(
        &self,
        name: &str,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Identity, String> {
        let key = KeyPair::generate().map_err(broken)?;
        let mut wanted = CertificateParams::new(names.to_vec()).map_err(broken)?;
        wanted.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        let certificate = self.issue(wanted, trust::Role::Control, name, SERVER_CERTIFICATE, &key)?;
        Identity::from_pem(&self.pem, &certificate, &key.serialize_pem())
    }

    /// A certificate for a node's key, in PEM. `pop`: where it stands; empty when that is nowhere.
    pub(crate) fn issue_node(
        &self,
        role: trust::Role,
        name: &str,
        pop: &str,
        key: &impl PublicKeyData,
    ) -> Result<String, String> {
        let mut wanted = CertificateParams::default();
        if !pop.is_empty() {
            wanted.subject_alt_names.push(SanType::URI(Peer::pop_uri(pop).try_into().map_err(broken)?));
        }
        self.issue(wanted, role, name, NODE_CERTIFICATE, key)
    }

    fn issue(
        &self,
        mut wanted: CertificateParams,
        role: trust::Role,
        name: &str,
        life: Duration,
        key: &impl PublicKeyData,
    ) -> Result<String, String> {
        let uri = Peer::uri(role, name).try_into().map_err(broken)?;
        wanted.subject_alt_names.insert(0, SanType::URI(uri));
        wanted.distinguished_name = named(name);
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A relay is a server, too.
        wanted.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        wanted.serial_number = Some(serial()?);
        last(&mut wanted, life);
        Ok(wanted.signed_by(key, &self.issuer).map_err(broken)?.pem())
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// From now on, for this long.
fn last(wanted: &mut CertificateParams, life: Duration) {
    let at = |ms: i64| date_time_ymd(1970, 1, 1) + Duration::from_millis(ms.max(0) as u64);
    wanted.not_before = at(now_ms() - ms(CLOCK_SKEW));
    wanted.not_after = at(now_ms() + ms(life));
}

fn serial() -> Result<SerialNumber, String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system's random source gives nothing".to_owned())?;
    // A serial number is positive (RFC 5280 §4.1.2.2).
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from(bytes.to_vec()))
}

fn broken(error: impl std::fmt::Display) -> String {
    format!("the cluster's keys in the journal are damaged: {error}")
}

#[cfg(test)]
mod tests {
    use journal::memory::{Faults, Memory};
    use x509_parser::certificate::X509Certificate;
    use x509_parser::prelude::FromDer;

    use super::*;

    #[tokio::test]
    async fn who_loses_the_race_for_the_first_start_keeps_the_secret_that_it_was_given() {
        let mut lost = 0;
        for seed in 1..=20 {
            let journal = Memory::new("j", seed);
            journal.set_faults(Faults { delay_max: Duration::from_millis(5), ..Faults::default() });
            let states = ["given", "none"].map(|name| {
                std::env::temp_dir().join(format!("perigee-race-{}-{seed}-{name}", std::process::id()))
            });
            states.iter().for_each(|state| trust::make_private_directory(state).unwrap());
            let secret = states[0].join(SECRET_FILE);
            std::fs::write(&secret, "ab".repeat(32)).unwrap();
            let (given, none) = tokio::join!(open(&journal, &states[0]), open(&journal, &states[1]));
            let is_lost = |done: &Result<_, String>| {
                done.as_ref().is_err_and(|error: &String| error.contains("at the same moment"))
            };
            lost += usize::from(is_lost(&given));
            assert!(secret.exists(), "{:?}", given.err());
            assert!(!(is_lost(&none) && states[1].join(SECRET_FILE).exists()));
            assert!([&given, &none].iter().any(|done| done.is_ok()));
            states.iter().for_each(|state| std::fs::remove_dir_all(state).unwrap());
        }
        assert!(lost > 0);
    }

    #[test]
    fn an_authority_is_good_whatever_the_clock_said_when_it_was_made() {
        let state = std::env::temp_dir().join(format!("perigee-authority-{}", std::process::id()));
        trust::make_private_directory(&state).unwrap();
        let made = Vault::open_in(&state, true).and_then(|vault| Authority::make(&vault));
        std::fs::remove_dir_all(&state).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.unwrap().certificate.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&certificate).unwrap();
        let validity = certificate.validity();
        let (begin, end) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        assert_eq!((begin.year(), end.year()), (1970, 9999));
    }
}
